#!/usr/bin/env python
"""The sampler on a CPU, with the embedded model: ours against diffusers' StableDiffusionPipeline, batched and in a loop.

All draw the same rows of a plan with the same checkpoint and number of steps. Ours takes one guidance per image; the pipeline
takes one for all ("batched"), or one image a call ("loop"), which is how its user would give each image its own.
"""

import argparse
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from measure import Job, alternate, arguments, described, heading, positive, ratios, report, significant, summary

COMPARED = {  # ratio -> (what is slower, we say; what is faster)
    "ratio_vs_batched": ("pipeline_batched", "ours"),
    "ratio_vs_loop": ("pipeline_loop", "ours"),
    "ratio_one_fifth_guidance_1": ("ours", "ours_one_fifth_guidance_1"),
}


def options() -> argparse.Namespace:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--batch", type=positive, default=30, help="images drawn at once")
    parser.add_argument("--steps", type=positive, default=20, help="DDIM steps")
    parser.add_argument("--repeats", type=positive, default=7, help="rounds; each runs every variant once")
    parser.add_argument("--threads", type=positive, default=2, help="CPU threads of torch")
    parser.add_argument(
        "--loop-images", type=positive, default=5, help="images of the loop, scaled to seconds an image"
    )
    parser.add_argument("--guidance", type=float, default=7.5, help="the batched pipeline's one guidance")
    return parser.parse_args()


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each variant, alternating, and their ratios."""
    import torch

    from synthlib.generation import sampler
    from synthlib.generation.checkpoints import Checkpoint, encode_prompts, open_checkpoint
    from synthlib.generation.generate import open_plan
    from synthlib.generation.noise import initial_noise
    from synthlib.runs.experiment import complete
    from synthlib.settings import GenerateSettings

    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    model = open_checkpoint("", device="cpu")
    assert isinstance(model, Checkpoint)
    size = (model.height, model.width)
    with tempfile.TemporaryDirectory() as folder:
        planned = {"run_dir": folder, "trick": "random_guidance", "images_per_class": given.batch, "device": "cpu"}
        rows = open_plan(GenerateSettings(**complete("01_generate", planned))).rows(0, given.batch)
    seeds, prompts = rows["seed"].to_pylist(), rows["prompt"].to_pylist()
    guidance = torch.from_numpy(rows["guidance_scale"].to_numpy().copy())
    assert (guidance > 1).all() and (guidance <= 5).all() and len(set(prompts)) == 1
    fifth = guidance.clone()
    fifth[: max(1, given.batch // 5)] = 1
    # As the painter does: each prompt is encoded once, and a batch picks its rows.
    text = dict(zip(["", prompts[0]], encode_prompts(model, ["", prompts[0]]).split(1), strict=True))
    pipeline = open_pipeline(model.folder)

    def ours(scale: torch.Tensor) -> torch.Tensor:
        texts = torch.cat([text[prompt] for prompt in prompts])
        return sampler.draw(model, texts, text[""], scale, seeds, given.steps, *size)

    def theirs(images: int, scale: float, **more: torch.Tensor) -> torch.Tensor:
        drawn = pipeline(
            prompts[0],
            *size,
            num_inference_steps=given.steps,
            guidance_scale=scale,
            num_images_per_prompt=images,
            output_type="np",
            **more,
        )
        return torch.from_numpy(drawn.images)

    def loop() -> None:
        for scale in guidance[: given.loop_images].tolist():
            theirs(1, scale)

    jobs: dict[str, Job] = {
        "ours": lambda: ours(guidance),
        "pipeline_batched": lambda: theirs(given.batch, given.guidance),
        "pipeline_loop": loop,
        "ours_one_fifth_guidance_1": lambda: ours(fifth),
    }
    passes = {name: unet_images(model.unet, jobs[name]) for name in ("ours", "ours_one_fifth_guidance_1")}
    noise = initial_noise(seeds, sampler.latent_shape(model, *size))
    same = theirs(given.batch, given.guidance, latents=noise).mul(255).round()
    mine = ours(torch.full_like(guidance, given.guidance)).float()

    seconds, cpu_seconds = alternate(jobs, given.repeats)
    images = dict.fromkeys(jobs, given.batch) | {"pipeline_loop": min(given.loop_images, given.batch)}
    each = {name: [x / images[name] for x in values] for name, values in seconds.items()}  # seconds an image
    cpu = {name: [x / images[name] for x in values] for name, values in cpu_seconds.items()}
    over = {name: ratios(each[slow], each[fast]) for name, (slow, fast) in COMPARED.items()}
    settings = {name: value for name, value in vars(given).items() if name != "json"} | {
        "model": "embedded",
        "pixels": list(size),
        "precision": "float32",
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "guidance_of_ours": "uniform in [1, 5], one per image",
        "scheduler": "DDIM, eta 0, leading timesteps, offset 1",
    }
    return described("bench_sampler", settings) | {
        "images_per_second": {name: summary([1 / x for x in values]) for name, values in each.items()},
        "seconds_per_image": {name: summary(values) for name, values in each.items()},
        **{name: value["median"] for name, value in over.items()},
        "expected_ratio_one_fifth_guidance_1": significant(passes["ours"] / passes["ours_one_fifth_guidance_1"]),
        "ratios": over,
        "ratios_of_fastest": {
            name: significant(min(each[slow]) / min(each[fast])) for name, (slow, fast) in COMPARED.items()
        },
        "ratios_of_cpu_time": {name: ratios(cpu[slow], cpu[fast]) for name, (slow, fast) in COMPARED.items()},
        "largest_difference_to_pipeline": int((same - mine).abs().max()),
        "notes": [
            "A ratio is the median over rounds of seconds an image, theirs over ours, within one round; ratios_of_fastest "
            "compare the fastest rounds, ratios_of_cpu_time the CPU seconds, which other work on the machine disturbs less.",
            f"The loop draws {images['pipeline_loop']} images, one a call, each with its own guidance; scaled to one image.",
            "The batched pipeline encodes its prompt once for the whole batch (num_images_per_prompt).",
            "The expected saving counts images through the UNet; largest difference: of 255, same noise and guidance.",
        ],
    }


def open_pipeline(folder: Path) -> Any:
    """diffusers' pipeline of the same folder, with our noise schedule, no safety checker and no progress bar."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    from synthlib.generation.checkpoints import DDIM

    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    pipeline.scheduler = DDIMScheduler(**DDIM)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def unet_images(unet: Any, job: Job) -> int:
    """How many images go through the UNet in a job, each step and each pass counted."""
    seen: list[int] = []
    hook = unet.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    job()
    hook.remove()
    return sum(seen)


def table(result: dict[str, Any]) -> str:
    lines = [heading(result), f"{'variant':28} {'images/s':>10} {'min':>8} {'max':>8}"]
    for name, found in result["images_per_second"].items():
        lines.append(f"{name:28} {found['median']:10.2f} {found['min']:8.2f} {found['max']:8.2f}")
    for name, found in result["ratios"].items():
        lines.append(f"{name:28} {found['median']:10.2f} {found['min']:8.2f} {found['max']:8.2f}")
    cpu = ", ".join(f"{found['median']:.2f}" for found in result["ratios_of_cpu_time"].values())
    lines.append(f"the same ratios of CPU time: {cpu}")
    fastest = ", ".join(f"{value:.2f}" for value in result["ratios_of_fastest"].values())
    lines.append(f"the same ratios of the fastest rounds: {fastest}")
    expected = result["expected_ratio_one_fifth_guidance_1"]
    lines.append(f"ratio_one_fifth_guidance_1 expected from the number of UNet passes: {expected:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    given = options()
    report(lambda: measure(given), table, given.json)
