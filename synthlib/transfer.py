"""Transfer: one file from a web server: resumed where it was cut off, bounded, and verified before it gets its name.

A partial file lies beside it, as NAME.part, until it is whole or known to be wrong.
"""

import contextlib
import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from synthlib.inputs import InputError

SPARE = 1_000_000_000  # bytes left free on a disk by a file whose size nobody says
PLAIN = {"Accept-Encoding": "identity"}  # sizes, digests and ranges are of the plain bytes


class _TooMuchError(Exception):
    """A server sends more than there should be."""


class _BoundedFile(io.BufferedWriter):
    """A file that is appended to and refuses to grow beyond `most` bytes: a server can send without end."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._most = most

    def write(self, data: bytes) -> int:
        if self.tell() + len(data) > self._most:
            raise _TooMuchError
        return super().write(data)


class _BoundedBuffer(io.BytesIO):
    """The same in memory."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: bytes) -> int:
        if self.tell() + len(data) > self._most:
            raise _TooMuchError
        return super().write(data)


def amount(size: int) -> str:
    """A number of bytes as a reader takes it in."""
    if size < 1e5:
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def host_of(url: str) -> str:
    """ "https://example.org" of an address; without a user's name and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def refuse_offline() -> None:
    """Raises huggingface_hub's OfflineModeIsEnabled where HF_HUB_OFFLINE is set, now or at huggingface_hub's import."""
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in constants.ENV_VARS_TRUE_VALUES:
        raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")


def fetch_file(
    url: str,
    path: Path,
    name: str,
    size: int | None,
    expected: str | None,
    digest: Callable[[Path], str],
    headers: Mapping[str, str],
) -> Path:
    """Bring what `url` holds to `path`; `size` in bytes and `expected`, what `digest` must say of it, where they are known.

    A partial file of an earlier call is gone on with, unless there is no digest to tell whether the whole is of one piece;
    where it turns out to be of other content, the file is fetched once more from its start. Locking is the caller's.

    Raises InputError for what came damaged, or is more than promised or than the disk has room for, and removes it. Errors
    of the connection (huggingface_hub.errors.HTTPError, OSError, ValueError) are raised as they are; the part stays then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    if part.exists() and (expected is None or (size is not None and part.stat().st_size > size)):
        part.unlink()
    resumed = part.exists() and part.stat().st_size > 0
    wrong = _bring(url, part, name, size, expected, digest, headers)
    if wrong and resumed:
        print(f"The part of {name} that was here is of other content ({wrong}): fetched anew.", flush=True)
        part.unlink()
        wrong = _bring(url, part, name, size, expected, digest, headers)
    if wrong:
        part.unlink()
        raise InputError(
            f"{name} came damaged from {host_of(url)} ({wrong}) and was removed; fetch it again, or choose another source "
            "or revision."
        )
    return part.replace(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without huggingface_hub's lines about each try: what it comes to is said once."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _bring(
    url: str,
    part: Path,
    name: str,
    size: int | None,
    expected: str | None,
    digest: Callable[[Path], str],
    headers: Mapping[str, str],
) -> str:
    """Append what `part` lacks; what is wrong with it then, or ""."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get

    most = size
    if size is None:
        most = max(shutil.disk_usage(part.parent).free - SPARE, 0) + (part.stat().st_size if part.exists() else 0)
    try:
        with _quiet(), _BoundedFile(part, most) as out:
            start = out.tell()
            headers = {**PLAIN, **headers}
            try:
                http_get(url, out, resume_size=start, headers=headers, expected_size=size, displayed_filename=name)
            except OSError as error:
                if type(error) is not OSError or error.errno:
                    raise  # the rest is http_get's complaint that the answer is not of the size promised
                return f"{out.tell()} bytes, not the {size or 'number'} promised"
            out.flush()
            os.fsync(out.fileno())
    except _TooMuchError:
        if size is not None:
            return f"more than the {size} bytes promised"
        part.unlink()
        raise InputError(
            f"{name} from {host_of(url)} is more than the {amount(most)} that {part.parent} has room for, and was removed; "
            "make room there, or give a folder on another disk."
        )
    except HfHubHTTPError as error:
        if start and error.response.status_code == 416:
            return "longer than the server's file"
        raise
    if expected is not None and (found := digest(part)) != expected:
        return f"digest {found[:12]}, not the {expected[:12]} promised"
    return ""


def fetch_small(url: str, name: str, most: int) -> bytes:
    """An answer of at most `most` bytes, in memory. Raises errors of the connection as `fetch_file`; ValueError if longer."""
    from huggingface_hub.file_download import http_get

    buffer = _BoundedBuffer(most)
    try:
        with _quiet():
            http_get(url, buffer, headers=PLAIN, displayed_filename=name)
    except _TooMuchError:
        raise ValueError(f"more than {most} bytes")
    return buffer.getvalue()
