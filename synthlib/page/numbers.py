"""Numbers: lines of results.csv as tables that people read. Every number of a card comes from here, with its line."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from synthlib.inputs import InputError
from synthlib.results import MODE_LABELS, estimate_words, trick_label
from synthlib.results.cells import NOT_AVAILABLE, P_VALUES, PUBLISHED
from synthlib.results.tidy import COLUMNS, COUNTS, WHO

MOST_ROWS = 120  # of a longer table, such as of every bin of every replicate, the page says only how long it is
MODES_ACROSS = 4  # columns of estimates at most, if the evaluation modes are to stand side by side
FIRST_LINE = 2  # of results.csv that holds a number, counted as editors do
BOOTSTRAP = "crossed bootstrap"  # how the method of a second interval begins
FINE = {"run", "equal n_train", ""}  # parts of a status that need no words
# Words for columns that are more than their own name with blanks.
LABELS = {
    "dataset": "data set",
    "init": "initial weights",
    "images": "learned from",
    "evaluation_mode": "tested in",
    "accuracy_percent": "accuracy, %",
    "top5_percent": "top-5 accuracy, %",
    "ece_percent": "calibration error (ECE), %",
    "base_percent": "base class, %",
    "merged_percent": "merged, %",
    "difference_points": "difference, points",
    "over_base_points": "over base class, points",
    "over_merged_points": "over merged, points",
    "over_base_p": "p, over base class",
    "over_merged_p": "p, over merged",
    "p_holm": "p (Holm)",
    "n_train": "n train",
    "n_test": "n test",
    "n_replicates": "replicates",
}  # fmt: skip
# Columns of `where` that say again what others say, and those that stand in for one that is empty.
REPEATED = {"kind", "n_pairs", "condition", "base", "merged"}
STAND_INS = {"trick": "method", "architecture": "classifier", "images": "learned_from"}
HIDDEN = {*STAND_INS.values(), "guidance_low", "guidance_high"}
LAST = ("status", "source")  # columns at the end, after the counts


@dataclass(frozen=True)
class Cell:
    """One cell. `line`, the line of results.csv that a number is on, `value` as it stands there, `tip` all that it says of it."""

    text: str
    line: int | None = None
    value: str = ""
    tip: str = ""

    @property
    def order(self) -> str:
        """What the column is sorted by."""
        return self.value or ("" if self.text == "not run" else self.text)


@dataclass(frozen=True)
class NumberTable:
    """One file of a result: `same` is what all rows share, as (label, text); a long one has no rows, only how many numbers."""

    file: str
    headers: list[str]
    rows: list[list[Cell]]
    same: list[tuple[str, str]]
    n_numbers: int


def read_numbers(path: Path) -> pd.DataFrame:
    """A results.csv as text, cell by cell, with a column `line`. InputError: it is missing or of older code."""
    if not path.is_file():
        raise InputError(f"{path} is missing; expected every number of the run: run notebooks/04_figures.ipynb again.")
    lines = pd.read_csv(path, dtype=str, keep_default_na=False).assign(line=lambda found: found.index + FIRST_LINE)
    if lacking := [name for name in COLUMNS if name not in lines]:
        raise InputError(
            f"{path} lacks the columns {', '.join(lacking)}; expected those of today's code: "
            "run notebooks/04_figures.ipynb again."
        )
    return lines


def number_tables(lines: pd.DataFrame) -> list[NumberTable]:
    """A table for each file behind one result, of a long one for each data set. lines: of `read_numbers`, of that result."""
    tables = []
    for file, group in lines.groupby("file", sort=False):
        table = _table(str(file), group)
        if not table.rows and group["dataset"].nunique() > 1:
            tables += [_table(str(file), part) for _, part in group.groupby("dataset", sort=False)]
        else:
            tables.append(table)
    return tables


# --- one number -------------------------------------------------------------------------------------------------------


def number_text(quantity: str, value: str) -> str:
    """A number as the page writes it: percentages and points with one digit after the point, others with three in all."""
    if value == "":
        return ""
    if quantity.endswith("_points"):
        return f"{float(value):+.1f}"
    if quantity == "percent" or quantity.endswith("_percent"):
        return f"{float(value):.1f}"
    if quantity in P_VALUES:
        return f"{float(value):.2g}"
    if quantity == "correlation":
        return f"{float(value):+.2f}"
    return f"{float(value):.0f}" if abs(float(value)) >= 1000 else f"{float(value):.3g}"


def estimate_text(line: Mapping[str, str]) -> str:
    """A line's number in words (see `results.estimate_words`); of a second interval, that alone; or why there is none."""
    value, low, high = (number_text(line["quantity"], line[name]) for name in ("value", "low", "high"))
    if value == "":
        return "not run" if line["status"].startswith("not run") else ""
    if line["method"].startswith(BOOTSTRAP):
        return f"[{low}, {high}]"
    values = [number_text(line["quantity"], one) for one in line["values"].split()]
    return estimate_words(value, low, high, values, line["covers_chance"] == "yes")


