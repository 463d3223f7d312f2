"""Random crops and flips, one per image, on whole batches of uint8 images (paper: RandomResizedCrop + horizontal flip).

torchvision's RandomResizedCrop applies one crop to a whole batch; these draw one per image, as its per-item use would.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.functional import grid_sample

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RATIO = (3 / 4, 4 / 3)  # torchvision's default range of aspect ratios
TRIES = 10


@dataclass(frozen=True)
class Crops:
    """What to cut from each of N images: boxes int64 [N, 4] = (top, left, height, width); flips bool [N]."""

    boxes: torch.Tensor
    flips: torch.Tensor

    def __getitem__(self, rows: torch.Tensor | slice) -> "Crops":
        return Crops(self.boxes[rows], self.flips[rows])

    def to(self, device: torch.device) -> "Crops":
        return Crops(self.boxes.to(device), self.flips.to(device))


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Images [N, 3, H, W] of values 0 to 255 (uint8 or float) -> float32, normalised with ImageNet's mean and std."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(IMAGENET_STD, device=images.device).view(1, 3, 1, 1) * 255
    return (images.float() - mean) / std


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's global generators (initial weights, dropout) start from `seed`; afterwards they are as before.

    cuDNN is held to repeatable kernels meanwhile.
    """
    on_gpu, deterministic = device.type == "cuda", torch.backends.cudnn.deterministic
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        torch.backends.cudnn.deterministic = True
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic = deterministic


def batches(n: int, batch_size: int) -> list[slice]:
    """Rows 0..n-1 in batches; the last may be partial, but never one row: it joins the batch before it.

    Batch norm in train mode has no variance to divide by where a batch of one image meets a 1x1 feature map.
    """
    starts = list(range(0, n, batch_size))
    if batch_size > 1 and len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], n], strict=True)]


def draw_crops(n: int, height: int, width: int, scale_min: float, flip: bool, generator: torch.Generator) -> Crops:
    """Draw n crops of images of height x width (and n flips, if wanted) from `generator`, which is on the CPU.

    As torchvision's RandomResizedCrop.get_params: up to ten tries of an area uniform on (scale_min, 1) and a ratio
    log-uniform on (3/4, 4/3); the first that fits counts, and if none does, the largest central crop within the ratios.
    """
    area = torch.empty(n, TRIES, dtype=torch.float64).uniform_(scale_min, 1, generator=generator) * (height * width)
    log_ratio = torch.empty(n, TRIES, dtype=torch.float64)
    ratio = log_ratio.uniform_(math.log(RATIO[0]), math.log(RATIO[1]), generator=generator).exp()
    place = torch.rand(n, 2, dtype=torch.float64, generator=generator)
    flips = torch.rand(n, generator=generator) < 0.5

    widths = (area * ratio).sqrt().round().long()
    heights = (area / ratio).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.int().argmax(1, keepdim=True)
    h, w = heights.gather(1, first).squeeze(1), widths.gather(1, first).squeeze(1)
    top = (place[:, 0] * (height - h + 1)).floor().long()
    left = (place[:, 1] * (width - w + 1)).floor().long()
    boxes = torch.stack([top, left, h, w], dim=1)
    boxes[~fits.any(1)] = torch.tensor(_central_box(height, width))
    return Crops(boxes, flips if flip else torch.zeros_like(flips))


def _central_box(height: int, width: int) -> tuple[int, int, int, int]:
    h = min(height, round(width / RATIO[0]))
    w = min(width, round(height * RATIO[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def crop_and_resize(images: torch.Tensor, crops: Crops, size: int) -> torch.Tensor:
    """Cut each image's box, resize it to size x size and mirror it where its flip says so.

    images [N, 3, H, W], values 0 to 255, uint8 or float; crops of N, on the same device -> float32 [N, 3, size, size],
    values 0 to 255. Bilinear, and equal to torchvision's `resized_crop(antialias=False)` of float images, image by
    image: nothing outside the box is read (a plain affine_grid reads over its border).
    """
    height, width = images.shape[-2:]
    top, left, h, w = crops.boxes.to(images.device, torch.float32).unsqueeze(-1).unbind(1)  # each [N, 1]
    y = _source(size, h) + top
    x = _source(size, w) + left
    x = torch.where(crops.flips.to(images.device).unsqueeze(-1), x.flip(1), x)
    # grid_sample wants pixel centres as (2 p + 1) / extent - 1
    x = (2 * x + 1) / width - 1
    y = (2 * y + 1) / height - 1
    grid = torch.stack([x.unsqueeze(1).expand(-1, size, -1), y.unsqueeze(2).expand(-1, -1, size)], dim=-1)
    return grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def _source(size: int, extent: torch.Tensor) -> torch.Tensor:
    """Where output pixels 0..size-1 lie along an axis of `extent` [N, 1] pixels -> [N, size], kept within the axis."""
    output = torch.arange(size, device=extent.device, dtype=torch.float32)
    position = (output + 0.5) * extent / size - 0.5
    return torch.minimum(position.clamp_(min=0), extent - 1)
