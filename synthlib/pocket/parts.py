"""The parts of the embedded model, untrained, and the folder that they are saved in."""

import os
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from synthlib.devices import require_finite
from synthlib.generation.checkpoints import DDIM
from synthlib.pocket import words
from synthlib.pocket.glyphs import SIZE

LATENT, CHANNELS = 8, 6  # a latent is [6, 8, 8]: three levels of the autoencoder, so a factor of 4
TEXT_WIDTH = 64


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(**DDIM)


def make_autoencoder() -> AutoencoderKL:
    """[B, 3, 32, 32] <-> [B, 6, 8, 8], 0.24 M parameters."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
    )


def make_text_encoder() -> CLIPTextModel:
    """Two layers over at most twelve words."""
    tokenizer = words.make_tokenizer()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=words.MAX_TOKENS,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def make_unet() -> UNet2DConditionModel:
    """1.4 M parameters; words are attended to at 4x4 only, where a pass costs half of attending at 8x8 as well."""
    return UNet2DConditionModel(
        sample_size=LATENT,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(48, 72),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,  # diffusers reads it as the number of heads
        norm_num_groups=12,
    )


def save_weights(
    folder: Path, autoencoder: AutoencoderKL, text_encoder: CLIPTextModel, unet: UNet2DConditionModel
) -> None:
    """Write the checkpoint folder beside `folder`, then put it in its place. NotFinite: its training went astray."""
    tensors = [tensor for part in (autoencoder, text_encoder, unet) for tensor in part.state_dict().values()]
    finite = all(torch.isfinite(tensor).all() for tensor in tensors)
    require_finite(finite, "the trained weights", "train with lower rates")
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=words.make_tokenizer(),
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(new, safe_serialization=True)
    _name_tokenizer(new)
    _forget_paths(new)
    words.write_vocabulary(new / "vocabulary.json")
    for file in new.rglob("*.safetensors"):
        file.chmod(0o644)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def _name_tokenizer(folder: Path) -> None:
    """Name the tokenizer's class as transformers 4 and 5 both know it; 5 alone writes TokenizersBackend."""
    for file in (folder / "model_index.json", folder / "tokenizer" / "tokenizer_config.json"):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("TokenizersBackend", "PreTrainedTokenizerFast"), encoding="utf-8")


def _forget_paths(folder: Path) -> None:
    """Take out the folder that a resumed build read its parts from."""
    for file in folder.glob("*/config.json"):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(line for line in lines if '"_name_or_path"' not in line), encoding="utf-8")
