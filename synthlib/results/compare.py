"""Compare: are these tables those of the reference, and what do they say? Plain text for a terminal."""

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from synthlib import paths
from synthlib.inputs import InputError
from synthlib.results import rows, statistics, tables
from synthlib.results.cells import INTERVALS, P_VALUES, SECOND_INTERVALS

# What may differ from the reference where the estimates lie in its intervals: their bounds, and p.
UNCOMPARED = {
    *P_VALUES,
    *(name for found in (INTERVALS, SECOND_INTERVALS) for bounds in found.values() for name in bounds[:2]),
}
# Estimates of figures' data that have no interval: cells of a confusion matrix, mean confidence of a bin.
WITHOUT_INTERVAL = ("percent", "confidence_percent")
OF_BINS = {"bin_low_percent", "n", "confidence_percent"}  # columns of calibration rows
MAP = {"x", "y"}  # places on a t-SNE map, which is another one on another machine
ALL_NUMBERS = (
    "results*.csv"  # repeat what the other files hold, and where and when it was made, so they are not compared
)


class Comparison(NamedTuple):
    """One file against its reference: "same", "within interval", "moved", "differs" or "no reference", and why."""

    file: str
    verdict: str
    detail: str


def compare_with_reference(figures_dir: str | Path, reference_dir: str | Path) -> list[Comparison]:
    """Compare every CSV table of `figures_dir` with the one of the same name in `reference_dir`, by name.

    "same": equal bytes or equal cells. "within interval": the same rows and counts, and every estimate lies inside
    the reference's 95 % interval (of the replicates, where a table has one row for each). "moved": estimates that have
    no interval are others, and by how much. "differs": names the first cell that does not fit. A table that only the
    reference has "differs" too. ALL_NUMBERS are left out.
    """
    ours, theirs = Path(figures_dir), Path(reference_dir)
    found = [path.name for folder in (ours, theirs) for path in folder.glob("*.csv")]
    names = sorted({name for name in found if not fnmatch(name, ALL_NUMBERS)})
    return [Comparison(name, *_compare(ours / name, theirs / name)) for name in names]


def summary_text(
    figures_dir: str | Path, comparisons: Iterable[Comparison] = (), shown: Iterable[Path] | None = None
) -> str:
    """T1 of a figures folder, where it was wanted, as aligned plain text, with one line a comparison.

    shown: tables in Markdown to show instead.
    """
    main = Path(figures_dir) / "accuracy_by_trick.csv"
    lines = [file.read_text(encoding="utf-8").strip() for file in shown or ()]
    if shown is None and main.is_file():
        table = tables.read_table(main)
        lacking = [name for name in rows.CONDITION if name not in table.columns]
        if lacking:  # a table that older code made
            raise InputError(
                f"{main} lacks the columns {', '.join(lacking)}; expected a table of this code: "
                "run notebooks/04_figures.ipynb again."
            )
        lines = [_aligned(tables.accuracy_view(table))]
    verdicts = [f"{line.file}: {line.verdict}{f' ({line.detail})' if line.detail else ''}" for line in comparisons]
    if verdicts:
        lines += ["", "Against the committed reference:", *verdicts]
    return "\n".join(lines).strip()


def cell_text(evaluated_dir: str | Path) -> str:
    """T1's line of one 03_eval folder as aligned plain text, with the published value where there is one."""
    published = rows.read_published(paths.published_file())
    table = tables.accuracy_by_trick(rows.read_evaluations([evaluated_dir]), published)
    return _aligned(tables.accuracy_view(table))


