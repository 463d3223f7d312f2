"""F4, diversity against accuracy: does the more diverse set train the better classifier? Points in, Axes out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from synthlib.inputs import InputError
from synthlib.results import MODE_LABELS, VARIANTS, statistics, trick_label
from synthlib.results.rows import treatments
from synthlib.results.style import (
    add_legend,
    add_not_run,
    new_axes,
    new_panels,
    not_run_figure,
    panels_of,
    take_legend,
    title_panel,
    treatment_label,
    treatment_order,
    trick_style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARK_SIZES = "large: mean of a condition, small: a replicate"
MEASURE_LABELS = {
    "vendi": "Vendi score, all classes together",
    "vendi_per_class": "Vendi score, mean over classes",
    "recall": "recall of the real images",
    "precision": "precision against the real images",
    "density": "density",
    "coverage": "coverage of the real images",
    "kid": "KID to the real images",
    "fid": "FID to the real images",
    "pairwise_distance": "mean pairwise distance",
    "agreement": "agreement with the class, %",
    "clip_score": "CLIP score",
}
CORRELATION = "Spearman's \N{GREEK SMALL LETTER RHO} over n conditions, 95 % interval"
FEWEST_CONDITIONS = 3  # of two, the rank correlation is 1 or -1 whatever they are
PANEL = [
    "dataset", "architecture", *(name for name in VARIANTS if name != "setting"),
    "evaluation_mode", "measure", "feature_space",
]  # fmt: skip


def measure_label(measure: str) -> str:
    """The words for a measure on an axis."""
    return MEASURE_LABELS.get(measure, measure.replace("_", " "))


def correlation_table(
    points: pd.DataFrame, evaluation_mode: str = "eval", n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """F4 in numbers: Spearman's rank correlation of measure and accuracy over the conditions' means, a row a panel.

    points: rows of `rows.diversity_against_accuracy`; a condition is a trick or a trick with a setting. Columns: PANEL,
    n_conditions, correlation, correlation_low, correlation_high (95 %) and correlation_method, which says why a number
    is empty: of fewer than 3 conditions there is no correlation, of fewer than 4 no interval.
    """
    table = []
    points = points[points["evaluation_mode"] == evaluation_mode].dropna(subset=["value", "accuracy_percent"])
    for panel, rows in points.groupby(PANEL, sort=False, dropna=False):
        conditions = [group for _, group in rows.groupby(treatments(rows), sort=False)]
        x, y = ([group[name].to_numpy(float) for group in conditions] for name in ("value", "accuracy_percent"))
        found, method = statistics.Interval(float("nan"), float("nan"), float("nan")), "too few conditions: none"
        if len(conditions) >= FEWEST_CONDITIONS:
            found = statistics.rank_correlation(x, y, n_boot, seed)
            fewest, most = min(map(len, x)), max(map(len, x))
            replicates = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            method = f"Spearman, bootstrap, {n_boot} draws of {len(x)} conditions x {replicates} replicates"
            if most > 1 and all(len(set(values)) == 1 for values in x):
                method += "; one set of images a condition, so of their chance it knows nothing"
            if pd.isna(found.low):
                method = "Spearman, no interval: too few conditions"
        if len(conditions) >= FEWEST_CONDITIONS and pd.isna(found.mean):
            method = "no correlation: the conditions do not differ"
        counts = dict(zip(PANEL, panel, strict=True)) | {"n_conditions": len(conditions)}
        numbers = zip(("correlation", "correlation_low", "correlation_high"), found, strict=True)
        table.append(counts | dict(numbers) | {"correlation_method": method})
    numbers = ["n_conditions", "correlation", "correlation_low", "correlation_high", "correlation_method"]
    return pd.DataFrame(table, columns=[*PANEL, *numbers])


def correlation_view(table: pd.DataFrame) -> pd.DataFrame:
    """`correlation_table` for people: a line a panel, the correlation in the words of the panel's title."""
    shown = [name for name in PANEL if name not in VARIANTS or table[name].nunique() > 1]
    view = table[shown].rename(columns=lambda name: name.replace("dataset", "data set").replace("_", " "))
    view["evaluation mode"] = table["evaluation_mode"].map(MODE_LABELS)
    view["measure"] = table["measure"].map(measure_label)
    view["rank correlation"] = [correlation_words(row) for _, row in table.iterrows()]
    return view.assign(method=table["correlation_method"])


