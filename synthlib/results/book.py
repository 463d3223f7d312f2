"""Book: what notebook 04 makes. It hands each result its rows, takes its tables and figures, and ends with results.csv."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from synthlib import paths, receipts
from synthlib.digests import sha256_json
from synthlib.files import write_atomic
from synthlib.inputs import InputError, read_yaml
from synthlib.results import known, rows, trick_label
from synthlib.results.style import save_figure
from synthlib.results.tables import write_table
from synthlib.results.tidy import results_csv, tidy
from synthlib.settings import FiguresSettings

T = TypeVar("T")
Condition = tuple[str, ...]  # data set, treatment, architecture; of images alone without the last
NOT_GIVEN = "no evaluated folder was given for it"


class Book:
    """The results that `settings` asks for: `"T1" in book` says whether one is wanted.

    Raises InputError as the readers of `results.rows`, when it first reads what they refuse.
    """

    def __init__(self, settings: FiguresSettings) -> None:
        self.settings = settings
        self.out = paths.resolve(settings.figures_dir)
        self.published = rows.read_published(paths.published_file())
        self.why_not_run = settings.why_not_run()
        self._defined = read_yaml(paths.results_file())
        self._made: list[Path] = []
        self._numbers: list[pd.DataFrame] = []
        pd.set_option("display.max_colwidth", None)  # a notebook shows remarks whole, not their first 50 characters

    def __contains__(self, result: str) -> bool:
        return result in self.settings.results

    # --- what results are made from -----------------------------------------------------------------------------------

    @cached_property
    def tested(self) -> pd.DataFrame:
        """Every result row there is; none where nothing was evaluated."""
        found = self.settings.evaluated_dirs
        return rows.read_evaluations(found) if found else pd.DataFrame(columns=rows.EVALUATED_COLUMNS)

    @cached_property
    def correct(self) -> dict[tuple[str, ...], np.ndarray]:
        """Correctness of every test image, see `rows.read_correct`."""
        return rows.read_correct(self.settings.evaluated_dirs)

    @cached_property
    def measures(self) -> pd.DataFrame:
        """Every measure of a synthetic set, see `rows.read_measures`."""
        return rows.read_measures(self.settings.evaluated_dirs)

    def wanted(self, result: str) -> list[Condition]:
        """The conditions that a result should show; none by hand, where all that is there counts."""
        return self.settings.conditions(result)

    def rows(self, result: str) -> pd.DataFrame:
        """The result rows of a result's conditions; InputError where nothing at all was evaluated."""
        return rows.only(self.tested if len(self.tested) else None, self.wanted(result))

    def measures_of(self, result: str) -> pd.DataFrame:
        """The measures that a result is about, of its synthetic sets."""
        found = self.measures[self.measures["measure"].isin(self._defined[result]["measures"])]
        sets = {(dataset, treatment) for dataset, treatment, _ in self.wanted(result)}
        named = zip(found["dataset"], rows.treatments(found), strict=True)
        mine = np.array([not sets or name in sets for name in named], dtype=bool)
        return found.loc[mine].reset_index(drop=True)

    @cached_property
    def n_classes(self) -> dict[str, int]:
        """Data set -> number of classes that it was tested with."""
        return dict(zip(self.tested["dataset"], self.tested["n_classes"], strict=True))

    def parts(self, result: str, by_dataset: Mapping[str, T]) -> list[tuple[str, str, T | None]]:
        """What goes into files of its own for each data set, as (name of the part, data set, what there is of it or None).

        The name is empty where there is one data set.
        """
        datasets = list(dict.fromkeys([*by_dataset, *(condition[0] for condition in self.wanted(result))]))
        return [(name if len(datasets) > 1 else "", name, by_dataset.get(name)) for name in datasets]

    def not_run(self, result: str, dataset: str = "") -> list[str]:
        """A line for each condition that a result should show and that was not run: "digits: merged, resnet: why".

        dataset: of this one only.
        """
        have = self._conditions(self.tested)
        if self._defined[result]["stage"] != "03_eval":  # it needs no result rows
            have |= set(self.wanted(result)) - set(self.why_not_run)
        said = []
        for condition in self.wanted(result):
            if condition not in have and dataset in ("", condition[0]):
                trick, _, setting = condition[1].partition("+")
                words = ", ".join(filter(None, (trick_label(trick), setting, *condition[2:])))
                said.append(f"{condition[0]}: {words}: {self.why_not_run.get(condition, NOT_GIVEN)}")
        return said

    # --- what is made of them -----------------------------------------------------------------------------------------

    def table(self, result: str, table: pd.DataFrame, view: pd.DataFrame | None = None) -> pd.DataFrame:
        """Keep a result's table, as CSV and, of its view, as Markdown and LaTeX; returns what people read."""
        defined = self._defined[result]
        caption = f"{result}. {defined['title']}."
        self._made += write_table(table, self.out / defined["file"], caption, self.settings.note, view)
        self._numbers.append(tidy(result, defined["file"], table))
        return table if view is None else view

    def figure(self, result: str, figure: Figure, numbers: pd.DataFrame | None = None, part: str = "") -> None:
        """Keep a result's figure as PNG and PDF, and the numbers behind it as CSV. part: of several figures, this one's name."""
        stem = self.out / f"{self._defined[result]['file']}{f'_{part}' if part else ''}"
        self._made += save_figure(figure, stem, self.settings.note)
        if numbers is not None:
            self._write(result, numbers, stem.name)

    def numbers(self, result: str, numbers: pd.DataFrame, part: str, view: pd.DataFrame | None = None) -> pd.DataFrame:
        """Keep further numbers of a result, as CSV; returns what people read."""
        self._write(result, numbers, f"{self._defined[result]['file']}_{part}")
        return numbers if view is None else view

    def finish(self) -> list[Path]:
        """Write results.csv, every number of the tables and figures in one long table; return all files.

        Of some results of an experiment only, as `reproduce --only` makes them, its name says which: the whole one stays.
        """
        of = "_".join(self.settings.results)
        part = Path(self.settings.run_dir).name == of.replace("_", "-")  # so runs/steps.py names the folder of a part
        path = self.out / (f"results_{of}.csv" if part else "results.csv")
        write_atomic(path, _csv(results_csv(self._numbers, self._provenance(), self.n_classes)))
        return [*dict.fromkeys(self._made), path]

    def _write(self, result: str, numbers: pd.DataFrame, name: str) -> None:
        path = self.out / f"{name}.csv"
        write_atomic(path, _csv(numbers))
        self._made.append(path)
        self._numbers.append(tidy(result, name, numbers))

    def _provenance(self) -> Mapping[tuple[str, ...], dict[str, str]]:
        """Where the numbers of a condition, and of its images' origin, come from.

        Time and hardware stand in the receipt of `run_dir`: they differ each time.
        """
        found = {}
        for folder in self.settings.evaluated_dirs:
            receipt = receipts.read_receipt(folder)
            if receipt is None:
                raise InputError(f"no finished run in {folder}; run notebooks/03_eval.ipynb for it first.")
            row = rows.read_evaluations([folder]).iloc[[0]]
            condition = (row["dataset"].iloc[0], rows.treatments(row).iloc[0], row["architecture"].iloc[0])
            found[condition] = found[(*condition, row["images"].iloc[0])] = {
                "unused_images": known(row["unused_images"].iloc[0]),
                "run_dir": folder,
                "outputs_sha256": sha256_json(receipts.output_digests(folder)),
                "code_sha256": receipt["code"],
                "commit": receipt["recorded"]["commit"],
            }
        return found

    @staticmethod
    def _conditions(tested: pd.DataFrame) -> set[Condition]:
        if tested.empty:
            return set()
        return set(zip(tested["dataset"], rows.treatments(tested), tested["architecture"], strict=True))


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()
