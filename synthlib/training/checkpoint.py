"""Checkpoints: a trained network with its record inside, as safetensors; and the state that an interrupted training leaves."""

import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from synthlib.data.classes import differing
from synthlib.files import write_atomic
from synthlib.inputs import InputError, parameter
from synthlib.names import architecture_name
from synthlib.training.augment import Preparation, seeded
from synthlib.training.imagenet import read_tensors
from synthlib.training.models import VIT_SIZES, build_model, memory_format

# One key, because safetensors writes the keys of its metadata in an order that changes from process to process.
METADATA = "synthlib"
DIGEST = "sha256"  # of a record: of all else in the file
LAST, BEST_ON_TEST = "last", "best on the test set"  # which epoch a checkpoint holds, as its record's `chosen` says it


def model_bytes(state: dict[str, torch.Tensor], record: dict) -> bytes:
    """A checkpoint's bytes: safetensors, with `record` (architecture, classes, ...) as JSON under the key "synthlib".

    The record has the digest of all the rest (`sha256`), so that a file without a receipt is compared with it, too.
    """
    return safetensors.torch.save(state, {METADATA: json.dumps(record | {DIGEST: _content_digest(state, record)})})


def read_record(path: Path) -> dict:
    """What a checkpoint says of itself (see replicates.py for what 02_train writes); {} if it says nothing.

    InputError: it is no whole safetensors file.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            said = file.metadata() or {}
            if METADATA not in said and any(f'"{DIGEST}"' in text for text in said.values()):
                raise ValueError("the name of its record was changed")
            return json.loads(said.get(METADATA, "{}"))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path} is not a whole checkpoint ({error}); expected a safetensors file: give the one that 02_train wrote, or "
            "train again."
        ) from None


def load_model(
    path: Path, architecture: str = "", classes: list[str] | None = None, image_size: int = 0
) -> tuple[torch.nn.Module, dict]:
    """The network of a checkpoint file, on the CPU, in eval mode, and its record.

    A file without a record (the authors' .pt, a state dict) needs `architecture` (an alias will do), `classes` and
    `image_size`; where there is a record, architecture and number of classes must agree with it, and its image size counts.

    InputError: no whole file of tensors is there, it was changed since it was written, not all weights are finite, or it
    holds another architecture or another number of classes.
    """
    architecture = architecture_name(architecture) if architecture else ""
    record = read_record(path) if path.suffix == ".safetensors" and path.is_file() else {}
    state = read_tensors(path)
    if _changed(state, record):
        raise InputError(f"{path} was changed or damaged after it was written; copy it again, or train again.")
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.float().aminmax()).isfinite().all():
            raise InputError(f"{path} holds weights that are not finite ({name}); copy it again, or train again.")
    redo = "; give the checkpoint that 02_train wrote for it, or train again."
    if not record:
        named = f"{parameter('architecture')}, {parameter('dataset')} and {parameter('image_size')}"
        redo = f"; name the {named} that it was trained for."
    found = record.get("architecture", architecture)
    if found in VIT_SIZES and "encoder.pos_embedding" in state:
        if found != "vit_b" or architecture == "vit_b":
            raise InputError(
                f"{path} holds torchvision's ViT, which is not the authors' {found}; that of {VIT_SIZES['vit_b'][2]} channels is "
                "vit_b_16 now: name that, or train again."
            )
        found = "vit_b_16"  # as it was called before
    if architecture and found != architecture:
        raise InputError(f"{path} holds architecture {found!r}; expected {architecture!r}{redo}")
    known = record.get("classes", classes)
    if classes is not None and len(known) != len(classes):
        own = record.get("dataset", "that it was trained for")
        raise InputError(
            f"{path} holds {len(known)} classes; expected {len(classes)} ({differing(known, classes)}): name "
            f"{parameter('dataset')} {own}, or train again."
        )
    if not found or not known:
        raise InputError(
            f"{path} does not say what network it holds; name its {parameter('architecture')} and the {parameter('dataset')} "
            "whose classes it has, or give a .safetensors of one's own classes."
        )
    record = {"classes": known, "image_size": image_size} | record | {"architecture": found}
    model = initial_model(found, len(known), record["image_size"], 0)
    misfits = misfit_names(state, model.state_dict())
    if misfits:
        raise InputError(
            f"{path} does not fit a {found} of {len(known)} classes for {record['image_size']} px images "
            f"({len(misfits)} tensors, such as {misfits[0]}){redo}"
        )
    model.load_state_dict(state)
    return model.to(memory_format=memory_format(model)).eval(), record


def _changed(state: dict[str, torch.Tensor], record: dict) -> bool:
    """Whether a file's content is not what was written; takes the digest out of its record. Old files have none."""
    return DIGEST in record and record.pop(DIGEST) != _content_digest(state, record)


def _content_digest(state: dict[str, torch.Tensor], record: dict) -> str:
    """sha256 of named tensors (names, types, shapes, numbers, in the order of their names) and of what is said of them."""
    found = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name].contiguous()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def preparation_of(record: dict) -> Preparation:
    """How the images that a checkpoint is tested on are to be prepared."""
    return Preparation(record["transform"], record["image_size"], record["normalisation"])


def misfit_names(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that one of two states lacks, or has of another shape, or as whole numbers (quantised)."""
    kinds = [{name: (t.shape, t.is_floating_point()) for name, t in tensors.items()} for tensors in (state, wanted)]
    lacking = [name for name in wanted if kinds[0].get(name) != kinds[1][name]]
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
    write_atomic(path, model_bytes(cpu_state(tensors), {"key": key} | facts))


def load_state(path: Path, key: str) -> tuple[dict[str, torch.Tensor], dict] | None:
    """What `save_state` wrote; None, and a printed line, where it cannot be read or belongs to another training."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if DIGEST not in facts or _changed(tensors, facts):
            raise ValueError("it was changed or damaged, or an earlier version wrote it")
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        print(f"{path} cannot be read ({error}); training starts from epoch 1.")
        return None
    if facts.get("key") != key:
        print(f"{path} belongs to another training (data, settings or versions differ); training starts from epoch 1.")
        return None
    return tensors, facts
