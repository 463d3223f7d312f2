"""Mirror: a second folder, on a drive that outlives this machine, that gets each finished file of a run and gives it back.

`$SYNTHLIB_MIRROR` names it; without it nothing here does anything. Files are written locally and copied once they are whole,
so that a slow, full or vanished drive never harms a run. What comes back counts only if keys and sha256 fit, as anything
found in a run's folder.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from synthlib import digests, paths
from synthlib.files import CUT_OFF, KEY, PLAN, RECEIPT, copy_atomic, key_file, read_json

VARIABLE = "SYNTHLIB_MIRROR"
MIRRORED = ("papermill_runs", "figures")  # the folders below the root; the committed figures/reference is never written
ABANDONED_S = 3600  # so old is what a copy that was cut off left behind, and nobody writes it any more
_told: set[str] = set()


def folder() -> Path | None:
    """The mirror's folder, as `$SYNTHLIB_MIRROR` names it; None without it."""
    return Path(os.environ[VARIABLE]).absolute() if os.environ.get(VARIABLE) else None


def keep(*files: Path) -> None:
    """Copy finished files into the mirror, in this order: what vouches for others (a key, a receipt) comes last.

    Files outside the run and figure folders are left out. An error of the mirror is one printed line, never an exception,
    and what comes after it in `files` is not copied.
    """
    for file in files:
        place = _place(file)
        if place is None:
            continue
        try:
            _copy(file, place)
        except OSError as error:
            _tell(f"{error.strerror or error}", f"could not copy {place.name}")
            return


def keep_step(receipt: Path, outputs: Iterable[Path]) -> None:
    """Copy what the mirror lacks of a finished step's outputs, and their keys, then its receipt.

    A costly file whose key is in the mirror already was copied when it was made; the others are small, and copied again.
    Where one of them cannot be copied the receipt is not, so that `catch_up` tries again.
    """
    wanted: list[Path] = []
    for file in outputs:
        key = key_file(file)
        if not key.is_file():
            wanted.append(file)
        elif not _same(key) or not _same_size(file):
            wanted += [file, key]
    keep(*wanted, receipt)


def catch_up() -> None:
    """Copy what was finished before there was a mirror, or while it did not answer: costly files, and whole steps."""
    if folder() is None:
        return
    home = paths.root() / MIRRORED[0]
    for plan in sorted(home.rglob(PLAN)):  # before its shards, which would be another plan's without it
        if not _same(plan):
            keep(plan)
    for key in sorted(home.rglob(f"*{KEY}")):
        file = key.with_name(key.name.removesuffix(KEY))
        if file.is_file() and not file.name.startswith("part-") and not (_same(key) and _same_size(file)):
            keep(file, key)
    for receipt in sorted(home.rglob(RECEIPT)):
        made = (read_json(receipt) or {}).get("outputs", {})  # gone meanwhile, where a step has just begun anew
        if made and not _same(receipt) and all((receipt.parent / name).is_file() for name in made):
            keep_step(receipt, [receipt.parent / name for name in made])


def drop(*files: Path) -> None:
    """Remove files that are no longer wanted, so that they do not come back."""
    for file in files:
        place = _place(file)
        if place is not None:
            try:
                place.unlink(missing_ok=True)
            except OSError as error:
                _tell(f"{error.strerror or error}", f"could not remove {place.name}")


def bring_back() -> int:
    """Copy what the mirror has and this machine lacks; returns how many files came.

    A costly file comes with its key, and a receipt only after all that it tells of is here with its sha256. Nothing that is
    here is replaced, but for a key without its file. Says what came in one line, and in one what the mirror cannot do.
    """
    source = folder()
    if source is None:
        return 0
    try:
        there = sorted(path for name in MIRRORED for path in (source / name).rglob("*") if path.is_file())
    except OSError as error:
        _tell(f"{error.strerror or error}", "could not be read")
        return 0
    came: list[Path] = []
    failed: list[str] = []
    for place in sorted(there, key=lambda path: path.name == RECEIPT):  # receipts last
        try:
            for copy, target in _wanted(place, paths.root() / place.relative_to(source)):
                copy_atomic(copy, target)
                came.append(target)
        except OSError as error:
            failed.append(f"{place.name}: {error.strerror or error}")
    if came:
        size = sum(path.stat().st_size for path in came)
        print(f"{len(came)} files ({size / 1e6:.1f} MB) came back from {source}.", flush=True)
    if failed:
        print(f"mirror: {len(failed)} files could not be brought back, and are made again; {failed[0]}", flush=True)
    return len(came)


def _wanted(place: Path, here: Path) -> list[tuple[Path, Path]]:
    """What is to be copied for a file of the mirror whose place here is `here`: (from, to), none if nothing is."""
    if place.name.startswith("."):
        if place.name.endswith(CUT_OFF) and time.time() - place.stat().st_mtime > ABANDONED_S:
            drop(here)
        return []
    if place.name == RECEIPT:
        return [(place, here)] if not here.exists() and _all_here(place, here.parent) else []
    if place.name.endswith(KEY):
        data, data_here = place.with_name(place.name.removesuffix(KEY)), here.with_name(here.name.removesuffix(KEY))
        return [(data, data_here), (place, here)] if data.is_file() and not data_here.exists() else []
    return [] if here.exists() or key_file(place).exists() else [(place, here)]


def _all_here(receipt: Path, here: Path) -> bool:
    """Whether all that a receipt tells of is in the step's folder here, byte for byte."""
    made = (read_json(receipt) or {}).get("outputs")
    if made is None:
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
    copy_atomic(file, place)


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


def _tell(why: str, what: str) -> None:
    """One line about what the mirror cannot do, once for each reason."""
    if why not in _told:
        _told.add(why)
        print(
            f"mirror: {what}: {why}; the run goes on and keeps its files here, only the mirror lacks them.", flush=True
        )
