"""Train one classifier on tensors in memory: seeded, repeatable to the bit, resumable by epoch. Also: checkpoint files.

Protocol as the authors' released code: AdamW, cosine over the epochs, cross entropy, no warm-up, the last epoch kept.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch.nn.functional import cross_entropy
from torch.optim.adamw import adamw

from synthlib.devices import device_named
from synthlib.receipts import write_atomic
from synthlib.settings import InputError, TrainSettings
from synthlib.training.augment import batches, crop_and_resize, draw_crops, normalise, seeded
from synthlib.training.models import build_model, memory_format

# One key, because safetensors writes the keys of its metadata in an order that changes from process to process.
METADATA = "synthlib"


@dataclass(frozen=True)
class Trained:
    """A finished training: the network's state (CPU tensors), one history row per epoch, the optimiser steps taken."""

    state: dict[str, torch.Tensor]
    history: list[dict]
    n_steps: int


def train(
    images: torch.Tensor,
    labels: torch.Tensor,
    n_classes: int,
    settings: TrainSettings,
    training_seed: int,
    state_file: Path | None = None,
    on_epoch: Callable[[dict], None] | None = None,
    save_every_s: float = 10.0,
) -> Trained:
    """Train `settings.architecture` from scratch on uint8 images [N, 3, S, S] and int64 labels [N].

    The weights are a function of the arguments, the device and the thread count; torch's global generators are left as
    they were. Every epoch draws from a seed of its own, so a run resumed from `state_file` (written at most every
    `save_every_s` seconds; 0: after every epoch) ends with the same bits as one that was never stopped. `on_epoch` gets
    each new history row: epoch, step, loss, train_accuracy_percent (mean over the epoch's augmented batches).

    InputError: images or labels of another type or shape, fewer than two images, or a loss that is not finite.
    """
    _check_data(images, labels, n_classes)
    device = device_named(settings.device)
    size = images.shape[-1]
    model = _initial_model(settings.architecture, n_classes, size, training_seed).to(device)
    model = model.to(memory_format=memory_format(model)).train()
    optimiser = _AdamW(model)
    key = _key(images, labels, n_classes, settings, training_seed) if state_file else ""
    history = _load_state(state_file, key, model, optimiser) if state_file and state_file.exists() else []

    images, labels = images.to(device), labels.to(device)
    steps = batches(len(images), settings.batch_size)
    saved = time.monotonic()
    for epoch in range(len(history), settings.epochs):
        learning_rate = settings.learning_rate * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
        generator = torch.Generator().manual_seed(_seed(training_seed, f"epoch {epoch}"))
        order = torch.randperm(len(images), generator=generator).to(device)
        crops = draw_crops(len(images), size, size, settings.crop_scale_min, settings.flip, generator).to(device)
        losses, correct = torch.zeros(len(steps), device=device), torch.zeros((), device=device)
        with seeded(_seed(training_seed, f"dropout {epoch}"), device):
            for step, rows in enumerate(steps):
                batch = normalise(crop_and_resize(images[order[rows]], crops[rows], size))
                logits = model(batch.contiguous(memory_format=memory_format(model)))
                loss = cross_entropy(logits, labels[order[rows]])
                loss.backward()
                optimiser.step(learning_rate, settings.weight_decay)
                losses[step] = loss.detach()
                correct += (logits.detach().argmax(1) == labels[order[rows]]).sum()
        history.append(_history_row(epoch, losses, correct, len(images), learning_rate))  # the one wait for the device
        if state_file and time.monotonic() - saved >= save_every_s:
            _save_state(state_file, key, model, optimiser, history)
            saved = time.monotonic()
        if on_epoch:
            on_epoch(history[-1])
    return Trained(_cpu_state(model.state_dict()), history, n_steps=settings.epochs * len(steps))


def model_bytes(trained: Trained, record: dict) -> bytes:
    """A checkpoint's bytes: safetensors, with `record` (architecture, classes, ...) as JSON under the key "synthlib"."""
    return safetensors.torch.save(trained.state, {METADATA: json.dumps(record)})


def read_record(path: Path) -> dict:
    """What a checkpoint says of itself; see replicates.py for what 02_train writes."""
    with safetensors.safe_open(path, "pt") as file:
        return json.loads(file.metadata()[METADATA])


