"""Compare: do these tables agree with those of the committed run, and what do they say? Plain text for a terminal.

On another machine the last bits differ, and so may every number. An estimate agrees where it lies inside the committed run's
95 % interval; the bounds of intervals, p values, single cells and single bins are not judged. Counts and verdicts must be equal.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from synthlib import paths
from synthlib.inputs import InputError
from synthlib.results import rows, statistics, tables
from synthlib.results.cells import CHANCE, INTERVALS, P_VALUES, SECOND_INTERVALS, T1_INTERVALS, with_chance_note

# Estimates that headlines are made of, in tables of a row a condition: those of single classes or replicates are details.
HEADLINES = {*T1_INTERVALS, "base_percent", "merged_percent", "difference_points", "over_base_points",
             "over_merged_points"}  # fmt: skip
DETAILS = {"class", "replicate"}
# Numbers that are not judged: bounds of intervals and p at all, cells of a confusion matrix, and of calibration rows all.
BOUNDS = {
    *P_VALUES,
    *(name for found in (INTERVALS, SECOND_INTERVALS) for bounds in found.values() for name in bounds[:2]),
}
CELLS = ("percent", "confidence_percent")
OF_BINS = {"bin_low_percent", "n", "confidence_percent"}  # columns of calibration rows
MAP = {"x", "y"}  # places on a t-SNE map, which is another one on another machine
WORDS = ("status", "source", "remark", "method", "values", "covers_chance")  # how columns of words about numbers end
ALL_NUMBERS = (
    "results*.csv"  # repeat what the other files hold, and where and when it was made, so they are not compared
)


class Comparison(NamedTuple):
    """One file against its reference: "same", "within interval", "moved", "differs" or "no reference", and why.

    off: what does not agree of a table's headline numbers, a sentence each; unjudged: how many of them moved that have no
    interval in the committed run.
    """

    file: str
    verdict: str
    detail: str
    off: tuple[str, ...] = ()
    unjudged: int = 0


def compare_with_reference(
    figures_dir: str | Path, reference_dir: str | Path, only: Iterable[str] | None = None
) -> list[Comparison]:
    """Compare every CSV table of `figures_dir` with the one of the same name in `reference_dir`, by name.

    "same": equal bytes or equal numbers. "within interval": the same rows and counts, and every estimate lies inside
    the reference's 95 % interval (of the replicates, where a table has one row for each). "moved": what is not judged, or has
    no interval, is other, and by how much. "differs": what does not agree. A table that only the reference has "differs" too.
    Columns and rows that only one of the two has are said, and are no difference, but for rows and headline columns that are
    missing here.
    only: names of files; ALL_NUMBERS are left out.
    """
    ours, theirs = Path(figures_dir), Path(reference_dir)
    found = {path.name for folder in (ours, theirs) for path in folder.glob("*.csv")}
    names = sorted(name for name in found if not fnmatch(name, ALL_NUMBERS))
    return [_compare(ours / name, theirs / name) for name in names if only is None or name in set(only)]


def agreement(comparisons: Iterable[Comparison]) -> str:
    """In one sentence: do the headline numbers agree with the committed run, and if not, which do not? "" without one."""
    compared = [line for line in comparisons if line.verdict != "no reference"]
    off = [f"{line.file}, {words}" for line in compared for words in line.off]
    others = [line.file for line in compared if line.verdict == "differs" and not line.off]
    if off:
        return f"Not all headline numbers agree with the committed run; {len(off)} of them: {_some(off)}."
    unjudged = sum(line.unjudged for line in compared)
    words = f"All headline numbers{' with an interval' if unjudged else ''} agree with the committed run"
    words += f"; {_number(unjudged, 'number')} without one moved" if unjudged else ""
    words += f"; details that do not: {', '.join(others)}" if others else ""
    return f"{words}." if compared else ""


def summary_text(
    figures_dir: str | Path, comparisons: Iterable[Comparison] = (), shown: Iterable[Path] | None = None
) -> str:
    """T1 of a figures folder, where it was wanted, as aligned plain text; `agreement`, and one line a comparison.

    shown: tables in Markdown to show instead.
    """
    main = Path(figures_dir) / "accuracy_by_trick.csv"
    lines = [file.read_text(encoding="utf-8").strip() for file in shown or ()]
    if shown is None and main.is_file():
        table = tables.read_table(main)
        lacking = [name for name in (*rows.CONDITION, CHANCE) if name not in table.columns]
        if lacking:  # a table that older code made
            raise InputError(
                f"{main} lacks the columns {', '.join(lacking)}; expected a table of this code: "
                "run notebooks/04_figures.ipynb again."
            )
        lines = [_table_text(table)]
    comparisons = list(comparisons)
    if first := agreement(comparisons):
        verdicts = [f"{line.file}: {line.verdict}{f' ({line.detail})' if line.detail else ''}" for line in comparisons]
        lines += ["", first, "In detail, against the committed run:", *verdicts]
    elif comparisons:
        lines += ["", "There is no committed run to compare with."]
    return "\n".join(lines).strip()


def cell_text(evaluated_dir: str | Path) -> str:
    """T1's line of one 03_eval folder as aligned plain text, with the published value where there is one."""
    published = rows.read_published(paths.published_file())
    return _table_text(tables.accuracy_by_trick(rows.read_evaluations([evaluated_dir]), published))


