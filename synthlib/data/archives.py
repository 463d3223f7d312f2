"""Archives: the images in a .tar.gz that a stranger made; none of its names is ever written to disk."""

import functools
import gzip
import io
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from synthlib.inputs import InputError


class SourceError(InputError):
    """Images that others made are not as they should be, wherever they were to go."""


SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
# Images hardly compress, so that an honest archive grows little; text beside them may. The sum is for small archives.
RATIO = 20
SLACK = 64 * 2**20  # bytes
MEMBERS = 2_000_000  # ImageNet has 1.3 million; each costs the memory of its name
READ = 2**20  # bytes decompressed at once


def is_image(name: str) -> bool:
    """Whether a path is an image's by its suffix, and neither hidden nor one of macOS's leftovers (._*, __MACOSX)."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in SUFFIXES


def read_archive(
    path: Path, folder: Path | None = None, bound: int | None = None
) -> list[tuple[str, Callable[[], bytes]]]:
    """(posix path within the archive, how to read its bytes) of each image (see is_image), in the archive's order.

    All members are checked, also those that are no images, before anything is returned. The plain tar waits in a nameless file
    in `folder`, by default the system's for temporary files. bound: the most bytes that it may have; None: RATIO times the
    archive's size, and SLACK.

    Raises SourceError for a member that is no plain file or folder, whose name leads out of the archive or was there before,
    for more bytes or members than an honest archive has, and for what is damaged or no .tar.gz.
    """
    try:
        plain = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (open as long as an image may be read)
        bound = RATIO * path.stat().st_size + SLACK if bound is None else bound
        with gzip.open(path) as stream:
            while data := stream.read(READ):
                if plain.tell() + len(data) > bound:
                    raise SourceError(
                        f"{path} holds more than {bound} bytes when decompressed, which no honest archive of images of its "
                        "size does; fetch it again, from its authors."
                    )
                plain.write(data)
        plain.seek(0)
        with tarfile.open(fileobj=plain, mode="r:") as tar:
            places = _images(path, tar, bound)
            plain.seek(tar.offset)
            if plain.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise _damaged(path, "it has no end")  # tarfile takes a header that it cannot read for one
    except (tarfile.TarError, EOFError, ValueError, MemoryError, OverflowError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, str(error))
    except OSError as error:
        raise InputError(
            f"cannot unpack {path}: {error.strerror}; expected a .tar.gz that can be read, and room for it in "
            f"{folder or tempfile.gettempdir()}."
        )
    return [(name, functools.partial(_slice, plain, *place)) for name, place in places.items()]


def _slice(file: io.BufferedIOBase, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def _images(path: Path, tar: tarfile.TarFile, bound: int) -> dict[str, tuple[int, int]]:
    """Where in the tar each image's bytes are: (offset, size)."""
    found: dict[str, tuple[int, int]] = {}
    seen: set[str] = set()
    while member := tar.next():
        tar.members.clear()  # else each stays in memory
        _check(path, member, bound)
        name = PurePosixPath(member.name).as_posix()
        if name in seen or len(seen) >= MEMBERS:
            raise _refused(path, name, "is in it twice" if name in seen else f"comes after {MEMBERS} others")
        if member.isfile():
            seen.add(name)
            if is_image(name):
                found[name] = (member.offset_data, member.size)
    return found


def _check(path: Path, member: tarfile.TarInfo, bound: int) -> None:
    """Refuse a member that is no plain file or folder, or whose name is not one within the archive."""
    name = member.name
    if not (member.isreg() or member.isdir()) or member.issparse():
        kinds = {
            "islnk": "a hard link",
            "issym": "a symbolic link",
            "isdev": "a device or a fifo",
            "issparse": "a sparse file",
        }
        raise _refused(
            path, name, f"is {next((w for k, w in kinds.items() if getattr(member, k)()), 'of an unknown kind')}"
        )
    if not 0 <= member.size <= bound:
        raise _refused(path, name, f"claims {member.size} bytes")
    absolute = name.startswith("/") or re.match("[A-Za-z]:", name)  # data_filter would strip a slash and say nothing
    control = any(ord(letter) < 32 or ord(letter) == 127 for letter in name)
    if not name or absolute or control or "\\" in name or ".." in name.split("/"):
        raise _refused(path, name, "has a name that leads out of it, or may elsewhere")
    try:
        tarfile.data_filter(member, "/nowhere")
    except tarfile.FilterError as error:
        raise _refused(path, name, f"is refused by Python ({type(error).__name__})")


def _refused(path: Path, name: str, why: str) -> SourceError:
    short = name if len(name) <= 100 else f"{name[:100]}..."
    return SourceError(
        f"{path}: its member {short!r} {why}; expected plain files and folders, nothing of it is used: fetch it again, from "
        "its authors."
    )


def _damaged(path: Path, why: str) -> SourceError:
    return SourceError(f"{path} is damaged, or no .tar.gz ({why}); remove it and fetch it again.")
