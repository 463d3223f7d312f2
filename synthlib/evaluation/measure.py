"""Measure: how diverse a generated set is, replicate by replicate, in a fixed and named feature space."""

from pathlib import Path

import pandas as pd
import torch

from synthlib import receipts
from synthlib.data.real import load_real
from synthlib.data.shards import read_shards
from synthlib.evaluation.diversity import WITHOUT_REAL, measure_rows
from synthlib.evaluation.features import extract_features
from synthlib.settings import EvaluateSettings


def measure_replicates(settings: EvaluateSettings, folder: Path) -> tuple[list[Path], pd.DataFrame]:
    """Take `settings.measures` of each replicate of the generated set, against the pool of real images, never the test set.

    Returns measures.csv, if anything is to be measured, and its rows: dataset, trick, replicate, measure, feature_space,
    value, n.
    """
    path = folder / "measures.csv"
    path.unlink(missing_ok=True)
    if not settings.measures:
        print("No measures asked for here.")
        return [], pd.DataFrame()
    torch.set_num_threads(settings.threads)
    generated = read_shards(settings.generated_dir)
    features = extract_features(generated.images, settings.feature_space)
    real = None
    if set(settings.measures) - WITHOUT_REAL:
        pool = load_real(settings.dataset, "pool", settings.real_dir, settings.classes, generated.images.shape[-1])
        real = extract_features(pool.images, settings.feature_space)
    rows = []
    for number in sorted(set(generated.column("replicate").tolist())):
        mine = torch.from_numpy(generated.column("replicate") == number)
        rows += measure_rows(
            settings.measures,
            features[mine],
            generated.labels[mine],
            real,
            dataset=settings.dataset,
            trick=settings.trick,
            replicate=number,
            feature_space=settings.feature_space,
        )
    table = pd.DataFrame(rows)
    receipts.write_atomic(path, table.to_csv(index=False, lineterminator="\n").encode())
    return [path], table
