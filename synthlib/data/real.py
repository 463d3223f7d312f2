"""Real images: bundled, downloaded or one's own, in splits that keep what is trained on apart from what is tested on."""

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from synthlib import paths, receipts
from synthlib.data import readers
from synthlib.data.classes import choose_class, match_classes
from synthlib.data.datasets import read_spec
from synthlib.data.sets import ImageSet, SyntheticSet
from synthlib.data.sources import open_source
from synthlib.inputs import InputError, choose, parameter
from synthlib.names import CIFAR

SPLITS = ("pool", "test", "rest")
DOWNLOADED = (*CIFAR, "eurosat")


def load_real(
    dataset: str,
    split: str,
    real_dir: str = "",
    classes: Sequence[str] = (),
    image_size: int = 0,
    whose: str = "",
) -> ImageSet:
    """The real images of a data set, or of some of its `classes`, with labels in that order.

    split: "test" is what zero-shot accuracies are tested on; "pool" may be trained on or be a reference, and is never tested
    on; "rest" is test without the pool, for what was trained on the pool.
    - digits: 600 and 1,197; cifar10, cifar100: the training and the test split; rest is test.
    - eurosat: test is all images, pool what `readers.in_eurosat_pool` says by file name, about 20 % of each class.
    - any other: test is all images. A folder of train/ and test/ (or validation/) has the pool in train/.

    real_dir: class folders, an archive of them, a packed .npz, Parquet files, or the folder that torchvision reads; empty: the
    digits that come with scikit-learn, or where `synthlib download` puts the others. A relative path is below the root. "own"
    needs a real_dir, and has its classes.
    image_size: images that differ in size are cropped to a square in the middle and resized to it (bilinear); those of one size
    are kept as they are.
    whose: what the `classes` of one's own are of, such as a checkpoint: named where others are left out, or some are missing.

    InputError for images that were generated here, for what is missing, damaged or undecodable (which file), classes that do
    not match (both lists), a split that cannot be had, and images of several sizes without `image_size`.
    """
    choose("split", split, SPLITS)
    if image_size < 0:
        raise InputError(
            f"{parameter('image_size')} is {image_size}; expected pixels, or 0 to keep images as they are."
        )
    place = _place(dataset, real_dir)
    for made in (place, paths.kept_beside(place)) if real_dir else ():
        if (receipts.read_receipt(made) or {}).get("notebook") == "01_generate":
            raise InputError(
                f"{real_dir} holds images that a text-to-image model drew, as their receipt says; expected real ones: give their "
                f"folder as {parameter('real_dir')}."
            )
    if classes or dataset != "own":
        read_spec(dataset, list(classes))  # refuses unknown data sets and classes before anything is read
    if dataset == "digits" and not real_dir:
        return _chosen(_load_digits("pool" if split == "pool" else "test"), dataset, classes, dataset)
    if place is None:
        raise InputError(
            f"data set {dataset!r} has no real images of its own; expected {parameter('real_dir')}, a folder of class "
            "folders or a packed .npz: give it."
        )
    if dataset in CIFAR and _is_torchvisions(dataset, place, real_dir):
        images, labels, found = readers.read_cifar(dataset, split == "pool", place)
        ids = [f"{dataset}-{'train' if split == 'pool' else 'test'}-{i:05d}" for i in range(len(labels))]
        return _chosen(ImageSet(images, labels, found, ids, True), dataset, classes, f"{dataset} in {place}")
    if dataset in CIFAR and _is_copy(place):
        readers.check_copy(place, dataset)
    return _load_source(dataset, split, place, classes, image_size, whose)


def is_at_hand(dataset: str) -> bool:
    """Whether a data set's real images are there without a real_dir: bundled, or downloaded (whole or not)."""
    place = _place(dataset, "")
    return dataset == "digits" or (place is not None and place.exists())


