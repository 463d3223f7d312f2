"""Tables: result rows -> one table a claim, written as CSV (every number), Markdown and LaTeX (a view for people).

Every number stands with its interval, the method of the interval and its counts (design.md, promise 4); a published
value stands beside ours with its source, a missing one as "not available", and a condition that was not run as "not
run: why".
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from synthlib import receipts
from synthlib.results import MODE_LABELS, statistics, trick_label
from synthlib.results.rows import CONDITION, COUNTS, in_order
from synthlib.settings import EVALUATION_MODES, InputError

Condition = tuple[str, str, str]  # data set, trick, architecture
NOT_AVAILABLE = "not available"
BEST_TRICKS = "best tricks"  # a published value whose tricks are not known (paper_facts.md): a row of its own


def accuracy_by_trick(
    rows: pd.DataFrame,
    published: pd.DataFrame,
    wanted: Iterable[Condition] = (),
    why_not_run: Mapping[Condition, str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """T1: accuracy in percent with its t interval, counts and published value.

    One row per (data set, architecture, trick, evaluation mode). rows: as `read_evaluations`. A `wanted` condition
    without rows becomes rows with status "not run: why", the why from `why_not_run`. Published values are of the
    authors' code, so they stand in the rows of `authors` mode. Raises InputError where the replicates of one
    condition differ in n_train, n_steps or n_test.
    """
    table = []
    for condition, group in rows.groupby(CONDITION, sort=False):
        mean, low, high = statistics.t_interval(group["accuracy_percent"], level)
        seeds = group["generation_seed"].nunique(), group["training_seed"].nunique()
        row = dict(zip(CONDITION, condition, strict=True), accuracy_percent=mean, ci_low=low, ci_high=high)
        row |= {"ci_method": statistics.interval_method(len(group), *seeds), "n_replicates": len(group)}
        row |= {
            "n_generation_seeds": seeds[0],
            "n_training_seeds": seeds[1],
            **_counts_of(group, condition),
            "status": "run",
        }
        table.append(row)
    have = {(row["dataset"], row["trick"], row["architecture"]) for row in table}
    for condition in dict.fromkeys(map(tuple, wanted)):
        if condition not in have:
            why = (why_not_run or {}).get(condition, "no evaluated folder was given for it")
            for mode in EVALUATION_MODES:
                table.append(dict(zip(CONDITION, (*condition, mode), strict=True), status=f"not run: {why}"))
    for dataset, architecture in dict.fromkeys((row["dataset"], row["architecture"]) for row in table):
        row = {"dataset": dataset, "trick": BEST_TRICKS, "architecture": architecture, "evaluation_mode": "authors"}
        if _published(published, *row.values())[0] != NOT_AVAILABLE:
            table.append(row | {"status": "published only: which tricks is not known"})
    for row in table:
        row["published_percent"], row["published_source"] = _published(published, *(row[name] for name in CONDITION))
    integers = ["n_replicates", "n_generation_seeds", "n_training_seeds", *COUNTS]
    columns = [
        "dataset",
        "trick",
        "architecture",
        "evaluation_mode",
        "accuracy_percent",
        "ci_low",
        "ci_high",
        "ci_method",
    ]
    columns += [*integers, "published_percent", "published_source", "status"]
    if not table:
        raise InputError(
            "there is no result row and no wanted condition; expected at least one: run notebooks/03_eval.ipynb first."
        )
    return in_order(pd.DataFrame(table).reindex(columns=columns)).astype(dict.fromkeys(integers, "Int64"))


def _counts_of(group: pd.DataFrame, condition: tuple) -> dict[str, int]:
    for name in COUNTS:
        if group[name].nunique() != 1:
            raise InputError(
                f"the replicates of {', '.join(condition)} have {name} "
                f"{sorted(group[name].unique().tolist())}; expected one number: train the replicates alike."
            )
    return {name: int(group[name].iloc[0]) for name in COUNTS}


def _published(
    published: pd.DataFrame, dataset: str, trick: str, architecture: str, mode: str
) -> tuple[float | str, str]:
    """The paper's own value for a condition and its source, or "not available" twice; ResNet50 is resnet50."""
    method = {"base_class": "base class", BEST_TRICKS: BEST_TRICKS}.get(trick, trick.replace("_", " "))
    own = (
        published["setting"].str.contains("this paper")
        & (published["dataset"] == dataset)
        & (published["method"] == method)
    )
    own &= published["classifier"].map(_plain) == _plain(architecture)
    if mode != "authors" or not own.any():
        return NOT_AVAILABLE, NOT_AVAILABLE
    return float(published.loc[own, "accuracy_percent"].iloc[0]), str(published.loc[own, "source"].iloc[0])


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


# --- T2: base against merged ------------------------------------------------------------------------------------------


