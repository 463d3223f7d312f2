"""Gallery: images for the page, as data. Real and synthetic ones by class and trick, and one classifier's mistakes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from synthlib import paths, receipts
from synthlib.data.classes import alike
from synthlib.data.sets import ImageSet, SyntheticSet
from synthlib.data.shards import encode_png, load_shards, set_files, shard_classes
from synthlib.evaluation.evaluate import Logits, load_logits
from synthlib.evaluation.replicates import ORIGINS, load_test_images
from synthlib.files import read_json
from synthlib.inputs import InputError
from synthlib.page.cards import data_uri
from synthlib.results import MODE_LABELS, trick_label
from synthlib.results.samples import shown

LONGEST = 128  # pixels of a picture's longer side: hundreds of them lie in one file
LAST_LOGITS = "logits-r"  # how files of last checkpoints begin; logits-best- were chosen on the test set
REAL = "real"
Receipts = dict[str, dict[str, Any]]  # folder -> its receipt


@dataclass(frozen=True)
class Picture:
    """One image with what made it; prompt "", guidance and seed None where there is none."""

    src: str  # data URI of a PNG
    alt: str  # words for who cannot see it
    prompt: str
    guidance: float | None
    seed: int | None
    name: str  # image_id of a drawn one, of a real one its id in the ImageSet


@dataclass(frozen=True)
class ClassRow:
    """A class of a gallery: a cell for each column, empty where that set has no image of the class."""

    class_name: str
    cells: list[list[Picture]]


@dataclass(frozen=True)
class Gallery:
    """Images of one data set. columns: "real" where such could be read, then the tricks; rows: at most ten classes."""

    dataset: str
    columns: list[str]
    rows: list[ClassRow]
    n_classes: int
    remark: str  # what is missing and why; "" where nothing is


@dataclass(frozen=True)
class Mistake:
    """A test image taken for another class; the softmax of the predicted and of the true class, in percent."""

    picture: Picture
    true: str
    predicted: str
    confidence_percent: float
    true_percent: float


@dataclass(frozen=True)
class Mistakes:
    """One classifier's mistakes: `most` confident first in the one list, `least` confident first in the other."""

    dataset: str
    classifier: str
    n_mistakes: int
    n_test: int
    most: list[Mistake]
    least: list[Mistake]
    folder: str
    remark: str


# --- galleries --------------------------------------------------------------------------------------------------------


def galleries(generated_dirs: Sequence[str], evaluated_dirs: Sequence[str], per_cell: int = 2) -> list[Gallery]:
    """A gallery of each data set in `generated_dirs`, in the order met: `per_cell` images of each class and column.

    Drawn images are of the first replicate, real ones what the first readable folder of `evaluated_dirs` tests on.
    Classes are those of the data set's first readable set, at most ten; other sets are matched by class name.

    Raises nothing for what is missing or damaged: it has no column, and the remark says why. A folder without a receipt
    names no data set: the first gallery tells of it or, where there is none, one without a data set.
    """
    drawn, tested = _by_dataset(generated_dirs), _by_dataset(evaluated_dirs)
    finished = {folder for mine in drawn.values() for folder in mine}
    found = [_gallery(dataset, mine, tested.get(dataset, {}), per_cell) for dataset, mine in drawn.items()]
    lost = [f"not shown: {folder}, where no run is finished" for folder in generated_dirs if folder not in finished]
    if lost:
        first = found[0] if found else Gallery("", [], [], 0, "")
        found[:1] = [replace(first, remark="; ".join(filter(None, [first.remark, *lost])))]
    return found


def _gallery(dataset: str, drawn: Receipts, tested: Iterable[str], per_cell: int) -> Gallery:
    columns: dict[str, dict[str, list[Picture]]] = {}  # of each column its class name -> pictures
    classes, remarks = [], []
    for folder, receipt in drawn.items():
        label, name = trick_label(receipt["parameters"]["trick"]), Path(folder).name
        if label in columns:  # also of another guidance, or hosted
            label = f"{label}, {name.partition('+')[2] or name}"
        try:
            choose = partial(_choose_rows, per_cell=per_cell, names=_names(classes))
            images = load_shards(set_files(paths.resolve(folder)), choose)  # which leaves receipts alone
        except InputError as error:
            remarks.append(f"{label} is not shown: {_why(error)}")
            continue
        classes = classes or images.classes
        columns[label] = _by_class(images, classes, label, ORIGINS.get(receipt["notebook"], "imported"))
    real, why = _test_images(dataset, tested)
    if real is None:
        remarks.insert(0, f"real images are not shown: {why}")
    else:
        classes = classes or real.classes
        columns = {REAL: _real_by_class(real, _names(classes), per_cell)} | columns
    names = _names(classes)
    if len(names) < len(classes):
        remarks.insert(0, f"{len(names)} of {len(classes)} classes")
    rows = [ClassRow(name, [cells.get(name, []) for cells in columns.values()]) for name in names]
    return Gallery(dataset, list(columns), rows, len(classes), "; ".join(remarks))


