"""Safety: Stable Diffusion's checker, asked only for its opinion. What it flags is recorded; pixels are never altered."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synthlib.devices import out_of_memory, require_finite
from synthlib.generation.parts import first_line, open_part
from synthlib.inputs import InputError, parameter


@dataclass(frozen=True)
class SafetyChecker:
    """The checker that comes with a checkpoint, and the processor that prepares its input."""

    checker: torch.nn.Module
    processor: Any


def open_safety_checker(folder: Path, device: torch.device) -> SafetyChecker:
    """The checker of a diffusers folder, in float32. InputError where the folder has none, or one that could flag nothing."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    if not (folder / "safety_checker").is_dir():
        raise InputError(
            f"{folder} has no safety_checker; expected one for {parameter('safety')} flag: leave that out, or "
            "fetch a whole checkpoint."
        )
    checker = open_part(StableDiffusionSafetyChecker, folder / "safety_checker", torch.float32)
    processor = open_part(CLIPImageProcessor, folder / "feature_extractor")
    safety = SafetyChecker(checker.to(device).eval().requires_grad_(False), processor)
    try:
        flag(safety, torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    except Exception as error:  # whatever torch and transformers raise for shapes
        if out_of_memory(error):
            raise
        raise InputError(
            f"the safety_checker of {folder} does not take what its feature_extractor gives: {first_line(error)}; expected those "
            f"of one model: fetch it again, or leave {parameter('safety')} flag out."
        )
    finite = all(torch.isfinite(tensor).all() for tensor in checker.state_dict().values())
    require_finite(finite, f"the safety checker's weights in {folder}", "fetch the checkpoint again")
    return safety


@torch.inference_mode()
def flag(safety: SafetyChecker, images: torch.Tensor) -> list[bool]:
    """Whether the checker would have blacked out each of some images, uint8 [B, H, W, 3]; the authors' script replaced those."""
    given = safety.processor(list(images.numpy()), return_tensors="pt", input_data_format="channels_last")
    device = next(safety.checker.parameters()).device
    blank = torch.zeros(len(images), 1, 1, 3).numpy()  # it blackens what it flags: let it be these
    _, flagged = safety.checker(images=blank, clip_input=given.pixel_values.to(device))
    return [bool(found) for found in flagged]
