"""Figures: data in, Axes out; nothing here reads a file.

`plot_*` draw into one Axes (or make one), `*_figure` put panels together; `save_figure` comes from `results.style`.
Imports matplotlib only: notebooks 01 to 03 draw too, and should not wait for pandas or seaborn.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike

from synthlib.inputs import InputError
from synthlib.results import MODE_LABELS, VARIANTS, trick_label, trick_order, variant_order, variant_words, varying
from synthlib.results.images import plot_images, plot_sample_grid
from synthlib.results.reliability import plot_reliability
from synthlib.results.style import GREY, MODE_STYLES, PALETTE, add_note, new_axes, save_figure, trick_style, use_style
from synthlib.settings import BEST_MODE, EVALUATION_MODES

if TYPE_CHECKING:
    import pandas as pd

__all__ = [  # with what a notebook needs of `images` and `style`, so that it imports one module
    "accuracy_figure", "add_note", "confusion_figure", "diversity_figure", "plot_accuracy_by_trick", "plot_confusion",
    "plot_diversity_against_accuracy", "plot_guidance_histogram", "plot_history", "plot_images", "plot_reliability",
    "plot_sample_grid", "save_figure", "use_style",
]  # fmt: skip

MARK_SIZES = "large: mean, small: a replicate"
MEASURE_LABELS = {
    "vendi": "Vendi score, all classes together",
    "vendi_per_class": "Vendi score, mean over classes",
    "recall": "recall of the real images",
    "precision": "precision against the real images",
    "density": "density",
    "coverage": "coverage of the real images",
}

# --- accuracy ---------------------------------------------------------------------------------------------------------


def plot_accuracy_by_trick(
    table: "pd.DataFrame", ax: Axes | None = None, variants: Sequence[str] | None = None
) -> Axes:
    """F2, one panel: accuracy with its 95 % interval per trick, in each evaluation mode.

    Hollow: the best epoch on the test set, where there is one. A star is the published value, where there is one.
    table: rows of `tables.accuracy_by_trick` for one data set and one architecture. What was not run is named so.
    variants: columns (of `VARIANTS`) that give a trick lines of its own; by default those that differ in the table.
    """
    dataset, architecture = _only(table, "dataset"), _only(table, "architecture")
    variants = varying(table) if variants is None else list(variants)
    lines = _lines(table, variants)
    ax = ax or new_axes((5.2, 0.9 + 0.42 * len(lines)))
    heights = dict(zip(EVALUATION_MODES, (-0.14, 0.14), strict=True))
    if (table["evaluation_mode"] == BEST_MODE).any():
        heights = dict(zip((*EVALUATION_MODES, BEST_MODE), (-0.22, 0, 0.22), strict=True))
    labelled = set()
    for row in table.to_dict("records"):
        mode, accuracy, published = row["evaluation_mode"], row["accuracy_percent"], row["published_percent"]
        y = lines.index(_line(row, variants))
        y_mode = y + heights[mode]
        colour, marker = MODE_STYLES["authors" if mode == BEST_MODE else mode]
        inside, edge = ("white", colour) if mode == BEST_MODE else (colour, "white")
        if not _missing(accuracy):
            label = MODE_LABELS[mode].replace(", ", ",\n")
            if not _missing(row["ci_low"]):
                ax.plot(
                    [row["ci_low"], row["ci_high"]], [y_mode, y_mode], color=colour, solid_capstyle="butt", zorder=2
                )
            ax.plot(accuracy, y_mode, marker, color=inside, markersize=6, markeredgecolor=edge, zorder=3,
                    label=None if label in labelled else label)  # fmt: skip
            labelled.add(label)
        elif str(row["status"]).startswith("not run") and mode == EVALUATION_MODES[0]:
            ax.text(0.02, y, "not run", transform=ax.get_yaxis_transform(), va="center", fontsize=8, color=GREY)
        number = isinstance(published, float) or str(published).replace(".", "").isdigit()
        if number and mode != BEST_MODE:  # which has the same
            label = "published (authors' mode)"
            ax.plot(float(published), y_mode, "*", color="none", markeredgecolor="black", markersize=9,
                    zorder=4, label=None if label in labelled else label)  # fmt: skip
            labelled.add(label)
    ax.set_yticks(range(len(lines)), [trick_label(trick) + words for trick, words in lines])
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("accuracy on the real test images, % (bar: 95 % interval)")
    ax.set_title(f"{dataset}, {architecture}", loc="left")
    if labelled:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    return ax


def accuracy_figure(table: "pd.DataFrame") -> Figure:
    """F2: `plot_accuracy_by_trick` for every (data set, architecture) of the table, with one scale a data set."""
    panels = list(dict.fromkeys(zip(table["dataset"], table["architecture"], strict=True)))
    variants = varying(table)  # of all panels, so that each says what differs between them
    n_lines = [len(_lines(table[_where(table, dataset=d, architecture=a)], variants)) for d, a in panels]
    use_style()
    figure, axes = plt.subplots(
        len(panels), 1, squeeze=False, figsize=(6.6, sum(0.95 + 0.4 * n for n in n_lines) + 0.2),
        height_ratios=[n + 1 for n in n_lines],
    )  # fmt: skip
    handles = {}
    for (dataset, architecture), ax in zip(panels, axes[:, 0], strict=True):
        plot_accuracy_by_trick(table[_where(table, dataset=dataset, architecture=architecture)], ax, variants)
        handles |= _take_legend(ax)
        if ax is not axes[-1, 0]:
            ax.set_xlabel("")
    for dataset in dict(panels):
        same = [ax for panel, ax in zip(panels, axes[:, 0], strict=True) if panel[0] == dataset]
        limits = np.array([ax.get_xlim() for ax in same])
        for ax in same:
            ax.set_xlim(limits[:, 0].min(), limits[:, 1].max())
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside right upper")
    return figure


def plot_confusion(matrix: ArrayLike, classes: Sequence[str], ax: Axes | None = None, colorbar: bool = True) -> Axes:
    """F3: confusion matrix [C, C] in percent of each true class (rows); numbers in the cells up to 20 classes."""
    matrix = np.asarray(matrix, dtype=np.float64)
    n = len(classes)
    if matrix.shape != (n, n):
        raise InputError(
            f"the confusion matrix has shape {matrix.shape}; expected ({n}, {n}), one row and column per class."
        )
    side = _confusion_side(n)
    ax = ax or new_axes((side + 1.8, side + 0.8))
    shown = ax.imshow(matrix, cmap="Blues", vmin=0, vmax=100)
    step = 1 if n <= 40 else 5
    names = [name.replace("_", " ") for name in classes]
    ax.set_xticks(range(0, n, step), names[::step], rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(0, n, step), names[::step])
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    if n <= 20:
        for row, column in zip(*np.nonzero(matrix >= 0.5), strict=True):
            value = matrix[row, column]
            ink = "white" if value > 55 else "black"
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=ink)
    if colorbar:
        _confusion_bar(shown, [ax])
    return ax


def confusion_figure(matrices: Mapping[str, ArrayLike], classes: Sequence[str]) -> Figure:
    """F3: `plot_confusion` for each titled matrix [C, C], two panels a row, with one colour scale."""
    use_style()
    columns = min(2, len(matrices))
    rows = math.ceil(len(matrices) / columns)
    side = _confusion_side(len(classes))
    figure, axes = plt.subplots(
        rows, columns, squeeze=False, figsize=((side + 0.9) * columns + 0.9, (side + 1.5) * rows), sharey=True
    )
    for place, ax in enumerate(axes.flat):
        if place >= len(matrices):
            ax.set_axis_off()
            continue
        plot_confusion(list(matrices.values())[place], classes, ax, colorbar=False)
        ax.set_title(list(matrices)[place], loc="left")
        if place % columns:
            ax.set_ylabel("")
    _confusion_bar(axes[0, 0].images[0], list(axes.flat))
    return figure


def _confusion_side(n_classes: int) -> float:
    """Inches of a panel's side."""
    return max(3.2, 0.42 * n_classes) if n_classes <= 20 else 8.0


