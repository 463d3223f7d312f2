"""Pages of executed notebooks: offline, linked both ways, harmless, and made again only where something changed."""

import base64
import io
import json
import re

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from synthlib.page import notebooks
from synthlib.page.notebooks import page_name, write_pages

RUN = "papermill_runs/pocket/03_eval/digits-merged-resnet"
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/x)"
)


def png():
    """A white picture, as a notebook holds it."""
    Image.new("RGB", (4, 4), "white").save(file := io.BytesIO(), "png")
    return base64.b64encode(file.getvalue()).decode()


def shown(*outputs, source="print(1)  # one"):
    """A notebook of a title, a bullet and one cell with some outputs."""
    links = "[T1](../figures/pocket/report.html#T1) [T5](../figures/x/report.html#T5) [next](02_train.ipynb) [paper](https://arxiv.org/abs/1)"
    cells = [
        new_markdown_cell(f"# 03 · Evaluate\n\nWhat it does. {BADGE} {links}\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
        new_markdown_cell("- **T1**, accuracy by trick: with intervals."),
        new_code_cell(source, execution_count=1, outputs=list(outputs)),
    ]
    return new_notebook(cells=cells)


def data(**kinds):
    return new_output("display_data", data={name.replace("_", "/", 1): value for name, value in kinds.items()})


def stream(text, name="stdout"):
    return new_output("stream", text=text, name=name)


@pytest.fixture
def run(own_root):
    """run(notebook, run_dir): leaves an executed notebook, makes the pages of all; the one page and its parsed HTML."""
    folder = own_root / "figures" / "pocket" / "pages"

    def make(notebook, run_dir=RUN):
        executed = own_root / run_dir / "executed.ipynb"
        executed.parent.mkdir(parents=True, exist_ok=True)
        executed.write_text(json.dumps(notebook))
        page = write_pages([run_dir], folder, "Pocket <1>", {run_dir: ["T1", "F2"]})[0]
        return page, BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")

    return make


def test_one_title_and_links_both_ways(run):
    page, soup = run(shown(stream("text")))
    assert page.name == "03_eval--digits-merged-resnet.html"
    assert [title.text for title in soup("h1")] == ["03 · Evaluate"]
    assert soup.select_one("p.step").text == "03_eval · digits-merged-resnet"
    assert soup.html["lang"] == "en" and soup.title.text == "03_eval · digits-merged-resnet · Pocket <1>"
    bar = {link.text: link["href"] for link in soup.select("header a")}
    assert bar == {"‹ Pocket <1>": "../report.html", "T1": "../report.html#T1", "F2": "../report.html#F2"}
    inside = {link.text: link["href"] for link in soup.select("main a")}
    assert "T5" not in inside  # which this run does not feed
    assert inside["T1"] == "../report.html#T1" and inside["paper"] == "https://arxiv.org/abs/1"
    assert "next" not in inside and "next" in soup.main.text


def test_a_notebook_with_many_titles_or_none_has_one(run):
    _, soup = run(new_notebook(cells=[new_markdown_cell("# one"), new_markdown_cell("# two\n\n# three")]))
    assert [title.text for title in soup("h1")] == ["one"] and [title.text for title in soup("h2")] == ["two", "three"]
    _, soup = run(new_notebook(cells=[new_code_cell("1")]))
    assert [title.text for title in soup("h1")] == ["03_eval · digits-merged-resnet"]


def test_a_page_asks_nothing_of_the_network_and_runs_nothing(run):
    html = (
        "<b onclick='x()'>bold</b><script>alert(1)</script><img src=https://x.org/a.png onerror=y()><style>b{}</style>"
    )
    html += (
        "<iframe src='https://x.org'></iframe><a href='javascript:x()'>go</a><link rel=stylesheet href=//x.org/a.css>"
    )
    attack = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    outputs = [data(text_html=html), data(text_plain=attack), stream(attack), data(text_markdown=attack + " kept")]
    outputs += [data(application_javascript="alert(1)", text_plain="Javascript object")]
    isolated = data(text_html="<p>alone</p>") | {"metadata": {"text/html": {"isolated": True}}}
    page, soup = run(shown(*outputs, isolated, source=f"x = '{attack}'"))
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and not soup(["iframe", "link", "object", "embed"])
    assert all(tag["src"].startswith("data:image/") for tag in soup(src=True))
    assert {link["href"].split(":")[0] for link in soup(href=True)} <= {"https"} | {
        link["href"] for link in soup(href=re.compile(r"^\.\./report\.html(#\w+)?$"))
    }
    assert not [name for tag in soup.find_all(True) for name in tag.attrs if name.startswith("on") or name == "style"]
    assert "url(" not in soup.style.text and "@import" not in soup.style.text
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert soup.main.text.count(attack) == 3  # the source, the text and the stream, as text
    assert all(word in soup.main.text for word in ("bold", "go", "alone", "kept"))
    assert "Open in Colab" in soup.main.text and "colab-badge" not in text
    assert "Javascript object" not in text and "b{}" not in text


def test_pictures_are_embedded_and_described(run):
    svg = "<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>"
    _, soup = run(shown(data(image_png=png(), text_plain="<Figure>")))
    assert [image["alt"] for image in soup("img")] == ["Output of: T1, accuracy by trick"]
    assert soup.img["src"] == f"data:image/png;base64,{png()}"
    _, soup = run(shown(data(image_png=png()), data(**{"image_svg+xml": svg})))
    assert [image["alt"][-8:] for image in soup("img")] == ["(1 of 2)", "(2 of 2)"]
    _, soup = run(new_notebook(cells=[new_code_cell("1"), new_code_cell("2", outputs=[data(image_png=png())])]))
    assert soup.img["alt"] == "Picture of cell 2"


def test_wide_tables_and_code_scroll_in_boxes_that_the_keyboard_reaches(run):
    import pandas

    table = pandas.DataFrame({"accuracy": [0.5]}).style.set_caption("c").to_html()
    plain = "<style>.dataframe td {}</style><table class='dataframe'><tr><td>7.4</td></tr></table>"
    _, soup = run(shown(data(text_html=plain), data(text_html=table), source="x = 1  # " + "long " * 20))
    assert [box["aria-label"] for box in soup.select(".scroll:has(> table)")] == [
        "Table",
        *["Table of cell 1: T1, accuracy by trick"] * 2,
    ]
    assert all(box["tabindex"] == "0" and box["role"] == "region" for box in soup.select(".scroll"))
    assert soup.select_one(".highlight pre")["aria-label"] == "Code of cell 1"
    assert ".dataframe" not in soup.main.text
    _, soup = run(shown(stream("short")))
    assert not soup.select("pre[tabindex]")


def test_a_dead_kernels_half_notebook_and_a_failed_one_still_make_a_page(run):
    half = shown()
    half.cells[-1].execution_count = None
    half.cells.append(new_code_cell("never()", execution_count=None))
    half.metadata.clear()
    assert "never" in run(half)[1].main.text
    traceback = ["\x1b[31mValueError\x1b[39m", "\x1b[38;5;28;01mdef\x1b[39;00m <b>"]
    _, soup = run(shown(new_output("error", ename="ValueError", evalue="", traceback=traceback)))
    assert soup.select_one(".output_error .ansi-red-fg").text == "ValueError"
    assert "def <b>" in soup.select_one(".output_error").text and not soup.select("[style]")


def test_only_a_page_whose_source_changed_is_written(run, own_root, monkeypatch):
    notebook = shown(stream("first"))
    page, _ = run(notebook)
    before = page.stat().st_ino  # a page written again is another file, renamed into place
    assert run(notebook)[0].stat().st_ino == before
    page, soup = run(shown(stream("second")))
    assert page.stat().st_ino != before and "second" in soup.main.text
    before = page.stat().st_ino
    write_pages([RUN], page.parent, "Pocket <1>", {RUN: ["T1"]})
    assert page.stat().st_ino != before and "#F2" not in page.read_text(encoding="utf-8")
    before = page.stat().st_ino
    (changed := own_root / "other.css").write_text("b { color: red }")
    monkeypatch.setattr(notebooks, "STYLES", (changed,))
    write_pages([RUN], page.parent, "Pocket <1>", {RUN: ["T1"]})
    assert page.stat().st_ino != before and "color: red" in page.read_text(encoding="utf-8")


def test_pages_of_runs_no_longer_named_go_and_other_files_stay(run, own_root):
    page, _ = run(shown())
    for name in ("mine.html", "notes.txt"):
        (page.parent / name).write_text("<html>mine</html>")
    other = "papermill_runs/pocket/03_eval/digits-base_class-resnet"
    second, _ = run(shown(), other)
    assert sorted(path.name for path in page.parent.iterdir()) == [second.name, "mine.html", "notes.txt"]
    (own_root / RUN / "executed.ipynb").write_text("{}\n")  # a kernel that never started
    absent = "papermill_runs/pocket/03_eval/never"
    assert write_pages([RUN, absent, other, other], page.parent, "Pocket", {}) == [second]
    assert write_pages([], page.parent / "none", "Pocket", {}) == []


def test_names_of_pages_are_safe_and_never_shared():
    conditions = [
        "a",
        "a+b=1",
        "a_b_1",
        "a=b+1",
        "a--b",
        "A",
        "a b",
        "é",
        "a/b",
        "a.b",
        "..",
        "-",
        "",
        "a%2Fb",
        "x" * 300,
    ]
    conditions += ["a+b=2", "a&b", "a?b#c", "x" * 301, "'\"<>", "merged_full+judge=glyphs-resnet", "guidance=7.5"]
    runs = [f"papermill_runs/pocket/{step}/{name}" for step in ("01_generate", "02_train") for name in conditions]
    names = [page_name(run_dir) for run_dir in [*runs, "/tmp/01_generate/a", "01_generate/a"]]
    assert len({name.lower() for name in names}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][A-Za-z0-9._-]*\.html", name) and len(name) < 150 for name in names), names
    assert names[0] == page_name(runs[0]) == "01_generate--a.html"


def test_code_is_readable_in_light_and_dark():
    """Each colour of a token or a traceback against the background of code: 4.5:1 or more (WCAG 2.2, 1.4.3)."""
    css = "\n".join(path.read_text(encoding="utf-8") for path in notebooks.STYLES)
    dark = "".join(re.findall(r"@media \(prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", css, re.DOTALL))
    light = "".join(re.findall(r"^:root \{(.*?)\}", css, re.DOTALL | re.MULTILINE))
    for block in (light, dark):
        colours = dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block))
        tokens = ("keyword", "string", "number", "comment", "name", "builtin", "error", "ink", "soft")
        for behind, fronts in {"code": tokens, "page": tokens, "mark": ("ink",)}.items():
            worst = min(fronts, key=lambda front: contrast(colours[front], colours[behind]))
            assert contrast(colours[worst], colours[behind]) >= 4.5, (worst, behind)


def contrast(one, other):
    """Contrast of two colours by WCAG's formula."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
