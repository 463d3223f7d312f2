"""Interrupts: SIGTERM (a scheduler that wants its machine back) ends long work between two pieces of it, not within one.

And a person's, Ctrl-C or the kernel's: it ends work at once, and a notebook says in one line how to go on.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

EXIT_CODE = 143  # 128 + SIGTERM, what a shell reports of a process that SIGTERM ended


class Terminated(Exception):
    """SIGTERM came, or the terminal closed; what was finished is kept."""

    def __init__(self) -> None:
        super().__init__("stopped by SIGTERM; what is finished is kept, the same command goes on from there.")

    def _render_traceback_(self) -> list[str]:
        """IPython shows this in place of a traceback."""
        return [f"Terminated: {self}"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or an interrupt of the kernel; what was finished is kept."""

    def __init__(self) -> None:
        super().__init__("what is finished is kept; run this again, and it goes on from there.")

    def _render_traceback_(self) -> list[str]:
        """IPython shows this in place of a traceback."""
        return [f"Interrupted: {self}"]


@contextlib.contextmanager
def told_in_one_line() -> Iterator[None]:
    """Around, or as a decorator of, work that goes on where it was: an interrupt is Interrupted, not a page of traceback."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted from None


@contextlib.contextmanager
def sigterm_between_pieces() -> Iterator[Callable[[], None]]:
    """While in here SIGTERM is only noted; the function given, called between pieces of work, raises Terminated then."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield lambda: None
        return
    noted = threading.Event()

    def check() -> None:
        if noted.is_set():
            raise Terminated

    before = signal.signal(signal.SIGTERM, lambda *_: noted.set())
    try:
        yield check
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def terminated_at_once() -> Iterator[None]:
    """While in here SIGTERM raises Terminated at once, for a process that only waits for others.

    So does SIGHUP, by which a terminal that closes ends what runs in it, unless it is ignored (nohup).
    """

    def end(*_: object) -> None:
        raise Terminated

    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if number == signal.SIGTERM or handler != signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