def _table_text(table: pd.DataFrame) -> str:
    """T1 as aligned plain text, with what its brackets are."""
    shown = table[table["n_replicates"].fillna(0) >= statistics.FEW]
    methods = "; ".join(dict.fromkeys(shown["ci_method"]))
    return _aligned(tables.accuracy_view(table)) + (f"\nIn brackets: 95 %, {methods}." if methods else "")


def _aligned(view: pd.DataFrame) -> str:
    cells = [list(view.columns), *view.astype(str).to_numpy(object).tolist()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *filter(None, [with_chance_note("", view)])])


def _compare(ours: Path, theirs: Path) -> Comparison:
    if not theirs.is_file():
        return Comparison(ours.name, "no reference", "")
    b = _cells(theirs)
    is_headline = bool(HEADLINES & set(b.columns)) and not DETAILS & set(b.columns)
    if not ours.is_file():
        said = "the committed run has this table, here it was not made"
        return Comparison(ours.name, "differs", said, (said,) * is_headline)
    if ours.read_bytes() == theirs.read_bytes():
        return Comparison(ours.name, "same", "equal bytes")
    a = _cells(ours)
    shared = [name for name in a.columns if name in b.columns]
    off, moved, inside, added = _judged(_one_row_a_condition(a[shared]), _one_row_a_condition(b[shared]))
    added = [name for name in a.columns if name not in shared] + added
    gone = [name for name in b.columns if name not in shared]
    off += [f"it lacks the column {name}" for name in gone if is_headline and name in HEADLINES]
    said = [f"{_number(inside, 'estimate')} moved, each inside the committed run's 95 % interval"] if inside else []
    if moved:
        said.append(f"{_number(len(moved), 'number')} of single cells or bins, or without an interval, moved, "
                    f"by {max(moved):.3g} at most, which is not judged")  # fmt: skip
    if not (off or said):
        is_map = set(shared) >= MAP
        said.append("the same images; their places on the map are not compared" if is_map else "equal numbers")
    said += [f"not in the committed run: {', '.join(added)}"] if added else []
    said += [f"only in the committed run: {', '.join(gone)}"] if gone else []
    verdict = "differs" if off else "moved" if moved else "within interval" if inside else "same"
    said = [_some(off), *said] if off else said
    return Comparison(ours.name, verdict, "; ".join(said), *((tuple(off), len(moved)) if is_headline else ()))


