"""Result rows: what finished 03_eval steps left behind, read, checked and put in order; and the published values."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from synthlib import paths, receipts
from synthlib.results import mode_order, trick_label, trick_order
from synthlib.settings import InputError

CONDITION = ["dataset", "trick", "architecture", "evaluation_mode"]
COUNTS = ["n_train", "n_steps", "n_test"]
ROW_COLUMNS = [*CONDITION, "replicate", "generation_seed", "training_seed", *COUNTS, "accuracy_percent"]
MEASURE_COLUMNS = ["dataset", "trick", "replicate", "measure", "feature_space", "value", "n"]


def read_evaluations(dirs: Iterable[str | Path]) -> pd.DataFrame:
    """Result rows of 03_eval step folders, one row per (condition, replicate), in canonical order.

    Raises InputError where there is no folder, a folder is not finished or damaged, has no row or lacks a column, or
    two folders hold the same replicate of one condition.
    """
    frames = [_read_rows(folder, "results.csv", ROW_COLUMNS) for folder in dirs]
    if not frames:
        raise InputError("there is no evaluated folder; expected at least one: run notebooks/03_eval.ipynb first.")
    rows = pd.concat(frames, ignore_index=True)
    twice = rows[rows.duplicated([*CONDITION, "replicate"])]
    if len(twice):
        which = ", ".join(map(str, twice.iloc[0][[*CONDITION, "replicate"]]))
        raise InputError(f"two rows for {which}; expected one a replicate: name each evaluated folder once.")
    return in_order(rows)


def read_measures(dirs: Iterable[str | Path]) -> pd.DataFrame:
    """Diversity measures of 03_eval step folders, one row per (data set, trick, replicate, measure).

    No row where no folder made any. The measures are of the images, so the folders of several architectures may
    repeat them: equal rows are kept once.
    """
    folders = [folder for folder in dirs if "measures.csv" in receipts.output_names(folder, ".csv")]
    frames = [_read_rows(folder, "measures.csv", MEASURE_COLUMNS) for folder in folders]
    measures = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=MEASURE_COLUMNS)
    return measures.drop_duplicates(["dataset", "trick", "replicate", "measure", "feature_space"], ignore_index=True)


def read_correct(dirs: Iterable[str | Path]) -> dict[tuple[str, str, str, str], np.ndarray]:
    """Correctness of every test image: (data set, trick, architecture, evaluation mode) -> float32 [R, N].

    Replicates in order. In `eval` mode 0 or 1, in `authors` mode the mean over the stored shuffles. Raises InputError
    as `read_evaluations`, and where the logits do not give the accuracy that results.csv states.
    """
    found: dict[tuple[str, str, str, str], list[tuple[int, np.ndarray]]] = {}
    for folder in dirs:
        rows = _read_rows(folder, "results.csv", ROW_COLUMNS)
        for replicate, group in rows.groupby("replicate"):
            logits = load_file(receipts.read_output(folder, f"logits-r{replicate}.safetensors"))
            for row in group.itertuples():
                right = (
                    logits[row.evaluation_mode].argmax(axis=-1) == logits["labels"]
                )  # [N], or [S, N] in authors mode
                right = right.reshape(-1, right.shape[-1]).mean(axis=0, dtype=np.float64).astype(np.float32)
                stated, ours = row.accuracy_percent, 100 * float(right.mean(dtype=np.float64))
                if abs(stated - ours) > 0.01:
                    raise InputError(
                        f"{folder}: the {row.evaluation_mode} logits of replicate {replicate} give {ours:.3f} %, "
                        f"but results.csv says {stated:.3f} %; expected the same: run notebooks/03_eval.ipynb again."
                    )
                key = (row.dataset, row.trick, row.architecture, row.evaluation_mode)
                found.setdefault(key, []).append((int(replicate), right))
    return {
        key: np.stack([right for _, right in sorted(pairs, key=lambda pair: pair[0])]) for key, pairs in found.items()
    }


def read_confusions(dirs: Iterable[str | Path], tricks: Iterable[str] = ()) -> tuple[dict[str, np.ndarray], list[str]]:
    """F3: "trick, architecture" -> confusion in `eval` mode (see `confusion_of`), and the class names.

    Only of `tricks`, where any of them was evaluated. Each file is checked against its receipt.
    """
    receipt_of = {str(folder): receipts.read_receipt(folder)["parameters"] for folder in dirs}
    chosen = [folder for folder, given in receipt_of.items() if given["trick"] in tricks] or list(receipt_of)
    found, classes = {}, []
    for folder in chosen:
        files = [receipts.read_output(folder, name) for name in receipts.output_names(folder, ".safetensors")]
        classes = receipts.read_json(receipts.read_output(folder, "classes.json"))
        title = f"{trick_label(receipt_of[folder]['trick'])}, {receipt_of[folder]['architecture']}"
        found[title] = confusion_of(files, classes)
    return found, classes


def confusion_of(files: Iterable[Path], classes: Sequence[str], evaluation_mode: str = "eval") -> np.ndarray:
    """Confusion in percent of each true class: float64 [C, C], rows are true classes. files: a condition's logits.

    Summed over replicates, in `authors` mode over the shuffles too. Raises InputError where there is no file.
    """
    counts = np.zeros((len(classes), len(classes)))
    for file in files:
        logits = load_file(file)
        predicted = logits[evaluation_mode].argmax(axis=-1)
        np.add.at(counts, (np.broadcast_to(logits["labels"], predicted.shape), predicted), 1)
    if not counts.any():
        raise InputError("no logits are given; expected logits-r0.safetensors: run notebooks/03_eval.ipynb first.")
    return 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def diversity_against_accuracy(rows: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """F4's points: accuracy beside each measure of the same replicate's images.

    One row per (condition, replicate, measure). Columns: those of CONDITION, replicate, measure, feature_space,
    value, accuracy_percent, n_train, n (images measured).
    """
    if measures.empty:
        raise InputError(
            "no evaluated folder has measures; expected measures.csv: run notebooks/03_eval.ipynb with `measures` set."
        )
    joined = rows.merge(measures, on=["dataset", "trick", "replicate"], how="inner", sort=False)
    if joined.empty:
        raise InputError(
            "no measured replicate was also evaluated; expected some: give 03_eval folders of the same conditions."
        )
    joined = joined[[*CONDITION, "replicate", "measure", "feature_space", "value", "accuracy_percent", "n_train", "n"]]
    return joined.sort_values(["measure", "feature_space"], kind="stable", ignore_index=True)


def read_published(path: str | Path) -> pd.DataFrame:
    """Every published number with its source, as experiments/published.csv has it."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} is missing; expected the published values: restore experiments/published.csv from the checkout."
        )
    published = pd.read_csv(path, keep_default_na=False)
    lacking = {"dataset", "method", "classifier", "accuracy_percent", "setting", "source"} - set(published.columns)
    if lacking:
        raise InputError(
            f"{path} lacks the columns {', '.join(sorted(lacking))}; expected those: restore it from the checkout."
        )
    return published


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort by data set (first seen first), architecture, trick and mode (canonical), replicate."""
    datasets = {name: place for place, name in enumerate(dict.fromkeys(rows["dataset"]))}
    order = [
        (
            datasets[row.dataset],
            row.architecture,
            trick_order(row.trick),
            mode_order(row.evaluation_mode),
            getattr(row, "replicate", 0),
        )
        for row in rows.itertuples()
    ]
    return rows.iloc[sorted(range(len(rows)), key=order.__getitem__)].reset_index(drop=True)


def _read_rows(folder: str | Path, name: str, columns: list[str]) -> pd.DataFrame:
    if not (paths.resolve(folder) / name).is_file():
        raise InputError(
            f"no {name} in {folder}; expected an evaluated condition: run notebooks/03_eval.ipynb for it first."
        )
    rows = pd.read_csv(receipts.read_output(folder, name), keep_default_na=False, na_values=[""])
    lacking = [column for column in columns if column not in rows.columns]
    if lacking or rows.empty:
        what = f"lacks the columns {', '.join(lacking)}" if lacking else "has no row"
        raise InputError(
            f"{name} in {folder} {what}; expected a row per replicate: run notebooks/03_eval.ipynb for it again."
        )
    return rows[columns]
