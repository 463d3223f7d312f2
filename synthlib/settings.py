"""Settings: one frozen dataclass a notebook, whose fields are that notebook's parameters.

The defaults live in one place only, the parameters cell of each notebook; nothing here has any.
"""

import ast
import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from synthlib import paths

TRICKS = ("base_class", "class_prompt", "multi_domain", "random_guidance", "merged", "merged_full")
MERGED_TRICKS = ("class_prompt", "multi_domain", "random_guidance")  # what merged and merged_full are made of
UNKNOWN = "unknown"  # the trick of a set that was made elsewhere, nobody knows how
TRICK_ALIASES = {"multidomain": "multi_domain", "random_scale": "random_guidance", "base": "base_class"}
ARCHITECTURES = ("resnet", "vit")
EVALUATION_MODES = ("eval", "authors")
NOISES = ("per_image", "compvis")
GUIDANCE_DRAWS = ("uniform", "integer", "per_run_integer")
PRECISIONS = ("float32", "float16", "bfloat16")
RESIZES = ("", "32A", "64")


class InputError(Exception):
    """Something given to synthlib is wrong: one line that says what, what was expected and what to do."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows this in place of a traceback."""
        return [f"InputError: {self}"]


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """`name` if it is known; else InputError with the nearest known name and the whole list."""
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}.".replace("' Known", "'. Known"))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. InputError names the file, and the line where it is malformed."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"no file {path}; expected one of: {', '.join(sorted(p.stem for p in path.parent.glob('*.yaml')))}."
        )
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise InputError(f"{path}{line}: {problem}; expected well-formed YAML, mend that line.")
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds {type(value).__name__}; expected a mapping of names to values.")
    return value


def trick_name(name: str) -> str:
    """The canonical name of a trick or of one of its aliases (the authors' code says multidomain, random_scale)."""
    return choose("trick", TRICK_ALIASES.get(name, name), TRICKS)


def condition_name(name: str) -> str:
    """The canonical name of a trick, or "unknown": what trains a classifier need not be drawn here."""
    return choose("trick", TRICK_ALIASES.get(name, name), (*TRICKS, UNKNOWN))


