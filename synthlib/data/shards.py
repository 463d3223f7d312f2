"""Shards: synthetic images as Parquet files of about 1,000 rows, image bytes beside all that made them."""

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import ExifTags, Image

from synthlib import paths
from synthlib.data.classes import match_classes, require_distinct
from synthlib.data.sets import SyntheticSet
from synthlib.files import PLAN
from synthlib.inputs import InputError
from synthlib.receipts import is_whole, output_names, read_output

PNG = b"\x89PNG"  # what a PNG file's bytes begin with
NOTES = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # where Pillow keeps what may say an orientation
# EXIF's orientation -> what turns such an image upright, as PIL.ImageOps.exif_transpose does.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = tuple(TURNS[orientation] for orientation in (5, 6, 7, 8))  # after which height is width


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of pixels uint8 [H, W, 3]; the same pixels give the same bytes."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def exif_turn(image: Image.Image) -> Image.Transpose | None:
    """How an image is turned upright, as its EXIF or XMP orientation says; None: it is, or nothing that can be read says."""
    if not NOTES & image.info.keys() and image.format != "TIFF":  # looking closer takes a tenth of decoding
        return None
    try:
        return TURNS.get(Image.Image.getexif(image).get(ExifTags.Base.Orientation))  # PNG's own would decode first
    except Exception:  # whatever a damaged note makes Pillow's parser raise: the pixels are whole
        return None


def as_rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """An image as RGB and upright, and whether it had to be turned."""
    rgb = image.convert("RGB")  # which decodes: only then is all of its EXIF known, and of TIFF followed already
    turn = exif_turn(image)
    return (rgb, False) if turn is None else (rgb.transpose(turn), True)


def decode_image(data: bytes) -> np.ndarray:
    """Pixels uint8 [H, W, 3] of an encoded image, upright."""
    return np.asarray(as_rgb(Image.open(io.BytesIO(data)))[0])


def shard_bytes(rows: pa.Table, images: list[bytes], classes: list[str]) -> bytes:
    """One shard as the bytes of a Parquet file, readable by Hugging Face's `datasets` (Image and ClassLabel features).

    rows: N rows of a plan with a column label; images: their N encoded images, PNG or (of imports) JPEG. The same input
    gives the same bytes.
    """
    ids = rows["image_id"].to_pylist()
    names = [f"{i}.{'png' if data.startswith(PNG) else 'jpg'}" for i, data in zip(ids, images, strict=True)]
    column = pa.StructArray.from_arrays([pa.array(images, pa.binary()), pa.array(names)], ["bytes", "path"])
    table = rows.add_column(0, "image", column)
    plain = {
        "double": "float64",
        "int32": "int32",
        "bool": "bool",
        "int64": "int64",
        "uint64": "uint64",
        "float": "float32",
        "string": "string",
        "binary": "binary",
    }
    features = {
        name: {"dtype": plain[str(kind)], "_type": "Value"}
        for name, kind in zip(rows.schema.names, rows.schema.types, strict=True)
    }
    features = {"image": {"_type": "Image"}} | features | {"label": {"names": classes, "_type": "ClassLabel"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """One shard, whole or only some columns. InputError where the file is cut short or no shard."""
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is truncated or no Parquet shard ({_line(error)}); run 01_generate again.")


def told_features(schema: pa.Schema, kind: str) -> dict[str, dict]:
    """Columns of a kind (Image, ClassLabel) that a Parquet file tells Hugging Face's `datasets` of, and what it says of each."""
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: of for name, of in told.items() if isinstance(of, dict) and of.get("_type") == kind}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def class_names(schema: pa.Schema, path: Path, label: str = "label") -> list[str]:
    """The class names of a label column, in the order of its labels. InputError: the file tells of none, or of one twice."""
    names = told_features(schema, "ClassLabel").get(label, {}).get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{path} has no class names for its column {label!r}; expected a ClassLabel, as Hugging Face's `datasets` writes it."
        )
    require_distinct(names, str(path))
    return names


def shard_classes(table: pa.Table) -> list[str]:
    """The class names of a shard, or of some that were joined, in the order of its labels."""
    return class_names(table.schema, Path("this shard"))


def numbered_by(table: pa.Table, classes: list[str], path: Path, label: str = "label") -> pa.Table:
    """Rows of a file with labels by `classes`, whatever the order of the file's own class list.

    InputError: its own list has other classes; a label is no whole number, or none of the list's; or a column class, which our
    shards have beside the label, says another class than the label.
    """
    own, numbers = class_names(table.schema, path, label), table[label]
    if not pa.types.is_integer(numbers.type):
        raise InputError(f"{path} has labels of type {numbers.type}; expected whole numbers, 0 to {len(own) - 1}.")
    labels = numbers.to_pylist()
    if bad := [number for number in labels if number is None or not 0 <= number < len(own)]:
        raise InputError(
            f"{path} has labels such as {bad[0]}; expected 0 to {len(own) - 1}, a class of its list, for each image."
        )
    said, columns = [own[number] for number in labels], table.column_names
    given = table["class"].to_pylist() if "class" in columns else said
    if given != said and ("image_id" in columns or set(given) <= set(own)):  # others may call anything class
        row = next(row for row in range(len(labels)) if given[row] != said[row])
        raise InputError(
            f"{path}, row {row}: its column class says {given[row]!r}, its label {labels[row]} is {said[row]!r} in the file's "
            "class list; expected one class: make the file again from what it was made of."
        )
    if own == classes:
        return table
    ours = match_classes(
        own, classes, str(path), "the first file", advice="put files of other classes into another folder"
    )
    new = {label: [classes.index(ours[name]) for name in said]}
    new |= {"class": [ours[name] for name in said]} if given == said and "class" in columns else {}
    for name, values in new.items():
        field = table.schema.field(name)
        table = table.set_column(columns.index(name), field, [pa.array(values, field.type)])
    return table


