"""Sources: labelled images that others made, in a folder, an archive, a packed .npz or Hugging Face's Parquet files."""

import functools
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synthlib.data.archives import SourceError, is_image, read_archive
from synthlib.data.classes import require_distinct
from synthlib.data.shards import class_names, numbered_by, told_features
from synthlib.inputs import InputError, choose, parameter

# Columns that only our own shards have all of: a source with them is a set of ours that comes back, prompts and all.
OWN_COLUMNS = {"image_id", "label", "class", "prompt", "domain", "trick", "guidance_scale", "seed", "replicate", "index",
               "pixels_sha256"}  # fmt: skip
# Of several columns these are taken; fine_label is CIFAR-100's hundred classes, beside twenty in coarse_label.
IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "fine_label")
# Columns that may be the label's, though no class list is told of them.
OTHER_LABELS = ("label", "labels", "class", "target")
# Which are no classes; Hugging Face's `datasets` tells splits by the same words.
SPLITS = {"train", "training", "test", "testing", "eval", "evaluation", "val", "valid", "validation", "dev"}
PACKED = "encoded (uint8, all images end to end), offsets [N + 1], labels [N], class_names [C]"


@dataclass(frozen=True)
class Item:
    """One image of a source: its class, its name there, and how to read its encoded bytes."""

    class_name: str
    file: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Source:
    """Images by class. `classes` are in the order of the source's labels; `rows`, of sets of our own, one for each item.

    sequential: reading the items in another order than theirs would read whole files again and again.
    """

    name: str
    items: list[Item]
    classes: list[str]
    rows: pa.Table | None = None
    sequential: bool = False


def open_source(path: Path, label_column: str = "") -> Source:
    """What lies at `path`: class folders of images, a .tar.gz of them, a packed .npz, or Parquet files with ClassLabel.

    label_column: of Parquet files with several; "" takes the only one, else `label` or `fine_label`, and says so.
    SourceError where there is nothing, nothing of these, or no image with a class, and where a class is named twice.
    """
    parquet = [path] if path.suffix == ".parquet" and path.is_file() else []
    if path.is_dir():
        parquet = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    if label_column and not parquet:
        raise InputError(
            f"{parameter('label_column')} is {label_column!r}; expected none: {path} holds no Parquet files, which have columns."
        )
    if parquet:
        source = _parquet(path, parquet, label_column)
    elif path.is_dir():
        source = _folder(path)
    elif path.name.endswith((".tar.gz", ".tgz")):
        source = _by_class(path, read_archive(path, path.parent if os.access(path.parent, os.W_OK) else None))
    elif path.suffix == ".npz":
        source = _packed(path)
    else:
        what = f"{path} is none of these" if path.exists() else f"no file or folder {path}"
        raise SourceError(
            f"{what}; expected class folders of images, a .tar.gz of them, a packed .npz, or Parquet files."
        )
    if not source.items:
        raise SourceError(f"{path} holds no images; expected <class>/<image> files, or a packed .npz that has some.")
    require_distinct(source.classes, str(path))
    splits = [name for name in source.classes if name.lower() in SPLITS]
    if len(splits) > 1:
        raise SourceError(f"{path} holds the splits {', '.join(splits)}; expected classes: import one of these alone.")
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
            raise SourceError(
                f"{stray} in {path} lies in no class folder; expected <class>/<image>: move or remove it."
            )
        shared = shared.parent
    items = [Item(PurePosixPath(name).relative_to(shared).parts[0], name, read) for name, read in files]
    return Source(_stem(path), items, sorted({item.class_name for item in items}))


def _folder(path: Path) -> Source:
    found, ignored = [], Counter()
    for place, folders, names in os.walk(path, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        if len(Path(place).parents) > len(path.parents) + 20:
            raise SourceError(
                f"{path} is more than 20 folders deep; expected <class>/<image>: a link may lead in a circle."
            )
        for file in (Path(place, name) for name in names):
            if is_image(file.name):
                found.append((file.relative_to(path).as_posix(), file.read_bytes))
            elif not file.name.startswith("."):
                ignored[file.suffix.lower() or file.name] += 1
    if ignored and found:
        kinds = ", ".join(f"{count} {kind}" for kind, count in ignored.most_common(10))
        print(f"{ignored.total()} files are of no kind that is read, and are left out: {kinds}.")
    return _by_class(path, found)


def _packed(path: Path) -> Source:
    """A file of the arrays PACKED, and of our own `rows`, as `export --to npz` writes it."""
    try:
        with np.load(path, allow_pickle=False) as packed:
            encoded, offsets, labels = (packed[name] for name in ("encoded", "offsets", "labels"))
            names = packed["class_names"]
            if names.dtype.kind not in "Uiu" or names.ndim != 1:
                raise ValueError(
                    f"class_names of type {names.dtype} in {names.ndim} dimensions, which are no list of texts"
                )
            classes = [str(name) for name in names]
            rows = pq.read_table(pa.BufferReader(packed["rows"].tobytes())) if "rows" in packed else None
            rows = rows if rows is not None and set(rows.column_names) >= OWN_COLUMNS else None
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
        pa.ArrowInvalid,
    ) as error:
        raise SourceError(f"{path} cannot be read as a packed .npz ({str(error)[:80]}); expected {PACKED}.")
    integers = all(array.dtype.kind in "iu" and array.ndim == 1 for array in (offsets, labels))
    n = len(labels) if integers else -1
    whole = encoded.dtype == np.uint8 and encoded.ndim == 1 and offsets.shape == (n + 1,)
    whole = whole and (rows is None or len(rows) == n)
    if not whole or np.any(np.diff(offsets) <= 0) or (n and (offsets[0] < 0 or offsets[-1] > len(encoded))):
        raise SourceError(f"{path} has lengths or offsets that do not fit together; expected {PACKED}.")
    if n and not (labels.min() >= 0 and labels.max() < len(classes)):
        raise SourceError(f"{path} has labels from {labels.min()} to {labels.max()}; expected 0 to {len(classes) - 1}.")
    said = [classes[label] for label in labels]
    if rows is not None and (rows["class"].to_pylist() != said or rows["label"].to_pylist() != labels.tolist()):
        raise SourceError(
            f"{path} has rows whose class or label is not its images'; expected what `export --to npz` writes."
        )
    items = [Item(said[i], f"{i}", lambda i=i: encoded[offsets[i] : offsets[i + 1]].tobytes()) for i in range(n)]
    return Source(_stem(path), items, classes, rows)


