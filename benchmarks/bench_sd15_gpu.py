#!/usr/bin/env python
"""Stable Diffusion v1 at 512 pixels on a GPU: images a second by batch size through our own sampler. No download.

Speed does not depend on the weights, so UNet and VAE are of Stable Diffusion v1's sizes with random weights, and the text
embeddings are random too. Nothing it draws is a picture.
"""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import arguments, described, heading, positive, report, significant, summary

# TFLOP of one image: a UNet pass, and decoding its latents (counted with torch's FLOP counter; 66.8 in all at 40 steps).
UNET_TFLOP, VAE_TFLOP = 0.803, 2.51
# Dense half-precision peaks of the tensor cores, TFLOP/s, from NVIDIA's data sheets (where a sheet gives only the figure with
# sparsity: half of it). The first name that is part of the device's name counts, so the longer names come first.
PEAK_TFLOPS = {
    "H200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,  # SXM: "NVIDIA H100 80GB HBM3"
    "A100": 312,
    "A10G": 70,  # AWS's variant: fewer tensor operations a second than an A10
    "A10": 125,
    "L40S": 362,
    "L4": 121,
    "V100": 125,
    "T4": 65,
}
TOY_UNET = {"sample_size": 8, "block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 64, "layers_per_block": 1}
TOY_VAE = {"sample_size": 64, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
TOKENS = 77


def options() -> argparse.Namespace:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--steps", type=positive, default=40, help="DDIM steps")
    parser.add_argument("--batches", type=positive, nargs="+", default=[1, 2, 4, 8, 16, 32], help="batch sizes")
    parser.add_argument("--repeats", type=positive, default=3, help="timed batches of each variant and size")
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled UNet out, which takes minutes")
    parser.add_argument("--toy", action="store_true", help="tiny networks on any device: proves that the script runs")
    return parser.parse_args()


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Every variant at every batch size, until memory runs out."""
    import torch
    from diffusers.utils import logging

    from synthlib.devices import TORCH_TYPES, device_named, precision_for
    from synthlib.generation import checkpoints

    logging.set_verbosity_error()  # it warns of casting networks with .to(), also where nothing is lost
    device = device_named("auto")
    cuda = device.type == "cuda"
    precision = precision_for(device.type, "auto", True)
    if cuda:
        torch.backends.cudnn.allow_tf32 = False  # as open_checkpoint sets it
    model = random_checkpoint(given.toy, device, torch.float32)
    parameters = {part: sum(x.numel() for x in getattr(model, part).parameters()) for part in ("unet", "vae")}
    rows = []

    def run(variant: str, checkpoint: Any, batches: list[int], around: Callable[[], Any] = nullcontext) -> None:
        for batch in batches:
            print(f"{variant}, batch {batch}", file=sys.stderr)
            rows.append({"variant": variant, "batch": batch} | one(given, checkpoint, batch, around))
            if rows[-1].get("out_of_memory"):
                return

    # The authors' script (CompVis's txt2img): batches of 2, float32 weights under autocast, neither compiled nor channels_last.
    # Autocast keeps its float16 copies of weights only where these are to be trained, as theirs.
    model.unet.requires_grad_(True)
    run("autocast", model, [2], (lambda: torch.autocast("cuda", torch.float16)) if cuda else nullcontext)
    model.unet.requires_grad_(False)
    for part in (model.unet, model.vae):
        part.to(TORCH_TYPES[precision])
    run("half", model, [2])
    for part in (model.unet, model.vae) if cuda else ():
        part.to(memory_format=torch.channels_last)
    batches = sorted(set(given.batches))
    run("eager", model, batches)
    if cuda and not given.no_compile:
        checkpoints._compile(model.unet)
        run("compiled", replace(model, compiled=True), batches)

    settings = {"steps": given.steps, "batches": batches, "repeats": given.repeats, "precision": precision}
    settings |= {"pixels": [model.height, model.width], "channels_last": cuda, "device": device.type}
    return described("bench_sd15_gpu", settings) | summed_up(given, rows) | {
        "toy": given.toy,
        "parameters": parameters,
        "compiled": "measured" if cuda and not given.no_compile else "not run: " + ("asked not to" if cuda else "no GPU"),
        "rows": rows,
        "notes": [
            "Random weights and text embeddings of the model's sizes; one guidance per image, uniform in [1, 5], none 1.",
            "eager, compiled: half precision (on a CPU float32), on a GPU channels_last; half: without channels_last.",
            "autocast: float32 weights under autocast, batch 2, as the authors' script calls CompVis's code; here with today's "
            "PyTorch, whose fused attention their code of 2022 did not have.",
            "seconds: noise to uint8 pixels on the CPU, one batch; split: one further batch, the device waited for after each "
            "call of a network, so its sum may exceed the median.",
        ],
    }  # fmt: skip


def random_checkpoint(toy: bool, device: Any, dtype: Any) -> Any:
    """A Checkpoint of Stable Diffusion v1's sizes (or tiny), its weights small normals from a fixed seed."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from synthlib.generation.checkpoints import Checkpoint
    from synthlib.generation.single_file import SD_V1_UNET, SD_V1_VAE

    unet_sizes, vae_sizes = SD_V1_UNET | (TOY_UNET if toy else {}), SD_V1_VAE | (TOY_VAE if toy else {})
    with torch.device(device):
        unet, vae = UNet2DConditionModel(**unet_sizes), AutoencoderKL(**vae_sizes)
    generator = torch.Generator(device=device).manual_seed(0)
    for network in (unet, vae):
        network.to(dtype).eval().requires_grad_(False)
        for name, tensor in network.named_parameters():
            # 0.02: a sum over a layer's thousand inputs stays near 1, so float16 does not overflow
            if tensor.ndim > 1:
                tensor.normal_(0, 0.02, generator=generator)
            else:
                tensor.fill_(1 if name.endswith("weight") else 0)
    side = vae_sizes["sample_size"]
    return Checkpoint(Path(), None, torch.nn.Identity(), unet, vae, device, side, side)


def one(given: argparse.Namespace, checkpoint: Any, batch: int, around: Callable[[], Any]) -> dict[str, Any]:
    """Images a second of a variant at a batch size, its memory, and where the time goes."""
    import torch

    from synthlib.generation.noise import initial_noise
    from synthlib.generation.sampler import decode, denoise, latent_shape

    device, cuda = checkpoint.device, checkpoint.device.type == "cuda"
    generator = torch.Generator().manual_seed(1)
    width = checkpoint.unet.config.cross_attention_dim
    text = torch.randn([batch, TOKENS, width], generator=generator).to(device)
    no_text = torch.randn([1, TOKENS, width], generator=generator).to(device)
    guidance = 1 + 4 * torch.rand(batch, generator=generator).clamp(min=0.01)
    shape = latent_shape(checkpoint, checkpoint.height, checkpoint.width)

    def draw(model: Any, steps: int) -> float:
        """Seconds of one batch; the pixels' way to the CPU waits for the GPU."""
        start = time.perf_counter()
        with around():
            noise = initial_noise(list(range(batch)), shape)
            latents = denoise(model, text, no_text, guidance, noise, steps)
            decode(model.vae, latents)
        seconds = time.perf_counter() - start
        if not latents.isfinite().all():
            raise SystemExit(
                f"batch {batch}: latents overflowed; smaller random weights are needed in random_checkpoint."
            )
        return seconds

    try:
        for _ in range(2):  # compiles, chooses kernels, grows the memory pool
            draw(checkpoint, min(2, given.steps))
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = [draw(checkpoint, given.steps) for _ in range(given.repeats)]
        peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
        timed = replace(checkpoint, unet=Timed(checkpoint.unet, device), vae=Timed(checkpoint.vae, device))
        whole = draw(timed, given.steps)
    except (torch.OutOfMemoryError, MemoryError):
        if cuda:
            torch.cuda.empty_cache()
        return {"out_of_memory": True}
    split = {"unet": timed.unet.seconds, "vae": timed.vae.seconds}
    split["rest"] = max(whole - sum(split.values()), 0.0)
    speeds = summary([batch / x for x in seconds])
    tflops = None if given.toy else significant(speeds["median"] * (2 * given.steps * UNET_TFLOP + VAE_TFLOP))
    peak_tflops = peak_of(torch.cuda.get_device_name(device)) if cuda and not given.toy else None
    return {
        "images_per_second": speeds["median"],
        "spread": speeds,
        "seconds": summary(seconds),
        "tflop_per_second": tflops,
        "share_of_peak": significant(tflops / peak_tflops) if tflops and peak_tflops else None,
        "peak_memory_gib": None if peak is None else significant(peak),
        "split_seconds": {name: significant(value) for name, value in split.items()},
    }


class Timed:
    """A network whose calls are timed, with the device waited for after each; else the network itself."""

    def __init__(self, network: Any, device: Any) -> None:
        self.network, self.device, self.seconds = network, device, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self._time(self.network, given, named)

    def decode(self, *given: Any, **named: Any) -> Any:
        return self._time(self.network.decode, given, named)

    def _time(self, call: Callable[..., Any], given: tuple, named: dict) -> Any:
        import torch

        wait = torch.cuda.synchronize if self.device.type == "cuda" else lambda: None
        wait()
        start = time.perf_counter()
        result = call(*given, **named)
        wait()
        self.seconds += time.perf_counter() - start
        return result


def peak_of(device_name: str) -> float | None:
    """Dense half-precision peak of a card, TFLOP/s; None where PEAK_TFLOPS does not know it."""
    words = f" {device_name.replace('-', ' ')} "
    return next((peak for name, peak in PEAK_TFLOPS.items() if f" {name} " in words), None)


def summed_up(given: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The best of our settings, its ratio to the authors', and which part takes the time."""
    fits = [row for row in rows if not row.get("out_of_memory")]
    ours = [row for row in fits if row["variant"] in ("eager", "compiled")]
    if not ours:
        raise SystemExit("not even the smallest batch fits this GPU's memory; give --batches 1, or use a larger card.")
    best = max(ours, key=lambda row: row["images_per_second"])
    speeds = {row["variant"]: row["images_per_second"] for row in fits if row["variant"] in ("autocast", "half")}
    return {
        "best": {name: best[name] for name in ("variant", "batch", "images_per_second", "share_of_peak")},
        "ratio_vs_authors_setting": ratio(best["images_per_second"], speeds.get("autocast")),
        "ratio_vs_half_batch_2": ratio(best["images_per_second"], speeds.get("half")),
        "limit": sentence(best, given.toy),
    }


def ratio(ours: float, theirs: float | None) -> float | None:
    return significant(ours / theirs) if theirs else None


def sentence(best: dict[str, Any], toy: bool) -> str:
    """Which part takes most of the time at the best batch, in words."""
    split = best["split_seconds"]
    shares = {name: 100 * value / sum(split.values()) for name, value in split.items()}
    names = {"unet": "the UNet", "vae": "the VAE", "rest": "the rest (noise, DDIM updates, copies)"}
    order = sorted(shares, key=shares.get, reverse=True)
    parts = ", ".join(f"{names[name]} {shares[name]:.0f} %" for name in order)
    peak = (
        f", at {100 * best['share_of_peak']:.0f} % of the card's dense half-precision peak"
        if best["share_of_peak"]
        else ""
    )
    start = "Toy networks, which say nothing of Stable Diffusion: at" if toy else "At"
    return (
        f"{start} the best batch ({best['batch']}, {best['variant']}) most of the time goes to {names[order[0]]}{peak}; "
        f"shares: {parts}."
    )


def table(result: dict[str, Any]) -> str:
    lines = [heading(result) + (" (toy networks)" if result["toy"] else "")]
    lines.append(
        f"{'variant':10} {'batch':>5} {'images/s':>9} {'TFLOP/s':>8} {'of peak':>8} {'GiB':>6}  UNet / VAE / rest, s"
    )
    for row in result["rows"]:
        if row.get("out_of_memory"):
            lines.append(f"{row['variant']:10} {row['batch']:5d} out of memory")
            continue
        values = [row["tflop_per_second"], row["share_of_peak"], row["peak_memory_gib"]]
        tflops, share, memory = ("-" if value is None else f"{value:.2f}" for value in values)
        split = " / ".join(f"{value:.3f}" for value in row["split_seconds"].values())
        speed = row["images_per_second"]
        lines.append(f"{row['variant']:10} {row['batch']:5d} {speed:9.3f} {tflops:>8} {share:>8} {memory:>6}  {split}")
    for name in ("ratio_vs_authors_setting", "ratio_vs_half_batch_2"):
        lines.append(f"{name}: {'not measured' if result[name] is None else format(result[name], '.2f')}")
    return "\n".join([*lines, result["limit"]])


def main() -> None:
    given = options()
    import torch

    if not given.toy and not torch.cuda.is_available():
        sys.exit(
            "bench_sd15_gpu measures a CUDA GPU, and torch finds none here; run it on one, or prove the script with --toy."
        )
    report(lambda: measure(given), table, given.json)


if __name__ == "__main__":
    main()
