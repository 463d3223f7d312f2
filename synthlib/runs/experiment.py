"""Experiments: an experiment file and results.yaml -> the steps that the wanted results need. Nothing else is run."""

import ast
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from synthlib import paths
from synthlib.data.hosted import hosted_name
from synthlib.inputs import InputError, choose, read_yaml
from synthlib.settings import ARCHITECTURE_ALIASES, MERGED_TRICKS, SETTINGS, TRICKS, architecture_name, trick_name

# What an experiment file may say, and the notebook whose parameters a section of it sets.
SECTIONS = {"generate": "01_generate", "train": "02_train", "evaluate": "03_eval"}
KEYS = {"title", "note", "results", "datasets", "tricks", "architectures", "measured", "by_dataset", "sets", *SECTIONS}
PLANNED = {"run_dir", "dataset", "trick", "architecture", "generated_dir", "trained_dir", "measures", "reuse_dirs"}
OTHERS = "others"  # under architectures: those of the results that are not named there
Condition = tuple[str, str, str]  # data set, trick, architecture or ""


@dataclass(frozen=True)
class Result:
    """One table or figure: what it claims and which conditions it needs. `stage` is the last notebook it needs."""

    id: str
    title: str
    claim: str
    file: str
    stage: str
    tricks: tuple[str, ...]
    measures: tuple[str, ...]


@dataclass(frozen=True)
class Experiment:
    """What an experiment file says. `tricks`: all, unless it names some.

    architectures: result -> those it is wanted for; sets: "drawn" by 01_generate, or "hosted" by the paper's authors.
    parameters: notebook -> those it sets there; by_dataset: data set -> the same, for that data set only.
    """

    name: str
    title: str
    note: str
    results: tuple[Result, ...]
    datasets: tuple[str, ...]
    tricks: tuple[str, ...]
    architectures: dict[str, tuple[str, ...]]
    sets: str
    parameters: dict[str, dict[str, Any]]
    by_dataset: dict[str, dict[str, dict[str, Any]]]
    measured: dict[str, dict[str, float]]


@dataclass(frozen=True)
class PlannedStep:
    """One notebook, once: its parameters in full, and the names of the steps it comes after."""

    name: str
    notebook: str
    parameters: dict[str, Any]
    after: tuple[str, ...]

    @property
    def run_dir(self) -> str:
        """The step's folder, below the root."""
        return self.parameters["run_dir"]


def read_results() -> dict[str, Result]:
    """Every table and figure that experiments/results.yaml defines."""
    found = {}
    for name, content in read_yaml(paths.results_file()).items():
        tricks = tuple(trick_name(trick) for trick in content["tricks"])
        stage = choose("stage", content["stage"], paths.STEPS)
        found[name] = Result(
            name, content["title"], content["claim"], content["file"], stage, tricks, tuple(content.get("measures", ()))
        )
    return found


def read_experiment(name: str) -> Experiment:
    """An experiment by name. InputError for anything unknown in its file."""
    file = paths.experiment_file(name)
    content = read_yaml(paths.experiment_file(choose("experiment", name, paths.experiment_names())))
    for key in content:
        choose(f"key in {file.name}", key, sorted(KEYS))
    kinds = {"title": (str,), "note": (str,), "results": (list,), "datasets": (list,), "architectures": (list, dict)}
    for key, expected in kinds.items():
        if not isinstance(content.get(key), expected) or not content[key]:
            kind = " or ".join(kind.__name__ for kind in expected)
            raise InputError(f"{file}: {key} is {content.get(key)!r}; expected a {kind}, see experiments/pocket.yaml.")
    for dataset in content["datasets"]:
        choose("data set", dataset, paths.dataset_files())
    known = read_results()
    wanted = [choose("result", result, known) for result in content["results"]]
    tricks = content.get("tricks", list(TRICKS))
    if not isinstance(tricks, list) or not tricks:
        raise InputError(f"{file}: tricks is {tricks!r}; expected a list of some, or leave the line out for all.")
    by_dataset = _mapping(content, "by_dataset", file.name)
    for dataset in by_dataset:
        choose(f"data set in by_dataset of {file.name}", dataset, content["datasets"])
        for section in _mapping(by_dataset, dataset, file.name):
            choose(f"section of {dataset} in {file.name}", section, SECTIONS)
    return Experiment(
        name=name,
        title=content["title"],
        note=content["note"],
        results=tuple(known[result] for result in wanted),
        datasets=tuple(content["datasets"]),
        tricks=tuple(trick_name(trick) for trick in tricks),
        architectures=_architectures(content["architectures"], wanted, file.name),
        sets=choose(f"sets in {file.name}", content.get("sets", "drawn"), ("drawn", "hosted")),
        parameters=_by_notebook(content, file.name),
        by_dataset={name: _by_notebook(by_dataset[name], file.name) for name in by_dataset},
        measured=content.get("measured") or {},
    )


