"""Train the embedded text-to-image model on drawn glyphs: autoencoder, then text encoder and UNet together.

Latent diffusion (Rombach et al. 2022) in miniature. Everything follows from the seed of `BuildSettings`, on one machine
and one number of workers. The result is a folder that `StableDiffusionPipeline.from_pretrained` opens.
"""

import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel

from synthlib.pocket import words
from synthlib.pocket.glyphs import HELD_OUT_FONTS, SIZE, TRAINING_FONTS, draw_glyphs
from synthlib.pocket.parts import (
    CHANNELS,
    LATENT,
    make_autoencoder,
    make_scheduler,
    make_text_encoder,
    make_unet,
    save_weights,
)


@dataclass(frozen=True)
class BuildSettings:
    """What decides the weights."""

    seed: int = 0
    glyphs: int = 40_000  # in the corpus
    autoencoder_steps: int = 3_000
    autoencoder_batch: int = 16
    autoencoder_rate: float = 2e-3
    kl_weight: float = 1e-4  # both terms are means, over pixels and over latents
    steps: int = 4_500  # of the denoiser
    batch: int = 64
    rate: float = 1.5e-3
    warm_up: int = 200
    weight_decay: float = 0.01
    caption_dropout: float = 0.12
    snr_limit: float = 5.0  # gamma of Min-SNR weighting (Hang et al. 2023, eq. 5)
    ema_decay: float = 0.999
    rounds: int = 1  # a later round goes on with both models, over the same corpus
    later_share: float = 0.5  # of the steps and of the rates, in each later round
    workers: int = 2  # parts of a batch, a thread each; the number decides last bits, the cores do not


def to_unit(images: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def learning_rate(step: int, steps: int, warm_up: int) -> float:
    """Share of the full rate: linear warm-up, then half a cosine down to a hundredth."""
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def make_gradients(workers: int) -> Callable[[Callable[[Tensor], Tensor], list[Tensor], int], float]:
    """A function that sets the gradients of the mean loss of a batch, in `workers` parts side by side.

    One thread a part is faster here than several threads on each small operation."""
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))

    def gradients(losses: Callable[[Tensor], Tensor], parameters: list[Tensor], batch: int) -> float:
        def share(part: Tensor) -> tuple[Tensor, ...]:
            loss = losses(part).sum() / batch
            return loss.detach(), *torch.autograd.grad(loss, parameters, allow_unused=True)

        loss, *grads = zip(*pool.map(share, torch.arange(batch).chunk(workers)), strict=True)
        for parameter, shares in zip(parameters, grads, strict=True):
            parameter.grad = None if shares[0] is None else sum(shares)
        return sum(loss).item()

    return gradients


