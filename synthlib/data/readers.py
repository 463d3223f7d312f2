"""Readers: real images as others keep them: torchvision's CIFAR, EuroSAT by its file names, folders of splits, any sizes."""

import contextlib
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps

from synthlib import digests
from synthlib.data.archives import SourceError
from synthlib.data.classes import plain_name
from synthlib.data.imports import FORMATS, read_picture
from synthlib.data.shards import as_rgb
from synthlib.data.sources import SPLITS as SPLIT_FOLDERS
from synthlib.data.sources import Item
from synthlib.files import read_json
from synthlib.inputs import InputError, parameter
from synthlib.progress import progress

POOL_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "eval", "evaluation", "val", "valid", "validation", "dev")  # the first that is there
EUROSAT_IMAGES = 27_000
EUROSAT_POOL = 2**64 // 5  # of 2**64: a fifth


def hash64(text: str) -> int:
    """The first 8 bytes of a text's sha256, as a big-endian number."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


# --- CIFAR, as torchvision keeps it -----------------------------------------------------------------------------------


def _cifar_kind(dataset: str) -> type:
    import torchvision.datasets  # takes seconds, that digits need not wait for

    return getattr(torchvision.datasets, dataset.upper())


def cifar_folder(dataset: str) -> str:
    """The name of the folder that holds CIFAR's batches, e.g. cifar-10-batches-py."""
    return _cifar_kind(dataset).base_folder


def cifar_files(dataset: str, folder: Path) -> list[tuple[Path, str]]:
    """The files that torchvision reads of CIFAR below `folder`, each with its md5."""
    kind = _cifar_kind(dataset)
    files = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    return [(folder / kind.base_folder / name, md5) for name, md5 in files]


def read_cifar(dataset: str, train: bool, folder: Path) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """One split of CIFAR in torchvision's files: images uint8 [N, 3, 32, 32], labels int64 [N], and the class names.

    InputError for a file that is missing or whose md5 is another, by its name, and for labels out of range.
    """
    advice = f"run `synthlib download {dataset}`, or give its folder as {parameter('real_dir')}"
    for path, md5 in cifar_files(dataset, folder):  # torchvision would not say which of them
        if not path.is_file():
            raise InputError(f"{dataset} lacks its file {path}; expected it with md5 {md5}: {advice}.")
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
        except OSError as error:
            raise InputError(f"cannot read {path} of {dataset}: {error.strerror}; mend that, or {advice}.")
        if found != md5:
            raise InputError(f"{path} of {dataset} is damaged, its md5 is {found}; expected {md5}: {advice}.")
    data = _cifar_kind(dataset)(folder, train=train)
    labels, classes = torch.tensor(data.targets, dtype=torch.int64), list(data.classes)
    if len(labels) != len(data.data) or labels.min() < 0 or labels.max() >= len(classes):
        raise InputError(
            f"{dataset} in {folder} has {len(data.data)} images and {len(labels)} labels from {labels.min()} to {labels.max()}; "
            f"expected a label for each, 0 to {len(classes) - 1}: {advice}."
        )
    return torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))), labels, classes


# --- CIFAR, as the hub has it -----------------------------------------------------------------------------------------

COPY, ORIGIN = "hub", "origin.json"  # the folder that `synthlib download` puts it into, with where it is from


def check_copy(folder: Path, dataset: str) -> None:
    """InputError, by its name, for a file of the hub's copy that is not as it came: the sha256 is in the folder's ORIGIN."""
    known = read_json(folder / ORIGIN)
    files = known.get("sha256") if isinstance(known, dict) else None
    if not isinstance(files, dict) or not files:
        raise InputError(f"{folder / ORIGIN} does not say what {dataset} is; run `synthlib download {dataset}`.")
    for name, sha256 in files.items():
        if not (folder / name).is_file() or digests.sha256_large_file(folder / name) != sha256:
            raise InputError(
                f"{folder / name} of {dataset} is damaged or gone; expected sha256 {sha256}: run `synthlib download {dataset}`."
            )


# --- folders of splits, EuroSAT's names -------------------------------------------------------------------------------


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, but for hidden things and macOS's leftovers."""
    return [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]


def split_folders(place: Path) -> dict[str, Path]:
    """Where "pool" and "test" lie in a folder whose sub-folders are all named after splits; empty for any other place."""
    if not place.is_dir():
        return {}
    below = {path.name.lower(): path for path in visible(place) if path.is_dir()}
    if not below or not set(below) <= SPLIT_FOLDERS:
        return {}
    roles = {"pool": POOL_FOLDERS, "test": TEST_FOLDERS}
    found = {role: next((below[name] for name in names if name in below), None) for role, names in roles.items()}
    return {role: path for role, path in found.items() if path}


def in_eurosat_pool(name: str) -> bool:
    """Whether an image of EuroSAT is in our pool, by its name, such as "AnnualCrop/AnnualCrop_12.jpg", and by nothing else.

    It is if the first 8 bytes of sha256("eurosat pool " + name), read as a big-endian number, are below 2**64 / 5. So a part of
    EuroSAT has the same members as the whole, which has 5,422 of 27,000 in the pool, 18.8 to 21.1 % of a class.
    """
    return hash64(f"eurosat pool {name}") < EUROSAT_POOL


