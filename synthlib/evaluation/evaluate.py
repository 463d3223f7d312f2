"""From logits to result rows, and the file that keeps the logits."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from synthlib.settings import InputError


@dataclass(frozen=True)
class Logits:
    """One classifier's predictions on N test images of C classes, rows in test-set order."""

    eval: torch.Tensor  # float32 [N, C]
    authors: torch.Tensor  # float32 [S, N, C]
    order: torch.Tensor  # int64 [S, N], the shuffles behind `authors`
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


def accuracy_percent(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 accuracy in percent of logits [N, C], or the mean over shuffles of logits [S, N, C]."""
    return 100 * (logits.argmax(-1) == labels).double().mean().item()


def per_class_accuracy(logits: torch.Tensor, labels: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Accuracy in percent of each true class, float64 [C], of logits [N, C] or [S, N, C]; nan if a class is empty."""
    correct = (logits.argmax(-1) == labels).double().reshape(-1, len(labels)).mean(0)
    counts = labels.bincount(minlength=n_classes)
    return 100 * torch.zeros(n_classes, dtype=torch.float64).index_add_(0, labels, correct) / counts


@dataclass(frozen=True)
class Classifier:
    """Where a classifier comes from, as a result row says it."""

    dataset: str
    trick: str
    architecture: str
    replicate: int
    generation_seed: str  # experiment seed:replicate; of a set that was made elsewhere "given <digest>:0"
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


def per_class_rows(classifier: Classifier, logits: Logits, classes: list[str]) -> list[dict]:
    """The rows of per_class.csv for one classifier: accuracy in percent of each class, in both evaluation modes."""
    who = {name: getattr(classifier, name) for name in ("dataset", "trick", "architecture", "replicate")}
    rows = []
    for mode, values in (("eval", logits.eval), ("authors", logits.authors)):
        accuracies = per_class_accuracy(values, logits.labels, len(classes)).tolist()
        for name, accuracy in zip(classes, accuracies, strict=True):
            rows.append(who | {"evaluation_mode": mode, "class": name, "accuracy_percent": round(accuracy, 6)})
    return rows
