"""Checkpoints: open any text-to-image model, Stable Diffusion v1's kind for our own sampler, other families as pipelines."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synthlib import hub, paths
from synthlib.devices import TORCH_TYPES, device_named
from synthlib.files import read_json
from synthlib.generation.pipelines import OtherModel, open_pipeline
from synthlib.inputs import InputError
from synthlib.names import IMAGE_TRICKS

# Stable Diffusion v1 drawing from text, and tuned to draw from CLIP's embedding of an image.
TEXT_MODEL, IMAGE_MODEL = "StableDiffusionPipeline", "StableDiffusionImageVariationPipeline"
# Stable Diffusion v1's noise schedule, explicit: a checkpoint's own config may be PNDM's, which would clip the samples.
DDIM = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "prediction_type": "epsilon",
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
    """Whether a checkpoint (folder or single file) is of Stable Diffusion v1's kind: its classes, its noise schedule.

    InputError where it is no checkpoint at all.
    """
    if source.is_file():
        return True  # single_file refuses other layouts
    index = read_json(source / "model_index.json")
    if not isinstance(index, dict):
        raise InputError(
            f"{source} is not a text-to-image checkpoint (no model_index.json); give a diffusers folder, such as one that "
            "StableDiffusionPipeline.save_pretrained writes, a .safetensors file, or a hub id."
        )
    schedule = read_json(source / "scheduler" / "scheduler_config.json")
    schedule = schedule if isinstance(schedule, dict) else {}
    ours = ("prediction_type", "beta_schedule", "beta_start", "beta_end", "num_train_timesteps")
    return (
        not schedule.get("rescale_betas_zero_snr")
        and index.get("_class_name") in (TEXT_MODEL, IMAGE_MODEL)
        and all(schedule.get(name, DDIM[name]) == DDIM[name] for name in ours)
    )


def takes_images(source: Path) -> bool:
    """Whether a checkpoint draws from images' embeddings and not from text."""
    return source.is_dir() and (read_json(source / "model_index.json") or {}).get("_class_name") == IMAGE_MODEL


def check_trick(source: Path, trick: str) -> None:
    """InputError unless a checkpoint draws from what a trick gives it: prompts, or embeddings of pool images."""
    if takes_images(source) != (trick in IMAGE_TRICKS):
        draws, gives = ("images", "prompts") if takes_images(source) else ("text", "images")
        kind = "a text-to-image model" if gives == "prompts" else f"a diffusers folder of a {IMAGE_MODEL}"
        raise InputError(
            f"{source} draws from {draws}, but trick {trick!r} gives {gives}; expected {kind}: name one as the model, or choose "
            f"{'one of ' + ', '.join(IMAGE_TRICKS) if gives == 'prompts' else 'a trick of prompts'}."
        )
    if takes_images(source) and not for_our_sampler(source):
        raise InputError(
            f"{source} has another noise schedule than Stable Diffusion v1; expected that one: choose such a model."
        )


def scheduler_name(source: Path) -> str:
    """What to record of how a checkpoint is sampled."""
    if for_our_sampler(source):
        return "DDIM, eta 0, leading timesteps, offset 1"
    return str((read_json(source / "scheduler" / "scheduler_config.json") or {}).get("_class_name", "unknown"))


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
    size = parts["unet"].config.sample_size * vae_factor(parts["vae"])
    if lossy_vae:
        parts["vae"] = _open_tiny_vae(lossy_vae, parts["vae"], TORCH_TYPES[precision])
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.to(where).eval().requires_grad_(False)
    if where.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32
        for name in ("unet", "vae"):
            parts[name].to(memory_format=torch.channels_last)
    if compile:
        _compile(parts["unet"])
    return Checkpoint(source, **parts, device=where, height=size, width=size, compiled=compile)


def _open_parts(source: Path, dtype: torch.dtype) -> dict[str, Any]:
    """unet, vae and what encodes the text (or the images) of a diffusers folder or a single file, on the CPU."""
    if source.is_file():
        from synthlib.generation.single_file import open_single_file

        return open_single_file(source, dtype)
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import AutoTokenizer, CLIPTextModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    kinds = {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel, "vae": AutoencoderKL}
    before = {"tokenizer": AutoTokenizer}
    if takes_images(source):
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        kinds = {"image_encoder": CLIPVisionModelWithProjection} | {name: kinds[name] for name in ("unet", "vae")}
        before = {"feature_extractor": CLIPImageProcessor}
    try:
        parts = {name: kind.from_pretrained(source / name, local_files_only=True) for name, kind in before.items()}
        for name, kind in kinds.items():
            parts[name] = kind.from_pretrained(
                source / name, use_safetensors=True, torch_dtype=dtype, local_files_only=True
            )
    except Exception as error:  # each library raises its own kinds for a file missing, cut short or of another shape
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"cannot open the checkpoint {source}: {line[:200]}; expected a whole diffusers folder, fetch it again."
        )
    if takes_images(source):
        given, wanted = parts["image_encoder"].config.projection_dim, parts["unet"].config.cross_attention_dim
        if given != wanted:
            raise InputError(
                f"{source} has embeddings of {given} numbers, its unet takes {wanted}; expected equal ones: mend it."
            )
        parts |= {"tokenizer": None, "text_encoder": None}
    return parts


def _open_tiny_vae(folder: str, full: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """A distilled decoder (TAESD) in place of a VAE: lossy."""
    from diffusers import AutoencoderTiny

    if (read_json(paths.resolve(folder) / "config.json") or {}).get("_class_name") != "AutoencoderTiny":
        raise InputError(f"lossy_vae {folder!r} is no folder of an AutoencoderTiny; give one, such as a copy of TAESD.")
    try:
        vae = AutoencoderTiny.from_pretrained(paths.resolve(folder), torch_dtype=dtype, local_files_only=True)
    except Exception as error:
        raise InputError(
            f"lossy_vae {folder!r} cannot be opened ({str(error)[:120]}); expected a folder of AutoencoderTiny."
        )
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
            f"this checkpoint cannot draw {height} x {width} pixels; expected multiples of {multiple}, "
            f"such as its own {checkpoint.height} x {checkpoint.width}."
        )


def check_words(checkpoint: Checkpoint, prompts: list[str]) -> None:
    """InputError where a prompt is longer than the text encoder reads, or holds a word that a word-level tokenizer does not
    know; it lists the words it knows.
    """
    tokenizer, most = checkpoint.tokenizer, checkpoint.tokenizer.model_max_length
    for prompt in prompts:
        count = len(tokenizer(prompt).input_ids)
        if count > most:
            raise InputError(
                f"the prompt {prompt!r:.200} has {count} tokens with its two ends; expected at most {most}, which is what "
                f"{checkpoint.folder} reads: shorten it."
            )
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id):
        return  # CLIP's byte-pair vocabulary spells any word
    words = sorted({word for prompt in prompts for word in prompt.lower().split()})
    strange = [word for word in words if unknown in tokenizer(word, add_special_tokens=False).input_ids]
    if strange:
        special = set(tokenizer.all_special_tokens)
        known = ", ".join(sorted(word for word in tokenizer.get_vocab() if word not in special))
        raise InputError(
            f"{checkpoint.folder} does not know {', '.join(map(repr, strange))}; this model knows only: {known}. "
            "Choose among these, or name a checkpoint that knows more with --model."
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