def _check(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise InputError(f"{name} is {value!r}; expected {expected}.")


def _fill(settings: object, name: str, value: object) -> None:
    """Set a parameter that was left empty; by hand, folders follow from data set, trick and architecture."""
    if not getattr(settings, name):
        object.__setattr__(settings, name, value)


def _counts(settings: object, at_least: Mapping[str, float]) -> None:
    for name, low in at_least.items():
        value = getattr(settings, name)
        _check(math.isfinite(value) and value >= low, name, value, f"a number of at least {low}")


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


def cast(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind` (str, int, float, bool or list), losing nothing; InputError where that cannot be."""
    if kind is list:
        _check(isinstance(value, (list, tuple)), name, value, "a list")
        return list(value)
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-4 as a string
        except ValueError:
            pass
    if kind is int and not isinstance(value, bool):
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str):
            try:
                return int(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                pass
    _check(
        isinstance(value, kind) and not (kind is int and isinstance(value, bool)), name, value, f"type {kind.__name__}"
    )
    return value


@dataclass(frozen=True)
class GenerateSettings(_FromParameters):
    """Notebook 01: one data set, one trick, all replicates -> shards of synthetic images."""

    run_dir: str
    dataset: str
    classes: list
    trick: str
    domains: list
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
        least = {"images_per_class": 1, "replicates": 1, "seed": 0, "guidance_scale": 1, "min_scale": 1, "max_scale": 1}
        least |= {"num_inference_steps": 1, "height": 0, "width": 0, "batch_size": 1, "shard_rows": 1, "threads": 1}
        _counts(self, least)
        _check(self.num_inference_steps < 1000, "num_inference_steps", self.num_inference_steps, "fewer than 1000")
        _check(self.min_scale <= self.max_scale, "min_scale", self.min_scale, f"at most max_scale ({self.max_scale})")
        integers = math.floor(self.max_scale) - math.ceil(self.min_scale) >= 0
        _check(integers or self.guidance_draw == "uniform", "min_scale", self.min_scale, "an integer up to max_scale")
        _check(self.seed < 2**63, "seed", self.seed, "a number below 2**63")
        whole = self.noise != "compvis" or 1000 % self.num_inference_steps == 0
        _check(whole, "num_inference_steps", self.num_inference_steps, "a divisor of 1000 with noise 'compvis'")
        until = self.lossy_guidance_until
        _check(0 <= until <= 1, "lossy_guidance_until", until, "a share of the steps, 0 to 1 (1: guide all, lossless)")
        choose("precision", self.precision, ("auto", *PRECISIONS))
        choose("compile", self.compile, ("auto", "on", "off"))
        choose("noise", self.noise, NOISES)
        choose("guidance_draw", self.guidance_draw, GUIDANCE_DRAWS)
        choose("resize", self.resize, RESIZES)
        choose("safety", self.safety, ("off", "flag"))
        _fill(self, "run_dir", paths.run_dir("interactive", "01_generate", self.dataset, self.trick))


@dataclass(frozen=True)
class TrainSettings(_FromParameters):
    """Notebook 02: one synthetic set, one architecture -> one checkpoint a replicate."""

    run_dir: str
    dataset: str
    trick: str
    generated_dir: str
    architecture: str
    images_per_class: int
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    crop_scale_min: float
    flip: bool
    device: str
    threads: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "trick", condition_name(self.trick))
        choose("architecture", self.architecture, ARCHITECTURES)
        least = {"images_per_class": 0, "seed": 0, "epochs": 1, "batch_size": 1, "weight_decay": 0, "threads": 1}
        _counts(self, least)
        _check(0 < self.learning_rate < 10, "learning_rate", self.learning_rate, "a number between 0 and 10")
        _check(0 < self.crop_scale_min <= 1, "crop_scale_min", self.crop_scale_min, "a number above 0 and at most 1")
        condition = (self.dataset, self.trick)
        _fill(self, "run_dir", paths.run_dir("interactive", "02_train", *condition, self.architecture))
        _fill(self, "generated_dir", paths.run_dir("interactive", "01_generate", *condition))


@dataclass(frozen=True)
class EvaluateSettings(_FromParameters):
    """Notebook 03: the checkpoints of one (data set, trick, architecture) -> logits and result rows."""

    run_dir: str
    dataset: str
    trick: str
    architecture: str
    trained_dir: str
    generated_dir: str
    batch_size: int
    shuffles: int
    seed: int
    measures: list
    feature_space: str
    device: str
    threads: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "trick", condition_name(self.trick))
        choose("architecture", self.architecture, ARCHITECTURES)
        _counts(self, {"batch_size": 1, "shuffles": 1, "seed": 0, "threads": 1})
        condition = (self.dataset, self.trick)
        _fill(self, "run_dir", paths.run_dir("interactive", "03_eval", *condition, self.architecture))
        _fill(self, "trained_dir", paths.run_dir("interactive", "02_train", *condition, self.architecture))
        _fill(self, "generated_dir", paths.run_dir("interactive", "01_generate", *condition))


@dataclass(frozen=True)
class FiguresSettings(_FromParameters):
    """Notebook 04: result rows and images of many conditions -> tables and figures."""

    run_dir: str
    experiment: str
    results: list
    evaluated_dirs: list
    generated_dirs: list
    figures_dir: str
    wanted: list
    note: str

    def __post_init__(self) -> None:
        _fill(self, "run_dir", paths.run_dir(self.experiment, "04_figures"))
        _fill(self, "figures_dir", f"figures/{self.experiment}")
        for result in self.results:
            choose("result", result, read_yaml(paths.results_file()))
        if not self.evaluated_dirs and not self.generated_dirs:
            _fill(self, "evaluated_dirs", paths.finished(self.experiment, "03_eval"))
            _fill(self, "generated_dirs", paths.finished(self.experiment, "01_generate"))


SETTINGS = {
    "01_generate": GenerateSettings,
    "02_train": TrainSettings,
    "03_eval": EvaluateSettings,
    "04_figures": FiguresSettings,
}
