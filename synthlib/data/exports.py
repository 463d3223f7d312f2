"""Export: a set of shards as others read it: class folders of PNGs, a Hugging Face data set, one packed .npz."""

import contextlib
import io
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from synthlib import digests, paths
from synthlib.data.datasets import check_class_names
from synthlib.data.describe import read_rows
from synthlib.data.shards import (
    PNG,
    copy_shard,
    decode_image,
    encode_png,
    is_file_name,
    join_shards,
    read_table,
    shard_classes,
)
from synthlib.files import cut_off, remove_cut_off, whole_file, write_atomic
from synthlib.inputs import InputError
from synthlib.locks import claim_output
from synthlib.names import in_markdown
from synthlib.progress import progress

NPZ_BYTES = 4_000_000_000  # a packed .npz is made and read in one piece, in memory
# Of the checkpoints that the kit's own experiments draw with, by what rows say of the model.
MODEL_LICENCES = {"CompVis/stable-diffusion-v1-4": "creativeml-openrail-m", "synthlib/pocket": "mit"}
PROMPTS_SHOWN = 20  # of each trick, on a data set's card; all are in the column prompt


def write_image_folder(shards: Sequence[Path], outdir: Path) -> set[Path]:
    """Write OUTDIR/<class>/<image_id>.png, as the authors' create_dataset.py lays them out; return these files.

    torchvision's ImageFolder reads it. Images that are there already stay.
    """
    names = _file_names(_facts(shards))
    for name, data in _png_files(shards, names):
        path = outdir / name
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)
    return {outdir / name for name in names}


def _file_names(rows: pa.Table) -> list[str]:
    """<class>/<image_id>.png of each row. InputError: one cannot name a file, or is there twice."""
    classes = shard_classes(rows)
    check_class_names(classes, "")
    if len({name.casefold() for name in classes}) < len(classes):
        raise InputError(
            "some classes differ in capitals alone and would share a folder on some machines; expected names that differ: export "
            "to npz or huggingface, or rename one."
        )
    ids = rows["image_id"].to_pylist()
    again = {i for i, count in Counter(ids).items() if count > 1}
    if wrong := [i for i in ids if i in again or not is_file_name(i) or len(f"{i}.png".encode()) > 255]:
        raise InputError(
            f"{wrong[0][:60]!r} cannot name a file, or is there twice; expected image_ids of at most 251 bytes, each once: "
            "import the set anew, from a folder or file of a shorter name."
        )
    return [f"{name}/{i}.png" for name, i in zip(rows["class"].to_pylist(), ids, strict=True)]


def _png_files(shards: Sequence[Path], names: list[str]) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each image's file: of PNGs their own bytes, of JPEGs their pixels. InputError: other rows than `names`."""
    left = iter(names)
    changed = InputError("the set was made anew meanwhile; expected it to stay as it is: give the command once more.")
    for row in _rows(shards, ["image", "class", "image_id"]):
        name, data = f"{row['class']}/{row['image_id']}.png", row["image"]["bytes"]
        if name != next(left, None):
            raise changed
        yield name, data if data.startswith(PNG) else encode_png(decode_image(data))
    if next(left, None) is not None:
        raise changed


def _rows(shards: Sequence[Path], columns: list[str]) -> Iterator[dict[str, Any]]:
    for shard in progress(shards, "export", unit="shard") if len(shards) > 1 else shards:
        yield from read_table(shard, columns).to_pylist()


def _facts(shards: Sequence[Path]) -> pa.Table:
    """All rows, without images and latents, with labels by the class list of the first shard."""
    return join_shards([read_rows(shard) for shard in shards], shards)


