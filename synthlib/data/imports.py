"""Import: labelled images that others made -> a set of shards to train on, whose prompts nobody knows."""

import hashlib
import io
import itertools
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps, UnidentifiedImageError

from synthlib import digests, paths, receipts
from synthlib.data.archives import SourceError
from synthlib.data.classes import match_classes
from synthlib.data.datasets import DatasetSpec, read_spec
from synthlib.data.shards import as_rgb, encode_png, is_file_name, shard_bytes
from synthlib.data.sources import Item, Source
from synthlib.files import RECEIPT, read_json, write_atomic, write_json
from synthlib.inputs import InputError, parameter
from synthlib.names import UNKNOWN, condition_name
from synthlib.progress import progress

SHARD_ROWS = 1000
WHOSE_FILE = "import.json"  # says what set a folder holds, also after an interruption
SIZES = (8, 2048)  # pixels, of what is resized
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")
# What decides the images of an import.
CODE = ("data.imports", "data.sources", "data.archives", "data.classes", "data.shards")


class Picture(NamedTuple):
    """An image as a shard keeps it: PNG or JPEG bytes of RGB pixels, upright.

    converted: from what, if it was not RGB in PNG or JPEG before; turned: whether it lay on its side.
    """

    data: bytes
    size: tuple[int, int]
    pixels_sha256: str
    converted: str
    turned: bool


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

    SourceError for classes that do not match, and for images that differ in size or cannot be read; InputError where `run_dir`
    holds anything but this set. Whatever ends it early leaves what was there before as it was.
    """
    trick, spec = _trick_of(source, trick), read_spec(dataset, source.classes if dataset == "own" else [])
    known = match_classes(source.classes, list(spec.classes), source.name, dataset)
    if size and source.rows is not None:
        raise InputError(
            f"{parameter('size')} is {size}; expected none for {source.name}, whose rows say how its images were made."
        )
    if size and not SIZES[0] <= size <= SIZES[1]:
        raise InputError(
            f"{parameter('size')} is {size}; expected {SIZES[0]} to {SIZES[1]} pixels, or 0 to keep images as they are."
        )
    origin = origin or {"name": source.name}
    parameters = {"run_dir": str(run_dir), "dataset": dataset, "classes": source.classes if dataset == "own" else []}
    parameters |= {"trick": trick, "size": size, "origin": origin}
    folder, started = paths.resolve(run_dir), time.time()
    with receipts.claim_folder(folder) as lock:
        there = any(not path.name.startswith(".") for path in folder.iterdir())
        refusal = InputError(f"{run_dir} holds something else; expected a new or an empty folder, or this very set.")
        if there and not (folder / WHOSE_FILE).exists():
            raise refusal
        staged = folder / ".importing"
        shutil.rmtree(staged, ignore_errors=True)  # of a call that was killed
        try:
            names, content = _write_shards(source, spec, known, trick, size, staged)
            whose = {"made_by": made_by, "name": origin["name"], "dataset": dataset, "trick": trick, "size": size}
            whose |= {} if made_by == "download" else {"images": content}  # a hosted set may be made anew by newer code
            if there and read_json(folder / WHOSE_FILE) != whose:
                raise refusal
            inputs = {"dataset": receipts.dataset_digest(dataset), "images": content}
            if not is_imported(folder, inputs):
                write_json(folder / WHOSE_FILE, whose)
                (folder / RECEIPT).unlink(missing_ok=True)
                for path in folder.glob("*.parquet"):
                    path.unlink()
                for name in names:
                    (staged / name).replace(folder / name)
                step = receipts.Step(made_by, folder, parameters, inputs, code_digest(), started, lock)
                step.finish([folder / name for name in names])
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return [folder / name for name in names]


def is_imported(folder: Path, inputs: dict[str, Any]) -> bool:
    """Whether a folder holds a finished import, whole, of today's code, and made from these `inputs` (some or all of them)."""
    receipt = receipts.read_receipt(folder)
    if not receipt or receipt["code"] != code_digest() or receipt["inputs"] | inputs != receipt["inputs"]:
        return False
    return all(receipts.is_whole(folder, name) for name in receipt["outputs"])


def _trick_of(source: Source, trick: str) -> str:
    """The condition that a source is of: what was said or, of a set of our own that comes back, what its rows say."""
    trick = condition_name(trick)
    drawn = source.rows["trick"].unique().to_pylist() if source.rows is not None else []
    fitting = drawn if len(drawn) == 1 else ["merged", "merged_full"] if drawn else [trick]
    if trick == UNKNOWN and len(drawn) == 1:
        return drawn[0]
    if trick not in fitting:
        raise InputError(
            f"{parameter('trick')} is {trick!r}, but the rows of {source.name} say {', '.join(drawn)}; expected "
            f"{' or '.join(fitting)}."
        )
    return trick


