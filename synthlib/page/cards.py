"""Cards: one for each table and figure: claim, picture or table, verdict against the reference, downloads, origin."""

import base64
import io
import mimetypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
from PIL import Image

from synthlib import paths, receipts
from synthlib.inputs import InputError, read_yaml
from synthlib.page.numbers import NumberTable, number_tables, read_numbers, stand_in, where_of
from synthlib.page.origins import Origin, behind, lost, origin
from synthlib.results import trick_label
from synthlib.results.compare import Comparison, compare_with_reference
from synthlib.settings import FiguresSettings

EMBED_AT_MOST = 2_000_000  # bytes of a file to download; a larger one is linked where it lies, beside the page
PIXELS_ACROSS = 1.7  # of a figure in one of the page's, so that it is sharp on most screens
DOWNLOADS = (".csv", ".md", ".tex", ".pdf")
WORST_FIRST = ("differs", "moved", "no reference", "within interval", "same")


@dataclass(frozen=True)
class Picture:
    """A figure. `src` a data URI; width and height as shown, in the page's pixels."""

    src: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Download:
    """A file behind a card: inside the page as a data URI or, where it is large, by its name beside the page."""

    name: str
    href: str
    kilobytes: float


@dataclass(frozen=True)
class Card:
    """One result. `step`, the 04_figures run that made it, is None where none did, or where only the reference is shown."""

    id: str
    title: str
    claim: str
    note: str
    made: bool
    pictures: list[Picture] = field(default_factory=list)
    tables: list[NumberTable] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    downloads: list[Download] = field(default_factory=list)
    step: Origin | None = None
    steps: list[Origin] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)  # folders of steps behind it whose receipts are gone
    is_empty: bool = False  # nothing of what it should show was run

    @property
    def digests(self) -> dict[str, str]:
        """Folder -> digest of what was read of it, as the receipts of the steps after it say."""
        return dict(pair for step in filter(None, [*self.steps, self.step]) for pair in step.inputs)

    @property
    def changed(self) -> list[str]:
        """Steps behind it, or itself, of which an input was made again after they had read it."""
        return [step.name for step in filter(None, [*self.steps, self.step]) if step.changed]

    @property
    def verdict(self) -> str:
        """The worst of its files' verdicts against the reference; "" where nothing was compared."""
        found = {comparison.verdict for comparison in self.comparisons}
        return next((verdict for verdict in WORST_FIRST if verdict in found), "")

    @property
    def in_part(self) -> bool:
        """Whether something that it should show was not run."""
        return self.made and bool(self.not_run) and not self.is_empty


class FiguresRun:
    """One finished run of 04_figures: its files and numbers. Without `run_dir`, those of a folder, such as the reference."""

    def __init__(self, run_dir: str, folder: Path) -> None:
        self.run_dir, self.folder = run_dir, folder
        self.receipt = receipts.read_receipt(run_dir) if run_dir else None
        self.settings: FiguresSettings | None = receipts.settings_of(run_dir) if run_dir else None
        self.finished = self.receipt["recorded"]["finished"] if self.receipt else ""
        self._stems = {name: content["file"] for name, content in read_yaml(paths.results_file()).items()}

    @cached_property
    def files(self) -> list[Path]:
        """What the run made, in its order."""
        if self.receipt is None:
            return sorted(path for path in self.folder.iterdir() if path.suffix in (*DOWNLOADS, ".png"))
        return [(paths.resolve(self.run_dir) / name).resolve() for name in self.receipt["outputs"]]

    @cached_property
    def numbers_file(self) -> Path:
        """Its results.csv; of some results of an experiment only, the name says which."""
        return next((path for path in self.files if path.name.startswith("results")), self.folder / "results.csv")

    @cached_property
    def lines(self) -> pd.DataFrame:
        """Every number, as `numbers.read_numbers` gives it. InputError as `require_whole`."""
        self.require_whole([self.numbers_file])
        return read_numbers(self.numbers_file)

    def require_whole(self, files: Iterable[Path]) -> None:
        """InputError for a file of the run that has gone, or whose bytes are not those that it made."""
        whole = {} if self.receipt is None else self.receipt["outputs"]
        names = {(paths.resolve(self.run_dir) / name).resolve(): name for name in whole}
        for file in files:
            if self.receipt is not None and not receipts.is_whole(self.run_dir, names.get(file, "")):
                of = self.settings.experiment
                again = (
                    f"`synthlib reproduce {of}`"
                    if of in paths.experiment_names()
                    else "notebooks/04_figures.ipynb again"
                )
                raise InputError(
                    f"{paths.below_root(file)} is missing or was changed since it was made; run {again}, which makes it again."
                )

    @property
    def results(self) -> list[str]:
        """Which results it made."""
        if self.settings is not None:
            return list(self.settings.results)
        owners = {self.owner(path) for path in self.files}
        return [name for name in self._stems if name in owners]

    def owner(self, path: Path) -> str:
        """The result that a file belongs to: accuracy_by_trick_figure.png is of F2, not of T1; "" of none."""
        mine = [(len(stem), name) for name, stem in self._stems.items() if f"{path.stem}_".startswith(f"{stem}_")]
        return max(mine)[1] if mine else ""

    def files_of(self, result: str, *suffixes: str) -> list[Path]:
        """The files of a result that have one of some suffixes."""
        return [path for path in self.files if path.suffix in suffixes and self.owner(path) == result]


