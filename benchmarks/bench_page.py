#!/usr/bin/env python
"""Page: how long headless Chromium takes to open a report.html, beside a page of one word, and how large the page is.

Each opening is in a new window, from the file; it ends when all is loaded and laid out. Needs Debian's chromium.
"""

import argparse
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from measure import alternate, arguments, described, heading, positive, ratios, report, significant, summary

WIDTHS = {"desk": 1400, "phone": 390}  # px of a window
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-proxy-server", "--disable-background-networking"]
BLANK = "<!DOCTYPE html><html lang='en'><title>blank</title><p>blank</p></html>"


def options() -> argparse.Namespace:
    parser = arguments(__doc__.splitlines()[0])
    page = Path("figures/pocket_full/report.html")
    parser.add_argument("--page", type=Path, default=page, help="made by `synthlib reproduce` or `synthlib report`")
    parser.add_argument("--repeats", type=positive, default=11, help="rounds")
    given = parser.parse_args()
    if not given.page.is_file():
        parser.error(f"no page {given.page}; make it with `synthlib report` or name another with --page")
    if shutil.which("chromium") is None:
        parser.error("chromium is not installed; `apt-get install chromium` first")
    return given


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds to open the page and a blank one at each width, their ratio, and sizes in MB."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        (blank := Path(folder) / "blank.html").write_text(BLANK, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        jobs = {
            f"{what}, {name}": lambda page=page, width=width: open_page(browser, page, width)
            for name, width in WIDTHS.items()
            for what, page in (("page", given.page), ("blank", blank))
        }
        seconds, _ = alternate(jobs, given.repeats)
        version = browser.version
        browser.close()
    beside = sorted((given.page.parent / "pages").glob("*.html"))
    result = described("bench_page", {"experiment": given.page.parent.name, "repeats": given.repeats, "widths": WIDTHS})
    result["versions"] |= {"chromium": version, "playwright": importlib.metadata.version("playwright")}
    return result | {
        "page_mb": significant(given.page.stat().st_size / 1e6, 3),
        "executed_notebooks": len(beside),
        "executed_notebooks_mb": significant(sum(path.stat().st_size for path in beside) / 1e6, 3),
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "page_over_blank": {name: ratios(seconds[f"page, {name}"], seconds[f"blank, {name}"]) for name in WIDTHS},
        "notes": ["From the file, in a new window each time; until everything is loaded, decoded and laid out."],
    }


def open_page(browser: Any, page: Path, width: int) -> float:
    """Open a file and wait for its layout; its height, so that it cannot be skipped."""
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    try:
        window = context.new_page()
        window.goto(Path(os.path.abspath(page)).as_uri(), wait_until="load")
        return window.evaluate("document.documentElement.getBoundingClientRect().height")
    finally:
        context.close()


def table(result: dict[str, Any]) -> str:
    lines = [heading(result), f"{result['settings']['experiment']}: {result['page_mb']} MB, and {result['executed_notebooks']} "
             f"executed notebooks of {result['executed_notebooks_mb']} MB beside it", "",
             "| opened | seconds | smallest to largest |", "|---|---|---|"]  # fmt: skip
    for name, found in result["seconds"].items():
        lines.append(f"| {name} | {found['median']:.2f} | {found['min']:.2f} to {found['max']:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    given = options()
    report(lambda: measure(given), table, given.json)
