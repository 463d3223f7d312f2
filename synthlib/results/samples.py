"""Samples: which generated images the sample grid (F1) shows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa

from synthlib.data.sets import SyntheticSet
from synthlib.data.shards import read_shards, shard_classes
from synthlib.receipts import read_receipt
from synthlib.results import trick_label

MOST_COLUMNS = 10  # of a hundred classes every tenth is shown


def spread_rows(rows: pa.Table, per_class: int, by_trick: bool = False) -> np.ndarray:
    """Which rows to show, int [k] in rising order: `per_class` of each class (and drawn trick) of the first replicate there.

    Spread evenly over the set's order, so that every domain and every part of a merged set has its turn; of many classes
    some (see `shown`).
    """
    first, label, trick = (rows[name].to_numpy() for name in ("replicate", "label", "trick"))
    found = []
    for name in np.unique(trick) if by_trick else [None]:
        for number in shown(len(shard_classes(rows))):
            mine = np.flatnonzero((first == first.min()) & (label == number) & ((trick == name) | (name is None)))
            found.append(mine[np.linspace(0, len(mine) - 1, min(per_class, len(mine))).round().astype(int)])
    return np.sort(np.concatenate(found))


def grid_row(images: SyntheticSet) -> list[np.ndarray]:
    """A row of the grid: the images of each class shown, uint8 [k, 3, H, W]."""
    labels = images.labels.numpy()
    return [images.images.numpy()[labels == number] for number in shown(len(images.classes))]


def column_names(images: SyntheticSet) -> list[str]:
    """The classes that have a column."""
    return [images.classes[number] for number in shown(len(images.classes))]


def shown(classes: int) -> list[int]:
    """Numbers of the classes that have a column."""
    return np.linspace(0, classes - 1, min(MOST_COLUMNS, classes)).round().astype(int).tolist()


@dataclass
class SampleGrid:
    """F1 of one data set. Rows are tricks, columns classes; images[row][column] uint8 [k, 3, H, W]."""

    rows: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    images: list[list[np.ndarray]] = field(default_factory=list)


def sample_grids(folders: Sequence[str], per_class: int) -> dict[str, SampleGrid]:
    """F1 from 01_generate folders: a grid for each data set, of images of the first replicate."""
    grids: dict[str, SampleGrid] = {}
    for folder in folders:
        condition = read_receipt(folder)["parameters"]
        grid = grids.setdefault(condition["dataset"], SampleGrid())
        images = read_shards(folder, partial(spread_rows, per_class=per_class))
        grid.columns = column_names(images)
        grid.rows.append(trick_label(condition["trick"]))
        grid.images.append(grid_row(images))
    return grids