def _aligned(view: pd.DataFrame) -> str:
    cells = [list(view.columns), *view.astype(str).to_numpy(object).tolist()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _compare(ours: Path, theirs: Path) -> tuple[str, str]:
    if not theirs.is_file():
        return "no reference", ""
    if not ours.is_file():
        return "differs", "the reference has this table, here it was not made"
    if ours.read_bytes() == theirs.read_bytes():
        return "same", "equal bytes"
    a, b = (_cells(path) for path in (ours, theirs))
    if list(a.columns) != list(b.columns):
        odd = [name for name in [*a.columns, *b.columns] if (name in a.columns) != (name in b.columns)]
        return "differs", f"columns: {', '.join(odd) if odd else 'their order'}"
    if a.equals(b):
        return "same", "equal cells"
    a, b = _one_row_a_condition(a), _one_row_a_condition(b)
    estimates = [name for name in a.columns if name in INTERVALS or name in WITHOUT_INTERVAL]
    fixed = [name for name in a.columns if name not in estimates and name not in UNCOMPARED | MAP]
    if len(a) != len(b):
        return "differs", f"{len(a)} rows, reference {len(b)}"
    inside, unjudged = 0, []
    for place in range(len(a)):
        mine, other = a.iloc[place], b.iloc[place]
        where = f"row {place + 1} ({', '.join(mine[name] for name in rows.CONDITION if mine.get(name))})"
        for name in fixed:
            if mine[name] != other[name]:
                return "differs", f"{where}: {name} is {mine[name] or 'empty'}, reference {other[name] or 'empty'}"
        for name in [name for name in estimates if mine[name] != other[name]]:
            low, high = (other.get(bound, "") for bound in _bounds(name, a))
            said = f"{where}: {name} is {mine[name] or 'empty'}, reference {other[name] or 'empty'}"
            if "" in (mine[name], other[name]):
                return "differs", said
            if low in ("", high):  # no replicates, or all alike: nothing to judge by
                unjudged.append(abs(float(mine[name]) - float(other[name])))
            elif not float(low) <= float(mine[name]) <= float(high):
                return "differs", f"{said} [{low}, {high}]"
            inside += 1
    if unjudged:
        return "moved", f"{len(unjudged)} numbers without an interval to judge by moved, by {max(unjudged):.3g} at most"
    if not inside and MAP <= set(a.columns):
        return "same", "the same images; their places on the map are not compared"
    if not inside:
        return "same", "equal estimates; only interval bounds differ in their last digits"
    return "within interval", f"{inside} estimates moved, each inside the reference's 95 % interval"


def _columns_of(name: str) -> tuple[str, str]:
    """The columns of the bounds of a mean over replicates."""
    return INTERVALS[name][:2] if name in INTERVALS else (f"{name}_low", f"{name}_high")


def _bounds(name: str, table: pd.DataFrame) -> tuple[str, str]:
    """The columns of an estimate's interval; of its second one where the table has no first."""
    first = INTERVALS.get(name, _columns_of(name))
    return (first if first[0] in table.columns else SECOND_INTERVALS.get(name, first))[:2]


def _cells(path: Path) -> pd.DataFrame:
    """A CSV as text, cell by cell; empty cells are empty text."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _one_row_a_condition(cells: pd.DataFrame) -> pd.DataFrame:
    """A table with a row a replicate becomes one with each condition's mean and t interval; others stay as they are."""
    if "replicate" not in cells.columns:
        return cells
    estimates = [name for name in (*INTERVALS, *WITHOUT_INTERVAL) if name in cells.columns]
    keys = [name for name in cells.columns if name not in (*estimates, *UNCOMPARED, "replicate")]
    if OF_BINS <= set(cells.columns):  # how many images fall into a bin is no condition
        keys.remove("n")
    conditions = []
    for key, group in cells.groupby(keys, sort=False):
        row = dict(zip(keys, key, strict=True)) | {"n_replicates": str(len(group))}
        for name in estimates:
            values = pd.to_numeric(group[name], errors="coerce").dropna()  # a bin of confidence may be empty
            found = statistics.t_interval(values) if len(values) else (float("nan"),) * 3
            texts = ["" if pd.isna(number) else f"{number:.6g}" for number in found]
            row |= dict(zip((name, *_columns_of(name)), texts, strict=True))
        conditions.append(row)
    return pd.DataFrame(conditions)
