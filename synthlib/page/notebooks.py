"""Notebooks: each executed notebook of an experiment as a page of its own, offline, with links to and from the report.

nbconvert makes the HTML and bleach cleans it; what is left to do here are links, descriptions and boxes that scroll.
"""

import hashlib
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from synthlib import digests, paths
from synthlib.files import write_atomic
from synthlib.runs.run import EXECUTED

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from nbconvert import HTMLExporter
    from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE / "notebook.html.j2"
STYLES = (HERE / "style.css", HERE / "notebook.css")
MARK = re.compile(rb'<meta name="synthlib-source" content="(\w+)">')  # in the first bytes of each page made here
SHOWN = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain")
NEVER = ("script", "style", "iframe", "object", "embed", "svg", "math", "form", "template", "noscript")
TAGS = "a abbr b blockquote br caption code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li ol p pre s"
TAGS += " span strong sub summary sup table tbody td tfoot th thead tr ul"
# The id: papermill links to the cell that failed.
ATTRIBUTES = {"a": ["href"], "img": ["src", "alt", "width", "height"], "span": ["id"]}
ATTRIBUTES["*"] = ["class", "title", "colspan", "rowspan", "scope", "start"]
REPORT = re.compile(r"(?:[\w.-]+/)*report\.html(#[\w.-]*)?")
SECTIONS = ("gallery", "mistakes")  # of a report, beside its cards
PHONE = 42  # characters of code that a line of a phone holds


def page_name(run_dir: str) -> str:
    """The file name of a run's page: step and condition, joined by "--"; it needs no quoting in a URL.

    Where a condition has characters outside [a-z0-9._-], each is "_" in the name, and the first digits of the run
    folder's sha256 follow, so that no two run folders share a name, not even where the case of letters does not count.
    """
    parts = step_parts(run_dir)
    plain = "--".join(parts) + ".html"
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]*", plain) and not any("--" in part for part in parts) and len(plain) < 120:
        if run_dir == "/".join(["papermill_runs", *run_dir.split("/")[1:2], *parts]):
            return plain
    readable = re.sub(r"[^a-z0-9._-]", "_", plain.removesuffix(".html").lower())[:100].lstrip(".-")
    return f"{readable}--{digests.sha256_text(run_dir)[:12]}.html"


def write_pages(run_dirs: Sequence[str], folder: Path, title: str, cards: Mapping[str, Sequence[str]]) -> list[Path]:
    """Write a page for each run folder that has an executed notebook; returns the pages there are now, in this order.

    A page is written only if its notebook, its links or what makes it changed. Pages made here before whose run is no
    longer named, or has no notebook, are removed; other files are left alone.

    Args:
        run_dirs: the run folders, below the root.
        folder: where the pages go; the report lies in the folder above.
        title: the experiment's title.
        cards: run folder -> ids of the results it feeds, such as ["T1", "F2"].
    """
    pages, maker = {}, _maker()
    for run_dir in run_dirs:
        notebook = _read(paths.resolve(run_dir) / EXECUTED)
        if notebook is None:
            continue
        page, feeds = folder / page_name(run_dir), list(cards.get(run_dir, ()))
        source = digests.sha256_json([hashlib.sha256(notebook).hexdigest(), run_dir, title, feeds, maker])
        if _source(page) != source:
            write_atomic(page, _page(notebook, run_dir, title, feeds, source).encode())
        pages[page] = None  # a dict, so that a folder named twice counts once
    for page in folder.glob("*.html"):
        if page not in pages and _source(page):
            page.unlink()
    return list(pages)


def step_parts(run_dir: str) -> list[str]:
    """Step and condition: what follows papermill_runs/<experiment>, or every part of another folder's path."""
    parts = [part for part in run_dir.split("/") if part]
    return parts[2:] if parts[0] == "papermill_runs" and len(parts) > 2 else parts


def _read(path: Path) -> bytes | None:
    """An executed notebook, or None where there is none: a run that ended before its first cell leaves "{}"."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data if re.search(rb'"nbformat"\s*:\s*4\b', data) and data.rstrip().endswith(b"}") else None


def _source(page: Path) -> str:
    """The digest of what a page was made from; empty where there is no page, or it was not made here."""
    try:
        with open(page, "rb") as file:
            found = MARK.search(file.read(1000))
    except OSError:
        return ""
    return found[1].decode() if found else ""


def _maker() -> list[str]:
    """What makes a page of a notebook: this code, the template, the styles, the libraries."""
    files = [digests.sha256_file(path) for path in (TEMPLATE, *STYLES)]
    return [digests.module_digest(__name__), *files, *map(version, ("nbconvert", "mistune", "pygments", "bleach"))]


def _page(notebook: bytes, run_dir: str, title: str, feeds: list[str], source: str) -> str:
    """The whole page of one notebook."""
    from jinja2 import Environment, StrictUndefined

    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    body = _body(notebook)
    for link in body.select('a[href^="../report.html#"]'):
        if link["href"].partition("#")[2] not in (*feeds, *SECTIONS):  # a card of another experiment
            link.unwrap()
    return template.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        step=" · ".join(step_parts(run_dir)),
        cards=feeds,
        executed=f"{run_dir}/{EXECUTED}",
        source=source,
        style=Markup("\n".join(path.read_text(encoding="utf-8") for path in STYLES)),
        has_title=body.h1 is not None,
        body=Markup(str(body)),
    )


# --- from notebook to HTML --------------------------------------------------------------------------------------------


@cache
def _exporter() -> "HTMLExporter":
    """nbconvert's exporter, its plain template; built once. What is already `Markup` is not cleaned again."""
    # jsonschema would import this for a check of addresses that no notebook needs: 2 s.
    sys.modules.setdefault("rfc3987_syntax", None)
    from bleach.sanitizer import Cleaner
    from bs4 import BeautifulSoup
    from nbconvert import HTMLExporter
    from pygments import highlight
    from pygments.filter import simplefilter
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
    from pygments.token import Comment, Keyword, Name, Number, Operator, String, Text

    cleaner = Cleaner(TAGS.split(), ATTRIBUTES, ["http", "https", "data"], strip=True)
    names = (Name.Builtin, Name.Function, Name.Class, Name.Decorator)
    coloured = (Comment, String, Number, Keyword, Operator.Word, *names)

    @simplefilter
    def few(self: object, lexer: object, stream: object, options: object) -> object:
        """A span for each name and comma would be most of a page, and of the time it takes."""
        for kind, text in stream:
            yield next((colour for colour in coloured if kind in colour), Text), text

    lexer, formatter = PythonLexer(stripnl=False), HtmlFormatter()
    lexer.add_filter(few())

    def clean_html(html: str) -> str:
        if isinstance(html, Markup):
            return html
        soup = BeautifulSoup(html, "html.parser")
        for tag in soup(NEVER):  # with what is inside, of which bleach would leave the text
            tag.decompose()
        return cleaner.clean(str(soup))

    def highlight_code(source: str, metadata: Mapping[str, Any]) -> str:
        return Markup(highlight(source, lexer, formatter))

    filters = {"clean_html": clean_html, "highlight_code": highlight_code}
    return HTMLExporter(template_name="basic", sanitize_html=True, exclude_anchor_links=True, filters=filters)


