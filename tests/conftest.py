"""What all tests share: a root of their own for runs, settings with a notebook's defaults, real data where it is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from synthlib import paths
from synthlib.runs.experiment import complete
from synthlib.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
# The markers of pyproject.toml; a test may be of several.
TIERS = ("slow", "runs", "realdata", "browser", "slurm", "colab")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def settings(tmp_path):
    """settings("01_generate", trick=...): a notebook's defaults, with run_dir in a temporary folder."""

    def make(step, **given):
        return SETTINGS[step](**complete(step, {"run_dir": str(tmp_path / step)} | given))

    return make


@pytest.fixture(scope="module")
def one_thread():
    """One CPU thread of torch for a module's tests: last bits depend on it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory):
    """A diffusers folder of Stable Diffusion v1's layout, tiny, with random weights; native size 512 x 512."""
    from tiny_models import write_tiny_sd

    write_tiny_sd(folder := tmp_path_factory.mktemp("models") / "tiny-sd")
    return folder


@pytest.fixture
def own_root(tmp_path, monkeypatch):
    """A root of one's own: the checkout's notebooks, experiments and package by link, papermill_runs and figures new."""
    for name in ("notebooks", "experiments", "synthlib", "profiles", "Snakefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setenv("SYNTHLIB_ROOT", str(tmp_path))
    paths.root.cache_clear()
    yield tmp_path
    paths.root.cache_clear()


@pytest.fixture(scope="session")
def own_engine(tmp_path_factory):
    """Snakemake in an environment of its own, as `synthlib engine` makes it from the registry."""
    root = tmp_path_factory.mktemp("engine")
    for name in ("notebooks", "pyproject.toml", "constraints.txt"):
        (root / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "synthlib.cli", "engine"]
    subprocess.run(command, env=os.environ | {"SYNTHLIB_ROOT": str(root)}, check=True)
    yield root / ".engine"
    shutil.rmtree(root)  # 300 MB


def tier_times(reports):
    """A line for each tier that ran: its tests, and the seconds they took with their fixtures, of all processes together."""
    lines = []
    for tier in TIERS:
        own = [report for report in reports if tier in report.keywords]
        tests = {report.nodeid for report in own}
        seconds = sum(report.duration for report in own)
        lines += [f"{seconds:6.0f} s  tier {tier}, tests: {len(tests)}"] if tests else []
    return lines


def pytest_terminal_summary(terminalreporter):
    """The time of each tier. In CI a skipped test is a failure, unless tests/allowed_skips.txt lists its reason."""
    reports = [one for found in terminalreporter.stats.values() for one in found if isinstance(one, pytest.TestReport)]
    for line in tier_times(reports):
        terminalreporter.write_line(line)
    if not os.environ.get("SYNTHLIB_FAIL_ON_SKIP"):
        return
    allowed = (ROOT / "tests" / "allowed_skips.txt").read_text().splitlines()
    for report in terminalreporter.stats.get("skipped", []):
        reason = str(report.longrepr[-1])
        if not any(line and not line.startswith("#") and line in reason for line in allowed):
            terminalreporter.write_line(f"not allowed to skip: {report.nodeid}: {reason}", red=True)
            terminalreporter._session.exitstatus = 1


@pytest.fixture
def record_server(monkeypatch, tmp_path):
    """Zenodo on loopback (local_record.RecordServer), asked in place of the true one, without waits between tries."""
    from huggingface_hub import constants
    from local_record import RecordServer

    from synthlib import transfer

    server = RecordServer()
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SYNTHLIB_ZENODO", server.address)
    monkeypatch.setenv("HF_ENDPOINT", server.address)  # where there is no hub
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(transfer, "CHUNK", 4096)  # bytes that are kept when a connection breaks
    monkeypatch.setattr(transfer, "TIMEOUT", 0.2)
    monkeypatch.setattr(transfer, "sleep", server.slept.append)  # before it tries again
    yield server
    server.close()
