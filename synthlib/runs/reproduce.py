"""Reproduce: which steps of an experiment are not done, and Snakemake to do them, with one line a step."""

import contextlib
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from synthlib import costly, hub, paths, receipts
from synthlib.data.hosted import HOSTED, REAL
from synthlib.gpus import VISIBLE, chosen_gpus, visible_gpus
from synthlib.inputs import InputError, choose, read_yaml
from synthlib.names import OF_THE_POOL
from synthlib.runs import graph
from synthlib.runs.engine import engine_environment, engine_python
from synthlib.runs.experiment import Experiment
from synthlib.runs.run import LOG
from synthlib.runs.steps import PlannedStep

START_UP_S = 6  # of a step around its own work: processes, imports (measured on 2 cores)
REDO_AT_MOST_S = 30 * 60  # what older code made is made again unasked if that took less, by the times recorded


def states(steps: list[PlannedStep], verify: bool = False) -> dict[str, str]:
    """Step name -> "done" or why not. A step after one that will run waits for its outcome."""
    found: dict[str, str] = {}
    for step in steps:
        found[step.name] = receipts.state(step.notebook, step.parameters, verify)
        waits = [name for name in step.after if found[name] != "done"]
        if waits and found[step.name] in ("done", "older code"):
            found[step.name] += f" unless {waits[0]} changes" + (
                f" (and {len(waits) - 1} more)" if len(waits) > 1 else ""
            )
    return found


def dry_run(experiment: Experiment, steps: list[PlannedStep], cores: int) -> str:
    """What would run and why, how long it takes and how much it writes, by the last receipts or the file's measured means."""
    found = states(steps)
    waiting = [step for step in steps if found[step.name] != "done"]
    seconds = megabytes = 0.0
    for step in waiting:
        receipt = receipts.read_receipt(step.run_dir)
        measured = experiment.measured.get(step.notebook, {})
        seconds += START_UP_S
        drawn = costly.seconds_of_files(paths.resolve(step.run_dir))  # in parts, it may be: its own receipt counts none
        took = max(receipt["recorded"]["seconds"], drawn) if receipt else measured.get("seconds", float("nan"))
        seconds += took
        made = sum(made["bytes"] for made in receipt["outputs"].values()) / 1e6 if receipt else None
        megabytes += made if receipt else measured.get("megabytes", float("nan"))
    lines = [f"{step.name:<45} {found[step.name]}" for step in waiting]
    if names := wanted_downloads(waiting):
        lines.append(f"first downloaded, after a line that says how big each is: {', '.join(names)}")
    free = shutil.disk_usage(paths.root()).free / 1e6
    last = f"{len(waiting)} of {len(steps)} steps would run"
    if math.isnan(seconds + megabytes):
        last += (
            "; how long and how much is not measured yet (docs/hours_and_storage.md has estimates for the full size)"
        )
    else:
        last += f": about {seconds / max(1, min(cores, len(waiting))):.0f} s on {cores} cores, {megabytes:.0f} MB"
    lines += [f"{last}. {free:.0f} MB are free."]
    return "\n".join(lines)


def settle_older_code(steps: list[PlannedStep], redo: bool, keep: bool) -> None:
    """What to do where only the code differs: with `keep` accept it; else it is redone, if that is short or `redo`."""
    # "missing" is also a step that was interrupted: what it made so far may be of older code
    older = [step for step in steps if receipts.state(step.notebook, step.parameters) in ("older code", "missing")]
    older = [step for step in older if _of_older_code(step)]
    if keep:
        for step in older:
            costly.accept_code(paths.resolve(step.run_dir))
            print(f"kept, made by older code: {step.name}")
        return
    seconds = sum(costly.seconds_of_older_code(paths.resolve(step.run_dir)) for step in older)
    if seconds >= REDO_AT_MOST_S and not redo:
        raise InputError(
            f"{len(older)} steps were made by older code and took {seconds / 60:.0f} minutes; give --redo to run them again "
            "or --keep to accept them as they are."
        )


def _of_older_code(step: PlannedStep) -> bool:
    folder = paths.resolve(step.run_dir)
    return receipts.read_receipt(folder) is not None or costly.seconds_of_older_code(folder) > 0


@dataclass(frozen=True)
class Means:
    """With what steps are run: a profile's name in profiles/ or its folder, and what is 0 or "" as the profile says.

    cores: of this machine; parts: jobs that share the drawing of each set; gpus: those of this machine, see gpus.chosen_gpus.
    """

    profile: str = "local"
    cores: int = 0
    parts: int = 0
    gpus: str = ""


