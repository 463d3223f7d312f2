"""Import: labelled images that others made -> a set of shards to train on, whose prompts nobody knows."""

import io
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from synthlib import digests, paths, receipts
from synthlib.data.datasets import DatasetSpec, read_spec
from synthlib.data.shards import encode_png, shard_bytes
from synthlib.data.sources import Item, Source
from synthlib.progress import progress
from synthlib.settings import InputError, condition_name

SHARD_ROWS = 1000
PLAN_FILE = "import.json"  # says whose shards a folder holds, also after an interruption
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")
CODE = ("data.imports", "data.sources", "data.archives", "data.shards")  # what decides the shards of an import


class Picture(NamedTuple):
    """An image as a shard keeps it: PNG or JPEG bytes of RGB pixels; converted, and from what, if it was not that before."""

    data: bytes
    size: tuple[int, int]
    pixels_sha256: str
    converted: str


def import_set(
    source: Source,
    run_dir: str | Path,
    dataset: str = "own",
    trick: str = "unknown",
    size: int = 0,
    origin: dict[str, Any] | None = None,
    made_by: str = "import",
) -> list[Path]:
    """Write a source's images as shards and a receipt into `run_dir`; return the shards.

    dataset: whose classes these are, matched by name ("own": the source's own); size: crop and resize to size x size, 0 keeps
    images as they are, PNG and JPEG byte for byte. Rows have no prompt, guidance or seed, but those of our own sets keep
    theirs. origin: what the receipt shall say of where it came from; made_by: the command.

    InputError for classes that do not match, for images that differ in size or cannot be read, and where `run_dir` holds
    another set.
    """
    spec = read_spec(dataset, source.classes if dataset == "own" else [])
    known = match_classes(source.classes, list(spec.classes), source.name, dataset)
    folder = paths.resolve(run_dir)
    parameters = {"run_dir": str(run_dir), "dataset": dataset, "classes": source.classes if dataset == "own" else []}
    parameters |= {"trick": condition_name(trick), "size": size, "origin": origin or {"name": source.name}}
    lock, started = receipts.claim_folder(folder), time.time()
    if any(folder.glob("*.parquet")) and receipts.read_json(folder / PLAN_FILE) != parameters:
        lock.release()
        raise InputError(f"{run_dir} holds another set's shards; give another folder, or delete that one.")
    receipts.write_json(folder / PLAN_FILE, parameters)
    (folder / receipts.RECEIPT).unlink(missing_ok=True)
    files: list[Path] = []
    try:
        rows = _new_rows(source, spec, known, trick) if source.rows is None else _own_rows(source, spec, known)
        pictures = _pictures(rows["item"].to_pylist(), source, size)
        rows = rows.drop_columns(["item"])
        converted: list[str] = []
        for first in range(0, len(rows), SHARD_ROWS):
            few = list(itertools.islice(pictures, SHARD_ROWS))
            part = rows.slice(first, len(few)).append_column("pixels_sha256", pa.array([p.pixels_sha256 for p in few]))
            converted += [picture.converted for picture in few if picture.converted]
            files.append(folder / f"shard-{len(files):05d}.parquet")
            receipts.write_atomic(files[-1], shard_bytes(part, [p.data for p in few], list(spec.classes)))
    except BaseException:  # what is not whole does not count
        for path in (*files, folder / PLAN_FILE):
            path.unlink(missing_ok=True)
        lock.release()
        raise
    for path in set(folder.glob("*.parquet")) - set(files):  # of the same source when it had more images
        path.unlink()
    for kind in sorted(set(converted)):
        print(f"{converted.count(kind)} images {kind}.")
    inputs = {"dataset": receipts.dataset_digest(dataset)}
    receipts.Step(made_by, folder, parameters, inputs, code_digest(), started, lock).finish(files)
    return files


def code_digest() -> str:
    """Digest of the code that decides what an import's shards hold."""
    return digests.sha256_json({name: digests.module_digest(f"synthlib.{name}") for name in CODE})


