"""Intervals and paired differences over replicates: numbers in, numbers out, nothing drawn and nothing read.

A replicate is a generation seed with its own training seed (design.md, promise 4), so replicates, not test images,
are the sample of a t interval. Where the test images should count as a sample too, the crossed bootstrap resamples
both; of single runs they are the only sample, of Wilson's interval and McNemar's test.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, ndtri, stdtr, stdtrit  # not scipy.stats, which takes a second to import

from synthlib.inputs import InputError

FEW = 4  # replicates: of fewer, Student's t is so wide (12.7 standard errors for two) that their values say more
ROUNDED = 1e-6  # percent: to which result rows are rounded


class Interval(NamedTuple):
    """A mean and its interval; low and high are NaN where one replicate allows none."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """A mean paired difference, its interval, the two-sided p value of "no difference", and the number of pairs."""

    mean: float
    low: float
    high: float
    p: float
    n: int


class Discordant(NamedTuple):
    """Images that only a (b) and only b (c) got right, McNemar's letters, and the two-sided p of "equally often"."""

    b: int
    c: int
    p: float


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of `values` [R] and Student's t interval: mean -+ t(level, R - 1) * s / sqrt(R).

    One value gives NaN for low and high. Raises InputError for no value, for NaN, and for a level outside (0, 1).
    """
    values = _replicates("values", values)
    _check_level(level)
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, np.nan, np.nan)
    half = _t_quantile(len(values) - 1, level) * float(values.std(ddof=1)) / np.sqrt(len(values))
    return Interval(mean, float(mean - half), float(mean + half))


def percent_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """`t_interval` of percentages, within 0 and 100, beyond which no percentage lies."""
    found = t_interval(values, level)
    low, high = np.clip(found[1:], 0, 100)  # NaN stays NaN
    return Interval(found.mean, float(low), float(high))


def covers_chance(found: Interval, chance: float, n_images: int) -> bool:
    """Whether the interval of an accuracy covers chance, both in percent.

    One replicate has none, nor have replicates that are all alike: there it is Wilson's over the test images.
    """
    if not found.low < found.high:
        found = wilson_interval(round(found.mean * n_images / 100), n_images)
    return found.low - ROUNDED <= chance <= found.high + ROUNDED


def interval_method(n_replicates: int, n_generation_seeds: int, n_training_seeds: int) -> str:
    """How an interval of `t_interval` came about, in words: what was replicated, or why there is none."""
    if n_replicates < 2:
        return "one replicate: no interval"
    if n_generation_seeds > 1 and n_training_seeds > 1:
        seeds = "generation and training seeds"
    elif n_generation_seeds > 1:
        seeds = "generation seeds only"
    else:
        seeds = "training seeds only"  # the images were given or shared, so the interval knows nothing of their chance
    return f"t over {n_replicates} replicates ({seeds})"


def paired_t(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Difference:
    """Mean of `a - b`, both [R] and paired by position, with its t interval and two-sided p value.

    The p value is that of `scipy.stats.ttest_rel`. One pair gives NaN for the interval and p. Differences that are
    all equal give an interval of no width, with p 1 if they are 0, else 0. Raises InputError where the lengths
    differ.
    """
    a, b = _replicates("a", a), _replicates("b", b)
    if a.shape != b.shape:
        raise InputError(
            f"a has {len(a)} replicates and b has {len(b)}; expected pairs: give the replicates that both have."
        )
    differences = a - b
    mean, low, high = t_interval(differences, level)
    n = len(differences)
    if n == 1:
        return Difference(mean, low, high, np.nan, 1)
    error = differences.std(ddof=1) / np.sqrt(n)
    if error == 0:
        return Difference(mean, low, high, 1.0 if mean == 0 else 0.0, n)
    p = 2 * float(stdtr(n - 1, -abs(mean) / error))
    return Difference(mean, low, high, p, n)


def holm(p: ArrayLike) -> np.ndarray:
    """Adjusted p values [K] of a family of tests, by Holm's step-down method (Holm 1979, Scand. J. Statistics 6).

    The k-th smallest of m is multiplied by m - k + 1, never above 1 and never below the one before it. A NaN is a test
    that was not made: it stays NaN and is not counted. Raises InputError for p outside [0, 1].
    """
    values = np.asarray(p, dtype=np.float64)
    made = ~np.isnan(values)
    if values.ndim != 1 or not ((values[made] >= 0) & (values[made] <= 1)).all():
        raise InputError(f"p is {values.tolist()!r}; expected a list of probabilities from 0 to 1, or NaN.")
    order = np.argsort(values[made], kind="stable")
    raised = values[made][order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raised))
    found = np.full(len(values), np.nan)
    found[made] = adjusted
    return found


def rank_correlation(
    x: Sequence[ArrayLike], y: Sequence[ArrayLike], n_boot: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Spearman's rank correlation of the conditions' means, with a percentile interval by a bootstrap of two levels.

    x[i], y[i]: the replicates [R_i] of condition i, paired by position. Every draw takes as many conditions and, within
    each, as many replicates, with replacement; ties share their mean rank. Draws in which all x or all y are equal have
    no correlation and are left out; where the conditions themselves have none, it is NaN. Fewer than 4 conditions give
    NaN for low and high. Raises InputError where x and y differ in length or hold nothing.
    """
    pairs = [(_replicates(f"x[{i}]", a), _replicates(f"y[{i}]", b)) for i, (a, b) in enumerate(zip(x, y, strict=False))]
    if not pairs or len(x) != len(y) or any(len(a) != len(b) for a, b in pairs):
        sizes = " and ".join(str([np.size(values) for values in side]) for side in (x, y))
        raise InputError(f"x and y hold {sizes} replicates; expected as many of both in every condition, at least one.")
    _check_level(level)
    found = float(_spearman(*np.array([(a.mean(), b.mean()) for a, b in pairs]).T[:, None])[0])
    if len(pairs) < 4:
        return Interval(found, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    picked = rng.integers(len(pairs), size=(n_boot, len(pairs)))
    means = np.empty((2, *picked.shape))
    for place, (a, b) in enumerate(pairs):
        mine = picked == place
        counts = rng.multinomial(len(a), np.full(len(a), 1 / len(a)), size=int(mine.sum()))
        for side, values in enumerate((a, b)):
            means[side][mine] = (counts * values).sum(axis=1) / len(a)
    draws = _spearman(*means)
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2]) if np.isfinite(draws).any() else (np.nan,) * 2
    return Interval(found, float(low), float(high))


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> Discordant:
    """McNemar's exact test of two classifiers on the same test images, correct_a and correct_b [N], bool or 0 and 1.

    Images on which both agree say nothing; of the b + c others each side wins half by chance, so p is the two-sided
    binomial probability, 1 where there are none (McNemar 1947, Psychometrika 12; the exact version). It speaks of these
    two trained classifiers, not of training them again. Raises InputError where the shapes differ, hold nothing, or
    hold other numbers than 0 and 1.
    """
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise InputError(f"correct_a has shape {a.shape} and correct_b {b.shape}; expected one [test images] of both.")
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise InputError("McNemar's test got a share of right answers; expected 0 or 1 an image: use the `eval` mode.")
    a, b = a.astype(bool), b.astype(bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)) if only_a + only_b else 1.0
    return Discordant(only_a, only_b, min(1.0, p))


