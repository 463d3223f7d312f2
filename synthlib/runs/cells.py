"""Cells: every table cell of an experiment with the command that runs it, and the published value beside it."""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from synthlib import paths
from synthlib.inputs import InputError
from synthlib.runs.experiment import Experiment, Result, chosen_results, read_experiment
from synthlib.runs.steps import conditions, why_not

# What a page holds between two comments: what the command printed. The text between them is replaced.
PART = re.compile(r"(<!-- generated: ([^>]*?) -->\n).*?(<!-- end of what was generated -->)", re.S)


@dataclass(frozen=True)
class Cell:
    """One classifier's accuracy in a table or figure. `published`: percent and source, both "not available" without one.

    why_not: why this experiment cannot run it; "" if it can.
    """

    experiment: str
    result: str
    dataset: str
    treatment: str
    architecture: str
    why_not: str
    published: tuple[float | str, str]

    @property
    def name(self) -> str:
        """As `synthlib reproduce --cell` takes it."""
        return "/".join((self.result, self.dataset, self.treatment, self.architecture))

    @property
    def command(self) -> str:
        """What runs the cell, with all that it needs."""
        return f"synthlib reproduce {self.experiment} --cell {self.name}"


def cells_of(experiment: Experiment, result: Result) -> list[Cell]:
    """The cells of one result, in the order in which it wants them; none of a result that has no accuracies (F1, F9)."""
    if result.stage != "03_eval":
        return []
    from synthlib.results.cells import published_value  # pandas takes half a second
    from synthlib.results.rows import read_published

    published = read_published(paths.published_file())
    found = []
    for dataset, treatment, architecture in conditions(experiment, (result,)):
        trick, _, setting = treatment.partition("+")
        condition = {"dataset": dataset, "trick": trick, "setting": setting, "architecture": architecture}
        condition |= {"split": "", "images": "", "evaluation_mode": "authors"}  # the mode in which the paper tested
        value = published_value(published, condition)
        why = why_not(experiment, dataset, treatment)
        found.append(Cell(experiment.name, result.id, dataset, treatment, architecture, why, value))
    return found


def cells_text(experiment: Experiment, only: Iterable[str] = ()) -> str:
    """The cells as plain text: a heading for each result, a line for each cell."""
    parts = []
    for result in chosen_results(experiment, only):
        lines = [f"{result.id}  {result.title}: synthlib reproduce {experiment.name} --only {result.id}"]
        cells = cells_of(experiment, result)
        width = max((len(cell.command) for cell in cells), default=0)
        lines += [f"  {cell.command:<{width}}  {_said(cell)}" for cell in cells]
        parts.append("\n".join(lines if cells else [*lines, "  has no cells of accuracies"]))
    return "\n\n".join(parts)


def cells_markdown(experiment: Experiment, only: Iterable[str] = ()) -> str:
    """The same as folded Markdown tables, one a result."""
    parts = []
    for result in chosen_results(experiment, only):
        cells = cells_of(experiment, result)
        number = f"{len(cells)} cells" if cells else "no cells of accuracies"
        lines = ["<details>", f"<summary><b>{result.id}</b> {result.title}: {number}</summary>", ""]
        lines += [f"All of it: `synthlib reproduce {experiment.name} --only {result.id}`", ""]
        for dataset, own in groupby(cells, key=lambda cell: cell.dataset):
            lines += [f"| {dataset} | published % |", "|---|---|"]
            lines += [f"| `{cell.command}` | {_said(cell)} |" for cell in own] + [""]
        parts.append("\n".join([*lines, "</details>"]))
    return "\n\n".join(parts)


def _said(cell: Cell) -> str:
    value, source = cell.published
    published = f"{value:.1f}, {source}" if isinstance(value, float) else value
    return f"{published}; cannot be run: {cell.why_not}" if cell.why_not else published


def filled(page: str) -> str:
    """A page of Markdown with what stands between its comments generated anew. InputError: a comment names another command.

    The comments are `<!-- generated: synthlib cells EXPERIMENT --markdown -->`, with or without `--only T1 T2`, and
    `<!-- end of what was generated -->`.
    """

    def one(found: re.Match) -> str:
        words = re.fullmatch(r"synthlib cells (\S+) --markdown(?: --only (.+))?", found[2])
        if not words:
            raise InputError(
                f"{found[2]!r} is not synthlib cells EXPERIMENT --markdown [--only T1 ...]; mend the comment."
            )
        return f"{found[1]}\n{cells_markdown(read_experiment(words[1]), (words[2] or '').split())}\n\n{found[3]}"

    return PART.sub(one, page)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        file = Path(name)
        file.write_text(filled(file.read_text(encoding="utf-8")), encoding="utf-8")
