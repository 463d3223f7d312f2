"""Checkpoints: open any text-to-image model, Stable Diffusion v1's kind for our own sampler, other families as pipelines."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from synthlib import hub, paths
from synthlib.devices import TORCH_TYPES, device_named, out_of_memory
from synthlib.generation import parts as model_parts
from synthlib.generation.parts import DDIM
from synthlib.generation.pipelines import OtherModel, open_pipeline
from synthlib.inputs import InputError, parameter
from synthlib.names import IMAGE_TRICKS

# Stable Diffusion v1 drawing from text, and tuned to draw from CLIP's embedding of an image.
TEXT_MODEL, IMAGE_MODEL = "StableDiffusionPipeline", "StableDiffusionImageVariationPipeline"
# Schedulers that solve the process which DDIM solves, the one that Stable Diffusion v1 was trained for (noise predicted at each
# of 1,000 timesteps): in a folder with v1's betas they are its publisher's taste in samplers, and the paper's DDIM in 40 steps is
# another sampler of the same model. v1.4's own folder has PNDM; fine-tunes have Euler, DPM-Solver, UniPC. Not among them: those
# of models distilled to few steps (LCM, TCD), flow matching, EDM, and whatever comes. Their default spacings differ (Euler's is
# "linspace", DDIM's "leading"; nobody's is "trailing"), and are taste, too.
SAME_PROCESS = [
    f"{name}Scheduler"
    for name in (
        "DDIM DDPM PNDM LMSDiscrete EulerDiscrete EulerAncestralDiscrete HeunDiscrete KDPM2Discrete KDPM2AncestralDiscrete "
        "DPMSolverMultistep DPMSolverSinglestep DPMSolverSDE DEISMultistep UniPCMultistep"
    ).split()
]
# What else of a scheduler's configuration decides, and what our sampler can draw: (key, values, diffusers' default). Without v1's
# betas, which are nobody's default, diffusers takes others. Stated "trailing" is for few-step models (Turbo, Lightning, Hyper) or
# a terminal signal-to-noise ratio of zero. steps_offset and clip_sample do not count: diffusers' own pipeline sets them to 1 and
# False on opening, as DDIM above has them.
SCHEDULES = [
    *((name, (DDIM[name],), None) for name in ("beta_schedule", "beta_start", "beta_end")),
    ("num_train_timesteps", (1000,), 1000),
    ("prediction_type", ("epsilon",), "epsilon"),
    ("timestep_spacing", ("leading", "linspace"), "leading"),
    ("timestep_type", ("discrete",), "discrete"),
    ("variance_type", ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", None), None),
    *((name, (None,), None) for name in ("trained_betas", "sigma_min", "sigma_max")),
    *((name, (False, None), None) for name in ("rescale_betas_zero_snr", "thresholding", "use_flow_sigmas")),
]
# Parts of both kinds of model, and what of a configuration asks for more than a latent, a timestep and an embedding: the guidance
# scale (LCM), classes, sizes, images; GLIGEN's boxes; a mask of the text.
PARTS = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
}
CONDITIONS = {
    "unet": (
        *("time_cond_proj_dim", "class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim"),
        *("encoder_hid_dim_type", "projection_class_embeddings_input_dim"),
    ),
    "text_encoder": ("use_attention_mask",),
}


@dataclass(frozen=True)
class Checkpoint:
    """The parts of a latent diffusion model, ready on a device. `height` and `width` are its native pixels.

    One that draws from images (`takes_images`) has an image_encoder and its feature_extractor in place of the text's two.
    """

    folder: Path
    tokenizer: Any
    text_encoder: torch.nn.Module
    unet: torch.nn.Module
    vae: torch.nn.Module
    device: torch.device
    height: int
    width: int
    compiled: bool = False
    image_encoder: torch.nn.Module | None = None
    feature_extractor: Any = None


def for_our_sampler(source: Path) -> bool:
    """Whether a checkpoint (folder or single file) is of Stable Diffusion v1's kind: its classes, its noise schedule, its UNet.

    InputError where it is no checkpoint at all, or a configuration that decides cannot be read.
    """
    if source.is_file():
        return True  # single_file refuses other layouts
    index = model_parts.read_index(source)
    schedule = model_parts.read_config(source / "scheduler" / "scheduler_config.json")
    named, stated = index.get("scheduler"), schedule.get("_class_name")
    # Folders often name another sampler of the same process; but LCM's, say, is no sampler of it.
    if isinstance(named, list) and named[-1:] not in [[None], [stated], *([name] for name in SAME_PROCESS)]:
        raise InputError(
            f"{source / hub.INDEX} names {named!r} as the scheduler, scheduler/scheduler_config.json is of {stated!r}; expected "
            "the same class in both: mend the wrong one, or fetch the model again."
        )
    if index.get("_class_name") not in (TEXT_MODEL, IMAGE_MODEL):
        return False
    names = _part_names(index)
    configs = {name: model_parts.read_config(source / name / "config.json") for name in names}
    return (
        all(index.get(name) == PARTS[name] for name in names)
        and schedule.get("_class_name") in SAME_PROCESS
        and all(schedule.get(name, default) in values for name, values, default in SCHEDULES)
        and not any(configs[part].get(name) for part in names for name in CONDITIONS.get(part, ()))
        and configs["unet"].get("attention_type", "default") == "default"
    )


def _part_names(index: dict[str, Any]) -> list[str]:
    """The networks of a checkpoint that our sampler draws with."""
    return ["image_encoder" if index.get("_class_name") == IMAGE_MODEL else "text_encoder", "unet", "vae"]


def takes_images(source: Path) -> bool:
    """Whether a checkpoint draws from images' embeddings and not from text."""
    return source.is_dir() and model_parts.read_index(source).get("_class_name") == IMAGE_MODEL


