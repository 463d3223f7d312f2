"""Tables: result rows -> one table a claim, written as CSV (every number), Markdown and LaTeX (a view for people).

Every number stands with its interval, the method of the interval and its counts (design.md, promise 4); a published
value stands beside ours with its source, a missing one as "not available", and a condition that was not run as "not
run: why".
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from synthlib.files import write_atomic
from synthlib.inputs import InputError
from synthlib.names import BEST_MODE, EVALUATION_MODES, in_markdown
from synthlib.results import MODE_LABELS, known, statistics, trick_label, varying
from synthlib.results.cells import (
    CHANCE,
    GUESSES,
    NOT_AVAILABLE,
    T1_INTERVALS,
    Condition,
    chance_of,
    chance_of_all_classes,
    chance_text,
    count_text,
    counts_of,
    covers_chance_of,
    estimate_text,
    percent_columns,
    published_value,
    unrun,
    values_of,
    with_chance_note,
    without_empty,
)
from synthlib.results.rows import CONDITION, COUNTS, in_order, treatments

LONG_CELL = 32  # characters; in print a column with a longer cell is wrapped
LONG_COLUMN = r">{\raggedright\arraybackslash}p{42mm}"
BEST_TRICKS = "best tricks"  # a published value whose tricks are not known (paper_facts.md): a row of its own


def accuracy_by_trick(
    rows: pd.DataFrame,
    published: pd.DataFrame,
    wanted: Iterable[Condition] = (),
    why_not_run: Mapping[Condition, str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """T1: accuracy in percent with its t interval, counts and published value; top-5 accuracy and ECE alike.

    One row per condition (rows.CONDITION). rows: as `read_evaluations`. A `wanted` data set, treatment and architecture
    without rows becomes rows with status "not run: why", the why from `why_not_run`. Published values are of the authors'
    code on all test images, from images that it drew: they stand in the rows of the authors' modes of such conditions.
    Raises InputError where the replicates of one condition differ in n_train, n_steps or n_test.
    """
    table = []
    for condition, group in rows.groupby(CONDITION, sort=False, dropna=False):
        row = dict(zip(CONDITION, condition, strict=True)) | {CHANCE: chance_of(group)} | counts_of(group, condition)
        for name in T1_INTERVALS:
            values = pd.to_numeric(group[name])
            if name == "accuracy_percent" or values.notna().any():
                chance = row[CHANCE] if name in GUESSES else None
                row |= percent_columns(name, values, level, chance, row["n_test"])
        seeds = group["generation_seed"].nunique(), group["training_seed"].nunique()
        method = statistics.interval_method(len(group), *seeds)
        if row["images"] == "real":
            method = method.replace("generation seeds only", "draws of the pool only")
            method = method.replace("generation and", "draws of the pool and")
        row |= {"ci_method": method, "n_replicates": len(group)}
        row |= {"n_generation_seeds": seeds[0], "n_training_seeds": seeds[1]}
        table.append(row | {"status": "run"})
    have = set(zip(rows["dataset"], treatments(rows), rows["architecture"], strict=True))
    for condition in dict.fromkeys(map(tuple, wanted)):
        if condition not in have:
            why = (why_not_run or {}).get(condition, "no evaluated folder was given for it")
            for mode in EVALUATION_MODES:
                table.append(unrun(*condition, mode) | {"status": f"not run: {why}"})
    for dataset, architecture in dict.fromkeys((row["dataset"], row["architecture"]) for row in table):
        row = unrun(dataset, BEST_TRICKS, architecture, "authors")
        if published_value(published, row)[0] != NOT_AVAILABLE:
            table.append(row | {"status": "published only: which tricks is not known"})
    told: dict[tuple, list[dict]] = {}
    for row in table:
        row["published_percent"], row["published_source"] = published_value(published, row)
        if row["published_percent"] != NOT_AVAILABLE:
            row.setdefault(CHANCE, chance_of_all_classes(row["dataset"]))
            told.setdefault((row["dataset"], row["trick"], row["architecture"]), []).append(row)
    for condition, same in told.items():
        if len({known(row["init"]) for row in same}) > 1:  # which of them the paper's is, is not known
            alone = unrun(*condition, "authors") | {"status": "published only: of which initial weights is not known"}
            table.append(alone | {name: same[0][name] for name in ("published_percent", "published_source", CHANCE)})
            for row in same:
                row |= dict.fromkeys(("published_percent", "published_source"), NOT_AVAILABLE)
    integers = ["n_replicates", "n_generation_seeds", "n_training_seeds", *COUNTS]
    columns = [*CONDITION, *_columns_of("accuracy_percent"), "ci_method", CHANCE]
    columns += [name for score in list(T1_INTERVALS)[1:] for name in _columns_of(score)]
    columns += [*integers, "published_percent", "published_source", "status"]
    if not table:
        raise InputError(
            "there is no result row and no wanted condition; expected at least one: run notebooks/03_eval.ipynb first."
        )
    return in_order(pd.DataFrame(table).reindex(columns=columns)).astype(dict.fromkeys(integers, "Int64"))


def _columns_of(score: str) -> list[str]:
    return [score, *T1_INTERVALS[score][:2], values_of(score), *([covers_chance_of(score)] if score in GUESSES else [])]


# --- what people read -------------------------------------------------------------------------------------------------


def accuracy_view(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """T1 for people: one line a trick, accuracy as "66.2 [63.1, 69.3]", the evaluation modes as columns, and chance.

    Setting, split, images, init and protocol are columns where the table has more than one value of them; so is top-5
    accuracy in `eval` mode where any row has it, and the best epoch on the test set.
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
            line[f"accuracy %, {MODE_LABELS[mode]}"] = estimate_text(row, "accuracy_percent", digits)
        if with_top5:
            row = group[(group["evaluation_mode"] == "eval") & group["top5_percent"].notna()]
            line[f"top-5 %, {MODE_LABELS['eval']}"] = estimate_text(row, "top5_percent", digits)
        line["chance %"] = chance_text(first, digits)
        if with_top5 and line["chance %"]:
            line["chance %"] += f" (top-5: {GUESSES['top5_percent'] * first[CHANCE]:.{digits}f})"
        values = [value for value in group["published_percent"] if value != NOT_AVAILABLE]
        line["published %"] = f"{float(values[0]):.{digits}f}" if values else NOT_AVAILABLE
        for name, column in (("n train", "n_train"), ("n test", "n_test"), ("replicates", "n_replicates")):
            line[name] = count_text(first[column])
        remarks = [status for status in group["status"].dropna().unique() if status != "run"]
        lines.append(line | {"remark": "; ".join(remarks)})
    return without_empty(pd.DataFrame(lines))


