"""Records: files of Zenodo's records, fetched with their checksums; nothing that a server says is taken on trust.

SYNTHLIB_ZENODO and SYNTHLIB_CIFAR, addresses of mirrors, count as they are at the call.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from synthlib import digests, transfer
from synthlib.files import read_json, write_json
from synthlib.inputs import InputError
from synthlib.locks import claim

ZENODO = "https://zenodo.org"
FIRST_USE = "first_use.json"  # name -> sha256 of the first copy of what has no checksum
METADATA = 16_000_000  # bytes of a record's listing; 100 files are 50 kB
NO_CHECKSUM = "no checksum could be had"


@dataclass(frozen=True)
class RecordFile:
    """A file to fetch. size: bytes; licence: "" if not stated; record: "" if of none; note: what a reader should know;
    elsewhere: where else it can be had, in words.
    """

    name: str
    url: str
    size: int | None
    md5: str | None
    licence: str
    record: str
    note: str
    elsewhere: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.+-]*", self.name) or not re.fullmatch(r"\d*", self.record):
            raise InputError(
                f"{self.name!r} of record {self.record!r} cannot be fetched; expected a plain file name and a number."
            )


class _AbsentError(Exception):
    """A record is gone, or does not list a file; says which."""


def mirror(variable: str, usual: str) -> str:
    """The address in an environment variable, or the usual one. InputError: it is none."""
    base = os.environ.get(variable, "").rstrip("/") or usual
    if base and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", base):
        raise InputError(f"{variable} is {base!r}; expected an address such as {usual or ZENODO}.")
    return base


def find_file(name: str, record: str, fallback: str = "") -> RecordFile:
    """What is known of a record's file, by its listing; where it is not in `record`, by that of `fallback`.

    Where there is no listing or no checksum in it, md5 is None, as `note` then says. InputError, naming the host, where
    the file is in neither record or nobody answers.
    """
    base = mirror("SYNTHLIB_ZENODO", ZENODO)
    absent = []
    for number in filter(None, (record, fallback)):
        url = f"{base}/record/{number}/files/{quote(name)}?download=1"  # as the authors write it
        elsewhere = f"fetch {url} with a browser and `synthlib import` the file, or name a mirror in SYNTHLIB_ZENODO"
        blank = RecordFile(name, url, None, None, "", number, "", elsewhere)
        try:
            found = _look_up(base, blank)
        except _AbsentError as error:
            absent.append(str(error))
            continue
        except (OSError, ValueError) as error:
            raise _refusal(error, blank, "")
        instead = [f"{'; '.join(absent)}: from record {number} instead"] if absent else []
        return replace(found, note="; ".join([*instead, *filter(None, [found.note])]))
    raise InputError(f"no {name} at {transfer.host_of(base)} ({'; '.join(absent)}); check its name and record there.")


def fetch(file: RecordFile, folder: Path) -> tuple[Path, str]:
    """Bring a file into `folder`, after one line that says what, how big, under which licence, from where; (path, sha256).

    What is there already and verified is not fetched again. Without an md5 the sha256 of the first copy is remembered in
    `folder`, and another is refused. InputError, in one line, for whatever goes wrong; a partial file is gone on with.
    """
    path = folder / file.name
    with claim(folder / f".{file.name}.lock"):  # two at once fetch once
        first = None if file.md5 else _first_uses(folder).get(file.name)
        expected = file.md5 or first
        there = path.is_file() and (digest(path, expected) == expected if expected else _plausible(path, file.size))
        if not there:
            try:
                _download(file, path, expected)
            except (OSError, ValueError) as error:
                raise _refusal(error, file, f"what came is kept in {folder}" if expected else "")
            except InputError as error:
                if not first:
                    raise
                raise InputError(
                    f"{error} Without a checksum the first copy counts (sha256 {first}); to trust another, remove "
                    f"{file.name} from {folder / FIRST_USE}."
                )
        sha256 = digests.sha256_file(path)
        if not expected:
            if not _plausible(path, file.size):
                path.unlink()
                raise InputError(
                    f"{file.name} from {transfer.host_of(file.url)} is no gzip file, perhaps a page, and was removed; check "
                    f"the proxy; {file.elsewhere}."
                )
            _remember(folder, file.name, sha256)
            print(f"{NO_CHECKSUM} for {file.name}: this first copy is trusted, sha256 {sha256}", flush=True)
    return path, sha256


def with_size(file: RecordFile) -> RecordFile:
    """The same with the size that its server says, or none where it says none: `fetch` tells what else goes wrong."""
    try:
        return replace(file, size=_size_by_head(file))
    except (_AbsentError, OSError, ValueError):
        return file


def forget(file: RecordFile, folder: Path) -> None:
    """Remove a copy that was trusted on first use and turned out to be none of what it should be."""
    with claim(folder / f".{file.name}.lock"):
        (folder / file.name).unlink(missing_ok=True)
        _remember(folder, file.name, None)


def digest(path: Path, like: str) -> str:
    """A file's digest of the kind of `like`: md5 or sha256, as hexadecimal."""
    with open(path, "rb") as file:
        kind = "sha256" if len(like) == 64 else lambda: hashlib.md5(usedforsecurity=False)
        return hashlib.file_digest(file, kind).hexdigest()