@dataclass(frozen=True)
class Launch:
    """How Snakemake is started. executor: its name for what runs jobs; said: the same for people; environment: added to ours."""

    executor: str
    options: list[str]
    parts: int
    said: str
    environment: dict[str, str]

    @property
    def here(self) -> bool:
        """Whether its jobs are processes of this machine."""
        return self.executor == "local"


def reproduce(experiment: Experiment, steps: list[PlannedStep], means: Means) -> bool:
    """Run what is not done of the steps that `plan_steps` gave, through Snakemake.

    Returns whether there was anything to run. Raises InputError naming how many steps failed, and why the first one did.
    """
    found = states(steps)
    waiting = [step for step in steps if found[step.name] != "done"]
    launch = launch_by(means, waiting)  # before anything is fetched
    if not waiting:
        print(f"All {len(steps)} steps are done; nothing is run.", flush=True)
        return False
    python = engine_python(launch.executor)
    if launch.executor == "slurm":
        _require_slurm()
    drawn = [s.parameters for s in waiting if "model" in s.parameters]
    for model, revision, safety in sorted({(p["model"], p["revision"], p["safety"]) for p in drawn}):
        hub.fetch(model, revision, safety == "flag")  # once, before many steps want it
    for name in wanted_downloads(waiting):
        from synthlib.data.downloads import download

        download(name)
    print(f"{len(waiting)} of {len(steps)} steps to do", end=": ", flush=True)
    run_steps(waiting, paths.resolve(paths.run_dir(experiment.name, ".engine")), launch, python)
    if failed := [step for step in steps if receipts.state(step.notebook, step.parameters) != "done"]:
        raise InputError(
            f"{len(failed)} steps are not done, {failed[0].name} among them; run the same command once more."
        )
    return True


def run_steps(steps: list[PlannedStep], home: Path, launch: Launch, python: str) -> None:
    """Run steps through Snakemake, which works in a folder in `home`; a line for each. InputError: how many failed, and why.

    python: starts Snakemake, see engine.engine_python. Steps are run by this one.
    """
    call = graph.open_engine(home, graph.in_parts(steps, launch.parts), launch.here)
    print(f"{len(call.steps)} jobs {launch.said}; details in {os.path.relpath(call.log)}", flush=True)
    command = [python, "-m", "snakemake", "--snakefile", str(paths.root() / "Snakefile")]
    command += ["--directory", str(call.folder), *launch.options]
    with open(call.log, "w") as file:
        engine = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=_with_caches(launch, engine_environment(python), call.folder / "caches"),
            cwd=call.folder,
            start_new_session=not launch.here,  # Ctrl-C comes once, from here
            preexec_fn=None if launch.here else _hear_ctrl_c,
        )
    try:
        call.started(engine.pid)
        for line in _watch(engine, call):
            print(line, flush=True)
    except BaseException:
        _end(engine, launch.here)
        raise
    finally:
        call.jobs_ended()
    left = [step for step in call.steps if not call.ended(step)]
    if left or engine.returncode:
        raise InputError(f"{len(left)} steps are not done. {_reason(call, left)}")
    call.remove()


def _with_caches(launch: Launch, environment: dict[str, str], folder: Path) -> dict[str, str]:
    """`environment`, what a launch adds, and caches in `folder` where the home's cannot be written: in containers, on nodes.

    Snakemake starts nothing without its cache and a user's name; matplotlib and IPython would make theirs anew for each step.
    """
    # Snakemake asks for the user's name, in vain where nobody knows it.
    given = {"LOGNAME": psutil.Process().username()} | environment | launch.environment
    cache = Path(given.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # those that use it take no notice of it then
        cache = Path(os.path.expanduser("~/.cache"))
    with contextlib.suppress(OSError):
        if launch.here:
            cache.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=cache).close()
            return given
    own = {name: str(folder / name.lower()) for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "IPYTHONDIR")}
    return {"HF_HOME": str(cache / "huggingface")} | given | own  # models stay where they are found