def write_table(
    table: pd.DataFrame, stem: str | Path, caption: str, note: str, view: pd.DataFrame | None = None
) -> list[Path]:
    """Write `stem`.csv (the whole table, six significant digits), `stem`.md and `stem`.tex (the `view`).

    The view is the table itself by default. The LaTeX needs the packages array, booktabs and graphicx. Equal tables give
    equal bytes. Returns the three paths.
    """
    stem = Path(stem)
    files = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in ("csv", "md", "tex")}
    view = table if view is None else view
    note = with_chance_note(note, view)
    texts = {
        "csv": table.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        "md": f"**{caption}**\n\n{markdown(view)}\n\n{in_markdown(note)}\n",
        "tex": _latex(view, f"{caption.rstrip('.')}. {note}", stem.name),
    }
    for suffix, path in files.items():
        write_atomic(path, texts[suffix].encode())
    return list(files.values())


def read_table(path: str | Path) -> pd.DataFrame:
    """A table that `write_table` wrote, read back from its CSV."""
    if not Path(path).is_file():
        raise InputError(f"{path} is missing; expected a finished table: run notebooks/04_figures.ipynb first.")
    table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"setting": str})
    return table.fillna({"setting": ""}) if "setting" in table else table


def markdown(view: pd.DataFrame) -> str:
    """`view` as a Markdown table whose columns also line up as plain text."""
    cells = [
        list(view.columns),
        *(["" if pd.isna(value) else str(value) for value in row] for row in view.to_numpy(object)),
    ]
    cells = [[in_markdown(" ".join(cell.split())) for cell in row] for row in cells]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _latex(view: pd.DataFrame, caption: str, label: str) -> str:
    cells = view.astype(object).where(view.notna(), "").map(lambda cell: _escaped(str(cell)))
    long = [max([len(str(cell)) for cell in view[name]], default=0) > LONG_CELL for name in view]
    text = cells.rename(columns=_escaped).to_latex(
        index=False,
        escape=False,  # done: pandas leaves a "[" after a line's end, which LaTeX reads as an option
        column_format="".join(LONG_COLUMN if is_long else "l" for is_long in long),
        caption=_escaped(caption),
        label=f"tab:{label}",
        position="htbp",
    )
    # a table wider than the text is scaled down to it, a narrower one keeps its size
    shrink = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    text = text.replace(r"\begin{tabular}", "\\centering\n" + shrink + "\n" + r"\begin{tabular}", 1)
    return text.replace(r"\end{tabular}", r"\end{tabular}}", 1)


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}",
               "`": r"\textasciigrave{}", "<": "$<$", ">": "$>$", "[": "{[}", "]": "{]}"}  # fmt: skip
    text = " ".join(text.split())  # an empty line would end the cell
    letters = [special.get(letter, "\\" + letter if letter in "&%$#_{}" else letter) for letter in text]
    return "".join(letters).replace("--", "-{}-")  # of a command's options, not a dash