def _confusion_bar(shown: AxesImage, axes: list[Axes]) -> None:
    bar = shown.figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("% of the true class")
    bar.outline.set_visible(False)


# --- diversity --------------------------------------------------------------------------------------------------------


def plot_diversity_against_accuracy(
    frame: "pd.DataFrame", ax: Axes | None = None, variants: Sequence[str] = ()
) -> Axes:
    """F4, one panel: a measure of the generated images (x) against accuracy (y), by condition and replicate.

    frame: rows of `rows.diversity_against_accuracy` for one data set, architecture, evaluation mode, measure, feature
    space, and one of each of `VARIANTS`; the title names the `variants`.
    """
    dataset, architecture, mode, measure, space = (
        _only(frame, name) for name in ("dataset", "architecture", "evaluation_mode", "measure", "feature_space")
    )
    words = variant_words({name: _only(frame, name) for name in VARIANTS}, variants)
    ax = ax or new_axes((5.8, 3.6))
    for trick in sorted(set(frame["trick"]), key=trick_order):
        rows = frame[frame["trick"] == trick]
        x, y = rows["value"].to_numpy(float), rows["accuracy_percent"].to_numpy(float)
        colour, marker = trick_style(trick)
        if len(rows) > 1:
            ax.plot(x, y, marker, color=colour, markersize=4, alpha=0.45, markeredgewidth=0, linestyle="none", zorder=2)
        ax.plot(x.mean(), y.mean(), marker, color=colour, markersize=9, markeredgecolor="white", zorder=3,
                linestyle="none", label=trick_label(trick))  # fmt: skip
    ax.set_xlabel(f"{MEASURE_LABELS.get(measure, str(measure).replace('_', ' '))}\n({space})")
    ax.set_ylabel(f"accuracy, % ({MODE_LABELS[mode]})")
    ax.set_title(f"{dataset}, {architecture}{words}", loc="left")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, title=MARK_SIZES, alignment="left")
    return ax