def load_model(path: Path, architecture: str, n_classes: int, image_size: int) -> torch.nn.Module:
    """The network of a checkpoint file, on the CPU, in eval mode.

    InputError: no whole safetensors file is there, or it holds another architecture, class count or image size.
    """
    redo = "; give the checkpoint that 02_train wrote for it, or train again."
    try:
        with safetensors.safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is not a whole checkpoint ({error}); expected a safetensors file{redo}") from None
    found, classes = description.get("architecture"), description.get("classes", [])
    if found != architecture:
        raise InputError(f"{path} holds architecture {found!r}; expected {architecture!r}{redo}")
    if len(classes) != n_classes:
        raise InputError(f"{path} holds {len(classes)} classes; expected {n_classes}{redo}")
    model = _initial_model(architecture, n_classes, image_size, training_seed=0)
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise InputError(f"{path} does not fit a {architecture} for {image_size} px images{redo}") from None
    return model.to(memory_format=memory_format(model)).eval()


class _AdamW:
    """AdamW's state and step; torch.optim.AdamW is the same kernel, but importing torch._dynamo for it takes 2 s."""

    def __init__(self, model: torch.nn.Module) -> None:
        names, self.parameters = zip(*model.named_parameters(), strict=True)
        self.first = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.second = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.steps = [torch.zeros((), device=parameter.device) for parameter in self.parameters]
        state = {"exp_avg": self.first, "exp_avg_sq": self.second, "step": self.steps}
        self.tensors = {
            f"{kind}/{name}": t for kind, list_ in state.items() for name, t in zip(names, list_, strict=True)
        }

    @torch.no_grad()
    def step(self, learning_rate: float, weight_decay: float) -> None:
        adamw(
            list(self.parameters), [parameter.grad for parameter in self.parameters], self.first, self.second, [],
            self.steps, fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=learning_rate,
            weight_decay=weight_decay, eps=1e-8, maximize=False,
        )  # fmt: skip
        for parameter in self.parameters:
            parameter.grad = None


def _seed(training_seed: int, purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{training_seed} {purpose}".encode()).digest()[:8], "big") >> 1


def _initial_model(architecture: str, n_classes: int, image_size: int, training_seed: int) -> torch.nn.Module:
    with seeded(_seed(training_seed, "initial weights"), torch.device("cpu")):
        return build_model(architecture, n_classes, image_size)


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
                "expected a finite number; try a learning_rate ten times smaller."
            )
    return {
        "epoch": epoch + 1,
        "step": (epoch + 1) * len(losses),
        "loss": round(sum(values) / len(values), 6),
        "train_accuracy_percent": round(100 * correct.item() / n, 4),
    }


def _key(
    images: torch.Tensor, labels: torch.Tensor, n_classes: int, settings: TrainSettings, training_seed: int
) -> str:
    """Everything that decides the weights: a state file with another key belongs to another training."""
    s = settings
    values = [
        s.architecture,
        s.epochs,
        s.batch_size,
        s.learning_rate,
        s.weight_decay,
        s.crop_scale_min,
        s.flip,
        s.device,
    ]
    values += [n_classes, training_seed, torch.get_num_threads(), torch.__version__, list(images.shape)]
    digest = hashlib.sha256(json.dumps(values).encode())
    digest.update(images.cpu().contiguous().numpy())
    digest.update(labels.cpu().contiguous().numpy())
    return digest.hexdigest()


def _cpu_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}


def _save_state(path: Path, key: str, model: torch.nn.Module, optimiser: _AdamW, history: list[dict]) -> None:
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()} | optimiser.tensors
    description = json.dumps({"key": key, "history": history})
    write_atomic(path, safetensors.torch.save(_cpu_state(tensors), {METADATA: description}))


def _load_state(path: Path, key: str, model: torch.nn.Module, optimiser: _AdamW) -> list[dict]:
    """Fill model and optimiser from a state file and return its history; [] and a printed line where it is unusable."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        print(f"{path} cannot be read ({error}); training starts from epoch 1.")
        return []
    if description.get("key") != key:
        print(f"{path} belongs to another training (data, settings or versions differ); training starts from epoch 1.")
        return []
    model.load_state_dict({name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")})
    for name, tensor in optimiser.tensors.items():
        tensor.copy_(tensors[name])
    return description["history"]
