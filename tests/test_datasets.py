"""The real digits: whole, split once, never the same image in pool and test."""

import numpy as np
import torch

from synthlib.data.datasets import load_real


def test_digits_are_scikit_learns_split_once_into_pool_and_test():
    from sklearn.datasets import load_digits

    pool, test = load_real("digits", "pool"), load_real("digits", "test")
    assert (len(pool.labels), len(test.labels)) == (600, 1197)
    assert set(pool.ids).isdisjoint(test.ids) and len({*pool.ids, *test.ids}) == 1797
    assert pool.classes == "zero one two three four five six seven eight nine".split()
    theirs = load_digits()
    for part in (pool, test):
        place = [int(name.split("-")[1]) for name in part.ids]
        assert part.labels.tolist() == theirs.target[place].tolist()
        ink = 1 - part.images[:, 0].float() / 255
        small = torch.nn.functional.avg_pool2d(ink[:, :, :], 4)[:, 1:7, 1:7]  # roughly where the 8 x 8 file has it
        assert np.corrcoef(small.flatten().numpy(), theirs.images[place][:, 1:7, 1:7].flatten())[0, 1] > 0.8


def test_digits_are_dark_ink_on_white_paper_32_by_32_rgb():
    images = load_real("digits", "test").images
    assert images.shape[1:] == (3, 32, 32) and images.dtype == torch.uint8
    assert (images[:, :, :2] == 255).all() and (images[:, :, :, -2:] == 255).all()  # the margin
    assert images.amin(dim=(1, 2, 3)).float().mean() < 10
