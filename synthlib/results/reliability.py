"""F10, reliability: is a classifier right as often as it is sure? Data in, Axes out; nothing here reads a file."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from synthlib.inputs import InputError
from synthlib.results import MODE_LABELS, VARIANTS, known, mode_order, trick_label, trick_order
from synthlib.results.style import (
    GREY,
    MODE_STYLES,
    add_legend,
    add_not_run,
    new_axes,
    new_panels,
    not_run_figure,
    panels_of,
    take_legend,
    title_panel,
)

if TYPE_CHECKING:
    import pandas as pd


def plot_reliability(table: "pd.DataFrame", ax: Axes | None = None) -> Axes:
    """Accuracy against confidence by bins, in each evaluation mode; on the dashed diagonal a classifier is calibrated.

    Bars show how many of the images a bin holds (authors' mode: of all shuffles). Replicates are pooled into the marks;
    the ECE in the legend is the mean of theirs, as T1 has it (Guo et al. 2017, figure 1 and equation 3).
    table: rows of calibration.csv for one data set, trick and architecture. InputError: none, or several of these.
    """
    for name in ("dataset", "trick", "architecture", *VARIANTS):
        if table[name].nunique(dropna=False) != 1:
            values = table[name].unique().tolist()
            raise InputError(
                f"the calibration rows have {name} {values}; expected one: choose the rows of one condition."
            )
    ax = ax or new_axes((5.6, 3.8))
    ax.plot([0, 100], [0, 100], "--", color=GREY, linewidth=1, zorder=1, label="calibrated")
    modes = sorted(table["evaluation_mode"].unique(), key=mode_order)
    for place, mode in enumerate(modes):
        colour, marker = MODE_STYLES[mode]
        rows = table[(table["evaluation_mode"] == mode) & (table["n"] > 0)]
        errors = [_ece(*_columns(rows[rows["replicate"] == number])) for number in rows["replicate"].unique()]
        edges = np.unique(rows[["bin_low_percent", "bin_high_percent"]], axis=0)
        bins = [_pooled(*_columns(rows[rows["bin_low_percent"] == low])) for low in edges[:, 0]]
        count, sure, right = np.array(bins).T
        wide = (edges[:, 1] - edges[:, 0]) * 0.84 / len(modes)
        left = edges[:, 0] + (edges[:, 1] - edges[:, 0]) * 0.08 + wide * place
        ax.bar(left, 100 * count / count.sum(), wide, align="edge", color=colour, alpha=0.3, linewidth=0)
        label = f"{MODE_LABELS[mode]}: ECE {np.mean(errors):.1f} %"
        ax.plot(sure, right, color=colour, marker=marker, markersize=5, markeredgecolor="white", zorder=3, label=label)
    ax.set_xlim(0, 100)
    ax.set_ylim(0, 102)
    ax.set_xlabel("confidence, %")
    ax.set_ylabel("accuracy, %\n(bars: share of the images, %)")
    first = table.iloc[0]
    setting = f", {first['setting']}" if known(first["setting"]) else ""
    ax.set_title(f"{first['dataset']}, {first['architecture']}, {trick_label(first['trick'])}{setting}", loc="left")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    return ax


def reliability_figure(calibration: "pd.DataFrame", not_run: Sequence[str] = ()) -> Figure:
    """F10: `plot_reliability`, a row of panels a data set, architecture and variant, a column a trick; the ECE inside.

    calibration: rows of calibration.csv files. A condition all of whose bins are empty is left out.
    """
    calibration = calibration.assign(setting=calibration["setting"].map(known))
    panels = []
    for title, rows in panels_of(calibration[calibration["evaluation_mode"].isin(MODE_STYLES)]):
        conditions = rows.groupby(["trick", "setting"], sort=False)
        for (trick, setting), mine in sorted(conditions, key=lambda item: (trick_order(item[0][0]), item[0][1])):
            if (mine["n"] > 0).any():
                panels.append((f"{title}\n{trick_label(trick)}{', ' if setting else ''}{setting}", mine))
    if not panels:
        return not_run_figure(not_run)
    n_tricks = len(calibration[["trick", "setting"]].drop_duplicates())
    columns = 2 if n_tricks in (1, 2) else 3
    figure, axes = new_panels(len(panels), columns, 3.0 if columns == 2 else 2.3)
    handles = {}
    for place, ((title, mine), ax) in enumerate(zip(panels, axes, strict=True)):
        plot_reliability(mine, ax)
        found = take_legend(ax)
        handles |= {label.partition(": ECE")[0]: handle for label, handle in found.items()}
        errors = {label.partition(": ")[2]: handle for label, handle in found.items() if ": ECE" in label}
        ax.legend(errors.values(), errors.keys(), loc="upper left", fontsize=7, handlelength=1.2, borderaxespad=0.1)
        title_panel(ax, title)
        ax.set_ylabel("accuracy, %" if place % columns == 0 else "")
    add_legend(figure, handles, "bars: share of the images, %")
    return add_not_run(figure, not_run)


def _columns(rows: "pd.DataFrame") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, confidences and accuracies of bins, each float64 [B]."""
    return tuple(rows[name].to_numpy(float) for name in ("n", "confidence_percent", "accuracy_percent"))


def _ece(count: np.ndarray, sure: np.ndarray, right: np.ndarray) -> float:
    return float((count * abs(right - sure)).sum() / count.sum())


def _pooled(count: np.ndarray, sure: np.ndarray, right: np.ndarray) -> tuple[float, float, float]:
    """One bin of several replicates: all their images, with mean confidence and accuracy."""
    return count.sum(), np.average(sure, weights=count), np.average(right, weights=count)
