#!/usr/bin/env python
"""Verdicts of T4 on simulated classifiers: how often a gain is found where there is none, and where there is one.

Two levels: a replicate's accuracy is its mean plus N(0, sd), for each trick and for the baseline independently; whether it
gets an image right depends on the image's difficulty, which all share, and on chance. From logits to the verdict it is
the kit's own code.
"""

import argparse
from typing import Any

import numpy as np
from measure import arguments, described, heading, positive, report, significant
from scipy.special import ndtri

ACCURACY = 60.0  # percent, of all sides where they are equal
N_IMAGES, N_CLASSES, N_CLAIMS = 1197, 10, 4  # as in the pocket experiments: test images, classes, claims of a family
SHARED = 1.0  # sd of the images' difficulty, in units of the chance within one replicate
SDS, REPLICATES, EFFECT = (1, 3, 6), (5, 8), 5.0  # points of accuracy, replicates, points


def options() -> argparse.Namespace:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=positive, default=1000, help="families simulated in each row")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    return parser.parse_args()


def logits_of(rng: np.random.Generator, accuracy: np.ndarray, shared: float = SHARED) -> tuple[np.ndarray, np.ndarray]:
    """Logits of classifiers with these expected accuracies in percent, float32 [S, R] -> [S, R, N, C], and labels [N].

    An image is right where ability - difficulty + chance is above 0; the right class has this margin, all others 0.
    """
    labels = np.arange(N_IMAGES) % N_CLASSES
    spread = np.sqrt(1 + shared**2)
    # So that the mean over images and chance is `accuracy`.
    ability = ndtri(np.clip(accuracy, 0.1, 99.9) / 100) * spread
    margin = rng.standard_normal((*accuracy.shape, N_IMAGES), dtype=np.float32)
    margin += (ability[..., None] - shared * rng.standard_normal(N_IMAGES)).astype(np.float32)
    logits = np.zeros((*accuracy.shape, N_IMAGES, N_CLASSES), dtype=np.float32)
    logits[..., np.arange(N_IMAGES), labels] = margin
    return logits, labels


def simulate(sd: float, replicates: int, effect: float, repeats: int, seed: int) -> dict[str, Any]:
    """Shares of "held" among `repeats` families of claims whose tricks are truly `effect` points above the baseline.

    claim: of all claims, by Holm's p; claim_alone: of all claims, each a family of one; family: of families with at least one.
    """
    import torch

    from synthlib.evaluation.evaluate import accuracy_percent
    from synthlib.results.claims import HELD, verdicts
    from synthlib.results.statistics import paired_t

    rng = np.random.default_rng([seed, replicates, int(10 * sd), int(10 * effect)])
    means = ACCURACY + effect * (np.arange(1 + N_CLAIMS) > 0)[:, None]  # the first side is the baseline
    held, alone, differences = [], [], []
    for _ in range(repeats):
        logits, labels = logits_of(rng, rng.normal(means, sd, size=(1 + N_CLAIMS, replicates)))
        of, truth = torch.from_numpy(logits), torch.from_numpy(labels)
        accuracy = [[accuracy_percent(one, truth) for one in side] for side in of]
        found = [paired_t(side, accuracy[0]) for side in accuracy[1:]]
        held.append(
            [
                said == HELD
                for said in verdicts(*zip(*[(d.mean, d.p) for d in found], strict=True), ["above"] * N_CLAIMS)[1]
            ]
        )
        alone.append([verdicts([d.mean], [d.p], ["above"])[1] == [HELD] for d in found])
        differences += [d.mean for d in found]
    held = np.array(held)
    return {
        "claim": rate(held.mean(), held.size),
        "claim_alone": rate(np.mean(alone), held.size),
        "family": rate(held.any(axis=1).mean(), repeats),
        "mean_difference": significant(float(np.mean(differences))),
    }


def rate(share: float, n: int) -> dict[str, float]:
    """A share of n with its binomial standard error; claims of one family share their baseline, so theirs is a lower bound."""
    return {"rate": significant(float(share)), "error": significant(float(np.sqrt(share * (1 - share) / n))), "n": n}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """A row for each spread and number of replicates: held where the accuracies are equal, and where the tricks gain."""
    rows = []
    for sd in SDS:
        for replicates in REPLICATES:
            row = {"sd_points": sd, "replicates": replicates}
            row["equal"] = simulate(sd, replicates, 0.0, given.repeats, given.seed)
            rows.append(row | {"gain": simulate(sd, replicates, EFFECT, given.repeats, given.seed)})
    settings = {"repeats": given.repeats, "seed": given.seed, "accuracy_percent": ACCURACY, "test_images": N_IMAGES,
                "classes": N_CLASSES, "claims_in_a_family": N_CLAIMS, "sd_of_shared_difficulty": SHARED,
                "gain_points": EFFECT}  # fmt: skip
    return described("simulate_verdicts", settings) | {
        "rows": rows,
        "notes": [
            "equal: all true accuracies are the same, so every `held` is false; gain: every trick is truly better, so a share is "
            "the power. claim: by Holm's p; claim_alone: a family of one; family: at least one of its claims is held.",
            "error: binomial standard error; claims of one family share their baseline, so for claims it is a lower bound.",
        ],
    }


def table(result: dict[str, Any]) -> str:
    """The rows as text, in percent."""
    lines = [
        heading(result),
        "held, % (binomial error)    sd  R   claim alone     claim, Holm     family          power",
    ]
    for row in result["rows"]:
        shares = [row["equal"][name] for name in ("claim_alone", "claim", "family")] + [row["gain"]["claim"]]
        cells = "  ".join(f"{100 * s['rate']:5.2f} ({100 * s['error']:.2f})".ljust(14) for s in shares)
        lines.append(f"{'':28}{row['sd_points']:2}  {row['replicates']:1}   {cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    given = options()
    report(lambda: measure(given), table, given.json)
