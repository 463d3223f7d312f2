"""Images as figures: rows of images with titles, and the sample grid (F1). Arrays or tensors in, Axes out."""

import math
import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from synthlib.inputs import InputError
from synthlib.results.style import GREY, ONE_COLUMN, TWO_COLUMN, add_not_run, new_axes, not_run_figure


def plot_images(
    images: ArrayLike, titles: Sequence[str] | None = None, columns: int = 10, ax: Axes | None = None
) -> Axes:
    """Show uint8 images [N, 3, H, W] in rows of `columns`, with an optional title (a prompt, say) above each."""
    pixels = _pixels(images)
    n, height, width, _ = pixels.shape
    if not n:
        raise InputError("there are no images to show; expected uint8 [N, 3, H, W], N at least 1.")
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    if titles is not None and len(titles) != n:
        raise InputError(f"there are {len(titles)} titles for {n} images; expected one each.")
    inches = max(0.62, 6.5 / max(columns, 8)) if titles is None else max(0.95, 6.5 / columns)
    wrapped = [textwrap.fill(title, max(8, int(inches * 14))) for title in titles] if titles is not None else []
    lines = max((text.count("\n") + 1 for text in wrapped), default=0)
    above = lines * 0.13 / inches  # room for the titles, in image widths
    ax = ax or new_axes((columns * inches, rows * inches * (1.04 + above) + 0.3))
    for place in range(n):
        row, column = divmod(place, columns)
        x, y = column * 1.06, row * (1.06 + above) + above
        ax.imshow(pixels[place], extent=(x, x + 1, y + height / width, y), interpolation="nearest")
        if wrapped:
            ax.text(x + 0.5, y - 0.03, wrapped[place], ha="center", va="bottom", fontsize=7)
    ax.set_xlim(-0.02, columns * 1.06 - 0.04)
    ax.set_ylim(rows * (1.06 + above) - 0.04, -0.02)
    return _bare(ax)


def plot_sample_grid(
    images: Sequence[Sequence[ArrayLike | None]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """F1: a grid of images, rows = tricks, columns = classes, a few images in each cell.

    images[row][column]: uint8 [k, 3, H, W] (or one image [3, H, W]), of the same size everywhere; None for a cell that was
    not run. Where k is smaller than in the fullest cell, or 0, the rest stays white.
    """
    cells = [[None if cell is None else _pixels(cell) for cell in row] for row in images]
    filled = [cell for row in cells for cell in row if cell is not None]
    shapes = {cell.shape[1:] for cell in filled}
    if len(cells) != len(row_names) or any(len(row) != len(column_names) for row in cells) or len(shapes) != 1:
        raise InputError(
            f"the grid has {len(cells)} rows of {sorted({len(row) for row in cells})} cells with images "
            f"{sorted(shapes)}; expected {len(row_names)} rows of {len(column_names)} cells, all of one shape."
        )
    (height, width, _), k = shapes.pop(), max(map(len, filled))
    across = math.ceil(math.sqrt(k))
    down = math.ceil(k / across)
    thin, wide = max(1, width // 32), max(3, width // 6)  # white gaps in a cell and between cells, in pixels
    cell_height, cell_width = down * (height + thin) - thin, across * (width + thin) - thin
    step_y, step_x = cell_height + wide, cell_width + wide
    canvas = np.full((len(cells) * step_y - wide, len(column_names) * step_x - wide, 3), 255, dtype=np.uint8)
    across_page = ONE_COLUMN if len(column_names) <= 3 else TWO_COLUMN
    inches = (across_page - 0.35 - 0.06 * max(map(len, row_names), default=0)) / len(column_names)
    row_names, column_names = ([name.replace("_", " ") for name in names] for names in (row_names, column_names))
    longest = max(map(len, column_names)) * 0.068  # inches, at 7.5 points
    slanted = longest > inches
    if slanted:  # the last one reaches beyond its column
        inches = max(0.4, min(inches, (len(column_names) * inches - 0.8 * longest) / (len(column_names) - 0.5)))
    above = 0.25 + (0.6 * longest if slanted else 0)
    ax = ax or new_axes((across_page, len(cells) * inches * step_y / step_x + above + 0.3))
    for row, line in enumerate(cells):
        for column, cell in enumerate(line):
            top, left = row * step_y, column * step_x
            if cell is None:
                canvas[top : top + cell_height, left : left + cell_width] = 240
                ax.text(
                    left + cell_width / 2,
                    top + cell_height / 2,
                    "not run",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color=GREY,
                )
                continue
            for place, image in enumerate(cell):
                y, x = top + place // across * (height + thin), left + place % across * (width + thin)
                canvas[y : y + height, x : x + width] = image
    ax.imshow(canvas, interpolation="nearest")
    _bare(ax)
    ax.xaxis.tick_top()
    ax.set_xticks([column * step_x + cell_width / 2 for column in range(len(column_names))], column_names)
    ax.tick_params(axis="x", length=0, rotation=35 if slanted else 0)
    if slanted:
        plt.setp(ax.get_xticklabels(), ha="left", rotation_mode="anchor")
    ax.set_yticks([row * step_y + cell_height / 2 for row in range(len(cells))], row_names)
    ax.tick_params(axis="y", length=0)
    return ax


def sample_figure(
    images: Sequence[Sequence[ArrayLike | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    not_run: Sequence[str] = (),
) -> Figure:
    """F1: `plot_sample_grid`, and below it what was not run; of an empty grid only that."""
    if not any(cell is not None for row in images for cell in row):
        return not_run_figure(not_run)
    return add_not_run(plot_sample_grid(images, rows, columns).figure, not_run)


def _bare(ax: Axes) -> Axes:
    """No frame, grid or ticks: for images."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set_aspect("equal")
    return ax


def _pixels(images: ArrayLike) -> np.ndarray:
    """uint8 [N, 3, H, W] (or [3, H, W]; arrays or tensors) -> [N, H, W, 3]."""
    pixels = np.asarray(images)
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.dtype != np.uint8:
        raise InputError(f"images have shape {pixels.shape} and type {pixels.dtype}; expected uint8 [N, 3, H, W].")
    return pixels.transpose(0, 2, 3, 1)
