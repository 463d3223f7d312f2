"""Label noise: how often a referee does not see in a generated image the class it was drawn for, by trick and by class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from synthlib.inputs import InputError
from synthlib.results import trick_label
from synthlib.results.statistics import wilson_interval, wilson_method

if TYPE_CHECKING:
    import torch

pd.set_option("display.html.use_mathjax", False)  # JupyterLab shows a $ in a name as a $
ALL = "all"  # in place of a group or a class: all of them together
COLUMNS = ("group", "class", "n", "disagree", "disagree_percent", "low_percent", "high_percent", "interval_method",
           "referee_error_percent")  # fmt: skip


def label_noise(
    referee_logits: "torch.Tensor",
    labels: "torch.Tensor",
    groups: Sequence[str],
    classes: Sequence[str] = (),
    referee_error_percent: float | None = None,
) -> pd.DataFrame:
    """Share of images whose label the referee does not agree with, by group and by class, with 95 % Wilson intervals.

    referee_logits: float [N, C]; labels: int64 [N] into the referee's C classes; groups: N names, such as each image's
    trick; classes: C names (default: their numbers); referee_error_percent: the referee's own error on real images, or None.

    Rows: each group in order of appearance, first all its classes ("all"), then each class it has; before them, where there
    are several groups, all groups together. Columns: COLUMNS.

    What it tells: an upper estimate of wrong labels *as this referee sees them*, and which trick or class has more of it
    than another under the same referee. What it does not tell: whether the image or the referee is wrong. A referee that
    errs on r % of real images cannot tell noise below about r % from its own mistakes, so a share that is not clearly above
    `referee_error_percent` is no evidence of noise at all. Nor is that error the referee's error on generated images: on
    drawings, sketches or styles that it never saw it errs more often, so a high share for a diverse trick can be the referee's
    and not the trick's; on images like those it learned from it errs less often (the glyph referee on drawn digits). A
    referee that learned from the same generator errs with it and sees too little. Nor does agreement make an image good:
    ambiguous, ugly or duplicate images can have the right label.

    InputError: lengths that differ, a label that is none of the referee's classes, no image.
    """
    n, n_classes = referee_logits.shape
    if n != len(labels) or n != len(groups):
        raise InputError(
            f"the referee judged {n} images, there are {len(labels)} labels and {len(groups)} groups; expected one each."
        )
    names = [str(name) for name in classes] or [str(number) for number in range(n_classes)]
    if len(names) != n_classes or n == 0 or not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise InputError(
            f"{n} images, {len(names)} class names and a referee of {n_classes} classes; expected images whose labels and "
            "class names are the referee's: judge them with a referee of this data set."
        )
    wrong, labels = (referee_logits.argmax(1) != labels).cpu().numpy(), labels.cpu().numpy()
    groups = np.asarray(groups)
    found = list(dict.fromkeys(groups.tolist()))
    rows = []
    for group in [ALL, *found] if len(found) > 1 else found:
        mine = np.ones(n, bool) if group == ALL and len(found) > 1 else groups == group
        parts = {ALL: mine} | {names[k]: mine & (labels == k) for k in np.unique(labels[mine])}
        for name, chosen in parts.items():
            total, misses = int(chosen.sum()), int(wrong[chosen].sum())
            share = (round(value, 4) for value in wilson_interval(misses, total))
            rows.append((group, name, total, misses, *share, wilson_method(total), referee_error_percent))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"referee_error_percent": float})


def noise_view(table: pd.DataFrame) -> pd.DataFrame:
    """What a person reads of `label_noise`: a row for each class, a column for each group, "8 of 30: 26.7 [14.2, 44.4]" %."""
    shares = zip(*(table[name] for name in COLUMNS[2:7]), strict=True)
    words = [f"{wrong} of {n}: {share:.1f} [{low:.1f}, {high:.1f}]" for n, wrong, share, low, high in shares]
    places = pd.MultiIndex.from_arrays([table["class"], table["group"].map(trick_label)])
    view = pd.Series(words, index=places).unstack(fill_value="")
    view = view.reindex(index=table["class"].unique(), columns=places.unique(1))
    return view.rename_axis(index=None, columns="disagrees, %")
