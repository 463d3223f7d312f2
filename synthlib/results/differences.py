"""Paired differences: two conditions over the replicates that both have; and T2, base class against merged."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from synthlib.names import BEST_MODE, EVALUATION_MODES
from synthlib.results import MODE_LABELS, known, statistics, trick_label, varying
from synthlib.results.cells import (
    CHANCE,
    NOT_AVAILABLE,
    Condition,
    chance_of,
    chance_of_all_classes,
    chance_text,
    count_text,
    counts_of,
    estimate_text,
    few_values,
    p_text,
    percent_columns,
    published_value,
    unrun,
    without_empty,
)
from synthlib.results.rows import CONDITION, in_order

Correct = Mapping[tuple[str, ...], np.ndarray]  # as `rows.read_correct` gives it
# What `paired` gives, in the order of tables; n_train is a's, and what is subtracted has baseline_n_train.
PAIRED = ["difference_points", "difference_low", "difference_high", "p", "difference_method", "difference_values"]
PAIRED += ["bootstrap_low", "bootstrap_high", "bootstrap_method"]
PAIRED_COUNTS = ["n_pairs", "n_train", "baseline_n_train", "n_test"]


def paired(
    a: pd.DataFrame, b: pd.DataFrame, correct: Correct, n_boot: int = 2000, level: float = 0.95
) -> dict[str, object]:
    """Accuracy of a minus b in points over the replicates that both have, by their number: PAIRED, PAIRED_COUNTS, status.

    a, b: the result rows of one condition each; correct: that of both. The first interval is Student's t over the
    replicates, the second the crossed bootstrap over replicates and test images. p is that of the paired t; of one pair,
    both in `eval` mode, of McNemar's exact test. status: "equal n_train", or what a reader must know before comparing;
    "not run: ..." where no replicate is shared. InputError: the replicates of a or of b differ in their counts.
    """
    n_train = [counts_of(side, tuple(side[CONDITION].iloc[0]))["n_train"] for side in (a, b)]
    found = dict(zip(("n_train", "baseline_n_train"), n_train, strict=True))
    numbers = [pd.Index(side["replicate"]) for side in (a, b)]
    pairs = numbers[1].intersection(numbers[0])
    if pairs.empty:
        return found | {"status": "not run: the two share no replicate, so nothing is paired"}
    places = [number.get_indexer(pairs) for number in numbers]
    hits = [correct[tuple(s[CONDITION].iloc[0])][place] for s, place in zip((a, b), places, strict=True)]
    a, b = a.iloc[places[0]], b.iloc[places[1]]
    n_test = hits[0].shape[1]
    pair = statistics.paired_t(a["accuracy_percent"], b["accuracy_percent"], level)
    seeds = a["generation_seed"].nunique(), a["training_seed"].nunique()
    p, method = pair.p, f"paired {statistics.interval_method(pair.n, *seeds)}".replace("paired one", "one")
    modes = {*a["evaluation_mode"], *b["evaluation_mode"]}
    if pair.n == 1 and modes == {"eval"}:  # in authors mode an image is right in a share of the shuffles
        test = statistics.mcnemar(hits[0][0], hits[1][0])
        p, method = test.p, statistics.mcnemar_method(test, n_test)
    boot = statistics.crossed_bootstrap(*hits, n_boot=n_boot, level=level)
    method = statistics.bootstrap_method(pair.n, n_test, n_boot), method
    values = few_values(a["accuracy_percent"].to_numpy() - b["accuracy_percent"].to_numpy())
    found |= dict(zip(PAIRED, (*pair[:3], p, method[1], values, boot.low, boot.high, method[0]), strict=True))
    found |= {"n_pairs": pair.n, "n_test": n_test}
    said = [] if n_train[0] == n_train[1] else [f"unequal n_train ({n_train[1]} and {n_train[0]})"]
    if (a["training_seed"].to_numpy() != b["training_seed"].to_numpy()).any():
        said.append("training seeds differ within pairs")
    return found | {"status": "; ".join(said) or "equal n_train"}


def base_against_merged(
    rows: pd.DataFrame,
    correct: Correct,
    published: pd.DataFrame,
    base: str = "base_class",
    merged: str = "merged",
    n_boot: int = 2000,
    level: float = 0.95,
    wanted: Iterable[Condition] = (),
    why_not_run: Mapping[Condition, str] | None = None,
) -> pd.DataFrame:
    """T2: base, merged, and merged - base in points, of conditions that differ in nothing but the trick.

    Intervals and p as `paired`. Unequal n_train is said in `status`. Where one of the two was not run, or they share no
    replicate, the numbers are empty and `status` says so; so it is for a `wanted` data set and architecture without rows.
    rows, correct: as `read_evaluations`, `read_correct` of the same folders.
    """
    shared = [name for name in CONDITION if name != "trick"]
    tested = set(map(tuple, rows.loc[rows["trick"].isin([base, merged]), ["dataset", "architecture"]].to_numpy()))
    table = []
    for condition, group in rows.groupby(shared, sort=False, dropna=False):
        row = dict(zip(shared, condition, strict=True)) | {"trick": merged, "baseline": base, CHANCE: chance_of(group)}
        sides = {trick: group[group["trick"] == trick] for trick in (merged, base)}
        missing = [trick for trick in (base, merged) if sides[trick].empty]
        if missing and row["evaluation_mode"] == BEST_MODE:
            continue  # an extra, for what has it
        if len(missing) == 2 and (row["dataset"], row["architecture"]) in tested:
            continue  # such as a classifier of real images
        same = (rows["dataset"] == row["dataset"]) & (rows["architecture"] == row["architecture"])
        n_inits = rows.loc[same, "init"].nunique()  # of several it is not known which is the paper's
        for name, trick in (("base", base), ("merged", merged)):
            value = published_value(published, row | {"trick": trick})[0]
            row[f"{name}_published_percent"] = value if n_inits == 1 else NOT_AVAILABLE
            if trick not in missing:
                counts, accuracies = counts_of(sides[trick], (trick, *condition)), sides[trick]["accuracy_percent"]
                row |= percent_columns(f"{name}_percent", accuracies, level, row[CHANCE], counts["n_test"])
                row[f"{name}_n_train"] = counts["n_train"]
        if missing:
            row["status"] = not_run(row, missing, why_not_run)
        else:
            row |= paired(*sides.values(), correct, n_boot, level)
        table.append(row)
    have = {(row["dataset"], row["architecture"]) for row in table}
    for dataset, architecture in dict.fromkeys((dataset, architecture) for dataset, _, architecture in wanted):
        for mode in EVALUATION_MODES if (dataset, architecture) not in have else ():
            row = unrun(dataset, merged, architecture, mode) | {"baseline": base}
            for name, trick in (("base", base), ("merged", merged)):
                row[f"{name}_published_percent"] = value = published_value(published, row | {"trick": trick})[0]
                row |= {} if value == NOT_AVAILABLE else {CHANCE: chance_of_all_classes(dataset)}
            table.append(row | {"status": not_run(row, (base, merged), why_not_run)})
    columns = [*shared, "baseline", "trick", CHANCE]
    what = ("percent", "ci_low", "ci_high", "values", "covers_chance", "published_percent")
    columns += [f"{name}_{column}" for name in ("base", "merged") for column in what]
    integers = ["n_pairs", "base_n_train", "merged_n_train", "n_test"]
    columns += [*PAIRED, *integers, "status"]
    return in_order(pd.DataFrame(table).reindex(columns=columns)).astype(dict.fromkeys(integers, "Int64"))


def not_run(
    row: Mapping[str, object], treatments: Iterable[str], why_not_run: Mapping[Condition, str] | None = None
) -> str:
    """Why a comparison has no numbers: "not run: ", and each reason once; row: says which data set and architecture."""
    known_why = {name: (why_not_run or {}).get((row["dataset"], name, row["architecture"]), "") for name in treatments}
    reasons = [f"{treatment_label(name)}: {why}" for name, why in known_why.items() if why]
    unknown = " and ".join(treatment_label(name) for name, why in known_why.items() if not why)
    return f"not run: {'; '.join([f'no evaluated folder was given for {unknown}'] * bool(unknown) + reasons)}"


def treatment_label(treatment: str) -> str:
    """The words for a treatment: "random guidance, guidance=3"."""
    trick, _, setting = treatment.partition("+")
    return ", ".join(filter(None, [trick_label(trick), setting]))


def difference_view(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """T2 for people: one line an architecture and mode, with base, merged and both intervals of the difference.

    Setting, split, images, init and protocol are columns where the table has more than one value of them.
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
        line["base %"] = estimate_text(row, "base_percent", digits)
        line["merged %"] = estimate_text(row, "merged_percent", digits)
        line["chance %"] = chance_text(first, digits)
        line["merged - base, points"] = estimate_text(row, "difference_points", digits, "+")
        test = " (McNemar)" if known(first["difference_method"]).startswith("McNemar") else ""
        line["p"] = f"{p_text(first['p'])}{test}"
        line["bootstrap"] = bootstrap_text(first, digits)
        line["pairs"] = count_text(first["n_pairs"])
        line["n train"] = count_text(first["base_n_train"])
        values = [first["base_published_percent"], first["merged_published_percent"]]
        line["published %, base / merged"] = " / ".join(map(str, values)) if len(set(values)) > 1 else str(values[0])
        lines.append(line | {"remark": "" if first["status"] == "equal n_train" else first["status"]})
    return without_empty(pd.DataFrame(lines))


def bootstrap_text(row: Mapping[str, object], digits: int = 1) -> str:
    """The crossed bootstrap's interval of a difference as "[+1.2, +3.4]"; "" where there is none."""
    bounds = row["bootstrap_low"], row["bootstrap_high"]
    return "" if pd.isna(bounds[0]) else f"[{bounds[0]:+.{digits}f}, {bounds[1]:+.{digits}f}]"
