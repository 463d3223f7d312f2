"""Logits of a classifier on real test images, in the two evaluation modes.

`eval` is the correct one. `authors` is what the authors' released train_network.py does: it never calls `model.eval()`,
so batch norm uses the statistics of each shuffled batch of test images, and dropout stays on.
"""

import copy

import torch

from synthlib.settings import InputError
from synthlib.training.augment import batches, normalise, seeded
from synthlib.training.models import memory_format


def predict_eval(model: torch.nn.Module, images: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Logits float32 [N, C] of uint8 images [N, 3, H, W] at the network's size, in eval mode.

    The caller's model keeps its mode: a copy is evaluated.
    """
    return _logits(copy.deepcopy(model).eval(), images, torch.arange(len(images)), batch_size)


def predict_authors(
    model: torch.nn.Module, images: torch.Tensor, batch_size: int = 64, shuffles: int = 5, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits as the authors' code computes them: in train mode, over shuffled batches, a partial last batch kept.

    -> logits float32 [S, N, C], rows in the order of `images` (not shuffled), and order int64 [S, N]: which image stood
    at each place of each shuffle. A last batch of one image joins the batch before it (it has no statistics).
    Every shuffle runs a fresh copy, under no_grad: a train-mode pass moves batch norm's running averages, so the
    caller's parameters, buffers and mode stay as they are. Dropout, where a network has it, is seeded per shuffle.

    InputError: fewer than two images.
    """
    if len(images) < 2:
        raise InputError(f"authors mode got {len(images)} test image(s); expected two or more (batch statistics).")
    generator = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(len(images), generator=generator) for _ in range(shuffles)])
    logits = []
    for shuffle in range(shuffles):
        with seeded(seed + shuffle, _device(model)):
            shuffled = _logits(copy.deepcopy(model).train(), images, order[shuffle], batch_size)
        in_test_order = torch.empty_like(shuffled)
        in_test_order[order[shuffle]] = shuffled
        logits.append(in_test_order)
    return torch.stack(logits), order


@torch.no_grad()
def _logits(model: torch.nn.Module, images: torch.Tensor, order: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Logits on the CPU [N, C], row k being image order[k]."""
    device, layout = _device(model), memory_format(model)
    return torch.cat(
        [
            model(normalise(images[order[rows]].to(device)).contiguous(memory_format=layout)).float().cpu()
            for rows in batches(len(images), batch_size)
        ]
    )


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
