"""Figures: data in, Axes out; nothing here reads a file. Accuracy (F2), confusion (F3), and what notebooks 01 to 03 draw.

`plot_*` draw into one Axes (or make one), `*_figure` put panels together; `save_figure` comes from `results.style`.
Imports matplotlib only: notebooks 01 to 03 draw too, and should not wait for pandas or seaborn. The other figures:
`results.images` (F1), `diversity_plots` (F4), `feature_map` (F5), `curves` (F6, F7, F9), `gains` (F8), `reliability` (F10).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike

from synthlib.inputs import InputError
from synthlib.names import BEST_MODE, EVALUATION_MODES, REAL_TRICKS
from synthlib.results import MODE_LABELS, known, trick_label, trick_order, variant_order, variant_words, varying
from synthlib.results.images import plot_images, plot_sample_grid, sample_figure
from synthlib.results.reliability import plot_reliability, reliability_figure
from synthlib.results.style import (
    GREY,
    MODE_STYLES,
    ONE_COLUMN,
    PALETTE,
    TWO_COLUMN,
    add_not_run,
    add_note,
    dots_words,
    draw_values,
    new_axes,
    not_run_figure,
    over_words,
    save_figure,
    take_legend,
    title_panel,
    trick_style,
    unsaid,
    use_style,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [  # with what a notebook needs of other modules that draw, so that it imports one
    "accuracy_figure", "add_note", "confusion_figure", "confusion_table", "over_words", "plot_accuracy_by_trick",
    "plot_confusion", "plot_guidance_histogram", "plot_history", "plot_images", "plot_reliability", "plot_sample_grid",
    "reliability_figure", "sample_figure", "save_figure", "use_style",
]  # fmt: skip

# --- accuracy ---------------------------------------------------------------------------------------------------------


def plot_accuracy_by_trick(
    table: "pd.DataFrame", ax: Axes | None = None, variants: Sequence[str] | None = None
) -> Axes:
    """F2, one panel: accuracy with its 95 % interval per trick, in each evaluation mode.

    Hollow: the best epoch on the test set, where there is one. A star is the published value, where there is one.
    table: rows of `tables.accuracy_by_trick` for one data set and one architecture. What was not run is named so.
    variants: columns (of `VARIANTS`) that give a trick lines of its own; by default those that differ in the table, but for
    what a setting or the trick has said: that few shot and real are of real images.
    """
    dataset, architecture = _only(table, "dataset"), _only(table, "architecture")
    variants = _told_apart(table) if variants is None else list(variants)
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
            few = known(row.get("accuracy_values"))
            draw_values(ax, [y_mode], [few], colour, across=True)
            if not (_missing(row["ci_low"]) or few):
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
    ax.set_xlabel(_accuracy_label(table))
    ax.set_title(f"{dataset}, {architecture}", loc="left")
    if labelled:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    return ax


def accuracy_figure(table: "pd.DataFrame", not_run: Sequence[str] = ()) -> Figure:
    """F2: `plot_accuracy_by_trick` for every (data set, architecture) of the table, with one scale a data set."""
    if table.empty:
        return not_run_figure(not_run)
    panels = list(dict.fromkeys(zip(table["dataset"], table["architecture"], strict=True)))
    variants = _told_apart(table)  # of all panels, so that each says what differs between them
    n_lines = [len(_lines(table[_where(table, dataset=d, architecture=a)], variants)) for d, a in panels]
    use_style()
    figure, axes = plt.subplots(
        len(panels), 1, squeeze=False, figsize=(TWO_COLUMN, sum(0.95 + 0.4 * n for n in n_lines) + 0.2),
        height_ratios=[n + 1 for n in n_lines],
    )  # fmt: skip
    handles = {}
    for (dataset, architecture), ax in zip(panels, axes[:, 0], strict=True):
        plot_accuracy_by_trick(table[_where(table, dataset=dataset, architecture=architecture)], ax, variants)
        handles |= take_legend(ax)
        ax.set_xlabel("")
    axes[-1, 0].set_xlabel(_accuracy_label(table))
    for dataset in dict(panels):
        same = [ax for panel, ax in zip(panels, axes[:, 0], strict=True) if panel[0] == dataset]
        limits = np.array([ax.get_xlim() for ax in same])
        for ax in same:
            ax.set_xlim(limits[:, 0].min(), limits[:, 1].max())
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside right upper")
    return add_not_run(figure, not_run)


def plot_confusion(matrix: ArrayLike, classes: Sequence[str], ax: Axes | None = None, colorbar: bool = True) -> Axes:
    """F3: confusion matrix [C, C] in percent of each true class (rows); numbers in the cells up to 12 classes."""
    matrix = np.asarray(matrix, dtype=np.float64)
    n = len(classes)
    if matrix.shape != (n, n):
        raise InputError(
            f"the confusion matrix has shape {matrix.shape}; expected ({n}, {n}), one row and column per class."
        )
    side = max(3.2, 0.3 * n) if n <= 20 else 5.0
    ax = ax or new_axes((side + 1.5, side + 0.8))
    shown = ax.imshow(matrix, cmap="Blues", vmin=0, vmax=100)
    step = 1 if n <= 40 else 5
    names = [name.replace("_", " ") for name in classes]
    ax.set_xticks(range(0, n, step), names[::step], rotation=45, ha="right", rotation_mode="anchor", fontsize=7)
    ax.set_yticks(range(0, n, step), names[::step], fontsize=7)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    if n <= 12:  # of more, the cells of a column's width have no room for them
        for row, column in zip(*np.nonzero(matrix >= 0.5), strict=True):
            value = matrix[row, column]
            ink = "white" if value > 55 else "black"
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=ink)
    if colorbar:
        _confusion_bar(shown, [ax])
    return ax


def confusion_figure(matrices: Mapping[str, ArrayLike], classes: Sequence[str], not_run: Sequence[str] = ()) -> Figure:
    """F3 of one data set: `plot_confusion` for each titled matrix [C, C], with one colour scale.

    Two panels a row, of more than 20 classes one. The figure is as high as makes the cells square.
    """
    if not matrices:
        return not_run_figure(not_run)
    use_style()
    columns = min(2 if len(classes) <= 20 else 1, len(matrices))
    rows = math.ceil(len(matrices) / columns)
    names = 0.055 * max(map(len, classes))  # inches, at 7 points
    wide = ONE_COLUMN if len(matrices) == 1 and len(classes) <= 12 else TWO_COLUMN
    side = (wide - names - 1.0) / columns if columns == 2 or wide == ONE_COLUMN else 4.6
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=(wide, (side + 0.75 * names + 0.5) * rows))
    for place, ax in enumerate(axes.flat):
        if place >= len(matrices):
            ax.set_axis_off()
            continue
        plot_confusion(list(matrices.values())[place], classes, ax, colorbar=False)
        # Constrained layout measures titles and labels from an Axes' whole place. One of equal aspect fills only a part of it,
        # so its margins would come out too small: the cells become square by the figure's height instead.
        ax.set_aspect("auto")
        title_panel(ax, list(matrices)[place])
        if place + columns < len(matrices):
            ax.set_xlabel("")
        if place % columns:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
    _confusion_bar(axes[0, 0].images[0], list(axes.flat))
    add_not_run(figure, not_run)
    figure.draw_without_rendering()
    place = axes[0, 0].get_window_extent()
    figure.set_figheight(figure.get_figheight() + rows * (place.width - place.height) / figure.dpi)
    return figure


def confusion_table(
    matrices: Mapping[str, ArrayLike], classes: Sequence[str], who: Mapping[str, Mapping[str, str]]
) -> "pd.DataFrame":
    """F3 in numbers: dataset, trick, setting, architecture, condition (the matrix's title), and the shares of its cells.

    These are true_class, predicted_class, percent (of the true class). who[title]: the first four columns of a matrix.
    InputError: a matrix that `who` does not name.
    """
    import pandas as pd

    unnamed = [title for title in matrices if title not in who]
    if unnamed:
        raise InputError(
            f"the matrix {unnamed[0]!r} has no condition; expected its data set, trick, setting and architecture: "
            "name them in `who`."
        )
    first = ["dataset", "trick", "setting", "architecture"]
    pairs = [
        (*(who[title][name] for name in first), title, true, predicted)
        for title in matrices
        for true in classes
        for predicted in classes
    ]
    table = pd.DataFrame(pairs, columns=[*first, "condition", "true_class", "predicted_class"])
    return table.assign(percent=np.concatenate([np.ravel(matrix) for matrix in matrices.values()] or [[]]))


def _confusion_bar(shown: AxesImage, axes: list[Axes]) -> None:
    bar = shown.figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.02, aspect=30)
    bar.set_label("% of the true class")
    bar.outline.set_visible(False)


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


def _accuracy_label(table: "pd.DataFrame") -> str:
    dots = dots_words(table["accuracy_values"]) if "accuracy_values" in table else []
    return "\n".join(["accuracy on the real test images, % (bar: 95 % interval)", *dots])


def _line(row: Mapping[str, object], variants: Sequence[str]) -> tuple[str, str]:
    """A row's line in a panel of F2: its trick, and the words that tell it from another of the same trick."""
    names = [name for name in variants if name != "images" or row["trick"] not in REAL_TRICKS]
    return row["trick"], variant_words(row, unsaid(row["setting"], names))


def _lines(table: "pd.DataFrame", variants: Sequence[str]) -> list[tuple[str, str]]:
    """The lines of a panel of F2, from top to bottom."""
    rows = sorted(table.to_dict("records"), key=lambda row: (trick_order(row["trick"]), variant_order(row)))
    return list(dict.fromkeys(_line(row, variants) for row in rows))


def _told_apart(table: "pd.DataFrame") -> list[str]:
    """The variants that the lines of F2 name: those that differ; of the images, among tricks."""
    tricks = table[~table["trick"].isin(REAL_TRICKS)]
    return [name for name in varying(table) if name != "images" or tricks["images"].nunique() > 1]


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
