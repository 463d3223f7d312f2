"""All replicates of a condition: one checkpoint each, with its record inside; those that are there already are kept."""

import csv
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from synthlib import costly, digests, paths, receipts
from synthlib.data.real import DOWNLOADED, is_at_hand, real_training_set
from synthlib.data.sets import SyntheticSet
from synthlib.data.shards import read_shards
from synthlib.devices import device_named, hardware_name
from synthlib.files import write_atomic
from synthlib.inputs import InputError, parameter, read_yaml
from synthlib.interrupts import told_in_one_line
from synthlib.names import REAL_TRICKS
from synthlib.progress import progress
from synthlib.settings import TrainSettings, protocol_values
from synthlib.training.checkpoint import BEST_ON_TEST, LAST, model_bytes, read_record
from synthlib.training.logs import epoch_logger
from synthlib.training.models import mixed_precision
from synthlib.training.train import Test, Trained, preparation_for, seed_for, train

# What a checkpoint does not depend on by name: where things lie, which images were chosen (their bytes are in its key), what
# the values of the protocol are called together, how many others there are, and who is told.
PLACES = ("run_dir", "generated_dir", "kept_dir", "real_dir", "dataset", "classes", "trick", "protocol", "images_per_class",
          "unused_images", "replicates", "seed", "weights", "log_to")  # fmt: skip


def read_training_set(settings: TrainSettings) -> SyntheticSet:
    """The images that `settings` names: of `generated_dir` (with kept_dir those of its kept.csv), or of the real pool.

    InputError: kept_dir was made from another set, or real images are learned from (tricks real and few_shot); there is one
    class alone; or the real images that it is to be tested on are not there.
    """
    require_test_images(settings)
    if settings.trick not in REAL_TRICKS:
        images = read_shards(settings.generated_dir, _kept_rows(settings) if settings.kept_dir else None)
        require_several(images.classes, settings.generated_dir)
        return images
    if settings.kept_dir:
        raise InputError(f"kept_dir is given with trick {settings.trick!r}; expected none: real images are not judged.")
    few = (settings.images_per_class, settings.replicates or 1) if settings.trick == "few_shot" else (0, 1)
    size = preparation_for(settings, 0).resized
    images = real_training_set(settings.dataset, settings.real_dir, settings.classes, *few, settings.seed, size)
    require_several(images.classes, f"the pool of {settings.dataset}")
    return images


def require_several(classes: Sequence[str], where: str) -> None:
    """InputError: a classifier would learn a single class."""
    if len(classes) < 2:
        raise InputError(
            f"{where} has images of one class alone, {classes[0]!r}; expected two classes or more, for a classifier to tell "
            "apart: add others."
        )


def require_test_images(settings: TrainSettings) -> None:
    """InputError, with what needs none: training is to be tested on real images, and there are none."""
    if not settings.test_every or settings.real_dir or is_at_hand(settings.dataset):
        return
    if protocol_values(settings.protocol)["test_every"]:
        without = (name for name in read_yaml(paths.protocols_file()) if not protocol_values(name)["test_every"])
        said, instead = (f"{parameter('protocol')} {name}" for name in (settings.protocol, next(without)))
    else:
        said, instead = f"test_every {settings.test_every}", "test_every 0"
    fetch = f"run `synthlib download {settings.dataset}`, " if settings.dataset in DOWNLOADED else ""
    raise InputError(
        f"{said} tests on real images while training, and there are none of data set {settings.dataset!r}; expected some: "
        f"{fetch}give their folder as {parameter('real_dir')}, or take {instead}, which needs none."
    )


def _kept_rows(settings: TrainSettings) -> Callable[[pa.Table], np.ndarray]:
    """What chooses, of the rows of a set, those that 01b_filter kept: their numbers, rising. InputError: of another set."""
    file = receipts.read_output(settings.kept_dir, "kept.csv")
    made_from = receipts.read_receipt(settings.kept_dir)["parameters"]["generated_dir"]
    if paths.resolve(made_from) != paths.resolve(settings.generated_dir):
        raise InputError(
            f"{settings.kept_dir} was chosen from {made_from}, and generated_dir is {settings.generated_dir}; expected the same: "
            "run notebooks/01b_filter.ipynb for it."
        )
    with open(file, encoding="utf-8", newline="") as text:
        kept = {(row["image_id"], int(row["replicate"])) for row in csv.DictReader(text)}

    def choose(rows: pa.Table) -> np.ndarray:
        found = zip(rows["image_id"].to_pylist(), rows["replicate"].to_pylist(), strict=True)
        return np.flatnonzero([one in kept for one in found])

    return choose


