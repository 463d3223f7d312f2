"""Steps: the conditions that an experiment's results want -> the notebooks to run, each once. Nothing else is run."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from synthlib import paths
from synthlib.data.datasets import read_spec
from synthlib.data.hosted import hosted_name
from synthlib.inputs import InputError, cast, choose, read_yaml
from synthlib.names import ARCHITECTURE_ALIASES, IMAGE_TRICKS, MERGED_TRICKS, REAL_TRICKS, SPLITS, condition_name
from synthlib.runs.experiment import Experiment, Result, chosen_results, complete, notebook_defaults

# Data set, treatment, architecture or ""; a treatment is "trick" or "trick+axis=value".
Condition = tuple[str, str, str]
NOT_HOSTED = "the authors host no such set"


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


@dataclass(frozen=True)
class Need:
    """What the results want of a condition: measures of its images, their features kept, replicates (0: the file's)."""

    measures: tuple[str, ...] = ()
    features: bool = False
    replicates: int = 0


# --- conditions -------------------------------------------------------------------------------------------------------


def conditions(experiment: Experiment, results: Iterable[Result]) -> dict[Condition, Need]:
    """Every condition that some results want, and what they want of it.

    Measures of a synthetic set are taken once, with a result's first architecture. A condition has the most replicates
    that any result wants it with.
    """
    found: dict[Condition, Need] = {}
    for dataset in experiment.datasets:
        for result in results:
            architectures = [""] if result.stage == "01_generate" else experiment.architectures[result.id]
            for treatment in _treatments(experiment, result, dataset):
                for place, architecture in enumerate(architectures):
                    old = found.get((dataset, treatment, architecture), Need())
                    first = place == 0
                    found[dataset, treatment, architecture] = Need(
                        tuple(dict.fromkeys((*old.measures, *(result.measures if first else ())))),
                        old.features or (result.features and first),
                        max(old.replicates, experiment.replicates.get(result.id, 0)),
                    )
    return found


def _treatments(experiment: Experiment, result: Result, dataset: str) -> list[str]:
    """The treatments that a result wants of a data set; values that an axis cannot have there are left out."""
    found = list(result.tricks)
    for trick, axis in result.vary.items():
        found += [_named(experiment, dataset, trick, axis, value) for value in experiment.vary.get(axis, ())]
    return [treatment for treatment in dict.fromkeys(found) if treatment]


def _named(experiment: Experiment, dataset: str, trick: str, axis: str, value: object) -> str:
    """A treatment's name: the trick alone where the value is what it has anyway, "" where there is no such condition."""
    if axis == "images_per_class" and experiment.sets == "drawn":
        n = _images_per_class(experiment, dataset, trick)
        if trick == "merged_full":  # of n and fewer it would be merged itself
            return f"{trick}+{axis}={value}" if n < value <= len(MERGED_TRICKS) * n else ""
        return trick if value == n else f"{trick}+{axis}={value}" if value < n else ""
    if axis == "split" and (value == SPLITS[0] or not _pool_is_of_test(dataset)):
        return trick
    return f"{trick}+{axis}={value}"


def _pool_is_of_test(dataset: str) -> bool:
    """Whether the pool is a part of the test images, so that `rest` is not all of them (EuroSAT; see data/real.py)."""
    given = read_yaml(paths.dataset_files()[dataset]).get("pool_of_test", False)
    return cast(f"pool_of_test of data set {dataset}", given, bool)


def _images_per_class(experiment: Experiment, dataset: str, trick: str) -> int:
    default = notebook_defaults("01_generate")["images_per_class"]
    return experiment.given("01_generate", dataset, trick).get("images_per_class", default)


def _changes(experiment: Experiment, condition: Condition) -> dict[str, dict[str, Any]]:
    """Notebook -> the parameters that a treatment's setting changes there."""
    dataset, treatment, architecture = condition
    trick, _, setting = treatment.partition("+")
    axis, _, value = setting.partition("=")
    if axis == "guidance":  # the same prompts and seeds as with random guidance, all at one guidance scale
        return {"01_generate": {"min_scale": value, "max_scale": value}}
    if axis == "images_per_class":
        train = {"images_per_class": value, "unused_images": 0}  # so many count: of a whole set some may be left out
        if experiment.sets == "drawn":  # as many steps as with all images, so that only the images differ
            usual = _usual(experiment, condition)
            n_classes = len(usual["classes"] or read_spec(dataset).classes)
            whole = n_classes * _images_per_class(experiment, dataset, trick) - usual["unused_images"]
            many, few = (
                math.ceil(n / usual["batch_size"])  # steps an epoch
                for n in (whole, n_classes * int(value))
            )
            train["epochs"] = max(1, round(usual["epochs"] * many / few))
        return {"02_train": train}
    if axis == "init":  # T5 also asks what the choice of the best epoch on the test set does
        return {"02_train": {"init": value, "test_every": _usual(experiment, condition)["test_every"] or 1}}
    if axis == "judge":
        return {"01b_filter": {"judge": value, "images_per_class": _images_per_class(experiment, dataset, trick)}}
    return {"03_eval": {"split": value}} if axis == "split" else {}


def _usual(experiment: Experiment, condition: Condition) -> dict[str, Any]:
    """The parameters of 02_train of a condition, without what its axis changes."""
    dataset, treatment, architecture = condition
    named = {"dataset": dataset, "trick": treatment.partition("+")[0], "architecture": architecture}
    return complete("02_train", experiment.given("02_train", *named.values()) | named)


def why_not(experiment: Experiment, dataset: str, treatment: str) -> str:
    """Why a condition that a result wants cannot be run in an experiment; "" if it can."""
    trick = treatment.partition("+")[0]
    if trick not in experiment.tricks:
        return "this experiment leaves it out"
    if trick in REAL_TRICKS:
        return ""
    if experiment.sets == "hosted":
        return "" if hosted_name(dataset, trick) else NOT_HOSTED
    if trick in IMAGE_TRICKS and "model" not in experiment.special["by_trick"].get(trick, {}).get("01_generate", {}):
        return "no image-conditioned checkpoint"
    given = experiment.given("01_generate", dataset, trick).get("prompts_file")
    if trick == "prompt_list" and not given and not paths.prompts_file(dataset).is_file():
        return f"no list of prompts for {dataset}"
    return ""


def set_folder(experiment: Experiment, dataset: str, treatment: str) -> str:
    """The folder, below the root, of a treatment's images; "" if they are real, or cannot be had."""
    trick, _, setting = treatment.partition("+")
    if trick in REAL_TRICKS or why_not(experiment, dataset, treatment):
        return ""
    if experiment.sets == "hosted":
        return paths.below_root(paths.data_home() / hosted_name(dataset, trick))
    return _drawn_folder(experiment, dataset, treatment)


def _drawn_folder(experiment: Experiment, dataset: str, treatment: str) -> str:
    """The folder of images that 01_generate draws; settings of other notebooks take the trick's own."""
    trick, _, setting = treatment.partition("+")
    drawn = treatment if setting.startswith("guidance=") else trick
    return paths.run_dir(experiment.name, "01_generate", dataset, drawn)


# --- steps ------------------------------------------------------------------------------------------------------------


def plan_steps(experiment: Experiment, only: Iterable[str] = (), cell: str = "") -> list[PlannedStep]:
    """The steps of an experiment, each after those it needs.

    With `only`, those that some results need, and a 04_figures of their own; with `cell`, such as T1/digits/merged/resnet,
    those up to that cell's result rows.
    """
    steps: dict[str, PlannedStep] = {}
    wanted = conditions(experiment, experiment.results)
    possible = {condition: need for condition, need in wanted.items() if not why_not(experiment, *condition[:2])}
    if not possible:
        raise InputError(
            f"experiment {experiment.name} has nothing to run: its results want no trick that it has images of."
        )
    replicates: dict[str, int] = {}  # of the sets: the most that a condition takes of them
    for (dataset, treatment, _), need in possible.items():
        folder = set_folder(experiment, dataset, treatment)
        replicates[folder] = max(replicates.get(folder, 0), need.replicates)
    for condition, need in possible.items():
        _add_condition(steps, experiment, condition, need, replicates)
    if cell:
        dataset, treatment, architecture = parse_cell(cell, experiment)
        if why := why_not(experiment, dataset, treatment):
            raise InputError(f"cell {cell} cannot be run: {why}; choose another trick or experiment.")
        return _needed(steps, [f"03_eval/{dataset}-{treatment}-{architecture}"])
    figures = _add_figures(steps, experiment, tuple(chosen_results(experiment, only)))
    return _needed(steps, [figures.name])


def _needed(steps: dict[str, PlannedStep], names: list[str]) -> list[PlannedStep]:
    """Some steps and all that come before them, in order."""
    needed, waiting = set(), list(names)
    while waiting:
        needed.add(name := waiting.pop())
        waiting += steps[name].after
    return [step for step in steps.values() if step.name in needed]


def _add_condition(
    steps: dict[str, PlannedStep],
    experiment: Experiment,
    condition: Condition,
    need: Need,
    replicates: dict[str, int],
) -> None:
    """The steps of one condition: draw, filter, train, test, as far as it needs them."""
    dataset, treatment, architecture = condition
    trick, _, setting = treatment.partition("+")
    changes = _changes(experiment, condition)
    folder = set_folder(experiment, dataset, treatment)
    before = []
    if folder and experiment.sets == "drawn":
        before.append(_add_generate(steps, experiment, condition, changes.get("01_generate", {}), replicates))
    if not architecture:
        return
    shared = {"dataset": dataset, "trick": trick, "generated_dir": folder}
    train = {"architecture": architecture, "replicates": need.replicates} if need.replicates else {}
    if "01b_filter" in changes:
        place = (dataset, treatment)
        before.append(_add(steps, experiment, "01b_filter", place, shared | changes["01b_filter"], tuple(before)))
        train["kept_dir"] = before[-1].run_dir
    said = "replicates" in experiment.given("02_train", dataset, trick, architecture)
    if trick in REAL_TRICKS and not need.replicates and not said:  # as many as of those that were drawn
        train["replicates"] = experiment.given("01_generate", dataset, trick).get("replicates", 1)
    shared["architecture"] = architecture
    train |= shared | changes.get("02_train", {})
    trained = _add_trained(steps, experiment, condition, train, tuple(before))
    tested = shared | {"setting": setting, "trained_dir": trained.run_dir, "measures": list(need.measures)}
    tested |= {"keep_features": need.features} | changes.get("03_eval", {})
    _add(steps, experiment, "03_eval", condition, tested, (*before, trained))


def _add_trained(
    steps: dict[str, PlannedStep],
    experiment: Experiment,
    condition: Condition,
    parameters: dict[str, Any],
    after: tuple[PlannedStep, ...],
) -> PlannedStep:
    """The 02_train step of a condition: that of the trick alone, where the setting changes nothing there."""
    dataset, treatment, architecture = condition
    plain = steps.get(f"02_train/{dataset}-{treatment.partition('+')[0]}-{architecture}")
    own = experiment.given("02_train", dataset, parameters["trick"], architecture) | parameters
    if plain and complete("02_train", own | {"run_dir": plain.run_dir}) == plain.parameters:
        return plain
    return _add(steps, experiment, "02_train", condition, parameters, after)


def _add_generate(
    steps: dict[str, PlannedStep],
    experiment: Experiment,
    condition: Condition,
    changes: dict[str, Any],
    replicates: dict[str, int],
) -> PlannedStep:
    """A 01_generate step; merged sets come after their parts, whose images they take."""
    dataset, treatment, _ = condition
    trick = treatment.partition("+")[0]
    folder, parts = _drawn_folder(experiment, dataset, treatment), []
    if trick in ("merged", "merged_full"):
        for part in MERGED_TRICKS:
            place = _drawn_folder(experiment, dataset, part)
            as_many = replicates | {place: max(replicates.get(place, 0), replicates.get(folder, 0))}
            parts.append(_add_generate(steps, experiment, (dataset, part, ""), {}, as_many))
    parameters = {"dataset": dataset, "trick": trick, "reuse_dirs": [part.run_dir for part in parts], "replace": True}
    if replicates.get(folder):
        parameters["replicates"] = replicates[folder]
    name = folder.rpartition("/")[2].removeprefix(f"{dataset}-")
    return _add(steps, experiment, "01_generate", (dataset, name), parameters | changes, tuple(parts))


def _add(
    steps: dict[str, PlannedStep],
    experiment: Experiment,
    notebook: str,
    place: tuple[str, ...],
    parameters: dict[str, Any],
    after: tuple[PlannedStep, ...],
) -> PlannedStep:
    """A step, unless it is there: what the experiment says of its condition, and above that what the plan says."""
    name = f"{notebook}/{'-'.join(place)}"
    if name not in steps:
        condition = [parameters.get(key, "") for key in ("dataset", "trick", "architecture")]
        own = experiment.given(notebook, *condition) | parameters
        own["run_dir"] = paths.run_dir(experiment.name, notebook, *place)
        try:
            parameters = complete(notebook, own)
        except InputError as error:
            raise InputError(f"experiment {experiment.name}, step {name}: {error}") from None
        steps[name] = PlannedStep(name, notebook, parameters, tuple(step.name for step in after))
    return steps[name]


def _add_figures(steps: dict[str, PlannedStep], experiment: Experiment, results: tuple[Result, ...]) -> PlannedStep:
    """The 04_figures step for some results, after every step that they need."""
    inputs: dict[str, dict[str, None]] = {"01_generate": {}, "02_train": {}, "03_eval": {}}  # folders, each once
    wanted, not_run = [], {}
    for result in results:
        for condition in conditions(experiment, (result,)):
            name = "/".join(condition).rstrip("/")
            wanted.append(f"{result.id}: {name}")
            if why := why_not(experiment, *condition[:2]):
                not_run[f"{name}: {why}"] = None
            elif result.stage == "01_generate":
                inputs["01_generate"][set_folder(experiment, *condition[:2])] = None
            else:
                inputs[result.stage][steps[f"{result.stage}/{'-'.join(condition)}"].run_dir] = None
    parameters = {
        "experiment": experiment.name,
        "results": [result.id for result in results],
        "evaluated_dirs": list(inputs["03_eval"]),
        "trained_dirs": list(inputs["02_train"]),
        "generated_dirs": list(inputs["01_generate"]),
        "figures_dir": f"figures/{experiment.name}",
        "wanted": wanted,
        "not_run": list(not_run),
        "note": experiment.note,
    }
    after = [step for step in steps.values() if any(step.run_dir in folders for folders in inputs.values())]
    name = ("all",) if results == experiment.results else tuple(result.id for result in results)
    return _add(steps, experiment, "04_figures", name, parameters, tuple(after))


def parse_cell(text: str, experiment: Experiment) -> Condition:
    """A table cell such as T1/digits/merged/resnet or F7/digits/random_guidance+guidance=3/resnet -> its condition."""
    parts = text.split("/")
    if len(parts) != 4:
        raise InputError(f"cell {text!r} is not RESULT/DATASET/TRICK/ARCHITECTURE, such as T1/digits/merged/resnet.")
    results = {result.id: result for result in experiment.results}
    result = results[choose("result", parts[0], results)]
    dataset = choose("data set", parts[1], experiment.datasets)
    if result.stage != "03_eval":
        raise InputError(f"{result.id} has no cells of accuracies; expected a result such as T1.")
    trick, plus, setting = parts[2].partition("+")
    treatments = _treatments(experiment, result, dataset)
    named = condition_name(trick) if not setting else f"{condition_name(trick)}{plus}{setting}"
    treatment = choose(f"trick of {result.id} in {experiment.name}", named, treatments)
    architectures = experiment.architectures[result.id]
    plain = ARCHITECTURE_ALIASES.get(parts[3].lower(), parts[3])
    return dataset, treatment, choose(f"architecture of {result.id} in {experiment.name}", plain, architectures)