def _architectures(given: list | dict[str, list], wanted: list[str], file: str) -> dict[str, tuple[str, ...]]:
    """Result -> architectures: one list for all, or a list for each result that is named, and one for the others."""
    of = given if isinstance(given, dict) else {OTHERS: given}
    for result in of:
        choose(f"result under architectures in {file}", result, [*wanted, OTHERS])
    for result in wanted:
        named = of.get(result, of.get(OTHERS))
        if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
            raise InputError(
                f"{file}: no architectures for {result}; expected a list under {result} or under {OTHERS}."
            )
    return {result: tuple(architecture_name(name) for name in of.get(result, of.get(OTHERS))) for result in wanted}


def _mapping(content: dict[str, Any], key: str, file: str) -> dict[str, Any]:
    """What a key of an experiment file maps; {} where it is left out. InputError: no mapping."""
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise InputError(f"{file}: {key} is {value!r}; expected a mapping of names to values, or leave the line out.")
    return value


def _by_notebook(content: dict[str, Any], file: str) -> dict[str, dict[str, Any]]:
    """Notebook -> the parameters that the sections of an experiment file, or of one of its data sets, set there."""
    found = {notebook: _mapping(content, section, file) for section, notebook in SECTIONS.items()}
    for notebook, parameters in found.items():
        for name in set(parameters) & PLANNED:
            raise InputError(
                f"{file}: {name} for {notebook} follows from the results that are wanted; leave it out there."
            )
    return found


def notebook_defaults(step: str) -> dict[str, Any]:
    """The parameters of a notebook and their defaults, from its parameters cell: the only place that holds them."""

    cells = json.loads(paths.notebook(step).read_text(encoding="utf-8"))["cells"]
    source = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
    return {n.target.id: ast.literal_eval(n.value) for n in ast.parse(source).body if isinstance(n, ast.AnnAssign)}


