"""Result rows: what finished 03_eval steps left behind, read, checked and put in order; and the published values."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from synthlib import paths, receipts
from synthlib.inputs import InputError
from synthlib.results import VARIANTS, mode_order, trick_label, trick_order, variant_order, variant_words, varying
from synthlib.settings import BEST_MODE

CONDITION = ["dataset", "split", "trick", "images", "architecture", "init", "protocol", "evaluation_mode"]
COUNTS = ["n_train", "n_steps", "n_test"]
SCORES = ["accuracy_percent", "top5_percent", "ece_percent"]  # top5_percent is empty for ten classes or fewer
ROW_COLUMNS = [*CONDITION, "replicate", "generation_seed", "training_seed", *COUNTS, *SCORES]
MEASURE_COLUMNS = ["dataset", "trick", "replicate", "measure", "feature_space", "value", "n"]
BEST_LOGITS = "logits-best-"  # how files of BEST_MODE begin: of checkpoints chosen on the test set


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


def only(rows: pd.DataFrame | None, conditions: Sequence[tuple[str, ...]]) -> pd.DataFrame:
    """The rows of some conditions, (data set, trick, architecture), or all where none is named.

    InputError: nothing was evaluated.
    """
    if rows is None:
        raise InputError(
            "nothing was evaluated; expected 03_eval folders: run notebooks/03_eval.ipynb, or ask for F1 only."
        )
    if not conditions:
        return rows
    mine = pd.MultiIndex.from_frame(rows[["dataset", "trick", "architecture"]]).isin(conditions)
    return rows[mine].reset_index(drop=True)


def read_measures(dirs: Iterable[str | Path]) -> pd.DataFrame:
    """Diversity measures of 03_eval step folders, one row per (data set, trick, images, replicate, measure).

    No row where no folder made any. images, from the folder's results.csv, tells a hosted set from ours of the same
    trick. The measures are of the images, so the folders of several architectures may repeat them: equal rows are kept
    once.
    """
    frames = [pd.DataFrame(columns=[*MEASURE_COLUMNS, "images"])]
    for folder in dirs:
        if "measures.csv" in receipts.output_names(folder, ".csv"):
            images = _read_rows(folder, "results.csv", ROW_COLUMNS)["images"].iloc[0]
            frames.append(_read_rows(folder, "measures.csv", MEASURE_COLUMNS).assign(images=images))
    measures = pd.concat(frames[1:] or frames, ignore_index=True)
    same = ["dataset", "trick", "images", "replicate", "measure", "feature_space"]
    return measures.drop_duplicates(same, ignore_index=True)


def read_correct(dirs: Iterable[str | Path]) -> dict[tuple[str, ...], np.ndarray]:
    """Correctness of every test image: a condition, its values in the order of CONDITION -> float32 [R, N].

    Replicates in order. In `eval` mode 0 or 1, in the authors' modes the mean over the stored shuffles. Raises
    InputError as `read_evaluations`, and where the logits do not give the accuracy that results.csv states.
    """
    found: dict[tuple[str, ...], list[tuple[int, np.ndarray]]] = {}
    for folder in dirs:
        rows = _read_rows(folder, "results.csv", ROW_COLUMNS)
        for (replicate, best), group in rows.groupby(["replicate", rows["evaluation_mode"] == BEST_MODE]):
            name = f"{BEST_LOGITS if best else 'logits-'}r{replicate}.safetensors"
            logits = load_file(receipts.read_output(folder, name))
            for row in group.itertuples():
                values = logits["authors" if best else row.evaluation_mode]  # [N, C], or [S, N, C] in authors modes
                right = values.argmax(axis=-1) == logits["labels"]
                right = right.reshape(-1, right.shape[-1]).mean(axis=0, dtype=np.float64).astype(np.float32)
                stated, ours = row.accuracy_percent, 100 * float(right.mean(dtype=np.float64))
                if abs(stated - ours) > 0.01:
                    raise InputError(
                        f"{folder}: the {row.evaluation_mode} logits of replicate {replicate} give {ours:.3f} %, "
                        f"but results.csv says {stated:.3f} %; expected the same: run notebooks/03_eval.ipynb again."
                    )
                key = tuple(getattr(row, name) for name in CONDITION)
                found.setdefault(key, []).append((int(replicate), right))
    return {
        key: np.stack([right for _, right in sorted(pairs, key=lambda pair: pair[0])]) for key, pairs in found.items()
    }


def read_confusions(dirs: Iterable[str | Path], tricks: Iterable[str] = ()) -> tuple[dict[str, np.ndarray], list[str]]:
    """F3: "trick, architecture" -> confusion in `eval` mode (see `confusion_of`), and the class names.

    Only of `tricks`, where any of them was evaluated. Where conditions differ in split, images, init or protocol, their
    names say these too. Each file is checked against its receipt.
    """
    first_of = {str(folder): _read_rows(folder, "results.csv", ROW_COLUMNS).iloc[0] for folder in dirs}
    chosen = [folder for folder, row in first_of.items() if row["trick"] in tricks] or list(first_of)
    told_apart = varying(pd.DataFrame([first_of[folder] for folder in chosen], columns=ROW_COLUMNS))
    found, classes = {}, []
    for folder in chosen:
        names = [name for name in receipts.output_names(folder, ".safetensors") if not name.startswith(BEST_LOGITS)]
        classes = receipts.read_json(receipts.read_output(folder, "classes.json"))
        row = first_of[folder]
        title = f"{trick_label(row['trick'])}, {row['architecture']}{variant_words(row, told_apart)}"
        found[title] = confusion_of([receipts.read_output(folder, name) for name in names], classes)
    return found, classes


def confusion_of(files: Iterable[Path], classes: Sequence[str], evaluation_mode: str = "eval") -> np.ndarray:
    """Confusion in percent of each true class: float64 [C, C], rows are true classes. files: a condition's logits.

    Summed over replicates, in `authors` mode over the shuffles too. Files of checkpoints that were chosen on the test
    set (logits-best-*) are left out. Raises InputError where there is no other.
    """
    counts = np.zeros((len(classes), len(classes)))
    for file in files:
        if file.name.startswith(BEST_LOGITS):
            continue
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
    of = (
        rows["generation_seed"].astype(str).str.rpartition(":")[2].astype(int)
    )  # the images' replicate, not the classifier's
    measured = measures.rename(columns={"replicate": "image_replicate"})
    on = ["dataset", "trick", "images", "image_replicate"]
    joined = rows.assign(image_replicate=of).merge(measured, on=on, how="inner", sort=False)
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
    """Sort by data set (first seen first), architecture, trick, VARIANTS and mode (canonical), replicate."""
    datasets = {name: place for place, name in enumerate(dict.fromkeys(rows["dataset"]))}
    columns = ["dataset", "architecture", "trick", *VARIANTS, "evaluation_mode"]
    replicates = rows["replicate"] if "replicate" in rows else [0] * len(rows)
    order = [
        (datasets[row["dataset"]], row["architecture"], trick_order(row["trick"]), variant_order(row),
         mode_order(row["evaluation_mode"]), replicate)
        for row, replicate in zip(rows[columns].to_dict("records"), replicates, strict=True)
    ]  # fmt: skip
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