def launch_by(means: Means, steps: list[PlannedStep]) -> Launch:
    """What `means` comes to for some steps.

    InputError: an unknown or malformed profile; GPUs that are not there, or are another machine's.
    """
    there = sorted(file.parent.name for file in (paths.root() / "profiles").glob("*/config.yaml"))
    folder = paths.typed(means.profile)
    if not (folder / "config.yaml").is_file():
        folder = paths.root() / "profiles" / choose("profile", means.profile, there)
    profile = read_yaml(folder / "config.yaml")
    own = profile.get("config", [])  # as Snakemake has it in a profile
    parts = [re.fullmatch(r"parts=(\d+)", str(pair)) for pair in own] if isinstance(own, list) else [None]
    if not all(parts):
        raise InputError(f"{folder / 'config.yaml'}: config is {own!r}; expected nothing, or such as [parts=8].")
    cut = means.parts or (int(parts[-1][1]) if parts else 0)
    options = ["--profile", str(folder)]
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if min(means.cores, means.parts) < 0:
        raise InputError(
            f"--cores is {means.cores}, --parts {means.parts}; expected numbers of at least 1, or neither."
        )
    if (executor := profile.get("executor", "local")) == "local":
        cores = means.cores or os.cpu_count() or 1
        wanted = any(step.parameters.get("device", "cpu") != "cpu" for step in steps)
        gpus = chosen_gpus(means.gpus) if means.gpus else visible_gpus() if wanted else []
        if means.gpus:
            environment[VISIBLE] = ",".join(gpus)
        # Without a GPU, too, only one step at a time that would take one.
        options += ["--cores", str(cores), "--resources", f"gpu={max(1, len(gpus))}"]
        said = f"on {cores} cores" + (f" and {len(gpus)} GPUs" if gpus else "")
        return Launch(executor, options, cut or max(1, len(gpus)), said, environment)
    if means.gpus:
        raise InputError(
            f"--gpus is {means.gpus!r}; expected none with executor {executor}, which gives each job its own."
        )
    options += ["--cores", str(means.cores)] if means.cores else []
    return Launch(executor, options, cut or 1, f"by {executor}", environment)


def _require_slurm() -> None:
    """InputError, with what it says, where Slurm does not answer on this machine."""
    try:
        done = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, timeout=60)
        said = "" if done.returncode == 0 else done.stderr.strip().partition("\n")[0] or "no reason given"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if said:
        raise InputError(
            f"Slurm does not answer here ({said}); expected the login node of a cluster: give the command there."
        )


def wanted_downloads(steps: list[PlannedStep]) -> list[str]:
    """The data sets, by their names for `synthlib download`, that some steps read and that are not there."""
    found = {}
    for step in steps:
        given = step.parameters
        for folder in [given.get("generated_dir", ""), *given.get("generated_dirs", ())]:
            name = Path(folder).name
            if name in HOSTED and paths.resolve(folder) == paths.data_home() / name:
                found[name] = receipts.read_receipt(folder) is not None
        reads_real = step.notebook == "03_eval" or given.get("test_every") or given.get("trick") in OF_THE_POOL
        if reads_real and given["dataset"] in REAL and not given.get("real_dir", "given"):
            found[given["dataset"]] = any((paths.data_home() / given["dataset"]).glob("[!.]*"))
    return [name for name, there in found.items() if not there]


def _end(engine: subprocess.Popen, here: bool) -> None:
    """Interrupted: Snakemake starts nothing more, and each step that runs ends where its work is in one piece.

    Of a cluster's jobs Snakemake is told by Ctrl-C, by which it cancels them; at SIGTERM it would wait for them.
    """
    engine.send_signal(signal.SIGTERM if here else signal.SIGINT)
    told = set()
    while here and engine.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in set(psutil.Process(engine.pid).children(recursive=True)) - told:
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "synthlib.cli" in process.cmdline():
                        process.terminate()
                        told.add(process)
        time.sleep(0.2)
    engine.wait()


def _hear_ctrl_c() -> None:
    """What is started in the background may be deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _watch(engine: subprocess.Popen, call: graph.Engine) -> Iterator[str]:
    """One line for each step that Snakemake gets done, as it happens."""
    start, open_steps, done = time.monotonic(), list(call.steps), 0
    while open_steps:
        ended = engine.poll() is not None
        for step in [step for step in open_steps if call.ended(step)]:
            open_steps.remove(step)
            done += 1
            receipt = receipts.read_receipt(step.run_dir)
            took = receipt["recorded"]["seconds"] if receipt else float("nan")
            yield f"[{done:>3}/{len(call.steps)}] {time.monotonic() - start:5.0f} s  {step.name} ({took:.0f} s)"
        if ended:
            break
        time.sleep(0.2)
    engine.wait()


def _reason(call: graph.Engine, left: list[PlannedStep]) -> str:
    """The last line that the first step left printed, else the last error of Snakemake's log."""
    for step in left:
        file = paths.resolve(step.run_dir) / LOG
        of_this_call = file.is_file() and file.stat().st_mtime >= call.began
        lines = file.read_text(encoding="utf-8").strip().splitlines() if of_this_call else []
        if lines:
            return f"{step.name}: {lines[-1]}"
    said = [line for line in call.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = ([line for line in said if "Error" in line] or said or ["nothing"])[-1].strip()
    return f"Snakemake ended with: {told[:200]} (See {call.log}.)"
