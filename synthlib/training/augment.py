"""From uint8 images to a network's input, in whole batches but with random numbers of its own for each image.

Two transforms, as the authors' code has them: `resized_crop` (CIFAR: RandomResizedCrop and flip; tested on whole images) and
`rotated_crop` (EuroSAT: rotation, flip, resize, random crop; tested on the centre). torchvision's own random transforms apply
one draw to a whole batch; these draw one per image, as its per-item use would.
"""

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.functional import grid_sample, interpolate

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NORMALISATIONS = {  # name -> mean and standard deviation of each channel, of values 0 to 1
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "none": ((0, 0, 0), (1, 1, 1)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "efficientnet_lite": ((127 / 255,) * 3, (128 / 255,) * 3),  # (pixel - 127) / 128
}
NORMALISATION_OF = {"resized_crop": "imagenet", "rotated_crop": "none"}  # in the authors' code
MARGIN = 256 / 224  # rotated_crop resizes to so much more than it crops
ROTATION = 90  # degrees, either way
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


@dataclass(frozen=True)
class Rotations:
    """For each of N images: angles in degrees, anticlockwise, float [N]; flips bool [N]; crops' corners int64 [N, 2]."""

    angles: torch.Tensor
    flips: torch.Tensor
    corners: torch.Tensor

    def __getitem__(self, rows: torch.Tensor | slice) -> "Rotations":
        return Rotations(self.angles[rows], self.flips[rows], self.corners[rows])

    def to(self, device: torch.device) -> "Rotations":
        return Rotations(self.angles.to(device), self.flips.to(device), self.corners.to(device))


@dataclass(frozen=True)
class Preparation:
    """How images become a network's input; a checkpoint's record has it, so that tests prepare as training did.

    transform: resized_crop or rotated_crop; image_size: the network's, in pixels; normalisation: one of NORMALISATIONS.
    """

    transform: str
    image_size: int
    normalisation: str

    @property
    def resized(self) -> int:
        """The size in pixels that test images are resized to; rotated_crop then cuts the network's size out of them."""
        return round(self.image_size * MARGIN) if self.transform == "rotated_crop" else self.image_size

    def test_input(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, 3, H, W], values 0 to 255 -> float32 [N, 3, S, S], as tests see them: nothing is random."""
        start = round((self.resized - self.image_size) / 2)  # torchvision's CenterCrop; 0 without a margin
        end = start + self.image_size
        return normalise(resize(images, self.resized)[:, :, start:end, start:end], self.normalisation)

    def draw(
        self, n: int, height: int, width: int, scale_min: float, flip: float, generator: torch.Generator
    ) -> Crops | Rotations:
        """The random part of n training inputs, for `train_input`. generator is on the CPU."""
        if self.transform == "resized_crop":
            return draw_crops(n, height, width, scale_min, flip, generator)
        return draw_rotations(n, self.resized - self.image_size, flip, generator)

    def train_input(self, images: torch.Tensor, drawn: Crops | Rotations) -> torch.Tensor:
        """Images [N, 3, H, W], values 0 to 255, and N draws, on the same device -> float32 [N, 3, S, S]."""
        if self.transform == "resized_crop":
            return normalise(crop_and_resize(images, drawn, self.image_size), self.normalisation)
        whole = resize(rotate_and_flip(images, drawn), self.resized)
        return normalise(crop(whole, drawn.corners, self.image_size), self.normalisation)


def normalise(images: torch.Tensor, normalisation: str = "imagenet") -> torch.Tensor:
    """Images [N, 3, H, W] of values 0 to 255 (uint8 or float) -> float32, less the mean and by the std of NORMALISATIONS."""
    mean, std = _mean_and_std(normalisation, images.device)
    return (images.float() - mean) / std


@functools.cache  # sending them to a GPU would make every batch wait for it
def _mean_and_std(normalisation: str, device: torch.device) -> list[torch.Tensor]:
    values = NORMALISATIONS[normalisation]
    return [torch.tensor(v, device=device, dtype=torch.float32).view(1, 3, 1, 1) * 255 for v in values]


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Images [N, 3, H, W] -> float32 [N, 3, size, size]: bilinear, antialiased, as torchvision's Resize; or as they are."""
    if tuple(images.shape[-2:]) == (size, size):
        return images.float()
    return interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's global generators (initial weights, dropout) start from `seed`; afterwards they are as before.

    cuDNN is held to repeatable kernels meanwhile.
    """
    deterministic, gpus = torch.backends.cudnn.deterministic, []
    if device.type == "cuda":
        gpus = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            torch.cuda.default_generators[gpu].manual_seed(seed)
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


def draw_crops(n: int, height: int, width: int, scale_min: float, flip: float, generator: torch.Generator) -> Crops:
    """Draw n crops of images of height x width, each mirrored with chance `flip`, from `generator`, which is on the CPU.

    As torchvision's RandomResizedCrop.get_params: up to ten tries of an area uniform on (scale_min, 1) and a ratio
    log-uniform on (3/4, 4/3); the first that fits counts, and if none does, the largest central crop within the ratios.
    """
    area = torch.empty(n, TRIES, dtype=torch.float64).uniform_(scale_min, 1, generator=generator) * (height * width)
    log_ratio = torch.empty(n, TRIES, dtype=torch.float64)
    ratio = log_ratio.uniform_(math.log(RATIO[0]), math.log(RATIO[1]), generator=generator).exp()
    place = torch.rand(n, 2, dtype=torch.float64, generator=generator)
    flips = torch.rand(n, generator=generator) < flip

    widths = (area * ratio).sqrt().round().long()
    heights = (area / ratio).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.int().argmax(1, keepdim=True)
    h, w = heights.gather(1, first).squeeze(1), widths.gather(1, first).squeeze(1)
    top = (place[:, 0] * (height - h + 1)).floor().long()
    left = (place[:, 1] * (width - w + 1)).floor().long()
    boxes = torch.stack([top, left, h, w], dim=1)
    boxes[~fits.any(1)] = torch.tensor(_central_box(height, width))
    return Crops(boxes, flips)


def _central_box(height: int, width: int) -> tuple[int, int, int, int]:
    h = min(height, round(width / RATIO[0]))
    w = min(width, round(height * RATIO[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def crop_and_resize(images: torch.Tensor, crops: Crops, size: int) -> torch.Tensor:
    """Cut each image's box, resize it to size x size and mirror it where its flip says so.

    images [N, 3, H, W], values 0 to 255, uint8 or float; crops of N, on the same device -> float32 [N, 3, size, size],
    values 0 to 255. Bilinear, and equal to torchvision's `resized_crop(antialias=False)` of float images, image by
    image: nothing outside the box is read. (grid_sample would round places in 224 px to 1e-5 of them.)
    """
    n, channels, height, width = images.shape
    top, left, h, w = crops.boxes.to(images.device).unbind(1)
    rows = _weights(height, *_sources(size, h, top))
    columns = _weights(width, *_sources(size, w, left, crops.flips.to(images.device)))
    wide = torch.bmm(images.float().reshape(n, channels * height, width), columns.transpose(1, 2))
    return rows.unsqueeze(1) @ wide.view(n, channels, height, size)


def _weights(extent: int, low: torch.Tensor, high: torch.Tensor, between: torch.Tensor) -> torch.Tensor:
    """What `_sources` says as weights [N, size, extent] of an axis's pixels: two in each row, which add up to one."""
    weights = torch.zeros(*low.shape, extent, device=low.device)
    weights.scatter_(2, low.unsqueeze(2), (1 - between).unsqueeze(2))
    return weights.scatter_add_(2, high.unsqueeze(2), between.unsqueeze(2))


def _sources(
    size: int, extent: torch.Tensor, start: torch.Tensor, flips: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which pixels of an axis output pixels 0..size-1 lie between, int64 [N, size] twice, and how far along, [N, size].

    extent, start: int64 [N], of each box. In float64, rounded once: what torch's kernel gets from a fused multiply and add.
    """
    output = torch.arange(size, device=extent.device, dtype=torch.float64)
    scale = (extent.float() / size).double().unsqueeze(1)
    position = ((output + 0.5) * scale - 0.5).clamp_(min=0).float()
    if flips is not None:
        position = torch.where(flips.unsqueeze(1), position.flip(1), position)
    last, before = (extent - 1).unsqueeze(1), position.floor()
    low = torch.minimum(before.long(), last)
    return low + start.unsqueeze(1), torch.minimum(low + 1, last) + start.unsqueeze(1), position - before


def draw_rotations(n: int, room: int, flip: float, generator: torch.Generator) -> Rotations:
    """Draw n angles, uniform on (-90, 90) degrees, flips of chance `flip`, and corners of crops, 0 to `room` pixels."""
    angles = torch.empty(n).uniform_(-ROTATION, ROTATION, generator=generator)
    flips = torch.rand(n, generator=generator) < flip
    return Rotations(angles, flips, torch.randint(0, room + 1, (n, 2), generator=generator))


def rotate_and_flip(images: torch.Tensor, drawn: Rotations) -> torch.Tensor:
    """Rotate each square image [N, 3, S, S] about its centre by its angle, then mirror it where its flip says so.

    Nearest neighbour, black outside: torchvision's RandomRotation as it is by default, image by image. -> float32.
    """
    size = images.shape[-1]
    angles = torch.deg2rad(drawn.angles.to(images.device, torch.float32)).view(-1, 1, 1)
    place = torch.arange(size, device=images.device, dtype=torch.float32) - (size - 1) / 2
    y, x = place.view(1, -1, 1), place.view(1, 1, -1)
    x = torch.where(drawn.flips.to(images.device).view(-1, 1, 1), -x, x)
    cos, sin = angles.cos(), angles.sin()
    grid = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1) / (size / 2)
    return grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)


def crop(images: torch.Tensor, corners: torch.Tensor, size: int) -> torch.Tensor:
    """Cut size x size out of each image [N, 3, H, W] at its corner (top, left), int64 [N, 2]."""
    along = torch.arange(size, device=images.device)
    top, left = corners.to(images.device).unbind(1)
    rows, columns = top.view(-1, 1) + along, left.view(-1, 1) + along
    number = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    return images[number, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)
