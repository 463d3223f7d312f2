"""Pipelines: every other family of text-to-image model (SDXL, SD 3, Flux, PixArt, SD 2 ...), drawn by diffusers' own code."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthlib.devices import out_of_memory, require_drawn
from synthlib.generation.parts import check_fit, first_line, named_class, open_part, open_scheduler, read_index, sides
from synthlib.hub import INDEX
from synthlib.inputs import InputError

# What a class is given where it takes it: no image is blacked out by a safety checker or changed by a watermark.
PLAIN = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False, "add_watermarker": False}
NEEDED = ("prompt", "guidance_scale", "generator", "num_inference_steps", "height", "width", "output_type")


@dataclass(frozen=True)
class OtherModel:
    """A diffusers pipeline, ready on a device. `height` and `width` are its native pixels, `scheduler` a class name."""

    folder: Path
    pipeline: Any
    device: torch.device
    height: int
    width: int
    scheduler: str


def open_pipeline(folder: Path, device: torch.device, dtype: torch.dtype) -> OtherModel:
    """Open any text-to-image diffusers folder, from local safetensors files only; code in the folder is never run.

    Each part is opened here, and whole; diffusers puts them together.

    Raises InputError where the class is unknown to diffusers, does not draw from text alone, or a file is missing or cut.
    """
    import diffusers

    index = read_index(folder)
    name = index.get("_class_name")
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if kind is None:
        raise InputError(
            f"{folder / INDEX} names the pipeline {name!r}, which diffusers {diffusers.__version__} does not "
            "have; expected a text-to-image pipeline of diffusers' own, give one or update diffusers."
        )
    takes = inspect.signature(kind.__init__).parameters
    absent = [part for part, value in index.items() if value == [None, None]]  # such as SD 3's T5, saved without
    given = {word: value for word, value in (dict.fromkeys(absent) | PLAIN).items() if word in takes}
    parts = {"scheduler": open_scheduler(folder)}
    for part, named in index.items():
        if part in takes and part not in given | parts and isinstance(named, list):
            parts[part] = open_part(named_class(folder / INDEX, part, named), folder / part, dtype)
    check_fit(folder, parts)
    try:
        pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, **given, **parts
        )
    except Exception as error:  # the libraries raise many kinds
        raise InputError(
            f"cannot open the checkpoint {folder}: {first_line(error)}; expected a whole diffusers folder of a "
            "text-to-image pipeline, with safetensors weights; fetch it again."
        )
    lacking = [word for word in NEEDED if word not in inspect.signature(pipeline.__call__).parameters]
    if lacking:
        raise InputError(
            f"{folder} is a {type(pipeline).__name__}, which takes no {', '.join(lacking)}; expected a pipeline that draws "
            "images from a prompt with a guidance scale, choose another model."
        )
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    height, width = _native_size(folder, pipeline)
    return OtherModel(folder, pipeline.to(device), device, height, width, type(pipeline.scheduler).__name__)


def _native_size(folder: Path, pipeline: Any) -> tuple[int, int]:
    """Height and width in pixels that a pipeline is made for.

    The denoiser's sample_size (latents, a number or two), else the pipeline's default_sample_size, times the VAE's factor;
    else the default of its `height` and `width` (Kandinsky); else a sample_size in pixels (DeepFloyd IF has no VAE). Where
    nothing is stated, 1024 x 1024: so do the pipelines that state nothing (Z-Image).
    """
    denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    stated = getattr(getattr(denoiser, "config", None), "sample_size", None)
    stated = stated or getattr(pipeline, "default_sample_size", None)
    high, wide = sides(folder, stated) if stated else (0, 0)
    factor = getattr(pipeline, "vae_scale_factor", 0)
    takes = inspect.signature(pipeline.__call__).parameters
    sizes = [(high * factor, wide * factor), (takes["height"].default, takes["width"].default), (high, wide)]
    return next((size for size in sizes if all(isinstance(side, int) and side > 0 for side in size)), (1024, 1024))


def draw_with_pipeline(
    model: OtherModel,
    prompts: list[str],
    guidance: torch.Tensor,
    seeds: list[int],
    num_inference_steps: int,
    height: int,
    width: int,
    after_step: Callable[[float], None] = lambda share: None,
) -> torch.Tensor:
    """Draw a batch of images with the checkpoint's own scheduler, uint8 [B, H, W, 3] on the CPU.

    prompts B texts, guidance float32 [B], seeds B numbers up to 2**64 - 1. A pipeline takes one guidance scale per call, so
    there is one call per value, in order of first appearance, and the images are put back in order. Each image has a CPU
    generator of its own: its noise depends on its seed only (of which torch reads the lower 32 bits). What guidance_scale
    means is the family's own matter (Flux embeds it; 1 is no guidance in most). Pixels are rounded as diffusers rounds them.

    InputError: what the pipeline refuses, such as a size, or parts that do not go together; a scheduler that makes another
    number of steps than was asked. Those of second order (Heun's, KDPM2) and PNDM evaluate the network more often than once a
    step: they may have more timesteps, never fewer. NotFinite: pixels, or what a VAE decoded, are nan or infinite. Not seen:
    infinities of a family without a VAE (DeepFloyd IF), which diffusers clamps.
    after_step is called after each step, of families that tell of it, with the share of the batch's work that it was.
    """
    drawn: list[torch.Tensor | None] = [None] * len(prompts)
    scales = [float(scale) for scale in guidance]
    tells = "callback_on_step_end" in inspect.signature(model.pipeline.__call__).parameters
    for scale in dict.fromkeys(scales):
        rows = [row for row, its in enumerate(scales) if its == scale]
        share = len(rows) / len(scales) / num_inference_steps

        def told(_pipeline: Any, _step: int, _time: Any, tensors: dict, share: float = share) -> dict:
            after_step(share)
            return tensors

        decoded, hook = _look_at_what_is_decoded(model.pipeline)
        try:
            images = model.pipeline(
                prompt=[prompts[row] for row in rows],
                guidance_scale=scale,
                generator=[torch.Generator().manual_seed(seeds[row]) for row in rows],
                num_inference_steps=num_inference_steps,
                height=height,
                width=width,
                output_type="np",
                **({"callback_on_step_end": told} if tells else {}),
            ).images
        except Exception as error:  # a ValueError for what a pipeline refuses, any kind where its parts do not fit
            if out_of_memory(error):
                raise
            raise InputError(
                f"{model.folder} cannot draw {height} x {width} pixels in {num_inference_steps} steps: {first_line(error)}; "
                f"its own size is {model.height} x {model.width}."
            )
        finally:
            hook.remove()
        _check_steps(model, num_inference_steps)
        if images.shape[1:] != (height, width, 3):  # Flux rounds a size down and only logs it
            raise InputError(
                f"{model.folder} drew {images.shape[1]} x {images.shape[2]} pixels where {height} x {width} were asked; ask "
                f"for a size that it can draw, such as its own {model.height} x {model.width}."
            )
        finite = np.isfinite(images).all() and all(decoded)
        require_drawn(finite, "latents or pixels", model.folder, model.pipeline.dtype, model.device)
        pixels = (torch.from_numpy(images) * 255).round().to(torch.uint8)
        for row, image in zip(rows, pixels, strict=True):
            drawn[row] = image
    return torch.stack(drawn)


def _look_at_what_is_decoded(pipeline: Any) -> tuple[list[torch.Tensor], Any]:
    """Whether each batch that the VAE decodes from now on is finite (diffusers clamps infinities), and the hook that looks."""
    found: list[torch.Tensor] = []
    vae = getattr(pipeline, "vae", None) or getattr(pipeline, "movq", None) or getattr(pipeline, "vqgan", None)

    def look(module: torch.nn.Module, given: Any, made: Any) -> None:
        if isinstance(made, torch.Tensor):
            found.append(torch.isfinite(made).all())

    return found, (getattr(vae, "decoder", None) or torch.nn.Identity()).register_forward_hook(look)


def _check_steps(model: OtherModel, asked: int) -> None:
    """InputError where the scheduler has just made another number of steps than was asked."""
    scheduler = model.pipeline.scheduler
    made = len(scheduler.timesteps)
    repeats = getattr(scheduler, "order", 1) > 1 or type(scheduler).__name__ == "PNDMScheduler"
    if made < asked or (made > asked and not repeats):
        raise InputError(
            f"{model.folder} with its {type(scheduler).__name__} makes {made} steps where {asked} were asked; "
            f"ask for {made}, or for another number."
        )
