"""Receipts: what a finished step was made from and what it made. They alone decide what is done.

A step's key is its parameters, the digests of its inputs and the digest of its code. What was costly to make has a key of its own
(synthlib/costly.py), so that a step that runs again reuses it.
"""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synthlib import digests, hub, mirror, paths
from synthlib.files import RECEIPT, read_json, remove_cut_off, write_json
from synthlib.inputs import InputError, read_yaml
from synthlib.interrupts import told_in_one_line
from synthlib.locks import Lock, claim
from synthlib.names import OF_THE_POOL
from synthlib.provenance import recorded
from synthlib.settings import SETTINGS

# --- keys -------------------------------------------------------------------------------------------------------------


def input_dirs(parameters: Mapping[str, Any]) -> list[str]:
    """The step folders among a notebook's parameters: those named *_dir and *_dirs, but where it writes, and real images."""
    found = []
    for name, value in parameters.items():
        if name.endswith(("_dir", "_dirs")) and name not in ("run_dir", "set_dir", "figures_dir", "real_dir"):
            found += value if isinstance(value, list) else [value]
    return [folder for folder in found if folder]


def read_receipt(folder: str | Path) -> dict[str, Any] | None:
    """The receipt of a finished step; None if there is none, or one that was damaged: its step is not done then."""
    receipt = read_json(paths.resolve(folder) / RECEIPT)
    kinds = {"notebook": str, "parameters": dict, "inputs": dict, "outputs": dict, "code": str, "recorded": dict}
    if not isinstance(receipt, dict) or not all(isinstance(receipt.get(name), kind) for name, kind in kinds.items()):
        return None
    made = receipt["outputs"].values()
    return receipt if all(isinstance(each, dict) and {"bytes", "sha256"} <= set(each) for each in made) else None


def settings_of(folder: str | Path) -> Any:
    """The settings that a finished step ran with. InputError: none is there, or older code made it with other parameters."""
    receipt = read_receipt(folder)
    if receipt is None:
        raise InputError(f"no finished run in {folder}; run the notebook that makes it first.")
    try:
        return SETTINGS[receipt["notebook"]](**receipt["parameters"])
    except (KeyError, TypeError):
        raise InputError(f"{folder} was made with other parameters than today's code has; {_again(receipt)}.") from None


def output_digests(folder: str) -> dict[str, str] | None:
    """Relative path -> sha256 of what a finished step made, as its receipt says; None if it is not finished."""
    receipt = read_receipt(folder)
    return receipt and {name: made["sha256"] for name, made in receipt["outputs"].items()}


def input_digests(parameters: Mapping[str, Any], remembered: bool = False) -> dict[str, Any]:
    """A digest of everything a step reads, by name; None for a step folder that is not finished. remembered: see digests.py."""
    inputs: dict[str, Any] = {}
    for folder in input_dirs(parameters):
        made = output_digests(folder)
        inputs[folder] = made and digests.sha256_json(made)
    if "dataset" in parameters:
        inputs["dataset"] = dataset_digest(parameters["dataset"])
    if "model" in parameters:
        inputs["model"] = model_digest(parameters["model"], parameters["revision"], remembered)
        if parameters["lossy_vae"]:
            inputs["lossy_vae"] = model_digest(parameters["lossy_vae"], "", remembered)
    if parameters.get("trick") == "prompt_list" and "prompts_file" in parameters:
        file = paths.resolve(parameters["prompts_file"] or paths.prompts_file(parameters["dataset"]))
        inputs["prompts"] = digests.sha256_file(file) if file.is_file() else None
    if parameters.get("weights"):
        inputs["weights"] = weights_digest(parameters["weights"], remembered)
    reads_real = "split" in parameters or parameters.get("test_every") or parameters.get("trick") in OF_THE_POOL
    if reads_real and "real_dir" in parameters:
        real = paths.resolve(parameters["real_dir"] or paths.data_home() / parameters["dataset"])
        inputs["real images"] = digests.images_digest(real, remembered)
    for space in parameters.get("feature_spaces", ()):
        if file := space.partition("@")[2]:
            inputs[f"weights of {space}"] = weights_digest(file, remembered)
    if parameters.get("measures") or parameters.get("keep_features") or parameters.get("judge"):
        inputs["referee"] = digests.sha256_file(paths.referee_weights())  # of the feature space, or a judge
    if "results" in parameters:
        inputs["results.yaml"] = digests.sha256_json(read_yaml(paths.results_file()))
        inputs["published.csv"] = digests.sha256_file(paths.published_file())
        inputs["claims.yaml"] = digests.sha256_json(read_yaml(paths.claims_file()))
        inputs["baselines"] = [digests.sha256_file(path) for path in paths.baseline_results()]
    return inputs


