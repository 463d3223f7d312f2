"""The checks of a page in a browser: of each fault a page that has it, and one page of which nothing is wrong."""

import base64
import io

import pytest
from browser import MARKS, Findings, _pages_of, chromium, look_at, print_pdf
from PIL import Image

pytestmark = MARKS

SHELL = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A page</title>{head}
<style>
body {{ margin: 8px; font: 16px/1.5 "DejaVu Sans", sans-serif }}
{style}</style></head><body><h1>A page</h1>{body}</body></html>"""
POLICY = """<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">"""


def image_data():
    Image.new("RGB", (40, 20), "#369").save(made := io.BytesIO(), "PNG")
    return f"data:image/png;base64,{base64.b64encode(made.getvalue()).decode()}"


# What comes near to each fault without being one.
GOOD_STYLE = """
:root { color-scheme: light dark; --ink: oklch(0.3 0.1 260); --link: color(srgb 0.1 0.3 0.7); --tint: rgb(0 0 0 / 8%) }
@media (prefers-color-scheme: dark) { :root { --ink: lab(90% 0 0); --link: #9cf; --tint: rgb(255 255 255 / 8%) } }
h1 { font-size: 40px; line-height: 1 }
p { color: var(--ink); background: var(--tint) } a { color: var(--link) }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip: rect(0 0 0 0); white-space: nowrap }
.scroll { overflow-x: auto } table { width: 600px } .inner { position: relative; height: 60px; overflow: hidden }
.shown { background: #222 linear-gradient(#222, #333); color: #fff }
@media print { .scroll { overflow-x: visible } table { width: auto } }
"""
GOOD_BODY = f"""
<nav><a class="hidden" href="#main">Skip to the text, which is far too long for one pixel</a></nav>
<main id="main"><h2>Two</h2><h3>Three</h3><h2>Two again</h2>
<p>Text <a href="#main">with a link that is so long that it goes on in a second line of this narrow</a>
<a href="#main">window, as does this other one beside it</a>, <sup>small</sup> and <code>code</code>.</p>
<p style="display:none;color:#eee">No</p><p style="visibility:hidden;color:#eee">No</p>
<div class="scroll" tabindex="0" role="region" aria-label="A table"><table><tr><th>name</th><th>number</th></tr>
<tr><td>one</td><td>1</td></tr></table></div>
<p class="shown">White on a gradient that lies on a dark colour</p>
<div class="inner"><span style="position:absolute;left:0">left</span><span style="position:absolute;left:99px">right</span></div>
<p style="opacity:.99">Nearly opaque</p>
<img src="{image_data()}" alt="A blue box"><img src="{image_data()}" alt="" role="presentation" loading="lazy">
<svg width="250" height="90" role="img" aria-label="Bars" fill="#fff"><rect width="250" height="90" fill="#113"/>
<text x="9" y="20">bar</text><text x="60" y="20" transform="rotate(30 60 20)">tilted labels</text>
<g transform="rotate(30 90 20)"><text x="90" y="20">beside each other</text></g></svg>
<p><span style="display:inline-block;rotate:30deg">turned</span><span style="display:inline-block;rotate:30deg">too</span></p>
<svg width="9" height="9" aria-hidden="true"><circle r="4"/></svg>
<details><summary>More</summary><p style="color:#777;background:#777">Nobody can read this</p><h5>Five</h5></details>
<label for="of">Of</label> <input id="of" value="what"> <label>How <select><option>so</option></select></label>
<button>Go</button> <button aria-label="Close"><svg width="9" height="9" aria-hidden="true"></svg></button></main>
"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def look(browser, tmp_path):
    """look(body, style="", ...) -> Findings of a page with that body, 390 px wide and light unless told."""

    def look(body, style="", head="", width=390, scheme="light", **given):
        page = tmp_path / "page.html"
        page.write_text(SHELL.format(head=head, style=style, body=body))
        return look_at(browser, page, width, scheme, **given)

    return look


def assert_lines(lines, *parts):
    """As many lines as parts, each of which stands in one line."""
    assert len(lines) == len(parts), lines
    for part in parts:
        assert sum(part in line for line in lines) == 1, (part, lines)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("media", ["screen", "print"])
def test_nothing_is_wrong_with_a_good_page(look, scheme, media, tmp_path):
    found = look(GOOD_BODY, GOOD_STYLE, POLICY, scheme=scheme, media=media, screenshot=tmp_path / "page.png")
    assert found.problems() == []
    with Image.open(tmp_path / "page.png") as taken:
        assert taken.width == 390 and taken.height > 500
        assert sum(taken.convert("RGB").getpixel((2, 2))) == {"light": 3 * 255, "dark": 3 * 18}[scheme]


def test_problems_are_told_with_their_kind():
    assert Findings(["a"], [], ["b", "c"], [], [], [], []).problems() == ["console: a", "clipped: b", "clipped: c"]


def test_what_details_hide_is_judged_once_they_are_open(look):
    body = """<details name="one"><summary>a</summary><p style="color:#777;background:#777">unseen</p></details>
    <details name="one"><summary>b</summary><h5>Five</h5><img src="data:,"></details>"""
    assert look(body).problems() == []
    assert_lines(
        look(body, open_details=True).problems(),
        "contrast: contrast 1.0:1 of 'unseen' in details > p: #777 on #777",
        "structure: h5 'Five' follows h1",
        "clipped: broken image in details > img",
        "images_without_alt: no alt: details > img",
    )


def test_console_and_requests(look):
    found = look("""<script>console.log("fine"); console.warn("careful"); console.error("wrong"); null.x</script>
    <img alt="a" src="http://127.0.0.1:9/x.png"><img alt="b" src="page.css" loading="lazy" style="margin-top:9000px">
    <link rel="stylesheet" href="https://example.org/s.css">""")
    told = ["warning: careful", "error: wrong", "uncaught: "]
    assert all(any(line.startswith(start) for line in found.console) for start in told), found.console
    assert "fine" not in str(found.console)
    assert {line.rsplit("/", 1)[1] for line in found.requests} == {"x.png", "page.css", "s.css"}
    assert "http://127.0.0.1:9/x.png" in found.requests


def test_what_the_content_security_policy_forbids_is_told(look):
    found = look("<script>document.body.append('x')</script>", head=POLICY)
    assert len(found.console) == 1 and "Content Security Policy" in found.console[0]


WIDE_TABLE = """<table id="wide" style="width:600px;border-collapse:collapse">
<tr><th style="text-align:left">one</th><th style="text-align:right;padding:0">two</th></tr></table>"""


def test_what_is_wider_than_the_window_is_clipped_unless_its_box_scrolls(look):
    found = look(f"<main>{WIDE_TABLE}</main><p style='position:absolute;left:-30px'>leftmost</p>")
    assert_lines(
        found.clipped,
        "the page is 608 px wide in a window of 390 px",
        "218 px right of the window: 'two' in table#wide > tbody > tr > th",
        "30 px left of the window: 'leftmost' in p",
    )
    inside = f"<div style='overflow-x:auto' tabindex='0'>{WIDE_TABLE}</div>"
    assert look(inside).problems() == []
    assert look(f"<main>{WIDE_TABLE}</main>", width=1280).problems() == []
    assert_lines(look(inside, media="print").clipped, "a scrolling box is cut off on paper: div, 600 x ")


def test_text_that_is_cut_off_and_broken_images_are_clipped(look):
    style = "div { width: 100px; overflow: hidden; white-space: nowrap }"
    found = look(
        """<div style="text-overflow:ellipsis" id="dots">much more than a hundred pixels</div>
        <div style="white-space:normal;height:30px"><p id="low">Two lines, of which one is shown</p></div>
        <div>fits</div><img src="data:image/png;base64,AAAA" alt="broken" id="broken">""",
        style,
    )
    assert_lines(
        found.clipped,
        "across: 'much more than a hundred pixels' in div#dots, by div#dots",
        "text cut off by 6 px down: 'Two lines, of which one is shown' in div > p#low",
        "broken image in img#broken: data:image/png;base64,AAAA",
    )


def test_texts_and_images_on_each_other(look):
    style = "p, img { position: absolute; left: 20px; margin: 0 } img { width: 80px; height: 40px }"
    found = look(
        f"""<p style="top:100px" class="a">under</p><p style="top:108px" class="b">over</p>
        <img style="top:200px" alt="a" src="{image_data()}"><p style="top:210px" class="c">on it</p>
        <p style="top:300px">one</p><p style="top:316px">next line</p>
        <div style="position:absolute;top:400px;height:24px;overflow:auto" tabindex="0">first<br>second<br>third</div>
        <p style="top:424px">not on the second</p>""",
        style,
    )
    assert_lines(found.overlapping, "'under' in p.a and 'over' in p.b share", "img and 'on it' in p.c share")
    assert found.overlapping[0].endswith("x 8 px")  # 16 px of text, 8 px lower


def test_contrast_is_of_the_colours_as_they_are_mixed(look):
    found = look(
        """<p class="x" style="color:#999">grey</p><p class="x" style="color:#999">grey again</p>
        <p style="color:#767676">just enough</p><p style="color:#777" id="near">nearly</p>
        <div style="background:#000"><div style="background:rgb(255 255 255 / 50%)"><p id="half">half</p></div></div>
        <div style="opacity:.4" id="faint">faint</div>
        <p style="color:oklch(0.7 0 0)" id="ok">oklch</p><p style="color:color(srgb 1 1 1 / 0)" id="clear">clear</p>
        <p style="background-image:linear-gradient(#fff,#000)" id="grad">gradient</p>
        <svg width="99" height="30" role="img" aria-label="s"><rect width="99" height="30" fill="#113"/>
        <text y="20" id="t">black</text></svg><input aria-label="i" placeholder="hint" id="hint">""",
        "body { color: #000 } #half { color: #333 } #hint::placeholder { color: #ccc }",
    )
    assert_lines(
        found.contrast,
        "contrast 2.8:1 of 'grey' in p.x: #999 on #fff (and 1 more like it)",
        "contrast 4.4:1 of 'nearly' in p#near: #777 on #fff",
        "contrast 3.1:1 of 'half' in div > div > p#half: #333 on #808080",
        "contrast 2.8:1 of 'faint' in div#faint: #999 on #fff",
        "contrast 2.6:1 of 'oklch' in p#ok: #9e9e9e on #fff",
        "contrast 1.0:1 of 'clear' in p#clear: #fff on #fff",
        "cannot judge 'gradient' in p#grad: a background image",
        "contrast 1.1:1 of 'black' in svg > text#t: #000 on #113",
        "contrast 1.6:1 of 'hint' in input#hint: #ccc on #fff",
    )


def test_contrast_is_of_the_scheme_that_is_asked_for(look):
    style = ":root { color-scheme: light dark } p { color: #333 }"
    assert look("<p>dark on dark</p>", style).problems() == []
    assert_lines(
        look("<p>dark on dark</p>", style, scheme="dark").contrast,
        "contrast 1.4:1 of 'dark on dark' in p: #333 on #121212",
    )


def test_images_need_an_alt_and_drawings_a_title(look):
    found = look(f"""<img src="{image_data()}" id="none"><img src="{image_data()}" alt="" id="empty">
    <svg id="bare"><g><title>of a part</title></g></svg><svg><title>Of it all</title></svg>""")
    assert_lines(
        found.images_without_alt,
        "no alt: img#none",
        "an empty alt without role=presentation: img#empty",
        "a drawing without title or aria-label: svg#bare",
    )


def test_structure(look):
    found = look("""<h1>Another</h1><h2>Two</h2><h4>Four</h4><p id="twice">a</p><p id="twice">b</p>
    <a href="#nowhere">a</a> <a href="#twice"></a> <a href="#top">top</a> <a href="#">top</a> <button></button> <input>
    <label for="gone">l</label> <table><tr><td>1</td></tr></table>
    <div style="overflow:auto;height:20px">one<br>two</div>""")
    assert_lines(
        found.structure,
        "2 h1 in place of one",
        "h4 'Four' follows h2",
        "the id twice is given more than once",
        "no element has the id of #nowhere in a",
        "no element has the id of for=gone in label",
        "a a without text: a",
        "a button without text: button",
        "a control without a label: input",
        "a table without th: table",
        "a scrolling box that no key reaches, without tabindex=0: div",
    )


def test_a_page_without_language_title_and_heading(browser, tmp_path):
    (tmp_path / "bare.html").write_text("<!doctype html><p>Bare")
    found = look_at(browser, tmp_path / "bare.html", 390, "light")
    assert found.problems() == [
        "structure: html has no lang",
        "structure: the page has no title",
        "structure: 0 h1 in place of one",
    ]


@pytest.mark.parametrize("pages", [1, 12])
def test_a_pdf_has_as_many_pages_as_were_printed(browser, tmp_path, pages):
    sheets = "<p style='break-after:page'>a sheet: /Type /Page</p>" * (pages - 1) + "<p>the last</p>"
    (tmp_path / "page.html").write_text(SHELL.format(head="", style="", body=sheets))
    assert print_pdf(browser, tmp_path / "page.html", tmp_path / "page.pdf") == pages
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_a_pdf_written_in_another_way_is_refused():
    with pytest.raises(ValueError, match="not as Chromium"):
        _pages_of(b"1 0 obj <</Type /ObjStm>> endobj trailer <</Size 1>>")
