"""Run: one step is one notebook through papermill, in a kernel of its own. Its receipt says whether it is done."""

import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from synthlib import mirror, paths, receipts
from synthlib.files import write_atomic
from synthlib.gpus import own_gpu
from synthlib.inputs import InputError
from synthlib.interrupts import Terminated
from synthlib.locks import DRIVER_VARIABLE, claim, process_id
from synthlib.runs.experiment import complete

REFUSALS = ("InputError", "SourceError", "OutOfMemory", "NotFinite")  # InputError and its kinds
SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXECUTED = "executed.ipynb"
LOG = "run.log"


def run_step(notebook: str, parameters: dict[str, Any], log: bool = False) -> str:
    """Bring one step up to date; "fresh" if its receipt says that it is done, else "done" once its notebook has run.

    One process at a time works on a step: others wait, and then find it done. With `log`, what this process prints from then on
    goes to run.log in the step's folder. Where the step may use a GPU it gets one of its own, as soon as one is free. Raises
    InputError (one line) for wrong parameters, for what the notebook itself refuses, and for a dead kernel;
    Terminated or KeyboardInterrupt once the kernel has ended its work after SIGTERM or Ctrl-C, passed on to it as SIGTERM.
    """
    parameters = complete(notebook, parameters)
    folder = paths.resolve(parameters["run_dir"])
    with claim(folder / ".run.lock"):
        if receipts.state(notebook, parameters) == "done":
            return "fresh"
        if log:
            _print_into(folder / LOG)
        with own_gpu(parameters.get("device", "cpu")):
            _execute(notebook, parameters, folder)
        if (left := receipts.state(notebook, parameters)) != "done":
            raise InputError(f"{notebook} ran to its end, but its receipt in {folder} says: {left}; run it once more.")
        return "done"


def outcome_text(notebook: str, parameters: dict[str, Any]) -> str:
    """What a finished step has made, and which step takes it from there."""
    parameters = complete(notebook, parameters)
    folder = parameters["run_dir"]
    made = {end: receipts.output_names(folder, end) for end in ("", ".parquet", ".safetensors")}
    if notebook == "01_generate":
        from pyarrow.parquet import read_metadata

        n = sum(read_metadata(paths.resolve(folder) / name).num_rows for name in made[".parquet"])
        same = {name: parameters[name] for name in ("dataset", "trick", "classes")}
        given = json.dumps({"run_dir": _after(folder, notebook, "02_train"), "generated_dir": folder} | same)
        return f"{n} images in {folder}\nNext: synthlib run 02_train --params FILE, with {given} in it"
    if notebook == "02_train":
        n = len(made[".safetensors"])
        same = {name: parameters[name] for name in ("dataset", "trick", "architecture", "generated_dir", "classes")}
        same |= {"real_dir": parameters["real_dir"] or "FOLDER_OF_REAL_IMAGES"} if same["dataset"] == "own" else {}
        given = json.dumps({"run_dir": _after(folder, notebook, "03_eval"), "trained_dir": folder} | same)
        return (
            f"{n} checkpoint{'s' * (n > 1)} in {folder}\nNext: synthlib run 03_eval --params FILE, with {given} in it"
        )
    if notebook == "03_eval":
        from synthlib.results.compare import cell_text

        return f"{cell_text(folder)}\nRows: {folder}/results.csv"
    return f"{len(made[''])} files in {parameters.get('figures_dir') or folder}"


def _after(folder: str, notebook: str, following: str) -> str:
    """A folder for the step that follows the one in `folder`."""
    return folder.replace(notebook, following) if notebook in folder else f"{folder}-{following}"


def _print_into(file: Path) -> None:
    """From now on this process prints into a file, what its kernel's own libraries print included."""
    with open(file, "wb") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())