def match_classes(found: list[str], known: list[str], name: str, dataset: str) -> dict[str, str]:
    """Class names of a source -> a data set's, which may differ in case, spaces and signs (the authors' EuroSAT differs so).

    InputError, with both lists, unless it is one to one.
    """

    def plain(names: list[str]) -> dict[str, str]:
        return {re.sub(r"[\W_]", "", class_name).casefold(): class_name for class_name in names}

    theirs, ours = plain(found), plain(known)
    if len(theirs) < len(found) or set(theirs) != set(ours):
        more = [theirs[key] for key in theirs if key not in ours]
        less = [ours[key] for key in ours if key not in theirs]
        raise InputError(
            f"{name} has {len(found)} classes, {dataset} has {len(known)}; only there: {_few(more)}; missing there: "
            f"{_few(less)}. Expected the same names: rename its folders, or name the data set that it is of."
        )
    return {theirs[key]: ours[key] for key in theirs}


def _few(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or "none"


def _pictures(order: list[int], source: Source, size: int) -> Iterator[Picture]:
    """The images of a source's items in some order, all of one size."""
    first: tuple[Item, Picture] | None = None
    for item in progress([source.items[place] for place in order], source.name, unit="image"):
        picture = read_picture(item.read(), f"{item.file} of {source.name}", size)
        first = first or (item, picture)
        if picture.size != first[1].size:
            sizes = [f"{p.size[0]} x {p.size[1]} ({i.file})" for i, p in (first, (item, picture))]
            raise InputError(
                f"{source.name} has images of {sizes[0]} and of {sizes[1]}; expected one size: give --size, which crops to "
                "a square in the middle and resizes."
            )
        yield picture


def read_picture(data: bytes, name: str, size: int = 0) -> Picture:
    """Check one encoded image and make it RGB: PNG and JPEG of RGB keep their bytes, all else becomes PNG without alpha.

    torchvision's ImageFolder drops alpha in the same way. InputError where it cannot be decoded whole.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            mode = f"{image.mode} with transparent pixels" if _see_through(image) else image.mode
            rgb = image.convert("RGB")
            kept = image.mode == "RGB" and "transparency" not in image.info and image.format in ("PNG", "JPEG")
            converted = "" if kept else f"were {image.format} {mode} and became PNG RGB"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{name} is no whole image ({str(error)[:80]}); expected {', '.join(FORMATS)}: remove or mend it."
        )
    if size:
        converted = f"were cropped and resized to {size} x {size}" if rgb.size != (size, size) else converted
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.BICUBIC) if rgb.size != (size, size) else rgb
    pixels = np.asarray(rgb)
    return Picture(
        encode_png(pixels) if converted else data, rgb.size, digests.sha256_bytes(pixels.tobytes()), converted
    )


def _see_through(image: Image.Image) -> bool:
    return image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255


def _new_rows(source: Source, spec: DatasetSpec, known: dict[str, str], trick: str) -> pa.Table:
    """Rows for images of which only the class is known, class by class: what is not known is null.

    Column item: the image's place among the source's items.
    """
    labels = np.array([list(spec.classes).index(known[item.class_name]) for item in source.items])
    order = np.argsort(labels, kind="stable")
    labels = labels[order]
    index = np.arange(len(labels)) - np.searchsorted(labels, labels)  # the images of a class lie together
    names, n = [list(spec.classes)[label] for label in labels], len(labels)
    stem = re.sub(r"\W+", "-", source.name)
    columns = {
        "image_id": [f"{stem}-{name}-{i:06d}".replace(" ", "_") for name, i in zip(names, index, strict=True)],
        "label": pa.array(labels, pa.int64()),
        "class": names,
        "prompt": pa.nulls(n, pa.string()),
        "domain": pa.nulls(n, pa.string()),
        "trick": [condition_name(trick)] * n,
        "guidance_scale": pa.nulls(n, pa.float32()),
        "seed": pa.nulls(n, pa.uint64()),
        "replicate": pa.array(np.zeros(n, np.int64)),
        "index": pa.array(index, pa.int64()),
        "flagged": pa.nulls(n, pa.bool_()),
        "file": [source.items[place].file for place in order],
        "item": pa.array(order),
    }
    return pa.table(columns)


def _own_rows(source: Source, spec: DatasetSpec, known: dict[str, str]) -> pa.Table:
    """The rows of a set of our own that comes back, as they were, with labels by today's class names; and column item."""
    names = [known[item.class_name] for item in source.items]
    rows = source.rows.drop_columns(["pixels_sha256"])
    rows = rows.set_column(rows.column_names.index("class"), "class", pa.array(names))
    labels = pa.array([list(spec.classes).index(name) for name in names], pa.int64())
    rows = rows.set_column(rows.column_names.index("label"), "label", labels)
    return rows.append_column("item", pa.array(range(len(names))))
