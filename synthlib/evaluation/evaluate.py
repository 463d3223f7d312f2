"""From logits to result rows, and the file that keeps the logits."""

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from synthlib.evaluation.calibration import calibration_bins, ece_percent
from synthlib.inputs import InputError
from synthlib.names import BEST_MODE

TOP5_FROM = 11  # classes; of fewer, five guesses are half of them and say little


@dataclass(frozen=True)
class Logits:
    """One classifier's predictions on N test images of C classes, rows in test-set order."""

    eval: torch.Tensor  # float32 [N, C]
    authors: torch.Tensor  # float32 [S, N, C]
    order: torch.Tensor  # int64 [S, N], the orders behind `authors`: of CIFAR first its file's, then shuffles
    labels: torch.Tensor  # int64 [N]


def logits_bytes(logits: Logits) -> bytes:
    """Logits as safetensors; the same logits give the same bytes."""
    tensors = {field.name: getattr(logits, field.name) for field in fields(logits)}
    return safetensors.torch.save({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()})


def load_logits(path: Path) -> Logits:
    """Read a file of `logits_bytes`. InputError: no whole logits file is there."""
    try:
        return Logits(**safetensors.torch.load_file(path))
    except (OSError, safetensors.SafetensorError, TypeError) as error:
        raise InputError(f"{path} is not a whole logits file ({error}); run 03_eval again.") from None


def in_file_order(order: torch.Tensor) -> bool:
    """Whether the first of some orders [S, N] is that of the images themselves."""
    return torch.equal(order[0], torch.arange(order.shape[1]))


def orders_text(order: torch.Tensor) -> str:
    """The orders [S, N] behind an authors' accuracy in words: "file order, 4 shuffles" or "5 shuffles"."""
    first = ["file order"] if in_file_order(order) else []
    shuffles = len(order) - len(first)
    return ", ".join(first + ([f"{shuffles} shuffle{'s' if shuffles > 1 else ''}"] if shuffles else []))


def accuracy_percent(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 accuracy in percent of logits [N, C], or the mean over shuffles of logits [S, N, C]."""
    return 100 * (logits.argmax(-1) == labels).double().mean().item()


def top5_percent(logits: torch.Tensor, labels: torch.Tensor) -> float | None:
    """Share in percent of the images whose class is among the five highest of logits [N, C] or [S, N, C].

    None for ten classes or fewer.
    """
    if logits.shape[-1] < TOP5_FROM:
        return None
    guesses = logits.topk(5).indices  # [..., N, 5]
    return 100 * (guesses == labels.unsqueeze(-1)).any(-1).double().mean().item()


def per_class_accuracy(logits: torch.Tensor, labels: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Accuracy in percent of each true class, float64 [C], of logits [N, C] or [S, N, C]; nan if a class is empty."""
    correct = (logits.argmax(-1) == labels).double().reshape(-1, len(labels)).mean(0)
    counts = labels.bincount(minlength=n_classes)
    return 100 * torch.zeros(n_classes, dtype=torch.float64).index_add_(0, labels, correct) / counts


@dataclass(frozen=True)
class Classifier:
    """Where a classifier comes from and what it is tested on, as a result row says it."""

    dataset: str
    split: str  # "test", or "rest": the test images that are in no pool
    trick: str
    setting: str  # other parameters than the experiment's, as in "guidance=3"; "" where there is none
    images: str  # that it learnt from: "drawn" by 01_generate, "hosted" by the authors, "imported" or "real"
    architecture: str
    init: str  # "scratch" or "imagenet"
    protocol: str  # of training, and what was given in its place: "careful, epochs=15"
    replicate: int
    generation_seed: str  # experiment seed:replicate; of a set that was made elsewhere "given <digest>:0"
    training_seed: int
    unused_images: int  # left out of training beside n_train, at random
    n_train: int
    n_steps: int

    def condition(self, evaluation_mode: str) -> dict[str, str]:
        """The columns that tell conditions apart: the first fields, and the evaluation mode."""
        names = [field.name for field in fields(self)]
        found = {name: getattr(self, name) for name in names[: names.index("replicate")]}
        return found | {"evaluation_mode": evaluation_mode}


def result_rows(classifier: Classifier, logits: Logits, best_on_test: bool = False) -> list[dict]:
    """The rows of results.csv for one classifier: evaluation_mode eval, and authors (mean over its orders, which it names).

    best_on_test: the logits are of the epoch that was best on the test set; one row, authors_best, from logits.authors.
    top5_percent is None for ten classes or fewer; ece_percent: see `calibration`, in authors modes of all shuffles pooled.
    """
    modes = {BEST_MODE: logits.authors} if best_on_test else {"eval": logits.eval, "authors": logits.authors}
    rows = []
    for mode, values in modes.items():
        row = classifier.condition(mode)
        row |= {name: value for name, value in asdict(classifier).items() if name not in row}
        top5, ece = top5_percent(values, logits.labels), ece_percent(calibration_bins(values, logits.labels))
        row |= {"n_test": len(logits.labels), "orders": None if mode == "eval" else orders_text(logits.order)}
        row |= {"accuracy_percent": round(accuracy_percent(values, logits.labels), 6)}
        rows.append(row | {"top5_percent": None if top5 is None else round(top5, 6), "ece_percent": round(ece, 6)})
    return rows


def per_class_rows(classifier: Classifier, logits: Logits, classes: list[str]) -> list[dict]:
    """The rows of per_class.csv for one classifier: accuracy in percent of each class, in both evaluation modes."""
    rows = []
    for mode, values in (("eval", logits.eval), ("authors", logits.authors)):
        who = classifier.condition(mode) | {"replicate": classifier.replicate}
        accuracies = per_class_accuracy(values, logits.labels, len(classes)).tolist()
        for name, accuracy in zip(classes, accuracies, strict=True):
            rows.append(who | {"class": name, "accuracy_percent": round(accuracy, 6)})
    return rows


def calibration_rows(classifier: Classifier, logits: Logits) -> list[dict]:
    """The rows of calibration.csv for one classifier: each bin in modes eval and authors (over the shuffles).

    Columns: the condition's, replicate, then those of `calibration_bins`, None where a bin is empty.
    """
    rows = []
    for mode, values in (("eval", logits.eval), ("authors", logits.authors)):
        who = classifier.condition(mode) | {"replicate": classifier.replicate}
        for found in calibration_bins(values, logits.labels):
            rows.append(who | {name: _rounded(value) for name, value in found.items()})
    return rows


def _rounded(value: int | float) -> int | float | None:
    return None if math.isnan(value) else round(value, 6)
