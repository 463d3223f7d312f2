"""F5, the feature space: where each trick's images lie beside the real ones. Features in, coordinates and Figure out.

A map of two dimensions is for the eye: distances in it are not the gap, which the titles give as KID and FID.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from synthlib.inputs import InputError
from synthlib.results import statistics
from synthlib.results.rows import treatments
from synthlib.results.style import (
    add_not_run,
    new_panels,
    not_run_figure,
    title_panel,
    treatment_label,
    treatment_order,
    trick_style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REAL = "real"
REAL_COLOUR = "#a8a8a8"
GAPS = ("kid", "fid")
PERPLEXITY = 30.0  # van der Maaten & Hinton 2008: 5 to 50; scikit-learn's default


def feature_map(
    features: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], dataset: str, seed: int = 0, most: int = 300
) -> pd.DataFrame:
    """Joint t-SNE of real pool images, under the name "real", and of the images of each trick.

    features[set]: float [N, D], labels[set]: int [N]. Of each set at most `most` images, drawn by seed. Columns:
    dataset, set, label, x, y, in the order given. On one machine the same features and seed give the same map.
    No set gives no row. InputError: sets that differ in D, labels that do not fit, numbers not finite, or under 4 images.
    """
    if not features:
        return pd.DataFrame(columns=["dataset", "set", "label", "x", "y"])
    for name, values in features.items():
        if values.ndim != 2 or len(labels.get(name, ())) != len(values) or not np.isfinite(values).all():
            raise InputError(
                f"the features of {name} have shape {list(values.shape)}, with {len(labels.get(name, ()))} labels; "
                "expected finite numbers [N, D] and N labels: take them again in notebooks/03_eval.ipynb."
            )
    widths, count = {values.shape[1] for values in features.values()}, sum(map(len, features.values()))
    if len(widths) != 1 or count < 4:
        raise InputError(
            f"{len(features)} sets hold {count} images with {sorted(widths)} features; "
            "expected one width and at least 4 images: take the features of all sets in one feature space."
        )
    rng = np.random.default_rng(seed)
    picked = {  # a set of `most` images or fewer is kept whole and in order
        name: np.sort(rng.permutation(len(values))[:most]) for name, values in features.items()
    }
    together = np.concatenate([features[name][rows] for name, rows in picked.items()]).astype(np.float64)
    places = _tsne(together, seed)
    return pd.DataFrame(
        {
            "dataset": dataset,
            "set": np.repeat(list(picked), [len(rows) for rows in picked.values()]),
            "label": np.concatenate([np.asarray(labels[name])[rows] for name, rows in picked.items()]),
            "x": places[:, 0],
            "y": places[:, 1],
        }
    )


def _tsne(features: np.ndarray, seed: int) -> np.ndarray:
    """float64 [N, 2]."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # of scikit-learn's own dependencies

    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    # The order in which threads add up differs from run to run, and t-SNE makes other maps of the last digits.
    with threadpool_limits(1):
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
        return tsne.fit_transform(features).astype(np.float64)


def gap_table(measures: pd.DataFrame) -> pd.DataFrame:
    """The gap to the real images: mean KID and FID of each set, with Student's t interval over replicates.

    measures: rows of measures.csv. Columns: dataset, trick, setting, (images,) measure, feature_space, mean, low, high (empty for
    one replicate), method, n_replicates, in the order of the tricks.
    """
    told_apart = ["dataset", "trick", "setting", *(["images"] if "images" in measures else [])]
    told_apart += ["measure", "feature_space"]
    table = []
    chosen = measures[measures["measure"].isin(GAPS)].dropna(subset=["value"])
    for who, rows in chosen.groupby(told_apart, sort=False, dropna=False):
        found = statistics.t_interval(rows["value"].to_numpy(float))
        n = len(rows)  # of the images: no classifier is behind them
        row = dict(zip(told_apart, who, strict=True)) | found._asdict()
        table.append(row | {"method": statistics.interval_method(n, n, 1), "n_replicates": n})
    table = pd.DataFrame(table, columns=[*told_apart, "mean", "low", "high", "method", "n_replicates"])
    order = sorted(range(len(table)), key=lambda row: treatment_order(treatments(table).iloc[row]))
    return table.iloc[order].reset_index(drop=True)


def feature_map_figure(
    frame: pd.DataFrame, gaps: pd.DataFrame | None = None, feature_space: str = "", not_run: Sequence[str] = ()
) -> "Figure":
    """F5: small multiples of `feature_map`, a panel a trick: the real images in grey, the trick's own in its colour.

    gaps: rows of measures.csv (or of `gap_table`) for one data set; a title has those taken in `feature_space`. A set is
    named "trick" or "trick+setting". InputError: gaps of several data sets.
    """
    sets = sorted(set(frame["set"]) - {REAL}, key=treatment_order)
    if not sets:
        return not_run_figure(not_run)
    gaps = gap_table(gaps) if gaps is not None and "mean" not in gaps else gaps
    if gaps is not None and gaps["dataset"].nunique() > 1:
        raise InputError(
            f"the gaps are of {', '.join(gaps['dataset'].unique())}; expected those of the map's data set: choose its rows."
        )
    figure, axes = new_panels(len(sets), 3, 2.45)
    real = frame[frame["set"] == REAL]
    for name, ax in zip(sets, axes, strict=True):
        mine = frame[frame["set"] == name]
        ax.scatter(real["x"], real["y"], s=7, color=REAL_COLOUR, linewidths=0, zorder=1)
        ax.scatter(mine["x"], mine["y"], s=7, color=trick_style(name)[0], linewidths=0, alpha=0.75, zorder=2)
        lines = [treatment_label(name), *gap_words(gaps, name, feature_space)]
        title_panel(ax, "\n".join(lines))
        ax.set_xlim(frame["x"].min() - 2, frame["x"].max() + 2)  # one map: the same limits in every panel
        ax.set_ylim(frame["y"].min() - 2, frame["y"].max() + 2)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(visible=False)
        ax.spines[:].set_visible(True)
        ax.spines[:].set_color("#c8c8c8")
    n = f"{len(real)} real images in grey" if len(real) else "no real images"
    figure.suptitle(f"t-SNE of {feature_space or 'the'} features; {n}", x=0.01, ha="left", fontsize=8)
    figure.set_figheight(figure.get_figheight() + 0.2)
    return add_not_run(figure, not_run)


def gap_words(gaps: pd.DataFrame | None, name: str, feature_space: str) -> list[str]:
    """The lines of a set's title: "KID 0.0123 [0.0110, 0.0136]", and the same of FID; none where none was measured."""
    if gaps is None or gaps.empty:
        return []
    mine = gaps[(treatments(gaps) == name) & (gaps["feature_space"] == feature_space)]
    lines = []
    for measure in GAPS:
        for row in mine[mine["measure"] == measure].itertuples():
            mean, low, high = (f"{value:#.3g}".rstrip(".") for value in (row.mean, row.low, row.high))
            lines.append(f"{measure.upper()} {mean}" + ("" if pd.isna(row.low) else f" [{low}, {high}]"))
    return lines
