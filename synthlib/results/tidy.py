"""results.csv: every number of every table and figure of a run in one long frame, one line a number."""

from collections.abc import Iterable, Mapping

import pandas as pd

from synthlib.results import known
from synthlib.results.cells import (
    CHANCE,
    GUESSES,
    INTERVALS,
    P_VALUES,
    PUBLISHED,
    SECOND_INTERVALS,
    covers_chance_of,
    values_of,
)
from synthlib.results.rows import CONDITION, treatments

WHO = [
    "dataset",
    "trick",
    "setting",
    "images",
    "split",
    "architecture",
    "init",
    "protocol",
    "evaluation_mode",
    "replicate",
]
COUNTS = ["n_replicates", "n_train", "n_test"]
COLUMNS = ["result", "file", *WHO, "where", "quantity", "value", "low", "high", "values", "method", *COUNTS, "chance",
           "covers_chance", "published", "published_source", "status"]  # fmt: skip
# Numbers that say where an estimate stands, and are none themselves.
PLACES = {
    "epoch",
    "step",
    "label",
    "bin_low_percent",
    "bin_high_percent",
    "images_per_class",
    "guidance",
    "guidance_low",
    "guidance_high",
}
TEXTS = {"status", "verdict", "quantity"}  # neither numbers nor places: they have columns of their own


