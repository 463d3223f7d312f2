#!/usr/bin/env python
"""Storage: bytes an image in the shards of the paper's experiment, measured on real images of its sizes.

Images: Stable Diffusion v1.4's of the CIFAR-10 classes at 32 pixels (CIFAKE, Bird and Lotfi 2023), EuroSAT's photographs at
64 pixels. Rows: the paper's own plan, with every column that a shard has.
"""

import argparse
import hashlib
import io
import os
import sys
from pathlib import Path
from typing import Any

from measure import arguments, described, heading, positive, report, significant

SETS = {"32": ("cifake_sd14_15k.npz", "cifar10"), "64": ("eurosat_real_1500.npz", "eurosat")}
LATENT_SHAPE = (4, 64, 64)  # of an image of 512 pixels


def options() -> argparse.Namespace:
    parser = arguments(__doc__.splitlines()[0])
    folder = os.environ.get("SYNTHLIB_TEST_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(folder), help="folder of the packed image sets")
    parser.add_argument("--rows", type=positive, default=1000, help="images in a shard")
    parser.add_argument("--images", type=positive, default=15_000, help="images of each set, at most")
    given = parser.parse_args()
    missing = [name for name, _ in SETS.values() if not (given.data / name).is_file()]
    if missing:
        parser.error(f"no {' or '.join(missing)} in {given.data}; give their folder with --data or $SYNTHLIB_TEST_DATA")
    return given


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Bytes an image by size in pixels: its PNG alone, and its whole share of a shard, without and with latents."""
    sizes = {pixels: one(given, given.data / name, dataset) for pixels, (name, dataset) in SETS.items()}
    settings = {"rows_per_shard": given.rows, "experiment": "paper", "trick": "multi_domain", "compression": "zstd"}
    return described("bench_storage", settings) | {
        "sizes": sizes,
        "notes": [
            "png: mean PNG bytes; shard: bytes of whole shards over images, every column included. The images were JPEG files "
            "before, so PNGs of freshly drawn ones may be of another size.",
            "latents: what float16 latents of 512 pixels add to a shard, measured with standard normal numbers.",
        ],
    }


def one(given: argparse.Namespace, file: Path, dataset: str) -> dict[str, Any]:
    """Bytes an image of one packed set, in shards of the paper's multi-domain plan of `dataset`, which has its longest rows."""
    import numpy as np

    from synthlib.data.shards import encode_png

    images = read_packed(file, given.images)
    pngs = [encode_png(image) for image in images]
    pieces = [slice(first, first + given.rows) for first in range(0, len(images), given.rows)]
    sizes = [shard_size(dataset, images[piece], pngs[piece], piece.start) for piece in pieces]
    first = len(images[pieces[0]])
    noise = np.random.default_rng(0).standard_normal((first, *LATENT_SHAPE)).astype(np.float16)
    with_latents = shard_size(dataset, images[:first], pngs[:first], 0, [latent.tobytes() for latent in noise])
    return {
        "source": file.name,
        "n": len(images),
        "shards": len(sizes),
        "pixels": list(images.shape[1:3]),
        "png_bytes": significant(sum(map(len, pngs)) / len(images)),
        "shard_bytes": significant(sum(sizes) / len(images)),
        "latents_bytes": significant((with_latents - sizes[0]) / first),
    }


def shard_size(dataset: str, images: Any, pngs: list[bytes], first: int, latents: list[bytes] | None = None) -> int:
    """Bytes of a shard that holds these images, as the rows from `first` on of the paper's plan."""
    from synthlib.costly import FileKey
    from synthlib.data.datasets import read_spec
    from synthlib.generation.generate import Plan, _shard_bytes
    from synthlib.generation.paint import Encoded
    from synthlib.generation.resize import filter_name
    from synthlib.runs.experiment import read_experiment
    from synthlib.runs.steps import plan_steps
    from synthlib.settings import GenerateSettings

    steps = {step.name: step for step in plan_steps(read_experiment("paper"))}
    parameters = steps[f"01_generate/{dataset}-multi_domain"].parameters
    settings = GenerateSettings(**parameters | {"keep_latents": latents is not None})
    records = {  # as open_plan makes them, which would fetch the model
        "model": settings.model,
        "revision": settings.revision,
        "scheduler": "DDIM, eta 0, leading timesteps, offset 1",
        "num_inference_steps": settings.num_inference_steps,
        "precision": "float16",
        "device": "NVIDIA A100-SXM4-80GB",
        "batch_size": settings.batch_size,
        "resize": filter_name(settings.resize),
    }
    plan = Plan(settings, read_spec(dataset), Path(), FileKey("shards", "", ""), records)
    encoded = [
        Encoded(png, hashlib.sha256(image.tobytes()).hexdigest(), None, latent)
        for png, image, latent in zip(pngs, images, latents or [None] * len(pngs), strict=True)
    ]
    return len(_shard_bytes(plan, plan.rows(first, first + len(encoded)), encoded))


def read_packed(file: Path, images: int) -> Any:
    """Up to `images` images of a packed set, uint8 [N, H, W, 3], evenly over the set."""
    import numpy as np
    from PIL import Image

    packed = np.load(file, allow_pickle=False)
    offsets, encoded = packed["offsets"], packed["encoded"].tobytes()
    chosen = np.linspace(0, len(offsets) - 2, min(images, len(offsets) - 1)).astype(int)
    opened = (Image.open(io.BytesIO(encoded[offsets[i] : offsets[i + 1]])) for i in chosen)
    return np.stack([np.asarray(image.convert("RGB")) for image in opened])


def table(result: dict[str, Any]) -> str:
    lines = [heading(result), f"{'pixels':>6} {'n':>6} {'PNG':>7} {'in a shard':>10} {'latents':>8}  bytes an image"]
    for pixels, found in result["sizes"].items():
        lines.append(
            f"{pixels:>6} {found['n']:6d} {found['png_bytes']:7.0f} {found['shard_bytes']:10.0f} {found['latents_bytes']:8.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    given = options()
    print(f"reading {given.data}", file=sys.stderr)
    report(lambda: measure(given), table, given.json)
