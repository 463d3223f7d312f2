"""Curves: accuracy against the number of images (F6) and against guidance (F7), and training by epoch (F9).

Each figure draws the frame that the function of the same name makes, with every number in it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from synthlib.inputs import InputError
from synthlib.results import MODE_LABELS, VARIANTS, mode_order, statistics
from synthlib.results.cells import CHANCE, covers_text, few_values
from synthlib.results.diversity_plots import measure_label
from synthlib.results.rows import CONDITION, treatments
from synthlib.results.style import (
    GREY,
    MODE_LINES,
    MODE_STYLES,
    add_legend,
    add_not_run,
    dots_words,
    draw_values,
    new_panels,
    not_run_figure,
    over_words,
    panels_of,
    title_panel,
    treatment_label,
    treatment_order,
    trick_style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ESTIMATE = ["mean", "low", "high", "values", "method", "n_replicates", CHANCE, "covers_chance"]
SEEDS = ["generation_seed", "training_seed"]
GUIDANCE_COLUMNS = [
    "dataset", "trick", "setting", "architecture", *(name for name in VARIANTS if name != "setting"), "quantity",
    "evaluation_mode", "feature_space", "guidance", "guidance_low", "guidance_high", *ESTIMATE,
]  # fmt: skip

# --- F6: the number of images -----------------------------------------------------------------------------------------


def images_curve(rows: pd.DataFrame, n_classes: Mapping[str, int]) -> pd.DataFrame:
    """F6 in numbers: accuracy against the images of a class that the classifier learnt from.

    At about the same number of training steps where an experiment holds them: epochs are whole, so n_steps says how many.
    Of rows of `read_evaluations`, those whose setting is empty or names images_per_class; n_classes: of each data set.
    One row per condition: CONDITION, n_train, images_per_class (n_train / n_classes), n_steps, quantity (accuracy_percent),
    ESTIMATE: mean, low, high (Student's t over replicates, within 0 and 100, empty for one), values (of fewer than
    statistics.FEW), method (which seeds were replicated), n_replicates, chance_percent, covers_chance. InputError: a data
    set of which n_classes is not given.
    """
    table = []
    chosen = rows[rows["setting"].str.match(r"(images_per_class=.*)?$") & rows["accuracy_percent"].notna()]
    for condition, group in chosen.groupby([*CONDITION, "n_train", "n_steps"], sort=False, dropna=False):
        line = dict(zip([*CONDITION, "n_train", "n_steps"], condition, strict=True))
        if line["dataset"] not in n_classes:
            raise InputError(
                f"the number of classes of {line['dataset']} is not given; expected it in n_classes: "
                f"add it to {', '.join(n_classes) or 'the empty mapping'}."
            )
        line["images_per_class"] = line["n_train"] / n_classes[line["dataset"]]
        line["quantity"] = "accuracy_percent"
        table.append(line | _estimate(group, "accuracy_percent", 100 / n_classes[line["dataset"]]))
    columns = [*CONDITION, "n_train", "images_per_class", "n_steps", "quantity", *ESTIMATE]
    return pd.DataFrame(table, columns=columns).sort_values(["images_per_class"], kind="stable", ignore_index=True)


def images_figure(frame: pd.DataFrame, not_run: Sequence[str] = ()) -> "Figure":
    """F6: accuracy against images per class on a log scale, a line a trick; solid in `eval` mode, dashed in the authors'.

    frame: of `images_curve`. The titles say how many steps each classifier was trained for.
    """
    frame = frame[frame["evaluation_mode"].isin(MODE_LINES)]
    if frame.empty:
        return not_run_figure(not_run)
    # at about the same number of steps a small set has more epochs, which its protocol says: no reason for a panel of its own
    panels = panels_of(frame.assign(protocol=frame["protocol"].str.partition(",")[0]))
    figure, axes = new_panels(len(panels), 3 if len(panels) > 4 else 2, 2.5)
    for (title, mine), ax in zip(panels, axes, strict=True):
        tricks = sorted(mine["trick"].unique(), key=treatment_order)
        for mode, line in MODE_LINES.items():
            for place, trick in enumerate(tricks):
                points = mine[(mine["trick"] == trick) & (mine["evaluation_mode"] == mode)]
                # marks of one number of images stand side by side, 2 % apart, so that no interval hides another
                shift = 1.02 ** (place - (len(tricks) - 1) / 2)
                colour, marker = trick_style(trick)
                _line(ax, points["images_per_class"] * shift, points, colour, marker, line, hollow=mode != "eval")
        ax.set_xscale("log")
        counts = sorted(mine["images_per_class"].unique())
        ax.set_xticks(_spread(counts), [f"{count:,.4g}" for count in _spread(counts)])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.tick_params(axis="x", which="minor", length=0)
        ax.set_xlabel("images per class (log scale)")
        ax.set_ylabel("accuracy, %")
        title_panel(ax, f"{title}\n{steps_words(mine)}")
    add_legend(figure, _tricks_and_modes(frame), _bars("bar", frame))
    return add_not_run(figure, not_run)


def steps_words(frame: pd.DataFrame) -> str:
    """How long the classifiers of `images_curve` were trained: one number of steps where it is held, else the range."""
    least, most = int(frame["n_steps"].min()), int(frame["n_steps"].max())
    return f"{least:,} training steps at every size" if least == most else f"{least:,} to {most:,} training steps"


def _spread(values: Sequence[float], apart: float = 1.35) -> list[float]:
    """Those of rising values that have room for a label on a log scale."""
    kept: list[float] = []
    for value in values:
        if not kept or value >= apart * kept[-1]:
            kept.append(value)
    return kept


# --- F7: guidance -----------------------------------------------------------------------------------------------------


def guidance_curve(
    rows: pd.DataFrame,
    measures: pd.DataFrame,
    random_range: tuple[float, float],
    trick: str = "random_guidance",
) -> pd.DataFrame:
    """F7 in numbers: accuracy and each measure against guidance, fixed (setting "guidance=V") and drawn at random.

    The trick without a setting is the random one, its guidance uniform on `random_range`, that of the run: there
    `guidance` is empty, and guidance_low, guidance_high are the range. Columns GUIDANCE_COLUMNS: quantity is
    "accuracy_percent" or the measure (which has no architecture and no mode), mean, low, high over replicates (Student's
    t) and method: of a measure the generation seeds, as it knows of no classifier. rows, measures: as
    `rows.read_evaluations` and `rows.read_measures`.
    """
    accuracies = rows.assign(quantity="accuracy_percent", value=rows["accuracy_percent"], feature_space="")
    measured = measures.rename(columns={"measure": "quantity"}).assign(architecture="", evaluation_mode="")
    # One draw of images a replicate.
    measured = measured.assign(generation_seed=measured["replicate"], training_seed="")
    both = pd.concat([accuracies, measured], ignore_index=True).reindex(
        columns=[*GUIDANCE_COLUMNS[: GUIDANCE_COLUMNS.index("guidance")], *SEEDS, "value", "n_test", "n_classes"]
    )
    fixed = both["setting"].str.extract(r"^guidance=([0-9.]+)$")[0].astype(float)
    mine = (both["trick"] == trick) & (fixed.notna() | (both["setting"] == "")) & both["value"].notna()
    table = []
    who = GUIDANCE_COLUMNS[: GUIDANCE_COLUMNS.index("guidance") + 1]
    for condition, group in both.assign(guidance=fixed)[mine].groupby(who, sort=False, dropna=False):
        line = dict(zip(who, condition, strict=True))
        ends = random_range if pd.isna(line["guidance"]) else (line["guidance"], line["guidance"])
        chance = 100 / group["n_classes"].iloc[0] if line["quantity"] == "accuracy_percent" else None
        table.append(line | {"guidance_low": ends[0], "guidance_high": ends[1]} | _estimate(group, "value", chance))
    return pd.DataFrame(table, columns=GUIDANCE_COLUMNS)


def guidance_figure(frame: pd.DataFrame, not_run: Sequence[str] = ()) -> "Figure":
    """F7: a panel for the accuracy of each architecture (both modes) and one for each measure, against guidance.

    Marks: one guidance for all images; the bar over its range: drawn at random, image by image. frame: of
    `guidance_curve`.
    """
    frame = frame[frame["evaluation_mode"].isin(["", *MODE_STYLES])]
    if frame.empty:
        return not_run_figure(not_run)
    accuracy = frame["quantity"] == "accuracy_percent"
    panels = panels_of(frame[accuracy], ["quantity"]) + panels_of(frame[~accuracy], ["quantity", "feature_space"])
    figure, axes = new_panels(len(panels), 3, 2.2)
    for (title, mine), ax in zip(panels, axes, strict=True):
        first = mine.iloc[0]
        for mode in sorted(mine["evaluation_mode"].unique(), key=mode_order):
            colour, marker = MODE_STYLES[mode] if mode else (GREY, "D")
            rows = mine[mine["evaluation_mode"] == mode]
            _random_range(ax, rows[rows["guidance"].isna()], colour)
            points = rows[rows["guidance"].notna()].sort_values("guidance")
            _line(ax, points["guidance"], points, colour, marker, "-")
        ax.set_xlabel("guidance scale")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if first["quantity"] == "accuracy_percent":
            ax.set_ylabel("accuracy, %")
            title_panel(ax, title)
        else:
            title_panel(ax, f"{measure_label(first['quantity'])}\n{title.rstrip(', ')} ({first['feature_space']})")
    handles = {}
    for mode in sorted(frame["evaluation_mode"].unique(), key=mode_order):
        colour, marker = MODE_STYLES[mode] if mode else (GREY, "D")
        label = f"accuracy, {MODE_LABELS[mode]}" if mode else "measure"
        handles[label] = Line2D([], [], color=colour, marker=marker, markersize=4)
    handles["random guidance, over its range"] = Line2D([], [], color=GREY, linewidth=4, alpha=0.6)
    add_legend(figure, handles, _bars("bar, shade", frame))
    return add_not_run(figure, not_run)


def _random_range(ax: Axes, rows: pd.DataFrame, colour: str) -> None:
    """The random condition: a bar at its mean over the range of its guidance, with a band for its interval."""
    for row in rows.itertuples():
        ends = [row.guidance_low, row.guidance_high]
        ax.plot(ends, [row.mean, row.mean], color=colour, linewidth=3, alpha=0.6, solid_capstyle="butt", zorder=2)
        draw_values(ax, [sum(ends) / 2], [row.values], colour)
        if not (pd.isna(row.low) or row.values):
            ax.fill_between(ends, row.low, row.high, color=colour, alpha=0.12, linewidth=0, zorder=1)


# --- F9: training -----------------------------------------------------------------------------------------------------

HISTORY_LABELS = {
    "loss": "training loss",
    "train_accuracy_percent": "training accuracy, %",
    "test_eval_percent": "test accuracy, %",
    "test_authors_percent": "test accuracy, %",
}


def training_curves(histories: pd.DataFrame) -> pd.DataFrame:
    """F9 in numbers: each column of the histories by epoch, as mean, lowest and highest value over replicates.

    histories: the columns dataset, trick, setting, architecture (and any other of rows.CONDITION), replicate, epoch, loss,
    train_accuracy_percent and, where asked for, test_eval_percent and test_authors_percent. Columns: those of the
    condition, epoch, quantity, mean, lowest, highest, n_replicates. InputError: two histories of one replicate.
    """
    histories = histories if "setting" in histories else histories.assign(setting="")
    who = [name for name in CONDITION if name in histories and name != "evaluation_mode"]
    quantities = [name for name in HISTORY_LABELS if name in histories]
    if histories.empty:
        return pd.DataFrame(columns=[*who, "epoch", "quantity", "mean", "lowest", "highest", "n_replicates"])
    histories = histories.astype(dict.fromkeys(quantities, float))  # a column that nobody filled is of objects
    twice = histories[histories.duplicated([*who, "replicate", "epoch"])]
    if len(twice):
        which = ", ".join(str(twice.iloc[0][name]) for name in who)
        raise InputError(f"two histories of {which}; expected one a replicate: name the settings that tell them apart.")
    long = histories.melt([*who, "replicate", "epoch"], quantities, "quantity").dropna(subset=["value"])
    grouped = long.groupby([*who, "quantity", "epoch"], sort=False, dropna=False)["value"]
    table = grouped.agg(mean="mean", lowest="min", highest="max", n_replicates="size").reset_index()
    return table[[*who, "epoch", "quantity", "mean", "lowest", "highest", "n_replicates"]]


def training_figure(frame: pd.DataFrame, not_run: Sequence[str] = ()) -> "Figure":
    """F9: loss, training accuracy and, where there is one, test accuracy by epoch, a line a trick, a row a classifier.

    Line: mean; band: lowest to highest replicate. Test accuracy is solid in `eval` mode, dashed and without a band in the
    authors' mode.
    frame: of `training_curves`.
    """
    if frame.empty:
        return not_run_figure(not_run)
    labels = list(dict.fromkeys(label for name, label in HISTORY_LABELS.items() if (frame["quantity"] == name).any()))
    panels = panels_of(frame)
    figure, axes = new_panels(len(panels) * len(labels), len(labels), 2.1)
    handles = {}
    for place, (title, mine) in enumerate(panels):
        treated = treatments(mine)
        row = axes[place * len(labels) : (place + 1) * len(labels)]
        for treatment in sorted(treated.unique(), key=treatment_order):
            colour, marker = trick_style(treatment)
            mark = {"color": colour, "marker": marker, "markersize": 3.5}
            handles[treatment_label(treatment)] = Line2D([], [], linewidth=1.2, **mark)
            for quantity, rows in mine[treated == treatment].groupby("quantity", sort=False):
                ax = row[labels.index(HISTORY_LABELS[quantity])]
                rows = rows.sort_values("epoch")
                if quantity == "test_authors_percent":  # thin and plain: it shares its panel with the `eval` mode
                    ax.plot(rows["epoch"], rows["mean"], "--", color=colour, linewidth=0.8)
                    continue
                ax.plot(rows["epoch"], rows["mean"], linewidth=1.2, markevery=max(1, len(rows) // 8), **mark)
                ax.fill_between(rows["epoch"], rows["lowest"], rows["highest"], color=colour, alpha=0.18, linewidth=0)
        for ax, label in zip(row, labels, strict=True):
            ax.set_ylabel(label)
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if label == HISTORY_LABELS["loss"]:
                ax.set_ylim(bottom=0)
        title_panel(row[0], title)
    if frame["quantity"].isin(["test_eval_percent", "test_authors_percent"]).any():
        handles |= _mode_handles(["eval", "authors"])
    several = frame["n_replicates"].max() > 1
    add_legend(figure, handles, "band: lowest to highest replicate" if several else "one replicate")
    return add_not_run(figure, not_run)


# --- helpers ----------------------------------------------------------------------------------------------------------


def _estimate(rows: pd.DataFrame, column: str, chance: float | None) -> dict[str, float | str | None]:
    """ESTIMATE of a column over the replicates of one condition; rows have SEEDS too. chance: of an accuracy, in percent."""
    values = rows[column].to_numpy(float)
    found = statistics.t_interval(values) if chance is None else statistics.percent_interval(values)
    method = statistics.interval_method(len(rows), *(rows[name].nunique() for name in SEEDS))
    if (rows["images"] == "real").all():  # whose generation seed draws them from the pool
        method = method.replace("generation seeds only", "draws of the pool only")
        method = method.replace("generation and", "draws of the pool and")
    said = "" if chance is None else covers_text("mean", found, chance, rows["n_test"].iloc[0])
    line = found._asdict() | {"values": few_values(values), "method": method, "n_replicates": len(rows)}
    return line | {CHANCE: chance, "covers_chance": said}


def _line(
    ax: Axes, x: pd.Series, rows: pd.DataFrame, colour: str, marker: str, line: str, hollow: bool = False
) -> None:
    """Means with their intervals, and a line through them; rows: ESTIMATE, in the order of x."""
    whole = (rows["low"].notna() & (rows["values"] == "")).to_numpy()
    x = x.to_numpy(float)
    draw_values(ax, x, rows["values"], colour)
    ax.vlines(x[whole], rows["low"][whole], rows["high"][whole], color=colour, linewidth=1, zorder=2)
    inside = "white" if hollow else colour
    ax.plot(x, rows["mean"], line, color=colour, marker=marker, markersize=4.5, linewidth=1.1, markerfacecolor=inside,
            markeredgewidth=0.8, zorder=3)  # fmt: skip


def _tricks_and_modes(frame: pd.DataFrame) -> dict[str, Line2D]:
    """Legend of a figure whose colours are tricks and whose lines are modes."""
    handles = {}
    for trick in sorted(frame["trick"].unique(), key=treatment_order):
        colour, marker = trick_style(trick)
        handles[treatment_label(trick)] = Line2D([], [], color=colour, marker=marker, markersize=4, linewidth=1.1)
    return handles | _mode_handles(sorted(frame["evaluation_mode"].unique(), key=mode_order))


def _mode_handles(modes: Sequence[str]) -> dict[str, Line2D]:
    return {MODE_LABELS[mode]: Line2D([], [], color=GREY, linestyle=MODE_LINES[mode], linewidth=1.1) for mode in modes}


def _bars(marks: str, frame: pd.DataFrame) -> str:
    """What the bars are over: the seeds of the accuracies, and of the measures, which have no mode."""
    said = frame[frame["evaluation_mode"] != ""] if (frame["evaluation_mode"] != "").any() else frame
    measured = frame.drop(said.index)["n_replicates"].max() > 1  # False for none
    more = "; of a measure over generation seeds" if measured else ""
    most = frame["n_replicates"].max()
    if most == 1:
        return "one replicate: no interval"
    bars = [f"{marks}: 95 % interval over {over_words(said['method'])}{more}"] if most >= statistics.FEW else []
    return "; ".join([*bars, *dots_words(frame["values"])])
