"""Mirror: a second folder, on a drive that outlives this machine, that gets each finished file of a run and gives it back.

`$SYNTHLIB_MIRROR` names it; without it nothing here does anything. Files are written locally and copied once they are whole,
so that a slow, full or vanished drive never harms a run. What comes back counts only if keys and sha256 fit, as anything
found in a run's folder.
"""

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from synthlib import digests, paths

VARIABLE = "SYNTHLIB_MIRROR"
MIRRORED = ("papermill_runs", "figures")  # the folders below the root; the committed figures/reference is never written
RECEIPT = "receipt.json"
KEY = ".key"
CUT_OFF = ".part"  # the last letters of the name under which a file is copied
ABANDONED_S = 3600  # so old is what a copy that was cut off left behind, and nobody writes it any more
_told: set[str] = set()


def folder() -> Path | None:
    """The mirror's folder, as `$SYNTHLIB_MIRROR` names it; None without it."""
    return Path(os.environ[VARIABLE]).absolute() if os.environ.get(VARIABLE) else None


def keep(*files: Path) -> None:
    """Copy finished files into the mirror, in this order: what vouches for others (a key, a receipt) comes last.

    Files outside the run and figure folders are left out. An error of the mirror is one printed line, never an exception.
    """
    for file in files:
        place = _place(file)
        if place is None:
            continue
        try:
            _copy(file, place)
        except OSError as error:
            _tell(f"could not copy {place.name}: {error.strerror or error}")
            return


def keep_step(receipt: Path, outputs: Iterable[Path]) -> None:
    """Copy what the mirror lacks of a finished step's outputs, and their keys, then its receipt.

    A costly file whose key is in the mirror already was copied when it was made; the others are small, and copied again.
    """
    for file in outputs:
        key = file.with_name(file.name + KEY)
        if not key.is_file():
            keep(file)
        elif not _same(key) or not _same_size(file):
            keep(file, key)
    keep(receipt)


def catch_up() -> None:
    """Copy what was finished before there was a mirror, or while it did not answer: costly files, and whole steps."""
    if folder() is None:
        return
    home = paths.root() / MIRRORED[0]
    for key in sorted(home.rglob(f"*{KEY}")):
        file = key.with_name(key.name.removesuffix(KEY))
        if file.is_file() and not file.name.startswith("part-") and not (_same(key) and _same_size(file)):
            keep(file, key)
    for receipt in sorted(home.rglob(RECEIPT)):
        made = json.loads(receipt.read_text(encoding="utf-8"))["outputs"]
        if not _same(receipt) and all((receipt.parent / name).is_file() for name in made):
            keep_step(receipt, [receipt.parent / name for name in made])


def drop(*files: Path) -> None:
    """Remove files that are no longer wanted, so that they do not come back."""
    for file in files:
        place = _place(file)
        if place is not None:
            try:
                place.unlink(missing_ok=True)
            except OSError as error:
                _tell(f"could not remove {place.name}: {error.strerror or error}")


def bring_back() -> int:
    """Copy what the mirror has and this machine lacks; returns how many files came.

    A costly file comes with its key, and a receipt only after all that it tells of is here with its sha256. Nothing that is
    here is replaced, but for a key without its file. Says what came in one line.
    """
    source = folder()
    try:
        there = (
            sorted(path for name in MIRRORED for path in (source / name).rglob("*") if path.is_file()) if source else []
        )
    except OSError as error:
        _tell(f"could not be read: {error.strerror or error}")
        there = []
    if not there:
        return 0
    came = size = 0
    receipts: list[Path] = []
    for place in there:
        here = paths.root() / place.relative_to(source)
        if place.name.startswith("."):
            if place.name.endswith(CUT_OFF) and time.time() - place.stat().st_mtime > ABANDONED_S:
                drop(here)
        elif place.name == RECEIPT:
            receipts.append(place)
        elif place.name.endswith(KEY):
            data, data_here = place.with_name(place.name.removesuffix(KEY)), here.with_name(here.name.removesuffix(KEY))
            if data.is_file() and not data_here.exists():
                came, size = _bring(data, data_here, came, size)
                came, size = _bring(place, here, came, size, replace=True)
        elif not place.with_name(place.name + KEY).exists():
            came, size = _bring(place, here, came, size)
    for place in receipts:
        here = paths.root() / place.relative_to(source)
        if not here.exists() and _all_here(place, here.parent):
            came, size = _bring(place, here, came, size)
    print(f"{came} files ({size / 1e6:.1f} MB) came back from {source}.", flush=True)
    return came


def _bring(place: Path, here: Path, came: int, size: int, replace: bool = False) -> tuple[int, int]:
    """Copy one file of the mirror, unless there is one here; the counts of files and bytes with it."""
    if here.exists() and not replace:
        return came, size
    try:
        _write(place, here)
    except OSError as error:
        print(f"mirror: could not bring back {place.name}: {error.strerror or error}; it is made again.", flush=True)
        return came, size
    return came + 1, size + here.stat().st_size


def _all_here(receipt: Path, here: Path) -> bool:
    """Whether all that a receipt tells of is in the step's folder here, byte for byte."""
    try:
        made: dict[str, Any] = json.loads(receipt.read_text(encoding="utf-8"))["outputs"]
    except (OSError, ValueError, KeyError):
        return False
    # Figures are named with ..
    told = {Path(os.path.normpath(here / name)): one["sha256"] for name, one in made.items()}
    return all(path.is_file() and digests.sha256_file(path) == sha256 for path, sha256 in told.items())


def _place(file: Path) -> Path | None:
    """Where a file lies in the mirror; None without a mirror, or for a file that is not mirrored."""
    target = folder()
    if target is None:
        return None
    inside = Path(os.path.normpath(paths.root() / file))  # outputs of a step may be named with ..
    if not any(inside.is_relative_to(paths.root() / name) for name in MIRRORED):
        return None
    return target / inside.relative_to(paths.root())


def _copy(file: Path, place: Path) -> None:
    """Copy into the mirror; its own folder is not made, for without it the drive is not there."""
    if not folder().is_dir():
        raise FileNotFoundError(None, f"there is no folder {folder()} (any more)")
    _write(file, place)


def _write(source: Path, target: Path) -> None:
    """Copy a file so that it is there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{platform.node()}.{os.getpid()}{CUT_OFF}")
    try:
        with open(source, "rb") as original, open(temporary, "wb") as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        os.replace(temporary, target)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _same(file: Path) -> bool:
    """Whether the mirror has a small file with these bytes."""
    place = _place(file)
    try:
        return place is None or place.read_bytes() == file.read_bytes()
    except OSError:
        return False


def _same_size(file: Path) -> bool:
    place = _place(file)
    try:
        return place is None or place.stat().st_size == file.stat().st_size
    except OSError:
        return False


def _tell(what: str) -> None:
    """One line about the mirror, once for each thing that it cannot do."""
    if what not in _told:
        _told.add(what)
        print(f"mirror: {what}; the run goes on and keeps its files here, only the mirror lacks them.", flush=True)
