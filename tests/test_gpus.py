"""GPUs of one machine, counted and claimed: tried with made-up device lists, on a CPU."""

import os
import signal
import subprocess
import sys

import pytest

from synthlib.gpus import VISIBLE, chosen_gpus, own_gpu, visible_gpus
from synthlib.inputs import InputError

TAKE = """
import sys, time
from synthlib.gpus import own_gpu
with own_gpu("auto") as name:
    import os
    print(name, os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def own_claims(tmp_path, monkeypatch):
    """Claims of this test's own, as if nobody else used this machine's GPUs."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return tmp_path


def taker():
    """A process that takes a GPU, says which, and holds it until its input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", TAKE], env=os.environ.copy(), **pipes)


def smi(folder, monkeypatch, *lines):
    """An nvidia-smi that tells of these GPUs."""
    (folder / "nvidia-smi").write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_gpus_are_those_of_the_variable_else_all_by_uuid(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, "GPU-a, NVIDIA H100", "GPU-b, NVIDIA H100")
    assert visible_gpus() == chosen_gpus("all") == ["GPU-a", "GPU-b"] and chosen_gpus("1") == ["GPU-b"]
    monkeypatch.setenv(VISIBLE, "3, 5")
    assert visible_gpus() == ["3", "5"] and chosen_gpus("0,1") == ["3", "5"]
    monkeypatch.setenv(VISIBLE, "-1")
    assert visible_gpus() == []
    with pytest.raises(InputError, match="there is no GPU here"):
        chosen_gpus("all")


def test_gpus_that_are_not_there_or_of_two_models_are_refused(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, "GPU-a, NVIDIA H100", "GPU-b, NVIDIA A100")
    with pytest.raises(InputError, match="several models.*GPU-b .NVIDIA A100"):
        visible_gpus()
    monkeypatch.setenv(VISIBLE, "GPU-b")
    assert visible_gpus() == ["GPU-b"]
    monkeypatch.setenv(VISIBLE, "1")
    assert visible_gpus() == ["1"]  # whichever that is, it is one
    monkeypatch.setenv(VISIBLE, "0,1")  # numbers may be CUDA's, which counts the fastest first
    with pytest.raises(InputError, match="several models.*GPU-b .NVIDIA A100"):
        visible_gpus()
    smi(tmp_path, monkeypatch, "GPU-a, NVIDIA H100", "GPU-b, NVIDIA H100")
    with pytest.raises(InputError, match="unknown GPU '2'.*Known: 0, 1"):
        chosen_gpus("0,2")


def test_a_machine_whose_driver_does_not_answer_has_no_gpus(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho failed because it could not communicate\nexit 9\n")
    assert visible_gpus() == []


def test_each_process_gets_a_gpu_of_its_own_and_waits_while_none_is_free(own_claims, monkeypatch):
    monkeypatch.setenv(VISIBLE, "0,MIG-a/1")
    first, second = taker(), taker()
    took = {first: first.stdout.readline().split(), second: second.stdout.readline().split()}
    assert sorted(took.values()) == [["0", "0"], ["MIG-a/1", "MIG-a/1"]]  # its only one, and so cuda:0 of it
    third = taker()
    assert third.stdout.readline() == "Waiting for one of 2 GPUs, which other processes use.\n"
    os.kill(first.pid, signal.SIGKILL)  # the end of a process, however it comes, frees what it held
    first.wait()
    assert third.stdout.readline().split() == took[first]
    for process in (second, third):
        process.communicate()


def test_no_gpu_is_claimed_where_none_is_wanted(own_claims, monkeypatch):
    monkeypatch.setenv(VISIBLE, "7")
    for device in ("cpu", "cuda:1"):
        with own_gpu(device) as name:
            assert name == "" and os.environ[VISIBLE] == "7"
    with own_gpu("cuda") as name:
        assert name == "7" and list(own_claims.glob("*/7.lock"))


def test_jobs_of_slurm_may_each_call_their_gpu_0_and_processes_of_one_job_share_its_gpus(own_claims, monkeypatch):
    monkeypatch.setenv(VISIBLE, "0,1")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    of_one = [taker(), taker()]
    assert sorted(process.stdout.readline() for process in of_one) == ["0 0\n", "1 1\n"]
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    of_another = taker()
    assert of_another.stdout.readline() == "0 0\n"
    for process in (*of_one, of_another):
        process.communicate()


def test_a_gpu_has_one_name_by_number_or_by_uuid(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, "GPU-a, NVIDIA H100", "GPU-b, NVIDIA H100")
    monkeypatch.setenv(VISIBLE, "1")
    assert visible_gpus() == ["GPU-b"]
    monkeypatch.setenv(VISIBLE, "GPU-b,GPU-a")
    assert visible_gpus() == ["GPU-b", "GPU-a"]


def test_what_could_be_seen_before_can_be_seen_again(own_claims, monkeypatch):
    monkeypatch.setenv(VISIBLE, "0,1,2")
    with own_gpu("auto"), own_gpu("cpu"):
        assert os.environ[VISIBLE] == "0"
    assert os.environ[VISIBLE] == "0,1,2"


@pytest.mark.parametrize("made", ["link", "open to all", "file"])
def test_a_folder_of_claims_that_somebody_else_may_have_made_is_refused(own_claims, monkeypatch, made):
    monkeypatch.setenv(VISIBLE, "0")
    with own_gpu("cuda"):
        (folder,) = own_claims.glob("synthlib-gpus-*")
        assert folder.stat().st_mode & 0o777 == 0o700
    (elsewhere := own_claims / "elsewhere").mkdir()
    folder.rename(own_claims / "kept")
    if made == "link":
        folder.symlink_to(elsewhere)
    elif made == "file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(InputError, match=f"cannot claim a GPU in {folder}"), own_gpu("cuda"):
        pass
    assert not list(elsewhere.iterdir()) and os.environ[VISIBLE] == "0"


def test_a_folder_of_claims_of_an_earlier_version_is_made_private(own_claims, monkeypatch):
    monkeypatch.setenv(VISIBLE, "0")
    with own_gpu("cuda"):
        pass
    (folder,) = own_claims.glob("synthlib-gpus-*")
    folder.chmod(0o755)
    with own_gpu("cuda") as name:
        assert name == "0" and folder.stat().st_mode & 0o777 == 0o700
