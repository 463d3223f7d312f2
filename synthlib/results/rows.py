"""Result rows: what finished 03_eval steps left behind, read, checked and put in order; and the published values."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from synthlib import paths, receipts
from synthlib.files import read_json
from synthlib.inputs import InputError, cast, require
from synthlib.names import BEST_MODE
from synthlib.results import VARIANTS, mode_order, trick_label, trick_order, variant_order, variant_words, varying

CONDITION = ["dataset", "split", "trick", "setting", "images", "architecture", "init", "protocol", "evaluation_mode"]
COUNTS = ["n_train", "n_steps", "n_test"]
SCORES = ["accuracy_percent", "top5_percent", "ece_percent"]  # top5_percent is empty for ten classes or fewer
# orders: of the test images, behind an accuracy in authors modes.
ROW_COLUMNS = [*CONDITION, "replicate", "generation_seed", "training_seed", "unused_images", *COUNTS, "orders", *SCORES]
EVALUATED_COLUMNS = [*ROW_COLUMNS, "n_classes"]  # the last of classes.json, beside results.csv
MEASURE_COLUMNS = ["dataset", "trick", "setting", "replicate", "measure", "feature_space", "value", "low", "high", "n"]
PER_CLASS_COLUMNS = [*CONDITION, "replicate", "class", "accuracy_percent"]
CALIBRATION_COLUMNS = [*CONDITION, "replicate", "bin_low_percent", "bin_high_percent", "n", "confidence_percent",
                       "accuracy_percent"]  # fmt: skip
BEST_LOGITS = "logits-best-"  # how files of BEST_MODE begin: of checkpoints chosen on the test set


def read_evaluations(dirs: Iterable[str | Path]) -> pd.DataFrame:
    """Result rows of 03_eval step folders, one row per (condition, replicate), in canonical order: EVALUATED_COLUMNS.

    Raises InputError where there is no folder, a folder is not finished or damaged, has no row or lacks a column, or
    two folders hold the same replicate of one condition.
    """
    rows = _together(_evaluated(folder) for folder in dirs)
    twice = rows[rows.duplicated([*CONDITION, "replicate"])]
    if len(twice):
        which = ", ".join(map(str, twice.iloc[0][[*CONDITION, "replicate"]]))
        raise InputError(f"two rows for {which}; expected one a replicate: name each evaluated folder once.")
    return in_order(rows)


def only(rows: pd.DataFrame | None, conditions: Sequence[tuple[str, ...]]) -> pd.DataFrame:
    """The rows of some conditions, (data set, treatment, architecture), or all where none is named.

    A treatment is a trick or, of a condition with a setting of its own, "trick+setting".

    InputError: nothing was evaluated.
    """
    if rows is None:
        raise InputError(
            "nothing was evaluated; expected 03_eval folders: run notebooks/03_eval.ipynb, or ask for F1 only."
        )
    if not conditions:
        return rows
    named = pd.DataFrame({"d": rows["dataset"], "t": treatments(rows), "a": rows["architecture"]})
    mine = pd.MultiIndex.from_frame(named).isin(conditions)
    return rows[mine].reset_index(drop=True)


def treatments(rows: pd.DataFrame) -> pd.Series:
    """What was done to the images or the training of each row, in one word: "trick" or "trick+setting"."""
    return rows["trick"] + rows["setting"].map(lambda setting: f"+{setting}" if setting else "")


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
    same = ["dataset", "trick", "setting", "images", "replicate", "measure", "feature_space"]
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


def read_confusions(
    dirs: Iterable[str | Path], conditions: Sequence[tuple[str, ...]] = ()
) -> dict[str, tuple[dict[str, np.ndarray], list[str], dict[str, dict[str, str]]]]:
    """F3: data set -> (title -> confusion in `eval` mode, see `confusion_of`; the class names; title -> its condition).

    Only of `conditions` (see `only`), where any are named. Where conditions of a data set differ in VARIANTS, their names
    say these too. Each file is checked against its receipt.
    """
    first_of = {str(folder): _read_rows(folder, "results.csv", ROW_COLUMNS).iloc[[0]] for folder in dirs}
    chosen = {folder: row.iloc[0] for folder, row in first_of.items() if len(only(row, conditions))}
    found = {}
    for dataset in dict.fromkeys(row["dataset"] for row in chosen.values()):
        mine = {folder: row for folder, row in chosen.items() if row["dataset"] == dataset}
        told_apart = varying(pd.DataFrame(list(mine.values()), columns=ROW_COLUMNS))
        matrices, classes, who = {}, [], {}
        for folder, row in mine.items():
            names = [name for name in receipts.output_names(folder, ".safetensors") if name.startswith("logits-r")]
            classes = read_json(receipts.read_output(folder, "classes.json"))
            title = f"{trick_label(row['trick'])}, {row['architecture']}{variant_words(row, told_apart)}"
            who[title] = {name: row[name] for name in ("dataset", "trick", "setting", "architecture")}
            matrices[title] = confusion_of([receipts.read_output(folder, name) for name in names], classes)
        found[dataset] = (matrices, classes, who)
    return found


def read_per_class(dirs: Iterable[str | Path]) -> pd.DataFrame:
    """F8: per_class.csv of 03_eval folders, a row for each condition, replicate and class."""
    return _together(_read_rows(folder, "per_class.csv", PER_CLASS_COLUMNS) for folder in dirs)


def read_calibration(dirs: Iterable[str | Path]) -> pd.DataFrame:
    """F10: calibration.csv of 03_eval folders, a row for each condition, replicate and bin of confidence."""
    return _together(_read_rows(folder, "calibration.csv", CALIBRATION_COLUMNS) for folder in dirs)


def read_histories(dirs: Iterable[str | Path]) -> pd.DataFrame:
    """F9: history.csv of 02_train folders, a row for each condition, replicate and epoch.

    Columns: dataset, trick, architecture, init, setting (""), protocol, replicate, epoch, step, loss,
    train_accuracy_percent and, where a copy was tested while training, test_eval_percent and test_authors_percent.
    """
    frames = []
    for folder in dirs:
        given = receipts.settings_of(folder)
        who = {name: getattr(given, name) for name in ("dataset", "trick", "architecture", "init")}
        who |= {"setting": "", "protocol": given.protocol_label()}
        frames.append(pd.read_csv(receipts.read_output(folder, "history.csv")).assign(**who))
    return _together(frames)


def guidance_range(dirs: Iterable[str | Path]) -> tuple[float, float]:
    """F7: from where to where random guidance was drawn, as the images behind 03_eval folders say; 1 and 5 where none does.

    InputError: not all from the same range.
    """
    found = {}
    for folder in dirs:
        given = receipts.read_receipt(folder)["parameters"]
        drawn = receipts.read_receipt(given["generated_dir"]) if given["trick"] == "random_guidance" else None
        if drawn and not given["setting"] and "min_scale" in drawn["parameters"]:
            found[drawn["parameters"]["min_scale"], drawn["parameters"]["max_scale"]] = folder
    if len(found) > 1:
        raise InputError(
            f"random guidance was drawn from {', '.join(map(str, found))}; expected one range: draw it alike."
        )
    return next(iter(found), (1.0, 5.0))  # the authors' range (paper_facts): of sets that they host


def read_features(
    dirs: Iterable[str | Path],
) -> dict[str, tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """F5: data set -> (feature space, set -> features float32 [N, D], set -> labels int64 [N]), of 03_eval folders.

    Sets are "real", the pool, and treatments: of the first replicate. Folders without features.safetensors have none here.
    """
    found: dict[str, tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]] = {}
    for folder in dirs:
        if "features.safetensors" in receipts.output_names(folder, ".safetensors"):
            row = _read_rows(folder, "results.csv", ROW_COLUMNS).iloc[0]
            kept = load_file(receipts.read_output(folder, "features.safetensors"))
            spaces = receipts.read_receipt(folder)["parameters"]["feature_spaces"]
            space = next(name for name in spaces if not name.startswith("pixels"))
            _, features, labels = found.setdefault(row["dataset"], (space, {}, {}))
            for name, stored in (("real", "real"), (treatments(row.to_frame().T).iloc[0], "generated")):
                features[name] = kept[stored].astype(np.float32)
                labels[name] = kept["real_labels" if name == "real" else "labels"]
    return found


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

    One row per (condition, replicate, measure), none where nothing was measured. Columns: those of CONDITION, replicate,
    measure, feature_space, value, accuracy_percent, n_train, n (images measured).
    """
    columns = [*CONDITION, "replicate", "measure", "feature_space", "value", "accuracy_percent", "n_train", "n"]
    if measures.empty:
        return pd.DataFrame(columns=columns)
    # the images' replicate, not the classifier's
    of = rows["generation_seed"].astype(str).str.rpartition(":")[2].astype(int)
    measured = measures.rename(columns={"replicate": "image_replicate"})
    on = ["dataset", "trick", "setting", "images", "image_replicate"]
    joined = rows.assign(image_replicate=of).merge(measured, on=on, how="inner", sort=False)[columns]
    return joined.sort_values(["measure", "feature_space"], kind="stable", ignore_index=True)