def _names(classes: Sequence[str]) -> list[str]:
    """The class names that have a row; none where classes are not known yet."""
    return [classes[number] for number in shown(len(classes))] if classes else []


def _choose_rows(rows: pa.Table, per_cell: int, names: Sequence[str]) -> np.ndarray:
    """Which rows to show, int [k] in rising order: as `samples.spread_rows`, but of the classes `names`.

    By name, because class lists of a data set's sets may differ; no names: its own. InputError: it has none of them.
    """
    classes, label = shard_classes(rows), rows["label"].to_numpy()
    wanted = [classes.index(mine) for name in names or _names(classes) if (mine := alike(name, classes))]
    first = rows["replicate"].to_numpy() == 0
    found = [_spread(np.flatnonzero(first & (label == number)), per_cell) for number in wanted]
    if not sum(map(len, found)):
        raise InputError("its first replicate has none of the classes shown; draw it for these classes.")
    return np.sort(np.concatenate(found))


def _spread(places: np.ndarray, most: int) -> np.ndarray:
    """At most so many of `places`, int [N], spread evenly, the first among them."""
    return places[np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int)]


def _by_class(images: SyntheticSet, classes: list[str], label: str, origin: str) -> dict[str, list[Picture]]:
    """Class name, as `classes` has it -> pictures of a synthetic set, with prompt, guidance and seed of their own rows."""
    table, nothing = images.rows, [None] * len(images.rows)
    names = ("image_id", "prompt", "guidance_scale", "seed")
    values = (table[name].to_pylist() if name in table.column_names else nothing for name in names)
    found: dict[str, list[Picture]] = {}
    for pixels, number, name, prompt, guidance, seed in zip(images.images, images.labels, *values, strict=True):
        class_name = images.classes[number]
        alt = f"{origin}: {class_name}, {label}" + (f", prompt '{prompt}'" if prompt else "")
        guidance = None if guidance is None else round(guidance, 4)  # a float32: 2.3 would print as 2.2999999523
        found.setdefault(alike(class_name, classes) or class_name, []).append(
            Picture(_src(pixels), alt, prompt or "", guidance, seed, name or "")
        )
    return found


def _real_by_class(real: ImageSet, names: Sequence[str], per_cell: int) -> dict[str, list[Picture]]:
    """Class name -> pictures of real images; a class that they do not have is left out."""
    labels = real.labels.numpy()
    theirs = {name: alike(name, real.classes) for name in names}
    places = {name: np.flatnonzero(labels == real.classes.index(found)) for name, found in theirs.items() if found}
    return {name: [_real(real, place) for place in _spread(mine, per_cell)] for name, mine in places.items()}


def _real(real: ImageSet, place: int) -> Picture:
    alt = f"{REAL}: {real.classes[real.labels[place]]}"
    return Picture(_src(real.images[place]), alt, "", None, None, real.ids[place])


def _src(pixels: torch.Tensor) -> str:
    """Pixels uint8 [3, H, W] as the data URI of a PNG: lossless, but scaled down to LONGEST where they are larger."""
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)  # never larger
    return data_uri(encode_png(np.asarray(image)), "picture.png")


# --- mistakes ---------------------------------------------------------------------------------------------------------


def mistakes(evaluated_dirs: Sequence[str], n: int = 10) -> list[Mistakes]:
    """The n most and the n least confident mistakes of one classifier of each data set, in the order met.

    Of a data set's finished folders the first of merged without a setting, else the first; of it the first replicate,
    in `eval` mode. Ties go by the order of the test set. Raises nothing for what is missing or damaged: the lists are
    empty, and the remark says why.
    """
    found = []
    for mine in _by_dataset(evaluated_dirs).values():
        given = {folder: receipt["parameters"] for folder, receipt in mine.items()}
        merged = (name for name, its in given.items() if its["trick"] == "merged" and not its.get("setting"))
        folder = next(merged, next(iter(given)))
        found.append(_mistakes_of(folder, given[folder], n))
    return found


