"""Files: written so that each is there whole or not at all, and the names of those that vouch for others."""

import contextlib
import glob
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


def cut_off(path: Path) -> Path:
    """The hidden name, of this process alone, under which a file or folder is written until it is whole."""
    return path.with_name(f".{_start(path.name)}.{platform.node()}.{os.getpid()}{CUT_OFF}")


def _start(name: str) -> str:
    return name.encode()[:100].decode(errors="ignore")  # a name may be as long as a file system allows


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which takes its place at `path`, synced, once all is written; an error leaves nothing."""
    temporary = cut_off(path)
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
        with whole_file(path) as file:
            file.write(data)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; expected a folder that can be written, with space left."
        )


def copy_atomic(source: Path, target: Path) -> None:
    """Copy a file so that the copy is there whole or not at all. OSError: one of them cannot be read or written."""
    with open(source, "rb") as original, whole_file(target) as copy:
        shutil.copyfileobj(original, copy, 1 << 20)


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically, one key a line."""
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON value in a file, or None where there is no such file or it is not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return None


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is only Git LFS's note of where the real one is, as a clone without git-lfs leaves it."""
    with open(path, "rb") as file:
        return file.read(24) == b"version https://git-lfs."


def remove_cut_off(folder: Path, name: str = "") -> None:
    """Remove what writes that a kill cut off, on this machine, left in a folder: of all files, or of the one of a name."""
    of = glob.escape(_start(name)) if name else "*"
    for left in folder.glob(f".{of}.{glob.escape(platform.node())}.*{CUT_OFF}"):
        pid = left.name.removesuffix(CUT_OFF).rpartition(".")[2]
        if not psutil.pid_exists(int(pid)) or int(pid) == os.getpid():
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def key_file(path: Path) -> Path:
    """The file beside a costly file that says what it is a function of."""
    return path.with_name(f"{path.name}{KEY}")
