"""What a reader sees (notebook 04): statistics, tables, figures, report; and here, what those call things."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from synthlib.names import BEST_MODE, EVALUATION_MODES, INITS, SPLITS, TRICKS

if TYPE_CHECKING:
    import pandas as pd

MODE_LABELS = {
    "eval": "eval mode",
    "authors": "authors' mode",
    BEST_MODE: "authors' mode, best epoch on the test set",  # chosen on the test set: never without these words
}
CHANCE_MARK = "(chance?)"  # behind an accuracy whose interval covers chance
# What, beside data set, trick, architecture and mode, tells conditions apart, with its values in the order of tables.
VARIANTS = {
    "setting": ("",),  # other parameters than the experiment's, as in guidance=3; "" where there is none
    "split": SPLITS,
    "images": ("drawn", "hosted", "imported", "real"),
    "init": INITS,
    "protocol": ("miniature", "authors", "careful"),
}


def trick_label(trick: str) -> str:
    """The words for a trick in tables and figures; merged_full says that it is three times the size."""
    return "merged, full (3n images)" if trick == "merged_full" else trick.replace("_", " ")


def trick_order(trick: str) -> tuple[int, str]:
    """Sort key: the order of `settings.TRICKS`, then any other condition by name."""
    return _order(trick, TRICKS)


def mode_order(mode: str) -> tuple[int, str]:
    """Sort key: the order of `settings.EVALUATION_MODES`, the best epoch on the test set, then any other by name."""
    return _order(mode, (*EVALUATION_MODES, BEST_MODE))


def variant_order(row: Mapping[str, object]) -> tuple[tuple[int, str], ...]:
    """Sort key of a row by its `VARIANTS`, each in its order there; one that it has not comes last."""
    return tuple(_order(known(row[name]), values) for name, values in VARIANTS.items())


def varying(table: "pd.DataFrame") -> list[str]:
    """The `VARIANTS` of which a table has more than one value: those that a reader must be shown."""
    return [name for name in VARIANTS if table[name].nunique() > 1]


def variant_words(row: Mapping[str, object], names: Iterable[str]) -> str:
    """What follows a label where variants are shown: ", guidance=3, images hosted"; nothing where they are not known."""
    said = (f"{'' if name == 'setting' else f'{name} '}{row[name]}" for name in names if known(row[name]))
    return "".join(f", {words}" for words in said)


def estimate_words(value: str, low: str = "", high: str = "", values: Iterable[str] = (), marked: bool = False) -> str:
    """A number with what stands beside it: "66.2 [63.1, 69.3]", of few replicates "66.2 (mean of 65.9, 66.5)".

    Tables, page and command line all write it by this function. marked: it is an accuracy whose interval covers chance.
    """
    values = ", ".join(values)
    beside = f" (mean of {values})" if values else f" [{low}, {high}]" if low and high else ""
    return f"{value}{beside}{f' {CHANCE_MARK}' if marked else ''}"


def known(value: object) -> str:
    """A cell as text; "" where it is empty (None or NaN), as in a row of what was not run."""
    return "" if value is None or value != value else str(value)


def _order(name: str, names: tuple[str, ...]) -> tuple[int, str]:
    return (names.index(name) if name in names else len(names), name)