def tidy(result_id: str, file: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Every number of one frame, whichever the kit writes, as lines with COLUMNS; result_id: such as T1; file: its CSV.

    quantity: the estimate's column, or what the frame's column `quantity` says. An estimate of cells.INTERVALS has its
    bounds, few values and their method, an accuracy its chance; a second interval, and a p value, are lines of their own.
    Other numbers are estimates without
    bounds, but for counts and PLACES; these and the other columns are in `where`, as "class=three; measure=recall". A row
    without any number, such as of what was not run, is one line with its status.
    """
    estimates, where = _estimates(frame), _where(frame)
    lines = [
        {"result": result_id, "file": file, **line}
        for row in frame.astype(object).where(frame.notna(), None).to_dict("records")
        for line in _lines(row, estimates, where)
    ]
    return _typed(pd.DataFrame(lines, columns=COLUMNS))


def results_csv(
    parts: Iterable[pd.DataFrame],
    provenance: Mapping[tuple[str, ...], Mapping[str, str]],
    n_classes: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """The frames of `tidy` one below the other, each line with where its condition was evaluated.

    provenance: (data set, treatment, architecture, images), and the same without images, -> column: text, such as the
    folder, its digests and the commit. These columns follow COLUMNS. Of a line of no such condition (of a generated set,
    of a published value) they are empty, of a difference they are those of its trick. n_classes: of each data set, for the
    chance of accuracies whose frame does not say it.
    """
    parts = [part for part in parts if len(part)]
    table = pd.concat(parts, ignore_index=True) if parts else _typed(pd.DataFrame(columns=COLUMNS))
    chance = table["quantity"].map(GUESSES) * table["dataset"].map(n_classes or {}).rdiv(100)
    table = table.assign(chance=table["chance"].fillna(chance))
    conditions = zip(table["dataset"], treatments(table), table["architecture"], table["images"], strict=True)
    found = [provenance.get(who, provenance.get(who[:3], {})) for who in conditions]  # not all frames say the images
    columns = dict.fromkeys(name for one in provenance.values() for name in one)
    return table.assign(**{name: [known(one.get(name)) for one in found] for name in columns})


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers as numbers, counts as whole ones, the rest as text."""
    numbers = {
        "value": "float64",
        "low": "float64",
        "high": "float64",
        "chance": "float64",
        **dict.fromkeys(COUNTS, "Int64"),
    }
    texts = {name: table[name].map(known).astype(object) for name in COLUMNS if name not in numbers}
    return table.astype(numbers).assign(**texts)


def _bounds(frame: pd.DataFrame) -> set[str]:
    """The columns that belong to an estimate or p value of the frame, or say what they are; not the estimates."""
    mine = [found[name] for found in (INTERVALS, SECOND_INTERVALS, PUBLISHED) for name in found if name in frame]
    mine += [(values_of(name), covers_chance_of(name)) for name in INTERVALS if name in frame]
    remarks = {name for name in frame if name.endswith("_remark")}
    return {column for columns in mine for column in columns} | remarks | TEXTS | {CHANCE, *P_VALUES}


def _is_count(name: str) -> bool:
    return name == "n" or name.startswith("n_") or name.endswith("_n_train")


def _estimates(frame: pd.DataFrame) -> list[str]:
    """The columns with estimates: those of INTERVALS, then every other number."""
    found = [name for name in INTERVALS if name in frame]
    others = {*found, *_bounds(frame), *CONDITION, *WHO, *PLACES}
    return found + [
        name
        for name in frame
        if name not in others and not _is_count(name) and pd.api.types.is_numeric_dtype(frame[name])
    ]


def _where(frame: pd.DataFrame) -> list[str]:
    """The columns that say which number of its condition a number is: of places, of other counts, of other texts."""
    others = {*_estimates(frame), *_bounds(frame), *CONDITION, *WHO, *COUNTS}
    return [name for name in frame if name not in others]


def _lines(row: Mapping[str, object], estimates: list[str], where: list[str]) -> list[dict[str, object]]:
    """One row of a frame as lines: a line a number, or one with the first estimate's name where there is none."""
    same = {name: row.get(name) for name in WHO} | {"n_test": row.get("n_test")}
    same["n_replicates"] = row.get("n_replicates", row.get("n_pairs"))
    same["where"] = "; ".join(f"{name}={_text(row[name])}" for name in where if known(row[name]))
    lines, bare = [], []
    for name in estimates:
        low, high, method = INTERVALS.get(name, ("", "", ""))
        value, source = PUBLISHED.get(name, ("", ""))
        line = same | {"quantity": row.get("quantity", name), "value": row[name], "status": _status(row, name)}
        line["n_train"] = _n_train(row, name)
        line["chance"] = GUESSES.get(str(line["quantity"]), float("nan")) * float(row.get(CHANCE) or "nan")
        line |= {"published": _text(row.get(value)), "published_source": row.get(source)}
        first = line | {"low": row.get(low), "high": row.get(high), "method": _method(row, low, method)}
        first |= {"values": row.get(values_of(name)), "covers_chance": row.get(covers_chance_of(name))}
        numbers = [first["value"], first["low"], first["high"]]
        empty = pd.isna(pd.Series(numbers, dtype=object)).all() and not _is_number(line["published"])
        (bare if empty else lines).append(first)
        low, high, method = SECOND_INTERVALS.get(name, ("", "", ""))
        if not pd.isna(row.get(low)):
            second = line | {"low": row[low], "high": row[high], "method": _method(row, low, method)}
            if low == "lowest":  # in place of the first
                lines.pop()
            lines.append(second)
    for name in P_VALUES:
        if not pd.isna(row.get(name)):
            methods = f"{name.removesuffix('p')}method", "difference_method"
            method = next((row[column] for column in methods if column in row), "")
            said = f"{method}; Holm over {_text(row.get('n_claims'))} claims" if name == "p_holm" else method
            n_train = _n_train(row, name)
            lines.append(same | {"quantity": name, "value": row[name], "method": said, "n_train": n_train}
                         | {"status": _status(row, name)})  # fmt: skip
    return lines or bare[:1]


def _method(row: Mapping[str, object], low: str, method: str) -> object:
    """How an interval came about: what its column says, or the words for it; "" where there is no interval."""
    if method in row:
        return row[method]
    return "" if pd.isna(row.get(low)) else method


def _n_train(row: Mapping[str, object], name: str) -> object:
    """n_train of an estimate: its own side's; of a T2 difference the number that both sides have, if they do."""
    if "n_train" in row:
        return row["n_train"]
    sides = [row.get(f"{side}_n_train") for side in ("base", "merged")]
    if name in ("base_percent", "merged_percent"):
        return sides[name == "merged_percent"]
    return sides[0] if known(sides[0]) == known(sides[1]) else None


def _status(row: Mapping[str, object], name: str) -> str:
    """The row's status, with the verdict before it and, of a gain of T6, with the remark on it."""
    remark = f"{'_'.join(name.split('_')[:2])}_remark"
    return "; ".join(dict.fromkeys(filter(None, (known(row.get(column)) for column in ("verdict", "status", remark)))))


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) and value == value else known(value)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
