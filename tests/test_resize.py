"""The authors' two resizes, against pixels computed by hand and against torchvision."""

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import InterpolationMode, resize

from synthlib.generation.resize import resize_images
from synthlib.inputs import InputError

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 512, 512, 3), np.uint8))


def test_64_is_the_mean_of_the_central_2x2_pixels_of_every_8x8_block():
    blocks = IMAGES.numpy().reshape(3, 64, 8, 64, 8, 3)[:, :, 3:5, :, 3:5].astype(float)
    assert np.array_equal(resize_images(IMAGES, "64").numpy(), np.rint(blocks.mean((2, 4))).astype(np.uint8))


def test_32a_weighs_each_pixel_by_a_triangle_of_16_pixels_either_side():
    """Along one axis: output o is centred at 16 (o + .5) and weighs pixel i by max(0, 1 - |i + .5 - centre| / 16)."""
    centre = 16 * (np.arange(32) + 0.5)
    weight = np.clip(1 - np.abs(np.arange(512)[None] + 0.5 - centre[:, None]) / 16, 0, None)
    weight /= weight.sum(1, keepdims=True)
    expected = np.einsum("oi,pj,bijc->bopc", weight, weight, IMAGES.numpy().astype(float))
    found = resize_images(IMAGES, "32A").numpy()
    assert found.shape == (3, 32, 32, 3) and np.abs(found - expected).max() <= 0.501  # rounding, and float32


@pytest.mark.parametrize(("name", "side", "antialias"), [("32A", 32, True), ("64", 64, False)])
def test_both_give_torchvisions_bytes(name, side, antialias):
    theirs = resize(IMAGES.permute(0, 3, 1, 2), [side, side], InterpolationMode.BILINEAR, antialias=antialias)
    assert torch.equal(resize_images(IMAGES, name).permute(0, 3, 1, 2), theirs)


def test_nothing_asked_nothing_changed_and_no_image_is_enlarged():
    assert resize_images(IMAGES, "") is IMAGES
    with pytest.raises(InputError, match="larger images"):
        resize_images(IMAGES[:, :32, :32], "64")
