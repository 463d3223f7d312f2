"""Files: written so that each is there whole or not at all, and the names of those that vouch for others."""

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from synthlib.inputs import InputError

RECEIPT = "receipt.json"  # of a finished step: what went in, what came out
PLAN = "plan.json"  # of a folder of shards: whose they are
KEY = ".key"  # behind the name of a costly file: what it is a function of
CUT_OFF = ".part"  # behind the name under which a file is written, until it is whole


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which takes its place at `path`, synced, once all is written; an error leaves nothing."""
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}{CUT_OFF}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all: temporary name, fsync, rename. InputError: it cannot be written."""
    try:
        with _whole(path) as file:
            file.write(data)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; expected a folder that can be written, with space left."
        )


def copy_atomic(source: Path, target: Path) -> None:
    """Copy a file so that the copy is there whole or not at all. OSError: one of them cannot be read or written."""
    with open(source, "rb") as original, _whole(target) as copy:
        shutil.copyfileobj(original, copy, 1 << 20)


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically, one key a line."""
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON value in a file, or None where there is no such file or it is not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError, json.JSONDecodeError):
        return None


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is only Git LFS's note of where the real one is, as a clone without git-lfs leaves it."""
    with open(path, "rb") as file:
        return file.read(24) == b"version https://git-lfs."


def remove_cut_off(folder: Path) -> None:
    """Remove what writes that a kill cut off, on this machine, left in a folder."""
    for left in folder.glob(f".*.{platform.node()}.*{CUT_OFF}"):
        pid = left.name.removesuffix(CUT_OFF).rpartition(".")[2]
        if not psutil.pid_exists(int(pid)) or int(pid) == os.getpid():
            left.unlink(missing_ok=True)


def key_file(path: Path) -> Path:
    """The file beside a costly file that says what it is a function of."""
    return path.with_name(f"{path.name}{KEY}")
