"""Settings: one frozen dataclass a notebook, whose fields are that notebook's parameters.

The defaults live in one place only, the parameters cell of each notebook; nothing here has any.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from synthlib import paths
from synthlib.inputs import InputError, cast, choose, parameter, read_yaml, require
from synthlib.names import (
    GENERAL_SPACE,
    GUIDANCE_DRAWS,
    INITS,
    LOGGERS,
    NOISES,
    NORMALISATIONS,
    OF_THE_POOL,
    PRECISIONS,
    REAL_TRICKS,
    RESIZES,
    SCHEDULES,
    SPLITS,
    TRANSFORMS,
    architecture_name,
    condition_name,
    trick_name,
)

# Far above any use (images are overdrawn from 20 on), and so far below what float32 holds that no step of ours overflows.
MOST_GUIDANCE = 1000


def transform_of(dataset: str) -> str:
    """How the authors' code prepares a data set's images (TRANSFORMS), as its YAML says; resized_crop where it is silent."""
    file = paths.dataset_files().get(dataset)
    return read_yaml(file).get("transform", TRANSFORMS[0]) if file else TRANSFORMS[0]


def feature_space_of(dataset: str) -> str:
    """The feature space in which a data set's images are measured unless others are named, as its YAML says."""
    file = paths.dataset_files().get(dataset)
    given = read_yaml(file).get("feature_space", GENERAL_SPACE) if file else GENERAL_SPACE
    return cast(f"feature_space of data set {dataset}", given, str)


def _fill(settings: object, name: str, value: object) -> None:
    """Set a parameter that was left empty; by hand, folders follow from data set, trick and architecture."""
    if not getattr(settings, name):
        object.__setattr__(settings, name, value)


def _counts(settings: object, at_least: Mapping[str, float]) -> None:
    for name, low in at_least.items():
        value = getattr(settings, name)
        require(low <= value < math.inf, name, value, f"a number of at least {low}")


class _FromParameters:
    """Gives the settings `from_parameters`, the one way from a notebook's variables to settings."""

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Take the fields of this dataclass out of `parameters` (a notebook passes `globals()`), cast and checked."""
        fields = {field.name: field.type for field in dataclasses.fields(cls)}
        missing = [name for name in fields if name not in parameters]
        if missing:
            raise InputError(f"{cls.__name__} lacks {', '.join(missing)}; give them in the notebook's parameters cell.")
        return cls(**{name: cast(name, parameters[name], kind) for name, kind in fields.items()})


@dataclass(frozen=True)
class GenerateSettings(_FromParameters):
    """Notebook 01: one data set, one trick, all replicates -> shards of synthetic images."""

    run_dir: str
    set_dir: str
    part: str
    dataset: str
    classes: list
    trick: str
    domains: list
    prompts_file: str
    pool_per_class: int
    real_dir: str
    images_per_class: int
    replicates: int
    seed: int
    model: str
    revision: str
    num_inference_steps: int
    guidance_scale: float
    min_scale: float
    max_scale: float
    guidance_draw: str
    noise: str
    height: int
    width: int
    resize: str
    safety: str
    keep_latents: bool
    lossy_guidance_until: float
    lossy_vae: str
    batch_size: int
    shard_rows: int
    reuse_dirs: list
    replace: bool
    device: str
    precision: str
    compile: str
    threads: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "trick", trick_name(self.trick))
        least = {"images_per_class": 1, "replicates": 1, "seed": 0}
        least |= {
            "pool_per_class": 1,
            "num_inference_steps": 1,
            "height": 0,
            "width": 0,
            "batch_size": 1,
            "shard_rows": 1,
            "threads": 1,
        }
        _counts(self, least)
        for name in ("guidance_scale", "min_scale", "max_scale"):
            value = getattr(self, name)
            require(1 <= value <= MOST_GUIDANCE, name, value, f"a number from 1 to {MOST_GUIDANCE}")
        require(self.num_inference_steps < 1000, "num_inference_steps", self.num_inference_steps, "fewer than 1000")
        most = parameter("max_scale")
        require(self.min_scale <= self.max_scale, "min_scale", self.min_scale, f"at most {most} ({self.max_scale})")
        integers = math.floor(self.max_scale) - math.ceil(self.min_scale) >= 0
        require(integers or self.guidance_draw == "uniform", "min_scale", self.min_scale, f"an integer up to {most}")
        require(self.seed < 2**63, "seed", self.seed, "a number below 2**63")
        whole = self.noise != "compvis" or 1000 % self.num_inference_steps == 0
        divisor = f"a divisor of 1000 with {parameter('noise')} 'compvis'"
        require(whole, "num_inference_steps", self.num_inference_steps, divisor)
        until = self.lossy_guidance_until
        require(0 <= until <= 1, "lossy_guidance_until", until, "a share of the steps, 0 to 1 (1: guide all, lossless)")
        choose("precision", self.precision, ("auto", *PRECISIONS))
        choose("compile", self.compile, ("auto", "on", "off"))
        choose("noise", self.noise, NOISES)
        choose("guidance_draw", self.guidance_draw, GUIDANCE_DRAWS)
        choose("resize", self.resize, RESIZES)
        choose("safety", self.safety, ("off", "flag"))
        place, parts = part_numbers(self.part)
        require(
            bool(self.part) == bool(self.set_dir),
            "set_dir",
            self.set_dir,
            "the set's folder if part is given, else none",
        )
        own = paths.run_dir("interactive", "01_generate", self.dataset, self.trick)
        _fill(self, "run_dir", paths.part_dir(self.set_dir, place, parts) if self.part else own)


def part_numbers(part: str) -> tuple[int, int]:
    """Which part of a set, from 1, of how many: (3, 8) of "3/8"; "" is all of it. InputError: anything else."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", part or "1/1")
    place, parts = map(int, found.groups()) if found else (1, 0)
    require(place <= parts, "part", part, "such a part as 3/8, or nothing for all")
    return place, parts


