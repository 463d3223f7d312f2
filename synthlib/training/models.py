"""The classifiers: the authors' seven, torchvision's ViT-B, any model of timm, and the miniatures; from scratch or ImageNet.

Heavy imports are inside functions: a miniature needs neither torchvision nor timm.
"""

from collections.abc import Callable

import torch
from torch import nn

from synthlib.inputs import InputError, parameter
from synthlib.names import architecture_name
from synthlib.training import imagenet, miniatures
from synthlib.training.vit import ViT

PATCH = 16  # of the authors' ViTs and torchvision's vit_b_16: at 32 px they see four patches
# depth, heads, dim, mlp dim (paper_facts)
VIT_SIZES = {"vit_b": (12, 12, 768, 3072), "vit_s": (12, 7, 448, 1344)}
# What mixed precision, by architecture's beginning, on a CPU with bfloat16 instructions (engineering_notes: 2.5x on ViT,
# 1.6x on ResNet50, but 3.5x slower on MobileNetV3); what is not listed stays in float32.
CPU_BFLOAT16 = ("resnet", "vit")


def build_model(
    architecture: str, n_classes: int, image_size: int, init: str = "scratch", weights: str = ""
) -> nn.Module:
    """A network [B, 3, S, S] -> logits [B, C], its new weights drawn from torch's global generator (the caller seeds it).

    init "imagenet": all weights but those of the last layer come from ImageNet, see imagenet.py; weights: from this file.
    InputError: the architecture is not known, or an image size that its patches do not fill.
    """
    name = architecture_name(architecture)
    model = _BUILDERS.get(name, _timm)(name, n_classes, image_size)
    return imagenet.load_into(model, name, image_size, weights) if init == "imagenet" else model


def _miniature(name: str, n_classes: int, image_size: int) -> nn.Module:
    build = {"resnet": miniatures.small_resnet, "vit": miniatures.small_vit}[name]
    return build(n_classes, image_size)


def _torchvision(name: str, n_classes: int, image_size: int) -> nn.Module:
    """ResNets, ConvNeXts and MobileNet as the authors take them; dropout and stochastic depth as torchvision sets them."""
    from torchvision.models import get_model

    return _tried(get_model(name, num_classes=n_classes), name, image_size)


def _vit(name: str, n_classes: int, image_size: int) -> nn.Module:
    if image_size % PATCH:
        below, above = image_size // PATCH * PATCH or PATCH, (image_size // PATCH + 1) * PATCH
        raise InputError(
            f"image size {image_size} does not divide into {name}'s patches of {PATCH}; expected a multiple of {PATCH}: set "
            f"{parameter('image_size')} {above}{f' or {below}' if below != above else ''}."
        )
    if name in VIT_SIZES:
        return ViT(n_classes, image_size, PATCH, *VIT_SIZES[name])
    from torchvision.models import get_model

    return get_model(name, image_size=image_size, num_classes=n_classes)


def _timm(name: str, n_classes: int, image_size: int) -> nn.Module:
    import timm

    try:
        try:
            model = timm.create_model(name, num_classes=n_classes, img_size=image_size)
        except TypeError:  # most convolutional networks take any size, and are told none
            model = timm.create_model(name, num_classes=n_classes)
    except (ArithmeticError, AssertionError, RuntimeError, ValueError) as error:
        raise _unfit(name, image_size, error)
    return _tried(model, name, image_size)


def _tried(model: nn.Module, name: str, image_size: int) -> nn.Module:
    """The network, once one image has gone through it: many tell only then that a size does not suit them."""
    if not image_size:  # of a state dict, whose reader did not say
        return model
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device))
    except (ArithmeticError, AssertionError, RuntimeError, ValueError) as error:
        raise _unfit(name, image_size, error)
    return model.train()


def _unfit(name: str, image_size: int, error: Exception) -> InputError:
    why = (str(error) or type(error).__name__).splitlines()[0]
    return InputError(
        f"{name} cannot be built for {image_size} px ({why[:120]}); choose another {parameter('image_size')} or model."
    )


_BUILDERS: dict[str, Callable[[str, int, int], nn.Module]] = {
    "resnet": _miniature,
    "vit": _miniature,
    "resnet50": _torchvision,
    "resnet101": _torchvision,
    "convnext_base": _torchvision,
    "convnext_small": _torchvision,
    "mobilenet_v3_small": _torchvision,
    "vit_b": _vit,
    "vit_s": _vit,
    "vit_b_16": _vit,
}


def memory_format(model: nn.Module) -> torch.memory_format:
    """channels_last for networks of many convolutions (3x on MobileNetV3 on CPUs), else the default layout."""
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    return torch.channels_last if convolutions > 1 else torch.contiguous_format


def mixed_precision(architecture: str, device: torch.device, precision: str) -> torch.dtype:
    """The type to compute in: the one asked for, or for "auto" what a static table says of device and family.

    GPUs: bfloat16 from compute capability 8.0 (A100) on, float16 from 7.0 (V100, T4) on. CPUs: see CPU_BFLOAT16.
    """
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        major = torch.cuda.get_device_capability(device)[0]
        return torch.bfloat16 if major >= 8 else torch.float16 if major >= 7 else torch.float32
    able = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if able and architecture.startswith(CPU_BFLOAT16) else torch.float32
