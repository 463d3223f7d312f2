"""Checkpoints: open a text-to-image model of Stable Diffusion's kind from a diffusers folder."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synthlib import paths
from synthlib.devices import device_named
from synthlib.receipts import read_json
from synthlib.settings import InputError

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
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Checkpoint:
    """The parts of a latent diffusion model, ready on a device. `height` and `width` are its native pixels."""

    folder: Path
    tokenizer: Any
    text_encoder: torch.nn.Module
    unet: torch.nn.Module
    vae: torch.nn.Module
    device: torch.device
    height: int
    width: int


def model_folder(model: str) -> Path:
    """The folder of a checkpoint: the one named, or the embedded one for "". InputError if it is not a diffusers folder."""
    folder = paths.resolve(model) if model else paths.embedded_model()
    if not (folder / "model_index.json").is_file():
        raise InputError(
            f"{folder} is not a text-to-image checkpoint (no model_index.json); give a diffusers folder, such as one that "
            "StableDiffusionPipeline.save_pretrained writes."
        )
    return folder


def open_checkpoint(model: str, device: str = "cpu", precision: str = "float32") -> Checkpoint:
    """Open a Stable Diffusion v1-like diffusers folder. UNet, VAE and text encoder take `precision`.

    Raises InputError where the folder is no checkpoint, or a file of it is missing or truncated.
    """
    folder = model_folder(model)
    warnings.filterwarnings("ignore", message="IProgress not found")  # no widgets in the required path
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import AutoTokenizer, CLIPTextModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = device_named(device)
    schedule = read_json(folder / "scheduler" / "scheduler_config.json") or {}
    for name in ("prediction_type", "beta_schedule", "num_train_timesteps"):
        if schedule.get(name, DDIM[name]) != DDIM[name]:
            raise InputError(
                f"{folder} has {name} {schedule[name]!r}; this sampler draws Stable Diffusion v1's kind, {DDIM[name]!r}."
            )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        parts = {
            name: kind.from_pretrained(folder / name, use_safetensors=True, torch_dtype=PRECISIONS[precision])
            for name, kind in (("text_encoder", CLIPTextModel), ("unet", UNet2DConditionModel), ("vae", AutoencoderKL))
        }
    except (
        Exception
    ) as error:  # each library raises its own kinds for a file that is missing, cut short or of another shape
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"cannot open the checkpoint {folder}: {line[:200]}; expected a whole diffusers folder, fetch it again."
        )
    for part in parts.values():
        part.to(where).eval().requires_grad_(False)
    size = parts["unet"].config.sample_size * vae_factor(parts["vae"])
    return Checkpoint(folder, tokenizer, **parts, device=where, height=size, width=size)


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
    """InputError where a prompt holds a word that a word-level tokenizer does not know; it lists the words it knows."""
    tokenizer = checkpoint.tokenizer
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
