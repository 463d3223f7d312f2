"""Write: what is known of an experiment, as figures/<experiment>/report.html, and the index over all that have a page."""

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jinja2

from synthlib import paths
from synthlib.digests import sha256_text
from synthlib.files import read_json, write_atomic, write_json
from synthlib.inputs import InputError, choose, read_yaml
from synthlib.locks import claim_output
from synthlib.page.cards import Card, Download, FiguresRun, as_download, figures_runs, make_cards
from synthlib.page.gallery import Gallery, Mistakes, galleries, mistakes
from synthlib.page.notebooks import write_pages
from synthlib.page.numbers import where_of
from synthlib.page.origins import Origin, before, lost, made_from, origin
from synthlib.results import MODE_LABELS, variant_words, varying
from synthlib.results.claims import MARGIN, claim_words
from synthlib.results.compare import agreement
from synthlib.runs.experiment import read_experiment

HERE = Path(__file__).parent
REFERENCE, INDEX = "reference.html", "index.html"
BY_HAND = "interactive"  # where notebooks write that nobody gave parameters
SUMMARY = ("href", "title", "note", "made", "in_part", "results", "claims", "verdicts", "finished", "minutes", "steps")


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, tested for a data set, an architecture and an evaluation mode."""

    dataset: str
    architecture: str
    words: str
    mode: str
    verdict: str  # "held", "not held", "undecided" or "not run"


@dataclass(frozen=True)
class Page:
    """All that the page of an experiment shows. `is_reference`: the committed files, of which no step is at hand."""

    name: str
    title: str
    note: str
    is_reference: bool
    cards: list[Card]
    claims: list[Claim]
    steps: list[Origin]
    lost: list[str]  # folders of steps that these read, and where no receipt is any more
    galleries: list[Gallery]
    mistakes: list[Mistakes]
    all_numbers: list[Download]

    @property
    def n_made(self) -> int:
        """How many results were made, with something to show."""
        return sum(card.made and not card.is_empty for card in self.cards)

    @property
    def n_claims(self) -> int:
        """How many claims were tested; each is in several evaluation modes."""
        return len(self.claim_rows)

    @property
    def changed(self) -> list[str]:
        """Steps of which an input was made again after they had read it."""
        return [step.name for step in self.steps if step.changed]

    @property
    def n_in_part(self) -> int:
        """Of these, how many lack something that was not run."""
        return sum(card.in_part for card in self.cards)

    @property
    def compared(self) -> bool:
        """Whether there is a committed run to compare with."""
        return any(card.comparisons for card in self.cards)

    @cached_property
    def verdicts(self) -> dict[str, int]:
        """Verdict against the committed run -> results that have it."""
        return dict(Counter(card.verdict for card in self.cards if card.verdict))

    @property
    def agreement(self) -> str:
        """Whether the headline numbers agree with the committed run, in one sentence."""
        return agreement(one for card in self.cards for one in card.comparisons)

    def count_claims(self, verdict: str) -> int:
        """Claims with a verdict."""
        return sum(claim.verdict == verdict for claim in self.claims)

    @property
    def claim_modes(self) -> list[str]:
        """The evaluation modes that claims were tested in."""
        return _distinct(claim.mode for claim in self.claims)

    @property
    def claim_rows(self) -> dict[tuple[str, str, str], dict[str, str]]:
        """(data set, architecture, claim in words) -> evaluation mode -> verdict."""
        rows: dict[tuple[str, str, str], dict[str, str]] = {}
        for claim in self.claims:
            rows.setdefault((claim.dataset, claim.architecture, claim.words), {})[claim.mode] = claim.verdict
        return rows

    @property
    def finished(self) -> str:
        """When the last step ended."""
        return max((step.finished for step in self.steps), default="")

    @property
    def minutes(self) -> str:
        """The steps' own times, added up; on several cores the clock showed less."""
        return f"{sum(step.seconds for step in self.steps) / 60:.1f}"

    @property
    def hardware(self) -> list[str]:
        """Every machine that steps ran on."""
        return _distinct(step.hardware for step in self.steps)

    @property
    def versions(self) -> list[str]:
        """Every set of versions that steps ran with."""
        return _distinct(step.versions for step in self.steps)

    @property
    def commits(self) -> list[str]:
        """Every commit that steps ran at."""
        return _distinct(step.commit for step in self.steps)


def write_report(name: str, reference: bool = False) -> Path:
    """Make the page of an experiment, with its executed notebooks and the index; returns the page.

    reference: show the committed files in place of a run. InputError: no 04_figures run is finished, or a file of it has gone.
    """
    origins = {} if reference else {"made_from": made_from(name)}  # before it is read
    page = reference_page(name) if reference else run_page(name)
    file = paths.report_file(name)
    file = file.with_name(REFERENCE) if reference else file
    html = render("report.html.j2", page=page, margin=MARGIN)
    with claim_output(file, wait=True):
        if not reference:
            cards: dict[str, list[str]] = {}
            for card in page.cards:
                for step in (*card.steps, *filter(None, [card.step])):
                    cards.setdefault(step.run_dir, []).append(card.id)
            write_pages([step.run_dir for step in page.steps], file.parent / "pages", page.title, cards)
        origins["page_sha256"] = sha256_text(html)
        write_json(file.with_suffix(".json"), _summary(page, file) | origins)
        write_atomic(file, html.encode())  # last of these: where it is, they are
        write_index()
    return file


