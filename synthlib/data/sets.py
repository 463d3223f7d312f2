"""Sets: images in memory with their labels: real ones, and drawn ones with the rows that they were drawn from."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from synthlib import digests


@dataclass(frozen=True)
class ImageSet:
    """Images uint8 [N, 3, H, W], labels int64 [N] into `classes`, and an id for each image.

    in_file_order: they stand as in CIFAR's own files, which is the order that the authors' code tests in.
    """

    images: torch.Tensor
    labels: torch.Tensor
    classes: list[str]
    ids: list[str]
    in_file_order: bool = False

    def digest(self) -> str:
        """sha256 of pixels and labels."""
        return digests.sha256_bytes(self.images.numpy().tobytes() + self.labels.numpy().tobytes())


@dataclass(frozen=True)
class SyntheticSet:
    """Images uint8 [N, 3, H, W], labels int64 [N] into `classes`, and `rows`: all other columns of the plan."""

    images: torch.Tensor
    labels: torch.Tensor
    classes: list[str]
    rows: pa.Table

    def column(self, name: str) -> np.ndarray:
        """One column of the plan's rows, [N]."""
        return self.rows[name].to_numpy(zero_copy_only=False)

    @property
    def order(self) -> np.ndarray:
        """In which order images of a class are taken where not all are, int [N]: by index.

        Files of a set that no plan drew may be sorted by prompt, so there it is a fixed shuffle of the index.
        """
        index = self.column("index")
        planned = "seed" not in self.rows.column_names or self.rows["seed"].null_count < len(index)
        return index if planned else index * 2654435761 % 2**32  # Knuth's multiplicative hash

    def part(self, keep: np.ndarray) -> "SyntheticSet":
        """The images for which `keep`, bool [N], is true."""
        index = torch.from_numpy(np.flatnonzero(keep))
        return SyntheticSet(self.images[index], self.labels[index], self.classes, self.rows.filter(pa.array(keep)))

    def replicate(self, number: int, images_per_class: int = 0) -> "SyntheticSet":
        """One replicate; with `images_per_class`, only so many of each class: lowest indices first, so parts stay in balance."""
        chosen = self.column("replicate") == number
        if images_per_class:
            labels, order = self.labels.numpy(), self.order
            for label in range(len(self.classes)):
                mine = np.flatnonzero(chosen & (labels == label))
                chosen[mine[np.argsort(order[mine], kind="stable")][images_per_class:]] = False
        return self.part(chosen)