def check_trick(source: Path, trick: str) -> None:
    """InputError unless a checkpoint draws from what a trick gives it: prompts, or embeddings of pool images."""
    if takes_images(source) != (trick in IMAGE_TRICKS):
        draws, gives = ("images", "prompts") if takes_images(source) else ("text", "images")
        kind = "a text-to-image model" if gives == "prompts" else f"a diffusers folder of a {IMAGE_MODEL}"
        raise InputError(
            f"{source} draws from {draws}, but trick {trick!r} gives {gives}; expected {kind}: name one as "
            f"{parameter('model')}, or choose "
            f"{'one of ' + ', '.join(IMAGE_TRICKS) if gives == 'prompts' else 'a trick of prompts'}."
        )
    if takes_images(source) and not for_our_sampler(source):
        raise InputError(
            f"{source} has another noise schedule or other parts than Stable Diffusion v1; expected those: choose such a model."
        )


def scheduler_name(source: Path) -> str:
    """What to record of how a checkpoint is sampled."""
    if for_our_sampler(source):
        return "DDIM, eta 0, leading timesteps, offset 1"
    return str(model_parts.read_config(source / "scheduler" / "scheduler_config.json").get("_class_name"))


def open_checkpoint(
    model: str,
    revision: str = "",
    device: str = "cpu",
    precision: str = "float32",
    compile: bool = False,
    lossy_vae: str = "",
) -> Checkpoint | OtherModel:
    """Open a text-to-image model: "" (the embedded one), a diffusers folder, a single CompVis file, or a hub id.

    Its networks take `precision`. lossy_vae: a folder of diffusers' AutoencoderTiny to decode with, faster and lossy.
    Raises InputError where there is no such checkpoint, or a file of it is missing or truncated.
    """
    source, where = hub.fetch(model, revision), device_named(device)
    warnings.filterwarnings("ignore", message="IProgress not found")  # no widgets in the required path
    if not for_our_sampler(source):
        return open_pipeline(source, where, TORCH_TYPES[precision])
    parts = _open_parts(source, TORCH_TYPES[precision])
    height, width = _native_size(source, parts["unet"], parts["vae"])
    if lossy_vae:
        parts["vae"] = _open_tiny_vae(lossy_vae, parts["vae"], TORCH_TYPES[precision])
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.to(where).eval().requires_grad_(False)
    if where.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32
        for name in ("unet", "vae"):
            parts[name].to(memory_format=torch.channels_last)
    opened = Checkpoint(source, **parts, device=where, height=height, width=width, compiled=compile)
    _try_once(opened)
    if compile:
        _compile(parts["unet"])
    return opened


def _native_size(source: Path, unet: torch.nn.Module, vae: torch.nn.Module) -> tuple[int, int]:
    """Height and width in pixels that a checkpoint is made for, as diffusers' pipeline has them: UNets saved by diffusers before
    0.9 state 32 or so, whatever they were trained for, and mean 64.
    """
    stated, version = unet.config.sample_size, str(unet.config.get("_diffusers_version", ""))
    saved_by = re.match(r"(\d+)\.(\d+)", version)
    if isinstance(stated, int) and stated < 64 and saved_by and tuple(map(int, saved_by.groups())) < (0, 9):
        stated = 64
    high, wide = model_parts.sides(source / "unet", stated)
    return high * vae_factor(vae), wide * vae_factor(vae)


