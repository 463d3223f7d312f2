"""The diffusion loop: one prompt, guidance scale and seed per image of a batch, which no pipeline takes."""

import torch

from synthlib.generation.checkpoints import DDIM, Checkpoint, vae_factor


def initial_noise(seeds: list[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal latents float32 [B, *shape]: each from a CPU generator of its own, so of its seed only."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.inference_mode()
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
    """Draw a batch of images, uint8 [B, H, W, 3] on the CPU.

    text [B, T, D], no_text [1, T, D] (the empty prompt's embedding), guidance float32 [B], seeds B numbers.
    Classifier-free guidance (Ho and Salimans 2022): eps = eps(no text) + g (eps(text) - eps(no text)); where g is 1 that is
    eps(text), so those images skip the pass without text. DDIM (Song et al. 2021) with eta 0. Latents and their update stay
    in float32, whatever the UNet's precision.
    """
    from diffusers import DDIMScheduler

    unet, vae, device = checkpoint.unet, checkpoint.vae, checkpoint.device
    scheduler = DDIMScheduler(**DDIM)
    scheduler.set_timesteps(num_inference_steps)
    factor = vae_factor(vae)
    shape = (unet.config.in_channels, height // factor, width // factor)
    latents = initial_noise(seeds, shape).to(device) * scheduler.init_noise_sigma
    guided = (guidance != 1).nonzero()[:, 0].to(device)
    scale = guidance.to(device)[guided, None, None, None]
    context = torch.cat([no_text.expand(len(guided), -1, -1), text]).to(device, unet.dtype)
    for timestep in scheduler.timesteps:
        batch = torch.cat([latents[guided], latents]).to(unet.dtype)
        predicted = unet(batch, timestep, encoder_hidden_states=context, return_dict=False)[0].float()
        without, noise = predicted[: len(guided)], predicted[len(guided) :]
        if len(guided):
            noise[guided] = without + scale * (noise[guided] - without)
        latents = scheduler.step(noise, timestep, latents, eta=0.0, return_dict=False)[0]
    return decode(vae, latents)


def decode(vae: torch.nn.Module, latents: torch.Tensor) -> torch.Tensor:
    """Latents float32 [B, C, h, w] -> pixels uint8 [B, H, W, 3] on the CPU, rounded as diffusers rounds them."""
    pixels = vae.decode((latents / vae.config.scaling_factor).to(vae.dtype), return_dict=False)[0].float()
    return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
