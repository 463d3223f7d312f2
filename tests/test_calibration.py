"""Calibration: bins and errors that can be worked out by hand, and a diagram that shows them."""

import math

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from synthlib.evaluation.calibration import calibration_bins, ece_percent
from synthlib.evaluation.evaluate import Classifier, Logits, calibration_rows, result_rows
from synthlib.inputs import InputError
from synthlib.results import figures


def sure(*percents: float) -> torch.Tensor:
    """Logits float32 [N, 2] that predict class 0 with these confidences."""
    share = torch.tensor(percents, dtype=torch.float64) / 100
    return torch.stack([share.log(), (1 - share).log()], dim=1).float()


# Of five images predicted 0 at 60 % three are of class 0; of five at 90 %, two.
LOGITS = sure(*[60] * 5, *[90] * 5)
LABELS = torch.tensor([0, 0, 0, 1, 1, 0, 0, 1, 1, 1])


def filled(bins):
    return [found for found in bins if found["n"]]


def test_each_image_is_in_the_bin_of_its_confidence_with_the_bins_accuracy():
    bins = calibration_bins(LOGITS, LABELS)
    assert len(bins) == 15 and sum(found["n"] for found in bins) == 10
    assert [found["bin_low_percent"] for found in bins] == pytest.approx([100 * k / 15 for k in range(15)])
    assert [found["bin_high_percent"] for found in bins] == pytest.approx([100 * k / 15 for k in range(1, 16)])
    for found, confidence, accuracy in zip(filled(bins), (60, 90), (60, 40), strict=True):
        assert found["bin_low_percent"] < confidence + 1e-4 and confidence <= found["bin_high_percent"] + 1e-4
        assert (found["n"], found["accuracy_percent"]) == (5, accuracy)
        assert found["confidence_percent"] == pytest.approx(confidence, abs=1e-4)
    assert all(math.isnan(found["accuracy_percent"]) for found in bins if not found["n"])


def test_the_error_is_the_gap_between_confidence_and_accuracy_weighed_by_images():
    # half of the images have no gap, half one of 90 - 40 = 50 points
    assert ece_percent(calibration_bins(LOGITS, LABELS)) == pytest.approx(25, abs=1e-4)
    # the first five and one at 90 % that is wrong: (5 * 0 + 1 * 90) / 6
    some = torch.tensor([0, 1, 2, 3, 4, 9])
    assert ece_percent(calibration_bins(LOGITS[some], LABELS[some])) == pytest.approx(15, abs=1e-4)


def test_gaps_of_opposite_sign_cancel_within_a_bin_only():
    # 60 % sure and always right, 80 % sure and right in 2 of 5: +40 and -40 points
    logits, labels = sure(*[60] * 5, *[80] * 5), torch.tensor([0] * 5 + [0, 0, 1, 1, 1])
    assert ece_percent(calibration_bins(logits, labels)) == pytest.approx(40, abs=1e-4)
    assert ece_percent(calibration_bins(logits, labels, bins=1)) == pytest.approx(0, abs=1e-4)  # 70 and 70


def test_an_edge_belongs_to_the_bin_below_and_full_confidence_to_the_last():
    even, certain = torch.zeros(2, 2), torch.tensor([[1000.0, 0]])  # 50 % and 100 %, exactly
    assert [found["n"] for found in calibration_bins(even, torch.tensor([0, 1]), bins=4)] == [0, 2, 0, 0]
    assert [found["n"] for found in calibration_bins(certain, torch.tensor([0]), bins=4)] == [0, 0, 0, 1]


def test_shuffles_are_pooled_and_an_image_counts_once_in_each():
    # at 60 % in the first shuffle, at 90 % in the second: 10 predictions each, both right in 5 of 10
    shuffles = torch.stack([sure(*[60] * 10), sure(*[90] * 10)])
    bins = calibration_bins(shuffles, LABELS)
    assert [(found["n"], found["accuracy_percent"]) for found in filled(bins)] == [(10, 50), (10, 50)]
    assert ece_percent(bins) == pytest.approx((10 + 40) / 2, abs=1e-4)