def _execute(notebook: str, parameters: dict[str, Any], folder: Path) -> None:
    """Execute a notebook with typed parameters; its cells and outputs land in the step's folder, as executed.ipynb."""
    # jsonschema would import this for a check of addresses that no notebook needs: 1.8 s of every step.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import DeadKernelError

    threads = str(parameters.get("threads", 1))
    os.environ |= {DRIVER_VARIABLE: process_id(), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    os.environ |= {"SYNTHLIB_ROOT": str(paths.root())}
    page = folder / f".executed.{os.getpid()}.ipynb"
    write_atomic(page, b"{}\n")  # a folder that cannot be written is refused before a kernel starts
    with tempfile.TemporaryDirectory(prefix="synthlib-") as sockets:
        manager = AsyncKernelManager(kernel_name="python3")
        if sys.platform != "win32":  # TCP ports may race (papermill issue 511); socket paths must be short
            manager.transport, manager.ip = "ipc", f"{sockets}/kernel"
        watch = _Watch(manager)
        before = {name: signal.signal(name, watch.pass_on) for name in SIGNALS if _in_main_thread()}
        try:
            papermill.execute_notebook(
                str(paths.notebook(notebook)),
                str(page),
                parameters=parameters,
                cwd=str(paths.root()),
                progress_bar=False,
                log_output=True,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                coalesce_streams=True,
                km=manager,
            )
        except papermill.PapermillExecutionError as error:
            if error.ename == "Terminated" or watch.signal:
                raise watch.ending() from None
            if error.ename in REFUSALS:
                raise InputError(error.evalue) from None
            raise SystemExit(f"{notebook} failed with {error.ename}: {error.evalue}. Its page: {folder / EXECUTED}")
        except RuntimeError as error:  # of jupyter_client, if it died while it started
            if not isinstance(error, DeadKernelError) and "Kernel died" not in str(error):
                raise
            if watch.signal:
                raise watch.ending() from None
            raise InputError(
                f"{notebook}: the kernel died ({watch.how_it_died()}); run again, what is finished is kept."
            )
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)
            watch.end()
            os.replace(page, folder / EXECUTED)
            mirror.keep(folder / EXECUTED)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class _Watch:
    """Looks at a kernel's memory while it runs, so that there is something to say if it dies, and ends it."""

    def __init__(self, manager: Any) -> None:
        self.manager, self.peak, self.process, self.running = manager, 0, None, True
        self.signal = 0
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self) -> None:
        import psutil

        while self.running:
            self.process = getattr(self.manager.provisioner, "process", None) if self.manager.provisioner else None
            if self.process is not None:
                try:
                    self.peak = max(self.peak, psutil.Process(self.process.pid).memory_info().rss)
                except psutil.NoSuchProcess:
                    pass
            time.sleep(0.25)

    def pass_on(self, number: int, _: object) -> None:
        """SIGTERM or Ctrl-C came: the kernel gets SIGTERM, and ends its work where that is in one piece.

        A second Ctrl-C does not wait for that.
        """
        again, self.signal = self.signal, number
        not_waited_for = again and number == signal.SIGINT
        if self.process is None or not_waited_for:
            raise self.ending()
        # Print may be at work itself.
        os.write(sys.stderr.fileno(), b"Interrupted: what is in work is finished and kept.\n")
        self.process.terminate()

    def ending(self) -> BaseException:
        """What ended the run: Ctrl-C, or else SIGTERM."""
        return KeyboardInterrupt() if self.signal == signal.SIGINT else Terminated()

    def how_it_died(self) -> str:
        """The signal or exit code, and the most memory seen."""
        code = self.process.poll() if self.process else None
        if code is not None and code < 0:
            often = ", often out of memory" if -code == signal.SIGKILL else ""
            return f"killed by signal {-code}{often}; peak seen {self.peak / 1e9:.1f} GB"
        return f"exit code {code}; peak seen {self.peak / 1e9:.1f} GB"

    def end(self) -> None:
        """Stop looking, and end the kernel: its receipt is written, or it failed."""
        self.running = False
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
