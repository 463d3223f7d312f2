#!/usr/bin/env python
"""The plan as a stream: rows a second and memory, from ten thousand rows to ten million, shard by shard, nothing drawn.

Each size runs in processes of its own, so that peak memory is its own. Imports, and one plan of one shard to warm up, come
before the clock starts.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import arguments, described, heading, positive, report, significant, summary

DATASET, TRICK, CLASSES, SHARD_ROWS = "digits", "merged", 10, 1000


def options() -> argparse.Namespace:
    parser = arguments(__doc__.splitlines()[0])
    sizes = [10_000, 100_000, 1_000_000, 10_000_000]
    parser.add_argument("--rows", type=positive, nargs="+", default=sizes, help="sizes of the plan")
    parser.add_argument("--repeats", type=positive, default=5, help="processes for each size")
    parser.add_argument("--one", type=positive, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if any(rows % CLASSES for rows in given.rows):
        parser.error(f"--rows {given.rows}: expected multiples of {CLASSES}, the classes of {DATASET}")
    return given


def stream(rows: int) -> tuple[float, float]:
    """Plan `rows` rows, shard by shard: file names and rows, each shard forgotten before the next.

    Seconds to open the plan (notebook's defaults, data set, digest of the model: once, whatever its size), and to stream it.
    """
    from synthlib.generation.generate import open_plan
    from synthlib.generation.plan import slice_rows
    from synthlib.runs.experiment import complete
    from synthlib.settings import GenerateSettings

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        given = {"dataset": DATASET, "trick": TRICK, "images_per_class": rows // CLASSES, "run_dir": folder}
        # no class here is a word of the embedded model, but a plan only asks which checkpoint it is
        settings = GenerateSettings(**complete("01_generate", given | {"shard_rows": SHARD_ROWS, "device": "cpu"}))
        plan = open_plan(settings)
        opened = time.perf_counter()
        made, names = 0, set()
        for path, slices in plan.shards():
            made += len(slice_rows(slices, settings, plan.spec))
            names.add(hash(path.name))
        ended = time.perf_counter()
    assert made == rows and len(names) == -(-rows // SHARD_ROWS)
    return opened - start, ended - opened


def one(rows: int) -> dict[str, float]:
    """This process's own measurement of one size."""
    import psutil

    stream(SHARD_ROWS)
    before = psutil.Process().memory_info().rss / 2**20
    opening, streaming = stream(rows)
    peak = peak_mb()
    return {
        "seconds": opening + streaming,
        "opening_seconds": opening,
        "seconds_per_million_rows": streaming / rows * 1e6,
        "peak_mb": peak,
        "peak_over_start_mb": max(peak - before, 0.0),
    }


def peak_mb() -> float:
    """Largest resident memory of this process so far, MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # of this program only; getrusage's includes what its parent held when it started it
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All sizes, alternating: each round runs every size once."""
    found: dict[int, list[dict[str, float]]] = {rows: [] for rows in sorted(set(given.rows))}
    for number in range(given.repeats):
        for rows, measured in found.items():
            command = [sys.executable, __file__, "--one", str(rows)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            measured.append(json.loads(done.stdout))
            print(
                f"round {number + 1} of {given.repeats}: {rows} rows, {measured[-1]['seconds']:.2f} s", file=sys.stderr
            )
    sizes = []
    for rows, measured in found.items():
        columns = {name: [run[name] for run in measured] for name in measured[0]}
        medians = {name: significant(statistics.median(values)) for name, values in columns.items()}
        sizes.append(
            {"rows": rows, "shards": -(-rows // SHARD_ROWS)}
            | {"rows_per_second": significant(rows / medians["seconds"])}
            | medians
            | {"spread": {name: summary(values) for name, values in columns.items()}}
        )
    settings = {"rows": list(found), "repeats": given.repeats, "dataset": DATASET, "trick": TRICK}
    return described("bench_plan", settings | {"shard_rows": SHARD_ROWS, "model": "embedded"}) | {
        "sizes": sizes,
        "rows_per_second": sizes[-1]["rows_per_second"],
        "peak_mb": sizes[-1]["peak_mb"],
        "cost_per_row_ratio": significant(sizes[-1]["seconds_per_million_rows"] / sizes[0]["seconds_per_million_rows"]),
        "notes": [
            "seconds: opening the plan, every shard's file name and every row; not process start, imports and warm-up. "
            "rows_per_second: of these. seconds_per_million_rows: without opening, which costs the same for any size; "
            "cost_per_row_ratio: of these, largest size over smallest, of medians. A row costs less in a "
            "large plan, whose shards hold rows of fewer groups; it must not cost more.",
            "peak_mb: largest resident memory of the process, torch and diffusers loaded; peak_over_start_mb: less what it "
            "held before planning.",
        ],
    }


def table(result: dict[str, Any]) -> str:
    lines = [
        heading(result),
        f"{'rows':>10} {'seconds':>9} {'rows/s':>9} {'s/M rows':>9} {'peak MiB':>9} {'over start':>10}",
    ]
    for size in result["sizes"]:
        lines.append(
            f"{size['rows']:10d} {size['seconds']:9.3f} {size['rows_per_second']:9.0f} "
            f"{size['seconds_per_million_rows']:9.3f} {size['peak_mb']:9.0f} {size['peak_over_start_mb']:10.1f}"
        )
    lines.append(f"cost of a row, largest over smallest: {result['cost_per_row_ratio']:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    given = options()
    if given.one:
        report(lambda: one(given.one), str, True)
    else:
        report(lambda: measure(given), table, given.json)