def complete(step: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A notebook's parameters in full: those given, checked and cast, and its defaults for the others.

    InputError for an unknown name (papermill would only warn, and run the default), with the nearest one.
    """
    defaults = notebook_defaults(choose("notebook", step, paths.STEPS))
    for name in parameters:
        choose(f"parameter of {step}", name, defaults)
    return asdict(SETTINGS[step].from_parameters(defaults | parameters))


def plan_steps(experiment: Experiment, only: Iterable[str] = (), cell: str = "") -> list[PlannedStep]:
    """The steps of an experiment, each after those it needs.

    With `only`, those that some results need, and a 04_figures of their own; with `cell`, such as T1/digits/merged/resnet,
    those up to that cell's result rows.
    """
    steps: dict[str, PlannedStep] = {}
    for (dataset, trick, architecture), measures in _conditions(experiment, experiment.results).items():
        drawn = [] if experiment.sets == "hosted" else [_add_generate(steps, experiment, dataset, trick)]
        folder = set_folder(experiment, dataset, trick)
        if architecture and folder:
            shared = {"dataset": dataset, "trick": trick, "architecture": architecture, "generated_dir": folder}
            condition = (dataset, trick, architecture)
            trained = _add(steps, experiment, "02_train", condition, shared, tuple(drawn))
            tested = shared | {"trained_dir": trained.run_dir, "measures": list(measures)}
            _add(steps, experiment, "03_eval", condition, tested, (*drawn, trained))
    if cell:
        name = f"03_eval/{'-'.join(parse_cell(cell, experiment))}"
        if name not in steps:
            raise InputError(f"cell {cell} cannot be run: {NOT_HOSTED}; choose another trick or experiment.")
        return _needed(steps, [name])
    if not steps and not any(set_folder(experiment, *c[:2]) for c in _conditions(experiment, experiment.results)):
        raise InputError(
            f"experiment {experiment.name} has nothing to run: its results want no trick that it has images of."
        )
    known = {result.id: result for result in experiment.results}
    chosen = [known[choose(f"result of experiment {experiment.name}", name, known)] for name in only]
    figures = _add_figures(steps, experiment, tuple(chosen) or experiment.results)
    return _needed(steps, [figures.name])


NOT_HOSTED = "the authors host no such set"


def set_folder(experiment: Experiment, dataset: str, trick: str) -> str:
    """The folder, below the root, of the images of a condition; "" if the authors host none for it."""
    if experiment.sets == "drawn":
        return paths.run_dir(experiment.name, "01_generate", dataset, trick)
    name = hosted_name(dataset, trick)
    return name and paths.below_root(paths.data_home() / name)


def _needed(steps: dict[str, PlannedStep], names: list[str]) -> list[PlannedStep]:
    """Some steps and all that come before them, in order."""
    needed, waiting = set(), list(names)
    while waiting:
        needed.add(name := waiting.pop())
        waiting += steps[name].after
    return [step for step in steps.values() if step.name in needed]


def _conditions(experiment: Experiment, results: tuple[Result, ...]) -> dict[Condition, tuple[str, ...]]:
    """(data set, trick, architecture or "") -> measures that some results need. Measures of a synthetic set are taken
    once, with the first architecture."""
    found: dict[Condition, tuple[str, ...]] = {}
    for dataset in experiment.datasets:
        for result in results:
            architectures = [""] if result.stage == "01_generate" else experiment.architectures[result.id]
            for trick in (trick for trick in result.tricks if trick in experiment.tricks):
                for place, architecture in enumerate(architectures):
                    key = (dataset, trick, architecture)
                    measures = result.measures if place == 0 else ()
                    found[key] = tuple(dict.fromkeys((*found.get(key, ()), *measures)))
    return found


def _add_generate(steps: dict[str, PlannedStep], experiment: Experiment, dataset: str, trick: str) -> PlannedStep:
    """A 01_generate step; merged sets come after their parts, whose images they take."""
    parts = []
    if trick in ("merged", "merged_full"):
        parts = [_add_generate(steps, experiment, dataset, part) for part in MERGED_TRICKS]
    parameters = {"dataset": dataset, "trick": trick, "reuse_dirs": [part.run_dir for part in parts], "replace": True}
    return _add(steps, experiment, "01_generate", (dataset, trick), parameters, tuple(parts))


def _add(
    steps: dict[str, PlannedStep],
    experiment: Experiment,
    notebook: str,
    condition: tuple[str, ...],
    parameters: dict[str, Any],
    after: tuple[PlannedStep, ...],
) -> PlannedStep:
    name = f"{notebook}/{'-'.join(condition)}"
    if name not in steps:
        of_dataset = experiment.by_dataset.get(parameters.get("dataset"), {})
        own = experiment.parameters.get(notebook, {}) | of_dataset.get(notebook, {}) | parameters
        own["run_dir"] = paths.run_dir(experiment.name, notebook, *condition)
        steps[name] = PlannedStep(name, notebook, complete(notebook, own), tuple(step.name for step in after))
    return steps[name]


def _add_figures(steps: dict[str, PlannedStep], experiment: Experiment, results: tuple[Result, ...]) -> PlannedStep:
    """The 04_figures step for some results, after every step that they need."""
    conditions = list(_conditions(experiment, results))
    folders = {(dataset, trick): set_folder(experiment, dataset, trick) for dataset, trick, _ in conditions}
    there = [condition for condition in conditions if folders[condition[:2]]]
    tested = [steps[f"03_eval/{'-'.join(condition)}"] for condition in there if condition[2]]
    drawn = [step for step in steps.values() if step.run_dir in folders.values()]
    parameters = {
        "experiment": experiment.name,
        "results": [result.id for result in results],
        "evaluated_dirs": [step.run_dir for step in tested],
        "generated_dirs": [folder for folder in folders.values() if folder],
        "figures_dir": f"figures/{experiment.name}",
        "wanted": [
            f"{result.id}: {'/'.join(c)}" for result in results for c in _conditions(experiment, (result,)) if c[2]
        ],
        "not_run": [f"{'/'.join(c)}: {NOT_HOSTED}" for c in conditions if c[2] and c not in there],
        "note": experiment.note,
    }
    name = ("all",) if results == experiment.results else tuple(result.id for result in results)
    return _add(steps, experiment, "04_figures", name, parameters, (*drawn, *tested))


def parse_cell(text: str, experiment: Experiment) -> tuple[str, str, str]:
    """A table cell such as T1/digits/merged/resnet -> (data set, trick, architecture)."""
    parts = text.split("/")
    if len(parts) != 4:
        raise InputError(f"cell {text!r} is not RESULT/DATASET/TRICK/ARCHITECTURE, such as T1/digits/merged/resnet.")
    results = {result.id: result for result in experiment.results}
    result = results[choose("result", parts[0], results)]
    dataset = choose("data set", parts[1], experiment.datasets)
    if result.stage != "03_eval":
        raise InputError(f"{result.id} has no cells of accuracies; expected a result such as T1.")
    tricks = [trick for trick in result.tricks if trick in experiment.tricks]
    trick = choose(f"trick of {result.id} in {experiment.name}", trick_name(parts[2]), tricks)
    return (
        dataset,
        trick,
        choose(
            f"architecture of {result.id} in {experiment.name}",
            ARCHITECTURE_ALIASES.get(parts[3].lower(), parts[3]),
            experiment.architectures[result.id],
        ),
    )
