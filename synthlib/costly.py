"""Costly files: shards, checkpoints and logits, each with a small file beside it that says what it is a function of.

A step that runs again reuses those that are whole and whose key still fits.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synthlib import digests, mirror, receipts
from synthlib.files import KEY, RECEIPT, key_file, read_json, write_atomic, write_json

# The code that decides the bytes of each kind of costly file. Never names, settings, receipts, paths or cli.
COSTLY = {
    "shards": (
        "generation.prompts",
        "generation.plan",
        "generation.noise",
        "generation.parts",
        "generation.checkpoints",
        "generation.conditioning",
        "generation.single_file",
        "generation.pipelines",
        "generation.sampler",
        "generation.safety",
        "generation.resize",
        "generation.paint",
    ),
    "checkpoints": (
        "training.augment",
        "training.models",
        "training.miniatures",
        "training.vit",
        "training.imagenet",
        "training.optimise",
        "training.checkpoint",
        "training.train",
        "training.replicates",
    ),
    "logits": (
        "training.augment",
        "training.models",
        "training.miniatures",
        "training.vit",
        "training.checkpoint",
        "evaluation.predict",
    ),
}


@dataclass(frozen=True)
class FileKey:
    """What a costly file is a function of: its settings and inputs, and the code that `COSTLY` names for its kind."""

    kind: str
    settings: str
    code: str


def file_key(kind: str, settings: Mapping[str, Any]) -> FileKey:
    """The key of a costly file of `kind` (see COSTLY), made from `settings`, among them the digests of its inputs."""
    return FileKey(kind, digests.sha256_json(dict(settings)), costly_code(kind))


def costly_code(kind: str) -> str:
    """Digest of the code that decides the bytes of a kind of costly file."""
    return digests.sha256_json({name: digests.module_digest(f"synthlib.{name}") for name in COSTLY[kind]})


def write_keyed(path: Path, data: bytes, key: FileKey, seconds: float) -> None:
    """Write a costly file, then beside it its key and the seconds that its content took to make; then mirror both.

    Not mirrored are parts of shards: they are written anew every two minutes, and the next shard holds their images.
    """
    write_atomic(path, data)
    write_json(key_file(path), asdict(key) | {"sha256": digests.sha256_bytes(data), "seconds": round(seconds, 2)})
    if not path.name.startswith("part-"):
        mirror.keep(path, key_file(path))


def read_key(file: Path) -> dict[str, Any] | None:
    """What a key file says; None if there is none, or one that was damaged."""
    said, names = read_json(file), {"kind", "settings", "code", "sha256", "seconds"}
    return said if isinstance(said, dict) and names <= set(said) and said["kind"] in COSTLY else None


def remove_keyed(path: Path) -> None:
    """Remove a costly file, if it is there, and its key, here and in the mirror."""
    path.unlink(missing_ok=True)
    key_file(path).unlink(missing_ok=True)
    mirror.drop(path, key_file(path))


def seconds_to_make(path: Path) -> float:
    """How long a costly file's content took to make; 0 where there is none."""
    stored = read_key(key_file(path))
    return stored["seconds"] if stored else 0.0


def seconds_of_files(folder: Path) -> float:
    """How long a folder's costly files took, whoever made them."""
    return sum(key["seconds"] for key in _keys(folder).values())


def seconds_of_older_code(folder: Path) -> float:
    """How long a folder's costly files took that today's code would make again."""
    return sum(key["seconds"] for key in _keys(folder).values() if key["code"] != costly_code(key["kind"]))


def _keys(folder: Path) -> dict[Path, dict[str, Any]]:
    """The key files of a folder and what they say; those that another worker tidies away meanwhile are left out."""
    found = {file: read_key(file) for file in folder.glob(f"*{KEY}")}
    return {file: key for file, key in found.items() if key}


def is_current(path: Path, key: FileKey) -> bool:
    """Whether a costly file is there, whole (sha256), and made by this key."""
    stored = read_key(key_file(path))
    if not stored or any(stored[name] != value for name, value in asdict(key).items()):
        return False
    try:
        digest = digests.sha256_file(path)
    except FileNotFoundError:  # never made, or tidied away by another worker
        return False
    if digest != stored["sha256"]:
        if read_key(key_file(path)) != stored:  # another worker has just replaced it
            return is_current(path, key)
        print(f"{path.name} is damaged (its bytes are not those recorded); it is made again.", flush=True)
        return False
    return True


def accept_code(folder: Path) -> None:
    """Take what older code made in a step's folder as if today's had made it, and record that (`reproduce --keep`)."""
    for file, stored in _keys(folder).items():
        if stored["code"] != (code := costly_code(stored["kind"])):
            write_json(file, stored | {"code": code, "kept_from_code": stored["code"]})
            mirror.keep(file)
    if receipt := receipts.read_receipt(folder):  # a step that was interrupted has none
        code = digests.notebook_digest(receipt["notebook"])
        write_json(folder / RECEIPT, receipt | {"code": code, "kept_from_code": receipt["code"]})
        mirror.keep(folder / RECEIPT)
