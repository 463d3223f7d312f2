"""T4: the signs that the paper's tables should have, and what its abstract says, each tested on our runs.

Verdicts: held, not held, or undecided.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from synthlib.inputs import InputError, choose, read_yaml, text
from synthlib.names import EVALUATION_MODES, TRICKS
from synthlib.results import MODE_LABELS, known, statistics, trick_label, varying
from synthlib.results.cells import (
    Condition,
    count_text,
    counts_of,
    estimate_text,
    few_values,
    p_text,
    unrun,
    without_empty,
)
from synthlib.results.differences import PAIRED, PAIRED_COUNTS, Correct, bootstrap_text, not_run, paired
from synthlib.results.rows import CONDITION, in_order

SIGNS = ("above", "not_above")  # of one data set, architecture and mode
IN_ALL = "above_in_all"  # above the baseline in every architecture that was run
COMPARABLE = "comparable_to"  # to a published CLIP zero-shot accuracy: at most MARGIN below
MARGIN = 5.0  # points; ours, for the abstract does not say how near is comparable
ALL = "all"  # in place of an architecture
CLAIM_COLUMNS = ["dataset", "trick", "baseline", "sign", "source"]
ALPHA = 0.05  # of a family: the chance that any verdict is given, where no trick differs from its baseline
HELD, NOT_HELD, UNDECIDED = "held", "not held", "undecided"


def read_claims(path: str | Path) -> pd.DataFrame:
    """The claims of experiments/claims.yaml, one row each: CLAIM_COLUMNS.

    InputError: a claim lacks one of them or has another, or names an unknown trick or sign.
    """
    table = []
    for dataset, claims in read_yaml(Path(path)).items():
        if not isinstance(claims, list) or not all(isinstance(claim, dict) for claim in claims):
            raise InputError(f"{path}: {dataset} has {claims!r:.60}; expected a list of claims.")
        for claim in claims:
            row = {"dataset": dataset} | {key: text(f"{path}: {key} of {dataset}", claim[key]) for key in claim}
            if set(row) != set(CLAIM_COLUMNS):
                raise InputError(
                    f"{path}: a claim of {dataset} has {', '.join(claim)}; expected {', '.join(CLAIM_COLUMNS[1:])}."
                )
            choose(f"sign in the claims of {dataset}", row["sign"], (*SIGNS, IN_ALL, COMPARABLE))
            for name in ("trick", "baseline") if row["sign"] != COMPARABLE else ("trick",):
                choose(f"trick in the claims of {dataset}", row[name], TRICKS)
            table.append(row)
    return pd.DataFrame(table, columns=CLAIM_COLUMNS)


def verdicts(differences: ArrayLike, p: ArrayLike, signs: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Holm's p of a family of claims, and a verdict each: "held", "not held" or "undecided".

    differences: trick minus baseline [K]; p: two-sided, of no difference [K], NaN where there is no test; signs: SIGNS.
    "above" is held where the difference is above 0 and its adjusted p below ALPHA, not held where it is below 0 and p as
    small; for "not_above" the two are swapped; else, and without a test, it is undecided. A p of 0 is no test: it comes of
    pairs that all differ by the same, as two or three may by chance.
    """
    differences, adjusted = np.asarray(differences, dtype=np.float64), statistics.holm(p)
    if not len(differences) == len(adjusted) == len(signs):
        raise InputError(
            f"there are {len(differences)} differences, {len(adjusted)} p and {len(signs)} signs; expected one a claim."
        )
    found = []
    for difference, value, sign in zip(differences, adjusted, signs, strict=True):
        decided = 0 < value < ALPHA and difference != 0  # False for NaN
        held = (difference > 0) == (choose("sign", sign, SIGNS) == "above")
        found.append((HELD if held else NOT_HELD) if decided else UNDECIDED)
    return adjusted, found


