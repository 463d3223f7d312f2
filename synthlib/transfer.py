"""Transfer: one file from a web server: resumed where it was cut off, bounded, and verified before it gets its name.

A partial file lies beside it, as NAME.part, until it is whole or known to be wrong. Every request names this client.
"""

import contextlib
import email.utils
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from synthlib import REPOSITORY, __version__
from synthlib.inputs import InputError
from synthlib.progress import meter

if TYPE_CHECKING:
    import requests

T = TypeVar("T")
AGENT = f"synthlib/{__version__} (+{REPOSITORY})"  # Zenodo's and other servers refuse Python's own agents
PLAIN = {"accept-encoding": "identity", "user-agent": AGENT}  # sizes, digests and ranges are of the plain bytes
SPARE = 1_000_000_000  # bytes left free on a disk by a file whose size nobody says
CHUNK, MB = 2**16, 10**6
TIMEOUT = 20  # seconds without a byte
TRIES = 5  # to reach a server that brings nothing
WAITS, LONGEST_WAIT = 3, 60  # how often, and how many seconds at most, we wait if a server asks for it
SLOW, SLOW_AFTER = (
    200_000,
    15,
)  # bytes a second below which a transfer is slow, and the seconds after which that is told


class _TooMuchError(Exception):
    """A server sends more than there should be."""


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
    elsewhere: str,
) -> Path:
    """Bring what `url` holds to `path`; `size` in bytes and `expected`, what `digest` must say of it, where they are known.

    A partial file of an earlier call is gone on with, unless there is no digest to tell whether the whole is of one piece;
    where it turns out to be of other content, the file is fetched once more from its start. Locking is the caller's.
    elsewhere: where else the file can be had, in words; said if this server is slow.

    Raises InputError for what came damaged, or is more than promised or than the disk has room for, and removes it. Errors
    of the connection (OSError, ValueError) are raised as they are; the part stays then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    if part.exists() and (expected is None or (size is not None and part.stat().st_size > size)):
        part.unlink()
    resumed = part.exists() and part.stat().st_size > 0
    wrong = _bring(url, part, name, size, expected, digest, headers, elsewhere)
    if wrong and resumed:
        print(f"The part of {name} that was here is of other content ({wrong}): fetched anew.", flush=True)
        part.unlink()
        wrong = _bring(url, part, name, size, expected, digest, headers, elsewhere)
    if wrong:
        part.unlink()
        raise InputError(
            f"{name} came damaged from {host_of(url)} ({wrong}) and was removed; fetch it again, or choose another source "
            "or revision."
        )
    return part.replace(path)


def _bring(
    url: str,
    part: Path,
    name: str,
    size: int | None,
    expected: str | None,
    digest: Callable[[Path], str],
    headers: Mapping[str, str],
    elsewhere: str,
) -> str:
    """Append what `part` lacks; what is wrong with it then, or ""."""
    part.touch()
    had, most = part.stat().st_size, size
    if most is None:
        most = max(shutil.disk_usage(part.parent).free - SPARE, 0) + had
    try:
        patiently(
            lambda: _append(url, part, name, size, most, headers, elsewhere), url, name, lambda: part.stat().st_size
        )
    except _TooMuchError:
        if size is not None:
            return f"more than the {size} bytes promised"
        part.unlink()
        raise InputError(
            f"{name} from {host_of(url)} is more than the {amount(most)} that {part.parent} has room for, and was removed; "
            "make room there, or give a folder on another disk."
        )
    except OSError as error:
        if had and status_of(error) == 416:
            return "longer than the server's file"
        raise
    if size is not None and part.stat().st_size != size:
        return f"{part.stat().st_size} bytes, not the {size} promised"
    if expected is not None and (found := digest(part)) != expected:
        return f"digest {found[:12]}, not the {expected[:12]} promised"
    return ""


def _append(
    url: str, part: Path, name: str, size: int | None, most: int, headers: Mapping[str, str], elsewhere: str
) -> None:
    """One connection's worth: append what it brings, up to `most` bytes in all; tell once if it is slow."""
    with part.open("ab") as out:
        start = out.tell()
        if start == size:
            return
        with ask("GET", url, headers | {"range": f"bytes={start}-"} if start else headers) as answer:
            if answer.status_code != 206:
                start = out.seek(out.truncate(0))
            began, told = monotonic(), False
            large = size is None or size > MB
            with meter(name, size and size // MB, " MB") if large else contextlib.nullcontext(_silent) as add:
                add(start // MB, True)
                for chunk in answer.iter_content(CHUNK):
                    there, took = out.tell() + len(chunk), monotonic() - began
                    if there > most:
                        raise _TooMuchError
                    add(there // MB - out.tell() // MB, False)
                    out.write(chunk)
                    if not told and took >= SLOW_AFTER and there - start < SLOW * took:
                        told = True
                        speed = (there - start) / took
                        left = f", about {_span((size - there) / speed)} more" if size else ""
                        print(
                            f"{host_of(url)} is slow: {name} at {speed / 1e3:.0f} kB/s{left}; {elsewhere}.", flush=True
                        )
        out.flush()
        os.fsync(out.fileno())


def _silent(count: int, free: bool) -> None:
    """In place of a meter, for a small file."""


def fetch_small(url: str, name: str, most: int) -> bytes:
    """An answer of at most `most` bytes, in memory. Raises errors of the connection as `fetch_file`; ValueError if longer."""

    def read() -> bytes:
        data = bytearray()
        with ask("GET", url, {}) as answer:
            for chunk in answer.iter_content(CHUNK):
                data += chunk
                if len(data) > most:
                    raise ValueError(f"more than {most} bytes")
        return bytes(data)

    return patiently(read, url, name)


def ask(method: str, url: str, headers: Mapping[str, str]) -> "requests.Response":
    """An answer, its body not read yet. Raises requests' HTTPError for a status from 400 on, and other OSErrors; offline too."""
    import requests

    refuse_offline()
    as_is = lambda request: request  # noqa: E731 (an `auth`, so that nothing of the user's ~/.netrc is sent)
    answer = requests.request(method, url, headers={**PLAIN, **headers}, stream=True, timeout=TIMEOUT, auth=as_is)
    if answer.status_code >= 400:
        answer.close()
    answer.raise_for_status()
    return answer


def patiently(call: Callable[[], T], url: str, what: str, so_far: Callable[[], int] = lambda: 0) -> T:
    """What `call` gives; called again where a connection is lost, and where a server asks to wait and that is short.

    so_far: how much there is already; a connection that brought something does not count among the TRIES.
    """
    from requests import exceptions as lost

    waits, tries, before = WAITS, TRIES, so_far()
    while True:
        try:
            return call()
        except (lost.ConnectionError, lost.Timeout, lost.ChunkedEncodingError):
            now = so_far()
            tries, before = (TRIES if now != before else tries - 1), now
            if not tries:
                raise
            seconds = 1
        except OSError as error:
            seconds = asked_to_wait(refusal_of(error))
            if not waits or seconds is None or seconds > LONGEST_WAIT:
                raise
            waits -= 1
            print(
                f"{host_of(url)} answered {status_of(error)} for {what}: waiting {seconds:.0f} s, as it asks "
                f"(wait {WAITS - waits} of at most {WAITS}).",
                flush=True,
            )
        sleep(seconds)


def refusal_of(error: Exception) -> Any:
    """The answer, of whichever HTTP library, by which a server refused what was asked; None where an error is no such."""
    answer = getattr(error, "response", None)
    return answer if answer is not None and answer.status_code >= 400 else None


def status_of(error: Exception) -> int | None:
    """The status by which a server refused what was asked; None where an error is no such."""
    return getattr(refusal_of(error), "status_code", None)


def advice(answer: Any, elsewhere: str, kept: str = "") -> str:
    """What to do about an answer that is no file, to be said behind its status.

    elsewhere: where else the file can be had; kept: that what came is kept, where it is.
    """
    status, seconds = answer.status_code, asked_to_wait(answer)
    kept = kept and f" ({kept})"
    if status == 401:
        return f"it wants to know who asks: {elsewhere}"
    if status in (403, 451):
        return f"it refuses this client, {AGENT}, or this network, and would again: {elsewhere}"
    if status in (404, 410):
        return f"it does not have that: {elsewhere}"
    if seconds is not None and seconds > LONGEST_WAIT:  # else we waited in vain
        when = datetime.now() + timedelta(seconds=seconds)
        return f"it asks to come back: run the same command in {_span(seconds)}, after {when:%Y-%m-%d %H:%M}{kept}"
    if status == 429:
        return f"it has too many requests: run the same command in an hour{kept}"
    if status >= 500 or status == 408:
        return f"a fault over there: try again later{kept}"
    return f"expected the file: {elsewhere}"


def why(error: Exception) -> str:
    """The last cause that an error of a connection names, in some words."""
    said = str(error).strip().splitlines() or [type(error).__name__]
    return re.split(r"['\"]\)", said[0])[0].rpartition(": ")[2][:100].rstrip(".)'")


def asked_to_wait(answer: Any) -> float | None:
    """The seconds that an answer 429 or 503 asks to wait; None for other answers, and where it does not say."""
    if getattr(answer, "status_code", None) not in (429, 503):
        return None
    said = answer.headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]{1,9}", said):
        return int(said)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        when = email.utils.parsedate_to_datetime(said)
        return max(0, (when - datetime.now(when.tzinfo)).total_seconds())
    return None


def _span(seconds: float) -> str:
    """A time span as a reader takes it in, not rounded down."""
    length, unit = (1, "s") if seconds <= 90 else (60, "minutes") if seconds <= 5400 else (3600, "hours")
    return f"{math.ceil(seconds / length)} {unit}"
