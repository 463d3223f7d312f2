"""Progress: a bar where someone is watching, one plain line every 30 s in batch (tqdm.auto freezes in executed notebooks)."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 30


def watched() -> bool:
    """Whether a person sees this process: a terminal, or a notebook that no driver executes."""
    in_kernel = "ipykernel" in sys.modules
    return (in_kernel and "SYNTHLIB_DRIVER" not in os.environ) or (not in_kernel and sys.stderr.isatty())


def progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Pass `items` on and show how far they are, how fast and how long it still takes."""
    if watched():
        yield from tqdm(items, desc=what, total=total, unit=unit)
        return
    total = total if total is not None or not isinstance(items, Sized) else len(items)
    start = shown = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown >= SECONDS_BETWEEN_LINES:
            shown = now
            print(tqdm.format_meter(number, total, now - start, prefix=what, unit=unit), flush=True)
