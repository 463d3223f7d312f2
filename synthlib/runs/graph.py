"""Graph: what a call of Snakemake is to run, written into a folder of its own that the Snakefile reads and works in.

Each call has its own: calls that share the runs (on one machine, or on nodes of a cluster) share no file of Snakemake's, only
the steps, which `synthlib run` claims one by one.
"""

import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from synthlib import paths
from synthlib.files import read_json, write_json
from synthlib.locks import alive, process_id, terminate
from synthlib.runs.steps import PlannedStep

GRAPH = "graph.json"  # named in the Snakefile, too
CALL = "call.json"  # of whom the call is, which process Snakemake is, and whether it has jobs elsewhere
# The Snakefile has a rule for each kind of step, by whose name a profile sets memory, time and more.
RULES = {
    "01_generate": "generate",
    "01b_filter": "filter",
    "02_train": "train",
    "03_eval": "evaluate",
    "04_figures": "figures",
}


@dataclass(frozen=True)
class Engine:
    """One call of Snakemake: its folder, and the steps that it is to run, each after those it needs."""

    folder: Path
    steps: list[PlannedStep]

    @property
    def log(self) -> Path:
        """What Snakemake prints."""
        return self.folder / "snakemake.log"

    @property
    def began(self) -> float:
        """When it was opened, in seconds as file systems count them."""
        return (self.folder / GRAPH).stat().st_mtime

    def started(self, pid: int) -> None:
        """Note which process Snakemake is, should the one that started it die."""
        self._note({"engine": process_id(pid)})

    def jobs_ended(self) -> None:
        """Note that none of its jobs is at work any more, wherever it was."""
        self._note({"jobs_elsewhere": False})

    def _note(self, said: dict[str, object]) -> None:
        write_json(self.folder / CALL, read_json(self.folder / CALL) | said)

    def ended(self, step: PlannedStep) -> bool:
        """Whether Snakemake has got a step done."""
        return _stamp(self.folder, step.name).exists()

    def remove(self) -> None:
        """Remove its folder, which nobody needs once all is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _stamp(folder: Path, name: str) -> Path:
    return folder / f"{name}.done"


def in_parts(steps: list[PlannedStep], parts: int) -> list[PlannedStep]:
    """The steps, with as many more before each 01_generate step as its shards are to be drawn in, `parts` at most.

    A part is a run of the same notebook on some of the set's shards; the set's own step finds them there. What copies its images
    from other sets is left in one piece.
    """
    from synthlib.data.datasets import read_spec
    from synthlib.generation.plan import n_rows
    from synthlib.settings import GenerateSettings

    found = []
    for step in steps:
        own = []
        if step.notebook == "01_generate" and not (step.parameters["reuse_dirs"] or step.parameters["part"]):
            given = step.parameters
            images = n_rows(GenerateSettings(**given), read_spec(given["dataset"], given["classes"], given["domains"]))
            number = min(parts, -(-images // given["shard_rows"]))
            own = [_part(step, place, number) for place in range(1, number + 1)] if number > 1 else []
        found += [*own, replace(step, after=(*step.after, *(part.name for part in own)))]
    return found


def _part(step: PlannedStep, place: int, parts: int) -> PlannedStep:
    folder = paths.part_dir(step.run_dir, place, parts)
    own = step.parameters | {"run_dir": folder, "set_dir": step.run_dir, "part": f"{place}/{parts}"}
    return PlannedStep(f"{step.name}/{place}-of-{parts}", step.notebook, own, step.after)


def open_engine(home: Path, steps: list[PlannedStep], here: bool = True) -> Engine:
    """Write what a call of Snakemake is to run, into a new folder in `home`: each step's parameters, and the graph of them.

    here: its jobs are processes of this machine. What earlier calls left there is tidied, see `_tidy`.
    """
    _tidy(home)
    folder = home / f"{time.strftime('%Y%m%d-%H%M%S')}.{platform.node()}.{os.getpid()}"
    write_json(folder / CALL, _caller() | {"process": process_id(), "engine": "", "jobs_elsewhere": not here})
    planned = {step.name for step in steps}
    graph = {}
    for step in steps:
        spec = folder / f"{step.name}.json"
        write_json(spec, {"notebook": step.notebook, "parameters": step.parameters})
        graph[step.name] = {
            "notebook": step.notebook,
            "spec": str(spec),
            "after": [name for name in step.after if name in planned],
            "threads": step.parameters.get("threads", 1),
            "gpu": int(step.parameters.get("device", "cpu") != "cpu"),
        }
    # This Python runs the steps, not Snakemake's; from Snakemake's folder the package must be found as it is from here.
    before = os.environ.get("PYTHONPATH")
    found = os.pathsep.join([str(paths.package().parent), *([before] if before else [])])
    write_json(folder / GRAPH, {"python": sys.executable, "pythonpath": found, "rules": RULES, "steps": graph})
    return Engine(folder, steps)


def _caller() -> dict[str, str]:
    """The machine and its user; whether a process of others is alive may not be seen."""
    return {"machine": platform.node(), "user": psutil.Process().username()}  # in a container perhaps a number


def _tidy(home: Path) -> None:
    """End what this user's calls on this machine whose caller is gone left in `home`, and remove their folders.

    A Snakemake that still runs is told to start nothing more. The folder of a call that was killed while it had jobs elsewhere
    stays, as they may outlive it.
    """
    for file in home.glob(f"*/{CALL}"):
        call = read_json(file)  # None where another call has just tidied it away
        if not call or not _caller().items() <= call.items() or alive(call["process"]):
            continue
        if call["engine"] and alive(call["engine"]):
            terminate(call["engine"])
        elif not call["jobs_elsewhere"]:
            shutil.rmtree(file.parent, ignore_errors=True)
