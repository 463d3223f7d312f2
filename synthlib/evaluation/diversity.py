"""How diverse and how faithful a generated set is: Vendi score, distances, precision and recall, density and coverage.

Numbers compare within one feature space and one set size only. counts, where a function takes them, say how often each row
was drawn into a resample: int64 [n], by default once each.
"""

from dataclasses import dataclass

import torch

from synthlib.inputs import InputError

NEIGHBOURS = 5


def vendi(features: torch.Tensor, counts: torch.Tensor | None = None) -> float:
    """Vendi score of features [n, D]: the effective number of different rows, from 1 (all alike) to n (all orthogonal).

    exp of the entropy of the eigenvalues of K / n, K the cosine similarities (Friedman & Dieng 2023, equation 1).
    Rows of zeros (a blank image's centred pixels) have no direction and are left out.
    """
    rows = features.double()
    lengths = rows.norm(dim=1, keepdim=True)
    seen = lengths.squeeze(1) > 0 if counts is None else (lengths.squeeze(1) > 0) & (counts > 0)
    rows = (rows / lengths)[seen]
    if not len(rows):
        return 1.0
    n = len(rows)
    if counts is not None:  # c equal rows have one eigenvector, as has their direction times sqrt(c)
        rows, n = rows * counts[seen].double().sqrt().unsqueeze(1), int(counts[seen].sum())
    # X X' and X' X have the same eigenvalues above zero: take the smaller.
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    eigenvalues = torch.linalg.eigvalsh(gram / n).clamp(min=0)
    return torch.special.entr(eigenvalues).sum().exp().item()


def vendi_per_class(
    features: torch.Tensor, labels: torch.Tensor, counts: torch.Tensor | None = None
) -> dict[int, float]:
    """Vendi score within each class that has rows: class index -> score."""
    return {
        label: vendi(features[labels == label], None if counts is None else counts[labels == label])
        for label in labels.unique().tolist()
    }


def pairwise_distance(features: torch.Tensor, labels: torch.Tensor, counts: torch.Tensor | None = None) -> float:
    """Mean Euclidean distance between two different rows of a class, then the mean over classes, of features [n, D].

    A class of one row has no pair and is left out; nan where all are such. Of a resample the pairs are of its draws, so two
    copies of a row are a pair at distance 0.
    """
    found = []
    for label in labels.unique().tolist():
        mine = features[labels == label].double()
        drawn = torch.ones(len(mine)) if counts is None else counts[labels == label]
        drawn = drawn.double()
        if (n := float(drawn.sum())) > 1:
            found.append(float(drawn @ _distances(mine, mine) @ drawn) / (n * (n - 1)))
    return sum(found) / len(found) if found else float("nan")


@dataclass(frozen=True)
class Prdc:
    """How much of the generated set lies near real images (precision, density), and of the real near generated ones."""

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Neighbours:
    """Each row's rows of the same set from near to far, itself first: which, int64 [n, n], and how far, float64 [n, n]."""

    order: torch.Tensor
    distances: torch.Tensor


@dataclass(frozen=True)
class Distances:
    """What `prdc_of` needs of n real and m generated rows, whatever the resample: between is float64 [n, m]."""

    between: torch.Tensor
    real: Neighbours
    generated: Neighbours


def distances_of(real: torch.Tensor, generated: torch.Tensor) -> Distances:
    """Distances of features real [n, D] and generated [m, D]. InputError: a set of fewer than two rows."""
    if min(len(real), len(generated)) < 2:
        raise InputError(f"precision got {len(real)} real and {len(generated)} generated images; expected two or more.")
    real, generated = real.double(), generated.double()
    return Distances(torch.cdist(real, generated), _neighbours(real), _neighbours(generated))


def prdc_of(
    distances: Distances,
    k: int = NEIGHBOURS,
    real_counts: torch.Tensor | None = None,
    generated_counts: torch.Tensor | None = None,
) -> Prdc:
    """See `prdc`; of a resample, in which a row's copies are its nearest neighbours."""
    n, m = distances.between.shape
    real_counts = torch.ones(n, dtype=torch.int64) if real_counts is None else real_counts
    generated_counts = torch.ones(m, dtype=torch.int64) if generated_counts is None else generated_counts
    k = min(k, int(real_counts.sum()) - 1, int(generated_counts.sum()) - 1)
    # only what was drawn, each row once: its copies lie in the same balls
    ours, theirs = real_counts.nonzero().squeeze(1), generated_counts.nonzero().squeeze(1)
    between = distances.between[ours][:, theirs]
    in_real = between <= _radii(distances.real, k, real_counts)[ours].unsqueeze(1)
    in_generated = between <= _radii(distances.generated, k, generated_counts)[theirs].unsqueeze(0)
    real_weights, generated_weights = real_counts[ours].double(), generated_counts[theirs].double()
    n, m = float(real_weights.sum()), float(generated_weights.sum())
    return Prdc(
        precision=float(in_real.any(0).double() @ generated_weights) / m,
        recall=float(in_generated.any(1).double() @ real_weights) / n,
        density=float(real_weights @ in_real.double() @ generated_weights) / (m * k),
        coverage=float(in_real.any(1).double() @ real_weights) / n,
    )


def prdc(real: torch.Tensor, generated: torch.Tensor, k: int = NEIGHBOURS) -> Prdc:
    """Compare features real [n, D] with generated [m, D] by balls that reach each row's k-th neighbour in its own set.

    precision: generated rows in a real ball; recall: real rows in a generated ball (Kynkaanniemi et al. 2019).
    density: real balls around a generated row, over k (may pass 1); coverage: real balls with a generated row in them
    (Naeem et al. 2020, equations 2 and 3). k is capped at the smaller set's size less one.

    InputError: a set of fewer than two rows.
    """
    return prdc_of(distances_of(real, generated), k)


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Euclidean distances [n, m], exactly 0 between a row and itself."""
    distances = torch.cdist(a, b)
    return distances.fill_diagonal_(0) if a is b else distances


def _neighbours(features: torch.Tensor) -> Neighbours:
    distances = _distances(features, features)
    distances.fill_diagonal_(-1)  # the row itself before its equals
    sorted_, order = distances.sort(dim=1, stable=True)
    return Neighbours(order, sorted_.clamp(min=0))


def _radii(neighbours: Neighbours, k: int, counts: torch.Tensor) -> torch.Tensor:
    """Distance of each row to its k-th nearest other draw, [n]."""
    passed = counts[neighbours.order].cumsum(1)  # draws up to here, the row's own among them
    place = (passed < k + 1).sum(1, keepdim=True)
    return neighbours.distances.gather(1, place.clamp(max=len(counts) - 1)).squeeze(1)
