"""Sources: labelled images that others made, in a folder, an archive, a packed .npz or Hugging Face's Parquet files."""

import functools
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synthlib.data.archives import is_image, read_archive
from synthlib.data.shards import read_table
from synthlib.settings import InputError

# Columns that only our own shards have all of: a source with them is a set of ours that comes back, prompts and all.
OWN_COLUMNS = {
    "image_id",
    "label",
    "class",
    "prompt",
    "domain",
    "trick",
    "guidance_scale",
    "seed",
    "replicate",
    "index",
    "pixels_sha256",
}


@dataclass(frozen=True)
class Item:
    """One image of a source: its class, its name there, and how to read its encoded bytes."""

    class_name: str
    file: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Source:
    """Images by class. `classes` are in the order of the source's labels; `rows`, of sets of our own, one for each item."""

    name: str
    items: list[Item]
    classes: list[str]
    rows: pa.Table | None = None


def open_source(path: Path) -> Source:
    """What lies at `path`: class folders of images, a .tar.gz of them, a packed .npz, or Parquet files with ClassLabel.

    InputError where there is nothing, nothing of these, or no image with a class.
    """
    if path.is_dir():
        parquet = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
        source = _parquet(path, parquet) if parquet else _folder(path)
    elif path.name.endswith((".tar.gz", ".tgz")):
        source = _by_class(path, read_archive(path))
    elif path.suffix == ".npz":
        source = _packed(path)
    elif path.suffix == ".parquet":
        source = _parquet(path, [path])
    else:
        what = f"{path} is none of these" if path.exists() else f"no file or folder {path}"
        raise InputError(
            f"{what}; expected class folders of images, a .tar.gz of them, a packed .npz, or Parquet files."
        )
    if not source.items:
        raise InputError(f"{path} holds no images; expected <class>/<image> files, or a packed .npz that has some.")
    return source


def _stem(path: Path) -> str:
    return path.name.removesuffix(".tar.gz").removesuffix(".tgz").removesuffix(".npz").removesuffix(".parquet")


def _by_class(path: Path, files: Iterable[tuple[str, Callable[[], bytes]]]) -> Source:
    """A source of files in class folders, which lie below the longest path that all files share, as EuroSAT's in 2750/."""
    files = sorted(files, key=lambda file: file[0])
    folders = [PurePosixPath(name).parent for name, _ in files]
    shared = PurePosixPath(os.path.commonpath(folders)) if files else PurePosixPath()
    if shared in folders:  # a single class, or images beside class folders
        if any(folder != shared for folder in folders) or shared == PurePosixPath("."):
            stray = files[folders.index(shared)][0]
            raise InputError(f"{stray} in {path} lies in no class folder; expected <class>/<image>: move or remove it.")
        shared = shared.parent
    items = [Item(PurePosixPath(name).relative_to(shared).parts[0], name, read) for name, read in files]
    return Source(_stem(path), items, sorted({item.class_name for item in items}))


def _folder(path: Path) -> Source:
    found = []
    for place, folders, names in os.walk(path, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        if len(Path(place).parents) > len(path.parents) + 20:
            raise InputError(
                f"{path} is more than 20 folders deep; expected <class>/<image>: a link may lead in a circle."
            )
        for file in (Path(place, name) for name in names):
            if is_image(file.name):
                found.append((file.relative_to(path).as_posix(), file.read_bytes))
    return _by_class(path, found)


def _packed(path: Path) -> Source:
    """The layout of `export --to npz`: encoded (uint8, all images end to end), offsets [N + 1], labels [N], class_names [C]."""
    wanted = f"expected {_packed.__doc__.partition(': ')[2]}"
    try:
        with np.load(path, allow_pickle=False) as packed:
            encoded, offsets, labels = (packed[name] for name in ("encoded", "offsets", "labels"))
            classes = [str(name) for name in packed["class_names"]]
            rows = pq.read_table(pa.BufferReader(packed["rows"].tobytes())) if "rows" in packed else None
            rows = rows if rows is not None and set(rows.column_names) >= OWN_COLUMNS else None
    except (OSError, ValueError, KeyError, EOFError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} cannot be read as a packed .npz ({str(error)[:80]}); {wanted}")
    n = len(labels)
    whole = (
        encoded.dtype == np.uint8
        and encoded.ndim == 1
        and offsets.shape == (n + 1,)
        and (rows is None or len(rows) == n)
    )
    if not whole or np.any(np.diff(offsets) <= 0) or (n and (offsets[0] < 0 or offsets[-1] > len(encoded))):
        raise InputError(f"{path} has lengths or offsets that do not fit together; {wanted}")
    if n and not (labels.min() >= 0 and labels.max() < len(classes)):
        raise InputError(f"{path} has labels from {labels.min()} to {labels.max()}; expected 0 to {len(classes) - 1}.")
    items = [
        Item(classes[labels[i]], f"{i}", lambda i=i: encoded[offsets[i] : offsets[i + 1]].tobytes()) for i in range(n)
    ]
    return Source(_stem(path), items, classes, rows)


def _parquet(path: Path, files: list[Path]) -> Source:
    """Files that Hugging Face's `datasets` reads, with an Image and a ClassLabel feature, such as our own shards."""
    schema = read_table(files[0], []).schema
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {kind: [name for name, feature in told.items() if isinstance(feature, dict) and feature.get("_type") == kind]
             for kind in ("Image", "ClassLabel")}  # fmt: skip
    if not kinds["Image"] or not kinds["ClassLabel"]:
        raise InputError(
            f"{files[0]} has no Image and ClassLabel features; expected a labelled image set of Hugging Face's."
        )
    image, label = kinds["Image"][0], kinds["ClassLabel"][0]
    classes, items, tables = told[label]["names"], [], []
    for file in files:
        names = [name for name in pq.read_schema(file).names if name not in (image, "latents")]
        tables.append(read_table(file, names))
        for place, number in enumerate(tables[-1][label].to_pylist()):
            if number is None or not 0 <= number < len(classes):
                raise InputError(f"{file} has label {number} in row {place}; expected 0 to {len(classes) - 1}.")
            items.append(Item(classes[number], f"{file.name}:{place}", _row_of(file, image, place)))
    rows = pa.concat_tables(tables).combine_chunks()
    return Source(path.stem, items, classes, rows if set(rows.column_names) >= OWN_COLUMNS else None)


@functools.lru_cache(maxsize=1)  # images are asked for in order: one file at a time is in memory
def _images_of(file: Path, column: str) -> pa.Array:
    return read_table(file, [column])[column].combine_chunks()


def _row_of(file: Path, column: str, place: int) -> Callable[[], bytes]:
    return lambda: _images_of(file, column)[place].as_py()["bytes"]
