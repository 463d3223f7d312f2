"""The diffusion loop: one prompt, guidance scale and noise per image of a batch, which no pipeline takes."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from synthlib.devices import require_drawn
from synthlib.generation.checkpoints import DDIM, Checkpoint, vae_factor
from synthlib.generation.noise import initial_noise

# Pixels that the VAE decodes at once; fixed, so that an image's bytes do not depend on memory.
DECODE_PIXELS = 8 * 512 * 512


def latent_shape(checkpoint: Checkpoint, height: int, width: int) -> tuple[int, int, int]:
    """[C, h, w] of the latents of an image of `height` x `width` pixels."""
    factor = vae_factor(checkpoint.vae)
    return checkpoint.unet.config.in_channels, height // factor, width // factor


def draw(
    checkpoint: Checkpoint,
    text: torch.Tensor,
    no_text: torch.Tensor,
    guidance: torch.Tensor,
    seeds: list[int],
    num_inference_steps: int,
    height: int,
    width: int,
) -> torch.Tensor:
    """Draw a batch of images, uint8 [B, H, W, 3] on the CPU: noise of each image's own seed, `denoise`, `decode`."""
    noise = initial_noise(seeds, latent_shape(checkpoint, height, width))
    latents = denoise(checkpoint, text, no_text, guidance, noise, num_inference_steps)
    return decode(checkpoint.vae, latents, model=checkpoint.folder)


@cache
def _scheduler(num_inference_steps: int) -> Any:
    """diffusers' DDIM with our explicit settings; it keeps no state between batches, and takes 10 ms to make."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**DDIM)
    scheduler.set_timesteps(num_inference_steps)
    assert len(scheduler.timesteps) == num_inference_steps and scheduler.init_noise_sigma == 1
    return scheduler


@torch.inference_mode()
def denoise(
    checkpoint: Checkpoint,
    text: torch.Tensor,
    no_text: torch.Tensor,
    guidance: torch.Tensor,
    noise: torch.Tensor,
    num_inference_steps: int,
    guidance_until: float = 1.0,
    after_step: Callable[[float], None] = lambda share: None,
) -> torch.Tensor:
    """Noise float32 [B, C, h, w] -> latents float32 [B, C, h, w] on the checkpoint's device.

    text [B, T, D], no_text [1, T, D] (the empty prompt's embedding), guidance float32 [B]; of a model that draws from images,
    their embeddings [B, 1, D] and zeros [1, 1, D].
    Classifier-free guidance (Ho and Salimans 2022): eps = eps(no text) + g (eps(text) - eps(no text)); where g is 1 that is
    eps(text), so those images skip the pass without text. DDIM (Song et al. 2021) with eta 0. Latents and their update stay
    in float32, whatever the UNet's precision.
    guidance_until < 1 is lossy: after that share of the steps nothing is guided (Kynkaanniemi et al. 2024 guide an interval).
    after_step is called after each step with the share of the work that it was.
    """
    unet, device, scheduler = checkpoint.unet, checkpoint.device, _scheduler(num_inference_steps)
    latents = noise.to(device)
    guided = (guidance != 1).nonzero()[:, 0]
    n = len(guided)
    # Few batch sizes, so few compilations: images of guidance 1 fill up the pass without text.
    if checkpoint.compiled and n:
        rest = (guidance == 1).nonzero()[:, 0]
        step = max(1, len(guidance) // 4)
        guided = torch.cat([guided, rest[: -n % step]])
    guided = guided.to(device)
    scale = guidance.to(device)[guided, None, None, None]
    context = torch.cat([no_text.expand(len(guided), -1, -1), text]).to(device, unet.dtype)
    # Once: the scheduler reads its own on the CPU, the UNet these, and nothing waits.
    times = scheduler.timesteps.to(device)
    last_guided = round(guidance_until * num_inference_steps)
    for number, timestep in enumerate(scheduler.timesteps):
        if number == last_guided:
            guided, scale, context = guided[:0], scale[:0], context[len(guided) :]
        batch = torch.cat([latents[guided], latents]).to(unet.dtype)
        predicted = unet(batch, times[number], encoder_hidden_states=context, return_dict=False)[0].float()
        without, with_text = predicted[: len(guided)], predicted[len(guided) :]
        if len(guided):
            with_text[guided] = without + scale * (with_text[guided] - without)
        latents = scheduler.step(with_text, timestep, latents, eta=0.0, return_dict=False)[0]
        after_step(1 / num_inference_steps)
    return latents


@torch.inference_mode()
def decode(
    vae: torch.nn.Module, latents: torch.Tensor, truncate: bool = False, model: object = "this VAE"
) -> torch.Tensor:
    """Latents float32 [B, C, h, w] -> pixels uint8 [B, H, W, 3] on the CPU.

    Rounded as diffusers rounds them, or with `truncate` cut off as CompVis's txt2img.py does. NotFinite, which names `model`:
    latents or pixels are nan or infinite.
    """
    at_once = max(1, DECODE_PIXELS // (latents.shape[2] * latents.shape[3] * vae_factor(vae) ** 2))
    images, finite = [], torch.isfinite(latents).all()
    for part in latents.split(at_once):
        pixels = vae.decode((part / vae.config.scaling_factor).to(vae.dtype), return_dict=False)[0].float()
        finite = finite & torch.isfinite(pixels).all()
        pixels = (pixels / 2 + 0.5).clamp(0, 1) * 255
        images.append((pixels if truncate else pixels.round()).to(torch.uint8).permute(0, 2, 3, 1))
    drawn = torch.cat(images).cpu()  # the one wait for the device
    require_drawn(finite, "latents or pixels", model, vae.dtype, latents.device)
    return drawn
