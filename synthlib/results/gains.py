"""F8, the gain of each class: which classes profit from the tricks, and which lose? Rows in, numbers and Axes out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from synthlib.results import MODE_LABELS, VARIANTS, mode_order, statistics, trick_label
from synthlib.results.cells import few_values
from synthlib.results.style import (
    GREY,
    MODE_STYLES,
    ONE_COLUMN,
    TWO_COLUMN,
    add_legend,
    add_not_run,
    dots_words,
    draw_values,
    not_run_figure,
    panels_of,
    take_legend,
    title_panel,
    use_style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 40  # that a panel shows all of
ENDS = 15  # of more, this many of the largest and as many of the smallest gains
SHARED = ["dataset", "architecture", *VARIANTS, "evaluation_mode"]  # equal in both conditions of a pair
GAIN_COLUMNS = [
    *SHARED, "class", "base", "merged", "base_percent", "merged_percent", "gain_points", "gain_low", "gain_high",
    "gain_values", "gain_method", "n_pairs",
]  # fmt: skip


def class_gains(
    per_class: pd.DataFrame, base: str = "base_class", merged: str = "merged", over: str = "replicates"
) -> pd.DataFrame:
    """F8 in numbers: accuracy of `merged` minus `base` in points, class by class, paired over the shared replicates.

    One row per (data set, architecture, variant, evaluation mode, class), with Student's t interval; one replicate has
    none. The intervals are each of one class: they are not widened for the number of classes. Conditions without a
    partner, and classes without a test image, give no row. per_class: rows of per_class.csv files. over: what was replicated,
    for gain_method, which the rows do not know: "replicates (training seeds only)", see `style.over_words`.
    """
    table = []
    per_class = per_class.dropna(subset=["accuracy_percent"])
    for shared, rows in per_class.groupby(SHARED, sort=False, dropna=False):
        sides = [rows[rows["trick"] == trick] for trick in (base, merged)]
        both = sides[0].merge(sides[1], on=["replicate", "class"], suffixes=("_base", "_merged"), sort=False)
        for name, pairs in both.groupby("class", sort=False):
            a, b = (pairs[f"accuracy_percent_{side}"].to_numpy(float) for side in ("merged", "base"))
            found = statistics.paired_t(a, b)
            line = dict(zip(SHARED, shared, strict=True)) | {"class": name, "base": base, "merged": merged}
            line |= {"base_percent": b.mean(), "merged_percent": a.mean(), "gain_points": found.mean}
            line |= {
                "gain_low": found.low,
                "gain_high": found.high,
                "gain_values": few_values(a - b),
                "n_pairs": found.n,
            }
            method = "one replicate: no interval" if found.n == 1 else f"paired t over {found.n} {over}"
            table.append(line | {"gain_method": method})
    return pd.DataFrame(table, columns=GAIN_COLUMNS)


def plot_class_gains(gains: pd.DataFrame, ax: Axes) -> Axes:
    """F8, one panel: the gain of each class as a dot with its interval, sorted by the gain in `eval` mode.

    gains: rows of `class_gains` for one condition, in one or more evaluation modes.
    """
    modes = sorted(gains["evaluation_mode"].unique(), key=mode_order)
    leading = gains[gains["evaluation_mode"] == modes[0]].sort_values("gain_points", ascending=False, kind="stable")
    classes = leading["class"].tolist()
    kept = classes if len(classes) <= MOST_CLASSES else [*classes[:ENDS], *classes[-ENDS:]]
    # of the classes left out, an empty line
    places = {name: place + (len(kept) < len(classes) and place >= ENDS) for place, name in enumerate(kept)}
    ax.axvline(0, color=GREY, linewidth=1, zorder=1)
    for mode, shift in zip(modes, np.linspace(-0.18, 0.18, len(modes)) if len(modes) > 1 else [0], strict=True):
        rows = gains[(gains["evaluation_mode"] == mode) & gains["class"].isin(kept)]
        colour, marker = MODE_STYLES[mode]
        y = rows["class"].map(places).to_numpy(float) + shift
        whole = (rows["gain_values"] == "").to_numpy()
        ax.hlines(y[whole], rows["gain_low"][whole], rows["gain_high"][whole], color=colour, linewidth=1.2, zorder=2)
        draw_values(ax, y, rows["gain_values"], colour, across=True)
        ax.plot(rows["gain_points"], y, marker, color=colour, markersize=4, markeredgecolor="white",
                markeredgewidth=0.5, zorder=3, label=MODE_LABELS[mode])  # fmt: skip
    ax.set_yticks(list(places.values()), [str(name).replace("_", " ") for name in places], fontsize=7)
    ax.set_ylim(max(places.values()) + 0.6, -0.6)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    if len(kept) < len(classes):
        ax.text(0.5, ENDS, f"{len(classes) - len(kept)} classes not shown", va="center", ha="center",
                fontsize=7, color=GREY, transform=ax.get_yaxis_transform())  # fmt: skip
    ax.set_xlabel(f"{trick_label(gains['merged'].iloc[0])} minus {trick_label(gains['base'].iloc[0])}, points")
    return ax


def class_gain_figure(gains: pd.DataFrame, not_run: Sequence[str] = (), over: str = "replicates") -> "Figure":
    """F8: `plot_class_gains` for each data set, architecture and variant; of many classes the ends only.

    over: what the intervals are over, for the legend, as in `class_gains`.
    """
    if gains.empty:
        return not_run_figure(not_run)
    panels = panels_of(gains, apart=["setting"] if gains["setting"].nunique() > 1 else [])
    longest = max(len(str(name)) for name in gains["class"])
    columns = 1 if len(panels) == 1 else (3 if longest <= 12 else 2)
    columns = min(columns, len(panels))
    most = gains.groupby("dataset")["class"].nunique().max()
    height = 0.9 + 0.17 * (most if most <= MOST_CLASSES else 2 * ENDS + 1)
    use_style()
    rows = -(-len(panels) // columns)
    width = ONE_COLUMN if len(panels) == 1 and longest <= 20 else TWO_COLUMN
    figure, axes = plt.subplots(rows, columns, squeeze=False, sharex=True, figsize=(width, height * rows))
    handles = {}
    for place, ax in enumerate(axes.flat):
        if place >= len(panels):
            ax.set_axis_off()
            continue
        title, mine = panels[place]
        plot_class_gains(mine, ax)
        ax.tick_params(labelbottom=True)
        title_panel(ax, title)
        handles |= take_legend(ax)
    n = sorted(gains["n_pairs"].unique())
    bars = [f"bar: 95 % interval of that class alone, over {over}"] if n[-1] >= statistics.FEW else []
    bars += dots_words(gains["gain_values"])
    add_legend(figure, handles, "; ".join(bars) or "no interval: one replicate")
    return add_not_run(figure, not_run)