def base_against_merged(
    rows: pd.DataFrame,
    correct: Mapping[tuple[str, str, str, str], np.ndarray],
    published: pd.DataFrame,
    base: str = "base_class",
    merged: str = "merged",
    n_boot: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """T2: per (data set, architecture, evaluation mode) base, merged, and merged - base in points with two intervals.

    The first interval is Student's t over the paired replicates, the second the crossed bootstrap over replicates and
    test images. Unequal n_train is said in `status`. Where one of the two was not run, or they share no replicate,
    the numbers are empty and `status` says so. rows, correct: as `read_evaluations`, `read_correct` of the same
    folders.
    """
    table = []
    for (dataset, architecture, mode), group in rows.groupby(
        ["dataset", "architecture", "evaluation_mode"], sort=False
    ):
        sides = {trick: group[group["trick"] == trick].set_index("replicate") for trick in (merged, base)}
        row = {
            "dataset": dataset,
            "trick": merged,
            "baseline": base,
            "architecture": architecture,
            "evaluation_mode": mode,
        }
        for name, trick in (("base", base), ("merged", merged)):
            row[f"{name}_published_percent"] = _published(published, dataset, trick, architecture, mode)[0]
            if len(sides[trick]):
                interval = statistics.t_interval(sides[trick]["accuracy_percent"], level)
                row |= {
                    f"{name}_percent": interval.mean,
                    f"{name}_ci_low": interval.low,
                    f"{name}_ci_high": interval.high,
                }
                row[f"{name}_n_train"] = _counts_of(sides[trick], (dataset, trick, architecture))["n_train"]
        shared = sides[base].index.intersection(sides[merged].index)
        missing = [trick_label(trick) for trick in (base, merged) if sides[trick].empty]
        if missing:
            row["status"] = f"not run: no evaluated folder was given for {' and '.join(missing)}"
        elif shared.empty:
            row["status"] = "not run: the two share no replicate, so nothing is paired"
        else:
            a, b = (sides[trick].loc[shared] for trick in (merged, base))
            pair = statistics.paired_t(a["accuracy_percent"], b["accuracy_percent"], level)
            hits = [correct[dataset, t, architecture, mode][sides[t].index.get_indexer(shared)] for t in (merged, base)]
            boot = statistics.crossed_bootstrap(*hits, n_boot=n_boot, level=level)
            seeds = a["generation_seed"].nunique(), a["training_seed"].nunique()
            row |= {
                "difference_points": pair.mean,
                "difference_low": pair.low,
                "difference_high": pair.high,
                "p": pair.p,
            }
            row["difference_method"] = f"paired {statistics.interval_method(pair.n, *seeds)}".replace(
                "paired one", "one"
            )
            row |= {"bootstrap_low": boot.low, "bootstrap_high": boot.high}
            row["bootstrap_method"] = statistics.bootstrap_method(pair.n, hits[0].shape[1], n_boot)
            row |= {"n_pairs": pair.n, "n_test": hits[0].shape[1], "status": _fairness(row, a, b)}
        table.append(row)
    columns = ["dataset", "architecture", "evaluation_mode", "baseline", "trick"]
    columns += [
        f"{name}_{what}"
        for name in ("base", "merged")
        for what in ("percent", "ci_low", "ci_high", "published_percent")
    ]
    columns += [
        "difference_points",
        "difference_low",
        "difference_high",
        "p",
        "difference_method",
        "bootstrap_low",
        "bootstrap_high",
    ]
    integers = ["n_pairs", "base_n_train", "merged_n_train", "n_test"]
    columns += ["bootstrap_method", *integers, "status"]
    return in_order(pd.DataFrame(table).reindex(columns=columns)).astype(dict.fromkeys(integers, "Int64"))


def _fairness(row: Mapping[str, object], a: pd.DataFrame, b: pd.DataFrame) -> str:
    """What a reader must know before comparing the two sides."""
    said = []
    if row["base_n_train"] != row["merged_n_train"]:
        said.append(f"unequal n_train ({row['base_n_train']} and {row['merged_n_train']})")
    if (a["training_seed"] != b["training_seed"]).any():
        said.append("training seeds differ within pairs")
    return "; ".join(said) or "equal n_train"


# --- what people read -------------------------------------------------------------------------------------------------


def accuracy_view(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """T1 for people: one line a trick, accuracy as "66.2 [63.1, 69.3]", the evaluation modes as columns."""
    lines = []
    for (dataset, architecture, trick), group in table.groupby(["dataset", "architecture", "trick"], sort=False):
        line = {"data set": dataset, "architecture": architecture, "trick": trick_label(trick)}
        for mode in EVALUATION_MODES:
            row = group[group["evaluation_mode"] == mode]
            line[f"accuracy %, {MODE_LABELS[mode]}"] = _estimate(row, "accuracy_percent", "ci_low", "ci_high", digits)
        values = [value for value in group["published_percent"] if value != NOT_AVAILABLE]
        line["published %"] = f"{float(values[0]):.{digits}f}" if values else NOT_AVAILABLE
        for name, column in (("n train", "n_train"), ("n test", "n_test"), ("replicates", "n_replicates")):
            line[name] = _count(group[column].iloc[0])
        remarks = [status for status in group["status"].dropna().unique() if status != "run"]
        lines.append(line | {"remark": "; ".join(remarks)})
    return _without_empty_remark(pd.DataFrame(lines))


def difference_view(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """T2 for people: one line an architecture and mode, with base, merged and both intervals of the difference."""
    lines = []
    for place in range(len(table)):
        row = table.iloc[[place]]
        first = row.iloc[0]
        line = {
            "data set": first["dataset"],
            "architecture": first["architecture"],
            "evaluated in": MODE_LABELS[first["evaluation_mode"]],
        }
        line["base %"] = _estimate(row, "base_percent", "base_ci_low", "base_ci_high", digits)
        line["merged %"] = _estimate(row, "merged_percent", "merged_ci_low", "merged_ci_high", digits)
        line["merged - base, points"] = _estimate(
            row, "difference_points", "difference_low", "difference_high", digits, "+"
        )
        line["p"] = "" if pd.isna(first["p"]) else f"{first['p']:.2g}"
        boot = (first["bootstrap_low"], first["bootstrap_high"])
        line["bootstrap"] = "" if pd.isna(boot[0]) else f"[{boot[0]:+.{digits}f}, {boot[1]:+.{digits}f}]"
        line["pairs"] = _count(first["n_pairs"])
        line["n train"] = _count(first["base_n_train"])
        values = [first["base_published_percent"], first["merged_published_percent"]]
        line["published %, base / merged"] = " / ".join(map(str, values)) if len(set(values)) > 1 else str(values[0])
        lines.append(line | {"remark": "" if first["status"] == "equal n_train" else first["status"]})
    return _without_empty_remark(pd.DataFrame(lines))


def write_table(
    table: pd.DataFrame, stem: str | Path, caption: str, note: str, view: pd.DataFrame | None = None
) -> list[Path]:
    """Write `stem`.csv (the whole table, six significant digits), `stem`.md and `stem`.tex (the `view`).

    The view is the table itself by default. The LaTeX needs the packages booktabs and graphicx. Equal tables give
    equal bytes. Returns the three paths.
    """
    stem = Path(stem)
    files = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in ("csv", "md", "tex")}
    view = table if view is None else view
    texts = {
        "csv": table.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        "md": f"**{caption}**\n\n{markdown(view)}\n\n{note}\n",
        "tex": _latex(view, f"{caption.rstrip('.')}. {note}", stem.name),
    }
    for suffix, path in files.items():
        receipts.write_atomic(path, texts[suffix].encode())
    return list(files.values())


def read_table(path: str | Path) -> pd.DataFrame:
    """A table that `write_table` wrote, read back from its CSV."""
    if not Path(path).is_file():
        raise InputError(f"{path} is missing; expected a finished table: run notebooks/04_figures.ipynb first.")
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def markdown(view: pd.DataFrame) -> str:
    """`view` as a Markdown table whose columns also line up as plain text."""
    cells = [
        list(view.columns),
        *(["" if pd.isna(value) else str(value) for value in row] for row in view.to_numpy(object)),
    ]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _latex(view: pd.DataFrame, caption: str, label: str) -> str:
    text = view.to_latex(
        index=False, escape=True, na_rep="", caption=_escaped(caption), label=f"tab:{label}", position="htbp"
    )
    # a table wider than the text is scaled down to it, a narrower one keeps its size
    shrink = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    text = text.replace(r"\begin{tabular}", "\\centering\n" + shrink + "\n" + r"\begin{tabular}", 1)
    return text.replace(r"\end{tabular}", r"\end{tabular}}", 1)


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
    return "".join(special.get(letter, "\\" + letter if letter in "&%$#_{}" else letter) for letter in text)


def _estimate(row: pd.DataFrame, mean: str, low: str, high: str, digits: int, sign: str = "") -> str:
    """A mean with its interval as text; `row` has one line, or none where the mode was not evaluated."""
    if row.empty or pd.isna(row[mean].iloc[0]):
        status = "" if row.empty else str(row["status"].iloc[0])
        return "not run" if status.startswith("not run") else ""
    style = f"{sign}.{digits}f"
    if pd.isna(row[low].iloc[0]):
        return f"{row[mean].iloc[0]:{style}} (one replicate)"
    return f"{row[mean].iloc[0]:{style}} [{row[low].iloc[0]:{style}}, {row[high].iloc[0]:{style}}]"


def _without_empty_remark(view: pd.DataFrame) -> pd.DataFrame:
    return view if view["remark"].any() else view.drop(columns="remark")


def _count(value: object) -> str:
    return "" if pd.isna(value) else str(int(value))