def claims_table(
    rows: pd.DataFrame,
    correct: Correct,
    claims: pd.DataFrame,
    wanted: Iterable[Condition] = (),
    why_not_run: Mapping[Condition, str] | None = None,
    n_boot: int = 2000,
    level: float = 0.95,
    everywhere: pd.DataFrame | None = None,
    published: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """T4: one row per claim, condition of its classifiers and evaluation mode (eval, authors), with its `verdict`.

    The difference is paired over the replicates that both have (`differences.paired`); p_holm is Holm's over the claims
    of the same data set, architecture and mode (and split, images, init, protocol), of those with at least two pairs:
    one pair is undecided. claims: as `read_claims`; rows with a setting of their own are left out. Of the data sets and
    architectures in rows or `wanted`, what was not run has verdict and status "not run: why".
    A claim on all architectures is tested by `_in_all`, on those of `everywhere` (default: of rows), one that something is
    comparable to CLIP by `_beside_clip`, with the values `published`; neither is counted in a family.
    """
    rows, everywhere = (_plain(frame) for frame in (rows, rows if everywhere is None else everywhere))
    wanted = list(wanted)
    one, in_all, beside_clip = (claims[claims["sign"].isin(signs)] for signs in (SIGNS, [IN_ALL], [COMPARABLE]))
    table = []
    for shared, group in _families(rows, claims, wanted):
        family = []
        for claim in one[one["dataset"] == shared["dataset"]].to_dict("records"):
            row = {**shared, **claim}
            sides = [group[group["trick"] == claim[side]] for side in ("trick", "baseline")]
            missing = [claim[side] for side, has in zip(("baseline", "trick"), sides[::-1], strict=True) if has.empty]
            found = (
                {"status": not_run(row, missing, why_not_run)} if missing else paired(*sides, correct, n_boot, level)
            )
            family.append(row | found)
        tested = [row.get("n_pairs", 0) > 1 for row in family]
        p = [row["p"] if has else np.nan for row, has in zip(family, tested, strict=True)]
        adjusted, said = verdicts(
            [row.get("difference_points", np.nan) for row in family], p, [row["sign"] for row in family]
        )
        for row, value, verdict in zip(family, adjusted, said, strict=True):
            row |= {"p_holm": value, "n_claims": int(np.isfinite(adjusted).sum())}
            row["verdict"] = row["status"] if row["status"].startswith("not run") else verdict
            if row.get("n_pairs") == 1:
                row["status"] = f"one replicate: undecided; {row['status']}"
        table += family
        for claim in beside_clip[beside_clip["dataset"] == shared["dataset"]].to_dict("records"):
            mine = group[group["trick"] == claim["trick"]]
            row = {**shared, **claim}
            why = not_run(row, [claim["trick"]], why_not_run) if mine.empty else ""
            table.append(
                row | ({"status": why, "verdict": why} if why else _beside_clip(mine, claim, published, level))
            )
    for shared, group in _families(everywhere, claims, wanted, "architecture"):
        for claim in in_all[in_all["dataset"] == shared["dataset"]].to_dict("records"):
            row = {**shared, **claim, "architecture": ALL}
            found = _in_all(group, claim, correct, n_boot, level)
            asked = next((name for dataset, _, name in wanted if dataset == shared["dataset"]), ALL)
            why = not_run(row | {"architecture": asked}, (claim["baseline"], claim["trick"]), why_not_run)
            table.append(row | (found or {"status": why, "verdict": why}))
    integers = [*PAIRED_COUNTS, "n_claims"]
    columns = [
        *CONDITION,
        "baseline",
        "sign",
        *PAIRED[:4],
        "p_holm",
        *PAIRED[4:],
        *integers,
        "verdict",
        "status",
        "source",
    ]
    return in_order(pd.DataFrame(table, columns=columns)).astype(dict.fromkeys(integers, "Int64"))


def _plain(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["setting"] == "") & rows["evaluation_mode"].isin(EVALUATION_MODES)]


def _families(
    rows: pd.DataFrame, claims: pd.DataFrame, wanted: list[Condition], over: str = ""
) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """Each condition of classifiers but for the trick, with its rows: of all tricks that a claim is about; or with none.

    over: a column that the rows of one family may differ in, too.
    """
    shared = [name for name in CONDITION if name not in ("trick", over)]
    about = rows["trick"].isin({*claims["trick"], *claims["baseline"]})
    for key, group in rows[about].groupby(shared, sort=False, dropna=False):
        yield dict(zip(shared, key, strict=True)), group
    told = [name for name in ("dataset", "architecture") if name != over]
    have = set(map(tuple, rows.loc[about, told].to_numpy()))
    for key in dict.fromkeys((dataset, architecture)[: len(told)] for dataset, _, architecture in wanted):
        if key not in have:
            for mode in EVALUATION_MODES:
                yield unrun(key[0], "", key[1] if len(key) > 1 else ALL, mode), rows.iloc[:0]