@dataclass(frozen=True)
class FilterSettings(_FromParameters):
    """Notebook 01b, which nothing needs: a generated set -> the images whose label a judge agrees with."""

    run_dir: str
    dataset: str
    classes: list
    trick: str
    generated_dir: str
    judge: str
    images_per_class: int
    device: str
    threads: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "trick", condition_name(self.trick))
        require(
            self.trick not in REAL_TRICKS, "trick", self.trick, "one that was generated: real images are not judged"
        )
        _counts(self, {"images_per_class": 0, "threads": 1})
        _fill(self, "run_dir", paths.run_dir("interactive", "01b_filter", self.dataset, self.trick))
        _fill(self, "generated_dir", paths.run_dir("interactive", "01_generate", self.dataset, self.trick))


@dataclass(frozen=True)
class TrainSettings(_FromParameters):
    """Notebook 02: one training set, one architecture -> one checkpoint a replicate.

    What is empty (-1 or "") takes the value that `protocol` has in experiments/protocols.yaml.
    """

    run_dir: str
    dataset: str
    classes: list
    trick: str
    generated_dir: str
    kept_dir: str
    real_dir: str
    images_per_class: int
    unused_images: int
    replicates: int
    seed: int
    architecture: str
    init: str
    weights: str
    protocol: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: float
    schedule: str
    transform: str
    image_size: int
    normalisation: str
    crop_scale_min: float
    flip: float
    ema_decay: float
    precision: str
    test_every: int
    log_to: list
    device: str
    threads: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "trick", condition_name(self.trick))
        object.__setattr__(self, "architecture", architecture_name(self.architecture))
        for name, value in protocol_values(self.protocol).items():
            if getattr(self, name) in (-1, ""):
                object.__setattr__(self, name, value)
        _fill(self, "transform", transform_of(self.dataset))
        choose("init", self.init, INITS)
        fits = not self.weights or self.init == "imagenet"
        require(fits, "init", self.init, f"'imagenet' where {parameter('weights')} is given")
        choose("transform", self.transform, TRANSFORMS)
        choose("normalisation", self.normalisation, ("", *NORMALISATIONS))
        choose("schedule", self.schedule, SCHEDULES)
        choose("precision", self.precision, ("auto", *PRECISIONS))
        for name in self.log_to:
            choose("logger", name, LOGGERS)
        least = {"images_per_class": 0, "unused_images": 0, "replicates": 0, "seed": 0, "epochs": 1, "batch_size": 2}
        _counts(self, least | {"image_size": 0, "test_every": 0, "threads": 1})
        require(0 <= self.weight_decay < 10, "weight_decay", self.weight_decay, "a number from 0 to below 10")
        require(0 < self.learning_rate < 10, "learning_rate", self.learning_rate, "a number between 0 and 10")
        require(0 < self.crop_scale_min <= 1, "crop_scale_min", self.crop_scale_min, "a number above 0 and at most 1")
        for name in ("warmup", "flip"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a share, 0 to 1")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "a number from 0 (off) to below 1")
        few = self.trick != "few_shot" or self.images_per_class > 0
        require(few, "images_per_class", self.images_per_class, "at least 1 with trick 'few_shot'")
        condition = (self.dataset, self.trick)
        _fill(self, "run_dir", paths.run_dir("interactive", "02_train", *condition, self.architecture))
        if self.trick not in REAL_TRICKS:
            _fill(self, "generated_dir", paths.run_dir("interactive", "01_generate", *condition))

    @property
    def split(self) -> str:
        """What a classifier is tested on: all test images or, if it learned from the real pool, those that are not in it."""
        return SPLITS[self.trick in OF_THE_POOL]

    def protocol_label(self) -> str:
        """The protocol, and what was given in its place: "careful, epochs=15"."""
        values = protocol_values(self.protocol)
        other = [f"{name}={getattr(self, name)}" for name, value in values.items() if getattr(self, name) != value]
        if self.transform != transform_of(self.dataset):
            other.append(f"transform={self.transform}")
        usual = {"image_size": 0, "normalisation": ""}  # these follow from the images
        other += [f"{name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        return ", ".join([self.protocol, *other])


def protocol_values(protocol: str) -> dict[str, Any]:
    """The parameters that a protocol of experiments/protocols.yaml sets."""
    protocols = read_yaml(paths.protocols_file())
    values = protocols[choose("protocol", protocol, protocols)]
    require(isinstance(values, dict), f"protocol {protocol}", values, "a mapping of parameters of 02_train to values")
    kinds, found = {field.name: field.type for field in dataclasses.fields(TrainSettings)}, {}
    for name, value in values.items():
        kind = kinds[choose(f"parameter in protocol {protocol}", name, kinds)]
        found[name] = cast(f"{name} of protocol {protocol}", value, kind)
    return found


@dataclass(frozen=True)
class EvaluateSettings(_FromParameters):
    """Notebook 03: the checkpoints of one (data set, trick, architecture) -> logits and result rows."""

    run_dir: str
    dataset: str
    classes: list
    trick: str
    setting: str
    architecture: str
    trained_dir: str
    generated_dir: str
    real_dir: str
    split: str
    batch_size: int
    shuffles: int
    seed: int
    measures: list
    feature_spaces: list
    bootstraps: int
    keep_features: bool
    device: str
    threads: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "trick", condition_name(self.trick))
        object.__setattr__(self, "architecture", architecture_name(self.architecture))
        choose("split", self.split, ("", *SPLITS))
        _counts(self, {"batch_size": 0, "shuffles": 1, "seed": 0, "bootstraps": 0, "threads": 1})
        require(self.batch_size != 1, "batch_size", self.batch_size, "2 or more, or 0 for that of training")
        condition = (self.dataset, self.trick)
        real, of_pool = self.trick in REAL_TRICKS, self.trick in OF_THE_POOL
        _fill(self, "split", SPLITS[of_pool])
        allowed = not of_pool or self.split == "rest"
        require(allowed, "split", self.split, "'rest' where real images of the pool were trained on, or conditioned on")
        _fill(self, "feature_spaces", [feature_space_of(self.dataset)])
        if real:  # nothing was generated, so there is nothing to measure
            object.__setattr__(self, "measures", [])
            object.__setattr__(self, "keep_features", False)
        _fill(self, "run_dir", paths.run_dir("interactive", "03_eval", *condition, self.architecture))
        _fill(self, "trained_dir", paths.run_dir("interactive", "02_train", *condition, self.architecture))
        if not real:
            _fill(self, "generated_dir", paths.run_dir("interactive", "01_generate", *condition))


@dataclass(frozen=True)
class FiguresSettings(_FromParameters):
    """Notebook 04: result rows and images of many conditions -> tables and figures."""

    run_dir: str
    experiment: str
    results: list
    evaluated_dirs: list
    trained_dirs: list
    generated_dirs: list
    figures_dir: str
    wanted: list
    not_run: list
    note: str

    def __post_init__(self) -> None:
        _fill(self, "run_dir", paths.run_dir(self.experiment, "04_figures"))
        _fill(self, "figures_dir", f"figures/{self.experiment}")
        for result in self.results:
            choose("result", result, read_yaml(paths.results_file()))
        if not self.evaluated_dirs and not self.generated_dirs:
            _fill(self, "evaluated_dirs", paths.finished(self.experiment, "03_eval"))
            _fill(self, "trained_dirs", paths.finished(self.experiment, "02_train"))
            _fill(self, "generated_dirs", paths.finished(self.experiment, "01_generate"))

    def conditions(self, result: str) -> list[tuple[str, ...]]:
        """The conditions that a result has rows of, as (data set, trick, architecture); none by hand, where all count."""
        said = (line.partition(": ") for line in self.wanted)
        return [tuple(condition.split("/")) for name, _, condition in said if name == result]

    def why_not_run(self) -> dict[tuple[str, ...], str]:
        """Condition -> why it was not run, of those in `not_run`."""
        said = (line.partition(": ") for line in self.not_run)
        return {tuple(condition.split("/")): why for condition, _, why in said}


SETTINGS = {
    "01_generate": GenerateSettings,
    "01b_filter": FilterSettings,
    "02_train": TrainSettings,
    "03_eval": EvaluateSettings,
    "04_figures": FiguresSettings,
}
