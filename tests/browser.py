"""Opens a page in headless Chromium and says what is wrong with it; what is looked for stands in browser_checks.js."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HEIGHT = 900  # px of the window
CHECKS = Path(__file__).with_name("browser_checks.js")
# A module that opens pages says `pytestmark = MARKS`.
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]
# As root in a container it has no sandbox; nothing but this machine is reached, and nothing is fetched for the browser's
# own sake.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
]


@dataclass(frozen=True)
class Findings:
    """What is wrong with a page, a readable line each; nothing, where every list is empty.

    Not judged: what is not shown (see browser_checks.js), the text of ::before and ::after, and what only a script,
    the pointer or scrolling brings up.
    """

    console: list[str]  # errors and warnings, of scripts and of the content security policy
    requests: list[str]  # what is asked for besides the page itself
    clipped: list[str]  # cut off, wider than the window, or a broken image
    overlapping: list[str]  # text or images on each other
    contrast: list[str]  # below 4.5:1
    images_without_alt: list[str]
    structure: list[str]  # headings, ids, links, labels, tables, scrolling by keyboard

    def problems(self) -> list[str]:
        """All of them, each behind its kind."""
        return [f"{field.name}: {line}" for field in fields(self) for line in getattr(self, field.name)]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, headless; ended on the way out.

    While it is open no other code of this thread can run an asyncio loop (Playwright has its own): a fixture that
    holds it is of a module, not of the session.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def look_at(
    browser: Browser,
    page: Path,
    width: int,
    scheme: Literal["light", "dark"],
    media: Literal["screen", "print"] = "screen",
    screenshot: Path | None = None,
    open_details: bool = False,
) -> Findings:
    """Open a file in a new window of `width` px and look at the whole of it, as it is once loaded.

    `open_details` opens every <details> first; their content is not judged while they are closed. `screenshot` is a
    PNG of the full page.
    """
    console, requests = [], []
    size = {"width": width, "height": HEIGHT}
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce", offline=True)
    try:
        window = context.new_page()
        window.on("console", lambda told: console.append(f"{told.type}: {told.text}") if _is_bad(told.type) else None)
        window.on("pageerror", lambda error: console.append(f"uncaught: {error}"))
        window.on("request", lambda request: requests.append(request.url))
        window.emulate_media(media=media, color_scheme=scheme)
        window.goto(page.resolve().as_uri(), wait_until="load")
        given = {"print": media == "print", "openDetails": open_details}
        found = window.evaluate(f"async (given) => {{ {CHECKS.read_text()}\nreturn lookAt(given) }}", given)
        if screenshot is not None:
            window.screenshot(path=screenshot, full_page=True)
    finally:
        context.close()
    others = dict.fromkeys(requests[1:])  # the first is of the page
    asked = [url for url in others if not url.startswith(("data:", "blob:"))]
    return Findings(console=console, requests=asked, **found)


def _is_bad(kind: str) -> bool:
    return kind in ("error", "warning", "assert")


def print_pdf(browser: Browser, page: Path, to: Path) -> int:
    """Print a file on A4, backgrounds too; returns the number of pages, as the PDF itself gives it.

    It is read as a viewer does: trailer, /Root, its /Pages, their /Count. Chromium writes these objects as plain
    text; the bytes "/Type /Page" may stand in other places as well, so they are not counted.
    """
    context = browser.new_context(offline=True)
    try:
        window = context.new_page()
        window.goto(page.resolve().as_uri(), wait_until="load")
        window.pdf(path=to, format="A4", print_background=True)
    finally:
        context.close()
    return _pages_of(to.read_bytes())


def _pages_of(pdf: bytes) -> int:
    """The /Count of a PDF's page tree.

    >>> _pages_of(b"1 0 obj <</Pages 2 0 R>> endobj 2 0 obj <</Count 3>> endobj trailer <</Root 1 0 R>>")
    3
    """

    def entry(text: bytes, pattern: bytes) -> bytes:
        if (found := re.search(pattern, text, re.S)) is None:
            raise ValueError(f"a PDF without {pattern!r}: not as Chromium 156 writes it")
        return found[1]

    def thing(number: bytes) -> bytes:
        return entry(pdf, rb"(?:^|\s)%s 0 obj\b(.*?)\bendobj" % number)

    root = thing(entry(pdf[pdf.rfind(b"trailer") :], rb"/Root (\d+) 0 R"))
    return int(entry(thing(entry(root, rb"/Pages (\d+) 0 R")), rb"/Count (\d+)"))
