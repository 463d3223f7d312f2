"""Other processes of a test: what they do, they do at the same time, and they can be killed."""

import os
import signal
from collections.abc import Callable


def forked(work: Callable[[], int | None]) -> int:
    """Another process that does this work and exits with its result, in two minutes at most; its id."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(120)  # whatever becomes of the test
        code = 99
        try:
            code = work() or 0
        finally:
            os._exit(code)
    return pid


def exit_code(pid: int) -> int:
    """The exit code of a process that was forked, once it has ended; of one that was killed minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Gate:
    """Where a forked process waits until the test lets it go on."""

    def __init__(self) -> None:
        self.here, self.open = os.pipe(), os.pipe()

    def wait(self) -> None:
        """In the other process: say that it is here, and wait."""
        os.write(self.here[1], b"x")
        os.read(self.open[0], 1)

    def reached(self) -> None:
        """In the test, after the fork: wait until the other process is here. AssertionError: it ended before."""
        os.close(self.here[1])
        assert os.read(self.here[0], 1)

    def let_go(self) -> None:
        """Let the other process go on."""
        os.write(self.open[1], b"x")
