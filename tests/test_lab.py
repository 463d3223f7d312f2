"""The notebooks in JupyterLab, as a person runs them: what they show, how far they are, and an interrupt in the middle.

SYNTHLIB_SCREENSHOTS names a folder for pictures of each notebook, to be looked at.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from browser import MARKS, chromium
from lab import jupyterlab, opened
from test_runs import copy_checkout, edit

from synthlib.files import read_json
from synthlib.interrupts import Interrupted

pytestmark = MARKS
# The pictures and tables that each shows with its defaults, by the number of the code cell.
PICTURES = {
    "01_generate": {5: 1, 6: 1},  # samples, guidance
    "01b_filter": {5: 1},  # rejected images
    "02_train": {5: 1},  # history
    "03_eval": {4: 1, 5: 1, 6: 1},  # accuracy, confusion, reliability
    "04_figures": {10: 1, 11: 1, 12: 1, 13: 1, 17: 1, 18: 1, 19: 1},  # F1 to F4, F8 to F10
}
TABLES = {
    "01_generate": {3: 1},  # the plan
    "01b_filter": {4: 1},  # disagreement
    "02_train": {},
    "03_eval": {4: 1, 7: 1},  # accuracy, measures
    "04_figures": {4: 1, 5: 1, 7: 1, 13: 1},  # T1, T2, T4, correlations of F4
}
DARK = {"@jupyterlab/apputils-extension:themes": {"theme": "JupyterLab Dark"}}
MADE = "papermill_runs/interactive"


@dataclass(frozen=True)
class Shown:
    """What a notebook showed when all its cells had run (see lab.READ_CELLS), and what its page asked of others."""

    cells: list[dict]
    asked: list[str]


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory):
    """The folder for pictures."""
    return Path(os.environ.get("SYNTHLIB_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))


@pytest.fixture(scope="module")
def by_hand(browser, screenshots, tmp_path_factory):
    """A checkout in which every notebook was run in order, untouched, by Run All Cells; and what each showed."""
    kit = copy_checkout(tmp_path_factory.mktemp("light") / "kit")
    shown = {}
    with jupyterlab(kit, kit.parent / "lab") as address:
        for name in PICTURES:
            with opened(browser, address, name) as notebook:
                notebook.run("Run All Cells")
                shown[name] = Shown(notebook.wait(), notebook.asked)
                notebook.screenshot(screenshots / f"{name}.png")
    return kit, shown


@pytest.fixture(scope="module")
def other(browser, tmp_path_factory):
    """Another checkout, in which nothing was run, and the address of its JupyterLab, which is dark."""
    kit = copy_checkout(tmp_path_factory.mktemp("dark") / "kit")
    edit(kit / "notebooks/02_train.ipynb", "replicates: int = 0", "replicates: int = 2")
    edit(
        kit / "notebooks/02_train.ipynb", "epochs: int = -1", "epochs: int = 150"
    )  # long enough to be interrupted by mouse
    with jupyterlab(kit, kit.parent / "lab", DARK) as address:
        yield kit, address


def counted(cells, what):
    return {number: cell[what] for number, cell in enumerate(cells, 1) if cell[what]}


def outputs(folder):
    return {name: made["sha256"] for name, made in read_json(folder / "receipt.json")["outputs"].items()}


BLOCK = 10  # images that 01_generate draws at once, by its defaults


def last_number(words, text):
    """The number that `words` (a pattern) finds last in a text; 0 where there is none."""
    return int(([0] + re.findall(words, text))[-1])


@pytest.mark.parametrize("name", PICTURES)
def test_run_all_cells_shows_every_picture_and_table_and_nothing_that_looks_wrong(by_hand, name):
    shown = by_hand[1][name]
    assert [cell["count"] for cell in shown.cells] == [f"[{n}]:" for n in range(1, len(shown.cells) + 1)]
    assert [counted(shown.cells, what) for what in ("red", "broken", "cut")] == [{}, {}, {}]
    assert counted(shown.cells, "pictures") == PICTURES[name]
    assert counted(shown.cells, "tables") == TABLES[name]
    text = "\n".join(cell["text"] for cell in shown.cells)
    for noise in ("Traceback", "Warning", "<Axes", "<Figure", "object at 0x", "NaN", "..."):
        assert noise not in text, noise
    assert f"{name}: receipt written" in shown.cells[-1]["text"]
    assert {url for url in shown.asked if "colab-badge" not in url} == set()


def test_an_interrupted_drawing_says_so_in_one_line_and_goes_on_where_it_was(by_hand, other, browser, screenshots):
    kit, address = other
    with opened(browser, address, "01_generate") as notebook:
        drawing = notebook.number("files = generate(plan)")
        notebook.run("Run All Cells")

        def drawn():
            return last_number(r"(\d+)/300", notebook.shows(drawing))

        first = notebook.wait_for(drawn, "the first images")
        notebook.wait_for(lambda: drawn() > first + BLOCK, "a bar that moves")  # it counts the steps of a block, too
        cut = notebook.interrupt()[drawing]
        notebook.screenshot(screenshots / "01_generate-interrupted-dark.png")
        assert cut["red"].strip() == f"Interrupted: {Interrupted()}"
        assert re.search(r"^digits merged: .*\d+/300 .*\n+Interrupted: .*$", cut["text"].strip()), cut["text"]
        assert not (kit / MADE / "01_generate/digits-merged/receipt.json").exists()
        notebook.select(drawing)
        notebook.run("Run Selected Cell and All Below")
        cells = notebook.wait()
        notebook.screenshot(screenshots / "01_generate-dark.png")
    assert counted(cells, "red") == {} and counted(cells, "pictures") == {5: 1, 6: 1}
    said = re.search(r"300 images: (\d+) drawn, (\d+) there already", cells[drawing]["text"])
    assert int(said[2]) >= BLOCK and int(said[1]) + int(said[2]) == 300
    step = "01_generate/digits-merged"
    assert outputs(kit / MADE / step) == outputs(by_hand[0] / MADE / step)


def test_an_interrupted_training_keeps_what_is_finished_and_ends_with_the_same_checkpoints(
    by_hand, other, browser, screenshots
):
    kit, address = other
    shutil.copytree(by_hand[0] / MADE / "01_generate", kit / MADE / "01_generate", dirs_exist_ok=True)
    made = kit / MADE / "02_train/digits-merged-resnet"
    with opened(browser, address, "02_train") as notebook:
        training = notebook.number("train_replicates(images")
        notebook.run("Run All Cells")
        second = r"replicate 2 of 2, resnet: +(\d+)%"
        notebook.wait_for(lambda: last_number(second, notebook.shows(training)), "the second replicate")
        cut = notebook.interrupt()[training]
        notebook.screenshot(screenshots / "02_train-interrupted-dark.png")
        assert cut["red"].strip() == f"Interrupted: {Interrupted()}"
        assert "Traceback" not in cut["text"]
        finished = (made / "model-r0.safetensors").stat()
        assert not (made / "model-r1.safetensors").exists()
        notebook.select(training)
        notebook.run("Run Selected Cell and All Below")
        cells = notebook.wait()
        notebook.screenshot(screenshots / "02_train-dark.png")
    assert counted(cells, "red") == {} and counted(cells, "pictures") == {5: 1}
    assert re.fullmatch(r"digits merged resnet: 100%.* 2/2 .*", cells[training]["text"].strip())
    assert (made / "model-r0.safetensors").stat().st_mtime_ns == finished.st_mtime_ns
    again = outputs(made)
    for file in made.glob("model-*"):
        file.unlink()
    with opened(browser, address, "02_train") as notebook:
        notebook.run("Run All Cells")
        assert counted(notebook.wait(), "red") == {}
    assert (made / "model-r0.safetensors").stat().st_mtime_ns != finished.st_mtime_ns
    assert outputs(made) == again and len(again) == 3
