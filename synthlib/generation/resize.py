"""Resize: from the checkpoint's pixels to the data set's, as the authors' resize_dataset.py does it."""

import torch

from synthlib.inputs import InputError, parameter

# What each name in the authors' archives means: (side in pixels, antialias). Theirs is torchvision's Resize on uint8 tensors:
# bilinear in float32, rounded half to even. "64" is in their script; that "32A" is the same with antialias is inferred.
SIZES = {"32A": (32, True), "64": (64, False)}


def filter_name(resize: str) -> str:
    """What to record of a resize, e.g. "32A: bilinear to 32 px, antialias"; "none" for ""."""
    if not resize:
        return "none"
    side, antialias = SIZES[resize]
    return f"{resize}: bilinear to {side} px, {'antialias' if antialias else 'no antialias'}"


def final_size(height: int, width: int, resize: str) -> tuple[int, int]:
    """Height and width in pixels of an image as it is kept."""
    return (SIZES[resize][0],) * 2 if resize else (height, width)


def check_resize(height: int, width: int, resize: str) -> None:
    """InputError where images of this size would have to be enlarged."""
    side = max(final_size(height, width, resize))
    if resize and min(height, width) < side:
        raise InputError(
            f"{parameter('resize')} {resize!r} makes {side} px of {width} x {height}; expected larger images to begin with."
        )


def resize_images(images: torch.Tensor, resize: str) -> torch.Tensor:
    """Images uint8 [B, H, W, 3] at the size that `resize` names, uint8 [B, side, side, 3]; unchanged for "".

    The same bytes as torchvision.transforms.Resize((side, side), antialias=...) on uint8 tensors. InputError where an image
    is smaller than that.
    """
    if not resize:
        return images
    check_resize(*images.shape[1:3], resize)
    side, antialias = SIZES[resize]
    pixels = images.permute(0, 3, 1, 2).float()
    made = torch.nn.functional.interpolate(
        pixels, size=(side, side), mode="bilinear", align_corners=False, antialias=antialias
    )
    return made.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
