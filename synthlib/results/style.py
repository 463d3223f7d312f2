"""How every figure looks: palette, marks, widths, panels, legends, the note at the bottom; and how it is saved.

Imports matplotlib only, as all modules that draw: notebooks 01 to 03 should not wait for pandas or seaborn.
"""

import io
import math
import re
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from synthlib.files import write_atomic
from synthlib.names import EVALUATION_MODES, REAL_TRICKS, TRICKS, UNKNOWN
from synthlib.results import VARIANTS, known, trick_label, trick_order, variant_words

if TYPE_CHECKING:
    import pandas as pd

ONE_COLUMN, TWO_COLUMN = 3.3, 6.9  # inches: widths of a CVPR page's column and of its text, which every figure has
# seaborn.color_palette("colorblind"), written out because importing seaborn takes longer than drawing
PALETTE = ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"]
GREY = "#5f5f5f"
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "d"]
TRICK_STYLES = {  # conditions that are no trick are dark, and differ by their marker
    # an eleventh trick would have the first colour again, with another marker
    **{name: (PALETTE[place % 10], MARKERS[(place + place // 10) % 10]) for place, name in enumerate(TRICKS)},
    **dict(zip((*REAL_TRICKS, UNKNOWN), (("black", "*"), ("black", "p"), (GREY, "h")), strict=True)),
}
MODE_STYLES = {"eval": (PALETTE[0], "o"), "authors": (PALETTE[3], "s")}
MODE_LINES = dict(zip(EVALUATION_MODES, ("-", "--"), strict=True))  # where the colour says the trick
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "legend.fontsize": 7.5,
    "legend.title_fontsize": 7.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
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
    "figure.constrained_layout.w_pad": 0.07,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    # class names, prompts and notes are the user's words: a $ in them is a $, never mathematics
    "text.parse_math": False,
    "text.usetex": False,
    "axes.formatter.use_mathtext": False,
    "pdf.fonttype": 42,  # TrueType, whole and searchable: some printers and venues refuse Type 3
    "ps.fonttype": 42,
}


def use_style() -> None:
    """Set the look of every figure of the kit (colour-blind palette, constrained layout, embedded fonts, no mathematics)."""
    mpl.rcParams.update(STYLE)
    warnings.filterwarnings(
        "ignore", "Glyph .* missing from font"
    )  # once a letter; `save_figure` says it below the figure


def new_axes(size: tuple[float, float]) -> Axes:
    """One Axes of `size` inches in a figure of the kit's style."""
    use_style()
    return plt.subplots(figsize=size)[1]


def new_panels(n: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `n` Axes, at most `columns` in a row of `height` inches; what is left of the last row stays empty.

    One panel takes the width of a column, more take the width of the text.
    """
    use_style()
    columns = min(n, columns)
    rows = math.ceil(n / columns)
    width = ONE_COLUMN if n == 1 else TWO_COLUMN
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=(width, height * rows))
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    return figure, list(axes.flat[:n])


def title_panel(ax: Axes, title: str) -> None:
    """Write a panel's title at its left, wrapped to the panel's share of the figure's width."""
    inches = ax.figure.get_figwidth() / ax.get_subplotspec().get_gridspec().ncols - 0.5
    lines = [part for line in title.split("\n") for part in textwrap.wrap(line, int(inches * 72 / 4.4))]
    ax.set_title("\n".join(lines), loc="left")


def not_run_figure(not_run: Sequence[str]) -> Figure:
    """The figure of a result of which nothing can be drawn: it says what was not run, and why."""
    lines = [
        line
        for text in grouped(not_run) or ["nothing was evaluated for it"]
        for line in _wrapped(text, TWO_COLUMN - 0.6)
    ]
    ax = new_axes((TWO_COLUMN, 0.8 + 0.14 * len(lines)))
    ax.set_axis_off()
    ax.text(  # of 7 points, for which the lines are wrapped
        0.5, 0.5, "\n".join(["Nothing to draw. Not run:", *lines]), ha="center", va="center", fontsize=7, color=GREY
    )
    return ax.figure


def add_not_run(figure: Figure, not_run: Sequence[str]) -> Figure:
    """Write what was not run small below a figure, which grows by it; it stays above the note of `add_note`."""
    lines = [line for text in grouped(not_run) for line in _wrapped(f"not run: {text}", figure.get_figwidth())]
    if lines:
        figure.not_run = lines  # kept on the figure, because `save_figure` replaces the note
        add_note(figure, "")
    return figure


def grouped(not_run: Sequence[str]) -> list[str]:
    """Lines such as "merged, resnet: why", those of one reason in one: "merged, resnet; merged, vit: why".

    The reason begins after the first colon that follows a comma: "digits: merged, resnet: why" names a data set too,
    which is said once: "digits: merged, resnet; merged, vit: why".
    """
    by_reason: dict[str, list[str]] = {}
    for line in dict.fromkeys(not_run):
        found = re.match(r"([^,]*,.*?): (.*)", line)
        what, why = found.groups() if found else (line, "")
        by_reason.setdefault(why, []).append(what)
    return ["; ".join(_datasets_once(whats)) + (f": {why}" if why else "") for why, whats in by_reason.items()]


def add_note(figure: Figure, note: str) -> None:
    """Write `note` small at the bottom left of a figure, wrapped to its width; a second call replaces the first.

    The figure grows by the lines, so that the panels keep their size.
    """
    lines = [*getattr(figure, "not_run", []), *_wrapped(note, figure.get_figwidth())]
    before = figure.get_supxlabel()
    more = len(lines) - (before.count("\n") + 1 if before else 0)
    figure.set_figheight(figure.get_figheight() + 0.12 * more)
    # a label, so that the layout leaves room for it
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=7, color=GREY)


def add_legend(figure: Figure, handles: dict[str, Artist], title: str | None = None) -> None:
    """One legend above all panels of a figure, label -> handle, in as many columns as fit; the figure grows by it."""
    if not handles:
        return
    if title:
        title = "\n".join(part for line in title.split("\n") for part in _wrapped(line, 0.91 * figure.get_figwidth()))
    widest = 0.42 + 0.058 * max(len(line) for label in handles for line in label.split("\n"))  # inches, at 7.5 points
    columns = max(1, min(len(handles), int(figure.get_figwidth() / widest)))
    lines = math.ceil(len(handles) / columns) * max(label.count("\n") + 1 for label in handles)
    lines += title.count("\n") + 1 if title else 0
    figure.set_figheight(figure.get_figheight() + 0.15 * lines + 0.1)
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper left", ncols=columns, title=title, alignment="left",
        columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip


def take_legend(ax: Axes) -> dict[str, Artist]:
    """Label -> handle of a panel, whose own legend goes: the figure has one for all."""
    handles, labels = ax.get_legend_handles_labels()
    if ax.get_legend():
        ax.get_legend().remove()
    return dict(zip(labels, handles, strict=True))


def save_figure(figure: Figure, stem: str | Path, note: str) -> list[Path]:
    """Write `stem`.png and `stem`.pdf with the note at the bottom; equal figures give equal bytes.

    The note also says where a box stands for a letter that the font lacks.
    """
    boxes = explain_boxes([note, *(text.get_text() for text in figure.findobj(Text))])
    add_note(figure, " ".join(filter(None, [note, boxes])))
    stem = Path(stem)
    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    made = []
    with mpl.rc_context(STYLE):
        for suffix, metadata in undated.items():
            data = io.BytesIO()
            figure.savefig(data, format=suffix, metadata=metadata)
            made.append(stem.with_name(f"{stem.name}.{suffix}"))
            write_atomic(made[-1], data.getvalue())
    return made


def trick_style(trick: str) -> tuple[str, str]:
    """Colour and marker of a trick or of "trick+setting", which shares them, the same in every figure."""
    return TRICK_STYLES.get(trick.partition("+")[0], (GREY, "8"))


def treatment_label(treatment: str) -> str:
    """The words for "trick" or "trick+setting": "random guidance, guidance=3"."""
    trick, _, setting = treatment.partition("+")
    return trick_label(trick) + (f", {setting}" if setting else "")


def treatment_order(treatment: str) -> tuple:
    """Sort key: the order of tricks, of one trick without a setting first, then numbers by size."""
    trick, _, setting = treatment.partition("+")
    name, _, value = setting.partition("=")
    try:
        return (*trick_order(trick), name, float(value), value)
    except ValueError:
        return (*trick_order(trick), name, -math.inf, value)


def panels_of(frame: "pd.DataFrame", apart: Sequence[str] = ()) -> list[tuple[str, "pd.DataFrame"]]:
    """Title and rows of each panel: one a data set, architecture, each of `apart`, and each variant that differs.

    The setting tells treatments apart, not panels. frame: any of the columns of `rows.CONDITION`.
    """
    differ = [
        name for name in VARIANTS if name in frame and name not in ("setting", *apart) and frame[name].nunique() > 1
    ]
    keys = [name for name in ("dataset", "architecture") if name in frame] + list(apart) + differ
    found = []
    for _, rows in frame.groupby(keys, sort=False, dropna=False):
        first = rows.iloc[0]
        titled = ", ".join(str(first[name]) for name in ("dataset", "architecture") if name in frame)
        words = [name for name in (*apart, *differ) if name in VARIANTS]
        if "setting" in apart:
            words = unsaid(first["setting"], words)
        found.append((titled + variant_words(first, words), rows))
    return found


def unsaid(setting: str, names: Sequence[str]) -> list[str]:
    """The variants that a setting has not named already: "init=imagenet" has said what the init is."""
    return [name for name in names if not str(setting).startswith(f"{name}=")]


def draw_values(ax: Axes, x: Sequence[float], values: Iterable[object], colour: str, across: bool = False) -> None:
    """The values of few replicates as dots, in place of an interval: at each x those of a table's cell ("48.25 60.1").

    across: x is the height of a line, and the values go along it.
    """
    found = [(place, float(value)) for place, cell in zip(x, values, strict=True) for value in known(cell).split()]
    if found:
        at, along = zip(*found, strict=True)
        ax.scatter(*((along, at) if across else (at, along)), s=8, color=colour, alpha=0.6, linewidths=0, zorder=2)


def dots_words(values: Iterable[object]) -> list[str]:
    """What a legend says of the dots of `draw_values`, where there are any."""
    return ["dots: each of two or three replicates, too few for an interval"] if any(map(known, values)) else []


def over_words(methods: Iterable[str]) -> str:
    """What intervals are over, of methods as `statistics.interval_method` says them: "replicates (training seeds only)".

    The seeds are named where all methods of more than one replicate name the same; an empty one is of what was not run.
    """
    seeds = {"".join(re.findall(r"\(.*\)", method)) for method in map(known, methods) if " replicates" in method}
    return f"replicates {min(seeds)}".strip() if len(seeds) == 1 else "replicates"


def explain_boxes(words: Iterable[str]) -> str:
    """The sentence for a figure with letters that the font does not have; "" where it has them all."""
    font = mpl.font_manager.get_font(mpl.font_manager.findfont(mpl.font_manager.FontProperties()))
    lacking = any(not font.get_char_index(ord(letter)) for letter in set("".join(words)) if letter.isprintable())
    return "A box stands for a letter that the font of figures lacks." if lacking else ""


def _datasets_once(whats: Sequence[str]) -> list[str]:
    """Conditions such as "digits: merged, vit", without the data set where the one before has it too."""
    datasets = [what.rpartition(": ")[0] for what in whats]
    return [
        what.removeprefix(f"{dataset}: ") if dataset == former else what
        for what, dataset, former in zip(whats, datasets, ["", *datasets], strict=False)
    ]


def _wrapped(text: str, inches: float) -> list[str]:
    """Lines of 7 points that fit into a width, a character measured at about 3.6 points."""
    return textwrap.wrap(text, max(30, int(inches * 72 / 3.6)))