def real_training_set(
    dataset: str,
    real_dir: str = "",
    classes: Sequence[str] = (),
    images_per_class: int = 0,
    replicates: int = 1,
    seed: int = 0,
    image_size: int = 0,
) -> SyntheticSet:
    """The pool of real images as a training set, with rows of replicate, index (in the class), label, class, image_id.

    images_per_class 0: the whole pool, as the one replicate 0. Otherwise `replicates` draws of so many of each class, without
    replacement within a draw; each comes from its own generator (seed + replicate, class name), so it is the same however many
    replicates or classes are asked for, and fewer images are the first of more. InputError for a class with too few images.
    """
    low = {"images_per_class": (images_per_class, 0), "replicates": (replicates, 1), "seed": (seed, 0)}
    for name, (value, least) in low.items():
        if value < least:
            raise InputError(f"{parameter(name)} is {value}; expected {least} or more: give another.")
    pool = load_real(dataset, "pool", real_dir, classes, image_size)
    members = [np.flatnonzero(pool.labels.numpy() == label) for label in range(len(pool.classes))]
    for name, mine in zip(pool.classes, members, strict=True):
        if len(mine) < max(images_per_class, 1):
            raise InputError(
                f"the pool of {dataset} has {len(mine)} images of {name!r}; expected at least {max(images_per_class, 1)}: ask "
                "for fewer, or give more."
            )
    draws = []
    for number in range(replicates if images_per_class else 1):
        for name, mine in zip(pool.classes, members, strict=True):
            if images_per_class:
                generator = np.random.default_rng([seed + number, readers.hash64(name)])
                mine = generator.permutation(mine)[:images_per_class]
            draws.append((number, mine))
    order = np.concatenate([mine for _, mine in draws])
    labels = pool.labels[torch.from_numpy(order)]
    rows = {
        "image_id": [pool.ids[place] for place in order],
        "label": pa.array(labels.numpy(), pa.int64()),
        "class": [pool.classes[label] for label in labels],
        "replicate": pa.array(np.concatenate([np.full(len(mine), number) for number, mine in draws]), pa.int64()),
        "index": pa.array(np.concatenate([np.arange(len(mine)) for _, mine in draws]), pa.int64()),
    }
    return SyntheticSet(pool.images[torch.from_numpy(order)], labels, pool.classes, pa.table(rows))


def _place(dataset: str, real_dir: str) -> Path | None:
    """Where a data set's real images lie, if they have a place: of EuroSAT the class folders, of CIFAR the hub's copy too."""
    if not real_dir and dataset not in DOWNLOADED:
        return None
    place = paths.resolve(real_dir) if real_dir else paths.data_home() / dataset
    if dataset in CIFAR and place.name in ("cifar-10-batches-py", "cifar-100-python"):
        return place.parent  # torchvision is told of the folder above
    inner = (place / "eurosat" / "2750", place / "2750") if dataset == "eurosat" else ()
    if dataset in CIFAR and _is_copy(place / readers.COPY):
        return place / readers.COPY
    return next((folder for folder in inner if folder.is_dir()), place)


def _is_copy(place: Path) -> bool:
    """Whether a folder is the hub's copy of CIFAR that `synthlib download` put there."""
    return place.name == readers.COPY and (place / readers.ORIGIN).is_file()


def _is_torchvisions(dataset: str, place: Path, real_dir: str) -> bool:
    """Whether CIFAR is looked for in torchvision's files: always, unless the hub's copy is there or a real_dir holds another."""
    if _is_copy(place):
        return False
    if not real_dir or not place.exists():
        return True
    return place.is_dir() and ((place / readers.cifar_folder(dataset)).is_dir() or not readers.visible(place))


def _numbers(
    found: list[str], dataset: str, classes: Sequence[str], name: str, own: list[str], whose: str = ""
) -> tuple[list[str], dict[str, int]]:
    """The classes wanted, and a source's class name -> its number among them. own: those of "own" where none are named."""
    if dataset == "own" and not whose:
        for wanted in classes:
            choose_class(f"class of {name}", wanted, found)
    known = list(read_spec(dataset, list(classes) or (own if dataset == "own" else [])).classes)
    ours = match_classes(found, known, name, whose if dataset == "own" and whose else dataset, part=bool(classes))
    return known, {theirs: known.index(our) for theirs, our in ours.items()}


def _chosen(real: ImageSet, dataset: str, classes: Sequence[str], name: str) -> ImageSet:
    """The images of the classes wanted, with labels by their order."""
    known, numbers = _numbers(real.classes, dataset, classes, name, real.classes)
    if known == real.classes:
        return real
    labels = torch.tensor([numbers.get(class_name, -1) for class_name in real.classes])[real.labels]
    keep = torch.nonzero(labels >= 0).flatten()
    return ImageSet(real.images[keep], labels[keep], known, [real.ids[place] for place in keep], real.in_file_order)


