"""The intervals: numbers that can be checked with a t table and a pencil."""

import numpy as np
import pytest

from synthlib.results import statistics
from synthlib.settings import InputError


def test_t_interval_of_three_accuracies_is_the_one_worked_out_by_hand():
    # mean 62, s = 2, t(0.975, 2) = 4.30265 (any t table), half = 4.30265 * 2 / sqrt(3) = 4.96828
    mean, low, high = statistics.t_interval([60, 62, 64])
    assert mean == 62
    assert low == pytest.approx(62 - 4.96828, abs=1e-4)
    assert high == pytest.approx(62 + 4.96828, abs=1e-4)


def test_t_interval_follows_the_level():
    # t(0.95, 4) = 2.13185; values 1..5: s = sqrt(2.5), half = 2.13185 * sqrt(2.5 / 5)
    mean, low, high = statistics.t_interval([1, 2, 3, 4, 5], level=0.9)
    assert (mean, high - mean) == (3, pytest.approx(2.13185 * np.sqrt(0.5), abs=1e-4))
    assert mean - low == pytest.approx(high - mean)


def test_one_replicate_has_a_mean_but_no_interval_and_says_so():
    mean, low, high = statistics.t_interval([61.5])
    assert mean == 61.5 and np.isnan(low) and np.isnan(high)
    assert statistics.interval_method(1, 1, 1) == "one replicate: no interval"


def test_the_method_says_which_seeds_were_replicated():
    assert statistics.interval_method(5, 5, 5) == "t over 5 replicates (generation and training seeds)"
    assert statistics.interval_method(5, 0, 5) == "t over 5 replicates (training seeds only)"
    assert statistics.interval_method(5, 1, 5) == "t over 5 replicates (training seeds only)"
    assert statistics.interval_method(3, 3, 1) == "t over 3 replicates (generation seeds only)"


def test_paired_difference_is_a_minus_b_and_ignores_what_the_pairs_share():
    # differences 1, 2, 3: mean 2, s = 1, t = 2 / (1 / sqrt(3)) = 3.4641, half = 4.30265 / sqrt(3) = 2.48414
    # two-sided p with 2 degrees of freedom is 1 - t / sqrt(t^2 + 2) = 1 - 3.4641 / sqrt(14) = 0.07418
    result = statistics.paired_t([11, 52, 93], [10, 50, 90])
    assert result.mean == 2 and result.n == 3
    assert result.low == pytest.approx(2 - 2.48414, abs=1e-4) and result.high == pytest.approx(2 + 2.48414, abs=1e-4)
    assert result.p == pytest.approx(0.07418, abs=1e-5)


def test_paired_difference_agrees_with_scipy():
    from scipy import stats

    a, b = [66.2, 67.9, 64.1, 70.3], [63.5, 66.0, 64.4, 65.2]
    ours, theirs = statistics.paired_t(a, b), stats.ttest_rel(a, b)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_identical_conditions_differ_by_exactly_nothing():
    assert statistics.paired_t([60, 62, 64], [60, 62, 64]) == (0, 0, 0, 1, 3)
    correct = np.array([[1, 0, 1, 1], [0, 0, 1, 1]])
    assert statistics.crossed_bootstrap(correct, correct) == (0, 0, 0)


def test_a_constant_difference_has_an_interval_of_no_width():
    assert statistics.paired_t([65, 67, 69], [60, 62, 64]) == (5, 5, 5, 0, 3)
    always, never = np.ones((3, 7)), np.zeros((3, 7))
    assert statistics.crossed_bootstrap(always, never) == pytest.approx((100, 100, 100))


def test_one_pair_has_no_interval_and_no_p():
    result = statistics.paired_t([65], [60])
    assert result.mean == 5 and result.n == 1 and np.isnan([result.low, result.high, result.p]).all()


def test_crossed_bootstrap_resamples_the_test_images():
    # one replicate, a right on half of 400 images, b never: a draw is a binomial share, sd = 50 / sqrt(400) = 2.5
    correct = np.tile([1, 0], 200)[None]
    mean, low, high = statistics.crossed_bootstrap(correct, np.zeros_like(correct))
    assert mean == 50
    assert low == pytest.approx(50 - 1.96 * 2.5, abs=0.8) and high == pytest.approx(50 + 1.96 * 2.5, abs=0.8)


def test_crossed_bootstrap_resamples_the_replicates_too():
    # images all alike, half of 100 replicates right: the spread is that of drawing replicates, 50 / sqrt(100) = 5
    a = np.repeat(np.tile([1, 0], 50)[:, None], 10, axis=1)
    mean, low, high = statistics.crossed_bootstrap(a, np.zeros_like(a))
    assert mean == 50
    assert low == pytest.approx(50 - 1.96 * 5, abs=1.6) and high == pytest.approx(50 + 1.96 * 5, abs=1.6)


def test_crossed_bootstrap_repeats_exactly_and_depends_on_its_seed():
    rng = np.random.default_rng(1)
    a, b = rng.random((5, 60)) < 0.7, rng.random((5, 60)) < 0.6
    assert statistics.crossed_bootstrap(a, b) == statistics.crossed_bootstrap(a, b)
    assert statistics.crossed_bootstrap(a, b, seed=1)[1:] != statistics.crossed_bootstrap(a, b)[1:]


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.t_interval([]),
        lambda: statistics.t_interval([60, np.nan]),
        lambda: statistics.t_interval([60, 61], level=95),
        lambda: statistics.paired_t([60, 61], [60]),
        lambda: statistics.crossed_bootstrap(np.ones((2, 3)), np.ones((2, 4))),
    ],
)
def test_wrong_input_is_one_line_that_says_what_was_expected(call):
    with pytest.raises(InputError, match="expected") as error:
        call()
    assert "\n" not in str(error.value)
