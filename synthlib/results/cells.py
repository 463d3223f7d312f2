"""What all tables share: which columns are estimates and which their bounds, published values, and cells as text."""

from collections.abc import Mapping

import pandas as pd

from synthlib.inputs import InputError
from synthlib.names import BEST_MODE
from synthlib.results import known
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
    """An estimate of INTERVALS as "66.2 [63.1, 69.3]"; `row` has one line, or none where the mode was not evaluated."""
    if row.empty or pd.isna(row[mean].iloc[0]):
        status = "" if row.empty else str(row["status"].iloc[0])
        return "not run" if status.startswith("not run") else ""
    low, high, _ = INTERVALS[mean]
    style = f"{sign}.{digits}f"
    if pd.isna(row[low].iloc[0]):
        return f"{row[mean].iloc[0]:{style}} (one replicate)"
    return f"{row[mean].iloc[0]:{style}} [{row[low].iloc[0]:{style}}, {row[high].iloc[0]:{style}}]"


def p_text(p: object) -> str:
    """A p value with two digits; "" where there is none."""
    return "" if pd.isna(p) else f"{p:.2g}"


def count_text(value: object) -> str:
    """A count as text; "" where there is none."""
    return "" if pd.isna(value) else str(int(value))


def without_empty(view: pd.DataFrame, columns: tuple[str, ...] = ("remark",)) -> pd.DataFrame:
    """The view without those of `columns` in which every cell is empty text."""
    return view.drop(columns=[name for name in columns if name in view and not view[name].any()])