@told_in_one_line()
def train_replicates(
    images: SyntheticSet, settings: TrainSettings, folder: Path, test: Test | None = None
) -> tuple[list[Path], dict[str, list]]:
    """Train each replicate, replicate r with seed + r; return the files (checkpoints, history.csv) and the history.

    Replicate r learns from replicate r of the images; where there are fewer of those (a set that was given has one), they
    are taken in turn, and only the training seeds differ. test: see `train`; where it is given and the protocol asks for it,
    the epoch that tested best is kept too, as best-r<replicate>.safetensors. A checkpoint whose key (settings, bytes of the
    images, code) is current is kept. history: columns replicate, epoch, step, loss, train_accuracy_percent, ....

    InputError: a replicate lacks a class or `images_per_class` images of it, or what `train` refuses.
    """
    torch.set_num_threads(settings.threads)
    kept = {name: value for name, value in asdict(settings).items() if name not in PLACES}
    kept |= {
        "device": hardware_name(settings.device),
        "classes": images.classes,
        "tested_on": getattr(test, "digest", ""),
    }
    kept |= {"weights": receipts.weights_digest(settings.weights)}
    kept |= {"image_size": preparation_for(settings, images.images.shape[-1]).image_size}
    dtype = mixed_precision(settings.architecture, device_named(settings.device), settings.precision)
    kept |= {"precision": str(dtype).removeprefix("torch.")}  # "auto" is not the same on all CPUs
    available = sorted(set(images.column("replicate").tolist()))
    files, rows = [], []
    title = f"{settings.dataset} {settings.trick} {settings.architecture}"
    for number in progress(range(settings.replicates or len(available)), title, unit="replicate"):
        source = available[number % len(available)]
        path, seed = folder / f"model-r{number}.safetensors", settings.seed + number
        part = chosen_images(images.replicate(source), settings, source, seed)
        pixels = digests.sha256_bytes(part.images.numpy().tobytes() + part.labels.numpy().tobytes())
        key = costly.file_key("checkpoints", kept | {"images": pixels, "replicate": number, "training_seed": seed})
        best = path.with_name(f"best-r{number}.safetensors")
        tested = bool(test and settings.test_every)
        if not costly.is_current(path, key) or (tested and not costly.is_current(best, key)):
            record = {"replicate": number, "image_replicate": source, "training_seed": seed}
            _train_one(part, record, settings, path, best, key, test)
        rows += [{"replicate": number} | row for row in read_record(path)["history"]]
        files += [path, best] if best.exists() and tested else [path]
    history = {
        name: [row.get(name, "") for row in rows] for name in dict.fromkeys(name for row in rows for name in row)
    }
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([list(history), *zip(*history.values(), strict=True)])
    write_atomic(folder / "history.csv", text.getvalue().encode())
    return [*files, folder / "history.csv"], history


def chosen_images(images: SyntheticSet, settings: TrainSettings, source: int, training_seed: int) -> SyntheticSet:
    """The images that a classifier learns from, of one replicate: of each class all, or the first `images_per_class`.

    Before that `unused_images` are left out, at random over all classes, the same for every architecture: the authors' CIFAR
    modules so leave out 10,000, without a seed. InputError: nothing, or of a class too few, would be left.
    """
    n, unused = len(images.labels), settings.unused_images
    if 0 < n <= unused:
        raise InputError(
            f"{parameter('unused_images')} is {unused}, and replicate {source} has {n} images; expected fewer, so that some are "
            "left: give 0, or generate more."
        )
    if unused:
        generator = torch.Generator().manual_seed(seed_for(training_seed, "unused images"))
        keep = np.ones(n, bool)
        keep[torch.randperm(n, generator=generator)[:unused].numpy()] = False
        images = images.part(keep)
    counts = images.labels.bincount(minlength=len(images.classes))
    least, wanted = int(counts.min()), max(settings.images_per_class, 1)
    if least < wanted:
        name, left = images.classes[int(counts.argmin())], f" without its {unused} unused ones" if unused else ""
        raise InputError(
            f"replicate {source} has {least} images of {name!r}{left}; expected at least {wanted}, generate more."
        )
    return images.replicate(source, settings.images_per_class)


def _train_one(
    images: SyntheticSet,
    record: dict,
    settings: TrainSettings,
    path: Path,
    best: Path,
    key: costly.FileKey,
    test: Test | None,
) -> None:
    # Named by the key: what other settings, images or code left half-done is not gone on with.
    state_file = path.with_suffix(f".{digests.sha256_json([key.settings, key.code])[:8]}.state")
    start = time.monotonic()
    with epoch_logger(settings, path.with_suffix(""), record["replicate"]) as log:
        trained = train(
            images.images,
            images.labels,
            len(images.classes),
            settings,
            record["training_seed"],
            state_file,
            test,
            log,
        )
    record |= record_facts(trained, settings, images)
    seconds = time.monotonic() - start
    if trained.best:
        told = record | {"epoch": trained.best_epoch, "chosen": BEST_ON_TEST}
        costly.write_keyed(best, model_bytes(trained.best, told), key, 0.0)
    costly.write_keyed(path, model_bytes(trained.state, record), key, seconds)
    for left in path.parent.glob(f"{path.stem}.*.state"):
        left.unlink()


def record_facts(trained: Trained, settings: TrainSettings, images: SyntheticSet) -> dict:
    """What a checkpoint's record says of its training, beside who it is."""
    return {
        "dataset": settings.dataset,
        "trick": settings.trick,
        "architecture": settings.architecture,
        "init": settings.init,
        "protocol": settings.protocol_label(),
        "classes": images.classes,
        **asdict(trained.preparation),
        "batch_size": settings.batch_size,
        "n_train": len(images.labels),
        "unused_images": settings.unused_images,
        "n_steps": trained.n_steps,
        "epoch": settings.epochs,
        "chosen": LAST,
        "history": trained.history,
    }