@contextlib.contextmanager
def _whole(outdir: Path) -> Iterator[Path]:
    """A hidden folder to write into, that becomes `outdir` when all is written, and goes if anything ends it early.

    InputError where something lies in `outdir`, or another process writes it: an export never mixes with it.
    """
    part = cut_off(outdir)
    with claim_output(outdir):
        if outdir.is_symlink() or (outdir.exists() and (not outdir.is_dir() or any(outdir.iterdir()))):
            raise InputError(
                f"{outdir} is there already; expected a new or an empty folder: give another, or delete that one."
            )
        try:
            remove_cut_off(outdir.parent, outdir.name)
            part.mkdir()
            yield part
            if outdir.exists():
                outdir.rmdir()
            part.rename(outdir)
        except OSError as error:
            raise _cannot_write(outdir, error)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _check_count(outdir: Path, found: int, expected: int) -> None:
    """InputError, unless all images are there that shall be; somebody else may have been at them."""
    if found != expected:
        raise InputError(
            f"{found} of {expected} images were written to {outdir}; expected all: give the command once more."
        )


def export_folder(shards: Sequence[Path], outdir: Path, below: str = "") -> int:
    """Class folders of PNGs in OUTDIR, and beside it OUTDIR.csv with a row for each image (prompt, guidance, seed, ...).

    Nothing but class folders is inside, because torchvision's ImageFolder takes any folder for a class. below: "eurosat/2750"
    for the authors' EuroSAT sets, which torchvision's EuroSAT reads with root OUTDIR. The table comes first: one of the same
    bytes is of a call that was killed between the two.
    """
    rows, table = _facts(shards), outdir.with_name(f"{outdir.name}.csv")
    names = _file_names(rows)
    files = [f"{below}/{name}" if below else name for name in names]
    pyarrow.csv.write_csv(rows.add_column(0, "file", pa.array(files)), sink := io.BytesIO())
    with _whole(outdir) as part:
        if table.exists() and not (table.is_file() and table.read_bytes() == sink.getvalue()):
            raise InputError(
                f"{table} is there already, where the images' prompts would go; give another folder, or move it away."
            )
        remove_cut_off(table.parent, table.name)
        for name, data in _png_files(shards, names):
            path = part / below / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        _check_count(outdir, sum(1 for _ in part.rglob("*.png")), len(names))
        write_atomic(table, sink.getvalue())
    return len(names)


def export_npz(shards: Sequence[Path], path: Path) -> int:
    """One .npz: encoded uint8 (all images' bytes end to end), offsets int64 [N + 1], labels int64 [N], class_names [C], rows.

    rows: all other columns, as the bytes of a Parquet file. Reads with numpy and Pillow alone, without pickle: image i is
    encoded[offsets[i] : offsets[i + 1]].
    """
    if path.suffix != ".npz":
        raise InputError(f"{path} has no .npz at its end; expected the name of a new .npz file.")
    size = sum(shard.stat().st_size for shard in shards)
    if size > NPZ_BYTES:
        raise InputError(
            f"the set has {size / 1e9:.1f} GB; expected at most 4 for one .npz: export to huggingface or folder."
        )
    with claim_output(path):
        if path.exists():
            raise InputError(
                f"{path} is there already; expected the name of a new .npz file: give another, or delete that one."
            )
        remove_cut_off(path.parent, path.name)
        arrays = _packed(shards)
        _check_count(path, len(arrays["offsets"]) - 1, len(arrays["labels"]))
        try:
            with whole_file(path) as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise _cannot_write(path, error)
    return len(arrays["labels"])


def _packed(shards: Sequence[Path]) -> dict[str, np.ndarray]:
    """The arrays of a packed .npz."""
    rows, table = _facts(shards), pa.BufferOutputStream()
    pq.write_table(rows.replace_schema_metadata(None), table, compression="zstd")
    encoded = [row["image"]["bytes"] for row in _rows(shards, ["image"])]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    joined = np.empty(offsets[-1], np.uint8)
    for number in range(len(encoded)):  # one image at a time goes from there to here
        joined[offsets[number] : offsets[number + 1]] = np.frombuffer(encoded[number], np.uint8)
        encoded[number] = b""
    arrays = {"encoded": joined, "offsets": offsets, "labels": rows["label"].to_numpy()}
    return arrays | {"class_names": np.array(shard_classes(rows)), "rows": np.frombuffer(table.getvalue(), np.uint8)}


