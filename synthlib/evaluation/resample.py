"""Measures of one generated set in one feature space, each with its interval over images."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from synthlib.evaluation import diversity, gaps
from synthlib.inputs import InputError, choose

# Of the features of a set: of the generated images alone, and against real ones.
WITHOUT_REAL = ("vendi", "vendi_per_class", "pairwise_distance")
AGAINST_REAL = ("precision", "recall", "density", "coverage", "fid", "kid")
OF_IMAGES = ("agreement", "clip_score")  # means of a score that each image has for itself, see scores.py
MEASURES = (*WITHOUT_REAL, *AGAINST_REAL, *OF_IMAGES)
SEED = 0  # of the draws: the same for every set of the same classes and sizes
NORMAL = 1.96  # standard errors on either side hold 95 % of a normal distribution


@dataclass(frozen=True)
class Images:
    """Whose images are measured, as a row of measures.csv says it."""

    dataset: str
    trick: str
    setting: str  # "" or other parameters than the experiment's, as in "guidance=3"
    replicate: int


@dataclass(frozen=True)
class Features:
    """Features of a generated set [N, D] with labels [N] and, where needed, of real images [M, D]; matrices made once."""

    generated: torch.Tensor
    labels: torch.Tensor
    real: torch.Tensor | None

    @functools.cached_property
    def distances(self) -> diversity.Distances:
        return diversity.distances_of(self.real, self.generated)

    @functools.cached_property
    def kernels(self) -> gaps.Kernels:
        return gaps.kernels_of(self.real, self.generated)


@dataclass(frozen=True)
class Draw:
    """How often each generated image [N] and each real image [M] is in a resample, int64; None: each once."""

    generated: torch.Tensor | None = None
    real: torch.Tensor | None = None


def measure_rows(
    measures: Sequence[str],
    features: torch.Tensor,
    labels: torch.Tensor,
    real_features: torch.Tensor | None,
    images: Images,
    feature_space: str,
    bootstraps: int = 0,
) -> list[dict]:
    """A row of measures.csv for each measure of a generated set: features [N, D], labels [N]; real_features [M, D] of the pool.

    measures: of WITHOUT_REAL and AGAINST_REAL. vendi_per_class is the mean over the classes. Columns: dataset, trick, setting,
    replicate, measure, feature_space, value, low, high, n (generated images). low and high: see `interval`.

    InputError: an unknown measure, one that compares with real images where none are given, or one bootstrap.
    """
    names = [choose("measure", name, (*WITHOUT_REAL, *AGAINST_REAL)) for name in measures]
    if real_features is None and (needy := [name for name in names if name in AGAINST_REAL]):
        raise InputError(f"measures {', '.join(needy)} need real images and got none; give the pool's.")
    held = Features(features.double(), labels, None if real_features is None else real_features.double())
    values = _values(names, held, Draw())
    n_real = 0 if real_features is None else len(real_features)
    drawn = [_values(names, held, draw) for draw in draws(labels, n_real, bootstraps)]
    return [
        _row(images, name, feature_space, values[name], [found[name] for found in drawn], len(labels)) for name in names
    ]


def score_row(
    measure: str, scores: torch.Tensor, labels: torch.Tensor, images: Images, judge: str, bootstraps: int = 0
) -> dict:
    """A row of measures.csv for a mean of scores [N], one an image; judge: whose they are, in the column feature_space."""
    scores = scores.double()
    drawn = [float(draw.generated.double() @ scores) / len(scores) for draw in draws(labels, 0, bootstraps)]
    return _row(images, choose("measure", measure, OF_IMAGES), judge, float(scores.mean()), drawn, len(scores))


def draws(labels: torch.Tensor, n_real: int, bootstraps: int) -> list[Draw]:
    """Resamples with replacement: of generated images within each class, and of all n_real real ones; the same at each call.

    InputError: one, from which no spread can be told.
    """
    if bootstraps == 1:
        raise InputError("bootstraps is 1; expected 0 (no interval), or 2 and more: 50 suit most.")
    generator, labels = np.random.default_rng(SEED), labels.numpy()
    found = []
    for _ in range(bootstraps):
        counts = np.zeros(len(labels), np.int64)
        for label in np.unique(labels):
            mine = np.flatnonzero(labels == label)
            counts[mine] = generator.multinomial(len(mine), np.full(len(mine), 1 / len(mine)))
        real = generator.multinomial(n_real, np.full(n_real, 1 / n_real)) if n_real else np.zeros(0, np.int64)
        found.append(Draw(torch.from_numpy(counts), torch.from_numpy(real)))
    return found


def interval(value: float, drawn: Sequence[float]) -> tuple[float | None, float | None]:
    """95 % over images: the estimate less and plus 1.96 bootstrap standard errors; None twice where nothing was drawn.

    Not the percentiles of the draws: a resample repeats images, which lowers diversity, recall and coverage and raises FID and
    KID, so that percentiles would lie beside the estimate. For the same reason the standard error is itself approximate.
    """
    if not drawn:
        return None, None
    half = NORMAL * float(np.std(drawn, ddof=1))
    return value - half, value + half


def _values(names: Sequence[str], held: Features, draw: Draw) -> dict[str, float]:
    """The measures of one resample."""
    found = {name: _TAKEN[name](held, draw) for name in names if name in _TAKEN}
    if len(found) < len(names):
        found |= asdict(diversity.prdc_of(held.distances, diversity.NEIGHBOURS, draw.real, draw.generated))
    return found


def _mean_vendi(held: Features, draw: Draw) -> float:
    scores = diversity.vendi_per_class(held.generated, held.labels, draw.generated)
    return math.fsum(scores.values()) / len(scores)


# What is not here is prdc's.
_TAKEN: dict[str, Callable[[Features, Draw], float]] = {
    "vendi": lambda held, draw: diversity.vendi(held.generated, draw.generated),
    "vendi_per_class": _mean_vendi,
    "pairwise_distance": lambda held, draw: diversity.pairwise_distance(held.generated, held.labels, draw.generated),
    "fid": lambda held, draw: gaps.frechet_distance(held.real, held.generated, draw.real, draw.generated),
    "kid": lambda held, draw: gaps.kernel_distance_of(held.kernels, draw.real, draw.generated),
}


def _row(images: Images, measure: str, feature_space: str, value: float, drawn: Sequence[float], n: int) -> dict:
    low, high = interval(value, drawn)
    row = asdict(images) | {"measure": measure, "feature_space": feature_space, "value": _rounded(value)}
    return row | {"low": _rounded(low), "high": _rounded(high), "n": n}


def _rounded(value: float | None) -> float | None:
    """Nine significant digits: some distances are near 1e-6, where six places would leave nothing."""
    return None if value is None else float(f"{value:.9g}")
