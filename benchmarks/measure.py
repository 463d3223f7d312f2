"""What all benchmarks share: alternating timings, medians with their spread, the machine, and a clean stdout."""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = Callable[[], object]


def alternate(jobs: dict[str, Job], repeats: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds and CPU seconds (of all threads) of each job, `repeats` times, after one call that does not count.

    All jobs run once a round, every second round in reverse order, so that whatever else the machine does hits all alike.
    """
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(repeats):
        for name in list(jobs)[:: -1 if number % 2 else 1]:
            start, cpu_start = time.perf_counter(), time.process_time()
            jobs[name]()
            seconds[name].append(time.perf_counter() - start)
            cpu_seconds[name].append(time.process_time() - cpu_start)
    return seconds, cpu_seconds


def summary(values: list[float]) -> dict[str, float]:
    """Median, smallest, largest and number of some values."""
    return {
        "median": significant(statistics.median(values)),
        "min": significant(min(values)),
        "max": significant(max(values)),
        "n": len(values),
    }


def ratios(over: list[float], under: list[float]) -> dict[str, float]:
    """Ratios of two jobs round by round, so that a slow spell of the machine cancels out; summed up as `summary` does."""
    return summary([a / b for a, b in zip(over, under, strict=True)])


def significant(value: float, digits: int = 5) -> float:
    """`value` to so many significant digits."""
    return float(f"{value:.{digits}g}")


def machine() -> dict[str, Any]:
    """The hardware: CPU model, cores this process may use, GPU if any. No host name."""
    gpu = None
    if "torch" in sys.modules:  # else this benchmark does not need it, and importing it costs memory
        import torch

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu_model(), "cores": cores, "gpu": gpu}


def _cpu_model() -> str:
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def described(benchmark: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What every result begins with: benchmark, date, hardware, versions, settings."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "numpy", "pyarrow")}
    return {
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": machine(),
        "versions": {"python": platform.python_version()} | versions,
        "settings": settings,
    }


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the option that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return int(text)


def report(job: Callable[[], dict[str, Any]], table: Callable[[dict[str, Any]], str], as_json: bool) -> None:
    """Run `job` and print its result, as JSON or as `table` makes it.

    Whatever it or its libraries print meanwhile, also from C code and child processes, goes to stderr.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        result = job()
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
    print(json.dumps(result, indent=1) if as_json else table(result))


def heading(result: dict[str, Any]) -> str:
    """The machine and the versions in one line, for tables."""
    hardware, versions = result["hardware"], result["versions"]
    return (
        f"{hardware['gpu'] or hardware['cpu']}, {hardware['cores']} cores; torch {versions['torch']}, "
        f"diffusers {versions['diffusers']}; {result['date']}"
    )
