"""Provenance: what is recorded of a step and never compared: versions, hardware, commit, time, memory."""

import contextlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from typing import Any

from synthlib import paths
from synthlib.gpus import VISIBLE

RECORDED_PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "timm", "numpy", "pillow", "pyarrow")

# Below the root; sets and tables that somebody makes beside them change nothing.
MAKING_RESULTS = ("synthlib", "notebooks", "experiments")


def recorded(seconds: float) -> dict[str, Any]:
    """What is recorded and never compared: versions, hardware, commit, time, memory."""
    versions = {}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there
    return {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": versions,
        "visible_gpus": os.environ.get(VISIBLE, "all"),
        "hardware": ", ".join([f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", *_gpus()]),
    }


def _gpus() -> list[str]:
    """The GPUs that torch sees, where it is in use."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def commit() -> str:
    """The checkout's commit, with "+changes" where what makes results differs from it; "unknown" outside a checkout."""
    try:
        git = ["git", "-C", str(paths.root())]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "--", *MAKING_RESULTS]
        changes = subprocess.run(status, capture_output=True, text=True, check=True).stdout
        return head + ("+changes" if changes.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