def read_published(path: str | Path) -> pd.DataFrame:
    """Every published number with its source, as experiments/published.csv has it."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} is missing; expected the published values: restore experiments/published.csv from the checkout."
        )
    published = pd.read_csv(path, keep_default_na=False, dtype={"accuracy_percent": str})
    lacking = {"dataset", "method", "classifier", "accuracy_percent", "setting", "source"} - set(published.columns)
    if lacking:
        raise InputError(
            f"{path} lacks the columns {', '.join(sorted(lacking))}; expected those: restore it from the checkout."
        )
    numbers = [cast(f"accuracy_percent in {path}, line {line}", value, float)
               for line, value in enumerate(published["accuracy_percent"], 2)]  # fmt: skip
    for line, number in enumerate(numbers, 2):
        require(0 <= number <= 100, f"accuracy_percent in {path}, line {line}", number, "a percentage, 0 to 100")
    return published.assign(accuracy_percent=numbers)


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


def _together(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    frames = list(frames)
    if not frames:
        raise InputError(
            "no finished folder is given; expected at least one: run notebooks 02_train and 03_eval first."
        )
    return pd.concat(frames, ignore_index=True)


def _evaluated(folder: str | Path) -> pd.DataFrame:
    rows = _read_rows(folder, "results.csv", ROW_COLUMNS)
    return rows.assign(n_classes=len(read_json(receipts.read_output(folder, "classes.json"))))


def _read_rows(folder: str | Path, name: str, columns: list[str]) -> pd.DataFrame:
    if not (paths.resolve(folder) / name).is_file():
        raise InputError(
            f"no {name} in {folder}; expected an evaluated condition: run notebooks/03_eval.ipynb for it first."
        )
    text = {"setting": str}  # a column of empty cells would be taken for numbers
    rows = pd.read_csv(receipts.read_output(folder, name), keep_default_na=False, na_values=[""], dtype=text)
    lacking = [column for column in columns if column not in rows.columns]
    if lacking or rows.empty:
        what = f"lacks the columns {', '.join(lacking)}" if lacking else "has no row"
        raise InputError(
            f"{name} in {folder} {what}; expected a row per replicate: run notebooks/03_eval.ipynb for it again."
        )
    return rows[columns].fillna({"setting": ""})
