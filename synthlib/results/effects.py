"""T5: what the choices of the authors' protocol are worth; T6: what goes beyond the paper, against base class and merged."""

from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from synthlib.inputs import InputError
from synthlib.names import BEST_MODE, EVALUATION_MODES, INITS, MERGED_TRICKS
from synthlib.results import MODE_LABELS, known, trick_label, varying
from synthlib.results.cells import Condition, chance_text, count_text, estimate_text, p_text, unrun, without_empty
from synthlib.results.differences import PAIRED, PAIRED_COUNTS, Correct, bootstrap_text, not_run, paired
from synthlib.results.rows import CONDITION, COUNTS, in_order
from synthlib.results.tables import BEST_TRICKS, accuracy_by_trick

TRICKS_COMPARED = ("base_class", "merged")
MODES = (*EVALUATION_MODES, BEST_MODE)
GAIN = "merged - base class"
# The choices: in words, the column in which the two sides differ, and its values in the first and the second side.
CHOICES = {
    "authors' mode - eval mode": ("evaluation_mode", "authors", "eval"),
    "best epoch on the test set - last epoch": ("evaluation_mode", BEST_MODE, "authors"),
    "ImageNet weights - from scratch": ("init", "imagenet", "scratch"),
}
PAPER = "the paper"
# Where a condition of T6 comes from, by its trick, or by the name of its setting.
SOURCES = {
    "merged_full": "the authors' follow-on code",
    "domain_guidance": "ours: domain and random guidance in one image",
    "prompt_list": "He et al. 2023 (2210.07574), language enhancement",
    "judge": "He et al. 2023 (2210.07574), CLIP filter; adapted: kept are the first n images that the judge agrees with",
}


