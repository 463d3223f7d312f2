"""Samples: which generated images the sample grid (F1) shows."""

from collections.abc import Sequence

import numpy as np

from synthlib.data.shards import SyntheticSet, read_shards
from synthlib.receipts import read_receipt
from synthlib.results import trick_label


def spread_by_class(images: SyntheticSet, per_class: int) -> list[np.ndarray]:
    """For each class, `per_class` images uint8 [k, 3, H, W] spread evenly over the set's order: a row of the sample grid.

    Spread, so that every domain and every part of a merged set has its turn.
    """
    found = []
    for label in range(len(images.classes)):
        mine = np.flatnonzero(images.labels.numpy() == label)
        places = np.linspace(0, len(mine) - 1, min(per_class, len(mine))).round().astype(int)
        found.append(images.images.numpy()[mine[places]])
    return found


def sample_grid(folders: Sequence[str], per_class: int) -> tuple[list[str], list[str], list[list[np.ndarray]]]:
    """F1 from 01_generate folders: row names (tricks), column names (classes), images of the first replicate."""
    names, rows, classes = [], [], []
    for folder in folders:
        images = read_shards(folder)
        classes = images.classes
        rows.append(spread_by_class(images.part(images.column("replicate") == 0), per_class))
        names.append(trick_label(read_receipt(folder)["parameters"]["trick"]))
    return names, classes, rows
