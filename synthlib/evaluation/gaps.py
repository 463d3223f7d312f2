"""How far the generated images lie from real ones as distributions of features: Frechet distance (FID) and kernel distance (KID).

Published FID and KID are of Inception features at 299 px; ours are of the feature space that stands beside them, and compare
within it only. Both hold for one set size: FID falls as sets grow (its bias), KID does not.
"""

from dataclasses import dataclass

import torch

from synthlib.inputs import InputError


def frechet_distance(
    real: torch.Tensor,
    generated: torch.Tensor,
    real_counts: torch.Tensor | None = None,
    generated_counts: torch.Tensor | None = None,
) -> float:
    """FID of features real [n, D] and generated [m, D]: that of Gaussians of their means and covariances.

    |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)) (Heusel et al. 2017, equation 6), S with n - 1. With S1 = A'A and
    S2 = B'B the last trace is the sum of the singular values of A B', no larger than the smaller of n and D: exact, and fast
    where there are fewer images than dimensions. counts: see diversity.

    InputError: a set of fewer than two rows.
    """
    mean, root = _mean_and_root(real, real_counts)
    other_mean, other_root = _mean_and_root(generated, generated_counts)
    shared = torch.linalg.svdvals(root @ other_root.T).sum()
    distance = (mean - other_mean).square().sum() + root.square().sum() + other_root.square().sum() - 2 * shared
    return float(distance)


def _mean_and_root(features: torch.Tensor, counts: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean [D] of the rows, and a matrix R [k, D], k at most D, of which R'R is their covariance."""
    rows = features.double()
    drawn = torch.ones(len(rows), dtype=torch.float64) if counts is None else counts.double()
    rows, drawn = rows[drawn > 0], drawn[drawn > 0]
    n = float(drawn.sum())
    if n < 2:
        raise InputError(f"fid got a set of {int(n)} images; expected two or more.")
    mean = drawn @ rows / n
    root = (drawn / (n - 1)).sqrt().unsqueeze(1) * (rows - mean)
    return mean, torch.linalg.qr(root, mode="r").R if len(root) > root.shape[1] else root


@dataclass(frozen=True)
class Kernels:
    """The polynomial kernel (x.y / D + 1)^3 between all rows: real [n, n], generated [m, m], between [n, m]."""

    real: torch.Tensor
    generated: torch.Tensor
    between: torch.Tensor


def kernels_of(real: torch.Tensor, generated: torch.Tensor) -> Kernels:
    """Kernels of features real [n, D] and generated [m, D]. InputError: a set of fewer than two rows."""
    if min(len(real), len(generated)) < 2:
        raise InputError(f"kid got {len(real)} real and {len(generated)} generated images; expected two or more.")
    real, generated = real.double(), generated.double()
    pairs = ((real, real), (generated, generated), (real, generated))
    return Kernels(*((a @ b.T / a.shape[1] + 1) ** 3 for a, b in pairs))


def kernel_distance_of(
    kernels: Kernels, real_counts: torch.Tensor | None = None, generated_counts: torch.Tensor | None = None
) -> float:
    """See `kernel_distance`; of a resample, in which two copies of a row are a pair."""
    total = 0.0
    drawn = []
    for kernel, counts in ((kernels.real, real_counts), (kernels.generated, generated_counts)):
        c = torch.ones(len(kernel), dtype=torch.float64) if counts is None else counts.double()
        n = float(c.sum())
        total += float(c @ kernel @ c - c @ kernel.diagonal()) / (n * (n - 1))
        drawn.append(c / n)
    return total - 2 * float(drawn[0] @ kernels.between @ drawn[1])


def kernel_distance(real: torch.Tensor, generated: torch.Tensor) -> float:
    """KID of features real [n, D] and generated [m, D]: the unbiased squared MMD of the kernel (x.y / D + 1)^3.

    Binkowski et al. 2018, section 3.2; of all rows at once, where they average over subsets. Unbiased, so of equal
    distributions it is around 0 and may be negative. InputError: a set of fewer than two rows.
    """
    return kernel_distance_of(kernels_of(real, generated))
