#!/usr/bin/env python
"""Engine: what Snakemake and a process of its own add to a step, and how soon an experiment that is done is seen to be.

First a set is drawn by the embedded model in as many parts as it has shards, each a run of notebook 01 through Snakemake. Then an
experiment of many steps, whose receipts are written without running them, is reproduced.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import arguments, described, heading, positive, report, significant, summary

from synthlib import paths

CHECKOUT = Path(__file__).resolve().parent.parent
NOTE = "note: Of a benchmark, numbers mean nothing.\narchitectures: [resnet]\ndatasets: [digits]\n"


def options() -> argparse.Namespace:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--shards", type=positive, default=64, help="parts that one set is drawn in")
    parser.add_argument("--rows", type=positive, default=20, help="images of a shard")
    parser.add_argument("--cores", type=positive, default=2, help="parts side by side")
    parser.add_argument("--steps", type=positive, default=500, help="steps, about, of the experiment that is done")
    parser.add_argument("--repeats", type=positive, default=5, help="looks at that experiment")
    return parser.parse_args()


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds that a part takes beyond its notebook's own run, and seconds to see that many steps are done."""
    import torch  # noqa: F401  for the hardware

    settings = {name: getattr(given, name) for name in ("shards", "rows", "cores", "steps", "repeats")}
    with tempfile.TemporaryDirectory() as folder, own_root(Path(folder)), contextlib.redirect_stdout(sys.stderr):
        return described("bench_engine", settings) | {"parts": parts(given), "done": done(given)}


@contextlib.contextmanager
def own_root(root: Path) -> Iterator[None]:
    """While in here the kit's runs are in a folder of their own, beside links to the checkout."""
    for name in ("notebooks", "profiles", "synthlib", "Snakefile"):
        (root / name).symlink_to(CHECKOUT / name)
    shutil.copytree(CHECKOUT / "experiments", root / "experiments")
    before = os.environ.get("SYNTHLIB_ROOT")
    os.environ["SYNTHLIB_ROOT"] = str(root)
    paths.root.cache_clear()
    try:
        yield
    finally:
        os.environ.pop("SYNTHLIB_ROOT")
        os.environ |= {"SYNTHLIB_ROOT": before} if before is not None else {}
        paths.root.cache_clear()


def reproduce(experiment: str, *words: object) -> tuple[float, str]:
    """Seconds that `synthlib reproduce` takes, and what it says."""
    command = [sys.executable, "-m", "synthlib.cli", "reproduce", experiment, *map(str, words)]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=paths.root(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - start, done.stdout


def parts(given: argparse.Namespace) -> dict[str, Any]:
    """A set drawn in parts: all seconds of all cores until the last part ended, less those of the notebooks, a part."""
    sizes = f"images_per_class: {given.shards * given.rows // 10}, shard_rows: {given.rows}, batch_size: 10"
    write("parts", f"title: Parts\nresults: [F1]\ntricks: [class_prompt]\n{NOTE}generate: {{device: cpu, {sizes}}}\n")
    wall, said = reproduce("parts", "--parts", given.shards, "--cores", given.cores)
    ended = [float(seconds) for seconds in re.findall(r"\] +(\d+) s +01_generate/\S+-of-\d+ ", said)]
    pages = sorted(paths.root().glob("papermill_runs/parts/01_generate/*/parts/*/executed.ipynb"))
    own = [json.loads(page.read_text())["metadata"]["papermill"]["duration"] for page in pages]
    assert len(own) == len(ended) == given.shards, said
    return {
        "notebook_seconds": summary(own),
        "seconds_until_the_last": max(ended),
        "seconds_in_all": significant(wall),
        "overhead_seconds_a_part": significant((given.cores * max(ended) - sum(own)) / given.shards),
    }


def done(given: argparse.Namespace) -> dict[str, Any]:
    """An experiment whose steps all have receipts: how long until it is known that nothing is to be run."""
    from synthlib import digests, receipts
    from synthlib.page.origins import made_from
    from synthlib.runs.experiment import read_experiment
    from synthlib.runs.steps import plan_steps
    from synthlib.settings import SETTINGS

    scales = [round(1 + place * 0.01, 2) for place in range(max(1, given.steps // 3))]
    write("done", f"title: Done\nresults: [F7]\n{NOTE}vary: {{guidance: {scales}}}\n")
    steps = plan_steps(read_experiment("done"))
    for planned in steps:
        step = receipts.begin(planned.notebook, SETTINGS[planned.notebook](**planned.parameters))
        (step.folder / "made.txt").write_text(planned.name)
        step.finish([step.folder / "made.txt"])
    figures = paths.figures_dir("done")
    shutil.copytree(CHECKOUT / "figures/reference/pocket", figures)
    page = figures / "report.html"
    page.write_text("no page\n")
    current = {"page_sha256": digests.sha256_file(page), "made_from": made_from("done")}
    page.with_suffix(".json").write_text(json.dumps(current))
    seconds = []
    for _ in range(given.repeats):
        took, said = reproduce("done")
        assert f"All {len(steps)} steps are done; nothing is run." in said, said
        seconds.append(took)
    return {"steps": len(steps), "seconds": summary(seconds)}


def write(name: str, text: str) -> None:
    (paths.root() / "experiments" / f"{name}.yaml").write_text(text)


def table(result: dict[str, Any]) -> str:
    parts, done = result["parts"], result["done"]
    own, looked = parts["notebook_seconds"], done["seconds"]
    return "\n".join([
        heading(result),
        f"a part's notebook: {own['median']:.1f} s ({own['min']:.1f} to {own['max']:.1f}, n = {own['n']}); beyond it "
        f"{parts['overhead_seconds_a_part']:.1f} s a part",
        f"{done['steps']} steps seen to be done in {looked['median']:.1f} s ({looked['min']:.1f} to {looked['max']:.1f}, "
        f"n = {looked['n']})",
    ])  # fmt: skip


if __name__ == "__main__":
    given = options()
    report(lambda: measure(given), table, given.json)