def _body(notebook: bytes) -> "BeautifulSoup":
    """The cells of a notebook as HTML that asks nothing of the network, with a description of each picture."""
    exporter = _exporter()
    import nbformat.reader
    from bs4 import BeautifulSoup

    read = nbformat.reader.reads(notebook.decode())
    for cell in read.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _to_show(output)]
    soup = BeautifulSoup(exporter.from_notebook_node(read)[0], "html.parser")
    for tag in soup.find_all(style=True):  # colours of its own, which would not follow light and dark
        del tag["style"]
    for heading in soup.find_all("h1")[1:]:
        heading.name = "h2"
    said, number = "", 0
    for cell in soup.find_all("div", class_="cell", recursive=False):
        is_code = "code_cell" in cell["class"]
        number += is_code
        if not is_code and "celltag_papermill-error-cell-tag" not in cell["class"]:  # which says only that a run failed
            said = _first_sentence(cell)
        _describe(cell, said, number if is_code else 0)
        _box(soup, cell, said, number if is_code else 0)
    for link in soup.find_all("a"):
        _point(soup, link)
    return soup


def _to_show(output: "NotebookNode") -> bool:
    """Whether an output has something to show here; takes away what has no place in a page without script."""
    if output.output_type == "stream":
        return bool(output.text)
    if output.output_type in ("display_data", "execute_result"):
        if "application/javascript" in output.data:
            return False
        output.data = {kind: output.data[kind] for kind in SHOWN if kind in output.data}
        output.metadata.pop("text/html", None)  # "isolated" would mean a frame
        return bool(output.data)
    return True


def _first_sentence(cell: "Tag") -> str:
    """What a markdown cell says first, as plain text: up to a colon or a full stop."""
    said = (cell.select_one("li, p") or cell).get_text().split()
    first = re.split(r"[.:?!](?=\s|$)", " ".join(said))[0]
    return textwrap.shorten(first, 120, placeholder=" …")


def _describe(cell: "Tag", said: str, number: int) -> None:
    """Give the pictures of a cell a description, and show that of pictures from elsewhere in their place.

    said: what the text before the cell says; number: which code cell it is, 0 for text.
    """
    for picture in cell.find_all("img"):
        if picture["alt"].startswith("No description has been provided"):  # nbconvert's words
            picture["alt"] = ""
        if not picture.get("src", "").startswith("data:image/"):
            picture.replace_with(picture["alt"])
    pictures = cell.find_all("img")
    words = f"Picture of cell {number}" if not said else f"Output of: {said}" if number else f"Picture: {said}"
    for index, picture in enumerate(pictures, start=1):
        picture["alt"] = picture["alt"] or words + (f" ({index} of {len(pictures)})" if len(pictures) > 1 else "")


def _box(soup: "BeautifulSoup", cell: "Tag", said: str, number: int) -> None:
    """Let wide tables and long lines scroll in a box of their own, which the keyboard reaches."""
    for table in cell.find_all("table"):
        if not table.find_parent("table"):
            name = f"Table of cell {number}: {said}" if number else "Table"
            box = {"class": "scroll", "role": "region", "tabindex": "0", "aria-label": name}
            table.wrap(soup.new_tag("div", attrs=box))
    for block in cell.find_all("pre"):
        if max(map(len, block.get_text().splitlines()), default=0) > PHONE:  # else there is nothing to scroll
            name = "Code" if block.find_parent(class_="highlight") else "Text"
            name += f" of cell {number}" if number else ""
            block.attrs |= {"role": "region", "tabindex": "0", "aria-label": name}


def _point(soup: "BeautifulSoup", link: "Tag") -> None:
    """Links to a report lead to the one above, links to the web stay; others lead nowhere from here, and become text."""
    target = link.get("href", "")
    inside = target.startswith("#") and soup.find(id=target[1:])
    if report := REPORT.fullmatch(target):
        link["href"] = "../report.html" + (report[1] or "")
    elif not inside and not target.startswith(("https://", "http://")):
        link.unwrap()