WHO = Classifier("digits", "test", "merged", "", "drawn", "resnet", "scratch", "miniature", 3, "64:3", 3, 400, 0, 210)
BOTH = Logits(LOGITS, torch.stack([LOGITS, sure(*[60] * 10)]), torch.arange(10).repeat(2, 1), LABELS)


def test_calibration_rows_have_every_bin_of_both_modes_with_the_condition():
    rows = calibration_rows(WHO, BOTH)
    assert [row["evaluation_mode"] for row in rows] == ["eval"] * 15 + ["authors"] * 15
    assert list(rows[0]) == [
        *WHO.condition("eval"), "replicate",
        "bin_low_percent", "bin_high_percent", "n", "confidence_percent", "accuracy_percent",
    ]  # fmt: skip
    assert rows[0] == WHO.condition("eval") | {
        "replicate": 3, "bin_low_percent": 0, "bin_high_percent": 6.666667, "n": 0, "confidence_percent": None,
        "accuracy_percent": None,
    }  # fmt: skip
    assert [sum(row["n"] for row in rows if row["evaluation_mode"] == mode) for mode in ("eval", "authors")] == [10, 20]


def test_the_result_row_holds_the_error_of_the_bins():
    # authors: at 60 % 3 of 5 and 5 of 10 right, gap 60 - 53.33 on 15 of 20; at 90 % 2 of 5 right, gap 50 on 5 of 20
    in_eval, in_authors = result_rows(WHO, BOTH)
    assert in_eval["ece_percent"] == pytest.approx(25, abs=1e-4)
    assert in_authors["ece_percent"] == pytest.approx(0.75 * 20 / 3 + 0.25 * 50, abs=1e-4)


@pytest.mark.parametrize(
    "logits, labels, bins",
    [
        (LOGITS, LABELS[:9], 15),
        (LOGITS[0], LABELS[:1], 15),
        (LOGITS[:0], LABELS[:0], 15),
        (LOGITS * float("nan"), LABELS, 15),
        (LOGITS, LABELS, 0),
    ],
)
def test_wrong_input_is_one_line_that_says_what_was_expected(logits, labels, bins):
    with pytest.raises(InputError, match="expected") as error:
        calibration_bins(logits, labels, bins)
    assert "\n" not in str(error.value)


# --- the diagram ------------------------------------------------------------------------------------------------------


def calibration_table():
    """Rows of calibration.csv for two replicates: of the second, all ten images at 60 % and five of them right."""
    second = Logits(sure(*[60] * 10), BOTH.authors, BOTH.order, LABELS)
    rows = calibration_rows(WHO, BOTH)
    return pd.DataFrame(rows + [row | {"replicate": 4} for row in calibration_rows(WHO, second)])


def curves(ax):
    return {line.get_label(): line for line in ax.lines}


def test_the_diagram_has_the_diagonal_the_pooled_bins_and_the_mean_error_in_the_legend():
    ax = figures.plot_reliability(calibration_table())
    assert list(curves(ax)) == ["calibrated", "eval mode: ECE 17.5 %", "authors' mode: ECE 17.5 %"]
    line = curves(ax)["eval mode: ECE 17.5 %"]  # the mean of 25 and of 60 - 50 = 10
    assert list(line.get_xdata()) == pytest.approx([60, 90], abs=1e-4)
    assert list(line.get_ydata()) == pytest.approx([100 * 8 / 15, 40])
    assert list(curves(ax)["calibrated"].get_xdata()) == list(curves(ax)["calibrated"].get_ydata()) == [0, 100]
    plt.close("all")


def test_the_bars_are_the_share_of_images_in_each_bin_and_make_a_whole():
    ax = figures.plot_reliability(calibration_table()[lambda table: table["evaluation_mode"] == "eval"])
    assert sorted(bar.get_height() for bar in ax.patches if bar.get_height()) == pytest.approx([25, 75])
    ours = plt.subplots()[1]
    assert figures.plot_reliability(calibration_table(), ours) is ours
    plt.close("all")


def test_the_diagram_refuses_to_mix_conditions():
    table = calibration_table()
    mixed = pd.concat([table, table.assign(init="imagenet")])
    with pytest.raises(InputError, match=r"init \['scratch', 'imagenet'\]; expected one"):
        figures.plot_reliability(mixed)
    with pytest.raises(InputError, match="expected one"):
        figures.plot_reliability(table[:0])
