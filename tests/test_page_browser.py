"""The pages in headless Chromium: what browser.py looks for, at two widths, in light and dark, on paper, without scripts."""

import numpy as np
import pytest
from browser import MARKS, chromium, look_at, print_pdf
from conftest import ROOT
from pages import own_folder, pretend_pocket

from synthlib import paths
from synthlib.data.shards import encode_png
from synthlib.page import gallery, write
from synthlib.page.cards import data_uri

pytestmark = MARKS
PAPER = 1032  # px of 273 mm: A4 across, without its margins
LONG = "a photograph of a <b>three</b> & a seven, antidisestablishmentarianismantidisestablishmentarianism"
LOOKS = [
    (1400, "light", "screen", False),
    (1400, "dark", "screen", True),
    (390, "light", "screen", True),
    (390, "dark", "screen", False),
    (PAPER, "light", "print", False),
]


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Name -> page: a run with a gallery, the committed run of every result, the index, and an executed notebook."""
    with pytest.MonkeyPatch.context() as patch:
        root = own_folder(tmp_path_factory.mktemp("pages"), patch)
        pretend_pocket(root)
        patch.setattr(write, "galleries", lambda *_: [_gallery()])
        patch.setattr(write, "mistakes", lambda *_: [_mistakes()])
        run, committed = write.write_report("pocket"), write.write_report("pocket_full", reference=True)
        notebook = next((run.parent / "pages").glob("03_eval*"))
        yield {"run": run, "committed": committed, "index": root / "figures" / "index.html", "notebook": notebook}
    paths.root.cache_clear()


def _picture(number, prompt=LONG):
    pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    return gallery.Picture(
        data_uri(encode_png(pixels), "x.png"), f"drawn: {prompt}", prompt, 7.5, 2**64 - 1 - number, "x"
    )


def _gallery():
    columns = ["real", "base class", "merged, full (3n images)", "random guidance, guidance=2"]
    rows = [
        gallery.ClassRow(name, [[_picture(n), _picture(n + 1)] for n in range(len(columns))])
        for name in ("three", LONG)
    ]
    return gallery.Gallery("digits", columns, rows, 2, "")


def _mistakes():
    found = [gallery.Mistake(_picture(n), "three", LONG if n == 2 else "seven", 99.5, 0.1) for n in range(4)]
    return gallery.Mistakes("digits", "merged, resnet, replicate 0, eval mode", 4, 1197, found, found, "x", "")


@pytest.mark.parametrize(("width", "scheme", "media", "open_details"), LOOKS)
@pytest.mark.parametrize("name", ["run", "committed", "index", "notebook"])
def test_nothing_is_wrong_with_a_page(browser, pages, name, width, scheme, media, open_details):
    if media == "print" and name == "notebook":
        width = 700  # it is printed upright
    assert look_at(browser, pages[name], width, scheme, media, open_details=open_details).problems() == []


@pytest.mark.parametrize(("width", "scheme", "media", "open_details"), LOOKS)
def test_nothing_is_wrong_with_the_page_of_what_was_run_here(browser, width, scheme, media, open_details):
    page = ROOT / "figures" / "pocket" / "report.html"
    if not page.is_file():
        pytest.skip("pocket was not run here: make reproduce")
    assert look_at(browser, page, width, scheme, media, open_details=open_details).problems() == []


def test_a_page_prints(browser, pages, tmp_path):
    assert print_pdf(browser, pages["run"], tmp_path / "run.pdf") >= 10
    assert print_pdf(browser, pages["notebook"], tmp_path / "notebook.pdf") >= 1


def test_tables_are_sorted_by_a_click_on_a_header_and_stay_as_they_are_without_scripts(browser, pages):
    def column(window, number):
        return window.locator(f"#T1 table[data-file] tbody tr td:nth-child({number})").all_inner_texts()

    window = browser.new_page()
    window.goto(pages["run"].as_uri())
    given, button = column(window, 3), window.locator("#T1 table[data-file] thead button").nth(2)
    numbers = {text: float(text.partition("[")[0]) for text in given}
    assert given != sorted(given, key=numbers.get)
    button.click()
    assert column(window, 3) == sorted(given, key=numbers.get)
    assert window.locator("#T1 table[data-file] thead th").nth(2).get_attribute("aria-sort") == "ascending"
    button.focus()
    window.keyboard.press("Enter")
    assert column(window, 3) == sorted(given, key=numbers.get, reverse=True)
    window.close()
    context = browser.new_context(java_script_enabled=False)
    window = context.new_page()
    window.goto(pages["run"].as_uri())
    assert column(window, 3) == given and window.locator("#T1 table[data-file] thead button").count() == 0
    context.close()


def test_links_between_a_card_and_its_notebooks_lead_both_ways(browser, pages):
    window = browser.new_page()
    window.goto(pages["run"].as_uri())
    window.locator("#T1 details summary").last.click()
    window.locator("#T1 details a", has_text="page of 03_eval/digits-merged-resnet").click()
    window.wait_for_url("**/pages/03_eval*")
    window.locator('a[href$="report.html#T1"]').first.click()
    window.wait_for_url("**/report.html#T1")
    assert window.locator("#T1-title").is_visible()
    window.close()


def test_a_file_behind_a_card_is_downloaded_out_of_the_page(browser, pages, tmp_path):
    window = browser.new_page()
    window.goto(pages["committed"].as_uri())
    with window.expect_download() as found:
        window.locator('a[download="claims.csv"]').click()
    found.value.save_as(tmp_path / "claims.csv")
    window.close()
    there = ROOT / "figures" / "reference" / "pocket_full" / "claims.csv"
    assert (tmp_path / "claims.csv").read_bytes() == there.read_bytes()
