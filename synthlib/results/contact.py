"""Contact sheet: a row of images for each class of a set, as a PNG; only the images shown are decoded."""

import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from synthlib.data.describe import read_rows
from synthlib.data.shards import decode_image, join_shards, read_table, shard_classes, stacked
from synthlib.files import write_atomic
from synthlib.results import trick_label, trick_order
from synthlib.results.style import GREY, explain_boxes, use_style

DPI = 100
MANY = 20  # classes; of more, images are shown smaller
NAME_CHARACTERS = 24  # in a line of a class name
NAME, TITLE, LINE = 8, 10, 13  # points, points, and pixels from one line of a name to the next
GAP, MARGIN = 2, 12  # pixels between images, and around all
ASPECT = 1.5  # of width to height, that the sheet shall come near to


def contact_sheet(files: Sequence[Path], path: Path, per_class: int = 10) -> None:
    """Write a PNG with a row of `per_class` images for each class, spread evenly over the set's order.

    files: the shards of a set, see shards.set_files. Small images are shown in whole multiples of their pixels; of many classes
    there are several columns of rows, to be read downwards. InputError for Parquet files that are no shards.
    """
    rows = join_shards([read_rows(file) for file in files], files)
    classes, labels = shard_classes(rows), rows["label"].to_numpy()
    wanted = spread_over_classes(labels, len(classes), per_class)
    pixels = stacked([fitted(image, len(classes)) for image in _images(files, wanted)], files[0].parent)
    shown = [pixels[labels[wanted] == label] for label in range(len(classes))]
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    figure = _draw_sheet(shown, classes, counts, _title(files[0].parent, rows), per_class)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})  # undated: the same set, the same bytes
    write_atomic(path, data.getvalue())


def _images(files: Sequence[Path], wanted: np.ndarray) -> Iterator[np.ndarray]:
    """Pixels uint8 [H, W, 3] of the rows of these numbers, in order, one at a time: together they may be large."""
    first = 0
    for file in files:
        count = pq.read_metadata(file).num_rows
        mine = wanted[(wanted >= first) & (wanted < first + count)] - first
        if len(mine):
            for image in read_table(file, ["image"])["image"].take(pa.array(mine)):
                yield decode_image(image["bytes"].as_py())
        first += count


def spread_over_classes(labels: np.ndarray, classes: int, per_class: int) -> np.ndarray:
    """Numbers of the rows to show, int [k] in rising order: of each class the first, the last and others evenly between.

    labels: int [N] of all rows.
    """
    found = []
    for label in range(classes):
        mine = np.flatnonzero(labels == label)
        found.append(mine[np.linspace(0, len(mine) - 1, min(per_class, len(mine))).round().astype(int)])
    return np.sort(np.concatenate(found))


def fitted(pixels: np.ndarray, classes: int) -> np.ndarray:
    """An image uint8 [H, W, 3] at the size of the sheet: each pixel repeated, or of a large one boxes of pixels averaged."""
    least, most = (64, 128) if classes <= MANY else (32, 64)
    side = max(pixels.shape[:2])
    if side > most:
        return np.asarray(Image.fromarray(pixels).reduce(math.ceil(side / most)))
    times = math.ceil(least / side)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def _title(folder: Path, rows: pa.Table) -> str:
    """Name of the set, images, tricks, and whether nobody knows the prompts."""
    folder = folder.parent if folder.name == "data" else folder  # of an export for Hugging Face
    name = folder.name.removeprefix(".").removesuffix(".synthlib")  # of `synthlib generate`
    tricks = sorted(rows["trick"].unique().to_pylist(), key=trick_order)
    unknown = "prompt" not in rows.column_names or rows["prompt"].null_count == len(rows)
    words = [
        f"{len(rows)} image{'' if len(rows) == 1 else 's'}",
        f"trick {', '.join(map(trick_label, tricks))}",
        "prompts unknown" if unknown else "",
    ]
    title = f"{name}: {'; '.join(filter(None, words))}"
    boxes = explain_boxes([title, *shard_classes(rows)])
    return f"{title}. {boxes}" if boxes else title


def _draw_sheet(shown: list[np.ndarray], classes: list[str], counts: list[int], title: str, per_class: int) -> Figure:
    """A figure of rows of images uint8 [k, h, w, 3], one of each class, with names and counts; 1 pixel of it is 1 of theirs."""
    with mpl.rc_context():
        use_style()
        figure = Figure(dpi=DPI)
    figure.set_layout_engine("none")  # every place is given in pixels
    renderer = FigureCanvasAgg(figure).get_renderer()

    def width_of(text: str, points: float) -> int:
        font = mpl.font_manager.FontProperties(size=points)
        return math.ceil(renderer.get_text_width_height_descent(text, font, ismath=False)[0])

    high, wide = next(images.shape[1:3] for images in shown if len(images))
    names = [_wrapped(name) for name in classes]
    beside = max(width_of(line, NAME) for lines in [*names, map(str, counts)] for line in lines) + 8
    column = beside + per_class * (wide + GAP) + 2 * MARGIN
    row = max(high + GAP, LINE * (1 + max(map(len, names))) + 4)
    columns = min(range(1, len(classes) + 1), key=lambda n: _off_shape(n * column, math.ceil(len(classes) / n) * row))
    down = math.ceil(len(classes) / columns)
    width = columns * column
    # Of a line, some being wider than others.
    letters = int(len(title) * (width - 2 * MARGIN) / width_of(title, TITLE) * 0.9)
    title_lines = textwrap.wrap(title, max(8, letters))
    above = MARGIN + len(title_lines) * 18 + 6
    height = above + down * row + MARGIN
    canvas = np.full((height, width, 3), 255, np.uint8)
    figure.set_size_inches((width + 0.01) / DPI, (height + 0.01) / DPI)  # rounded down to whole pixels

    def write(x: float, y: float, text: str, points: float, colour: str) -> None:
        place = {"va": "center", "fontsize": points, "color": colour, "parse_math": False}
        figure.text(x / width, 1 - y / height, text, **place)

    for number, line in enumerate(title_lines):
        write(MARGIN, MARGIN + 18 * number + 9, line, TITLE, "black")
    for place, images in enumerate(shown):
        left, top = MARGIN + place // down * column, above + place % down * row
        for number, image in enumerate(images):
            x = left + beside + number * (wide + GAP)
            canvas[top : top + high, x : x + wide] = image
        lines = [(line, "black") for line in names[place]] + [(str(counts[place]), GREY)]
        for number, (line, colour) in enumerate(lines):
            write(left, top + high / 2 + LINE * (number - (len(lines) - 1) / 2), line, NAME, colour)
    figure.figimage(canvas)
    return figure


def _wrapped(name: str) -> list[str]:
    """The lines of a class name, whole: broken at spaces, hyphens and underscores, within a word only where it is too long."""
    return [line.replace("_ ", "_") for line in textwrap.wrap(name.replace("_", "_ "), NAME_CHARACTERS)]


def _off_shape(width: int, height: int) -> float:
    """How far a sheet is from the shape that it shall come near to."""
    return abs(math.log(width / height / ASPECT))