def mcnemar_method(found: Discordant, n_images: int) -> str:
    """How a p value of `mcnemar` came about, in words."""
    return f"McNemar, exact, {found.b} and {found.c} discordant of {n_images} test images"


def wilson_interval(k: int, n: int, level: float = 0.95) -> Interval:
    """Accuracy in percent of one classifier that got k of n test images right, with Wilson's score interval.

    mean: 100 k / n, which is not the interval's middle (Wilson 1927, JASA 22). The test images are the sample: it says
    nothing of other seeds. Raises InputError unless k is a whole number from 0 to n, and for a level outside (0, 1).
    """
    if not (n >= 1 and 0 <= k <= n and k == int(k) and n == int(n)):
        raise InputError(f"{k!r} of {n!r} images are right; expected whole numbers, 0 to all of at least one image.")
    _check_level(level)
    share, square = k / n, float(ndtri((1 + level) / 2)) ** 2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = np.sqrt(square * (share * (1 - share) / n + square / (4 * n**2))) / (1 + square / n)
    return Interval(100 * share, max(0.0, float(100 * (middle - half))), min(100.0, float(100 * (middle + half))))


def wilson_method(n_images: int) -> str:
    """How an interval of `wilson_interval` came about, in words."""
    return f"Wilson, 95 %, over {n_images} images"


def crossed_bootstrap(
    correct_a: ArrayLike, correct_b: ArrayLike, n_boot: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Accuracy of a minus b in percentage points, with a percentile interval over replicates *and* test images.

    correct_a, correct_b: [R, N] in [0, 1], the same replicates and the same test images in the same order. Every draw
    takes R replicates and, independently, N test images with replacement, the same for a and b ("pigeonhole
    bootstrap", Owen 2007, Annals of Applied Statistics 1). One replicate leaves the test images as the only sample.
    Raises InputError where shapes differ or hold nothing.
    """
    a, b = np.asarray(correct_a, dtype=np.float64), np.asarray(correct_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.size == 0:
        raise InputError(
            f"correct_a has shape {a.shape} and correct_b {b.shape}; expected one [replicates, test images]."
        )
    _check_level(level)
    difference = 100 * (a - b)
    n_replicates, n_images = difference.shape
    rng = np.random.default_rng(seed)
    # A draw with replacement is a vector of counts: one draw of the mean is counts_r @ difference @ counts_n / (R N).
    draws = np.empty(n_boot)
    for start in range(0, n_boot, 250):  # blocks keep [draws, N] small where N is 27,000
        size = min(250, n_boot - start)
        replicates = rng.multinomial(n_replicates, np.full(n_replicates, 1 / n_replicates), size=size)
        images = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=size)
        draws[start : start + size] = ((replicates @ difference) * images).sum(axis=1) / difference.size
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(difference.mean()), float(low), float(high))


def bootstrap_method(n_replicates: int, n_images: int, n_boot: int = 2000) -> str:
    """How an interval of `crossed_bootstrap` came about, in words."""
    what = f"{n_replicates} replicates x {n_images} test images" if n_replicates > 1 else f"{n_images} test images only"
    return f"crossed bootstrap, {n_boot} draws of {what}"


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the ranks of each row of x and y [B, K]; NaN where all are equal: float64 [B]."""
    a, b = (_ranks(values) - (values.shape[1] + 1) / 2 for values in (x, y))
    both = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), both, out=np.full(len(x), np.nan), where=both > 0)


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value in its row [B, K], from 1, ties with their mean; scipy's is in scipy.stats."""
    ranks = np.full(values.shape, 0.5)
    for column in values.T:
        ranks += (values > column[:, None]) + 0.5 * (values == column[:, None])
    return ranks


def _t_quantile(degrees: int, level: float) -> float:
    return float(stdtrit(degrees, (1 + level) / 2))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level is {level!r}; expected a number between 0 and 1, such as 0.95.")


def _replicates(name: str, values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise InputError(f"{name} is {values.tolist()!r}; expected one finite number per replicate, at least one.")
    return values
