"""Data sets: class names and how prompts name them (experiments/datasets/*.yaml), and the real images."""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from synthlib import paths
from synthlib.settings import InputError, choose, read_yaml


@dataclass(frozen=True)
class DatasetSpec:
    """What prompts are made from. `classes` maps a class to its words in a prompt, in the data set's order."""

    name: str
    classes: dict[str, str]
    templates: dict[str, str]
    domains: tuple[str, ...]


def read_spec(dataset: str, classes: list[str] = (), domains: list[str] = ()) -> DatasetSpec:
    """A data set by name, or a part of it: the `classes` and `domains` given, else all.

    The data set "own" takes any class and domain; underscores in a class become spaces in its prompt, as in the
    authors' create_dataset.py. Raises InputError for an unknown data set, class or domain, and for an empty class list.
    """
    files = paths.dataset_files()
    content = read_yaml(files[choose("data set", dataset, files)])
    known = {str(name): str(words) for name, words in content["classes"].items()}
    if known:
        chosen = {name: known[choose("class", name, known)] for name in classes or known}
        for domain in domains:
            choose("domain", domain, content["domains"])
    else:
        chosen = {name: name.replace("_", " ") for name in classes}
    if not chosen:
        raise InputError(f"the class list of data set {dataset!r} is empty; expected at least one class name.")
    if not all(name.strip() and "/" not in name and not name.startswith(".") for name in chosen):
        raise InputError(f"class names {list(chosen)} cannot all name a folder; expected words without slashes.")
    return DatasetSpec(dataset, chosen, dict(content["templates"]), tuple(domains or content["domains"]))


@dataclass(frozen=True)
class ImageSet:
    """Images uint8 [N, 3, H, W], labels int64 [N] into `classes`, and an id for each image."""

    images: torch.Tensor
    labels: torch.Tensor
    classes: list[str]
    ids: list[str]


def load_real(dataset: str, split: str) -> ImageSet:
    """The real images of a data set. `split` is "test" (every accuracy) or "pool" (references; never tested on)."""
    readers = {"digits": _load_digits}
    return readers[choose("data set with real images", dataset, readers)](choose("split", split, ("pool", "test")))


DIGITS_POOL = 600  # of 1,797; the other 1,197 are the test set (design.md)
DIGITS_MARGIN = 2  # pixels of paper around an 8 x 8 digit drawn 28 px wide; chosen once, by eye


@functools.cache
def _load_digits(split: str) -> ImageSet:
    """scikit-learn's digits (half of UCI's Optical Recognition of Handwritten Digits), dark ink on white, 32 x 32 RGB.

    The files are 8 x 8 with ink from 0 to 16: drawn at 28 x 28 (bicubic) on a 32 x 32 sheet. Split once by index, by a
    fixed permutation, so that writers and classes mix: the first 600 are the pool, the rest the test set.
    """
    # What sklearn.datasets.load_digits reads, without the two seconds that importing it takes in each of many notebooks.
    folder = Path(importlib.util.find_spec("sklearn").submodule_search_locations[0])
    digits = np.loadtxt(folder / "datasets" / "data" / "digits.csv.gz", delimiter=",", dtype=np.uint8)
    order = np.random.default_rng(1797).permutation(len(digits))
    order = order[:DIGITS_POOL] if split == "pool" else order[DIGITS_POOL:]
    ink = torch.from_numpy(digits[order, :64].reshape(-1, 1, 8, 8)).float() / 16
    ink = torch.nn.functional.interpolate(ink, size=28, mode="bicubic", align_corners=False).clamp(0, 1)
    ink = torch.nn.functional.pad(ink, [DIGITS_MARGIN] * 4)
    images = (255 * (1 - ink)).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    classes = list(read_spec("digits").classes)
    return ImageSet(images, torch.from_numpy(digits[order, 64]).long(), classes, [f"digits-{i:04d}" for i in order])
