"""Calibration: is a classifier right as often as it is sure? From stored logits, so that nothing is tested again.

Confidence is the highest softmax probability. Images are put into bins of equal width by confidence; the expected
calibration error (ECE) is the mean gap between a bin's accuracy and its mean confidence, weighed by its images
(Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3, with 15 bins).
"""

import math
from collections.abc import Sequence

import torch

from synthlib.inputs import InputError

BINS = 15


def calibration_bins(logits: torch.Tensor, labels: torch.Tensor, bins: int = BINS) -> list[dict]:
    """The bins of logits [N, C], or of all S shuffles of logits [S, N, C], with labels [N], in rising confidence.

    Each has bin_low_percent < confidence <= bin_high_percent, n (predictions: an image counts once a shuffle) and its
    mean confidence_percent and accuracy_percent, nan where n is 0.

    InputError: shapes that do not fit, no image, logits that are not finite, or fewer than one bin.
    """
    if logits.ndim not in (2, 3) or labels.shape != logits.shape[-2:-1] or not logits.numel():
        shapes = f"{list(logits.shape)} and labels {list(labels.shape)}"
        raise InputError(
            f"calibration got logits {shapes}; expected [N, C] or [S, N, C] and [N]: give the same images."
        )
    if not logits.isfinite().all():
        raise InputError("calibration got logits that are not finite; expected numbers: train the classifier again.")
    if bins < 1:
        raise InputError(f"bins is {bins!r}; expected a whole number of at least 1, such as {BINS}.")
    confidence, predicted = logits.double().softmax(-1).max(-1)
    confidence, correct = confidence.flatten(), (predicted == labels).double().flatten()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    places = torch.bucketize(confidence, edges[1:-1])  # a confidence on an edge belongs to the bin below
    counts = places.bincount(minlength=bins)
    sure, right = (places.bincount(values, minlength=bins) / counts for values in (confidence, correct))
    return [
        {
            "bin_low_percent": 100 * edges[place].item(),
            "bin_high_percent": 100 * edges[place + 1].item(),
            "n": int(counts[place]),
            "confidence_percent": 100 * sure[place].item(),
            "accuracy_percent": 100 * right[place].item(),
        }
        for place in range(bins)
    ]


def ece_percent(bins: Sequence[dict]) -> float:
    """Expected calibration error in points, 0 to 100, of the bins of `calibration_bins`."""
    filled = [found for found in bins if found["n"]]
    gaps = [found["n"] * abs(found["accuracy_percent"] - found["confidence_percent"]) for found in filled]
    return math.fsum(gaps) / sum(found["n"] for found in filled)
