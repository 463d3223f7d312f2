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
from synthlib.inputs import InputError
from synthlib.results import MODE_LABELS, known, statistics, trick_label, varying
from synthlib.results.rows import CONDITION, COUNTS, in_order
from synthlib.settings import BEST_MODE, EVALUATION_MODES

Condition = tuple[str, str, str]  # data set, trick, architecture
NOT_AVAILABLE = "not available"
# The estimates of T1, with the columns of their intervals; the accuracy alone is always there.
T1_INTERVALS = {
    "accuracy_percent": ("ci_low", "ci_high"),
    "top5_percent": ("top5_low", "top5_high"),
    "ece_percent": ("ece_low", "ece_high"),
}
BEST_TRICKS = "best tricks"  # a published value whose tricks are not known (paper_facts.md): a row of its own


def accuracy_by_trick(
    rows: pd.DataFrame,
    published: pd.DataFrame,
    wanted: Iterable[Condition] = (),
    why_not_run: Mapping[Condition, str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """T1: accuracy in percent with its t interval, counts and published value; top-5 accuracy and ECE alike.

    One row per condition (rows.CONDITION). rows: as `read_evaluations`. A `wanted` data set, trick and architecture
    without rows becomes rows with status "not run: why", the why from `why_not_run`. Published values are of the authors'
    code on all test images, from images that it drew: they stand in the rows of the authors' modes of such conditions.
    Raises InputError where the replicates of one condition differ in n_train, n_steps or n_test.
    """
    table = []
    for condition, group in rows.groupby(CONDITION, sort=False, dropna=False):
        row = dict(zip(CONDITION, condition, strict=True))
        for name, bounds in T1_INTERVALS.items():
            values = pd.to_numeric(group[name])
            if name == "accuracy_percent" or values.notna().any():
                row |= dict(zip((name, *bounds), statistics.t_interval(values, level), strict=True))
        seeds = group["generation_seed"].nunique(), group["training_seed"].nunique()
        method = statistics.interval_method(len(group), *seeds)
        if row["images"] == "real":
            method = method.replace("generation seeds only", "draws of the pool only")
            method = method.replace("generation and", "draws of the pool and")
        row |= {"ci_method": method, "n_replicates": len(group)}
        row |= {"n_generation_seeds": seeds[0], "n_training_seeds": seeds[1], **_counts_of(group, condition)}
        table.append(row | {"status": "run"})
    have = {(row["dataset"], row["trick"], row["architecture"]) for row in table}
    for condition in dict.fromkeys(map(tuple, wanted)):
        if condition not in have:
            why = (why_not_run or {}).get(condition, "no evaluated folder was given for it")
            for mode in EVALUATION_MODES:
                table.append(_unrun(*condition, mode) | {"status": f"not run: {why}"})
    for dataset, architecture in dict.fromkeys((row["dataset"], row["architecture"]) for row in table):
        row = _unrun(dataset, BEST_TRICKS, architecture, "authors")
        if _published(published, row)[0] != NOT_AVAILABLE:
            table.append(row | {"status": "published only: which tricks is not known"})
    for row in table:
        row["published_percent"], row["published_source"] = _published(published, row)
    integers = ["n_replicates", "n_generation_seeds", "n_training_seeds", *COUNTS]
    columns = [*CONDITION, "accuracy_percent", "ci_low", "ci_high", "ci_method"]
    columns += [name for score in list(T1_INTERVALS)[1:] for name in (score, *T1_INTERVALS[score])]
    columns += [*integers, "published_percent", "published_source", "status"]
    if not table:
        raise InputError(
            "there is no result row and no wanted condition; expected at least one: run notebooks/03_eval.ipynb first."
        )
    return in_order(pd.DataFrame(table).reindex(columns=columns)).astype(dict.fromkeys(integers, "Int64"))


def _unrun(dataset: str, trick: str, architecture: str, mode: str) -> dict[str, str | None]:
    """The condition of a row that nobody ran: its variants are empty."""
    row = dict.fromkeys(CONDITION)
    return row | {"dataset": dataset, "trick": trick, "architecture": architecture, "evaluation_mode": mode}


def _counts_of(group: pd.DataFrame, condition: tuple) -> dict[str, int]:
    for name in COUNTS:
        if group[name].nunique() != 1:
            raise InputError(
                f"the replicates of {', '.join(map(known, condition))} have {name} "
                f"{sorted(group[name].unique().tolist())}; expected one number: train the replicates alike."
            )
    return {name: int(group[name].iloc[0]) for name in COUNTS}


def _published(published: pd.DataFrame, condition: Mapping[str, object]) -> tuple[float | str, str]:
    """The paper's own value for a condition and its source, or "not available" twice; ResNet50 is resnet50."""
    method = str(condition["trick"]).replace("_", " ")
    own = (
        published["setting"].str.contains("this paper")
        & (published["dataset"] == condition["dataset"])
        & (published["method"] == method)
        & (published["classifier"].map(_plain) == _plain(str(condition["architecture"])))
    )
    # The paper tested on all test images, in its own mode, at the epoch that was best there; "" where nothing was run.
    theirs = condition["evaluation_mode"] in ("authors", BEST_MODE) and known(condition["split"]) in ("", "test")
    if not theirs or known(condition["images"]) not in ("", "drawn", "hosted") or not own.any():
        return NOT_AVAILABLE, NOT_AVAILABLE
    return float(published.loc[own, "accuracy_percent"].iloc[0]), str(published.loc[own, "source"].iloc[0])


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


# --- T2: base against merged ------------------------------------------------------------------------------------------


def base_against_merged(
    rows: pd.DataFrame,
    correct: Mapping[tuple[str, ...], np.ndarray],
    published: pd.DataFrame,
    base: str = "base_class",
    merged: str = "merged",
    n_boot: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """T2: base, merged, and merged - base in points, of conditions that differ in nothing but the trick.

    The first interval is Student's t over the paired replicates, the second the crossed bootstrap over replicates and
    test images. p is that of the paired t; of one pair in `eval` mode, of McNemar's exact test. Unequal n_train is said
    in `status`. Where one of the two was not run, or they share no replicate, the numbers are empty and `status` says
    so. rows, correct: as `read_evaluations`, `read_correct` of the same folders.
    """
    shared = [name for name in CONDITION if name != "trick"]
    tested = set(map(tuple, rows.loc[rows["trick"].isin([base, merged]), ["dataset", "architecture"]].to_numpy()))
    table = []
    for condition, group in rows.groupby(shared, sort=False, dropna=False):
        row = dict(zip(shared, condition, strict=True)) | {"trick": merged, "baseline": base}
        sides = {trick: group[group["trick"] == trick].set_index("replicate") for trick in (merged, base)}
        missing = [trick for trick in (base, merged) if sides[trick].empty]
        if missing and row["evaluation_mode"] == BEST_MODE:
            continue  # an extra, for what has it
        if len(missing) == 2 and (row["dataset"], row["architecture"]) in tested:
            continue  # such as a classifier of real images
        for name, trick in (("base", base), ("merged", merged)):
            row[f"{name}_published_percent"] = _published(published, row | {"trick": trick})[0]
            if trick not in missing:
                names = (f"{name}_percent", f"{name}_ci_low", f"{name}_ci_high")
                interval = statistics.t_interval(sides[trick]["accuracy_percent"], level)
                row |= dict(zip(names, interval, strict=True))
                row[f"{name}_n_train"] = _counts_of(sides[trick], (trick, *condition))["n_train"]
        if missing:
            tricks = " and ".join(map(trick_label, missing))
            row["status"] = f"not run: no evaluated folder was given for {tricks}"
        else:
            row |= _paired(row, sides, correct, n_boot, level)
        table.append(row)
    columns = [*shared, "baseline", "trick"]
    what = ("percent", "ci_low", "ci_high", "published_percent")
    columns += [f"{name}_{column}" for name in ("base", "merged") for column in what]
    columns += ["difference_points", "difference_low", "difference_high", "p", "difference_method"]
    integers = ["n_pairs", "base_n_train", "merged_n_train", "n_test"]
    columns += ["bootstrap_low", "bootstrap_high", "bootstrap_method", *integers, "status"]
    return in_order(pd.DataFrame(table).reindex(columns=columns)).astype(dict.fromkeys(integers, "Int64"))


def _paired(
    row: Mapping[str, object],
    sides: Mapping[str, pd.DataFrame],
    correct: Mapping[tuple[str, ...], np.ndarray],
    n_boot: int,
    level: float,
) -> dict[str, object]:
    """The difference of a T2 row: of the replicates that both `sides` (merged, base) have, by their number."""
    merged, base = sides
    pairs = sides[base].index.intersection(sides[merged].index)
    if pairs.empty:
        return {"status": "not run: the two share no replicate, so nothing is paired"}
    a, b = (sides[trick].loc[pairs] for trick in (merged, base))
    hits = [
        correct[tuple((row | {"trick": trick})[name] for name in CONDITION)][sides[trick].index.get_indexer(pairs)]
        for trick in (merged, base)
    ]
    n_test = hits[0].shape[1]
    pair = statistics.paired_t(a["accuracy_percent"], b["accuracy_percent"], level)
    seeds = a["generation_seed"].nunique(), a["training_seed"].nunique()
    p, method = pair.p, f"paired {statistics.interval_method(pair.n, *seeds)}".replace("paired one", "one")
    if pair.n == 1 and row["evaluation_mode"] == "eval":  # in authors mode an image is right in a share of the shuffles
        test = statistics.mcnemar(hits[0][0], hits[1][0])
        p, method = test.p, statistics.mcnemar_method(test, n_test)
    boot = statistics.crossed_bootstrap(*hits, n_boot=n_boot, level=level)
    found = dict(zip(("difference_points", "difference_low", "difference_high"), pair[:3], strict=True))
    found |= {"p": p, "difference_method": method, "bootstrap_low": boot.low, "bootstrap_high": boot.high}
    found["bootstrap_method"] = statistics.bootstrap_method(pair.n, n_test, n_boot)
    return found | {"n_pairs": pair.n, "n_test": n_test, "status": _fairness(row, a, b)}


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
    """T1 for people: one line a trick, accuracy as "66.2 [63.1, 69.3]", the evaluation modes as columns.

    Split, images, init and protocol are columns where the table has more than one value of them; so is top-5 accuracy
    in `eval` mode where any row has it, and the best epoch on the test set.
    """
    shown = varying(table)
    modes = [*EVALUATION_MODES, *({BEST_MODE} & set(table["evaluation_mode"]))]
    with_top5 = table.loc[table["evaluation_mode"] == "eval", "top5_percent"].notna().any()
    lines = []
    for _, group in table.groupby(["dataset", "architecture", "trick", *shown], sort=False, dropna=False):
        first = group.iloc[0]
        line = {"data set": first["dataset"], "architecture": first["architecture"]}
        line |= {"trick": trick_label(first["trick"]), **{name: known(first[name]) for name in shown}}
        for mode in modes:
            row = group[group["evaluation_mode"] == mode]
            line[f"accuracy %, {MODE_LABELS[mode]}"] = _estimate(row, "accuracy_percent", "ci_low", "ci_high", digits)
        if with_top5:
            row = group[(group["evaluation_mode"] == "eval") & group["top5_percent"].notna()]
            line[f"top-5 %, {MODE_LABELS['eval']}"] = _estimate(row, "top5_percent", "top5_low", "top5_high", digits)
        values = [value for value in group["published_percent"] if value != NOT_AVAILABLE]
        line["published %"] = f"{float(values[0]):.{digits}f}" if values else NOT_AVAILABLE
        for name, column in (("n train", "n_train"), ("n test", "n_test"), ("replicates", "n_replicates")):
            line[name] = _count(first[column])
        remarks = [status for status in group["status"].dropna().unique() if status != "run"]
        lines.append(line | {"remark": "; ".join(remarks)})
    return _without_empty_remark(pd.DataFrame(lines))


def difference_view(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """T2 for people: one line an architecture and mode, with base, merged and both intervals of the difference.

    Split, images, init and protocol are columns where the table has more than one value of them.
    """
    shown = varying(table)
    lines = []
    for place in range(len(table)):
        row = table.iloc[[place]]
        first = row.iloc[0]
        line = {
            "data set": first["dataset"],
            "architecture": first["architecture"],
            **{name: known(first[name]) for name in shown},
            "evaluated in": MODE_LABELS[first["evaluation_mode"]],
        }
        line["base %"] = _estimate(row, "base_percent", "base_ci_low", "base_ci_high", digits)
        line["merged %"] = _estimate(row, "merged_percent", "merged_ci_low", "merged_ci_high", digits)
        line["merged - base, points"] = _estimate(
            row, "difference_points", "difference_low", "difference_high", digits, "+"
        )
        test = " (McNemar)" if known(first["difference_method"]).startswith("McNemar") else ""
        line["p"] = "" if pd.isna(first["p"]) else f"{first['p']:.2g}{test}"
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
