"""Logits of a classifier on real test images, in the two evaluation modes.

`eval` is the correct one. `authors` is what the authors' released train_network.py does: it never calls `model.eval()`,
so batch norm uses the statistics of each batch of test images, and dropout stays on. Their batches are as large as those of
training; CIFAR's are taken in the order of its file, EuroSAT's are shuffled.
"""

import copy
import functools
from dataclasses import dataclass

import torch

from synthlib import digests
from synthlib.data.classes import alike, differing
from synthlib.data.sets import ImageSet
from synthlib.devices import require_finite
from synthlib.evaluation.evaluate import accuracy_percent
from synthlib.inputs import InputError, parameter
from synthlib.training.augment import Preparation, batches, seeded
from synthlib.training.models import memory_format

AUTHORS_BATCH_SIZE = 64  # their default, where nothing says how large the batches of training were
EVAL_BATCH_SIZE = 256  # of `eval` mode, where a prediction does not depend on its batch but for last bits


def predict_eval(
    model: torch.nn.Module, images: torch.Tensor, preparation: Preparation, batch_size: int = EVAL_BATCH_SIZE
) -> torch.Tensor:
    """Logits float32 [N, C] of uint8 images [N, 3, H, W], in eval mode and full precision.

    The caller's model keeps its mode: a copy is evaluated.
    """
    return _logits(copy.deepcopy(model).eval(), images, torch.arange(len(images)), preparation, batch_size)


def predict_authors(
    model: torch.nn.Module,
    images: torch.Tensor,
    preparation: Preparation,
    batch_size: int = AUTHORS_BATCH_SIZE,
    shuffles: int = 5,
    seed: int = 0,
    in_file_order: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits as the authors' code computes them: in train mode, batch by batch, a partial last batch kept.

    -> logits float32 [S, N, C], rows in the order of `images` (not shuffled), and order int64 [S, N]: which image stood
    at each place of each of S = `shuffles` orders: random ones, but that the first is that of `images` if `in_file_order`.
    A last batch of one image joins the batch before it (it has no statistics).
    Every order runs a fresh copy, under no_grad: a train-mode pass moves batch norm's running averages, so the
    caller's parameters, buffers and mode stay as they are. Dropout, where a network has it, is seeded per order.

    InputError: fewer than two images.
    """
    if len(images) < 2:
        raise InputError(f"authors mode got {len(images)} test image(s); expected two or more (batch statistics).")
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.arange(len(images))] if in_file_order else []
    orders += [torch.randperm(len(images), generator=generator) for _ in range(shuffles - len(orders))]
    order, logits = torch.stack(orders), []
    for shuffle in range(shuffles):
        with seeded(seed + shuffle, _device(model)):
            shuffled = _logits(copy.deepcopy(model).train(), images, order[shuffle], preparation, batch_size)
        in_test_order = torch.empty_like(shuffled)
        in_test_order[order[shuffle]] = shuffled
        logits.append(in_test_order)
    return torch.stack(logits), order


@dataclass(frozen=True)
class Tester:
    """What `train` takes as `test`: a network's accuracy in percent on real images in both modes, in one order, the authors'.

    It sees test images while training, as the authors' code does to choose its best epoch; nothing is learned from them.
    """

    real: ImageSet
    batch_size: int  # of training, which theirs tests in

    def __call__(self, model: torch.nn.Module, preparation: Preparation) -> dict[str, float]:
        images, in_file_order = self.real.images, self.real.in_file_order
        authors, _ = predict_authors(model, images, preparation, self.batch_size, 1, in_file_order=in_file_order)
        found = {"test_eval_percent": predict_eval(model, images, preparation), "test_authors_percent": authors[0]}
        return {name: round(accuracy_percent(logits, self.real.labels), 4) for name, logits in found.items()}

    @functools.cached_property
    def digest(self) -> str:
        """Of the images, the labels, their order, and the code that looks at them: a best epoch depends on all of these."""
        code = digests.module_digest("synthlib.evaluation.predict")
        return digests.sha256_json([self.real.digest(), self.real.in_file_order, self.batch_size, code])


def tester(real: ImageSet, classes: list[str], batch_size: int) -> Tester:
    """A Tester for a network of these classes. InputError: they are not those of the real images."""
    require_classes(classes, real, "the training set")
    return Tester(real, batch_size)


def require_classes(classes: list[str], real: ImageSet, what: str) -> None:
    """InputError, with what differs, unless `what` has the classes of the real images (see `alike`), in their order."""
    if [alike(name, real.classes) for name in classes] != real.classes:
        same = sorted(filter(None, (alike(name, real.classes) for name in classes))) == sorted(real.classes)
        raise InputError(
            f"{what} has {len(classes)} classes, the real images have {len(real.classes)}; "
            f"{'the same in another order' if same else differing(classes, real.classes)}. Expected the same: name the "
            f"{parameter('dataset')} that it was made for, or in a notebook its classes."
        )


@torch.no_grad()
def _logits(
    model: torch.nn.Module, images: torch.Tensor, order: torch.Tensor, preparation: Preparation, batch_size: int
) -> torch.Tensor:
    """Logits on the CPU [N, C], row k being image order[k]. NotFinite: some are nan or infinite."""
    device, layout = _device(model), memory_format(model)
    logits = torch.cat(
        [
            model(preparation.test_input(images[order[rows]].to(device)).contiguous(memory_format=layout)).float().cpu()
            for rows in batches(len(images), batch_size)
        ]
    )
    advice = "its weights are damaged or its training went astray: train it again, or with a lower learning rate"
    require_finite(torch.isfinite(logits).all(), "the logits of this classifier", advice)
    return logits


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