def _parquet(path: Path, files: list[Path], label_column: str) -> Source:
    """Files that Hugging Face's `datasets` reads, with an Image and a ClassLabel feature, such as our own shards.

    Labels count by name: each file's by its own class list, in the order of the first one's.
    """
    said = {frozenset(re.split("[^a-z]+", file.name.lower())) & SPLITS for file in files}
    if len(said) > 1 and len(splits := sorted(frozenset().union(*said))) > 1:
        raise SourceError(
            f"{path} holds the splits {', '.join(splits)}; expected one: put its files into a folder of their own."
        )
    try:
        schemas = [pq.read_schema(file) for file in files]
        image, label = _columns(path, schemas[0], label_column)
        owns = [set(schema.names) >= OWN_COLUMNS for schema in schemas]
        if len(set(owns)) > 1:
            raise SourceError(
                f"{path} mixes a set of ours, with its prompts, and others' images; expected one of them alone."
            )
        wanted = [[name for name in schema.names if name in (label, "class") or (owns[0] and name not in (image, "latents"))]
                  for schema in schemas]  # fmt: skip
        tables = [pq.read_table(file, columns=names) for file, names in zip(files, wanted, strict=True)]
        classes = class_names(schemas[0], files[0], label)
        tables = [numbered_by(table, classes, file, label) for table, file in zip(tables, files, strict=True)]
        rows = pa.concat_tables(tables).combine_chunks() if owns[0] else None
    except (pa.ArrowException, OSError, KeyError) as error:
        why = " ".join(str(error).split())[:80]
        raise SourceError(
            f"{path} cannot be read as a labelled image set of Hugging Face's ({why}); expected whole Parquet files."
        )
    # Images are asked for in order, so one file at a time is in memory; for this source alone, as files may be made anew.
    images_of, items = functools.lru_cache(maxsize=1)(_images_of), []
    for file, schema, table in zip(files, schemas, tables, strict=True):
        if image not in schema.names:
            raise SourceError(
                f"{file} has no column {image!r}, which the files before it have; expected the same columns in all."
            )
        items += [
            Item(classes[number], f"{file.name}:{place}", functools.partial(_image_of, images_of, file, image, place))
            for place, number in enumerate(table[label].to_pylist())
        ]
    return Source(path.stem, items, classes, rows, sequential=True)


def _columns(path: Path, schema: pa.Schema, label_column: str) -> tuple[str, str]:
    """Names of the image column and of the label column (label_column, if it is given); what was not clear is told.

    SourceError where a file has no such columns, or several of which none has a usual name.
    """
    images, labels = (list(told_features(schema, kind)) for kind in ("Image", "ClassLabel"))
    if not images or not labels:
        raise SourceError(
            f"{path} has no Image and ClassLabel features that can be read; expected a labelled image set of Hugging Face's."
        )
    if label_column:
        labels = [choose(f"label column of {path}", label_column, labels)]
    elif "label" not in labels:
        labels += [f"{name} (which has no class names)" for name in OTHER_LABELS if name in {*schema.names} - {*labels}]
    image, label = _usual(images, IMAGE_COLUMNS), _usual(labels, LABEL_COLUMNS)
    for kind, taken, names, usual in (("image", image, images, IMAGE_COLUMNS), ("label", label, labels, LABEL_COLUMNS)):
        if not taken:
            advice = (
                "rename it"
                if kind == "image"
                else "name one with `synthlib import --label_column`, and use what that makes"
            )
            raise SourceError(
                f"{path} has the {kind} columns {', '.join(names)}; expected one, or one called {' or '.join(usual)}: {advice}."
            )
        if len(names) > 1:
            print(f"{path.name} has the {kind} columns {', '.join(names)}; {taken} is taken.")
    return image, label


def _usual(names: list[str], usual: tuple[str, ...]) -> str:
    """The one name there is, or the first of the usual ones; "" where it is not clear."""
    return names[0] if len(names) == 1 else next((name for name in usual if name in names), "")


def _images_of(file: Path, column: str) -> pa.Array:
    return pq.read_table(file, columns=[column])[column].combine_chunks()


def _image_of(images_of: Callable[[Path, str], pa.Array], file: Path, column: str, place: int) -> bytes:
    value = images_of(file, column)[place].as_py()
    if not isinstance(value, dict) or not isinstance(value.get("bytes"), bytes):
        raise SourceError(f"row {place} of {file} has no image; expected the bytes of one in its column {column!r}.")
    return value["bytes"]