def join_shards(parts: Sequence[pa.Table], files: Sequence[Path]) -> pa.Table:
    """The rows of some shards in one table, with labels by the class list of the first: others may have another order.

    InputError: see `numbered_by`; or columns of one name hold other things.
    """
    classes = class_names(parts[0].schema, files[0])
    parts = [numbered_by(part, classes, file) for part, file in zip(parts, files, strict=True)]
    try:
        return pa.concat_tables(parts, promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(
            f"the shards in {files[0].parent} have other columns each ({_line(error)}); expected those of one set."
        )


def load_shards(files: list[Path], choose: Callable[[pa.Table], np.ndarray] | None = None) -> SyntheticSet:
    """The images of some shards, in the order given, with labels by the class list of the first.

    choose: given all rows without their images, it returns the numbers of those to load, int [k] in rising order: a few of a
    large set need not be read with all the others. InputError for shards that do not go together (see `join_shards`, `stacked`).
    """
    names = [name for name in pq.read_schema(files[0]).names if name not in ("image", "latents")]
    parts = [read_table(path, names) for path in files]
    rows = join_shards(parts, files)
    kept = np.arange(len(rows)) if choose is None else choose(rows)
    images, first = [], 0
    for path, part in zip(files, parts, strict=True):
        mine = kept[(kept >= first) & (kept < first + len(part))] - first
        if len(mine):
            encoded = read_table(path, ["image"])["image"].take(pa.array(mine)).to_pylist()
            images += [decode_image(image["bytes"]) for image in encoded]
        first += len(part)
    rows = rows.take(pa.array(kept))
    pixels = torch.from_numpy(stacked(images, files[0].parent)).permute(0, 3, 1, 2).contiguous()
    return SyntheticSet(pixels, torch.from_numpy(rows["label"].to_numpy().copy()), shard_classes(rows), rows)


def stacked(images: list[np.ndarray], folder: Path) -> np.ndarray:
    """Pixels uint8 [N, H, W, 3] of images of a set in `folder`. InputError for several sizes."""
    sizes = sorted({f"{image.shape[1]} x {image.shape[0]}" for image in images})
    if len(sizes) > 1:
        raise InputError(
            f"{folder} has images of {' and '.join(sizes)}; expected one size: import it again with `synthlib import --size`."
        )
    return np.stack(images)


def copy_shard(shard: Path, target: Path, classes: list[str]) -> None:
    """Copy a shard: byte by byte or, where its class list is another, with labels by `classes`."""
    if class_names(pq.read_schema(shard), shard) == classes:
        shutil.copyfile(shard, target)
    else:
        rows = numbered_by(read_table(shard), classes, shard)
        images = [image["bytes"] for image in rows["image"].to_pylist()]
        target.write_bytes(shard_bytes(rows.drop_columns(["image"]), images, classes))


def read_shards(folder: str | Path, choose: Callable[[pa.Table], np.ndarray] | None = None) -> SyntheticSet:
    """The images of a finished set (01_generate, import, download), each file checked against the receipt; see load_shards."""
    names = output_names(folder, ".parquet")
    if not names:
        raise InputError(f"{folder} has no finished shards; run notebooks/01_generate.ipynb first.")
    return load_shards([read_output(folder, name) for name in names], choose)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:80]


def is_file_name(name: str) -> bool:
    """Whether an image_id can safely name a file, whoever made it up; class names: see datasets.check_class_names."""
    return bool(name) and not name.startswith(".") and not any(c in "/\\" or ord(c) < 32 for c in name)


def set_folder(given: str | Path) -> Path:
    """The folder that holds a set's shards: the one given, or that which `synthlib generate` keeps beside its OUTDIR.

    A relative path is below the working folder or, if there is none, below the root. InputError where there are no shards.
    """
    folder = Path(given).absolute() if Path(given).exists() else paths.resolve(given)
    for place in (folder, paths.kept_beside(folder), folder / "data"):
        if any(place.glob("*.parquet")):
            return place
        if (place / PLAN).is_file():
            raise InputError(
                f"{given} has no finished shard yet; give the command that draws it again, and let it end."
            )
    raise InputError(
        f"{given} has no shards; expected the folder of a generated, imported or downloaded set: bring others in with "
        "`synthlib import`."
    )


def set_files(folder: Path) -> list[Path]:
    """The shards of a set, in order: those of its receipt, each checked; of a set without one, all that are finished.

    Only looks: InputError for a damaged shard leaves the receipt where it is, unlike read_shards.
    """
    names = output_names(folder, ".parquet")
    for name in names:
        if not is_whole(folder, name):
            raise InputError(
                f"{folder / name} is missing or damaged (its sha256 is not its receipt's); make the set again."
            )
    files = [folder / name for name in names] or sorted(folder.glob("*.parquet"))
    files = [path for path in files if not path.name.startswith((".", "part-"))]
    if not files:
        raise InputError(f"{folder} has no finished shard yet; give the command that makes it again, and let it end.")
    return files
