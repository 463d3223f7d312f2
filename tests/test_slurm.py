"""profiles/slurm on a cluster of one node: jobs side by side, a job and the node killed midway, then the bytes of a local run."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import ROOT
from slurm_cluster import slurm_cluster, why_not
from test_guides import type_all
from test_runs import copy_checkout, environment, executed, files, synthlib

from synthlib.files import read_json
from synthlib.locks import alive

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(why_not()), reason=why_not())]

# What the test must have otherwise than profiles/slurm/config.yaml: squeue, as no accounting is there to ask, and no long waits.
OVERRIDES = {
    "slurm-status-command": "squeue",
    "slurm-init-seconds-before-status-checks": 1,
    "seconds-between-status-checks": 1,
    "latency-wait": 10,
}
PARTS = 4


@pytest.fixture(scope="module")
def cluster():
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # its sockets need a short path
    # more memory than there is, so that the profile's own requests fit four times; two seconds between SIGTERM and SIGKILL
    with slurm_cluster(folder, cpus=8, memory_mb=400_000, grace_s=2) as cluster:
        yield cluster
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A copy of the checkout with a finished local run."""
    root = copy_checkout(tmp_path_factory.mktemp("local") / "kit")
    synthlib(root, "reproduce", "tiny")
    return root


class Driver:
    """`synthlib reproduce tiny` on the cluster, as a process that can be watched and interrupted."""

    def __init__(self, cluster, root, **variables):
        profile = root.parent / "slurm"
        profile.mkdir(exist_ok=True)
        own = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text()) | OVERRIDES
        (profile / "config.yaml").write_text(yaml.safe_dump(own))
        command = [sys.executable, "-m", "synthlib.cli", "reproduce", "tiny", "--profile", str(profile)]
        self.cluster, self.root = cluster, root
        self.process = subprocess.Popen(
            [*command, "--parts", str(PARTS)], cwd=root, env=environment(root) | cluster.environment | variables,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def wait_until(self, true, what, seconds=120):
        end = time.monotonic() + seconds
        while not (found := true()):
            assert self.process.poll() is None, f"no {what}; it said: {self.process.communicate()[0]}{self.log()}"
            assert time.monotonic() < end, f"no {what} in {seconds} s: {self.cluster.jobs()}\n{self.log()}"
            time.sleep(0.2)
        return found

    def log(self):
        return "\n".join(file.read_text() for file in self.root.glob("papermill_runs/tiny/.engine/*/snakemake.log"))

    def at_work(self, rule):
        """The jobs of a rule whose steps have begun: job id -> step folder."""
        found = {}
        for job, (_, comment) in self.cluster.jobs("running").items():
            for owner in (self.root / "papermill_runs/tiny").rglob(".run.lock.owner"):
                step = owner.parent.relative_to(self.root / "papermill_runs/tiny").as_posix().replace("/parts/", "/")
                if comment == f"rule_{rule}_wildcards_{step.replace('/', '_')}" and self.begun(owner.parent):
                    found[job] = owner.parent
        return found

    @staticmethod
    def begun(folder):
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            owner = json.loads((folder / ".run.lock.owner").read_text())["process"]
            return psutil.Process(int(owner.split(":")[0])).is_running() and not (folder / "receipt.json").exists()
        return False

    def end(self):
        said = self.process.communicate(timeout=600)[0]
        return self.process.returncode, said


@pytest.fixture(scope="module")
def resumed(cluster, tmp_path_factory):
    """A copy of the checkout whose tiny run lost a job and a node, was interrupted, and was given again; what was seen."""
    root = copy_checkout(tmp_path_factory.mktemp("cluster") / "kit")
    first = Driver(cluster, root)
    try:
        together = first.wait_until(
            lambda: len(first.at_work("generate")) > 1 and first.at_work("generate"), "two jobs"
        )
        job = min(together, key=int)
        comment = cluster.jobs()[job][1]
        cluster.ask("scancel", job)
        first.wait_until(lambda: cluster.jobs()[job][0] == "CANCELLED", "cancelled job")
        again = first.wait_until(
            lambda: [one for one, (_, c) in cluster.jobs().items() if c == comment and one != job], "second try"
        )
        on_node = first.wait_until(lambda: first.at_work("generate"), "job at work")
        killed = cluster.kill_node()
        first.wait_until(lambda: cluster.node_state().startswith("down"), "node that is down")
        queued = cluster.jobs("pending")
        cluster.start_node()
        first.wait_until(lambda: first.at_work("train"), "training", 240)
        os.killpg(first.process.pid, signal.SIGINT)  # Ctrl-C
        code, said = first.end()
        first.seen = {
            "together": together, "cancelled": job, "again": again, "on_node": on_node, "killed": killed, "queued": queued,
            "code": code, "said": said, "left": cluster.jobs("running") | cluster.jobs("pending"),
            "executed": executed(root),
        }  # fmt: skip
        second = Driver(cluster, root)
        try:
            second.wait_until(lambda: second.at_work("evaluate"), "test", 240)
            second.process.terminate()
            first.seen["terminated"] = second.end()[0], cluster.jobs("running") | cluster.jobs("pending")
        finally:
            second.process.kill()
        killed = Driver(cluster, root)
        try:
            killed.wait_until(lambda: killed.at_work("evaluate"), "test", 240)
        finally:
            killed.process.kill()  # -9: its Snakemake goes on
        calls = [read_json(file)["engine"] for file in root.glob("papermill_runs/tiny/.engine/*/call.json")]
        [engine] = [engine for engine in calls if alive(engine)]
        third = Driver(cluster, root)
        try:
            first.seen["engine"] = third.wait_until(lambda: not alive(engine) and "ended", "end of the orphan")
            first.seen["again_code"], first.seen["again_said"] = third.end()
        finally:
            third.process.kill()
        return first
    finally:
        first.process.kill()


def receipts(root):
    """Step -> its outputs' sha256, of every step of the run but parts, which a local run has none of."""
    home = root / "papermill_runs/tiny"
    found = {
        file.parent.relative_to(home).as_posix(): json.loads(file.read_text()) for file in home.rglob("receipt.json")
    }
    return {
        step: {name: made["sha256"] for name, made in receipt["outputs"].items()}
        for step, receipt in found.items()
        if "/parts/" not in step
    }


def test_jobs_run_side_by_side_and_a_cancelled_one_is_tried_again(resumed):
    seen = resumed.seen
    assert len(seen["together"]) > 1 and seen["cancelled"] in seen["together"] and seen["again"]


def test_jobs_of_a_dead_node_go_back_into_the_queue(resumed):
    seen = resumed.seen
    assert seen["killed"] and set(seen["on_node"]) <= set(seen["queued"])


def test_ctrl_c_and_sigterm_end_the_jobs_and_the_same_command_goes_on(resumed):
    seen = resumed.seen
    assert seen["code"] == 130 and not seen["left"] and seen["terminated"] == (143, {})
    assert seen["again_code"] == 0, seen["again_said"] + resumed.log()
    kept = {name: when for name, when in executed(resumed.root).items() if name.startswith("01_generate/")}
    assert kept and kept.items() <= seen["executed"].items()


def test_a_killed_command_leaves_a_snakemake_that_the_next_one_ends(resumed):
    assert resumed.seen["engine"] == "ended" and resumed.seen["again_code"] == 0


def test_a_run_that_lost_a_job_and_a_node_has_the_bytes_of_a_local_run(resumed, local):
    assert receipts(resumed.root) == receipts(local)
    made = ("figures/tiny/*.csv", "figures/tiny/*.png", "papermill_runs/tiny/01_generate/*/*.parquet")
    assert files(resumed.root, *made) == files(local, *made)
    drawn = [json.loads(file.read_text()) for file in resumed.root.rglob("parts/*/receipt.json")]
    shards = [name for part in drawn for name in part["outputs"] if name.endswith(".parquet")]
    assert len(drawn) == PARTS == len(shards) == len(set(shards))


def test_what_either_profile_finished_the_other_finds_finished(resumed, local, cluster):
    assert "nothing is run" in synthlib(resumed.root, "reproduce", "tiny")
    jobs = cluster.jobs()
    code, said = Driver(cluster, local).end()
    assert code == 0 and "nothing is run" in said and cluster.jobs() == jobs


def test_jobs_of_an_engine_of_its_own_give_the_bytes_of_a_local_run(cluster, local, own_engine, tmp_path):
    root = copy_checkout(tmp_path / "kit")
    (root / "smart_open.py").write_text("raise SystemExit('a package of the other Python')")  # on its PYTHONPATH
    driver = Driver(cluster, root, SYNTHLIB_ENGINE=str(own_engine / "bin" / "python"))
    try:
        code, said = driver.end()
    finally:
        driver.process.kill()
    assert code == 0, said + driver.log()
    assert receipts(root) == receipts(local)


def test_the_guide_to_slurm(resumed, cluster):
    """Where its steps are done; what runs jobs is in the tests above."""
    own = {"PYTHONPATH": str(resumed.root), "SLURM_CONF": cluster.environment["SLURM_CONF"]}
    own["PATH"] = f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"
    said = type_all("slurm.md", resumed.root, **own)
    assert "nothing is run" in said and "4 of 4 steps done" in said and "JOBID STATE TIME" in said
