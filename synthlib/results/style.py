"""How every figure looks: palette, marks, sizes, the note at the bottom; and how it is saved, with repeatable bytes."""

import io
import textwrap
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from synthlib import receipts
from synthlib.results import trick_order
from synthlib.settings import TRICKS

# seaborn.color_palette("colorblind"), written out because importing seaborn takes longer than drawing
PALETTE = ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"]
GREY = "#5f5f5f"
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "*"]
MODE_STYLES = {"eval": (PALETTE[0], "o"), "authors": (PALETTE[3], "s")}
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "axes.prop_cycle": mpl.cycler(color=PALETTE),
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # TrueType, whole and searchable: some printers and venues refuse Type 3
    "ps.fonttype": 42,
}


def use_style() -> None:
    """Set the look of every figure of the kit (colour-blind palette, constrained layout, embedded fonts)."""
    mpl.rcParams.update(STYLE)


def new_axes(size: tuple[float, float]) -> Axes:
    """One Axes of `size` inches in a figure of the kit's style."""
    use_style()
    return plt.subplots(figsize=size)[1]


def add_note(figure: Figure, note: str) -> None:
    """Write `note` small at the bottom left of a figure, wrapped to its width; a second call replaces the first."""
    width = max(30, int(figure.get_figwidth() * 72 / 3.6))  # characters of 7 points, measured at about 3.6 points each
    text = "\n".join(textwrap.wrap(note, width))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7, color=GREY)  # a label, so that the layout leaves room for it


def save_figure(figure: Figure, stem: str | Path, note: str) -> list[Path]:
    """Write `stem`.png and `stem`.pdf with the note at the bottom; equal figures give equal bytes."""
    add_note(figure, note)
    stem = Path(stem)
    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    made = []
    with mpl.rc_context(STYLE):
        for suffix, metadata in undated.items():
            data = io.BytesIO()
            figure.savefig(data, format=suffix, metadata=metadata)
            made.append(stem.with_name(f"{stem.name}.{suffix}"))
            receipts.write_atomic(made[-1], data.getvalue())
    return made


def trick_style(trick: str) -> tuple[str, str]:
    """Colour and marker of a trick, the same in every figure."""
    place, name = trick_order(trick)
    if place == len(TRICKS):  # a condition that is no trick (real images, a given set): one of the colours left
        place += sum(map(ord, name)) % (len(PALETTE) - len(TRICKS))
    return PALETTE[place], MARKERS[place]