def dataset_digest(dataset: str) -> str | None:
    """Digest of what a data set's YAML says; None if there is none of this name (its reader says so)."""
    file = paths.dataset_files().get(dataset)
    return file and digests.sha256_json(read_yaml(file))


def weights_digest(weights: str, remembered: bool = False) -> str | None:
    """Digest of a file of initial weights; None if there is none."""
    file = paths.resolve(weights)
    return digests.sha256_large_file(file, remembered) if weights and file.is_file() else None


def model_digest(model: str, revision: str = "", remembered: bool = False) -> str | None:
    """What a text-to-image checkpoint is: its hub id and commit, or the digest of its folder or file; None if there is none."""
    if hub.is_hub_id(model):
        commit = hub.commit_of(model, revision)
        return commit and f"{model}@{commit}"
    source = hub.find(model)
    if source is None or source.is_dir():
        return source and digests.folder_digest(source, remembered)
    beside = (source.with_suffix(".yaml"), source.with_suffix("") / "tokenizer", source.parent / "tokenizer")
    # The first counts, as in single_file.
    used = {path.name: digests.path_digest(path, remembered) for path in beside[::-1] if path.exists()}
    return digests.sha256_json({"file": digests.path_digest(source, remembered)} | used)


def remove_receipt(folder: Path) -> None:
    """Make a step unfinished, if it is finished, here and in the mirror."""
    (folder / RECEIPT).unlink(missing_ok=True)
    mirror.drop(folder / RECEIPT)


