"""From logits to result rows, and the file that keeps the logits."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from synthlib.receipts import write_atomic
from synthlib.settings import InputError


@dataclass(frozen=True)
class Logits:
    """One classifier's predictions on N test images of C classes, rows in test-set order."""

    eval: torch.Tensor  # float32 [N, C]
    authors: torch.Tensor  # float32 [S, N, C]
    order: torch.Tensor  # int64 [S, N], the shuffles behind `authors`
    labels: torch.Tensor  # int64 [N]


def save_logits(path: Path, logits: Logits) -> None:
    """Write logits as safetensors; the same logits give the same bytes."""
    tensors = {field.name: getattr(logits, field.name) for field in fields(logits)}
    copies = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}  # safetensors refuses views
    write_atomic(path, safetensors.torch.save(copies))


def load_logits(path: Path) -> Logits:
    """Read what `save_logits` wrote. InputError: no whole logits file is there."""
    try:
        return Logits(**safetensors.torch.load_file(path))
    except (OSError, safetensors.SafetensorError, TypeError) as error:
        raise InputError(f"{path} is not a whole logits file ({error}); run 03_eval again.") from None


def accuracy_percent(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 accuracy in percent of logits [N, C], or the mean over shuffles of logits [S, N, C]."""
    return 100 * (logits.argmax(-1) == labels).double().mean().item()


def per_class_accuracy(logits: torch.Tensor, labels: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Accuracy in percent of each true class, float32 [C], of logits [N, C] or [S, N, C]; nan if a class is empty."""
    confusion = confusion_matrix(logits, labels, n_classes)
    return 100 * confusion.diagonal() / confusion.sum(1)


def confusion_matrix(logits: torch.Tensor, labels: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Counts int64 [C, C], row true, column predicted, of logits [N, C], or [S, N, C] summed over the shuffles."""
    predicted = logits.argmax(-1)
    cells = labels.expand_as(predicted) * n_classes + predicted
    return torch.bincount(cells.flatten(), minlength=n_classes**2).view(n_classes, n_classes)


@dataclass(frozen=True)
class Classifier:
    """Where a classifier comes from, as a result row says it."""

    dataset: str
    trick: str
    architecture: str
    replicate: int
    generation_seed: int
    training_seed: int
    n_train: int
    n_steps: int


def result_rows(classifier: Classifier, logits: Logits) -> list[dict]:
    """The two rows of results.csv for one classifier: evaluation_mode eval, and authors (mean over the shuffles)."""
    who = asdict(classifier)
    rows = []
    for mode, values in (("eval", logits.eval), ("authors", logits.authors)):
        row = {name: who[name] for name in ("dataset", "trick", "architecture")}
        row |= {"evaluation_mode": mode} | {name: who[name] for name in list(who)[3:]}
        row |= {"n_test": len(logits.labels), "accuracy_percent": round(accuracy_percent(values, logits.labels), 6)}
        rows.append(row)
    return rows
