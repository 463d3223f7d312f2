"""Experiments: what an experiment file and results.yaml say, read and checked; and a notebook's parameters in full."""

import ast
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from synthlib import paths
from synthlib.inputs import InputError, cast, choose, read_yaml, text
from synthlib.names import REAL_TRICKS, TRICKS, architecture_name, condition_name
from synthlib.settings import SETTINGS

# What an experiment file may say, and the notebook whose parameters a section of it sets.
SECTIONS = {"generate": "01_generate", "filter": "01b_filter", "train": "02_train", "evaluate": "03_eval"}
# The same sections, for some conditions only; the later one counts.
SPECIAL = ("by_dataset", "by_trick", "by_architecture")
KEYS = {"title", "note", "results", "datasets", "tricks", "architectures", "replicates", "vary", "measured", "sets",
        *SPECIAL, *SECTIONS}  # fmt: skip
PLANNED = {"run_dir", "dataset", "trick", "setting", "architecture", "generated_dir", "kept_dir", "trained_dir", "measures",
           "keep_features", "reuse_dirs"}  # fmt: skip
OTHERS = "others"  # under architectures and replicates: those of the results that are not named there
# What results.yaml may vary, as in guidance=3: one parameter or several, see runs/steps.py.
AXES = ("guidance", "images_per_class", "init", "judge", "split")


@dataclass(frozen=True)
class Result:
    """One table or figure: what it claims and which conditions it needs. `stage` is the last notebook it needs.

    vary: trick -> one of AXES: also this trick with each of the values that the experiment gives to that axis.
    measures: of the generated sets; features: whether they are kept, of the real pool too.
    """

    id: str
    title: str
    claim: str
    file: str
    stage: str
    tricks: tuple[str, ...]
    vary: dict[str, str]
    measures: tuple[str, ...]
    features: bool


@dataclass(frozen=True)
class Experiment:
    """What an experiment file says. `tricks`: all, unless it names some.

    architectures: result -> those it is wanted for; replicates: result -> how many at least, {} where the sections say it.
    vary: axis -> its values; sets: "drawn" by 01_generate, or "hosted" by the paper's authors.
    parameters: notebook -> those it sets there; special: SPECIAL -> name -> the same, for such conditions only.
    """

    name: str
    title: str
    note: str
    results: tuple[Result, ...]
    datasets: tuple[str, ...]
    tricks: tuple[str, ...]
    architectures: dict[str, tuple[str, ...]]
    replicates: dict[str, int]
    vary: dict[str, tuple]
    sets: str
    parameters: dict[str, dict[str, Any]]
    special: dict[str, dict[str, dict[str, dict[str, Any]]]]
    measured: dict[str, dict[str, float]]

    def given(self, notebook: str, dataset: str, trick: str, architecture: str = "") -> dict[str, Any]:
        """The parameters that the file sets for a notebook and a condition; "" is no architecture."""
        found = dict(self.parameters.get(notebook, {}))
        for key, name in zip(SPECIAL, (dataset, trick, architecture), strict=True):
            found |= self.special[key].get(name, {}).get(notebook, {})
        return found


def read_results() -> dict[str, Result]:
    """Every table and figure that experiments/results.yaml defines."""
    found, file = {}, paths.results_file().name
    for name, content in read_yaml(paths.results_file()).items():
        content, of = _mapping({name: content}, name, file), f"of {name} in {file}"
        words = {key: text(f"{key} {of}", content.get(key)) for key in ("title", "claim", "file", "stage")}
        vary = _mapping(content, "vary", file)
        found[name] = Result(
            **words | {"stage": choose("stage", words["stage"], paths.STEPS)},
            id=name,
            tricks=tuple(condition_name(trick) for trick in cast(f"tricks {of}", content.get("tricks", []), list)),
            vary={condition_name(trick): choose("axis", axis, AXES) for trick, axis in vary.items()},
            measures=tuple(cast(f"measures {of}", content.get("measures", []), list)),
            features=cast(f"features {of}", content.get("features", False), bool),
        )
    return found


