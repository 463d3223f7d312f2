"""Safety: Stable Diffusion's checker, asked only for its opinion. What it flags is recorded; pixels are never altered."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synthlib.inputs import InputError


@dataclass(frozen=True)
class SafetyChecker:
    """The checker that comes with a checkpoint, and the processor that prepares its input."""

    checker: torch.nn.Module
    processor: Any


def open_safety_checker(folder: Path, device: torch.device) -> SafetyChecker:
    """The checker of a diffusers folder, in float32. InputError where the folder has none."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    if not (folder / "safety_checker").is_dir():
        raise InputError(
            f"{folder} has no safety_checker; expected one for safety 'flag': set it to 'off', or fetch a whole checkpoint."
        )
    try:
        checker = StableDiffusionSafetyChecker.from_pretrained(
            folder / "safety_checker", use_safetensors=True, local_files_only=True
        )
        processor = CLIPImageProcessor.from_pretrained(folder / "feature_extractor", local_files_only=True)
    except Exception as error:  # transformers raises many kinds
        raise InputError(f"cannot open the safety checker in {folder}: {str(error)[:120]}; fetch the checkpoint again.")
    return SafetyChecker(checker.to(device).eval().requires_grad_(False), processor)


@torch.inference_mode()
def flag(safety: SafetyChecker, images: torch.Tensor) -> list[bool]:
    """Whether the checker would have blacked out each of some images, uint8 [B, H, W, 3]; the authors' script replaced those."""
    given = safety.processor(list(images.numpy()), return_tensors="pt", input_data_format="channels_last")
    device = next(safety.checker.parameters()).device
    blank = torch.zeros(len(images), 1, 1, 3).numpy()  # it blackens what it flags: let it be these
    _, flagged = safety.checker(images=blank, clip_input=given.pixel_values.to(device))
    return [bool(found) for found in flagged]