def _in_all(
    group: pd.DataFrame, claim: Mapping[str, str], correct: Correct, n_boot: int, level: float
) -> dict[str, object]:
    """Whether a trick is above its baseline in every architecture: the least difference, and a verdict; {} without any.

    Each architecture is a claim of "above", by `verdicts` over all of them. Held where all are, of at least two; not held
    where one is not; p_holm is the largest.
    """
    found = {}
    for architecture, mine in group.groupby("architecture", sort=False):
        sides = [mine[mine["trick"] == claim[side]] for side in ("trick", "baseline")]
        if not any(side.empty for side in sides):
            found[architecture] = paired(*sides, correct, n_boot, level)
    found = {name: row for name, row in found.items() if "n_pairs" in row}
    if not found:
        return {}
    differences = [row["difference_points"] for row in found.values()]
    p = [row["p"] if row["n_pairs"] > 1 else np.nan for row in found.values()]
    adjusted, said = verdicts(differences, p, ["above"] * len(p))
    held = HELD if set(said) == {HELD} and len(said) > 1 else NOT_HELD if NOT_HELD in said else UNDECIDED
    place = int(np.argmin(differences))
    least = list(found.values())[place]
    status = [f"the least of {len(found)} architectures, {list(found)[place]}"] if len(found) > 1 else []
    status += [] if len(found) > 1 else [f"one architecture, {next(iter(found))}: undecided"]
    status += [] if least["status"] == "equal n_train" else [least["status"]]
    row = least | {"p_holm": np.max(adjusted), "n_claims": int(np.isfinite(adjusted).sum())}
    return row | {"verdict": held, "status": "; ".join(status)}


def _beside_clip(
    mine: pd.DataFrame, claim: Mapping[str, str], published: pd.DataFrame | None, level: float
) -> dict[str, object]:
    """Accuracy minus the published zero-shot accuracy of the CLIP that is the claim's baseline; and a verdict.

    Held where the t interval over replicates is above -MARGIN, not held where it is below; undecided without one, or where
    all replicates are alike, as two or three may be by chance.
    """
    first, theirs = mine.iloc[0], pd.DataFrame() if published is None else published
    if len(theirs):
        theirs = theirs[(theirs["dataset"] == claim["dataset"]) & (theirs["method"] == "CLIP zero-shot")]
        theirs = theirs[theirs["classifier"] == claim["baseline"]]
    if theirs.empty or first["split"] != "test":
        why = f"no accuracy of {claim['baseline']} is published on these images"
        return {"status": f"not run: {why}", "verdict": f"not run: {why}"}
    value = float(theirs["accuracy_percent"].iloc[0])
    found = statistics.t_interval(mine["accuracy_percent"] - value, level)
    seeds = mine["generation_seed"].nunique(), mine["training_seed"].nunique()
    row = dict(zip(PAIRED[:3], found, strict=True)) | counts_of(mine, tuple(first[CONDITION]))
    row["difference_values"] = few_values(mine["accuracy_percent"].to_numpy() - value)
    row |= {"difference_method": statistics.interval_method(len(mine), *seeds), "n_pairs": len(mine)}
    held = HELD if found.low > -MARGIN else NOT_HELD if found.high < -MARGIN else UNDECIDED  # False for NaN
    held = UNDECIDED if mine["accuracy_percent"].nunique() == 1 else held
    said = f"minus {value}, published ({theirs['source'].iloc[0]}); comparable is at most {MARGIN:g} points below"
    return row | {"verdict": held, "status": said}


def claim_words(trick: str, sign: str, baseline: str) -> str:
    """A claim in words: "merged above base class", "merged comparable to CLIP RN50"."""
    words = f"{trick_label(trick)} {sign.removesuffix('_in_all').replace('_', ' ')} {trick_label(baseline)}"
    return f"{words} in all architectures" if sign == IN_ALL else words


def claims_view(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """T4 for people: one line a claim, architecture and mode.

    Split, images, init and protocol are columns where the table has more than one value of them.
    """
    shown = varying(table)
    lines = []
    for place in range(len(table)):
        row = table.iloc[[place]]
        first = row.iloc[0]
        line = {"data set": first["dataset"], "architecture": first["architecture"]}
        line |= {name: known(first[name]) for name in shown} | {"evaluated in": MODE_LABELS[first["evaluation_mode"]]}
        line["claim"] = claim_words(first["trick"], first["sign"], first["baseline"])
        line["difference, points"] = estimate_text(row, "difference_points", digits, "+")
        line |= {
            "p": p_text(first["p"]),
            "p, Holm": p_text(first["p_holm"]),
            "bootstrap": bootstrap_text(first, digits),
        }
        line["pairs"] = count_text(first["n_pairs"])
        line["verdict"] = "not run" if first["verdict"].startswith("not run") else first["verdict"]
        lines.append(line | {"remark": "" if first["status"] == "equal n_train" else first["status"]})
    return without_empty(pd.DataFrame(lines))
