"""Progress: a bar where someone is watching, one plain line every 30 s in batch (tqdm.auto freezes in executed notebooks)."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 30


def watched() -> bool:
    """Whether a person sees this process: a terminal, or a notebook that no driver executes."""
    in_kernel = "ipykernel" in sys.modules
    return (in_kernel and "SYNTHLIB_DRIVER" not in os.environ) or (not in_kernel and sys.stderr.isatty())


@contextlib.contextmanager
def meter(what: str, total: int | None, unit: str) -> Iterator[Callable[..., None]]:
    """Show how far `total` units are, how fast and how long it still takes.

    Gives a function add(count, free, note=""): so many more are there; those that are free (found, not made) do not count as
    speed; a note stands behind the figures until the next one.
    """
    start = shown = time.monotonic()
    done = gratis = 0
    said = None
    bar = tqdm(desc=what, total=total, unit=unit) if watched() else None

    def add(count: int, free: bool, note: str = "") -> None:
        nonlocal shown, done, gratis, said
        said = note or said
        done += count
        gratis += count if free else 0
        now = time.monotonic()
        if bar is not None:
            bar.initial = gratis
            if note:
                bar.set_postfix_str(note, refresh=False)
            bar.update(count)
        elif now - shown >= SECONDS_BETWEEN_LINES:
            shown = now
            print(
                tqdm.format_meter(done, total, now - start, prefix=what, unit=unit, initial=gratis, postfix=said),
                flush=True,
            )

    with bar or contextlib.nullcontext():
        yield add


def progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Pass `items` on and show how far they are, how fast and how long it still takes."""
    total = total if total is not None or not isinstance(items, Sized) else len(items)
    with meter(what, total, unit) as add:
        for item in items:
            yield item
            add(1, False)