def _number(line: Mapping[str, str]) -> Cell:
    said = [
        f"{name} {line[name]}"
        for name in ("value", *(("values",) if line["values"] else ("low", "high")))
        if line[name]
    ]
    tip = "; ".join(filter(None, [", ".join(said), line["method"], f"results.csv, line {line['line']}"]))
    return Cell(estimate_text(line), int(line["line"]), line["value"], tip)


# --- one table --------------------------------------------------------------------------------------------------------


@dataclass
class _Row:
    """One row in the making: who it is about, and its lines by column."""

    who: dict[str, str]
    lines: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)  # (quantity or its bootstrap, mode)


def _table(file: str, lines: pd.DataFrame) -> NumberTable:
    records = lines.to_dict("records")
    quantities = list(dict.fromkeys(_column(line) for line in records))
    modes = list(dict.fromkeys(line["evaluation_mode"] for line in records if line["evaluation_mode"]))
    same_modes = all(line["evaluation_mode"] for line in records)  # CLIP and peers have none of ours
    across = same_modes and len(modes) > 1 and len(quantities) * len(modes) <= MODES_ACROSS
    rows = _rows(records, modes if across else [])
    if len(rows) > MOST_ROWS:
        return NumberTable(file, [], [], [], len(records))
    columns = [(name, mode) for name in quantities for mode in (modes if across else [""])]
    columns = [column for column in columns if any(column in row.lines for row in rows)]
    who = list(dict.fromkeys(name for row in rows for name in row.who))
    who = [name for name in who if any(row.who.get(name) for row in rows) and not _is_repeated(name, rows)]
    varying = [name for name in who if len({row.who.get(name, "") for row in rows}) > 1]
    shown = [name for name in who if name in varying or name == "status" or (not varying and name == "trick")]
    back = [name for name in (*COUNTS, *LAST) if name in shown]
    front = [name for name in shown if name not in back]
    same = [(_label(name), _word(name, rows[0].who[name])) for name in who if name not in shown]
    same += _methods(records) + _published_everywhere(records)
    headers, cells = [_label(name) for name in front], [[_said(row, name) for name in front] for row in rows]
    for column in columns:
        headers.append(_label(column[0]) + (f", {MODE_LABELS.get(column[1], column[1])}" if column[1] else ""))
        found = [row.lines.get(column) for row in rows]
        for line, row in zip(found, cells, strict=True):
            row.append(_number(line) if line else Cell(""))
        if any(line and _is_published(line) for line in found):
            alone = sum(name in PUBLISHED for name in quantities) * (len(modes) if across else 1) == 1
            headers.append("published, %" if alone else f"published: {headers[-1]}")
            for line, row in zip(found, cells, strict=True):
                row.append(_published(line))
    if any(line["chance"] for line in records):
        headers.append("chance, %")
        for row, made in zip(rows, cells, strict=True):
            made.append(_chance(row.lines.values()))
    for row, made in zip(rows, cells, strict=True):
        made.extend(_said(row, name) for name in back)
    return NumberTable(file, headers + [_label(name) for name in back], cells, same, len(records))


def _rows(records: Iterable[dict[str, str]], modes: list[str]) -> list[_Row]:
    """Lines that are about the same, one row; a second line of the same column begins another.

    modes: those that have columns of their own.
    """
    rows: dict[tuple, _Row] = {}
    times: dict[tuple, int] = {}  # how often a column of a row was met
    for line in records:
        who = {name: line[name] for name in WHO if not (modes and name == "evaluation_mode")}
        who |= where_of(line["where"]) | {name: line[name] for name in COUNTS}
        who = stand_in(who)
        status = [part for part in line["status"].split("; ") if part not in FINE]
        column, same = (_column(line), line["evaluation_mode"] if modes else ""), tuple(sorted(who.items()))
        times[same, column] = again = times.get((same, column), -1) + 1
        row = rows.setdefault((again, same), _Row(dict(who)))
        row.lines[column] = line
        row.who["status"] = "; ".join(dict.fromkeys([*filter(None, row.who.get("status", "").split("; ")), *status]))
    return list(rows.values())


