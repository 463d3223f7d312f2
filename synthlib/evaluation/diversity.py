"""How diverse and how faithful a generated set is: Vendi score, precision and recall, density and coverage on features.

Numbers compare within one feature space and one set size only.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from synthlib.inputs import InputError, choose

NEIGHBOURS = 5
MEASURES = ("vendi", "vendi_per_class", "precision", "recall", "density", "coverage")
WITHOUT_REAL = {"vendi", "vendi_per_class"}  # the others compare with real images


def vendi(features: torch.Tensor) -> float:
    """Vendi score of features [n, D]: the effective number of different rows, from 1 (all alike) to n (all orthogonal).

    exp of the entropy of the eigenvalues of K / n, K the cosine similarities (Friedman & Dieng 2023, equation 1).
    Rows of zeros (a blank image's centred pixels) have no direction and are left out.
    """
    rows = features.double()
    lengths = rows.norm(dim=1, keepdim=True)
    rows = (rows / lengths)[lengths.squeeze(1) > 0]
    if not len(rows):
        return 1.0
    # X X' and X' X have the same eigenvalues above zero: take the smaller.
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    eigenvalues = torch.linalg.eigvalsh(gram / len(rows)).clamp(min=0)
    return torch.special.entr(eigenvalues).sum().exp().item()


def vendi_per_class(features: torch.Tensor, labels: torch.Tensor) -> dict[int, float]:
    """Vendi score within each class that has rows: class index -> score."""
    return {label: vendi(features[labels == label]) for label in labels.unique().tolist()}


@dataclass(frozen=True)
class Prdc:
    """How much of the generated set lies near real images (precision, density), and of the real near generated ones."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: torch.Tensor, generated: torch.Tensor, k: int = NEIGHBOURS) -> Prdc:
    """Compare features real [n, D] with generated [m, D] by balls that reach each row's k-th neighbour in its own set.

    precision: generated rows in a real ball; recall: real rows in a generated ball (Kynkaanniemi et al. 2019).
    density: real balls around a generated row, over k (may pass 1); coverage: real balls with a generated row in them
    (Naeem et al. 2020, equations 2 and 3). k is capped at the smaller set's size less one.

    InputError: a set of fewer than two rows.
    """
    if min(len(real), len(generated)) < 2:
        raise InputError(f"precision got {len(real)} real and {len(generated)} generated images; expected two or more.")
    k = min(k, len(real) - 1, len(generated) - 1)
    between = torch.cdist(real.double(), generated.double())  # [n, m]
    in_real = between <= _radii(real, k).unsqueeze(1)
    in_generated = between <= _radii(generated, k).unsqueeze(0)
    return Prdc(
        precision=in_real.any(0).double().mean().item(),
        recall=in_generated.any(1).double().mean().item(),
        density=in_real.double().sum(0).mean().item() / k,
        coverage=in_real.any(1).double().mean().item(),
    )


def _radii(features: torch.Tensor, k: int) -> torch.Tensor:
    """Distance of each row to its k-th nearest other row, [n]."""
    distances = torch.cdist(features.double(), features.double())
    distances.fill_diagonal_(0)
    return distances.kthvalue(k + 1, dim=1).values  # the row itself is the first


def measure_rows(
    measures: Iterable[str],
    features: torch.Tensor,
    labels: torch.Tensor,
    real_features: torch.Tensor | None,
    *,
    dataset: str,
    trick: str,
    replicate: int,
    feature_space: str,
) -> list[dict]:
    """The rows of measures.csv for one generated set: features [N, D], labels [N]; real_features [M, D] of the pool.

    vendi_per_class is the mean over the classes. InputError: an unknown measure, or one that compares with real images
    where none are given.
    """
    names = [choose("measure", name, MEASURES) for name in measures]
    against_real = None
    if set(names) - WITHOUT_REAL:
        if real_features is None:
            raise InputError(f"measures {', '.join(names)} need real images and got none; give the pool's.")
        against_real = prdc(real_features, features)
    rows = []
    for name in names:
        if name == "vendi":
            value = vendi(features)
        elif name == "vendi_per_class":
            scores = vendi_per_class(features, labels)
            value = sum(scores.values()) / len(scores)
        else:
            value = getattr(against_real, name)
        row = {"dataset": dataset, "trick": trick, "replicate": replicate, "measure": name}
        rows.append(row | {"feature_space": feature_space, "value": round(value, 6), "n": len(features)})
    return rows
