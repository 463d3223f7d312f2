"""All replicates of a condition: one checkpoint each, with its record inside; those that are there already are kept."""

import time
from dataclasses import asdict
from pathlib import Path

import torch

from synthlib import digests, receipts
from synthlib.data.shards import SyntheticSet
from synthlib.devices import hardware_name
from synthlib.progress import progress
from synthlib.settings import InputError, TrainSettings
from synthlib.training.train import model_bytes, read_record, train

# What a checkpoint does not depend on by name: where things lie, and the trick, which only chose the images.
PLACES = ("run_dir", "generated_dir", "dataset", "trick")


def train_replicates(
    images: SyntheticSet, settings: TrainSettings, folder: Path
) -> tuple[list[Path], dict[str, list[float]]]:
    """Train on each replicate of the images, replicate r with seed + r; return the checkpoints and their history.

    history: columns replicate, epoch, step, loss, train_accuracy_percent. A checkpoint whose key (settings, bytes of the
    images, code) is current is kept. Raises InputError where a replicate lacks a class or `images_per_class` images of it.
    """
    torch.set_num_threads(settings.threads)
    kept = {name: value for name, value in asdict(settings).items() if name not in PLACES}
    kept |= {"device": hardware_name(settings.device), "classes": images.classes}
    paths, rows = [], []
    numbers = sorted(set(images.column("replicate").tolist()))
    for number in progress(numbers, f"{settings.dataset} {settings.trick} {settings.architecture}", unit="replicate"):
        path = folder / f"model-r{number}.safetensors"
        part, seed = images.replicate(number, settings.images_per_class), settings.seed + number
        pixels = digests.sha256_bytes(part.images.numpy().tobytes() + part.labels.numpy().tobytes())
        key = receipts.file_key("checkpoints", kept | {"images": pixels, "replicate": number, "training_seed": seed})
        if not receipts.is_current(path, key):
            _train_one(part, number, seed, settings, path, key)
        rows += [{"replicate": number} | row for row in read_record(path)["history"]]
        paths.append(path)
    return paths, {name: [row[name] for row in rows] for name in rows[0]}


def _train_one(
    images: SyntheticSet, number: int, seed: int, settings: TrainSettings, path: Path, key: receipts.FileKey
) -> None:
    counts = images.labels.bincount(minlength=len(images.classes)).tolist()
    if min(counts) == 0 or (settings.images_per_class and min(counts) < settings.images_per_class):
        wanted = settings.images_per_class or 1
        least = images.classes[counts.index(min(counts))]
        raise InputError(
            f"replicate {number} has {min(counts)} images of {least!r}; expected at least {wanted}, generate more."
        )
    # Named by the key: what other settings, images or code left half-done is not gone on with.
    state_file = path.with_suffix(f".{digests.sha256_json([key.settings, key.code])[:8]}.state")
    start = time.monotonic()
    trained = train(images.images, images.labels, len(images.classes), settings, seed, state_file)
    record = {  # generation replicate and training seed go in pairs
        "architecture": settings.architecture,
        "classes": images.classes,
        "replicate": number,
        "training_seed": seed,
        "n_train": len(images.labels),
        "n_steps": trained.n_steps,
        "history": trained.history,
    }
    receipts.write_keyed(path, model_bytes(trained, record), key, time.monotonic() - start)
    for left in path.parent.glob(f"{path.stem}.*.state"):
        left.unlink()