def write_index() -> Path:
    """Make figures/index.html, which leads to every page there is, by the JSON beside each."""
    folder = paths.figures_dir("")
    files = [path for name in ("report", "reference") for path in folder.glob(f"*/{name}.json")]
    read = [read_json(path) for path in files if path.with_suffix(".html").is_file()]
    there = [one for one in read if isinstance(one, dict) and set(SUMMARY) <= set(one)]  # others are of older code
    html = render("index.html.j2", experiments=sorted(there, key=lambda one: one["href"]))
    write_atomic(folder / INDEX, html.encode())
    return folder / INDEX


def run_page(name: str) -> Page:
    """The page of what was run."""
    if name != BY_HAND:
        choose("experiment", name, [*paths.experiment_names(), BY_HAND])
    runs = figures_runs(name)
    if not runs:
        make = "run notebooks/04_figures.ipynb" if name == BY_HAND else f"run `synthlib reproduce {name}`"
        raise InputError(f"no finished run of 04_figures in papermill_runs/{name}; expected one to show: {make} first.")
    if name == BY_HAND:
        title, note, made = "Run by hand", runs[0].settings.note, {result for run in runs for result in run.results}
        wanted = [result for result in read_yaml(paths.results_file()) if result in made]
    else:
        experiment = read_experiment(name)
        title, note, wanted = experiment.title, experiment.note, [result.id for result in experiment.results]
    cards = make_cards(runs, wanted, note, paths.reference_dir(name))
    shown = {card.step.run_dir for card in cards if card.step}
    runs = [run for run in runs if run.run_dir in shown]  # what a later one made again is not shown
    folders = before(run.run_dir for run in runs)
    steps = sorted(filter(None, map(origin, folders)), key=lambda step: step.name)
    drawn = _distinct(folder for run in runs for folder in run.settings.generated_dirs)
    tested = _distinct(folder for run in runs for folder in run.settings.evaluated_dirs)
    return Page(
        name=name,
        title=title,
        note=note,
        is_reference=False,
        cards=cards,
        claims=_claims(runs),
        steps=steps,
        lost=lost(folders),
        galleries=galleries(drawn, tested),
        mistakes=mistakes(tested),
        all_numbers=[as_download(run.numbers_file) for run in runs],
    )


def reference_page(name: str) -> Page:
    """The page of the committed files of an experiment: nothing need be run to see them."""
    folder = paths.reference_dir(choose("experiment", name, paths.experiment_names()))
    if not folder.is_dir():
        known = ", ".join(sorted(path.parent.name for path in folder.parent.glob("*/results.csv"))) or "none"
        raise InputError(f"no committed run of {name}; there are some of: {known}. Name one, or leave --reference out.")
    experiment, run = read_experiment(name), FiguresRun("", folder)
    wanted = [result.id for result in experiment.results]
    return Page(
        name=name,
        title=experiment.title,
        note=experiment.note,
        is_reference=True,
        cards=make_cards([run], wanted, experiment.note, None),
        claims=_claims([run]),
        steps=[],
        lost=[],
        galleries=[],
        mistakes=[],
        all_numbers=[as_download(run.numbers_file)],
    )


def render(template: str, **content: object) -> str:
    """A template of this folder as HTML; whatever it shows is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.globals["zip"] = zip
    environment.filters["moment"] = _moment
    script = (HERE / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = "".join((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "report.css"))
    ours = {"script": jinja2.utils.markupsafe.Markup(script), "style": jinja2.utils.markupsafe.Markup(style)}
    return environment.get_template(template).render(script_sha256=f"sha256-{digest}", **ours, **content)


def _claims(runs: list[FiguresRun]) -> list[Claim]:
    """The claims that the last run with T4 tested, from its numbers."""
    lines = next((run.lines[run.lines["result"] == "T4"] for run in runs if "T4" in run.results), None)
    found: dict[tuple[str, ...], Claim] = {}
    told_apart = [] if lines is None else varying(lines)  # such as the images that both learned from
    for line in [] if lines is None else lines.to_dict("records"):
        where = where_of(line["where"])
        words = claim_words(line["trick"], where["sign"], where["baseline"])
        words += variant_words(line, told_apart)
        mode = MODE_LABELS.get(line["evaluation_mode"], line["evaluation_mode"])
        verdict = "not run" if "not run" in line["status"] else line["status"].partition(";")[0]
        key = (line["dataset"], line["architecture"], words, mode)
        found.setdefault(key, Claim(*key, verdict))
    return list(found.values())


def _summary(page: Page, file: Path) -> dict[str, object]:
    """What the index says of a page."""
    title = f"{page.title}, the committed run" if page.is_reference else page.title
    claims = dict(Counter(claim.verdict for claim in page.claims))
    values = (f"{page.name}/{file.name}", title, page.note, page.n_made, page.n_in_part, len(page.cards), claims)
    values += (page.verdicts, page.finished, page.minutes, len(page.steps))
    return dict(zip(SUMMARY, values, strict=True))


def _moment(recorded: str) -> str:
    """A time as receipts have it, for people."""
    return recorded.replace("T", " ").replace("Z", " UTC") or "not recorded"


def _distinct(values: object) -> list[str]:
    return [value for value in dict.fromkeys(values) if value]