def _judged(a: pd.DataFrame, b: pd.DataFrame) -> tuple[list[str], list[float], int, list[str]]:
    """What does not agree; by how much what is not judged moved; how many estimates moved inside; what b has not.

    a, b: tables as text, of the same columns. Rows are the same by all columns that are no numbers and no words about them.
    """
    columns, bins = list(a.columns), set(a.columns) >= OF_BINS
    estimates = [name for name in columns if name in INTERVALS or name in CELLS]
    exact = [
        name for name in columns if name in ("verdict", CHANCE) or name.endswith("published_percent") or _is_count(name)
    ]
    numbers = {*estimates, *exact, *BOUNDS, *MAP, "n"}
    keys = [name for name in columns if name not in numbers and not name.endswith(WORDS)]
    mine, theirs = _by_key(a, keys), _by_key(b, keys)
    off, moved, inside = [], [], 0
    if lacking := [key for key in theirs if key not in mine]:
        off.append(f"{_number(len(lacking), 'of its rows', '')} not here, the first is of {_where(lacking[0])}")
    new = [key for key in mine if key not in theirs]
    for key in [key for key in theirs if key in mine]:
        ours, other = mine[key], theirs[key]
        if estimates and not bins and not any(other[name] for name in estimates) and any(map(ours.get, estimates)):
            new.append(key)  # it was not run there
            continue
        for name in exact if not bins else ():
            if ours[name] != other[name]:
                off.append(f"{_where(key)}: {name} is {ours[name] or 'empty'}, committed {other[name] or 'empty'}")
        for name in [name for name in estimates if ours[name] != other[name]]:
            low, high = (other.get(bound, "") for bound in _bounds(name, b))
            there = bool(ours[name]) and bool(other[name])
            if bins or name in CELLS or (there and low in ("", high)):  # or all replicates are alike
                moved.append(abs(float(ours[name]) - float(other[name])) if there else 0.0)
            elif there and float(low) <= float(ours[name]) <= float(high):
                inside += 1
            else:
                interval = f" [{low}, {high}]" if low else ""
                said = f"{name} is {ours[name] or 'empty'}, committed {other[name] or 'empty'}{interval}"
                off.append(f"{_where(key)}: {said}")
    return off, moved, inside, [f"{_number(len(new), 'row')}, the first of {_where(new[0])}"] if new else []


def _by_key(table: pd.DataFrame, keys: list[str]) -> dict[tuple[str, ...], dict[str, str]]:
    """Rows by their key, and by their number among those of the same."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    times: Counter[tuple[str, ...]] = Counter()
    for row in table.to_dict("records"):
        key = tuple(row[name] for name in keys)
        found[(*key, str(times[key]))] = row
        times[key] += 1
    return found


def _is_count(name: str) -> bool:
    return name == "n" or name.startswith("n_") or name.endswith("_n_train")


def _where(key: tuple[str, ...]) -> str:
    return ", ".join(filter(None, key[:-1]))


def _number(n: int, noun: str, plural: str = "s") -> str:
    return f"{n} {noun}{plural if n != 1 else ''}"


def _some(words: Sequence[str]) -> str:
    return "; ".join([*words[:3], *([f"and {len(words) - 3} more"] if len(words) > 3 else [])])


def _bounds(name: str, table: pd.DataFrame) -> tuple[str, str]:
    """The columns of an estimate's interval; of its second one where the table has no first."""
    first = INTERVALS.get(name, ("", "", ""))
    return (first if first[0] in table.columns else SECOND_INTERVALS.get(name, first))[:2]


def _cells(path: Path) -> pd.DataFrame:
    """A CSV as text, cell by cell; empty cells are empty text."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _one_row_a_condition(cells: pd.DataFrame) -> pd.DataFrame:
    """A table with a row a replicate becomes one with each condition's mean and t interval; others stay as they are."""
    if "replicate" not in cells.columns or set(cells.columns) >= OF_BINS:  # bins are not judged
        return cells
    estimates = [name for name in INTERVALS if name in cells.columns]
    keys = [name for name in cells.columns if name not in (*estimates, *BOUNDS, "replicate")]
    conditions = []
    for key, group in cells.groupby(keys, sort=False):
        row = dict(zip(keys, key, strict=True)) | {"n_replicates": str(len(group))}
        for name in estimates:
            values = pd.to_numeric(group[name], errors="coerce").dropna()
            found = statistics.t_interval(values) if len(values) else (float("nan"),) * 3
            texts = ["" if pd.isna(number) else f"{number:.6g}" for number in found]
            row |= dict(zip((name, *INTERVALS[name][:2]), texts, strict=True))
        conditions.append(row)
    return pd.DataFrame(conditions)
