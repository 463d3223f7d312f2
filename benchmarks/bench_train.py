#!/usr/bin/env python
"""Our training loop against the bare step: what order, crops, flips, normalisation, schedule and history cost, in percent.

Ours is training.train.train itself, timed from the end of one epoch to that of the next, so what it does once per epoch is in
and what it does once per call is not. Bare: forward, backward and fused AdamW on one batch that lies ready. Both in turns:
after each epoch, from train's own on_epoch, as many bare steps.
"""

import argparse
import contextlib
import ctypes
import itertools
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from measure import arguments, described, heading, positive, report, significant, summary

CLASSES = 10
# Steps of an epoch, so that one takes seconds on one core; a real one has 781 steps of 64 images. On a GPU steps are short.
STEPS = {"mobilenet_v3_small": 40, "resnet50": 10, "vit_b": 3}
OTHER_STEPS, GPU_STEPS = 20, 200
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def options() -> argparse.Namespace:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=list(STEPS), help="as notebook 02 names them")
    parser.add_argument("--steps", type=positive, help="steps of an epoch; by default by architecture")
    parser.add_argument(
        "--rounds", type=positive, default=9, help="epochs that count, each between two spells of bare steps"
    )
    parser.add_argument("--batch", type=positive, default=64, help="images in a batch")
    parser.add_argument("--image-size", type=positive, default=32, help="pixels")
    parser.add_argument("--protocol", default="authors", help="of experiments/protocols.yaml")
    parser.add_argument(
        "--precision", default="float32", help="float32, float16, bfloat16, or auto: the careful protocol's"
    )
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of torch")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_args()


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The overhead of each architecture, in percent of the bare step."""
    import torch

    from synthlib.devices import device_named

    device = device_named(given.device)
    torch.set_num_threads(given.threads)
    found = {}
    for architecture in given.architectures:
        print(architecture, file=sys.stderr, flush=True)
        with memory_kept():
            found[architecture] = one(given, architecture, device)
    settings = {name: value for name, value in vars(given).items() if name not in ("json", "steps", "device")}
    settings |= {
        "device": device.type,
        "steps_per_epoch": {name: row["steps_per_epoch"] for name, row in found.items()},
    }
    settings["clock"] = clock = "cpu" if device.type == "cpu" and given.threads == 1 else "wall"
    return described("bench_train", settings) | {
        "overhead_percent": {name: row["overheads"][clock]["median"] for name, row in found.items()},
        "architectures": found,
        "notes": [
            "An overhead is the median over rounds of what an epoch of ours takes over as many bare steps, less one, x 100; each "
            "epoch is compared with the mean of the bare steps just before and just after it.",
            "clock of overhead_percent: CPU seconds of this process on a CPU with one thread, as nothing waits there and other "
            "work disturbs them less, else the wall's. overheads has both; fastest compares the shortest spells of each.",
            "Ours has in it, per epoch: order, draws, history row; per step: choosing, cropping and normalising images, learning "
            "rate, loss and accuracy kept. A real epoch has 781 steps, so a smaller part of the former in each.",
            "The bare step has the same network, precision, memory format and loss, and torch.optim.AdamW(fused=True).",
            "malloc keeps freed memory (mallopt): else whichever of the two was built last gives it back after each step and "
            "pays for the page faults, which alone both do.",
        ],
    }  # fmt: skip


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Inside, glibc's malloc gives no memory back to the system, so where a tensor lies does not decide its cost."""
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_TRIM_THRESHOLD, -1)
    mallopt(M_MMAP_MAX, 0)
    try:
        yield
    finally:  # its defaults
        mallopt(M_TRIM_THRESHOLD, 128 * 1024)
        mallopt(M_MMAP_MAX, 65536)