def protocol_effects(
    rows: pd.DataFrame,
    correct: Correct,
    wanted: Iterable[Condition] = (),
    why_not_run: Mapping[Condition, str] | None = None,
    n_boot: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """T5: `effect` in words and what it is worth in points of accuracy, paired over replicates (`differences.paired`).

    First merged - base class for each init and mode, then each of CHOICES for either trick: of the same replicates, what
    one choice more changes. trick, init and evaluation_mode are those of the first side. rows: of the conditions of T5,
    base_class and merged with init=scratch and init=imagenet. What has no rows, on either side, has status "not run: why";
    so has a `wanted` data set and architecture without any.
    """
    # an init that is a setting is no difference of its own: it is in the column init as well
    mine = set(map(tuple, rows[CONDITION].to_numpy()))  # correct may be of other conditions too
    correct = {(*key[:3], _without_init(key[3]), *key[4:]): hits for key, hits in correct.items() if key in mine}
    rows = rows.assign(setting=[_without_init(setting) for setting in rows["setting"]])
    _check_told_apart(rows)
    table = []
    for site, group in _sites(rows, list(wanted)):
        for effect, first, second in _comparisons():
            sides = [_of(group, one) for one in (first, second)]
            row = {**site, **first, "setting": f"init={first['init']}", "effect": effect}
            missing = [one for one, side in zip((first, second), sides, strict=True) if side.empty]
            if missing:
                row["status"] = _why(group, row, missing[::-1], why_not_run)
            else:
                row |= paired(*sides, correct, n_boot, level)
            table.append(row)
    columns = [*CONDITION, "effect", *PAIRED, *PAIRED_COUNTS, "status"]
    return pd.DataFrame(table, columns=columns).astype(dict.fromkeys(PAIRED_COUNTS, "Int64"))


def _comparisons() -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:
    """Each effect with its two sides: trick, init and evaluation_mode."""
    for init in INITS:
        for mode in MODES:
            yield GAIN, *({"trick": trick, "init": init, "evaluation_mode": mode} for trick in TRICKS_COMPARED[::-1])
    for effect, (column, first, second) in CHOICES.items():
        for trick in TRICKS_COMPARED:
            for other in MODES if column == "init" else INITS:
                same = {"trick": trick, ("evaluation_mode" if column == "init" else "init"): other}
                yield effect, same | {column: first}, same | {column: second}


def _sites(rows: pd.DataFrame, wanted: list[Condition]) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """What all sides of a comparison share, with the rows of it; or, of what was wanted and not run, with none."""
    about = rows[rows["trick"].isin(TRICKS_COMPARED)]
    shared = [name for name in CONDITION if name not in ("trick", "init", "evaluation_mode")]
    for key, group in about.groupby(shared, sort=False, dropna=False):
        yield dict(zip(shared, key, strict=True)), group
    have = set(zip(about["dataset"], about["architecture"], strict=True))
    for dataset, architecture in dict.fromkeys((dataset, architecture) for dataset, _, architecture in wanted):
        if (dataset, architecture) not in have:
            empty = unrun(dataset, "", architecture, "")
            yield {name: empty[name] for name in shared}, about.iloc[:0]


def _of(group: pd.DataFrame, side: Mapping[str, str]) -> pd.DataFrame:
    return group[(group[list(side)] == pd.Series(side)).all(axis=1)]


def _without_init(setting: str) -> str:
    return "" if setting.startswith("init=") else setting


def _check_told_apart(rows: pd.DataFrame) -> None:
    twice = rows[rows.duplicated([*CONDITION, "replicate"])]
    if len(twice):
        row = twice.iloc[0]
        raise InputError(
            f"{row['trick']}, {row['architecture']}, init {row['init']} is there twice, with its init as a setting and without; "
            "expected one of them: give the conditions of T5 only."
        )


def _why(
    group: pd.DataFrame,
    row: Mapping[str, object],
    missing: list[dict[str, str]],
    why_not_run: Mapping[Condition, str] | None,
) -> str:
    """Why an effect has no numbers: sides that were not run, or that have no best epoch."""
    unrun_sides = [side for side in missing if _of(group, {name: side[name] for name in ("trick", "init")}).empty]
    if not unrun_sides:
        return "not run: no best epoch on the test set was kept (02_train keeps it where test_every is above 0)"
    return not_run(row, [f"{side['trick']}+init={side['init']}" for side in unrun_sides], why_not_run)


def effects_view(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """T5 for people: one line an effect, of which trick, init and mode it is, both intervals, and the pairs.

    A data set and architecture of which nothing was run is one line.
    """
    shown = [name for name in varying(table) if name not in ("init", "setting")]
    have = table.loc[table["n_pairs"].notna(), ["dataset", "architecture"]]
    have = set(map(tuple, have.to_numpy()))
    lines: list[dict[str, str]] = []
    for place in range(len(table)):
        row = table.iloc[[place]]
        first = row.iloc[0]
        if (first["dataset"], first["architecture"]) not in have:
            line = {
                "data set": first["dataset"],
                "architecture": first["architecture"],
                "effect": "all",
                "points": "not run",
            }
            if not any(other | line == other for other in lines):
                lines.append(line | {"remark": first["status"]})
            continue
        column = CHOICES.get(first["effect"], ("trick",))[0]
        line = {"data set": first["dataset"], "architecture": first["architecture"]}
        line |= {name: known(first[name]) for name in shown} | {"effect": first["effect"]}
        line["trick"] = "" if column == "trick" else trick_label(first["trick"])
        line["init"] = "" if column == "init" else first["init"]
        line["evaluated in"] = "" if column == "evaluation_mode" else MODE_LABELS[first["evaluation_mode"]]
        line["points"] = estimate_text(row, "difference_points", digits, "+")
        line |= {"p": p_text(first["p"]), "bootstrap": bootstrap_text(first, digits)}
        line["pairs"] = count_text(first["n_pairs"])
        lines.append(line | {"remark": "" if first["status"] == "equal n_train" else first["status"]})
    columns = max(lines, key=len, default={})
    return without_empty(pd.DataFrame(lines, columns=list(columns)).fillna(""))


# --- T6: beyond the paper ---------------------------------------------------------------------------------------------


def beyond(
    rows: pd.DataFrame,
    correct: Correct,
    published: pd.DataFrame,
    wanted: Iterable[Condition] = (),
    why_not_run: Mapping[Condition, str] | None = None,
    n_boot: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """T6: T1's row of each condition in modes eval and authors, where it comes from (`source`), and what it gains.

    over_base_points and over_merged_points: its accuracy minus that of base_class and of merged, without settings of their
    own but otherwise of the same condition, paired over replicates; over_base_remark says what a reader must know
    ("unequal n_train ..."), or "not run: ...". Empty of base_class and merged themselves, which are there to compare with.
    """
    rows = rows[rows["evaluation_mode"].isin(EVALUATION_MODES)]
    accuracies = accuracy_by_trick(rows, published, wanted, why_not_run, level)
    accuracies = accuracies[accuracies["trick"] != BEST_TRICKS]
    table = accuracies.to_dict("records")
    for row in table:
        setting = known(row["setting"]).split("=")[0]
        of_paper = row["trick"] in ("base_class", *MERGED_TRICKS, "merged")
        row["source"] = SOURCES.get(setting) or SOURCES.get(row["trick"]) or (PAPER if of_paper else "not stated")
        for name, trick in (("base", "base_class"), ("merged", "merged")):
            if row["status"] == "run" and not (row["trick"] in TRICKS_COMPARED and not known(row["setting"])):
                mine = _of(rows, {column: row[column] for column in CONDITION})
                theirs = _of(rows, {column: row[column] for column in CONDITION} | {"trick": trick, "setting": ""})
                if theirs.empty:
                    row[f"over_{name}_remark"] = not_run(row, [trick], why_not_run)
                    continue
                found = paired(mine, theirs, correct, n_boot, level)
                ours = ("points", "low", "high", "p", "method", "values")
                row |= {f"over_{name}_{a}": found.get(b) for a, b in zip(ours, PAIRED, strict=False)}
                row[f"over_{name}_remark"] = found["status"]
    gains = [f"over_{name}_{what}" for name in ("base", "merged")
             for what in ("points", "low", "high", "values", "p", "method", "remark")]  # fmt: skip
    table = pd.DataFrame(table, columns=[*accuracies.columns[:-1], *gains, "status", "source"])
    return in_order(table.astype(accuracies.dtypes[["n_replicates", *COUNTS]]))


def beyond_view(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """T6 for people: one line a condition and mode: accuracy, gains over base class and merged, and the source."""
    shown = varying(table)
    lines = []
    for place in range(len(table)):
        row = table.iloc[[place]]
        first = row.iloc[0]
        line = {
            "data set": first["dataset"],
            "architecture": first["architecture"],
            "trick": trick_label(first["trick"]),
        }
        line |= {name: known(first[name]) for name in shown} | {"evaluated in": MODE_LABELS[first["evaluation_mode"]]}
        line["accuracy %"] = estimate_text(row, "accuracy_percent", digits)
        line["chance %"] = chance_text(first, digits)
        said = [] if first["status"] == "run" else [first["status"]]
        for name in ("base", "merged"):
            line[f"- {name}, points"] = estimate_text(row, f"over_{name}_points", digits, "+")
            remark = known(first[f"over_{name}_remark"])
            said += [] if remark in ("", "equal n_train") else [f"{name}: {remark}"]
        line |= {"n train": count_text(first["n_train"]), "replicates": count_text(first["n_replicates"])}
        lines.append(line | {"source": first["source"], "remark": "; ".join(said)})
    return without_empty(pd.DataFrame(lines))
