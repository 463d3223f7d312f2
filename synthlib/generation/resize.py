"""Resize: from the checkpoint's pixels to the data set's, as the authors' resize_dataset.py does it."""

import torch

from synthlib.settings import InputError

# What each name in the authors' archives means: (side in pixels, antialias). Theirs is torchvision's Resize on uint8 tensors:
# bilinear in float32, rounded half to even. "64" is in their script; that "32A" is the same with antialias is inferred.
SIZES = {"32A": (32, True), "64": (64, False)}


def filter_name(resize: str) -> str:
    """What to record of a resize, e.g. "32A: bilinear to 32 px, antialias"; "none" for ""."""
    if not resize:
        return "none"
    side, antialias = SIZES[resize]
    return f"{resize}: bilinear to {side} px, {'antialias' if antialias else 'no antialias'}"


def resize_images(images: torch.Tensor, resize: str) -> torch.Tensor:
    """Images uint8 [B, H, W, 3] at the size that `resize` names, uint8 [B, side, side, 3]; unchanged for "".

    The same bytes as torchvision.transforms.Resize((side, side), antialias=...) on uint8 tensors. InputError where an image
    is smaller than that.
    """
    if not resize:
        return images
    side, antialias = SIZES[resize]
    if min(images.shape[1:3]) < side:
        height, width = images.shape[1:3]
        raise InputError(
            f"resize {resize!r} makes {side} px of {width} x {height}; expected larger images to begin with."
        )
    pixels = images.permute(0, 3, 1, 2).float()
    made = torch.nn.functional.interpolate(
        pixels, size=(side, side), mode="bilinear", align_corners=False, antialias=antialias
    )
    return made.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