def one(given: argparse.Namespace, architecture: str, device: Any) -> dict[str, Any]:
    """One architecture: epochs of train() in turns with spells of bare steps."""
    import torch

    from synthlib.runs.experiment import complete
    from synthlib.settings import TrainSettings
    from synthlib.training.models import mixed_precision
    from synthlib.training.train import train

    steps = given.steps or (GPU_STEPS if device.type == "cuda" else STEPS.get(architecture, OTHER_STEPS))
    asked = {"protocol": given.protocol, "test_every": 0, "dataset": "cifar10"}
    asked |= {"architecture": architecture, "image_size": given.image_size}
    asked |= {"precision": given.precision, "device": device.type, "threads": given.threads, "batch_size": given.batch}
    settings = TrainSettings(**complete("02_train", asked | {"epochs": given.rounds + 1}))
    generator = torch.Generator().manual_seed(0)
    shape = (steps * given.batch, 3, given.image_size, given.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, shape[:1], generator=generator)
    bare = bare_steps(settings, images[: given.batch], labels[: given.batch], device)

    marks: list[tuple[float, float]] = []  # wall and CPU clock: an epoch ends, bare steps end, an epoch ends, ...

    def mark() -> None:
        marks.append((time.perf_counter(), time.process_time()))

    def between_epochs(row: dict) -> None:
        mark()
        bare(steps)
        mark()

    bare(2)  # the first steps make the optimiser's state
    trained = train(images, labels, CLASSES, settings, 0, on_epoch=between_epochs)
    assert trained.n_steps == (given.rounds + 1) * steps and len(marks) == 2 * (given.rounds + 1)
    spells = {  # seconds: bare, ours, bare, ours, ..., bare; what came before the first mark was the warm-up
        name: [later - earlier for earlier, later in itertools.pairwise(clock)]
        for name, clock in zip(("wall", "cpu"), zip(*marks, strict=True), strict=True)
    }
    return {
        "steps_per_epoch": steps,
        "precision": str(mixed_precision(architecture, device, given.precision)).removeprefix("torch."),
        "overheads": {name: summary(overheads(seconds)) for name, seconds in spells.items()},
        "fastest": {name: percent(min(seconds[1::2]) / min(seconds[::2])) for name, seconds in spells.items()},
        "ms_per_step": {
            name: {
                "ours": summary([1000 * x / steps for x in seconds[1::2]]),
                "bare": summary([1000 * x / steps for x in seconds[::2]]),
            }
            for name, seconds in spells.items()
        },
    }


def bare_steps(settings: Any, images: Any, labels: Any, device: Any) -> Callable[[int], None]:
    """A function that takes n bare steps on one batch that lies ready, and waits for the device."""
    import torch
    from torch.nn.functional import cross_entropy

    from synthlib.training.checkpoint import initial_model
    from synthlib.training.models import memory_format, mixed_precision
    from synthlib.training.train import preparation_for

    size = images.shape[-1]
    model = initial_model(settings.architecture, CLASSES, size, 0)
    layout = memory_format(model)
    model = model.to(device, memory_format=layout).train()
    batch = preparation_for(settings, size).test_input(images.to(device)).contiguous(memory_format=layout)
    labels = labels.to(device)
    dtype = mixed_precision(settings.architecture, device, settings.precision)
    autocast = torch.autocast(device.type, dtype) if dtype != torch.float32 else contextlib.nullcontext()
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )

    def take(n: int) -> None:
        for _ in range(n):
            optimiser.zero_grad(set_to_none=True)
            with autocast:
                logits = model(batch)
            scaler.scale(cross_entropy(logits.float(), labels)).backward()
            scaler.step(optimiser)
            scaler.update()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return take


def overheads(spells: list[float]) -> list[float]:
    """Percent by which each spell of ours is longer than the mean of the bare ones before and after it."""
    bare, ours = spells[::2], spells[1::2]
    return [percent(mine / statistics.fmean(bare[i : i + 2])) for i, mine in enumerate(ours)]


def percent(ratio: float) -> float:
    return significant(100 * (ratio - 1))


def table(result: dict[str, Any]) -> str:
    lines = [
        heading(result),
        f"{'':20} {'clock':>5} {'bare':>8} {'ours':>8} ms a step  overhead %: median (min to max), n",
    ]
    for name, row in result["architectures"].items():
        for clock, over in row["overheads"].items():
            bare, ours = (row["ms_per_step"][clock][kind]["median"] for kind in ("bare", "ours"))
            spread = f"{over['median']:.1f} ({over['min']:.1f} to {over['max']:.1f}), {over['n']}"
            lines.append(f"{name:20} {clock:>5} {bare:8.1f} {ours:8.1f}            {spread}")
    return "\n".join(lines)


def main() -> None:
    given = options()
    from synthlib.inputs import InputError

    try:
        report(lambda: measure(given), table, given.json)
    except InputError as error:
        sys.exit(f"bench_train: {error}")


if __name__ == "__main__":
    main()