def eurosat_split(
    items: list[Item], classes: list[str], split: str, place: Path
) -> tuple[list[Item], list[str] | None]:
    """The images of a split of EuroSAT, and their names, such as AnnualCrop_12, or None where files are named otherwise.

    items: of one source, with `classes` as our YAML names them; a file may have another suffix, it is the same image. SourceError
    for "pool" and "rest" without names to tell them by, and for a name that is there twice.
    """
    names = [_eurosat_name(item, class_name) for item, class_name in zip(items, classes, strict=True)]
    if len(items) != EUROSAT_IMAGES and len(set(classes)) == 10:
        print(f"{place} holds {len(items)} of EuroSAT's {EUROSAT_IMAGES} images.")
    strange = [item.file for item, name in zip(items, names, strict=True) if not name]
    if strange and split != "test":
        raise SourceError(
            f"{place} has no {split!r} of eurosat, which goes by names such as AnnualCrop_12.jpg, but {strange[0]!r} is none; "
            "expected EuroSAT's own class folders: run `synthlib download eurosat`, or ask for the split 'test'."
        )
    if strange:
        return items, None
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SourceError(f"{place} has {twice[0]} twice; expected each image of EuroSAT once: remove one of them.")
    pool = [in_eurosat_pool(f"{class_name}/{name}.jpg") for class_name, name in zip(classes, names, strict=True)]
    kept = [i for i in range(len(items)) if split == "test" or pool[i] == (split == "pool")]
    return [items[i] for i in kept], [names[i] for i in kept]


def _eurosat_name(item: Item, class_name: str) -> str:
    """The name that EuroSAT gives an image, without its suffix; empty where a file is named otherwise."""
    theirs, _, number = PurePosixPath(item.file).stem.rpartition("_")
    known = plain_name(class_name), plain_name(item.class_name)  # ours and the folder's: SeaLake in a folder Sea
    named = plain_name(theirs) in known and re.fullmatch("[0-9]{1,9}", number)
    return f"{class_name}_{int(number)}" if named else ""


# --- pixels -----------------------------------------------------------------------------------------------------------


def decode_items(items: list[Item], place: Path, what: str, image_size: int) -> torch.Tensor:
    """Pixels of at least one item, upright, uint8 [N, 3, H, W]; see `real.load_real` for their size. what: shown meanwhile.

    A line is printed where they are cropped and resized. SourceError for an image that cannot be read whole, and for several
    sizes where image_size is 0.
    """
    pictures = _pictures(items, place, what)
    first = next(pictures)
    if fitted := first.width != first.height:  # networks see squares
        if not image_size:
            raise SourceError(
                f"{place} has images of {_size(first)} ({items[0].file}); expected squares: give {parameter('image_size')}, to "
                "which each is cropped and resized."
            )
        first = _fit(first, image_size)
    pixels = np.empty((len(items), 3, first.height, first.width), np.uint8)
    pixels[0] = _channels(first)
    for number, image in enumerate(pictures, 1):
        if image.size != first.size and not fitted:
            if not image_size:
                sizes = f"{_size(first)} ({items[0].file}) and of {_size(image)} ({items[number].file})"
                raise SourceError(
                    f"{place} has images of {sizes}; expected one size: give {parameter('image_size')}, to which each is "
                    "cropped and resized."
                )
            before, fitted = pixels[:number], True
            pixels = np.empty((len(items), 3, image_size, image_size), np.uint8)
            for earlier, kept in enumerate(before):
                pixels[earlier] = _channels(_fit(Image.fromarray(kept.transpose(1, 2, 0)), image_size))
        pixels[number] = _channels(_fit(image, image_size) if fitted else image)
    if fitted:
        print(
            f"{place}: images are not all squares of one size; each is cropped to a square in the middle and resized to "
            f"{image_size} x {image_size}."
        )
    return torch.from_numpy(pixels)


def _pictures(items: list[Item], place: Path, what: str) -> Iterator[Image.Image]:
    turned = 0
    for item in progress(items, what, unit="image"):
        try:
            data = item.read()
        except OSError as error:
            raise SourceError(f"cannot read {item.file} of {place}: {error.strerror}; mend or remove it.")
        image, was_turned = _decode(data, f"{item.file} of {place}")
        turned += was_turned
        yield image
    if turned:
        print(f"{place}: {turned} images were turned upright (EXIF orientation).")


def _decode(data: bytes, name: str) -> tuple[Image.Image, bool]:
    """An encoded image as RGB, upright, and whether it had to be turned; SourceError where it cannot be decoded whole."""
    # read_picture tells of what is suppressed.
    with contextlib.suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.mode in ("RGB", "L"):
                return as_rgb(image)
    read_picture(data, name)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return as_rgb(image)


def _channels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)


def _fit(image: Image.Image, size: int) -> Image.Image:
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def _size(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"
