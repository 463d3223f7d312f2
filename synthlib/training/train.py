"""Train one classifier on tensors in memory: seeded, repeatable to the bit, resumable by epoch.

The loop of the authors' released code (AdamW, cosine over the epochs, cross entropy) with its knobs as parameters: see
experiments/protocols.yaml. What it is tested on while training only `test` knows, a function that the caller hands it.
"""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from synthlib.devices import device_named, hardware_name, require_finite
from synthlib.inputs import InputError, parameter
from synthlib.names import CIFAR, MINIATURES
from synthlib.progress import meter
from synthlib.settings import TrainSettings
from synthlib.training.augment import NORMALISATION_OF, Preparation, batches, resize, seeded
from synthlib.training.checkpoint import cpu_state, initial_model, load_state, save_state
from synthlib.training.imagenet import normalisation_of
from synthlib.training.models import memory_format, mixed_precision
from synthlib.training.optimise import AdamW, Average, learning_rate_at

Test = Callable[[torch.nn.Module, Preparation], dict[str, float]]
CHOOSES = "test_authors_percent"  # of what `test` returns: the best epoch has the highest, as in the authors' code
CIFAR_SIZE = 32  # pixels of a network's input for CIFAR, --img_size in the authors' code, however large its images are
USUAL_SIZE = dict.fromkeys(MINIATURES, 32)  # of a network's input, in pixels, where it is not 224
SHRUNK_TOGETHER = 1000  # images; a whole set as float32 would take four times its memory
# What errors of too little memory say that are no OutOfMemoryError: of CPUs, of CUDA, of its libraries.
NO_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
# What of the settings decides the weights; with the images, the seed, the thread count and torch's version.
DECIDING = ("architecture", "init", "weights", "epochs", "batch_size", "learning_rate", "weight_decay", "warmup", "schedule",
            "transform", "image_size", "normalisation", "crop_scale_min", "flip", "ema_decay", "test_every")  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A finished training: the network's state (CPU tensors), one history row per epoch, the optimiser steps taken.

    best: the state at the epoch that tested best, and that epoch (counted from 1), where there was a `test`.
    """

    state: dict[str, torch.Tensor]
    history: list[dict]
    n_steps: int
    preparation: Preparation
    best: dict[str, torch.Tensor] | None = None
    best_epoch: int | None = None


def preparation_for(settings: TrainSettings, size: int) -> Preparation:
    """How images of `size` pixels become the network's input.

    size: 0 for images of several sizes, or that are no squares: they are cropped and resized to what this says (`resized`).

    The network's size is `image_size`, else the authors' (CIFAR: 32; rotated_crop: 224), else that of the images, else 224, for
    which most networks are made (miniatures: 32); the normalisation is the one asked for, else with resized_crop that of the
    initial weights, else the transform's: the authors' code has none for EuroSAT, whatever it starts from.
    """
    own = CIFAR_SIZE if settings.dataset in CIFAR else size or USUAL_SIZE.get(settings.architecture, 224)
    own = 224 if settings.transform == "rotated_crop" else own
    normalisation = settings.normalisation
    if not normalisation and settings.init == "imagenet" and settings.transform == "resized_crop":
        normalisation = normalisation_of(settings.architecture)
    return Preparation(
        settings.transform, settings.image_size or own, normalisation or NORMALISATION_OF[settings.transform]
    )


def train(
    images: torch.Tensor,
    labels: torch.Tensor,
    n_classes: int,
    settings: TrainSettings,
    training_seed: int,
    state_file: Path | None = None,
    test: Test | None = None,
    on_epoch: Callable[[dict], None] | None = None,
    save_every_s: float = 10.0,
) -> Trained:
    """Train `settings.architecture` on uint8 images [N, 3, S, S] and int64 labels [N].

    The weights are a function of the arguments, the device and the thread count; torch's global generators are left as
    they were. Every epoch draws from a seed of its own, so a run resumed from `state_file` (written after an epoch, at most
    every `save_every_s` seconds; 0: after every epoch) ends with the same bits as one that was never stopped. `test` gets a
    copy of the network after the first epoch and every `test_every` epochs from there on, as in the authors' code, and returns
    numbers for the history. `on_epoch` gets each new history row: epoch, step, loss, train_accuracy_percent (mean over the
    epoch's augmented batches), learning_rate, and those of `test`.

    InputError: images or labels of another type, shape or range, fewer than two images, a loss or last weights that are not
    finite, or a batch that does not fit in memory.
    """
    _check_data(images, labels, n_classes)
    try:
        return _train(images, labels, n_classes, settings, training_seed, state_file, test, on_epoch, save_every_s)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        smaller = f"{parameter('batch_size')} {settings.batch_size // 2}, " if settings.batch_size > 3 else ""
        raise InputError(
            f"{settings.architecture} ran out of memory at batch size {settings.batch_size} on "
            f"{device_named(settings.device)}; try {smaller}a smaller {parameter('image_size')} or {parameter('architecture')}."
        ) from None


def _train(
    images: torch.Tensor,
    labels: torch.Tensor,
    n_classes: int,
    settings: TrainSettings,
    training_seed: int,
    state_file: Path | None,
    test: Test | None,
    on_epoch: Callable[[dict], None] | None,
    save_every_s: float,
) -> Trained:
    device = device_named(settings.device)
    preparation = preparation_for(settings, images.shape[-1])
    if settings.transform == "resized_crop" and images.shape[-1] > preparation.image_size:
        # as the authors' "32A": what is larger than the network's input is made that size once, antialiased
        parts = batches(len(images), SHRUNK_TOGETHER)
        images = torch.cat([resize(images[rows], preparation.image_size).round().to(torch.uint8) for rows in parts])
    seed = seed_for(training_seed, "initial weights")
    model = initial_model(
        settings.architecture, n_classes, preparation.image_size, seed, settings.init, settings.weights
    )
    layout = memory_format(model)
    model = model.to(device, memory_format=layout).train()
    dtype = mixed_precision(settings.architecture, device, settings.precision)
    optimiser, average = AdamW(model, dtype), Average(model, settings.ema_decay)
    where = [hardware_name(settings.device), str(dtype), getattr(test, "digest", test is not None), asdict(preparation)]
    key = _key(images, labels, n_classes, settings, training_seed, where) if state_file else ""
    found = load_state(state_file, key) if state_file and state_file.exists() else None
    history, best, best_epoch = _go_on(found, model, optimiser, average) if found else ([], None, None)

    images, labels = _place(images, device), labels.to(device)
    steps = batches(len(images), settings.batch_size)
    rates = (len(steps), settings.epochs, settings.learning_rate, settings.warmup, settings.schedule)
    autocast = torch.autocast(device.type, dtype) if dtype != torch.float32 else nullcontext()
    saved = time.monotonic()
    with meter(settings.architecture, settings.epochs * len(images), " images") as add:
        add(len(history) * len(images), True)
        for epoch in range(len(history), settings.epochs):
            generator = torch.Generator().manual_seed(seed_for(training_seed, f"epoch {epoch}"))
            order = torch.randperm(len(images), generator=generator)
            drawn = preparation.draw(
                len(images), *images.shape[-2:], settings.crop_scale_min, settings.flip, generator
            ).to(device)
            places = order.to(images.device)
            order = order.to(device)
            losses, correct = torch.zeros(len(steps), device=device), torch.zeros((), device=device)
            with seeded(seed_for(training_seed, f"dropout {epoch}"), device):
                for step, rows in enumerate(steps):
                    batch = _sent(images[places[rows]], device)
                    batch = preparation.train_input(batch, drawn[rows]).contiguous(memory_format=layout)
                    with autocast:
                        logits = model(batch)
                    loss = cross_entropy(logits.float(), labels[order[rows]])
                    optimiser.backward(loss)
                    optimiser.update(learning_rate_at(epoch * len(steps) + step, *rates), settings.weight_decay)
                    average.update()
                    losses[step] = loss.detach()
                    correct += (logits.detach().argmax(1) == labels[order[rows]]).sum()
                    add(rows.stop - rows.start, False)
            rate = learning_rate_at(epoch * len(steps), *rates)
            history.append(_history_row(epoch, losses, correct, len(images), rate))  # the one wait for the device
            add(0, False, f"loss {history[-1]['loss']:.3f}")
            with average.in_place():
                if test and settings.test_every and epoch % settings.test_every == 0:
                    tested = test(copy.deepcopy(model), preparation)
                    history[-1] |= tested
                    if best is None or tested[CHOOSES] > history[best_epoch - 1][CHOOSES]:
                        best, best_epoch = cpu_state(model.state_dict()), epoch + 1
            if state_file and time.monotonic() - saved >= save_every_s:
                tensors = _tensors(model, optimiser, average, best)
                save_state(state_file, key, tensors, {"history": history, "best_epoch": best_epoch})
                saved = time.monotonic()
            if on_epoch:
                on_epoch(history[-1])
    with average.in_place():
        last = cpu_state(model.state_dict())
    finite = all(torch.isfinite(tensor).all() for tensor in last.values())  # after the last step no loss tells
    require_finite(
        finite, f"the weights after epoch {settings.epochs}", f"try a {parameter('learning_rate')} ten times smaller"
    )
    return Trained(last, history, settings.epochs * len(steps), preparation, best, best_epoch)


def _place(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """All images on the device where they fill at most half of its free memory, else here, to be sent batch by batch."""
    if device.type == "cuda" and images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return images
    return images.to(device)


def _sent(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A batch on the device; from page-locked memory, so that nobody waits for its journey."""
    return batch if batch.device.type == device.type else batch.pin_memory().to(device, non_blocking=True)


def _tensors(
    model: torch.nn.Module, optimiser: AdamW, average: Average, best: dict[str, torch.Tensor] | None
) -> dict[str, torch.Tensor]:
    """All tensors of a training, by name."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    return tensors | optimiser.tensors | average.mean | {f"best/{name}": t for name, t in (best or {}).items()}


def _go_on(
    found: tuple[dict[str, torch.Tensor], dict], model: torch.nn.Module, optimiser: AdamW, average: Average
) -> tuple[list[dict], dict[str, torch.Tensor] | None, int | None]:
    """Fill network, optimiser and average with what `save_state` kept; its history, best state and best epoch."""
    tensors, facts = found
    own = {kind: {n.removeprefix(f"{kind}/"): t for n, t in tensors.items() if n.startswith(f"{kind}/")}
           for kind in ("model", "best")}  # fmt: skip
    model.load_state_dict(own["model"])
    for name, tensor in (optimiser.tensors | average.mean).items():
        tensor.copy_(tensors[name])
    return facts["history"], own["best"] or None, facts["best_epoch"]


def seed_for(training_seed: int, purpose: str) -> int:
    """The seed of one purpose of a training, such as its initial weights: a number below 2**63."""
    return int.from_bytes(hashlib.sha256(f"{training_seed} {purpose}".encode()).digest()[:8], "big") >> 1


def _check_data(images: torch.Tensor, labels: torch.Tensor, n_classes: int) -> None:
    shape = tuple(images.shape)
    if images.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise InputError(f"training images are {images.dtype} {list(shape)}; expected torch.uint8 [N, 3, S, S].")
    if len(images) < 2 or labels.shape != (len(images),):
        raise InputError(
            f"{len(images)} training images, {labels.numel()} labels; expected two or more, one label each."
        )
    if labels.min() < 0 or labels.max() >= n_classes:
        raise InputError(f"labels run from {labels.min()} to {labels.max()}; expected 0 to {n_classes - 1}.")


def _history_row(epoch: int, losses: torch.Tensor, correct: torch.Tensor, n: int, learning_rate: float) -> dict:
    values, first_step = losses.tolist(), epoch * len(losses) + 1
    for step, value in enumerate(values, first_step):
        if not math.isfinite(value):
            raise InputError(
                f"the loss is {value} at step {step} (epoch {epoch + 1}, learning rate {learning_rate:.2g}); "
                f"expected a finite number; try a {parameter('learning_rate')} ten times smaller."
            )
    return {
        "epoch": epoch + 1,
        "step": (epoch + 1) * len(losses),
        "loss": round(sum(values) / len(values), 6),
        "train_accuracy_percent": round(100 * correct.item() / n, 4),
        "learning_rate": learning_rate,
    }


def _key(
    images: torch.Tensor, labels: torch.Tensor, n_classes: int, settings: TrainSettings, training_seed: int, where: list
) -> str:
    """Everything that decides the weights: a state file with another key belongs to another training.

    where: on what hardware, in what type, what it is tested on, and how images are prepared; "auto" is not the same everywhere.
    """
    values = [getattr(settings, name) for name in DECIDING] + where
    values += [n_classes, training_seed, torch.get_num_threads(), torch.__version__, list(images.shape)]
    digest = hashlib.sha256(json.dumps(values).encode())
    digest.update(images.cpu().contiguous().numpy())
    digest.update(labels.cpu().contiguous().numpy())
    return digest.hexdigest()