def train_autoencoder(
    images: Tensor,
    settings: BuildSettings,
    say: Callable[[str], None] = print,
    number: int = 0,
    before: AutoencoderKL | None = None,
) -> AutoencoderKL:
    """Autoencoder of images uint8 [N, 3, 32, 32]; mean absolute error of pixels and of 4x4 averages, plus
    a slight pull to normal latents.

    Its latents then have mean 0 in each channel (folded into the 1x1 convolutions beside them) and, times
    `scaling_factor`, variance 1. Round `number` goes on from the model `before`."""
    torch.manual_seed(settings.seed + 10 * number + 1)
    model = (before or make_autoencoder()).train()
    share = settings.later_share**number
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.autoencoder_rate * share, weight_decay=1e-4)
    picks = torch.Generator().manual_seed(settings.seed + 10 * number + 2)
    parameters, gradients = list(model.parameters()), make_gradients(settings.workers)

    def losses(part: Tensor) -> Tensor:
        posterior = model.encode(batch[part]).latent_dist
        error = model.decode(posterior.mean + posterior.std * noise[part]).sample - batch[part]
        colour = F.avg_pool2d(error, SIZE // LATENT)  # a term of its own, or hues are learned long after shapes
        apart = error.abs().mean((1, 2, 3)) + colour.abs().mean((1, 2, 3))
        return apart + settings.kl_weight * posterior.kl() / noise[0].numel()

    steps, start, total = math.ceil(settings.autoencoder_steps * share), time.perf_counter(), 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.autoencoder_rate * share * learning_rate(step, steps, min(100, steps // 4))
        batch = to_unit(images[torch.randint(len(images), (settings.autoencoder_batch,), generator=picks)])
        noise = torch.randn(len(batch), CHANNELS, LATENT, LATENT, generator=picks)
        loss = gradients(losses, parameters, len(batch))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        total = 0.98 * total + 0.02 * loss if step else loss
        if step % 200 == 0 or step == steps - 1:
            say(f"autoencoder {step + 1}/{steps} loss {total:.4f} {time.perf_counter() - start:.0f} s")
    model.eval()
    with torch.no_grad():
        latents = encode(model, images[:4096])
        mean = latents.mean((0, 2, 3))
        model.quant_conv.bias[:CHANNELS] -= mean
        model.post_quant_conv.bias += model.post_quant_conv.weight[:, :, 0, 0] @ mean
    std = (latents - mean.view(1, -1, 1, 1)).std().item()
    model.register_to_config(scaling_factor=1 / std)
    return model


@torch.no_grad()
def encode(model: AutoencoderKL, images: Tensor) -> Tensor:
    """Mean latents, not yet scaled: float32 [N, 6, 8, 8]."""
    return torch.cat([model.encode(to_unit(part)).latent_dist.mode() for part in images.split(500)])


def train_denoiser(
    latents: Tensor,
    texts: list[str],
    settings: BuildSettings,
    say: Callable[[str], None] = print,
    snapshot: Callable[[CLIPTextModel, UNet2DConditionModel], None] | None = None,
    number: int = 0,
    before: tuple[CLIPTextModel, UNet2DConditionModel] | None = None,
) -> tuple[CLIPTextModel, UNet2DConditionModel, list[dict]]:
    """Text encoder and UNet (running averages of both) that predict the noise in scaled latents [N, 6, 8, 8], and the
    loss every 100 steps. `snapshot` sees the averages every 1,000 steps.
    Round `number` goes on from the models `before`."""
    torch.manual_seed(settings.seed + 10 * number + 3)
    text_encoder, unet = before or (make_text_encoder(), make_unet())
    text_encoder.train(), unet.train()
    live = torch.nn.ModuleList([text_encoder, unet])
    share = settings.later_share**number
    averages = torch.nn.ModuleList([make_text_encoder(), make_unet()]).eval()
    averages.load_state_dict(live.state_dict())
    pairs = list(zip(averages.parameters(), live.parameters(), strict=True))
    optimizer = torch.optim.AdamW(live.parameters(), lr=settings.rate * share, weight_decay=settings.weight_decay)
    tokens = token_table()
    rows = {text: row for row, text in enumerate(words.captions())}
    captions = torch.tensor([rows[text] for text in texts])
    alphas = make_scheduler().alphas_cumprod
    weights = (settings.snr_limit * (1 - alphas) / alphas).clamp(max=1)  # min(SNR, gamma) / SNR, for epsilon
    g = torch.Generator().manual_seed(settings.seed + 10 * number + 4)
    parameters, gradients = list(live.parameters()), make_gradients(settings.workers)

    def losses(part: Tensor) -> Tensor:
        guess = unet(noisy[part], t[part], text_encoder(tokens[caption])[0][back[part]]).sample
        return weights[t[part]] * (guess - noise[part]).square().mean((1, 2, 3))

    start, total, history = time.perf_counter(), 0.0, []
    steps = math.ceil(settings.steps * share)
    warm_up = min(settings.warm_up, steps // 4)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * share * learning_rate(step, steps, warm_up)
        pick = torch.randint(len(latents), (settings.batch,), generator=g)
        dropped = torch.rand(settings.batch, generator=g) < settings.caption_dropout
        caption, back = torch.where(dropped, 0, captions[pick]).unique(return_inverse=True)
        noise = torch.randn(settings.batch, *latents.shape[1:], generator=g)
        t = torch.randint(len(alphas), (settings.batch,), generator=g)
        a = alphas[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * latents[pick] + (1 - a).sqrt() * noise
        loss = gradients(losses, parameters, settings.batch)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay = min(settings.ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_([a for a, _ in pairs], [b.data for _, b in pairs], 1 - decay)
        total = 0.98 * total + 0.02 * loss if step else loss
        if step % 100 == 99 or step == steps - 1:
            history.append({"round": number, "step": step + 1, "loss": round(total, 5)})
            say(f"denoiser {step + 1}/{steps} loss {total:.4f} {time.perf_counter() - start:.0f} s")
        if snapshot and step % 1000 == 499:
            snapshot(averages[0], averages[1])
    return averages[0], averages[1], history


def token_table() -> Tensor:
    """Token ids int64 [captions, MAX_TOKENS] of `words.captions()`, as the pipeline makes them."""
    tokenizer = words.make_tokenizer()
    return tokenizer(words.captions(), padding="max_length", truncation=True, return_tensors="pt").input_ids


def build(outdir: Path, settings: BuildSettings, say: Callable[[str], None] = print) -> dict:
    """Corpus, autoencoder, denoiser -> `outdir/weights`; the record is returned and written as weights_record.json."""
    torch.set_num_threads(1)  # see `workers`
    begun, seconds = time.time(), {}

    def timed(name: str, function: Callable, *arguments) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        seconds[name] = round(time.perf_counter() - start, 1)
        return result

    corpus = timed("corpus", draw_glyphs, settings.glyphs, settings.seed, TRAINING_FONTS)
    stage = outdir / "stage"  # what is trained so far: an interrupted build goes on from here
    done = {"settings": asdict(settings), "trained": [], "seconds": {}, "loss": []}
    if (stage / "stage.json").exists():
        found = json.loads((stage / "stage.json").read_text(encoding="utf-8"))
        done = found if found["settings"] == done["settings"] else done
    autoencoder = AutoencoderKL.from_pretrained(stage / "vae").eval() if done["trained"] else None
    denoiser = None
    if len(done["trained"]) > 1:
        text_encoder = CLIPTextModel.from_pretrained(stage / "text_encoder")
        denoiser = text_encoder, UNet2DConditionModel.from_pretrained(stage / "unet")

    def finish(name: str) -> None:
        done["trained"].append(name)
        done["seconds"] |= seconds
        (stage / "stage.json").write_text(json.dumps(done), encoding="utf-8")

    def show(text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        save_weights(outdir / "weights", autoencoder, text_encoder, unet)  # so that a long run shows something early

    for number in range(settings.rounds):
        name = f"autoencoder_{number}"
        if name not in done["trained"]:
            autoencoder = timed(name, train_autoencoder, corpus.images, settings, say, number, autoencoder)
            autoencoder.save_pretrained(stage / "vae")
            finish(name)
        name = f"denoiser_{number}"
        if name not in done["trained"]:
            latents = encode(autoencoder, corpus.images) * autoencoder.config.scaling_factor
            texts = corpus.captions
            *denoiser, loss = timed(name, train_denoiser, latents, texts, settings, say, show, number, denoiser)
            done["loss"] += loss
            for part, folder in zip(denoiser, ("text_encoder", "unet"), strict=True):
                part.save_pretrained(stage / folder)
            finish(name)
    text_encoder, unet = denoiser
    show(text_encoder, unet)
    shutil.rmtree(stage)
    parts = {"unet": unet, "text_encoder": text_encoder, "autoencoder": autoencoder}
    record = {
        "settings": asdict(settings),
        "fonts": {"training": TRAINING_FONTS, "held_out": HELD_OUT_FONTS, "credit": "bundled with matplotlib"},
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "bytes": sum(file.stat().st_size for file in (outdir / "weights").rglob("*") if file.is_file()),
        "denoiser_loss": done["loss"],
        "seconds": seconds | done["seconds"],
        "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "versions": versions(),
        "machine": {"system": platform.system(), "processor": platform.machine(), "cpus": os.cpu_count()},
    }
    (outdir / "weights_record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that the weights depend on."""
    from importlib.metadata import version

    names = ("torch", "diffusers", "transformers", "tokenizers", "matplotlib", "pillow", "numpy", "scipy")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in names}