def chosen_results(experiment: Experiment, only: Iterable[str]) -> list[Result]:
    """All results of an experiment, or `only` some. InputError for one that it does not have."""
    known = {result.id: result for result in experiment.results}
    for name in only:
        if name not in known and name in read_results():
            raise InputError(
                f"{experiment.name} leaves {name} out; expected some of {', '.join(known)}: choose among these, or an experiment "
                "that has it, as pocket_full has every result."
            )
    return [known[choose(f"result of experiment {experiment.name}", name, known)] for name in only or known]


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
            given = repr(content[key]) if key in content else "missing"
            raise InputError(f"{file}: {key} is {given}; expected a {kind}, see experiments/pocket.yaml.")
    tricks = content.get("tricks", [*TRICKS, *REAL_TRICKS])
    if not isinstance(tricks, list) or not tricks:
        raise InputError(f"{file}: tricks is {tricks!r}; expected a list of some, or leave the line out for all.")
    for key in ("results", "datasets", "tricks"):
        cast(f"{key} in {file}", content.get(key, tricks), list)  # of texts
    for dataset in content["datasets"]:
        choose("data set", dataset, paths.dataset_files())
    known = read_results()
    wanted = [choose("result", result, known) for result in content["results"]]
    special = {key: _mapping(content, key, file.name) for key in SPECIAL}
    names = {"by_dataset": content["datasets"]}
    names |= {"by_trick": sorted({t for r in known.values() for t in (*r.tricks, *r.vary)})}
    for key, parts in special.items():
        for part in parts:
            if key in names:
                choose(f"name in {key} of {file.name}", part, names[key])
            for section in _mapping(parts, part, file.name):
                choose(f"section of {part} in {file.name}", section, SECTIONS)
    return Experiment(
        name=name,
        title=content["title"],
        note=content["note"],
        results=tuple(known[result] for result in wanted),
        datasets=tuple(content["datasets"]),
        tricks=tuple(condition_name(trick) for trick in tricks),
        architectures=_architectures(content["architectures"], wanted, file.name),
        replicates=_replicates(_mapping(content, "replicates", file.name), wanted, file.name),
        vary=_vary(_mapping(content, "vary", file.name), file.name),
        sets=choose(f"sets in {file.name}", content.get("sets", "drawn"), ("drawn", "hosted")),
        parameters=_by_notebook(content, file.name),
        special={
            key: {_plain(key, name): _by_notebook(parts[name], file.name) for name in parts}
            for key, parts in special.items()
        },
        measured=content.get("measured") or {},
    )


def _plain(key: str, name: str) -> str:
    return architecture_name(name) if key == "by_architecture" else name


def _replicates(of: dict[str, int], wanted: list[str], file: str) -> dict[str, int]:
    """Result -> how many replicates it is wanted with; {} where the file does not say."""
    for result in of:
        choose(f"result under replicates in {file}", result, [*wanted, OTHERS])
    found = {result: of.get(result, of.get(OTHERS)) for result in wanted if of}
    for result, number in found.items():
        if type(number) is not int or number < 1:  # True is an int, too
            raise InputError(f"{file}: replicates of {result} is {number!r}; expected a number under it or {OTHERS}.")
    return found


def _vary(given: dict[str, list], file: str) -> dict[str, tuple]:
    """Axis -> its values, of guidance as they are written: they are part of names."""
    found = {}
    for axis, values in given.items():
        choose(f"axis under vary in {file}", axis, AXES)
        if not isinstance(values, list) or not values:
            raise InputError(f"{file}: {axis} under vary is {values!r}; expected a list of values.")
        kind = {"guidance": float, "images_per_class": int}.get(axis, str)
        typed = [cast(f"{axis} under vary in {file}", value, kind) for value in values]
        found[axis] = tuple(values if axis == "guidance" else typed)
    return found


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