def _cannot_write(place: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {place}: {error.strerror}; expected a place that can be written, with room left.")


def export_huggingface(shards: Sequence[Path], outdir: Path, receipt: dict[str, Any] | None, licence: str = "") -> int:
    """OUTDIR/data/*.parquet, the shards as they are, and OUTDIR/README.md, the data set card: for `load_dataset` or the hub.

    Shards whose class lists have another order than the first one's are written with labels by the first one's.
    licence: of the model's images, as the hub writes it; "" takes what is known of the model or of where the set came from.
    """
    rows = _facts(shards)
    with _whole(outdir) as part:
        (part / "data").mkdir()
        files = {f"train-{i:05d}-of-{len(shards):05d}.parquet": shard for i, shard in enumerate(shards)}
        for name, shard in progress(files.items(), "export", len(files), "shard"):
            copy_shard(shard, part / "data" / name, shard_classes(rows))
        _check_count(outdir, sum(pq.read_metadata(file).num_rows for file in part.glob("data/*")), len(rows))
        written = {name: part / "data" / name for name in files}
        card = data_card(rows, outdir.name, receipt, licence, written)
        (part / "README.md").write_text(card, encoding="utf-8")
    return len(rows)


def data_card(rows: pa.Table, name: str, receipt: dict[str, Any] | None, licence: str, files: dict[str, Path]) -> str:
    """The card of a set, as the hub wants it: prompts, counts, model and its licence, intended use, checksums of `files`."""
    from huggingface_hub import DatasetCardData
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    models = _distinct(rows, "model")
    origin = (receipt or {}).get("parameters", {}).get("origin", {})
    licence = licence or origin.get("licence") or (MODEL_LICENCES.get(models[0], "") if len(models) == 1 else "")
    about = DatasetCardData(
        license=licence or "unknown",
        task_categories=["image-classification"],
        size_categories=[_size_category(len(rows))],
        pretty_name=name,
        tags=["synthlib", *(["synthetic"] if models or origin.get("url") else [])],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    )
    counts = Counter(rows["class"].to_pylist())
    guidance = rows["guidance_scale"].drop_null().to_numpy() if "guidance_scale" in rows.column_names else np.zeros(0)
    environment = Environment(
        loader=FileSystemLoader(paths.package() / "data"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["words"] = in_markdown
    return environment.get_template("card.md.j2").render(
        header=about.to_yaml(),
        name=name,
        n=len(rows),
        classes={name: counts[name] for name in shard_classes(rows)},
        tricks={trick: _prompts(rows, trick) for trick in _distinct(rows, "trick")},
        guidance=(float(guidance.min()), float(guidance.max())) if len(guidance) else None,
        facts={n: _distinct(rows, n) for n in ("model", "revision", "scheduler", "num_inference_steps", "precision", "resize",
               "lossy") if _distinct(rows, n)},
        licence=licence,
        origin=origin,
        flagged=_flagged(rows),
        replicates=len(_distinct(rows, "replicate")),
        columns=rows.column_names,
        files={name: digests.sha256_file(shard) for name, shard in files.items()},
        recorded=(receipt or {}).get("recorded", {}),
    )  # fmt: skip


def _distinct(rows: pa.Table, column: str) -> list[Any]:
    """Values of a column in the order they appear, without null; none if there is no such column."""
    return [v for v in rows[column].unique().to_pylist() if v not in (None, "")] if column in rows.column_names else []


def _flagged(rows: pa.Table) -> int | None:
    """How many images the safety checker flagged; None where it was not asked."""
    asked = rows["flagged"].drop_null().to_pylist() if "flagged" in rows.column_names else []
    return sum(asked) if asked else None


def _prompts(rows: pa.Table, trick: str) -> tuple[list[str], int]:
    """Some prompts of a trick, and how many there are."""
    found = _distinct(rows.filter(pc.equal(rows["trick"], trick)), "prompt")
    return found[:PROMPTS_SHOWN], len(found)


def _size_category(n: int) -> str:
    """The hub's words for the size of a data set."""
    bounds = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((words for bound, words in bounds if n < bound), "1M<n<10M")
