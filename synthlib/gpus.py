"""GPUs of this machine: which there are, and a claim on one of them for each process that works on it."""

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from synthlib.inputs import InputError, choose
from synthlib.locks import claim

VISIBLE = "CUDA_VISIBLE_DEVICES"  # what CUDA's own libraries read; one device in it is cuda:0 of the process


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by UUID where nvidia-smi tells it: those of CUDA_VISIBLE_DEVICES, else all there are.

    InputError: they are, or may be, of several models; an image depends on the model, so that a set must be drawn on one.
    """
    models = _models()
    found, mixed = list(models), len(set(models.values())) > 1
    if VISIBLE in os.environ:
        given = [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip() not in ("", "-1")]
        # A GPU has one name here, or it would be claimed under each. Among several models CUDA may count otherwise.
        numbered = all(name.isdigit() and int(name) < len(found) for name in given) and not mixed
        found = [found[int(name)] for name in given] if numbered else given
    if mixed and len({models.get(name, name) for name in found}) > 1:
        there = ", ".join(f"{uuid} ({name})" for uuid, name in models.items())
        raise InputError(
            f"these GPUs are of several models, and images depend on the model: {there}; name those to use, of one model, "
            f"with {VISIBLE}=UUID,UUID."
        )
    return found


def _models() -> dict[str, str]:
    """UUID -> model of this machine's GPUs, in the order of nvidia-smi's numbers; {} where it does not answer."""
    if not shutil.which("nvidia-smi"):
        return {}
    query = ["nvidia-smi", "--query-gpu=uuid,name", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True)
    return dict(line.split(", ", 1) for line in done.stdout.splitlines()) if done.returncode == 0 else {}


def chosen_gpus(words: str) -> list[str]:
    """The GPUs that "all", or a list such as "0,2" of places among the visible ones, means. InputError: there is none."""
    there = visible_gpus()
    if not there:
        raise InputError(
            f"--gpus is {words!r}, but there is no GPU here that nvidia-smi or {VISIBLE} names; leave it out."
        )
    if words == "all":
        return there
    places = [str(place) for place in range(len(there))]
    return [there[int(choose("GPU", place.strip(), places))] for place in words.split(",")]


def _private_folder(folder: Path) -> Path:
    """A folder, made if it is not there, that nobody but this user can write into. InputError: it is a link, or others can."""
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        mine = stat.S_ISDIR(found.st_mode) and found.st_uid == getattr(os, "getuid", lambda: found.st_uid)()
        if mine and not found.st_mode & 0o022:  # earlier versions let others read
            folder.chmod(0o700)
            return folder
        why = "it is a link, another user's, or others may write there"
    except OSError as error:
        why = error.strerror
    raise InputError(
        f"cannot claim a GPU in {folder}: {why}; expected a folder that only you can use: remove it, or set TMPDIR to another."
    )


@contextlib.contextmanager
def own_gpu(device: str) -> Iterator[str]:
    """While in here one GPU is this process's own, and the only one that it and what it starts can see; gives its name.

    Waits until one is free. "" where none is to be claimed: `device` is no GPU or names one by number, or there is none. The
    claim is a file lock of the user on this machine, freed by the end of the process; among the GPUs that Slurm gave a job,
    which may call them 0 and 1 in each of its jobs, it is one of that job. InputError: somebody else made the folder of these
    files, which everybody may do.
    """
    there = visible_gpus() if device in ("auto", "cuda") else []
    if not there:
        yield ""
        return
    of = [str(os.getuid()) if hasattr(os, "getuid") else "user", os.environ.get("SLURM_JOB_ID", "")]
    home = _private_folder(Path(tempfile.gettempdir()) / "-".join(["synthlib-gpus", *filter(None, of)]))
    told = False
    while True:
        for name in there:
            lock = claim(home / f"{name.replace('/', '-')}.lock", wait=False)
            if lock is None:
                continue
            before = os.environ.get(VISIBLE)
            os.environ[VISIBLE] = name
            try:
                with lock:
                    yield name
            finally:
                os.environ.pop(VISIBLE)
                os.environ |= {VISIBLE: before} if before is not None else {}
            return
        if not told:
            print(f"Waiting for one of {len(there)} GPUs, which other processes use.", flush=True)
            told = True
        time.sleep(1)