def _mistakes_of(folder: str, given: dict[str, Any], n: int) -> Mistakes:
    who = ", ".join(filter(None, [trick_label(given["trick"]), given.get("setting"), given["architecture"]]))
    nothing = Mistakes(given["dataset"], who, 0, 0, [], [], folder, "")
    try:
        number, logits, classes = _read_logits(folder)
    except InputError as error:
        return replace(nothing, remark=f"mistakes are not shown: {_why(error)}")
    values, labels = logits.eval.numpy(), logits.labels.numpy()
    predicted = values.argmax(axis=1)  # as the accuracies count
    wrong = np.flatnonzero(predicted != labels)
    who = f"{who}, replicate {number}, {MODE_LABELS['eval']}"
    counted = replace(nothing, classifier=who, n_mistakes=len(wrong), n_test=len(labels))
    if not len(wrong):
        return replace(counted, remark=f"none of {len(labels)} test images was taken for another class")
    real, why = _test_images(given["dataset"], [folder])
    if real is None:
        return replace(counted, remark=f"mistakes are not shown: {why}")
    if not np.array_equal(real.labels.numpy(), labels):
        there = f"{len(real.labels)} real images are there, and they are not the {len(labels)} that were tested"
        return replace(counted, remark=f"mistakes are not shown: {there}")
    percent = 100 * torch.softmax(logits.eval.double(), dim=1).numpy()
    confidence = percent[wrong, predicted[wrong]]

    def mistake(place: int) -> Mistake:
        true, taken = labels[place], predicted[place]
        shares = float(percent[place, taken]), float(percent[place, true])
        return Mistake(_real(real, place), classes[true], classes[taken], *shares)

    most, least = (wrong[np.argsort(key, kind="stable")][:n] for key in (-confidence, confidence))
    return replace(counted, most=[mistake(place) for place in most], least=[mistake(place) for place in least])


def _read_logits(folder: str) -> tuple[str, Logits, list[str]]:
    """The first replicate's number and logits, and the class names. InputError: there are none, or damaged ones."""
    names = [name for name in receipts.output_names(folder, ".safetensors") if name.startswith(LAST_LOGITS)]
    if not names:
        raise InputError(f"{folder} has no logits of a last checkpoint; expected {LAST_LOGITS}0: run 03_eval again.")
    _require_whole(folder, names[0], "classes.json")
    number = Path(names[0]).stem.removeprefix(LAST_LOGITS)
    classes = read_json(paths.resolve(folder) / "classes.json")
    return number, load_logits(paths.resolve(folder) / names[0]), classes


def _require_whole(folder: str, *names: str) -> None:
    """InputError for an output that is missing or damaged; unlike receipts.read_output it leaves the receipt: we only look."""
    for name in names:
        if not receipts.is_whole(folder, name):
            raise InputError(f"{folder}/{name} is missing or damaged; make it again.")


# --- what both read ---------------------------------------------------------------------------------------------------


def _by_dataset(folders: Iterable[str]) -> dict[str, Receipts]:
    """The receipts of finished runs, each folder once, in the order met; data set -> folder -> receipt."""
    found: dict[str, Receipts] = {}
    for folder in folders:
        receipt = receipts.read_receipt(folder) or {}
        if dataset := receipt.get("parameters", {}).get("dataset"):
            found.setdefault(dataset, {})[folder] = receipt
    return found


def _test_images(dataset: str, evaluated_dirs: Iterable[str]) -> tuple[ImageSet | None, str]:
    """The images that the first folder whose images are there tests on, and ""; or None, and why there are none."""
    why = f"no evaluated condition of {dataset} says which; run notebooks/03_eval.ipynb first"
    for place, folder in enumerate(evaluated_dirs):
        try:
            settings = receipts.settings_of(folder)
            for checkpoint in receipts.output_names(settings.trained_dir, ".safetensors")[:1]:
                _require_whole(settings.trained_dir, checkpoint)  # it says which size the images are tested at
            return load_test_images(settings), ""
        except InputError as error:
            why = why if place else _why(error)
    return None, why


def _why(error: InputError) -> str:
    """An error as a part of a remark: without its full stop, and without where on this machine the project lies."""
    return str(error).removesuffix(".").replace(f"{paths.root()}/", "")