def _write_shards(
    source: Source, spec: DatasetSpec, known: dict[str, str], trick: str, size: int, folder: Path
) -> tuple[list[str], str]:
    """Write a source's shards into a folder; their names, and a digest of all labels and pixels in order."""
    rows = _new_rows(source, spec, known, trick) if source.rows is None else _own_rows(source, spec, known)
    pictures = _pictures(rows["item"].to_pylist(), source, size)
    rows, names, converted, turned, content = rows.drop_columns(["item"]), [], [], 0, hashlib.sha256()
    for first in range(0, len(rows), SHARD_ROWS):
        few = list(itertools.islice(pictures, SHARD_ROWS))
        part = rows.slice(first, len(few)).append_column("pixels_sha256", pa.array([p.pixels_sha256 for p in few]))
        names.append(f"shard-{len(names):05d}.parquet")
        write_atomic(folder / names[-1], shard_bytes(part, [p.data for p in few], list(spec.classes)))
        converted += [picture.converted for picture in few if picture.converted]
        turned += sum(picture.turned for picture in few)
        content.update(digests.sha256_json(part.select(["label", "pixels_sha256"]).to_pydict()).encode())
    if turned:
        print(f"{turned} images were turned upright (EXIF orientation), and became PNG.")
    for kind in sorted(set(converted)):
        print(f"{converted.count(kind)} images {kind}.")
    return names, content.hexdigest()


def code_digest() -> str:
    """Digest of the code that decides what an import's shards hold."""
    return digests.sha256_json({name: digests.module_digest(f"synthlib.{name}") for name in CODE})


def _pictures(order: list[int], source: Source, size: int) -> Iterator[Picture]:
    """The images of a source's items in some order, all of one size."""
    first: tuple[Item, Picture] | None = None
    for item in progress([source.items[place] for place in order], source.name, unit="image"):
        try:
            data = item.read()
        except OSError as error:
            raise SourceError(f"cannot read {item.file} of {source.name}: {error.strerror}; mend or remove it.")
        picture = read_picture(data, f"{item.file} of {source.name}", size)
        first = first or (item, picture)
        if picture.size != first[1].size:
            sizes = [f"{p.size[0]} x {p.size[1]} ({i.file})" for i, p in (first, (item, picture))]
            raise SourceError(
                f"{source.name} has images of {sizes[0]} and of {sizes[1]}; expected one size: give {parameter('size')}, which "
                "crops to a square in the middle and resizes."
            )
        yield picture


def read_picture(data: bytes, name: str, size: int = 0) -> Picture:
    """Check one encoded image and make it RGB and upright: PNG and JPEG that are so keep their bytes, all else becomes PNG.

    Alpha is dropped, as torchvision's ImageFolder does. SourceError where it cannot be decoded whole.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            if image.mode[0] in "IF":
                raise ValueError(f"pixels of more than 8 bits, mode {image.mode}")
            mode = f"{image.mode} with transparent pixels" if _see_through(image) else image.mode
            rgb, turned = as_rgb(image)
            kept = image.mode == "RGB" and "transparency" not in image.info and image.format in ("PNG", "JPEG")
            converted = "" if kept else f"were {image.format} {mode} and became PNG RGB"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = "of no kind that is known" if isinstance(error, UnidentifiedImageError) else str(error)[:80]
        raise SourceError(f"{name} is no whole image ({why}); expected {', '.join(FORMATS)}: remove or mend it.")
    if size:
        cropped = f"were cropped and resized to {size} x {size} PNG" if rgb.size != (size, size) else ""
        converted = ", ".join(filter(None, (converted, cropped)))
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.BICUBIC) if rgb.size != (size, size) else rgb
    pixels = np.asarray(rgb)
    return Picture(
        encode_png(pixels) if converted or turned else data,
        rgb.size,
        digests.sha256_bytes(pixels.tobytes()),
        converted,
        turned,
    )


def _see_through(image: Image.Image) -> bool:
    return image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255


def _new_rows(source: Source, spec: DatasetSpec, known: dict[str, str], trick: str) -> pa.Table:
    """Rows for images of which only the class is known: what is not known is null. Class by class, if the source allows.

    Column item: the image's place among the source's items.
    """
    labels = np.array([list(spec.classes).index(known[item.class_name]) for item in source.items])
    by_class = np.argsort(labels, kind="stable")
    index = np.empty(len(labels), np.int64)  # of each image in its class
    index[by_class] = np.arange(len(labels)) - np.searchsorted(labels[by_class], labels[by_class])
    order = np.arange(len(labels)) if source.sequential else by_class
    labels, index = labels[order], index[order]
    names, n = [list(spec.classes)[label] for label in labels], len(labels)
    stem = re.sub(r"\W+", "-", source.name)
    columns = {
        "image_id": [f"{stem}-{'_'.join(name.split())}-{i:06d}" for name, i in zip(names, index, strict=True)],
        "label": pa.array(labels, pa.int64()),
        "class": names,
        "prompt": pa.nulls(n, pa.string()),
        "domain": pa.nulls(n, pa.string()),
        "trick": [trick] * n,
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
    ids = source.rows["image_id"].to_pylist()
    if len(set(ids)) < len(ids) or not all(is_file_name(i) for i in ids):
        raise SourceError(
            f"{source.name} has image_ids that are not unique, or no file names; expected those of a set of ours."
        )
    names = [known[item.class_name] for item in source.items]
    rows = source.rows.drop_columns(["pixels_sha256"])
    rows = rows.set_column(rows.column_names.index("class"), "class", pa.array(names))
    labels = pa.array([list(spec.classes).index(name) for name in names], pa.int64())
    rows = rows.set_column(rows.column_names.index("label"), "label", labels)
    return rows.append_column("item", pa.array(range(len(names))))
