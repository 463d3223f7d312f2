"""For tests of the page: receipts to make one of, and what it says, read back from its HTML and held against results.csv."""

import csv
import os
import re
import shutil
from dataclasses import asdict, dataclass

import nbformat
from bs4 import BeautifulSoup
from conftest import ROOT

from synthlib import paths, receipts
from synthlib.digests import notebook_digest, sha256_file
from synthlib.files import RECEIPT, write_json
from synthlib.names import BEST_MODE
from synthlib.runs.experiment import read_experiment
from synthlib.runs.steps import plan_steps
from synthlib.settings import SETTINGS

REFERENCE = ROOT / "figures" / "reference"
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
MODES = {
    "eval mode": "eval",
    "authors' mode": "authors",
    "authors' mode, best epoch on the test set": BEST_MODE,
}


@dataclass(frozen=True)
class Shown:
    """A number on a page: its card, the header of its column, its text, the line it names, and its row's other words."""

    card: str
    file: str
    header: str
    text: str
    line: int
    words: tuple[tuple[str, str], ...]  # (header, text) of the cells of the row that are no numbers


def parse(page):
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def numbers_on(soup):
    """Every number in the tables of results, as `Shown`."""
    found = []
    for card in soup.select("article.card"):
        for table in card.select("table[data-file]"):
            headers = [head.get_text() for head in table.select("thead th")]
            for row in table.select("tbody tr"):
                cells = list(zip(headers, row.select("td"), strict=True))
                words = tuple((head, cell.get_text()) for head, cell in cells if not cell.has_attr("data-line"))
                for head, cell in cells:
                    if cell.has_attr("data-line"):
                        line = int(cell["data-line"])
                        found.append(Shown(card["id"], table["data-file"], head, cell.get_text(), line, words))
    return found


def read_lines(file):
    """results.csv: line number -> its columns, as an editor counts lines that hold one row each."""
    with open(file, newline="", encoding="utf-8") as opened:
        return dict(enumerate(csv.DictReader(opened), start=2))


def wrong_numbers(soup, file):
    """What on a page differs from results.csv, a line each; an empty list is what one wants."""
    lines, wrong = read_lines(file), []
    for shown in numbers_on(soup):
        line = lines[shown.line]
        where = f"{shown.card}, line {shown.line}, {shown.header!r}: {shown.text!r}"
        if line["result"] != shown.card or line["file"] != shown.file:
            wrong.append(f"{where} is a number of {line['result']}, {line['file']}")
        wrong += [f"{where}: {why}" for why in (*_odd_numbers(shown, line), *_odd_words(shown, line))]
    return wrong


def _odd_numbers(shown, line):
    if shown.header.startswith("published"):
        if shown.text != f"{line['published']} ({line['published_source']})":
            yield f"published is {line['published']} by {line['published_source']}"
        return
    if shown.text == "" == line["value"]:
        return  # such as a correlation of one condition
    if shown.text == "not run":
        if not line["status"].startswith("not run"):
            yield f"status is {line['status']!r}"
        return
    interval = re.search(r"\[(.*), (.*)\]", shown.text)
    few = re.search(r"\(mean of (.*?)\)", shown.text)
    estimate = re.split(r" [\[(]", shown.text.strip())[0]
    said = {"value": estimate} | (dict(zip(("low", "high"), interval.groups(), strict=True)) if interval else {})
    if line["method"].startswith("crossed bootstrap"):
        said.pop("value")
    elif line["values"]:  # of too few replicates for an interval to be shown
        texts, values = few[1].split(", ") if few else [], line["values"].split()
        if interval or len(texts) != len(values) or not all(map(_rounds_to, map(float, values), texts)):
            yield f"the values are {line['values']}"
    elif few or (line["low"] != "") != (interval is not None):
        yield f"the interval is {line['low']!r} to {line['high']!r}"
    for name, text in said.items():
        digits = NUMBER.fullmatch(text)
        if not digits:
            yield f"{name} is no number"
        elif not _rounds_to(float(line[name]), text):
            yield f"{name} is {line[name]}"


