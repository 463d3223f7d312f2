"""What all tables share: which columns are estimates and which their bounds, published values, and cells as text."""

from collections.abc import Mapping

import pandas as pd
from numpy.typing import ArrayLike

from synthlib import paths
from synthlib.data.datasets import read_spec
from synthlib.inputs import InputError
from synthlib.names import BEST_MODE
from synthlib.results import CHANCE_MARK, estimate_words, known, statistics
from synthlib.results.rows import CONDITION, COUNTS

pd.set_option("display.html.use_mathjax", False)  # JupyterLab shows a $ in a name as a $
Condition = tuple[str, str, str]  # data set, treatment ("trick" or "trick+setting"), architecture
NOT_AVAILABLE = "not available"
# The estimates of T1, with the columns of their bounds and of the method; the accuracy alone is always there.
T1_INTERVALS = {
    "accuracy_percent": ("ci_low", "ci_high", "ci_method"),
    "top5_percent": ("top5_low", "top5_high", "ci_method"),
    "ece_percent": ("ece_low", "ece_high", "ci_method"),
}
# Every estimate that a table or a figure's data has, alike: the columns of its bounds, and that of their method, or the words
# for it where there is no such column. A frame need not have the bounds: single replicates have none.
OVER_REPLICATES = "t over replicates"
INTERVALS = {
    **T1_INTERVALS,
    "base_percent": ("base_ci_low", "base_ci_high", OVER_REPLICATES),
    "merged_percent": ("merged_ci_low", "merged_ci_high", OVER_REPLICATES),
    "difference_points": ("difference_low", "difference_high", "difference_method"),
    "over_base_points": ("over_base_low", "over_base_high", "over_base_method"),
    "over_merged_points": ("over_merged_low", "over_merged_high", "over_merged_method"),
    "gain_points": ("gain_low", "gain_high", "gain_method"),
    "correlation": ("correlation_low", "correlation_high", "correlation_method"),
    "mean": ("low", "high", "method"),
    "value": ("low", "high", "bootstrap over images"),
}
# A second interval of the same estimate, beside the first or in its place.
SECOND_INTERVALS = {
    "difference_points": ("bootstrap_low", "bootstrap_high", "bootstrap_method"),
    "mean": ("lowest", "highest", "lowest and highest replicate"),
}
# Guesses of each accuracy: chance is so many times 100 / number of classes.
GUESSES = {
    "accuracy_percent": 1,
    "top5_percent": 5,
    "base_percent": 1,
    "merged_percent": 1,
    "train_accuracy_percent": 1,
    "test_eval_percent": 1,
    "test_authors_percent": 1,
}
CHANCE = "chance_percent"  # the column of a table's chance, of one guess
CHANCE_NOTE = (
    f"{CHANCE_MARK}: chance, 100 / number of classes, lies within the 95 % interval (Student's t over replicates, shown from "
    "four on; of one replicate, or where all are alike, Wilson's over the test images)."
)
P_VALUES = ("p", "p_holm", "over_base_p", "over_merged_p")
# The published value that stands beside an estimate, and its source.
PUBLISHED = {
    "accuracy_percent": ("published_percent", "published_source"),
    "base_percent": ("base_published_percent", "base_published_source"),
    "merged_percent": ("merged_published_percent", "merged_published_source"),
}


def unrun(dataset: str, treatment: str, architecture: str, mode: str) -> dict[str, str | None]:
    """The condition of a row that nobody ran: its variants are empty, but for the setting in the treatment."""
    trick, _, setting = treatment.partition("+")
    row = dict.fromkeys(CONDITION)
    row |= {"dataset": dataset, "trick": trick, "setting": setting, "architecture": architecture}
    return row | {"evaluation_mode": mode}


def counts_of(group: pd.DataFrame, condition: tuple) -> dict[str, int]:
    """n_train, n_steps and n_test of one condition's replicates. InputError: they differ among them."""
    for name in COUNTS:
        if group[name].nunique() != 1:
            raise InputError(
                f"the replicates of {', '.join(filter(None, map(known, condition)))} have {name} "
                f"{sorted(group[name].unique().tolist())}; expected one number: train the replicates alike."
            )
    return {name: int(group[name].iloc[0]) for name in COUNTS}


def values_of(name: str) -> str:
    """The column that holds the single values of an estimate, where there are too few for an interval to be shown."""
    return "values" if name in ("mean", "value") else f"{name.rpartition('_')[0]}_values"


def covers_chance_of(name: str) -> str:
    """The column that says of an accuracy whether its interval covers chance: "yes", "no", or "" where it is not known."""
    return "covers_chance" if name == "mean" else f"{name.rpartition('_')[0]}_covers_chance"


