"""JupyterLab on loopback, as `make lab` starts it, and one notebook in it: run, interrupted, looked at.

What a person would do with the mouse is done with the mouse; what a person would see is read from the page.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from conftest import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

WIDTH, HEIGHT = 1400, 1000  # px of the window
TOKEN = secrets.token_hex()  # others on this machine may run nothing here
PATIENCE_S = 300  # for anything that a notebook does
OPEN = ".jp-NotebookPanel:not(.lm-mod-hidden)"
# All cells are in the page, also those out of sight; nothing is asked of the network; no question covers the page.
SETTINGS = {
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}
# What the outputs of a cell are: [{count, text, red, pictures, broken, tables, cut}], in order, code cells only. Red is the
# text in the colour of errors: errors and stderr, which the page does not tell apart.
READ_CELLS = """(panel) => [...panel.querySelectorAll(".jp-CodeCell")].map((cell) => {
    const all = (what) => [...cell.querySelectorAll(`.jp-OutputArea-output${what}`)];
    const text = (found) => found.map((one) => one.innerText).join("\\n");
    const pictures = all(" img");
    return {
        count: cell.querySelector(".jp-InputArea-prompt").innerText.trim(),
        text: text(all("")),
        red: text(all(":is([data-mime-type$='.error'], [data-mime-type$='.stderr'])")),
        pictures: pictures.filter((one) => one.complete && one.naturalWidth > 0).length,
        broken: pictures.filter((one) => one.complete && !one.naturalWidth).length,
        tables: all(" table").length,
        cut: all("").filter((one) => one.scrollWidth > one.clientWidth + 1).length,
    };
})"""


@contextmanager
def jupyterlab(kit: Path, own: Path, settings: dict[str, Any] | None = None) -> Iterator[str]:
    """JupyterLab of a checkout, by the command of the Makefile's `lab`; gives its address, ends it and its kernels.

    own: a folder for all that it writes beside notebooks. settings: JupyterLab's, over SETTINGS.
    """
    (own / "app").mkdir(parents=True)
    (own / "app" / "overrides.json").write_text(json.dumps(SETTINGS | (settings or {})))
    [typed] = re.findall(r"\$\(BIN\)/jupyter (lab .*)", (ROOT / "Makefile").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", *shlex.split(typed), f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", "--no-browser", "--allow-root"]
    command += [f"--LabApp.app_settings_dir={own / 'app'}"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SYNTHLIB_", "JUPYTER"))}
    places = {f"JUPYTER_{what}_DIR": str(own / what) for what in ("CONFIG", "RUNTIME", "DATA")}
    places |= {f"JUPYTERLAB_{what}_DIR": str(own / what) for what in ("SETTINGS", "WORKSPACES")}
    environment = kept | places | {"IPYTHONDIR": str(own / "ipython"), "PYTHONPATH": str(kit), "JUPYTER_TOKEN": TOKEN}
    with open(own / "log.txt", "w") as log:
        server = psutil.Popen(command, cwd=kit, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: list((own / "RUNTIME").glob("jpserver-*.json")), "JupyterLab's start", lambda: server.poll())
        yield f"http://127.0.0.1:{port}"
    finally:
        kernels = server.children(recursive=True)
        server.terminate()
        _, left = psutil.wait_procs([server, *kernels], timeout=20)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=20)


def until(
    happened: Callable[[], Any], what: str, failed: Callable[[], Any] = lambda: None, patience_s: float = PATIENCE_S
) -> Any:
    """What `happened` returns, once that is true; AssertionError where it takes too long or `failed` returns something."""
    end = time.monotonic() + patience_s
    while not (found := happened()):
        assert (wrong := failed()) is None, f"{what}: {wrong}"
        assert time.monotonic() < end, f"{what} took more than {patience_s} s"
        time.sleep(0.05)
    return found


@dataclass(frozen=True)
class Notebook:
    """A notebook open in a window; `asked` are the addresses elsewhere that its page asked for."""

    page: Page
    asked: list[str]

    def choose(self, menu: str, entry: str) -> None:
        """Choose an entry of the menu bar, as with the mouse."""
        self.page.get_by_role("menuitem", name=menu, exact=True).click()
        self.page.locator(".lm-Menu .lm-Menu-itemLabel").get_by_text(entry, exact=True).click()

    def cells(self) -> list[dict[str, Any]]:
        """What the code cells show by now, see READ_CELLS."""
        return self.page.locator(OPEN).evaluate(READ_CELLS)

    def number(self, words: str) -> int:
        """Which of the code cells has these words in its source, counted from 0; the first that does."""
        sources = self.page.locator(f"{OPEN} .jp-CodeCell .jp-InputArea-editor").all_inner_texts()
        return next(number for number, source in enumerate(sources) if words in source)

    def shows(self, number: int) -> str:
        """What a code cell shows by now, as text."""
        return self.cells()[number]["text"]

    def select(self, number: int) -> None:
        """Click into a code cell."""
        self.page.locator(f"{OPEN} .jp-CodeCell").nth(number).locator(".jp-InputArea-editor").click()

    def without_kernel(self) -> Locator:
        """The toolbar's "No Kernel": before one is started, when it also calls itself idle, and once it is shut down."""
        return self.page.locator(f"{OPEN} .jp-Toolbar-kernelName", has_text="No Kernel")

    def at_rest(self) -> bool:
        """Whether the kernel is idle and no cell waits for it or is running."""
        idle = self.page.locator(f"{OPEN} .jp-Notebook-ExecutionIndicator[data-status='idle']").count()
        return (
            bool(idle) and not self.without_kernel().count() and all("*" not in cell["count"] for cell in self.cells())
        )

    def wait(self) -> list[dict[str, Any]]:
        """What the code cells show once the kernel is idle and no cell is running."""
        until(self.at_rest, "an idle kernel")
        return self.cells()

    def run(self, entry: str) -> None:
        """Choose an entry of the menu Run; returns once the first of its cells waits for the kernel, or ran."""
        before = [cell["count"] for cell in self.cells()]
        for patience_s in (30, PATIENCE_S):  # on a busy machine a click may be lost: once more then, as a person would
            self.choose("Run", entry)
            with contextlib.suppress(AssertionError):
                return until(lambda: [cell["count"] for cell in self.cells()] != before, entry, patience_s=patience_s)
            assert self.at_rest(), f"{entry}: no cell began, but the kernel is at work"
        raise AssertionError(f"{entry}: no cell began")

    def wait_for(self, happened: Callable[[], Any], what: str) -> Any:
        """What `happened` returns, once that is true; AssertionError where a cell fails meanwhile."""
        return until(happened, what, lambda: next((cell["red"] for cell in self.cells() if cell["red"]), None))

    def interrupt(self) -> list[dict[str, Any]]:
        """Kernel > Interrupt Kernel; what the code cells show once the kernel is idle."""
        self.choose("Kernel", "Interrupt Kernel")
        return self.wait()

    def screenshot(self, file: Path) -> None:
        """The whole notebook, from its title to its last output, as a PNG."""
        file.parent.mkdir(parents=True, exist_ok=True)
        inner = self.page.locator(f"{OPEN} .jp-WindowedPanel-outer")
        over = inner.evaluate("(one) => one.scrollHeight - one.clientHeight")
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT + over})
        inner.evaluate("(one) => one.scrollTo(0, 0)")
        self.page.screenshot(path=file)
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})


@contextmanager
def opened(browser: Browser, address: str, name: str) -> Iterator[Notebook]:
    """A notebook of the checkout in a window of its own, its kernel started; the kernel is shut down on the way out."""
    asked = []
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: None if _is_own(request.url, address) else asked.append(request.url))
        page.goto(f"{address}/lab/tree/notebooks/{name}.ipynb?reset&token={TOKEN}")
        page.locator(f"{OPEN} .jp-CodeCell").first.wait_for()
        notebook = Notebook(page, asked)
        until(notebook.at_rest, "the kernel's start")
        yield notebook
        notebook.choose("Kernel", "Shut Down Kernel")
        notebook.without_kernel().wait_for()
    finally:
        context.close()


def _is_own(url: str, address: str) -> bool:
    return url.startswith((address, address.replace("http", "ws", 1), "data:", "blob:"))
