"""The intervals: numbers that can be checked with a t table and a pencil."""

import subprocess
import sys

import numpy as np
import pytest

from synthlib.inputs import InputError
from synthlib.results import statistics


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


def test_an_interval_of_percentages_lies_within_0_and_100_and_its_mean_is_not_moved():
    # 90, 100: half = 12.7062 * 5; 0, 0, 10: half = 4.30265 * 10 / 3
    assert statistics.percent_interval([90, 100]) == pytest.approx((95, 95 - 63.531, 100), abs=1e-3)
    assert statistics.percent_interval([0, 0, 10]) == pytest.approx((10 / 3, 0, 10 / 3 + 14.342), abs=1e-3)
    assert statistics.percent_interval([60, 70, 80, 70]) == statistics.t_interval([60, 70, 80, 70])
    assert np.isnan(statistics.percent_interval([99])[1:]).all()


@pytest.mark.parametrize(
    ("interval", "chance", "n", "covers"),
    [
        ((60, 40, 80), 50, 10, True),
        ((60, 40, 80), 40, 10, True),
        ((60, 51, 69), 50, 10, False),
        ((30, 21, 39), 50, 10, False),  # below chance
        ((60, np.nan, np.nan), 50, 10, True),  # 6 of 10: Wilson has 31 to 83
        ((60, np.nan, np.nan), 50, 1000, False),
        ((33.333333, 33.333333, 33.333333), 100 / 3, 9, True),  # classifiers that all name one class
        ((33.9, 33.9, 33.9), 100 / 3, 540, True),
        ((60, 60, 60), 100 / 3, 540, False),
    ],
)
def test_an_interval_covers_chance_or_not(interval, chance, n, covers):
    assert statistics.covers_chance(statistics.Interval(*interval), chance, n) is covers


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


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Correctness of a and of b on both + only_a + only_b + neither test images."""
    counts = [both, only_a, only_b, neither]
    return np.repeat([1, 1, 0, 0], counts), np.repeat([1, 0, 1, 0], counts)


def test_mcnemar_asks_only_the_images_on_which_the_two_disagree():
    # b = 1, c = 5: six coins, at most one head, either way round: 2 * (1 + 6) / 2^6 = 14 / 64
    for agreeing in (0, 4, 1000):
        assert statistics.mcnemar(*outcomes(agreeing, 1, 5, 2)) == (1, 5, pytest.approx(0.21875))
    assert statistics.mcnemar(*outcomes(4, 5, 1, 2)) == (5, 1, pytest.approx(0.21875))
    yes_or_no = [side.astype(bool) for side in outcomes(4, 0, 3, 2)]
    assert statistics.mcnemar(*yes_or_no) == (0, 3, pytest.approx(0.25))  # 2 / 2^3
    assert statistics.mcnemar_method(statistics.mcnemar(*outcomes(4, 1, 5, 2)), 12) == (
        "McNemar, exact, 1 and 5 discordant of 12 test images"
    )


def test_mcnemar_finds_no_difference_where_none_is():
    assert statistics.mcnemar(*outcomes(4, 0, 0, 2)) == (0, 0, 1)  # no image tells the two apart
    assert statistics.mcnemar(*outcomes(4, 3, 3, 2)) == (3, 3, 1)  # twice the half would be more than 1


def test_mcnemar_agrees_with_scipy_on_thousands_of_test_images():
    from scipy import stats

    b, c, p = statistics.mcnemar(*outcomes(7000, 1100, 1210, 690))
    assert (b, c) == (1100, 1210) and p == pytest.approx(stats.binomtest(1100, 2310).pvalue)


def test_wilsons_interval_is_the_one_worked_out_by_hand():
    # z = 1.959964, z^2 = 3.841459. 5 of 10: middle 1/2, half = z sqrt(0.025 + z^2 / 400) / (1 + z^2 / 10) = 0.263406
    assert statistics.wilson_interval(5, 10) == pytest.approx((50, 23.6594, 76.3406), abs=1e-3)
    # none of 10: from 0 to z^2 / (10 + z^2); all of 10 is its mirror image
    assert statistics.wilson_interval(0, 10) == pytest.approx((0, 0, 27.7533), abs=1e-3)
    assert statistics.wilson_interval(10, 10) == pytest.approx((100, 72.2467, 100), abs=1e-3)
    assert statistics.wilson_interval(0, 10).low >= 0 and statistics.wilson_interval(10, 10).high <= 100


def test_wilsons_interval_follows_the_level():
    # 50 %: z = 0.674490, z^2 = 0.454936; none of 10: up to z^2 / (10 + z^2)
    assert statistics.wilson_interval(0, 10, level=0.5).high == pytest.approx(4.3514, abs=1e-3)


def test_holm_multiplies_the_smallest_by_all_the_next_by_one_less():
    # sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.5, none below the one before it
    assert statistics.holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert statistics.holm([0.02, 0.04]) == pytest.approx([0.04, 0.04])  # 0.04 * 1, and the first has 0.04 already
    assert statistics.holm([0.01, 0.01]) == pytest.approx([0.02, 0.02])  # the second is not below the first
    assert statistics.holm([0.6, 0.9]).tolist() == [1, 1]
    assert statistics.holm([0.03]).tolist() == [0.03] and statistics.holm([]).size == 0


def test_holm_does_not_count_a_test_that_was_not_made():
    adjusted = statistics.holm([0.02, np.nan, 0.5])
    assert adjusted[[0, 2]] == pytest.approx([0.04, 0.5]) and np.isnan(adjusted[1])
    assert np.isnan(statistics.holm([np.nan])).all()


def test_rank_correlation_is_of_the_conditions_means_and_ignores_their_scale():
    # means 1, 2, 3, 4 against 10, 30, 20, 1000: ranks 1, 3, 2, 4; rho = 1 - 6 * 2 / (4 * 15) = 0.8
    x = [[0, 2], [2, 2], [3, 3], [5, 3]]
    y = [[10, 10], [20, 40], [20, 20], [0, 2000]]
    assert statistics.rank_correlation(x, y).mean == pytest.approx(0.8)
    # a tie shares its rank: 1, 2.5, 2.5 against 1, 2, 3 gives 1.5 / sqrt(1.5 * 2)
    tied = statistics.rank_correlation([[1], [2], [2]], [[1], [2], [3]])
    assert tied.mean == pytest.approx(1.5 / np.sqrt(3)) and np.isnan([tied.low, tied.high]).all()


def test_rank_correlation_of_one_order_is_one_in_every_draw_and_of_noise_in_few():
    ordered = statistics.rank_correlation([[k] for k in range(6)], [[10 * k] for k in range(6)])
    assert ordered == pytest.approx((1, 1, 1))
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 8, 5))
    noise = statistics.rank_correlation(x, y)
    assert -1 <= noise.low < 0 < noise.high <= 1 and noise.low <= noise.mean <= noise.high
    assert noise == statistics.rank_correlation(x, y) != statistics.rank_correlation(x, y, seed=1)


def test_rank_correlation_resamples_the_replicates_too():
    # the means are in order, but replicates of neighbours overlap; without their spread every draw would give 1
    x = [[k, k] for k in range(5)]
    spread = statistics.rank_correlation(x, [[k - 3, k + 3] for k in range(5)])
    assert spread.mean == pytest.approx(1) and spread.low < 0.9
    assert statistics.rank_correlation(x, x).low == pytest.approx(1)


def test_rank_correlation_agrees_with_scipy_with_ties():
    from scipy import stats

    x, y = [1, 2, 2, 5, 7, 7, 7], [3, 1, 4, 4, 9, 2, 6]
    ours = statistics.rank_correlation([[v] for v in x], [[v] for v in y])
    assert ours.mean == pytest.approx(stats.spearmanr(x, y).statistic)


def test_where_nothing_varies_there_is_no_rank_correlation():
    assert np.isnan(statistics.rank_correlation([[1], [1], [1], [1]], [[1], [2], [3], [4]])).all()


def test_statistics_do_not_wait_for_scipy_stats():
    code = "import sys, synthlib.results.statistics; print('scipy.stats' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.t_interval([]),
        lambda: statistics.t_interval([60, np.nan]),
        lambda: statistics.t_interval([60, 61], level=95),
        lambda: statistics.paired_t([60, 61], [60]),
        lambda: statistics.crossed_bootstrap(np.ones((2, 3)), np.ones((2, 4))),
        lambda: statistics.mcnemar([1, 0, 1], [1, 0]),
        lambda: statistics.mcnemar([[1, 0]], [[1, 0]]),
        lambda: statistics.mcnemar([], []),
        lambda: statistics.mcnemar([1, 0.5], [1, 0]),
        lambda: statistics.wilson_interval(11, 10),
        lambda: statistics.wilson_interval(2.5, 10),
        lambda: statistics.wilson_interval(0, 0),
        lambda: statistics.wilson_interval(5, 10, level=95),
        lambda: statistics.holm([0.5, 1.5]),
        lambda: statistics.rank_correlation([], []),
        lambda: statistics.rank_correlation([[1], [2]], [[1]]),
        lambda: statistics.rank_correlation([[1, 2]], [[1]]),
        lambda: statistics.rank_correlation([[np.nan]], [[1]]),
    ],
)
def test_wrong_input_is_one_line_that_says_what_was_expected(call):
    with pytest.raises(InputError, match="expected") as error:
        call()
    assert "\n" not in str(error.value)