# --- steps ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A step that is being worked on: `begin` claims its folder, `finish` writes its receipt.

    notebook: or the command that makes a set without one, "import" or "download".
    """

    notebook: str
    folder: Path
    parameters: dict[str, Any]
    inputs: dict[str, Any]
    code: str
    started: float
    lock: Lock

    def finish(self, outputs: Iterable[Path]) -> None:
        """Write the receipt, last of all files, mirror what the mirror lacks, and free the folder."""
        made, outputs = {}, [Path(path) for path in outputs]
        for path in outputs:
            name = os.path.relpath(path, self.folder)
            made[name] = {"bytes": path.stat().st_size, "sha256": digests.sha256_file(path)}
        receipt = {
            "notebook": self.notebook,
            "parameters": self.parameters,
            "inputs": self.inputs,
            "code": self.code,
            "outputs": made,
            "recorded": recorded(time.time() - self.started),
        }
        write_json(self.folder / RECEIPT, receipt)
        mirror.keep_step(self.folder / RECEIPT, outputs)
        self.lock.release()
        print(f"{self.notebook}: receipt written for {len(made)} files in {os.path.relpath(self.folder, paths.root())}")


@told_in_one_line()
def begin(notebook: str, settings: object) -> Step:
    """Claim a step's folder and fix its key.

    Raises InputError, naming the notebook to run, where an input is missing, was made from inputs that have changed since,
    or is of another data set, trick or architecture than `settings` says.
    """
    parameters = asdict(settings)
    folder = paths.resolve(parameters["run_dir"])
    for name in input_dirs(parameters):
        _check_input(name, parameters)
    lock = claim_folder(folder)
    inputs = input_digests(parameters)
    if state(notebook, parameters) != "done":
        remove_receipt(folder)
    return Step(notebook, folder, parameters, inputs, digests.notebook_digest(notebook), time.time(), lock)


def claim_folder(folder: Path) -> Lock:
    """Claim a folder to make a step or a set in it, and remove what cut-off writes left there."""
    lock = claim(folder / ".lock")
    remove_cut_off(folder)
    return lock


def _again(receipt: Mapping[str, Any]) -> str:
    """How to make again what a receipt tells of."""
    made_by = receipt["notebook"]
    return f"run notebooks/{made_by}.ipynb again" if made_by in paths.STEPS else f"run `synthlib {made_by}` again"


def _check_input(folder: str, parameters: Mapping[str, Any]) -> None:
    receipt = read_receipt(folder)
    if receipt is None:
        step = next((f"notebooks/{name}.ipynb" for name in paths.STEPS if f"/{name}" in f"/{folder}"), "what fills it")
        chosen = ", ".join(f"{k}={parameters[k]!r}" for k in ("dataset", "trick", "architecture") if k in parameters)
        raise InputError(f"no finished run in {folder}; run {step} first, with {chosen}.")
    again = _again(receipt)
    for name in input_dirs(receipt["parameters"]):
        made = output_digests(name)
        if made is None or receipt["inputs"].get(name) != digests.sha256_json(made):
            raise InputError(f"{folder} was made from {name}, which has changed since; {again}.")
    of_one_condition = folder in [parameters.get(name) for name in ("generated_dir", "kept_dir", "trained_dir")]
    for name in ("dataset", "trick", "architecture") if of_one_condition else ():
        theirs = receipt["parameters"].get(name)
        if name in parameters and theirs not in (None, parameters[name]):
            raise InputError(
                f"{folder} has {name} {theirs!r}; expected {parameters[name]!r}: set {name} to match, or {again}."
            )


def is_whole(folder: str | Path, name: str) -> bool:
    """Whether an output of a finished step is there with the bytes that its receipt tells of."""
    path, made = paths.resolve(folder) / name, (output_digests(str(folder)) or {}).get(name)
    return path.is_file() and digests.sha256_file(path) == made


def read_output(folder: str | Path, name: str) -> Path:
    """The path of one output of a finished step, its bytes checked against the receipt."""
    folder = paths.resolve(folder)
    receipt = read_receipt(folder)
    if not receipt or name not in receipt["outputs"]:
        raise InputError(f"{folder} has no finished output {name}; run the notebook that makes it again.")
    if not is_whole(folder, name):
        remove_receipt(folder)  # so that the next run makes it again
        raise InputError(f"{folder / name} is missing or damaged (its sha256 is not its receipt's); {_again(receipt)}.")
    return folder / name


def output_names(folder: str | Path, suffix: str) -> list[str]:
    """Names of a finished step's outputs with a suffix, in the receipt's order."""
    return [name for name in output_digests(str(folder)) or {} if name.endswith(suffix)]


def state(notebook: str, parameters: Mapping[str, Any], verify: bool = False) -> str:
    """Whether a step is done: "done", or why not ("missing", "older code", "parameters changed: ...", ...).

    verify: by all bytes of inputs and outputs; else by sizes and times, and what an earlier look remembered, but for what is
    printed or shown to people (04_figures', CSVs), which is hashed at each look.
    """
    folder = paths.resolve(parameters["run_dir"])
    receipt = read_receipt(folder)
    if receipt is None:
        return "missing"
    settings = asdict(SETTINGS[notebook](**parameters))
    changed = sorted(name for name in settings if receipt["parameters"].get(name) != settings[name])
    if changed or set(receipt["parameters"]) != set(settings):
        return f"parameters changed: {', '.join(changed) or 'their names'}"
    inputs = input_digests(settings, remembered=not verify)
    changed = sorted(name for name in inputs if receipt["inputs"].get(name) != inputs[name])
    if changed:
        return f"input changed: {', '.join(changed)}"
    for name, made in receipt["outputs"].items():
        path = folder / name
        if not path.is_file():
            return f"output missing: {name}"
        hashed = verify or notebook == "04_figures" or name.endswith(".csv")
        if path.stat().st_size != made["bytes"] or (hashed and digests.sha256_file(path) != made["sha256"]):
            return f"output damaged: {name}"
    return "done" if receipt["code"] == digests.notebook_digest(notebook) else "older code"
