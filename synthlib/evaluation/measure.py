"""Measure: how diverse, faithful and far from real a generated set is, replicate by replicate, in named feature spaces."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import safetensors.torch
import torch

from synthlib import receipts
from synthlib.data.real import load_real
from synthlib.data.sets import SyntheticSet
from synthlib.data.shards import read_shards
from synthlib.devices import require_finite
from synthlib.evaluation.features import PIXELS, extract_features, split_name
from synthlib.evaluation.resample import AGAINST_REAL, MEASURES, OF_IMAGES, Images, measure_rows, score_row
from synthlib.evaluation.scores import score_images
from synthlib.files import write_atomic
from synthlib.inputs import InputError, choose
from synthlib.interrupts import told_in_one_line
from synthlib.settings import EvaluateSettings
from synthlib.training.replicates import chosen_images, read_training_set

COLUMNS = ["dataset", "trick", "setting", "replicate", "measure", "feature_space", "value", "low", "high", "n"]
MOST = 5000  # images of either set that are measured: distances between all pairs of more do not fit into memory
KEPT_PER_CLASS = 60  # in features.safetensors


@told_in_one_line()
def measure_replicates(settings: EvaluateSettings, folder: Path) -> tuple[list[Path], pd.DataFrame]:
    """Take `settings.measures` of the images learned from, each replicate of them, against the real pool, never the test set.

    They are those that 02_train took of the generated set: all, or its first so many of each class, or what 01b_filter kept.
    Returns the files and the rows of measures.csv (COLUMNS; see `measure_rows`): measures.csv, if anything is to be measured,
    and with keep_features features.safetensors (see `kept_features`). Of more than MOST images the first of each class are
    measured, by index; n says how many. What an image's own measure (agreement, clip_score) lacks is said in a line, and it
    has no row.

    InputError: an unknown measure or feature space, before anything is read; or what these need is not there.
    """
    table, features = folder / "measures.csv", folder / "features.safetensors"
    for path in (table, features):
        path.unlink(missing_ok=True)
    measures = list(dict.fromkeys(choose("measure", name, MEASURES) for name in settings.measures))
    spaces = list(dict.fromkeys(settings.feature_spaces))
    seen = [name for name in spaces if split_name(name)[0] != PIXELS]
    if settings.keep_features and not seen:
        raise InputError(
            f"keep_features needs a feature space other than {PIXELS}, and feature_spaces is {spaces}; name one, such as "
            "pocket-referee-v1."
        )
    of_features = [name for name in measures if name not in OF_IMAGES]
    if not measures and not settings.keep_features:
        print("No measures asked for here.")
        return [], pd.DataFrame(columns=COLUMNS)
    torch.set_num_threads(settings.threads)
    generated = _at_most(learned_from(settings))
    pool = None
    if settings.keep_features or set(measures) & set(AGAINST_REAL):
        pool = load_real(settings.dataset, "pool", settings.real_dir, settings.classes, generated.images.shape[-1])
        most = _per_class(pool.labels, pool.classes)
        first = torch.from_numpy(first_of_classes(pool.labels.numpy(), np.arange(len(pool.labels)), most))
        pool_images, pool_labels = pool.images[first], pool.labels[first]
    numbers = generated.column("replicate")
    who = {n: Images(settings.dataset, settings.trick, settings.setting, n) for n in np.unique(numbers).tolist()}
    mine = {n: torch.from_numpy(numbers == n) for n in who}
    rows, files = [], []
    for space in spaces if of_features else seen[:1]:
        name = split_name(space)[0]
        ours = extract_features(generated.images, space, settings.device)
        theirs = None if pool is None else extract_features(pool_images, space, settings.device)
        for n in who if of_features else ():
            of_n = (ours[mine[n]], generated.labels[mine[n]])
            rows += measure_rows(of_features, *of_n, theirs, who[n], name, settings.bootstraps)
        if settings.keep_features and space == seen[0]:
            tensors = kept_features(generated, ours, theirs, pool_labels)
            write_atomic(features, safetensors.torch.save(tensors, {"feature_space": name}))
            files.append(features)
    for measure in [name for name in measures if name in OF_IMAGES]:
        found = score_images(measure, generated, settings.dataset, spaces, settings.device)
        for judge, scores in found.items():
            for n in who:
                rows.append(
                    score_row(measure, scores[mine[n]], generated.labels[mine[n]], who[n], judge, settings.bootstraps)
                )
    frame = pd.DataFrame(rows, columns=COLUMNS)
    if frame.empty:
        return files, frame
    write_atomic(table, frame.to_csv(index=False, lineterminator="\n").encode())
    return [table, *files], frame


def learned_from(settings: EvaluateSettings) -> SyntheticSet:
    """The images of `generated_dir` that the run of `trained_dir` learned from; all of them where that is not finished."""
    if receipts.read_receipt(settings.trained_dir) is None:
        return read_shards(settings.generated_dir)
    trained = replace(receipts.settings_of(settings.trained_dir), generated_dir=settings.generated_dir)
    images = read_training_set(trained)
    numbers = np.unique(images.column("replicate")).tolist()[: trained.replicates or None]
    parts = [
        chosen_images(images.replicate(number), trained, number, trained.seed + place)
        for place, number in enumerate(numbers)  # place: of the first classifier that learned from this replicate
    ]
    return SyntheticSet(
        torch.cat([part.images for part in parts]),
        torch.cat([part.labels for part in parts]),
        images.classes,
        pa.concat_tables([part.rows for part in parts]),
    )


def kept_features(
    generated: SyntheticSet, features: torch.Tensor, real_features: torch.Tensor, real_labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What features.safetensors holds, for a map of both sets: "generated" float16 [N, D] and "labels" int64 [N] of the first
    replicate, "real" float16 [M, D] and "real_labels" int64 [M] of the pool, at most KEPT_PER_CLASS of each class, lowest
    index first.
    """
    first = generated.column("replicate") == generated.column("replicate").min()
    mine = first_of_classes(generated.labels.numpy(), generated.order, KEPT_PER_CLASS, first)
    theirs = first_of_classes(real_labels.numpy(), np.arange(len(real_labels)), KEPT_PER_CLASS)
    mine, theirs = torch.from_numpy(mine), torch.from_numpy(theirs)
    ours, real = features[mine].half(), real_features[theirs].half()
    finite = torch.isfinite(torch.cat([ours, real])).all()
    require_finite(finite, "some features, in the float16 that they are kept in,", "set keep_features to False")
    return {
        "generated": ours,
        "labels": generated.labels[mine],
        "real": real,
        "real_labels": real_labels[theirs],
    }


