"""One claim mechanism: an OS file lock held by the process that does the work, and freed by its death."""

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import psutil

from synthlib.inputs import InputError

DRIVER_VARIABLE = "SYNTHLIB_DRIVER"  # "pid:start time" of the process that started this one to do a step


def process_id(pid: int | None = None) -> str:
    """A process named so that a later one of the same number is not taken for it: "pid:start time"."""
    process = psutil.Process(pid)
    return f"{process.pid}:{process.create_time():.2f}"


def alive(identity: str) -> bool:
    """Whether a process named by `process_id` still runs."""
    pid, start = identity.split(":")
    try:
        process = psutil.Process(int(pid))
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - float(start)) < 0.05
    except psutil.NoSuchProcess:
        return False


def terminate(identity: str) -> psutil.Process | None:
    """Send SIGTERM to a process named by `process_id`; None where it is gone, or another user's."""
    try:
        process = psutil.Process(int(identity.partition(":")[0]))
        if alive(identity):
            process.terminate()
            return process
    except psutil.Error:
        pass
    return None


def _holds(identity: str, path: Path) -> bool:
    """Whether a process named by `process_id` has a file open."""
    with contextlib.suppress(psutil.Error, OSError):
        return any(
            os.path.samefile(file.path, path) for file in psutil.Process(int(identity.split(":")[0])).open_files()
        )
    return False


class Lock:
    """A claim that is held; `release` gives it back, as does the end of the process."""

    def __init__(self, lock: filelock.BaseFileLock) -> None:
        self._lock = lock

    def release(self) -> None:
        """Give the claim back."""
        self._lock.release(force=True)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _end_orphan(owner: dict, path: Path) -> None:
    """End the process that holds a lock if whoever started it for this step is gone; it would work for nobody.

    Of a process of another machine, which shares the folder, nothing is known here. One that does not hold the lock file open
    stays, whatever is written beside that.
    """
    driver = owner.get("driver")
    if owner.get("machine") == platform.node() and driver and not alive(driver) and _holds(owner["process"], path):
        process = terminate(owner["process"])
        if process is not None:
            what = f"process {process.pid}, left over from an interrupted run, which still holds {path.parent.name}"
            print(f"Ending {what}.", flush=True)
            with contextlib.suppress(psutil.NoSuchProcess):  # it may die by itself just now
                try:
                    process.wait(timeout=10)
                except psutil.TimeoutExpired:
                    process.kill()


def _owner_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.owner")


def _owner(path: Path) -> dict:
    """What is known of the holder of a lock file; {} while it is just writing that, or where it is no such file."""
    try:
        owner = json.loads(_owner_file(path).read_text())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) and isinstance(owner.get("process"), str) else {}


def _named(owner: dict) -> str:
    if not owner:
        return "another process"
    return f"process {owner['process'].partition(':')[0]} of {owner.get('machine', 'an unnamed machine')}"


def claim(path: Path, wait: bool = True, check: Callable[[], None] = lambda: None) -> Lock | None:
    """Take the lock file at `path`, waiting for its holder or, with wait=False, returning None if there is one.

    While it waits it calls `check`, which may raise. An orphan of an interrupted run is ended. Raises InputError where the
    folder cannot be written, or files in it cannot be locked.
    """
    lock = filelock.FileLock(path, is_singleton=True)  # a notebook cell run again holds the lock already
    told = False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            # So it becomes where there is no flock, and its holder's death would not free it.
            if isinstance(lock, filelock.SoftFileLock):
                lock.release(force=True)
                raise InputError(
                    f"files in {path.parent} cannot be locked; expected a file system with flock: mount it so (Lustre: -o "
                    "flock), or keep runs elsewhere."
                )
            owner = {"machine": platform.node(), "process": process_id(), "driver": os.environ.get(DRIVER_VARIABLE)}
            _owner_file(path).write_text(json.dumps(owner))
            return Lock(lock)
        except filelock.Timeout:
            if not wait:
                return None
        except OSError as error:
            raise InputError(f"cannot write into {path.parent}: {error.strerror}; give a folder that can be written.")
        owner = _owner(path)
        if owner:
            _end_orphan(owner, path)
        if owner and not told:
            print(f"Waiting for {_named(owner)}, which works on {path.parent}.", flush=True)
            told = True
        check()
        time.sleep(0.2)


@contextlib.contextmanager
def claim_output(path: Path, wait: bool = False) -> Iterator[None]:
    """Claim a file or folder for the command that is about to make it, by a lock file beside it that goes with the claim.

    Where another process has it, and is not to be waited for, InputError says whose it is: of two, each would leave a part.
    """
    beside = path.with_name(f".{path.name}.lock")
    lock = claim(beside, wait)
    if lock is None:
        raise InputError(
            f"{path} is being written by {_named(_owner(beside))}; expected one command at a time: wait for it, or give another "
            "place."
        )
    try:
        yield
    finally:
        for file in (_owner_file(beside), beside):  # before the release, after which it may be somebody else's
            file.unlink(missing_ok=True)
        lock.release()