def stand_in(who: dict[str, str]) -> dict[str, str]:
    """A baseline that is no trick of ours goes by its own name; guidance that is drawn by chance by its range."""
    instead = {name: who.get(name) or who.get(other, "") for name, other in STAND_INS.items()}
    low, high = who.get("guidance_low", ""), who.get("guidance_high", "")
    instead |= {"guidance": f"random, {low} to {high}"} if low != high else {}
    return {name: value for name, value in (who | instead).items() if name not in HIDDEN}


def _is_repeated(name: str, rows: list[_Row]) -> bool:
    """Whether a column says what others say: numbers of seeds if each is that of replicates, init=scratch beside init."""
    if name.endswith("_seeds"):
        return all(row.who.get(name, "") == row.who["n_replicates"] for row in rows)
    if name != "setting":
        return name in REPEATED
    settings = [(row.who["setting"].partition("="), row.who) for row in rows if row.who["setting"]]
    return all(who.get(axis) == value for (axis, _, value), who in settings)


def _column(line: Mapping[str, str]) -> str:
    """The column of a line: its quantity, or the second interval of that."""
    return f"{line['quantity']} bootstrap" if line["method"].startswith(BOOTSTRAP) else line["quantity"]


def where_of(text: str) -> dict[str, str]:
    """The column `where` of results.csv, "class=three; measure=recall", as a mapping."""
    parts = (part.partition("=") for part in re.split(r"; (?=\w+=)", text) if part)
    return {name: value for name, _, value in parts}


def _label(name: str) -> str:
    if name.endswith(" bootstrap"):
        return "bootstrap over replicates and images"
    return LABELS.get(name) or name.replace("_percent", ", %").replace("_points", ", points").replace("_", " ")


def _word(name: str, value: str) -> str:
    """The value of a column in words."""
    if name in ("trick", "baseline", "set"):
        return trick_label(value)
    return MODE_LABELS.get(value, value) if name == "evaluation_mode" else value


def _said(row: _Row, name: str) -> Cell:
    return Cell(_word(name, row.who.get(name, "")))


def _chance(lines: Iterable[Mapping[str, str]]) -> Cell:
    """The chance of a row's accuracies; of the five guesses of top-5 it is another."""
    found = {line["chance"]: line["quantity"].startswith("top5") for line in lines if line["chance"]}
    said = [f"{float(chance):.1f}{' (top-5)' if is_top5 else ''}" for chance, is_top5 in found.items()]
    return Cell("; ".join(said))


def _is_published(line: Mapping[str, str]) -> bool:
    return line["published"] not in ("", NOT_AVAILABLE)


def _published(line: Mapping[str, str] | None) -> Cell:
    """The published value, as it stands there, and its source."""
    if line is None or not line["published"]:
        return Cell("")
    if not _is_published(line):
        return Cell(NOT_AVAILABLE)
    return Cell(f"{line['published']} ({line['published_source']})", int(line["line"]), line["published"])


def _published_everywhere(records: list[dict[str, str]]) -> list[tuple[str, str]]:
    """ "not available" once, where nothing was published of what a table shows."""
    none = any(line["published"] for line in records) and not any(map(_is_published, records))
    return [("published values", NOT_AVAILABLE)] if none else []


def _methods(records: list[dict[str, str]]) -> list[tuple[str, str]]:
    """How the intervals came about, each way once."""
    ways = dict.fromkeys(line["method"] for line in records if line["method"] and line["low"] and not line["values"])
    alike: dict[str, list[str]] = {}
    for way in ways:
        alike.setdefault(re.sub(r"\b\d+ replicates", "the replicates", way), []).append(way)
    said = [found[0] if len(found) == 1 else words for words, found in alike.items()]
    return [("in brackets" if "lowest" in said[0] else "95 % intervals in brackets", "; ".join(said))] if said else []
