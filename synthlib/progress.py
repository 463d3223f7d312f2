"""Progress: a bar where someone is watching, one plain line every 30 s in batch (tqdm.auto freezes in executed notebooks)."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

from synthlib.interrupts import told_in_one_line

T = TypeVar("T")
SECONDS_TO_FIRST_LINE = 3  # so that one knows soon how long it takes
SECONDS_BETWEEN_LINES = 30
# Work may be counted in parts of a unit.
FORMAT = "{l_bar}{bar}| {n:.0f}/{total} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
# A notebook's bars, the outermost first, each behind the run of a cell that it is of.
_shown: list[tuple[int, tqdm]] = []


def watched() -> bool:
    """Whether a person sees this process: a terminal, or a notebook that no driver executes."""
    in_kernel = "ipykernel" in sys.modules
    return (in_kernel and "SYNTHLIB_DRIVER" not in os.environ) or (not in_kernel and sys.stderr.isatty())


def _bar(what: str, total: int | None, unit: str, look: str | None) -> tqdm:
    """A bar in a terminal, or in the output of a notebook's cell.

    There it is on stdout, as stderr has the colour of errors. Bars within one another share a line, because JupyterLab
    does not move up to an earlier one: an inner bar says where the outer one is, and stands in its place until it ends.
    """
    if "ipykernel" not in sys.modules:
        return tqdm(desc=what, total=total, unit=unit, bar_format=look)
    from IPython import get_ipython

    run = getattr(get_ipython(), "execution_count", 0)
    while _shown and _shown[-1][0] != run:  # of a run that failed; its traceback keeps it, and it would say more later
        _shown.pop()[1].disable = True
    if _shown:
        outer = _shown[-1][1]
        what = f"{outer.desc}, {outer.unit} {int(outer.n) + 1} of {outer.total}, {what}"
    bar = tqdm(desc=what, total=total, unit=unit, bar_format=look, file=sys.stdout, position=0, leave=not _shown)
    _shown.append((run, bar))
    return bar


@contextlib.contextmanager
def _closing(bar: tqdm | None) -> Iterator[None]:
    """Close a bar at the end; where that is an error, it stays and shows how far it came."""
    try:
        with bar or contextlib.nullcontext():
            try:
                yield
            except BaseException:
                if bar is not None:
                    bar.leave = True
                raise
    finally:
        _shown[:] = [(run, other) for run, other in _shown if other is not bar]


@contextlib.contextmanager
def meter(what: str, total: int | None, unit: str) -> Iterator[Callable[..., None]]:
    """Show how far `total` units are, how fast and how long it still takes.

    Gives a function add(count, free, note=""): so many more are there, in parts of one if need be; those that are free (found,
    not made) do not count as speed, nor does the first one that is made, which waits for all to be opened; a note stands behind
    the figures until the next one. An interrupt in here is told in one line.
    """
    start = time.time()
    shown = start + SECONDS_TO_FIRST_LINE - SECONDS_BETWEEN_LINES
    look = FORMAT if total else None
    done = gratis = 0
    said, begun = None, False
    bar = _bar(what, total, unit, look) if watched() else None

    def add(count: float, free: bool, note: str = "") -> None:
        nonlocal start, shown, done, gratis, said, begun
        said = note or said
        done += count
        now = time.time()
        first = not begun and not free
        if first:
            start, begun = now, True
        gratis += count if free or first else 0
        if bar is not None:
            bar.initial, bar.start_t = gratis, start
            if note:
                bar.set_postfix_str(note, refresh=False)
            bar.update(count)
        elif now - shown >= SECONDS_BETWEEN_LINES and not first:
            shown = now
            print(
                tqdm.format_meter(
                    done, total, now - start, prefix=what, unit=unit, initial=gratis, postfix=said, bar_format=look
                ),
                flush=True,
            )

    with told_in_one_line(), _closing(bar):
        yield add


def progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Pass `items` on and show how far they are, how fast and how long it still takes."""
    total = total if total is not None or not isinstance(items, Sized) else len(items)
    with meter(what, total, unit) as add:
        for item in items:
            yield item
            add(1, False)