def first_of_classes(labels: np.ndarray, index: np.ndarray, most: int, among: np.ndarray | None = None) -> np.ndarray:
    """Which rows are the `most` first of each class by index, int [k] in rising order; among, bool [N]: only of these."""
    rows = np.arange(len(labels)) if among is None else np.flatnonzero(among)
    found = [rows[labels[rows] == label] for label in np.unique(labels[rows])]
    return np.sort(np.concatenate([mine[np.argsort(index[mine], kind="stable")][:most] for mine in found]))


def _per_class(labels: torch.Tensor, classes: list[str]) -> int:
    """How many images of each class are measured: all, or MOST in all."""
    return len(labels) if len(labels) <= MOST else MOST // len(classes)


def _at_most(generated: SyntheticSet) -> SyntheticSet:
    """A set of which no replicate has more than MOST images."""
    numbers, labels, index = generated.column("replicate"), generated.labels.numpy(), generated.order
    keep = np.ones(len(labels), bool)
    for number in np.unique(numbers):
        mine = numbers == number
        if mine.sum() > MOST:
            keep[mine] = False
            keep[first_of_classes(labels, index, _per_class(labels[mine], generated.classes), mine)] = True
    if keep.all():
        return generated
    print(f"{MOST:,} images of each replicate are measured, the first of each class.")
    return generated.part(keep)
