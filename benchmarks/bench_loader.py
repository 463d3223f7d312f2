#!/usr/bin/env python
"""Training batches of 32 px images: ours from memory against a loader that opens a PNG file for each item, as the authors' does.

Theirs, re-created: torchvision's ImageFolder over class folders of RGBA PNG files, its transforms image by image, torch's
DataLoader in this process. Ours: uint8 tensors, decoded once, and one draw per image applied to whole batches. The images are
made here; both read the same files and give float32 batches of the same shape, with labels, on the same device.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import Job, alternate, arguments, described, heading, positive, ratios, report, significant, summary

SIZE, CLASSES = 32, 10  # pixels and classes of CIFAR-10
CROP_SCALE_MIN, FLIP = 0.08, 0.5  # torchvision's defaults, which the authors' code leaves as they are
EPOCHS = 50  # of the authors' code: how often what is decoded once is used


def options() -> argparse.Namespace:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--images", type=positive, default=5000, help="images, in equal classes")
    parser.add_argument("--batch", type=positive, default=64, help="images in a batch")
    parser.add_argument(
        "--repeats", type=positive, default=7, help="rounds; each runs an epoch of both and decodes all once"
    )
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of torch")
    parser.add_argument("--device", default="auto", help="where batches are wanted: auto, cpu or cuda")
    return parser.parse_args()


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds an epoch of both, alternating, and of decoding all images once."""
    import torch

    from synthlib.devices import device_named

    device = device_named(given.device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)  # the order and the random crops of theirs
    with tempfile.TemporaryDirectory() as folder:
        png_bytes = write_images(Path(folder), given.images)
        images, labels = decoded(Path(folder), device)
        loader, generator = per_item_loader(Path(folder), given.batch), torch.Generator().manual_seed(0)

        def epoch(batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> None:
            n = 0
            for batch, classes in batches:
                assert batch.shape == (len(classes), 3, SIZE, SIZE) and batch.dtype == torch.float32
                n += len(classes)
            wait()
            assert n == given.images

        def moments(batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
            values = torch.cat([batch for batch, _ in batches])
            return [significant(values.mean().item()), significant(values.std().item())]

        ways = {
            "ours": lambda: our_batches(images, labels, given.batch, generator),
            "per_item": lambda: per_item_batches(loader, device),
        }
        seen = {name: moments(batches()) for name, batches in ways.items()}
        jobs: dict[str, Job] = {name: lambda name=name: epoch(ways[name]()) for name in ways}
        jobs["decode_once"] = lambda: (decoded(Path(folder), device), wait())
        seconds, cpu_seconds = alternate(jobs, given.repeats)
    whole = {  # all epochs of a training, ours with what it decodes before
        "ours": [EPOCHS * a + b for a, b in zip(seconds["ours"], seconds["decode_once"], strict=True)],
        "per_item": [EPOCHS * a for a in seconds["per_item"]],
    }
    over = {
        "ratio_vs_per_item": ratios(seconds["per_item"], seconds["ours"]),
        f"ratio_over_{EPOCHS}_epochs_with_decoding": ratios(whole["per_item"], whole["ours"]),
    }
    settings = {name: value for name, value in vars(given).items() if name not in ("json", "device")}
    settings |= {"device": device.type, "pixels": SIZE, "classes": CLASSES, "num_workers": 0, "epochs": EPOCHS}
    return described("bench_loader", settings) | {
        **{name: found["median"] for name, found in over.items()},
        "seconds_to_decode_once": significant(summary(seconds["decode_once"])["median"]),
        "images_per_second": {name: summary([given.images / x for x in seconds[name]]) for name in ways},
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "ratios": over,
        "ratio_of_cpu_time": ratios(cpu_seconds["per_item"], cpu_seconds["ours"]),
        "ratio_of_fastest": significant(min(seconds["per_item"]) / min(seconds["ours"])),
        "mean_and_std_of_batches": seen,
        "png_bytes": significant(png_bytes),
        "notes": [
            "A ratio is the median over rounds of seconds an epoch, theirs over ours, within one round; ratio_of_fastest "
            "compares the fastest rounds, ratio_of_cpu_time the CPU seconds, which other work on the machine disturbs less.",
            "The files are in the page cache. Decoding once is what ours does before its first epoch; the main ratio leaves it "
            f"out, ratio_over_{EPOCHS}_epochs_with_decoding has it in.",
            "Theirs resizes with PIL, which smooths where it shrinks; ours is torchvision's of tensors without antialiasing: of "
            "32 px crops, which are never shrunk, the same.",
        ],
    }


def write_images(folder: Path, n: int) -> float:
    """Write n smooth patterns with some noise as RGBA PNG files below <folder>/<class>/; bytes a file, on average."""
    import numpy as np
    from PIL import Image

    random, size = np.random.default_rng(0), 0
    for number in range(n):
        coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float32)
        pixels = (smooth + random.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)
        opaque = np.full((SIZE, SIZE, 1), 255, dtype=np.uint8)
        file = folder / f"class_{number % CLASSES}" / f"{number:06d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.concatenate([pixels, opaque], axis=2)).save(file)
        size += file.stat().st_size
    return size / n


def decoded(folder: Path, device: Any) -> tuple[Any, Any]:
    """All images as load_shards has them, uint8 [N, 3, S, S], and their labels int64 [N], on the device."""
    import numpy as np
    import torch

    from synthlib.data.shards import decode_image

    names = sorted(path.name for path in folder.iterdir())
    files = [(file, label) for label, name in enumerate(names) for file in sorted((folder / name).iterdir())]
    images = np.stack([decode_image(file.read_bytes()) for file, _ in files])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return pixels.to(device), torch.tensor([label for _, label in files]).to(device)


def our_batches(images: Any, labels: Any, batch_size: int, generator: Any) -> Iterator[tuple[Any, Any]]:
    """An epoch's batches as training/train.py makes them: an order and all draws, then batch by batch."""
    import torch

    from synthlib.training.augment import Preparation, batches

    preparation = Preparation("resized_crop", SIZE, "imagenet")
    order = torch.randperm(len(images), generator=generator)
    drawn = preparation.draw(len(images), *images.shape[-2:], CROP_SCALE_MIN, FLIP, generator).to(images.device)
    order = order.to(images.device)
    for rows in batches(len(images), batch_size):
        batch = preparation.train_input(images[order[rows]], drawn[rows])
        yield batch.contiguous(), labels[order[rows]]  # train.py: in the network's memory format


def per_item_loader(folder: Path, batch_size: int) -> Any:
    """The authors' loader, re-created: ImageFolder (opens, converts to RGB), its transforms and a DataLoader without workers."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    from synthlib.training.augment import IMAGENET_MEAN, IMAGENET_STD

    prepare = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return DataLoader(ImageFolder(str(folder), prepare), batch_size=batch_size, shuffle=True, num_workers=0)


def per_item_batches(loader: Any, device: Any) -> Iterator[tuple[Any, Any]]:
    for batch, labels in loader:
        yield batch.to(device), labels.to(device)


def table(result: dict[str, Any]) -> str:
    lines = [heading(result), f"{'':36} {'median':>9} {'min':>9} {'max':>9}"]
    rows = {f"{name}, images/s": found for name, found in result["images_per_second"].items()} | result["ratios"]
    for name, found in (rows | {"ratio_of_cpu_time": result["ratio_of_cpu_time"]}).items():
        lines.append(f"{name:36} {found['median']:9.2f} {found['min']:9.2f} {found['max']:9.2f}")
    lines.append(f"decoding {result['settings']['images']} images once: {result['seconds_to_decode_once']:.2f} s")
    return "\n".join(lines)


def main() -> None:
    given = options()
    from synthlib.inputs import InputError

    try:
        report(lambda: measure(given), table, given.json)
    except InputError as error:
        sys.exit(f"bench_loader: {error}")


if __name__ == "__main__":
    main()
