"""Checkpoints: a trained network with its record inside, as safetensors; and the state that an interrupted training leaves."""

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from synthlib.files import write_atomic
from synthlib.inputs import InputError
from synthlib.names import architecture_name
from synthlib.training.augment import Preparation, seeded
from synthlib.training.imagenet import read_tensors
from synthlib.training.models import build_model, memory_format

# One key, because safetensors writes the keys of its metadata in an order that changes from process to process.
METADATA = "synthlib"
LAST, BEST_ON_TEST = "last", "best on the test set"  # which epoch a checkpoint holds, as its record's `chosen` says it


def model_bytes(state: dict[str, torch.Tensor], record: dict) -> bytes:
    """A checkpoint's bytes: safetensors, with `record` (architecture, classes, ...) as JSON under the key "synthlib"."""
    return safetensors.torch.save(state, {METADATA: json.dumps(record)})


def read_record(path: Path) -> dict:
    """What a checkpoint says of itself (see replicates.py for what 02_train writes); {} if it says nothing.

    InputError: it is no whole safetensors file.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {}).get(METADATA, "{}"))
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path} is not a whole checkpoint ({error}); expected a safetensors file: give the one that 02_train wrote, or "
            "train again."
        ) from None


def load_model(
    path: Path, architecture: str = "", classes: list[str] | None = None, image_size: int = 0
) -> tuple[torch.nn.Module, dict]:
    """The network of a checkpoint file, on the CPU, in eval mode, and its record.

    A file without a record (the authors' .pt, a state dict) needs `architecture`, `classes` and `image_size`; where there is a
    record, architecture and number of classes must agree with it, and its image size counts.

    InputError: no whole file of tensors is there, or it holds another architecture or another number of classes.
    """
    record = read_record(path) if path.suffix == ".safetensors" and path.is_file() else {}
    state = read_tensors(path)
    redo = "; give the checkpoint that 02_train wrote for it, or train again."
    found = record.get("architecture", architecture)
    if architecture and found != architecture_name(architecture):
        raise InputError(f"{path} holds architecture {found!r}; expected {architecture_name(architecture)!r}{redo}")
    known = record.get("classes", classes)
    if classes is not None and len(known) != len(classes):
        raise InputError(f"{path} holds {len(known)} classes; expected {len(classes)}{redo}")
    if not found or not known:
        raise InputError(f"{path} does not say what network it holds; name its architecture and its data set.")
    record = {"architecture": found, "classes": known, "image_size": image_size} | record
    model = initial_model(found, len(known), record["image_size"], 0)
    misfits = misfit_names(state, model.state_dict())
    if misfits:
        raise InputError(
            f"{path} does not fit a {found} of {len(known)} classes for {record['image_size']} px images "
            f"({len(misfits)} tensors, such as {misfits[0]}){redo}"
        )
    model.load_state_dict(state)
    return model.to(memory_format=memory_format(model)).eval(), record


def preparation_of(record: dict) -> Preparation:
    """How the images that a checkpoint is tested on are to be prepared."""
    return Preparation(record["transform"], record["image_size"], record["normalisation"])


def misfit_names(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that one of two states lacks, or has of another shape."""
    lacking = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
    return lacking + [name for name in state if name not in wanted]


def initial_model(
    architecture: str, n_classes: int, image_size: int, seed: int, init: str = "scratch", weights: str = ""
) -> torch.nn.Module:
    """A new network whose weights are a function of `seed`; torch's global generator stays as it was."""
    with seeded(seed, torch.device("cpu")):
        return build_model(architecture, n_classes, image_size, init, weights)


def cpu_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of some tensors, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}


# --- of a training that goes on ---------------------------------------------------------------------------------------


def save_state(path: Path, key: str, tensors: dict[str, torch.Tensor], facts: dict) -> None:
    """Write all that a training needs to go on: tensors by name, and facts (history, best epoch) as JSON."""
    write_atomic(path, safetensors.torch.save(cpu_state(tensors), {METADATA: json.dumps({"key": key} | facts)}))


def load_state(path: Path, key: str) -> tuple[dict[str, torch.Tensor], dict] | None:
    """What `save_state` wrote; None, and a printed line, where it cannot be read or belongs to another training."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        print(f"{path} cannot be read ({error}); training starts from epoch 1.")
        return None
    if facts.get("key") != key:
        print(f"{path} belongs to another training (data, settings or versions differ); training starts from epoch 1.")
        return None
    return tensors, facts