def figures_runs(experiment: str) -> list[FiguresRun]:
    """The finished runs of 04_figures of an experiment, the last one first: of all results or, by --only, of some.

    Those of older code with other parameters are left out. InputError: there are only such ones.
    """
    found, older = [], None
    for file in paths.figures_receipts(experiment):
        run_dir = paths.below_root(file.parent)
        try:
            folder = receipts.settings_of(run_dir).figures_dir
        except InputError as error:
            older = error
            continue
        found.append(FiguresRun(run_dir, paths.resolve(folder)))
    if older and not found:
        raise older
    return sorted(found, key=lambda run: (run.finished, run.run_dir), reverse=True)


def make_cards(runs: Sequence[FiguresRun], wanted: Iterable[str], note: str, reference: Path | None) -> list[Card]:
    """A card for each result wanted, made by the last run that has it; a card without content where none has.

    reference: the folder that numbers are compared with; None, or one that is not there, is none.
    """
    defined = read_yaml(paths.results_file())
    known = reference is not None and reference.is_dir()
    compared = {run.folder: compare_with_reference(run.folder, reference) for run in runs if known}
    cards = []
    for result in wanted:
        run = next((run for run in runs if result in run.results), None)
        what = {name: defined[result][name] for name in ("title", "claim")} | {"id": result}
        if run is None:
            cards.append(Card(**what, note=note, made=False))
            continue
        lines = run.lines[run.lines["result"] == result]
        run.require_whole(run.files_of(result, ".png", *DOWNLOADS))
        conditions = [(*condition, "")[:3] for condition in run.settings.conditions(result)] if run.settings else []
        unrun = {(*condition, "")[:3] for condition in run.settings.why_not_run()} if run.settings else set()
        steps, gone = _steps(run, defined[result]["stage"], conditions)
        tables = number_tables(lines)
        cards.append(
            Card(
                **what,
                note=run.settings.note if run.settings else note,
                made=True,
                pictures=[_picture(path, **what, below=tables) for path in run.files_of(result, ".png")],
                tables=tables,
                not_run=_not_run(run, conditions, lines),
                comparisons=[one for one in compared.get(run.folder, []) if run.owner(Path(one.file)) == result],
                downloads=[as_download(path) for path in run.files_of(result, *DOWNLOADS)],
                step=origin(run.run_dir) if run.run_dir else None,
                steps=steps,
                lost=gone,
                is_empty=bool(conditions) and unrun.issuperset(conditions),
            )
        )
    return cards


def _steps(run: FiguresRun, stage: str, conditions: Sequence[tuple[str, ...]]) -> tuple[list[Origin], list[str]]:
    """The finished steps behind a result, and the folders of those that are gone; none of a folder without a receipt."""
    folders = behind(run.run_dir, stage, conditions) if run.run_dir else []
    return [step for step in map(origin, folders) if step is not None], lost(folders)


def as_download(path: Path) -> Download:
    """A file as a link."""
    size = path.stat().st_size
    href = path.name if size > EMBED_AT_MOST else data_uri(path.read_bytes(), path.name)
    return Download(path.name, href, size / 1e3)


def data_uri(data: bytes, name: str) -> str:
    """Bytes as an address that needs no file; `name` says of which kind they are."""
    kind = {".md": "text/markdown", ".tex": "text/x-tex", ".csv": "text/csv"}.get(Path(name).suffix)
    kind = kind or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _picture(path: Path, id: str, title: str, claim: str, below: Sequence[NumberTable]) -> Picture:
    data = path.read_bytes()
    width, height = Image.open(io.BytesIO(data)).size
    alt = f"Figure {id}: {title}, {path.stem.replace('_', ' ')}. {claim}"
    alt += " Numbers behind it stand below it." if any(table.rows for table in below) else ""
    return Picture(data_uri(data, path.name), alt, round(width / PIXELS_ACROSS), round(height / PIXELS_ACROSS))


def _not_run(run: FiguresRun, conditions: Sequence[tuple[str, ...]], lines: pd.DataFrame) -> list[str]:
    """What a result should show and what nobody ran, with the reason: "digits: merged, resnet: why"."""
    said = [
        (condition[0], *condition[1].split("+"), *condition[2:], why)
        for condition, why in (run.settings.why_not_run().items() if run.settings else ())
        if (*condition, "")[:3] in conditions
    ]
    for line in lines[lines["status"].str.startswith("not run")].to_dict("records"):
        who = stand_in(line | where_of(line["where"]))
        said.append((*(who[name] for name in ("dataset", "trick", "setting", "architecture")), line["status"][9:]))
    return list(dict.fromkeys(_sentence(*found) for found in said))


def _sentence(dataset: str, trick: str, *rest: str) -> str:
    return ": ".join([dataset, ", ".join(filter(None, (trick_label(trick), *rest[:-1]))), rest[-1]])
