"""Receipts alone decide what is done; what counts as the same code; one claim mechanism; nothing half-written counts."""

import errno
import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from synthlib import costly, digests, locks, paths, receipts
from synthlib.files import write_atomic
from synthlib.inputs import InputError
from synthlib.settings import SETTINGS

SAMPLER = '''"""Doc."""
import torch
from dataclasses import dataclass
@dataclass
class A:
    x: int
    y: float = 1.0
def step(latents: torch.Tensor) -> torch.Tensor:
    """Doc."""
    return 2 * latents  # why
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('"""Doc."""\n    return', '"""Another."""\n    return', True),
        ('    """Doc."""\n', "", True),
        ("# why", "# because", True),
        (": torch.Tensor) -> torch.Tensor", ") -> None", True),
        ("x: int", "x: str", True),
        ("2 * latents", "3 * latents", False),
        ("x: int", "z: int", False),
        ("y: float = 1.0", "y: float = 2.0", False),
    ],
)
def test_only_code_counts_as_code(old, new, same):
    assert old in SAMPLER
    assert (digests.bare_source(SAMPLER) == digests.bare_source(SAMPLER.replace(old, new, 1))) is same


def notebook(*cells):
    return json.dumps({"cells": [{"cell_type": k, "source": s, "metadata": {"tags": t}} for k, s, t in cells]})


def test_a_notebooks_markdown_and_defaults_are_not_its_code(tmp_path):
    file = tmp_path / "n.ipynb"
    file.write_text(notebook(("markdown", "a", []), ("code", "x: int = 1", ["parameters"]), ("code", "print(x)", [])))
    assert digests.code_cells(file) == ["print(x)"]


def test_a_step_uses_the_modules_that_its_cells_reach():
    used = digests.modules_used(digests.code_cells(paths.notebook("01_generate")))
    assert {"synthlib.generation.sampler", "synthlib.generation.plan", "synthlib.data.shards"} <= set(used)
    assert not any(name.startswith(("synthlib.training", "synthlib.cli", "synthlib.runs")) for name in used)
    assert "synthlib.training.train" in digests.modules_used(digests.code_cells(paths.notebook("02_train")))


def test_costly_files_never_depend_on_settings_receipts_paths_or_cli():
    named = {name for modules in costly.COSTLY.values() for name in modules}
    assert named.isdisjoint({"names", "settings", "costly", "receipts", "paths", "cli"})
    assert all((paths.package() / f"{name.replace('.', '/')}.py").is_file() for name in named)


@pytest.fixture
def step(own_root, settings):
    """A finished step with one output, and its parameters."""
    given = settings("02_train", run_dir="papermill_runs/x/02_train/a", generated_dir="papermill_runs/x/01_generate/a")
    upstream = settings("01_generate", run_dir="papermill_runs/x/01_generate/a")
    for name, chosen in (("01_generate", upstream), ("02_train", given)):
        begun = receipts.begin(name, chosen)
        write_atomic(begun.folder / "out.bin", name.encode())
        begun.finish([begun.folder / "out.bin"])
    return {name: getattr(given, name) for name in given.__dataclass_fields__}


def test_a_finished_step_is_done_and_says_why_it_is_not(step, own_root):
    folder = own_root / step["run_dir"]
    assert receipts.state("02_train", step) == "done"
    assert receipts.state("02_train", step | {"epochs": 31}) == "parameters changed: epochs"
    receipt = json.loads((folder / "receipt.json").read_text())
    (folder / "receipt.json").write_text(json.dumps(receipt | {"code": "older"}))
    assert receipts.state("02_train", step) == "older code"
    costly.accept_code(folder)
    assert receipts.state("02_train", step) == "done"
    assert json.loads((folder / "receipt.json").read_text())["kept_from_code"] == "older"
    (folder / "out.bin").write_bytes(b"02_trulo")
    assert receipts.state("02_train", step) == "done"  # size is compared, bytes only when asked
    assert receipts.state("02_train", step, verify=True) == "output damaged: out.bin"
    whole = (folder / "receipt.json").read_bytes()
    with pytest.raises(InputError, match="damaged"):
        receipts.read_output(step["run_dir"], "out.bin")
    assert receipts.state("02_train", step) == "missing"  # so that the next run makes it again
    (folder / "receipt.json").write_bytes(whole)
    (folder / "out.bin").unlink()
    assert receipts.state("02_train", step) == "output missing: out.bin"


@pytest.mark.parametrize("name", ["notebook", "parameters", "inputs", "code", "outputs", "recorded", "bytes", "sha256"])
def test_a_damaged_receipt_is_none(step, own_root, name):
    file = own_root / step["run_dir"] / "receipt.json"
    text = file.read_text()
    for damaged in (text.replace(f'"{name}"', f'"{name}_"'), text[:-20], "[]", '{"outputs": 1}'):
        file.write_text(damaged)
        assert receipts.read_receipt(step["run_dir"]) is None
        assert receipts.state("02_train", step) == "missing"


def test_a_step_depends_on_the_bytes_of_its_inputs_and_not_on_their_receipts_time(step, own_root, settings):
    upstream = settings("01_generate", run_dir=step["generated_dir"])
    again = receipts.begin("01_generate", upstream)
    again.finish([again.folder / "out.bin"])
    assert receipts.state("02_train", step) == "done"
    again = receipts.begin("01_generate", upstream)
    write_atomic(again.folder / "out.bin", b"other")
    again.finish([again.folder / "out.bin"])
    assert receipts.state("02_train", step) == f"input changed: {step['generated_dir']}"


def test_a_missing_input_names_the_notebook_to_run(own_root, settings):
    with pytest.raises(
        InputError, match=r"run notebooks/01_generate.ipynb first, with dataset='digits', trick='merged'"
    ):
        receipts.begin("02_train", settings("02_train"))


def test_an_input_of_another_condition_or_of_a_changed_run_is_refused(step, own_root, settings):
    given = {"trained_dir": step["run_dir"], "generated_dir": step["generated_dir"]}
    with pytest.raises(InputError, match="has trick 'merged'; expected 'base_class'"):
        receipts.begin("03_eval", settings("03_eval", trick="base_class", **given))
    upstream = receipts.begin("01_generate", settings("01_generate", run_dir=step["generated_dir"]))
    write_atomic(upstream.folder / "out.bin", b"other")
    upstream.finish([upstream.folder / "out.bin"])
    with pytest.raises(InputError, match="has changed since; run notebooks/02_train.ipynb again"):
        receipts.begin("03_eval", settings("03_eval", **given))


def test_a_cell_with_magics_is_compared_as_it_stands():
    assert digests.bare_source("%matplotlib inline\nx = 1") != digests.bare_source("%matplotlib inline\nx = 2")
    assert digests.modules_used(["%time\nfrom synthlib import paths"]) == ["synthlib.paths"]


def test_versions_and_time_are_recorded_and_never_compared(step, own_root):
    file = own_root / step["run_dir"] / "receipt.json"
    receipt = json.loads(file.read_text())
    assert receipt["recorded"]["versions"]["torch"] and receipt["recorded"]["peak_memory_bytes"] > 1e6
    file.write_text(json.dumps(receipt | {"recorded": {}}))
    assert receipts.state("02_train", step) == "done"


def test_a_costly_file_is_current_only_whole_and_with_its_key(tmp_path):
    key = costly.file_key("checkpoints", {"epochs": 3})
    file = tmp_path / "model.safetensors"
    costly.write_keyed(file, b"weights", key, seconds=2.5)
    assert costly.is_current(file, key)
    assert not costly.is_current(file, costly.file_key("checkpoints", {"epochs": 4}))
    assert costly.seconds_of_older_code(tmp_path) == 0
    stored = json.loads((tmp_path / "model.safetensors.key").read_text())
    (tmp_path / "model.safetensors.key").write_text(json.dumps(stored | {"code": "older"}))
    assert not costly.is_current(file, key) and costly.seconds_of_older_code(tmp_path) == 2.5
    for damaged in ("3", "[]", *(json.dumps(stored).replace(f'"{name}"', f'"{name}_"') for name in stored)):
        (tmp_path / "model.safetensors.key").write_text(damaged)
        assert not costly.is_current(file, key) and costly.seconds_of_files(tmp_path) == 0
    (tmp_path / "model.safetensors.key").write_text(json.dumps(stored))
    file.write_bytes(b"weight")
    assert not costly.is_current(file, key)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("no folder")
    for attempt in (
        lambda: write_atomic(tmp_path / "file" / "x", b""),
        lambda: locks.claim(tmp_path / "file" / "x" / ".lock"),
    ):
        with pytest.raises(InputError, match="cannot write"):
            attempt()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_atomic(file, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match="No space left"):
        write_atomic(file, b"new")
    assert file.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


HOLD = """
import sys, time
from pathlib import Path
from synthlib.locks import claim
lock = claim(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def holder(path, driver=None):
    environment = os.environ | ({locks.DRIVER_VARIABLE: driver} if driver else {})
    environment.pop(locks.DRIVER_VARIABLE, None) if not driver else None
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert process.stdout.readline().strip() == "held"
    return process


def test_a_claim_is_exclusive_and_freed_by_death(tmp_path):
    process = holder(tmp_path / ".lock")
    assert locks.claim(tmp_path / ".lock", wait=False) is None
    process.kill()
    process.wait()
    locks.claim(tmp_path / ".lock").release()


def test_an_orphan_is_ended_by_who_takes_its_place(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    driver = locks.process_id(gone.pid)
    gone.wait()
    process = holder(tmp_path / ".lock", driver)
    start = time.monotonic()
    locks.claim(tmp_path / ".lock").release()
    process.wait(timeout=5)
    assert time.monotonic() - start < 20


class Enough(Exception):
    """Raised by a claim's check, so that it does not wait."""


def enough():
    raise Enough


@pytest.mark.parametrize("machine", ["elsewhere", None])
def test_the_holder_of_a_claim_that_is_not_of_this_machine_is_waited_for_whatever_its_number(tmp_path, capsys, machine):
    process = holder(tmp_path / ".lock", "1:0.00")
    owner = json.loads((tmp_path / ".lock.owner").read_text()) | {"machine": machine}
    if machine is None:  # as older code wrote it
        owner.pop("machine")
    (tmp_path / ".lock.owner").write_text(json.dumps(owner))
    with pytest.raises(Enough):
        locks.claim(tmp_path / ".lock", check=enough)
    said = f"process {process.pid} of {machine or 'an unnamed machine'}"
    assert process.poll() is None and said in capsys.readouterr().out
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    "forged", ["an innocent process", '["a list"]', '{"process": 3}', '{"process": "x", "driver": "y"}']
)
def test_whoever_does_not_hold_a_claim_is_left_alone_whatever_is_written_of_him(tmp_path, forged):
    process = holder(tmp_path / ".lock")
    innocent = holder(tmp_path / "other")
    if forged == "an innocent process":
        owner = json.loads((tmp_path / ".lock.owner").read_text())
        forged = json.dumps(owner | {"process": locks.process_id(innocent.pid), "driver": "1:0.00"})
    (tmp_path / ".lock.owner").write_text(forged)
    with pytest.raises(Enough):
        locks.claim(tmp_path / ".lock", check=enough)
    for one in (process, innocent):
        assert one.poll() is None
        one.kill()
        one.wait()


def test_an_orphan_of_another_user_is_waited_for(tmp_path, monkeypatch):
    process = holder(tmp_path / ".lock", "1:0.00")

    def denied(*_):
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "terminate", denied)
    with pytest.raises(Enough):
        locks.claim(tmp_path / ".lock", check=enough)
    assert process.poll() is None
    process.kill()
    process.wait()


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_file_system_without_locks_is_refused_in_one_line(tmp_path, monkeypatch):
    import fcntl

    def missing(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    for _ in range(2):
        with pytest.raises(InputError, match="cannot be locked; expected a file system with flock"):
            locks.claim(tmp_path / ".lock")


def test_settings_and_notebooks_have_the_same_parameters():
    from synthlib.runs.experiment import notebook_defaults

    for step, kind in SETTINGS.items():
        assert list(notebook_defaults(step)) == list(kind.__dataclass_fields__), step