def plot_diversity_against_accuracy(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """F4, one panel: a measure of the generated images (x) against accuracy (y), by condition and replicate.

    Of a trick with a setting the large mark is hollow, with the setting's value beside it.
    frame: rows of `rows.diversity_against_accuracy` for one value each of PANEL; InputError where there are several.
    """
    for name in PANEL:
        if frame[name].nunique(dropna=False) != 1:
            values = list(dict.fromkeys(frame[name]))
            raise InputError(f"the panel's rows have {name} {values}; expected one: choose the rows of one panel.")
    ax = ax or new_axes((5.8, 3.6))
    first = frame.iloc[0]
    grouped = dict(tuple(frame.groupby(treatments(frame), sort=False)))
    for treatment in sorted(grouped, key=treatment_order):
        rows = grouped[treatment]
        x, y = rows["value"].to_numpy(float), rows["accuracy_percent"].to_numpy(float)
        colour, marker = trick_style(treatment)
        trick, _, setting = treatment.partition("+")
        if len(rows) > 1:
            ax.plot(x, y, marker, color=colour, markersize=3, alpha=0.5, markeredgewidth=0, linestyle="none", zorder=2)
        inside, edge = ("white", colour) if setting else (colour, "white")
        name, _, value = setting.partition("=")
        label = f"{trick_label(trick)}, {name} as written beside" if value else treatment_label(treatment)
        ax.plot(x.mean(), y.mean(), marker, color=inside, markersize=6.5, markeredgecolor=edge, zorder=3,
                linestyle="none", label=label)  # fmt: skip
        if value:
            ax.annotate(value, (x.mean(), y.mean()), (4, 3), textcoords="offset points", fontsize=7, color=colour,
                        zorder=4, path_effects=[withStroke(linewidth=1.5, foreground="white")])  # fmt: skip
    ax.set_xlabel(f"{measure_label(first['measure'])}\n({first['feature_space']})")
    ax.set_ylabel(f"accuracy, % ({MODE_LABELS[first['evaluation_mode']]})")
    ax.margins(0.1)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    handles = take_legend(ax)  # a label once, though a trick may have many settings
    ax.legend(
        handles.values(), handles.keys(), loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2,
        title=MARK_SIZES, alignment="left",
    )  # fmt: skip
    return ax


def diversity_figure(
    points: pd.DataFrame,
    evaluation_mode: str = "eval",
    not_run: Sequence[str] = (),
    correlations: pd.DataFrame | None = None,
) -> "Figure":
    """F4: `plot_diversity_against_accuracy`, a panel a data set, architecture, variant, measure and feature space.

    Above each panel stand Spearman's rank correlation over the conditions, its interval and their number; correlations:
    those of `correlation_table`, by default computed.
    """
    points = points[points["evaluation_mode"] == evaluation_mode].dropna(subset=["value", "accuracy_percent"])
    if points.empty:
        return not_run_figure(not_run)
    correlations = correlation_table(points, evaluation_mode) if correlations is None else correlations
    panels = panels_of(points, apart=["measure", "feature_space"])
    # points come measure by measure, so panels of one measure stand side by side, or where there is one panel each, all do
    each = len(panels) // len(points[["measure", "feature_space"]].drop_duplicates())
    columns = each if each in (2, 3) else 2 if len(panels) in (2, 4) else 3
    figure, axes = new_panels(len(panels), columns, 2.3)
    handles = {}
    for (title, rows), ax in zip(panels, axes, strict=True):
        plot_diversity_against_accuracy(rows, ax)
        handles |= take_legend(ax)
        same = correlations.merge(rows[PANEL].drop_duplicates(), on=PANEL)
        title_panel(ax, f"{title}\n{correlation_words(same.iloc[0])}")
    add_legend(figure, handles, f"{MARK_SIZES}\n{CORRELATION}")
    return add_not_run(figure, not_run)


def correlation_words(row: pd.Series) -> str:
    """A row of `correlation_table` in a few words, for a panel's title."""
    n = f"n = {row['n_conditions']}"
    if pd.isna(row["correlation"]):
        return f"no \N{GREEK SMALL LETTER RHO}, {n}"
    words = f"\N{GREEK SMALL LETTER RHO} = {row['correlation']:.2f}"
    if pd.notna(row["correlation_low"]):
        words += f" [{row['correlation_low']:.2f}, {row['correlation_high']:.2f}]"
    return f"{words}, {n}"