def _download(file: RecordFile, path: Path, expected: str | None) -> None:
    transfer.refuse_offline()
    part = path.with_name(f"{path.name}.part")
    kept = part.stat().st_size if part.exists() and expected else 0
    need, free = (file.size or 0) - kept, shutil.disk_usage(path.parent).free
    if need > free:
        raise InputError(
            f"{file.name} needs {transfer.amount(need)} in {path.parent}, which has {transfer.amount(free)} free; make room "
            "there, or give a folder on another disk."
        )
    said = [
        "size not known" if file.size is None else transfer.amount(file.size),
        f"licence {file.licence}" if file.licence else "licence not stated",
        f"md5 {file.md5}" if file.md5 else NO_CHECKSUM,
        f"from {file.url} to {path.parent}",
        *([file.note] if file.note and file.note != NO_CHECKSUM else []),
        *(["in place of a copy there that is another"] if path.exists() else []),
    ]
    print(f"Fetching {file.name}: {', '.join(said)}", flush=True)
    sums = lambda part: digest(part, expected)  # noqa: E731
    transfer.fetch_file(file.url, path, file.name, file.size, expected, sums, {}, file.elsewhere)


def _look_up(base: str, blank: RecordFile) -> RecordFile:
    """`blank` with what the record's listing says of it, else what the file's own address says."""
    listing = _listing(base, blank.record)
    files = listing.get("files")
    entries = files.get("entries") if isinstance(files, dict) else files  # InvenioRDM's own form, and Zenodo's
    entries = list(entries.values()) if isinstance(entries, dict) else entries
    size = md5 = None
    if isinstance(entries, list):
        keys = [entry.get("key") if isinstance(entry, dict) else None for entry in entries]
        if blank.name not in keys and all(isinstance(key, str) for key in keys):
            raise _AbsentError(f"record {blank.record} does not list it")
        entry = entries[keys.index(blank.name)] if blank.name in keys else {}  # without keys it is no listing
        if type(entry.get("size")) is int and entry["size"] >= 0:
            size = entry["size"]
        checksum = re.fullmatch(r"md5:([0-9a-f]{32})", str(entry.get("checksum")))
        md5 = checksum and checksum[1]
    if not md5 and size is None:
        size = _size_by_head(blank)
    return replace(blank, size=size, md5=md5, licence=_licence(listing), note="" if md5 else NO_CHECKSUM)


def _listing(base: str, record: str) -> dict[str, Any]:
    """A record's metadata, {} where it cannot be had. Raises _AbsentError if the record is gone, and OSError where we are to
    come back later: without it there would be no checksum.
    """
    try:
        listing = json.loads(transfer.fetch_small(f"{base}/api/records/{record}", f"record {record}", METADATA))
    except (OSError, ValueError, RecursionError) as error:
        status = transfer.status_of(error)
        if status in (404, 410):
            raise _AbsentError(f"record {record} is not there, status {status}")
        if status == 429 or transfer.asked_to_wait(transfer.refusal_of(error)) is not None:
            raise
        return {}  # the file itself may answer all the same
    return listing if isinstance(listing, dict) else {}


def _size_by_head(file: RecordFile) -> int | None:
    """The bytes that a file's address says it has; None if it does not say."""
    try:
        answer = transfer.patiently(lambda: transfer.ask("HEAD", file.url, {}), file.url, file.name)
    except OSError as error:
        status = transfer.status_of(error)
        if status in (404, 410):
            raise _AbsentError(f"record {file.record} does not have it, status {status}")
        if status in (405, 501):  # a server that does not know HEAD
            return None
        raise
    length = answer.headers.get("Content-Length", "") if answer.status_code == 200 else ""
    return int(length) if re.fullmatch(r"\d{1,18}", length, re.ASCII) else None


def _licence(listing: dict[str, Any]) -> str:
    """The licence that a record names, if it is a word or two; it is printed."""
    metadata = listing.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    rights = metadata.get("rights")
    for said in (metadata.get("license"), rights[0] if isinstance(rights, list) and rights else None):
        name = said.get("id") if isinstance(said, dict) else said
        if isinstance(name, str) and re.fullmatch(r"[\w.+ -]{1,60}", name, re.ASCII):
            return name
    return ""


def _plausible(path: Path, size: int | None) -> bool:
    """Whether a file without a checksum can be what it is called: of the size said and, by its first bytes, a gzip file."""
    with open(path, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b" or not path.name.endswith("gz")
    return gzipped and size in (None, path.stat().st_size)


def _first_uses(folder: Path) -> dict[str, str]:
    known = read_json(folder / FIRST_USE)
    known = known if isinstance(known, dict) else {}
    return {name: sha for name, sha in known.items() if re.fullmatch("[0-9a-f]{64}", str(sha))}


def _remember(folder: Path, name: str, sha256: str | None) -> None:
    """Set, or with None remove, the sha256 that counts for a name."""
    with claim(folder / ".first_use.lock"):
        known = {other: sha for other, sha in _first_uses(folder).items() if other != name}
        write_json(folder / FIRST_USE, known | ({name: sha256} if sha256 else {}))


def _refusal(error: Exception, file: RecordFile, kept: str) -> InputError:
    """The one line for what went wrong between us and a record's host."""
    from huggingface_hub import errors

    host = transfer.host_of(file.url)
    what = f"{file.name} of record {file.record}" if file.record else file.name
    again = f"{kept}, and the same command goes on from there" if kept else "run the same command again"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return InputError(f"{host} is not asked for {what}, as HF_HUB_OFFLINE is set; unset it; {again}.")
    if (answer := transfer.refusal_of(error)) is not None:
        return InputError(
            f"{host} answered {answer.status_code} for {what}; {transfer.advice(answer, file.elsewhere, kept)}."
        )
    if isinstance(error, ValueError):
        return InputError(
            f"{host} does not answer for {what} as it should; check the mirror, if you named one, and the proxy; {again}."
        )
    if getattr(error, "errno", None) and not isinstance(error, (ConnectionError, TimeoutError)):
        return InputError(f"cannot write {what}: {error.strerror}; make room, or give a folder that can be written.")
    return InputError(f"{host} cannot be reached for {what} ({transfer.why(error)}); check the connection: {again}.")