@torch.inference_mode()
def _try_once(checkpoint: Checkpoint) -> None:
    """Embed nothing, denoise and decode a small latent. InputError where the parts do not go together."""
    unet, vae = checkpoint.unet, checkpoint.vae
    side = 2 ** len(unet.config.block_out_channels)  # 2 x 2 at the deepest level: one channel of 1 x 1 has no norm
    latents = torch.zeros(1, unet.config.in_channels, side, side, device=checkpoint.device, dtype=unet.dtype)
    try:
        if checkpoint.image_encoder is None:
            embedded = encode_prompts(checkpoint, [""])
        else:
            blank = checkpoint.feature_extractor(images=Image.new("RGB", (32, 32)), return_tensors="pt").pixel_values
            encoder = checkpoint.image_encoder
            embedded = encoder(blank.to(checkpoint.device, encoder.dtype)).image_embeds[:, None]
        given = {"encoder_hidden_states": embedded.to(unet.dtype), "return_dict": False}
        noise = unet(latents, torch.tensor(1, device=checkpoint.device), **given)[0]
        shapes = [noise.shape, vae.decode(noise.to(vae.dtype), return_dict=False)[0].shape]
        wanted = [latents.shape, (1, 3, side * vae_factor(vae), side * vae_factor(vae))]
        why = "" if shapes == wanted else f"a latent and its image come as {shapes}, expected {wanted}"
    except Exception as error:  # whatever torch and the libraries raise for shapes
        if out_of_memory(error):
            raise
        why = model_parts.first_line(error)
    if why:
        raise InputError(
            f"the parts of {checkpoint.folder} do not go together: {why}; expected those of one model: fetch it again."
        )


def _open_parts(source: Path, dtype: torch.dtype) -> dict[str, Any]:
    """unet, vae and what encodes the text (or the images) of a diffusers folder or a single file, on the CPU."""
    if source.is_file():
        from synthlib.generation.single_file import open_single_file

        return open_single_file(source, dtype)
    index = model_parts.read_index(source)
    reads_images = takes_images(source)
    feeds = "feature_extractor" if reads_images else "tokenizer"
    parts = {}
    for name in (feeds, *_part_names(index)):
        kind = model_parts.named_class(source / hub.INDEX, name, index.get(name))
        parts[name] = model_parts.open_part(kind, source / name, dtype)
    model_parts.check_fit(source, parts)
    if reads_images:
        parts |= {"tokenizer": None, "text_encoder": None}
        given, kind = parts["image_encoder"].config.projection_dim, "embeddings"
    else:
        given, kind = parts["text_encoder"].config.hidden_size, "words"
    wanted = parts["unet"].config.cross_attention_dim
    if given != wanted:
        raise InputError(
            f"{source} has {kind} of {given} numbers, its unet takes {wanted}; expected equal ones: fetch parts of one model."
        )
    return parts


def _open_tiny_vae(folder: str, full: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """A distilled decoder (TAESD) in place of a VAE: lossy."""
    from diffusers import AutoencoderTiny

    found = paths.resolve(folder)
    model_parts.refuse_own_code(found)
    if model_parts.read_config(found / "config.json").get("_class_name") != "AutoencoderTiny":
        raise InputError(f"lossy_vae {folder!r} is no folder of an AutoencoderTiny; give one, such as a copy of TAESD.")
    vae = model_parts.open_part(AutoencoderTiny, found, dtype)
    if vae_factor(vae) != vae_factor(full) or vae.config.latent_channels != full.config.latent_channels:
        raise InputError(
            f"lossy_vae {folder!r} is for latents of another shape than this checkpoint's; give one that fits."
        )
    return vae


def _compile(unet: torch.nn.Module) -> None:
    """Compile a UNet in place, with kernels chosen by rule and not by a race, so that the same run gives the same bytes."""
    import torch._inductor.config as inductor

    if hasattr(inductor, "deterministic"):
        inductor.deterministic = True
    torch._dynamo.config.recompile_limit = 16  # one a batch size, see sampler.denoise
    unet.compile(dynamic=False)


def vae_factor(vae: torch.nn.Module) -> int:
    """Pixels per latent along an axis."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def check_size(checkpoint: Checkpoint, height: int, width: int) -> None:
    """InputError unless the checkpoint can draw `height` x `width` pixels: multiples of what its levels halve."""
    multiple = vae_factor(checkpoint.vae) * 2 ** (len(checkpoint.unet.config.block_out_channels) - 1)
    if height % multiple or width % multiple:
        raise InputError(
            f"this checkpoint cannot draw {height} x {width} pixels; expected {parameter('height')} and {parameter('width')} in "
            f"multiples of {multiple}, such as its own {checkpoint.height} x {checkpoint.width}."
        )


def check_length(checkpoint: Checkpoint, prompts: list[str]) -> None:
    """InputError where a prompt is longer than the text encoder reads."""
    tokenizer, most = checkpoint.tokenizer, checkpoint.tokenizer.model_max_length
    for prompt in prompts:
        count = len(tokenizer(prompt).input_ids)
        if count > most:
            raise InputError(
                f"the prompt {prompt!r:.200} has {count} tokens with its two ends; expected at most {most}, which is what "
                f"{checkpoint.folder} reads: shorten it."
            )


@torch.inference_mode()
def encode_prompts(checkpoint: Checkpoint, prompts: list[str]) -> torch.Tensor:
    """Text embeddings [P, T, D] of some prompts, each encoded on its own so that it depends on nothing else."""
    found = []
    for prompt in prompts:
        tokens = checkpoint.tokenizer(
            prompt,
            padding="max_length",
            max_length=checkpoint.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        found.append(checkpoint.text_encoder(tokens.input_ids.to(checkpoint.device))[0])
    return torch.cat(found)