def _rounds_to(value, text):
    """Whether `text` is `value` with fewer digits."""
    mantissa, _, exponent = text.partition("e")
    step = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    significant = len(mantissa.lstrip("+-").replace(".", "").lstrip("0"))
    if "." not in mantissa and significant >= 3:  # three digits in all, such as 372
        step = max(step, 10.0 ** (len(mantissa.lstrip("+-")) - significant))
    return abs(value - float(text)) <= 0.5001 * step


def _odd_words(shown, line):
    """Words of the row or header that the line does not say."""
    mode = next((mode for words, mode in sorted(MODES.items(), reverse=True) if shown.header.endswith(words)), "")
    if mode and line["evaluation_mode"] != mode:
        yield f"the mode is {line['evaluation_mode']}"
    where = [part.partition("=")[2] for part in re.split(r"; (?=\w+=)", line["where"])]
    known = {_plain(text) for text in (*line.values(), *where, *line["status"].split("; "))}
    for head, text in shown.words:
        if len(parts := text.split("; ")) > len(set(parts)):
            yield f"{head} {text!r} repeats itself"
        if head == "chance, %":
            if (
                text
                and line["chance"]
                and not any(_rounds_to(float(line["chance"]), one.split()[0]) for one in text.split("; "))
            ):
                yield f"chance is {line['chance']}"
            continue
        if head in ("status", "guidance") or head.startswith("published"):
            continue  # what several lines of a row say together; "random, 1 to 5"
        if text and _plain(MODES.get(text, text)) not in known:
            yield f"{head} {text!r} is not in it"


def _plain(text):
    return text.replace("_", " ").replace(", full (3n images)", " full")


# --- something to show ------------------------------------------------------------------------------------------------


def own_folder(root, patch):
    """A root with the checkout's notebooks and experiments, its committed runs, and nothing run."""
    for name in ("notebooks", "experiments", "synthlib"):
        (root / name).symlink_to(ROOT / name)
    patch.setenv("SYNTHLIB_ROOT", str(root))
    paths.root.cache_clear()
    link_reference(root)
    return root


def link_reference(root):
    (root / "figures").mkdir()
    (root / "figures" / "reference").symlink_to(REFERENCE)


def pretend_pocket(root):
    """Receipts of a whole run of pocket whose tables and figures are those of the reference; returns its planned steps.

    What the steps before 04_figures made is not there, as after a clean-up of large files; each has an executed page.
    """
    if not (root / "figures").exists():
        link_reference(root)
    steps = plan_steps(read_experiment("pocket"))
    for number, step in enumerate(steps):
        (folder := paths.resolve(step.run_dir)).mkdir(parents=True)
        if step.notebook == "04_figures":
            shutil.copytree(REFERENCE / "pocket", root / "figures" / "pocket")
            files = sorted((root / "figures" / "pocket").iterdir())
        else:
            (folder / "made.txt").write_text(step.name)
            files = [folder / "made.txt"]
        finish(step.notebook, step.parameters, files, seconds=60 + number)
        nbformat.write(nbformat.read(paths.notebook(step.notebook), as_version=4), folder / "executed.ipynb")
    return steps


def finish(notebook, parameters, files, seconds=60.0):
    """The receipt that a notebook would have written."""
    settings = asdict(SETTINGS[notebook](**parameters))
    folder = paths.resolve(settings["run_dir"])
    made = {os.path.relpath(path, folder): path for path in files}
    outputs = {name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for name, path in made.items()}
    recorded = {"finished": "2026-01-02T03:04:05Z", "seconds": seconds, "peak_memory_bytes": 1.5e9, "commit": "c0ffee",
                "python": "3.11.7", "versions": {"torch": "2.14.1"}, "hardware": "two cores"}  # fmt: skip
    receipt = {"notebook": notebook, "parameters": settings, "inputs": receipts.input_digests(settings),
               "code": notebook_digest(notebook), "outputs": outputs, "recorded": recorded}  # fmt: skip
    write_json(folder / RECEIPT, receipt)
