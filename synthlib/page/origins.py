"""Origins: the finished steps behind each result, and what their receipts say of how they came to be."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthlib import paths, receipts
from synthlib.digests import sha256_file, sha256_json
from synthlib.files import RECEIPT, read_json
from synthlib.page.notebooks import page_name, step_parts
from synthlib.runs.run import EXECUTED

Condition = tuple[str, str, str]  # data set, treatment, architecture or ""


@dataclass(frozen=True)
class Origin:
    """One finished step. `page`: its executed notebook, relative to the report, or ""; digests are sha256."""

    name: str  # "03_eval/digits-merged-resnet"
    run_dir: str
    anchor: str
    page: str
    notebook: str
    parameters: list[tuple[str, str]]
    inputs: list[tuple[str, str]]
    outputs: list[tuple[str, int, str]]  # name, bytes, digest
    code: str
    commit: str
    finished: str
    seconds: float
    memory_gb: float
    hardware: str
    versions: str
    changed: list[str]  # inputs that were made again after this step had read them


def origin(run_dir: str) -> Origin | None:
    """What the receipt of a step says; None where it is not finished."""
    receipt = receipts.read_receipt(run_dir)
    if receipt is None:
        return None
    recorded, page = receipt.get("recorded", {}), page_name(run_dir)
    versions = {"Python": recorded.get("python", "")} | recorded.get("versions", {})
    has_page = (paths.resolve(run_dir) / EXECUTED).is_file()
    return Origin(
        name=step_name(run_dir),
        run_dir=run_dir,
        anchor=f"step-{page.removesuffix('.html')}",
        page=f"pages/{page}" if has_page else "",
        notebook=receipt.get("notebook", ""),
        parameters=[(name, _words(value)) for name, value in receipt.get("parameters", {}).items()],
        inputs=[(name, _words(digest)) for name, digest in receipt.get("inputs", {}).items()],
        outputs=[(name, made["bytes"], made["sha256"]) for name, made in receipt["outputs"].items()],
        code=str(receipt.get("code") or ""),
        commit=recorded.get("commit", ""),
        finished=recorded.get("finished", ""),
        seconds=float(recorded.get("seconds") or 0),
        memory_gb=float(recorded.get("peak_memory_bytes") or 0) / 1e9,
        hardware=recorded.get("hardware", ""),
        versions=", ".join(f"{name} {version}" for name, version in versions.items() if version),
        changed=_changed(receipt),
    )


def _changed(receipt: Mapping[str, Any]) -> list[str]:
    """The step folders among a receipt's inputs that hold something else today."""
    read = receipt.get("inputs", {})
    today = {name: receipts.output_digests(name) for name in receipts.input_dirs(receipt.get("parameters", {}))}
    return [name for name, made in today.items() if made is not None and read.get(name) != sha256_json(made)]


def step_name(run_dir: str) -> str:
    """A step as commands and logs name it: "papermill_runs/pocket/02_train/x" -> "02_train/x"."""
    return "/".join(step_parts(run_dir))


def behind(figures_run: str, stage: str, conditions: Sequence[Condition] = ()) -> list[str]:
    """The folders of the steps behind one result of a 04_figures run, in the order of the notebooks.

    stage: the last notebook before it; conditions: only what these need, none means all.
    """
    given = receipts.read_receipt(figures_run)["parameters"]
    folders = given[{"01_generate": "generated_dirs", "02_train": "trained_dirs", "03_eval": "evaluated_dirs"}[stage]]
    if conditions:
        wanted = set(conditions)
        folders = [folder for folder in folders if _condition(folder) in wanted]
    found = before(folders)
    return sorted(found, key=lambda folder: (step_name(folder).split("/")[0], found.index(folder)))


def before(folders: Iterable[str]) -> list[str]:
    """Some steps' folders and those of all steps before them, each once; those that are not finished are left out."""
    found: dict[str, None] = {}
    waiting = list(folders)
    while waiting:
        folder = waiting.pop(0)
        receipt = receipts.read_receipt(folder)
        if receipt is not None and folder not in found:
            found[folder] = None
            waiting += receipts.input_dirs(receipt.get("parameters", {}))
    return list(found)


def lost(folders: Iterable[str]) -> list[str]:
    """The folders that some finished steps read and where no receipt is any more."""
    read = (name for folder in folders for name in receipts.input_dirs(receipts.read_receipt(folder)["parameters"]))
    return [name for name in dict.fromkeys(read) if receipts.read_receipt(name) is None]


def made_from(experiment: str) -> str:
    """Digest of what the page of an experiment is made from: the receipts of its steps, and the committed run beside it."""
    runs = [paths.below_root(file.parent) for file in paths.figures_receipts(experiment)]
    files = [paths.resolve(folder) / RECEIPT for folder in before(runs)]
    files += sorted(paths.reference_dir(experiment).glob("*.csv"))
    return sha256_json([(paths.below_root(file), sha256_file(file)) for file in files])


def page_is_current(experiment: str) -> bool:
    """Whether the page of an experiment is the one that was made from what its receipts say today."""
    page = paths.report_file(experiment)
    known = read_json(page.with_suffix(".json"))
    known = known if isinstance(known, dict) else {}
    whole = page.is_file() and sha256_file(page) == known.get("page_sha256")
    return whole and made_from(experiment) == known.get("made_from")


def _condition(folder: str) -> Condition | None:
    """What a finished step is about; None where nothing is finished."""
    receipt = receipts.read_receipt(folder)
    if receipt is None:
        return None
    given = receipt.get("parameters", {})
    setting = given.get("setting", "")
    treatment = f"{given.get('trick', '')}{f'+{setting}' if setting else ''}"
    return given.get("dataset", ""), treatment, given.get("architecture", "")


def _words(value: Any) -> str:
    """A parameter or digest as text."""
    return ", ".join(map(str, value)) if isinstance(value, list) else "not there" if value is None else str(value)
