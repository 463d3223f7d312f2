"""What a page says, read back from its HTML: every number in its tables, and whether results.csv says the same."""

import csv
import re
from dataclasses import dataclass

from bs4 import BeautifulSoup

from synthlib.settings import BEST_MODE

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
    if shown.text == "not run":
        if not line["status"].startswith("not run"):
            yield f"status is {line['status']!r}"
        return
    interval = re.search(r"\[(.*), (.*)\]", shown.text)
    estimate = shown.text.partition("[")[0].strip()
    said = {"value": estimate} | (dict(zip(("low", "high"), interval.groups(), strict=True)) if interval else {})
    if line["method"].startswith("crossed bootstrap"):
        said.pop("value")
    elif (line["low"] != "") != (interval is not None):
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
    if mode and line["evaluation_mode"] not in (mode, ""):
        yield f"the mode is {line['evaluation_mode']}"
    where = [part.partition("=")[2] for part in re.split(r"; (?=\w+=)", line["where"])]
    known = {_plain(text) for text in (*line.values(), *where, *line["status"].split("; "))}
    for head, text in shown.words:
        if head in ("status", "guidance") or head.startswith("published"):
            continue  # what several lines of a row say together; "random, 1 to 5"
        if text and _plain(MODES.get(text, text)) not in known:
            yield f"{head} {text!r} is not in it"


def _plain(text):
    return text.replace("_", " ").replace(", full (3n images)", " full")