def few_values(values: ArrayLike) -> str:
    """Values of replicates as a table keeps them: "48.25 60.1", each; "" of one, or of enough for an interval."""
    return " ".join(f"{value:.6g}" for value in values) if 1 < len(values) < statistics.FEW else ""


def percent_columns(
    name: str, values: pd.Series, level: float = 0.95, chance: float | None = None, n_test: int = 0
) -> dict[str, float | str]:
    """The columns of an estimate in percent over replicates [R]: mean, bounds within 0 and 100, few values.

    Of an accuracy, which has a `chance` of one guess (NaN where it is not known), also whether its interval covers it.
    """
    found = statistics.percent_interval(values, level)
    row = dict(zip((name, *INTERVALS[name][:2]), found, strict=True)) | {values_of(name): few_values(values)}
    return row if chance is None else row | {covers_chance_of(name): covers_text(name, found, chance, n_test)}


def covers_text(name: str, found: statistics.Interval, chance: float, n_test: int) -> str:
    """The text of the column `covers_chance_of`."""
    if pd.isna(chance):
        return ""
    return "yes" if statistics.covers_chance(found, GUESSES.get(name, 1) * chance, n_test) else "no"


def chance_of(group: pd.DataFrame) -> float:
    """Chance in percent of result rows; NaN where they do not say how many classes there were."""
    return 100 / group["n_classes"].iloc[0] if "n_classes" in group else float("nan")


def chance_of_all_classes(dataset: str) -> float:
    """Chance in percent of a data set with all its classes, which published values are of; NaN where they are not known."""
    return (
        100 / len(read_spec(dataset).classes) if dataset in paths.dataset_files() and dataset != "own" else float("nan")
    )


def chance_text(row: Mapping[str, object], digits: int = 1) -> str:
    """A row's chance as text; "" where it is not known."""
    return "" if pd.isna(row[CHANCE]) else f"{row[CHANCE]:.{digits}f}"


def published_value(published: pd.DataFrame, condition: Mapping[str, object]) -> tuple[float | str, str]:
    """The paper's own value for a condition and its source, or "not available" twice; ResNet50 is resnet50."""
    method = str(condition["trick"]).replace("_", " ")
    own = (
        published["setting"].str.contains("this paper")
        & (published["dataset"] == condition["dataset"])
        & (published["method"] == method)
        & (published["classifier"].map(_plain) == _plain(str(condition["architecture"])))
    )
    # The paper tested on all test images, in its own mode, at the epoch that was best there; "" where nothing was run.
    # Its initial weights are not known, so it stands beside no setting of these, nor any other setting than the experiment's.
    theirs = condition["evaluation_mode"] in ("authors", BEST_MODE) and known(condition["split"]) in ("", "test")
    theirs &= known(condition["setting"]) == ""
    if not theirs or known(condition["images"]) not in ("", "drawn", "hosted") or not own.any():
        return NOT_AVAILABLE, NOT_AVAILABLE
    return float(published.loc[own, "accuracy_percent"].iloc[0]), str(published.loc[own, "source"].iloc[0])


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def estimate_text(row: pd.DataFrame, mean: str, digits: int = 1, sign: str = "") -> str:
    """An estimate of INTERVALS in words (see `estimate_words`); `row` has one line, or none: the mode was not evaluated."""
    if row.empty or pd.isna(row[mean].iloc[0]):
        status = "" if row.empty else str(row["status"].iloc[0])
        return "not run" if status.startswith("not run") else ""
    low, high, _ = INTERVALS[mean]
    first = row.iloc[0]
    value, low, high = (f"{first[name]:{sign}.{digits}f}" for name in (mean, low, high))
    if pd.isna(first[INTERVALS[mean][0]]):
        value, low, high = f"{value} (one replicate)", "", ""
    values = [f"{float(one):{sign}.{digits}f}" for one in known(first.get(values_of(mean))).split()]
    return estimate_words(value, low, high, values, known(first.get(covers_chance_of(mean))) == "yes")


def with_chance_note(note: str, view: pd.DataFrame) -> str:
    """A note that stands below a view, with what its mark means where it has one."""
    marked = view.map(lambda cell: str(cell).endswith(f" {CHANCE_MARK}")).to_numpy().any()
    return f"{CHANCE_NOTE} {note}".strip() if marked else note


def p_text(p: object) -> str:
    """A p value with two digits; "" where there is none."""
    return "" if pd.isna(p) else f"{p:.2g}"


def count_text(value: object) -> str:
    """A count as text; "" where there is none."""
    return "" if pd.isna(value) else str(int(value))


def without_empty(view: pd.DataFrame, columns: tuple[str, ...] = ("chance %", "remark")) -> pd.DataFrame:
    """The view without those of `columns` in which every cell is empty text."""
    return view.drop(columns=[name for name in columns if name in view and not view[name].any()])