# --- digits -----------------------------------------------------------------------------------------------------------

DIGITS_POOL = 600  # of 1,797; the other 1,197 are the test set (design.md)
DIGITS_MARGIN = 2  # pixels of paper around an 8 x 8 digit drawn 28 px wide; chosen once, by eye


def _digits_file() -> Path:
    folder = Path(importlib.util.find_spec("sklearn").submodule_search_locations[0])
    return folder / "datasets" / "data" / "digits.csv.gz"


@functools.cache
def _load_digits(split: str) -> ImageSet:
    """scikit-learn's digits (half of UCI's Optical Recognition of Handwritten Digits), dark ink on white, 32 x 32 RGB.

    The files are 8 x 8 with ink from 0 to 16: drawn at 28 x 28 (bicubic) on a 32 x 32 sheet. Split once by index, by a
    fixed permutation, so that writers and classes mix: the first 600 are the pool, the rest the test set.
    """
    # What sklearn.datasets.load_digits reads, without the two seconds that importing it takes in each of many notebooks.
    digits = np.loadtxt(_digits_file(), delimiter=",", dtype=np.uint8)
    order = np.random.default_rng(1797).permutation(len(digits))
    order = order[:DIGITS_POOL] if split == "pool" else order[DIGITS_POOL:]
    ink = torch.from_numpy(digits[order, :64].reshape(-1, 1, 8, 8)).float() / 16
    ink = torch.nn.functional.interpolate(ink, size=28, mode="bicubic", align_corners=False).clamp(0, 1)
    ink = torch.nn.functional.pad(ink, [DIGITS_MARGIN] * 4)
    images = (255 * (1 - ink)).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    classes = list(read_spec("digits").classes)
    return ImageSet(images, torch.from_numpy(digits[order, 64]).long(), classes, [f"digits-{i:04d}" for i in order])


# --- folders, archives and packed files -------------------------------------------------------------------------------


def _load_source(
    dataset: str, split: str, place: Path, classes: Sequence[str], image_size: int, whose: str
) -> ImageSet:
    if dataset == "eurosat" and not place.exists():
        raise InputError(
            f"no real images of eurosat in {place}; expected its class folders: run `synthlib download eurosat`, or give "
            f"their folder as {parameter('real_dir')}."
        )
    folders = {} if dataset == "eurosat" else readers.split_folders(place)
    folder = _folder_of("pool" if split == "pool" else "test", place, folders) if dataset != "eurosat" else place
    source = open_source(folder)
    # Pool and test of one's own must agree in their classes, and on their order.
    own = open_source(folders["test"]).classes if dataset == "own" and len(folders) == 2 else source.classes
    known, numbers = _numbers(source.classes, dataset, classes, str(folder), own, whose)
    if whose and (others := [name for name in source.classes if name not in numbers]):
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        print(f"{folder}: images of classes that {whose} does not know are left out: {', '.join(others[:10])}{more}")
    items, names = [item for item in source.items if item.class_name in numbers], None
    if dataset == "eurosat":
        items, names = readers.eurosat_split(items, [known[numbers[i.class_name]] for i in items], split, folder)
    if not items:
        raise InputError(
            f"{folder} holds no image of {', '.join(known[:10])} for split {split!r}; expected some: give "
            f"another {parameter('real_dir')}."
        )
    if names:
        ids = [f"{dataset}-{name}" for name in names]
    elif folder.is_dir() and not source.sequential:
        ids = [f"{folder.name}/{item.file}" if folders else item.file for item in items]
    else:
        ids = [f"{source.name}-{item.file.zfill(5)}" for item in items]
    images = readers.decode_items(items, folder, f"{dataset} {split}", image_size)
    labels = torch.tensor([numbers[item.class_name] for item in items])
    return ImageSet(images, labels, known, ids, dataset in CIFAR and source.sequential)  # Parquet keeps the order


def _folder_of(role: str, place: Path, folders: dict[str, Path]) -> Path:
    """Where the images of a role lie: in its folder of the split, or all over the place if that has no splits."""
    if role in folders or (role == "test" and not folders):
        return folders.get(role, place)
    there = f"only {', '.join(path.name for path in folders.values())}/" if folders else "no train/ beside a test/"
    raise InputError(
        f"{place} has no {role} of real images, it has {there}; expected class folders below train/, which is the pool, and "
        "below test/: make both, or ask for another split."
    )
