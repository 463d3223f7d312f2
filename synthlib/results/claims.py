"""T4: the signs that the paper's tables should have, each tested on our runs: held, not held, or undecided."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from synthlib.inputs import InputError, choose, read_yaml, text
from synthlib.names import EVALUATION_MODES, TRICKS
from synthlib.results import MODE_LABELS, known, statistics, trick_label, varying
from synthlib.results.cells import Condition, count_text, estimate_text, p_text, unrun, without_empty
from synthlib.results.differences import PAIRED, PAIRED_COUNTS, Correct, bootstrap_text, not_run, paired
from synthlib.results.rows import CONDITION, in_order

SIGNS = ("above", "not_above")
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
            for name in ("trick", "baseline"):
                choose(f"trick in the claims of {dataset}", row[name], TRICKS)
            choose(f"sign in the claims of {dataset}", row["sign"], SIGNS)
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
) -> pd.DataFrame:
    """T4: one row per claim, condition of its classifiers and evaluation mode (eval, authors), with its `verdict`.

    The difference is paired over the replicates that both have (`differences.paired`); p_holm is Holm's over the claims
    of the same data set, architecture and mode (and split, images, init, protocol), of those with at least two pairs:
    one pair is undecided. claims: as `read_claims`; rows with a setting of their own are left out. Of the data sets and
    architectures in rows or `wanted`, what was not run has verdict and status "not run: why".
    """
    rows = rows[(rows["setting"] == "") & rows["evaluation_mode"].isin(EVALUATION_MODES)]
    wanted = list(wanted)
    table = []
    for shared, group in _families(rows, claims, wanted):
        family = []
        for claim in claims[claims["dataset"] == shared["dataset"]].to_dict("records"):
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


def _families(
    rows: pd.DataFrame, claims: pd.DataFrame, wanted: list[Condition]
) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """Each condition of classifiers but for the trick, with its rows: of all tricks that a claim is about; or with none."""
    shared = [name for name in CONDITION if name != "trick"]
    about = rows["trick"].isin({*claims["trick"], *claims["baseline"]})
    for key, group in rows[about].groupby(shared, sort=False, dropna=False):
        yield dict(zip(shared, key, strict=True)), group
    have = set(zip(rows.loc[about, "dataset"], rows.loc[about, "architecture"], strict=True))
    for dataset, architecture in dict.fromkeys((dataset, architecture) for dataset, _, architecture in wanted):
        if (dataset, architecture) not in have:
            for mode in EVALUATION_MODES:
                yield unrun(dataset, "", architecture, mode), rows.iloc[:0]


def claims_view(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """T4 for people: one line a claim, architecture and mode.

    Split, images, init and protocol are columns where the table has more than one value of them.
    """
    shown = varying(table)
    lines = []
    for place in range(len(table)):
        row = table.iloc[[place]]
        first = row.iloc[0]
        sign = "above" if first["sign"] == "above" else "not above"
        line = {"data set": first["dataset"], "architecture": first["architecture"]}
        line |= {name: known(first[name]) for name in shown} | {"evaluated in": MODE_LABELS[first["evaluation_mode"]]}
        line["claim"] = f"{trick_label(first['trick'])} {sign} {trick_label(first['baseline'])}"
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