def diversity_figure(frame: "pd.DataFrame", evaluation_mode: str = "eval") -> Figure:
    """F4: `plot_diversity_against_accuracy`, a row of panels an architecture and variant, a column a measure."""
    frame = frame[frame["evaluation_mode"] == evaluation_mode]
    variants = varying(frame)
    told_apart = ["dataset", "architecture", *variants]
    lines = list(dict.fromkeys(frame[told_apart].itertuples(index=False, name=None)))
    measures = list(dict.fromkeys(zip(frame["measure"], frame["feature_space"], strict=True)))
    if not lines:
        raise InputError(f"no row was evaluated in {evaluation_mode!r} mode; expected one of those in the frame.")
    use_style()
    figure, axes = plt.subplots(
        len(lines), len(measures), squeeze=False, figsize=(3.3 * len(measures) + 1.8, 3.0 * len(lines) + 0.3)
    )
    handles = {}
    for values, line in zip(lines, axes, strict=True):
        for (measure, space), ax in zip(measures, line, strict=True):
            wanted = dict(zip(told_apart, values, strict=True))
            chosen = _where(frame, **wanted, measure=measure, feature_space=space)
            if not chosen.any():
                ax.set_axis_off()
                continue
            plot_diversity_against_accuracy(frame[chosen], ax, variants)
            handles |= _take_legend(ax)
            if ax is not line[0]:
                ax.set_ylabel("")
                ax.set_title("")
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", title=MARK_SIZES, alignment="left")
    return figure


# --- what notebooks 01 and 02 look at ---------------------------------------------------------------------------------


