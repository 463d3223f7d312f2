"""Filter: of a generated set, keep the images in which a judge sees the class they were drawn for.

He et al. 2023, "Is synthetic data from generative models ready for image recognition?" (arXiv 2210.07574), call it the CLIP
filter. The judge has seen no real label, so nothing of the target comes in.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from synthlib import receipts
from synthlib.data.shards import read_table, shard_classes
from synthlib.evaluation.referee import judge_named, judge_set
from synthlib.files import write_atomic
from synthlib.inputs import InputError
from synthlib.interrupts import told_in_one_line
from synthlib.settings import FilterSettings

KEPT_COLUMNS = ["image_id", "replicate", "class", "trick", "agrees", "probability"]
COLUMNS = ["image_id", "replicate", "index", "class", "trick", "judge_class", "agrees", "probability", "kept"]


@told_in_one_line()
def filter_set(settings: FilterSettings, folder: Path) -> tuple[list[Path], pd.DataFrame]:
    """Judge each image of `generated_dir` and choose some; return the files and what the judge said of all (COLUMNS).

    The rule, within each replicate and class: images in order of their index (of a merged set so the tricks in turn); the
    first `images_per_class` with which the judge agrees (its highest logit is of the drawn class) are kept, 0: all of them.
    Where too few agree, those follow whose class has the highest probability, and a line says how many. Of merged_full with
    as many kept as merged has, that is merged with the wrong images replaced by the next ones: equal n_train.

    kept.csv holds KEPT_COLUMNS of the kept images, judged.csv COLUMNS of all, both in the order of the set. probability: the
    judge's softmax at the drawn class.

    InputError: no such judge; a class with fewer images than asked for, or (0) with none that it agrees with.
    """
    torch.set_num_threads(settings.threads)
    names = receipts.output_names(settings.generated_dir, ".parquet")
    if not names:
        raise InputError(f"{settings.generated_dir} has no finished shards; run notebooks/01_generate.ipynb first.")
    files = [receipts.read_output(settings.generated_dir, name) for name in names]
    classes = settings.classes or shard_classes(read_table(files[0], ["label"]))
    judge = judge_named(settings.judge, settings.dataset, classes, settings.device)
    logits, labels, said = judge_set(files, judge.classes, judge.logits)
    rows = pd.concat([read_table(file, ["replicate", "index"]).to_pandas() for file in files], ignore_index=True)
    frame = said.rename(columns={"referee_class": "judge_class"}).assign(
        replicate=rows["replicate"],
        index=rows["index"],
        agrees=(logits.argmax(1) == labels).numpy(),
        probability=F.softmax(logits.double(), dim=1)[torch.arange(len(labels)), labels].numpy().round(6),
    )
    frame["kept"] = choose_images(frame, settings.images_per_class)
    filled = int((frame["kept"] & ~frame["agrees"]).sum())
    agreed, chosen = int(frame["agrees"].sum()), int(frame["kept"].sum())
    without = f", {filled:,} of them without its agreement, for want of others" if filled else ""
    print(f"{judge.name} agrees with {agreed:,} of {len(frame):,} images; {chosen:,} are kept{without}.")
    kept, judged = frame.loc[frame["kept"], KEPT_COLUMNS], frame[COLUMNS]
    paths = []
    for name, table in (("kept.csv", kept), ("judged.csv", judged)):
        write_atomic(folder / name, table.to_csv(index=False, lineterminator="\n").encode())
        paths.append(folder / name)
    return paths, judged


def choose_images(frame: pd.DataFrame, images_per_class: int) -> np.ndarray:
    """Which rows are kept, bool [N], by the rule of `filter_set`, which see for errors.

    frame: columns replicate, class, index, agrees, probability; in the order of the set.
    """
    kept = np.zeros(len(frame), bool)
    for (replicate, name), group in frame.reset_index(drop=True).groupby(["replicate", "class"], sort=False):
        group = group.sort_values("index", kind="stable")
        right, wrong = group[group["agrees"]], group[~group["agrees"]]
        wanted = images_per_class or len(right)
        if len(group) < wanted or not wanted:
            what = f"only {len(group)} images" if wanted else "no image that the judge agrees with"
            advice = "generate more, or ask for fewer" if wanted else "give images_per_class, to keep the likeliest"
            raise InputError(
                f"replicate {replicate} has {what} of {name!r}; expected at least {wanted or 1}: {advice}."
            )
        likely = wrong.sort_values("probability", ascending=False, kind="stable")
        chosen = [*right.index[:wanted], *likely.index[: max(wanted - len(right), 0)]]
        kept[chosen] = True
    return kept


def votes(judged: pd.DataFrame, classes: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """A judged set as `label_noise` takes it: 1 at the class that the judge saw, [N, C], and the drawn labels int64 [N]."""
    number = {name: k for k, name in enumerate(classes)}
    seen, drawn = (torch.tensor([number[name] for name in judged[column]]) for column in ("judge_class", "class"))
    return F.one_hot(seen, len(classes)).float(), drawn


def rejected_rows(judged: pd.DataFrame, most: int) -> np.ndarray:
    """Which images to look at of those that the judge does not agree with: rows of the set, int [k], rising, spread evenly."""
    wrong = np.flatnonzero(~judged["agrees"].to_numpy())
    return wrong[np.linspace(0, len(wrong) - 1, min(most, len(wrong))).round().astype(int)] if len(wrong) else wrong
