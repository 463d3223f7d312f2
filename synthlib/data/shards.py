"""Shards: synthetic images as Parquet files of about 1,000 rows, image bytes beside all that made them."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from synthlib import paths
from synthlib.data.sets import SyntheticSet
from synthlib.files import PLAN
from synthlib.inputs import InputError
from synthlib.receipts import is_whole, output_names, read_output

PNG = b"\x89PNG"  # what a PNG file's bytes begin with


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of pixels uint8 [H, W, 3]; the same pixels give the same bytes."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def decode_image(data: bytes) -> np.ndarray:
    """Pixels uint8 [H, W, 3] of an encoded image."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


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
        raise InputError(f"{path} is truncated or no Parquet shard ({str(error)[:80]}); run 01_generate again.")


def shard_classes(table: pa.Table) -> list[str]:
    """The class names of a shard, in the order of its labels."""
    return json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]


def load_shards(files: list[Path], choose: Callable[[pa.Table], np.ndarray] | None = None) -> SyntheticSet:
    """The images of some shards, in the order given.

    choose: given all rows without their images, it returns the numbers of those to load, int [k] in rising order: a few of a
    large set need not be read with all the others.
    """
    names = [name for name in pq.read_schema(files[0]).names if name not in ("image", "latents")]
    parts = [read_table(path, names) for path in files]
    rows = pa.concat_tables(parts)
    kept = np.arange(len(rows)) if choose is None else choose(rows)
    images, first = [], 0
    for path, part in zip(files, parts, strict=True):
        mine = kept[(kept >= first) & (kept < first + len(part))] - first
        if len(mine):
            encoded = read_table(path, ["image"])["image"].take(pa.array(mine)).to_pylist()
            images += [decode_image(image["bytes"]) for image in encoded]
        first += len(part)
    rows = rows.take(pa.array(kept))
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return SyntheticSet(pixels, torch.from_numpy(rows["label"].to_numpy().copy()), shard_classes(rows), rows)


def read_shards(folder: str | Path, choose: Callable[[pa.Table], np.ndarray] | None = None) -> SyntheticSet:
    """The images of a finished set (01_generate, import, download), each file checked against the receipt; see load_shards."""
    names = output_names(folder, ".parquet")
    if not names:
        raise InputError(f"{folder} has no finished shards; run notebooks/01_generate.ipynb first.")
    return load_shards([read_output(folder, name) for name in names], choose)


def is_file_name(name: str) -> bool:
    """Whether a class or an image_id can safely name a file or folder, whoever made it up."""
    return bool(name) and not name.startswith(".") and not any(c in "/\\" or ord(c) < 32 for c in name)


def set_folder(given: str | Path) -> Path:
    """The folder that holds a set's shards: the one given, or that which `synthlib generate` keeps beside its OUTDIR.

    A relative path is below the working folder or, if there is none, below the root. InputError where there are no shards.
    """
    folder = Path(given).absolute() if Path(given).exists() else paths.resolve(given)
    for place in (folder, folder.parent / f".{folder.name}.synthlib", folder / "data"):
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