def plot_guidance_histogram(guidance: ArrayLike, trick: str, ax: Axes | None = None) -> Axes:
    """How many images were drawn at which guidance scale, from `guidance` [N]."""
    guidance = np.asarray(guidance, dtype=np.float64)
    low, high = math.floor(guidance.min() * 4) / 4, math.ceil(guidance.max() * 4) / 4
    edges = (
        np.linspace(low, high, min(40, max(2, round((high - low) * 4) + 1))) if high > low else [low - 0.1, low + 0.1]
    )
    ax = ax or new_axes((4.2, 2.4))
    ax.hist(guidance, bins=edges, color=trick_style(trick)[0], edgecolor="white", linewidth=0.5)
    ax.set_xlim(min(0.5, low), max(8.0, high + 0.5))
    ax.grid(axis="x", visible=False)
    ax.set_xlabel("guidance scale")
    ax.set_ylabel("images")
    ax.set_title(f"{trick_label(trick)}: {len(guidance):,} images", loc="left")
    return ax


def plot_history(history: Mapping[str, ArrayLike], ax: Axes | None = None) -> Axes:
    """Training loss (left, solid) and training accuracy (right, dashed) by epoch: thin a replicate, thick the mean.

    history: columns replicate, epoch, loss, train_accuracy_percent (a DataFrame or a dict of equally long sequences).
    """
    columns = {name: np.asarray(history[name]) for name in ("replicate", "epoch", "loss", "train_accuracy_percent")}
    ax = ax or new_axes((5.2, 2.8))
    right = ax.twinx()
    right.spines["right"].set_visible(True)
    right.grid(visible=False)
    curves = (
        (ax, "loss", "training loss (solid)", PALETTE[0], "-"),
        (right, "train_accuracy_percent", "training accuracy, % (dashed)", PALETTE[3], "--"),
    )
    epochs = np.unique(columns["epoch"])
    for axes, name, label, colour, style in curves:
        for replicate in np.unique(columns["replicate"]):
            mine = columns["replicate"] == replicate
            axes.plot(columns["epoch"][mine], columns[name][mine], style, color=colour, linewidth=0.8, alpha=0.4)
        mean = [columns[name][columns["epoch"] == epoch].mean() for epoch in epochs]
        axes.plot(epochs, mean, style, color=colour, linewidth=2, marker="o" if len(epochs) == 1 else None)
        axes.set_ylabel(label, color=colour)
        axes.tick_params(axis="y", colors=colour)
    ax.set_ylim(bottom=0)
    right.set_ylim(0, 102)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("epoch")
    return ax


# --- helpers ----------------------------------------------------------------------------------------------------------


def _line(row: Mapping[str, object], variants: Sequence[str]) -> tuple[str, str]:
    """A row's line in a panel of F2: its trick, and the words that tell it from another of the same trick."""
    return row["trick"], variant_words(row, variants)


def _lines(table: "pd.DataFrame", variants: Sequence[str]) -> list[tuple[str, str]]:
    """The lines of a panel of F2, from top to bottom."""
    rows = sorted(table.to_dict("records"), key=lambda row: (trick_order(row["trick"]), variant_order(row)))
    return list(dict.fromkeys(_line(row, variants) for row in rows))


def _take_legend(ax: Axes) -> dict[str, Artist]:
    """Label -> handle of a panel, whose own legend goes: the figure has one for all."""
    handles, labels = ax.get_legend_handles_labels()
    if ax.get_legend():
        ax.get_legend().remove()
    return dict(zip(labels, handles, strict=True))


def _only(frame: "pd.DataFrame", column: str) -> str:
    """The one value of a column; InputError where a panel would mix several."""
    values = list(dict.fromkeys(frame[column]))
    if len(values) != 1:
        raise InputError(
            f"the panel's rows have {column} {values}; expected one: choose it, or use the function that makes panels."
        )
    return values[0]


def _where(frame: "pd.DataFrame", **values: str) -> np.ndarray:
    """Boolean mask of the rows whose columns have these values."""
    return np.logical_and.reduce([frame[column].to_numpy() == value for column, value in values.items()])


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)
