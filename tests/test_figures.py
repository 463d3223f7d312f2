"""The figures: what is drawn is what the data say, and a saved figure repeats byte for byte."""

import re
import subprocess
import sys
import zlib

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import test_curves_and_gains

from synthlib.inputs import InputError
from synthlib.names import REAL_TRICKS, TRICKS, UNKNOWN
from synthlib.results import figures, gains, rows, style, tables


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


ONE_OF_EACH = {"setting": "", "split": "test", "images": "drawn", "init": "scratch", "protocol": "miniature"}


def t1(*architectures):
    """T1: base 60 [56, 64] in eval mode, merged 70 [65, 75], authors' mode 5 points more; class prompt not run."""
    lines = []
    for architecture in architectures:
        for trick, mean, half in (("base_class", 60.0, 4.0), ("merged", 70.0, 5.0), ("class_prompt", np.nan, np.nan)):
            for mode, bonus in (("eval", 0), ("authors", 5)):
                lines.append(
                    ["digits", trick, architecture, mode, mean + bonus, mean + bonus - half, mean + bonus + half]
                )
    columns = ["dataset", "trick", "architecture", "evaluation_mode", "accuracy_percent", "ci_low", "ci_high"]
    table = pd.DataFrame(lines, columns=columns).assign(published_percent="not available", status="run", **ONE_OF_EACH)
    table.loc[table["accuracy_percent"].isna(), "status"] = "not run: no GPU"
    return table


def points(ax, marker):
    return sorted(
        tuple(map(float, (line.get_xdata()[0], line.get_ydata()[0])))
        for line in ax.lines
        if line.get_marker() == marker
    )


def texts(ax):
    return [text.get_text() for text in ax.texts]


# --- F2 ---------------------------------------------------------------------------------------------------------------


def test_modes_differ_by_marker_and_by_colour():
    ax = figures.plot_accuracy_by_trick(t1("cnn"))
    assert [x for x, _ in points(ax, "o")] == [60, 70] and [x for x, _ in points(ax, "s")] == [65, 75]
    colours = {line.get_marker(): line.get_color() for line in ax.lines if line.get_marker() in ("o", "s")}
    assert colours["o"] != colours["s"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["eval mode", "authors' mode"]


def test_the_bar_is_the_interval():
    ax = figures.plot_accuracy_by_trick(t1("cnn"))
    bars = sorted(tuple(map(float, line.get_xdata())) for line in ax.lines if len(line.get_xdata()) == 2)
    assert bars == [(56, 64), (61, 69), (65, 75), (70, 80)]


def test_few_replicates_are_dots_in_place_of_a_bar():
    table = t1("cnn").assign(accuracy_values="")
    base = (table["trick"] == "base_class") & (table["evaluation_mode"] == "eval")
    table.loc[base, "accuracy_values"] = "57.5 62.5"
    ax = figures.plot_accuracy_by_trick(table)
    bars = sorted(tuple(map(float, line.get_xdata())) for line in ax.lines if len(line.get_xdata()) == 2)
    assert bars == [(61, 69), (65, 75), (70, 80)]  # not (56, 64)
    assert [x for dots in ax.collections for x, _ in dots.get_offsets().tolist()] == [57.5, 62.5]
    assert "dots" in ax.get_xlabel() and "dots" not in figures.plot_accuracy_by_trick(t1("cnn")).get_xlabel()


def test_tricks_come_in_canonical_order_and_what_was_not_run_says_so():
    ax = figures.plot_accuracy_by_trick(t1("cnn"))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["base class", "class prompt", "merged"]
    assert texts(ax) == ["not run"]


def test_a_published_value_is_drawn_where_there_is_one():
    table = t1("cnn")
    table["published_percent"] = table["published_percent"].astype(object)
    table.loc[1, "published_percent"] = 60.5
    assert points(figures.plot_accuracy_by_trick(table), "*") == [(60.5, pytest.approx(0.14))]
    assert points(figures.plot_accuracy_by_trick(t1("cnn")), "*") == []


def test_one_panel_an_architecture_on_one_scale():
    table = t1("cnn", "vit")
    table.loc[(table["architecture"] == "vit") & (table["trick"] == "merged"), ["accuracy_percent", "ci_high"]] += 15
    axes = figures.accuracy_figure(table).axes
    assert [ax.get_title(loc="left") for ax in axes] == ["digits, cnn", "digits, vit"]
    assert axes[0].get_xlim() == axes[1].get_xlim() and axes[0].get_xlim()[1] > 95  # 80 + 15: nothing is cut off


def test_a_panel_refuses_to_mix_architectures():
    with pytest.raises(InputError, match=r"\['cnn', 'vit'\]; expected one"):
        figures.plot_accuracy_by_trick(t1("cnn", "vit"))


def ticks(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_a_hosted_set_has_a_line_of_its_own_below_ours_of_the_same_trick():
    hosted = t1("cnn")[lambda table: table["trick"] == "merged"].assign(images="hosted", accuracy_percent=72.0)
    ax = figures.plot_accuracy_by_trick(pd.concat([hosted, t1("cnn")], ignore_index=True))
    expected = [
        "base class, images drawn",
        "class prompt, images drawn",
        "merged, images drawn",
        "merged, images hosted",
    ]
    assert ticks(ax) == expected
    assert points(ax, "o") == [(60, pytest.approx(-0.14)), (70, pytest.approx(1.86)), (72, pytest.approx(2.86))]


def test_panels_that_differ_in_a_variant_say_in_which():
    rest = t1("vit").assign(dataset="eurosat", split="rest")
    first, second = figures.accuracy_figure(pd.concat([t1("cnn"), rest], ignore_index=True)).axes
    assert ticks(first)[0] == "base class, split test" and ticks(second)[0] == "base class, split rest"


def test_the_best_epoch_on_the_test_set_is_hollow_and_says_what_it_is():
    best = t1("cnn")[lambda table: (table["trick"] == "merged") & (table["evaluation_mode"] == "authors")]
    best = best.assign(evaluation_mode="authors_best", accuracy_percent=78.0, published_percent=81.0)
    ax = figures.plot_accuracy_by_trick(pd.concat([t1("cnn"), best], ignore_index=True))
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert [float(line.get_xdata()[0]) for line in hollow] == [78]
    label = "authors' mode,\nbest epoch on the test set"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["eval mode", "authors' mode", label]
    assert points(ax, "*") == []  # the star stands beside the authors' mode


def test_what_a_setting_has_said_of_the_variants_is_not_said_again():
    settings_of = {"base_class": "split=rest", "class_prompt": "init=imagenet"}
    table = t1("cnn")
    table["setting"] = table["trick"].map(settings_of).fillna("")
    table["split"] = table["setting"].map({"split=rest": "rest"}).fillna("test")
    table["init"] = table["setting"].map({"init=imagenet": "imagenet"}).fillna("scratch")
    expected = [
        "base class, split=rest, init scratch",
        "class prompt, init=imagenet, split test",
        "merged, split test, init scratch",
    ]
    assert ticks(figures.plot_accuracy_by_trick(table)) == expected


def test_that_real_images_are_real_is_not_said_and_of_tricks_only_where_they_differ():
    real = t1("cnn")[lambda table: table["trick"] == "merged"].assign(trick="real", images="real")
    drawn = pd.concat([t1("cnn"), real], ignore_index=True)
    assert ticks(figures.accuracy_figure(drawn).axes[0]) == ["base class", "class prompt", "merged", "real"]
    hosted = t1("cnn")[lambda table: table["trick"] == "merged"].assign(images="hosted")
    both = ticks(figures.accuracy_figure(pd.concat([drawn, hosted], ignore_index=True)).axes[0])
    assert both[2:] == ["merged, images drawn", "merged, images hosted", "real"]


def test_figures_draw_a_table_as_the_tables_module_makes_it():
    lines = [
        [
            "digits",
            "test",
            trick,
            "",
            "drawn",
            "cnn",
            "scratch",
            "miniature",
            mode,
            r,
            r,
            r,
            0,
            100,
            50,
            10,
            "5 shuffles",
            60 + r,
            None,
            5.0,
        ]
        for trick in ("base_class", "merged")
        for mode in ("eval", "authors")
        for r in range(3)
    ]
    table = pd.DataFrame(lines, columns=rows.ROW_COLUMNS)
    published = pd.DataFrame(
        columns=["dataset", "method", "classifier", "accuracy_percent", "setting", "source"], dtype=str
    )
    table = tables.accuracy_by_trick(table, published, [("digits", "class_prompt", "cnn")])
    ax = figures.accuracy_figure(table).axes[0]
    assert [x for x, _ in points(ax, "o")] == [61, 61] and texts(ax) == ["not run"]


# --- F1, images -------------------------------------------------------------------------------------------------------


def test_the_sample_grid_puts_each_image_in_its_cell():
    # two tricks x two classes, four images of 8 x 8 pixels a cell, all of one grey: 10, 20 / 30, not run
    cell = [np.full((4, 3, 8, 8), grey, np.uint8) for grey in (10, 20, 30)]
    ax = figures.plot_sample_grid([[cell[0], cell[1]], [cell[2], None]], ["base_class", "merged"], ["zero", "one"])
    canvas = ax.images[0].get_array()
    assert canvas.shape == (17 + 3 + 17, 17 + 3 + 17, 3)  # cells of 8 + 1 + 8 pixels, 3 apart
    assert [canvas[0, 0, 0], canvas[16, 36, 0], canvas[20, 16, 0]] == [10, 20, 30]
    assert canvas[8, 0, 0] == 255  # the gap in a cell
    assert texts(ax) == ["not run"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["zero", "one"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["base class", "merged"]


def test_a_cell_with_fewer_images_leaves_the_rest_white():
    four, one = np.full((4, 3, 8, 8), 10, np.uint8), np.full((1, 3, 8, 8), 30, np.uint8)
    canvas = figures.plot_sample_grid([[four, one]], ["merged"], ["zero", "one"]).images[0].get_array()
    assert [canvas[0, 20, 0], canvas[0, 29, 0], canvas[9, 20, 0]] == [30, 255, 255]


def test_below_the_sample_grid_stands_what_was_not_run_and_alone_where_there_is_no_grid():
    image = np.full((1, 3, 8, 8), 10, np.uint8)
    figure = figures.sample_figure([[image]], ["merged"], ["zero"], ["digits: base class, resnet: no GPU"])
    assert figure.get_supxlabel() == "not run: digits: base class, resnet: no GPU"
    for empty in ([], [[None]]):
        nothing = figures.sample_figure(empty, [], [], ["merged, resnet: no GPU"])
        assert texts(nothing.axes[0]) == ["Nothing to draw. Not run:\nmerged, resnet: no GPU"]


def test_images_keep_their_colours_and_take_tensors():
    import torch

    red = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    red[:, 0] = 255
    ax = figures.plot_images(red, ["a red square"])
    assert ax.images[0].get_array()[0, 0].tolist() == [255, 0, 0] and texts(ax) == ["a red square"]


@pytest.mark.parametrize("images", [np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 3, 4, 4), np.float32)])
def test_images_of_another_kind_are_refused(images):
    with pytest.raises(InputError, match="expected uint8"):
        figures.plot_images(images)


# --- F3 ---------------------------------------------------------------------------------------------------------------


def test_confusion_prints_each_share_and_leaves_zeros_empty():
    ax = figures.plot_confusion([[80, 20], [0, 100]], ["cat", "sea_lake"])
    assert sorted(texts(ax)) == ["100", "20", "80"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "sea lake"]
    with pytest.raises(InputError, match=r"expected \(3, 3\)"):
        figures.plot_confusion([[80, 20], [0, 100]], ["a", "b", "c"])


def test_confusions_of_two_tricks_stand_side_by_side_with_one_colour_scale():
    figure = figures.confusion_figure({"base class": [[80, 20], [0, 100]], "merged": [[90, 10], [0, 100]]}, ["a", "b"])
    base, merged, bar = figure.axes
    assert [ax.get_title(loc="left") for ax in (base, merged)] == ["base class", "merged"]
    assert sorted(texts(merged)) == ["10", "100", "90"] and bar.get_ylabel() == "% of the true class"


def test_the_confusion_table_has_every_cell_of_every_matrix():
    who = {"dataset": "digits", "setting": "guidance=3", "architecture": "cnn"}
    who = {"base": who | {"trick": "base_class"}, "merged": who | {"trick": "merged"}}
    matrices = {"base": [[80, 20], [0, 100]], "merged": [[90, 10], [0, 100]]}
    table = figures.confusion_table(matrices, ["a", "b"], who)
    assert table.columns[:4].tolist() == ["dataset", "trick", "setting", "architecture"]
    assert table.iloc[1].tolist() == ["digits", "base_class", "guidance=3", "cnn", "base", "a", "b", 20]
    assert table["trick"].tolist() == ["base_class"] * 4 + ["merged"] * 4
    assert table["percent"].tolist()[4:] == [90, 10, 0, 100]
    assert figures.confusion_table({}, [], {}).empty
    with pytest.raises(InputError, match="matrix 'merged' has no condition"):
        figures.confusion_table(matrices, ["a", "b"], {"base": who["base"]})


@pytest.mark.parametrize("notes", ["", "A note of a few words. " * 12])
def test_the_cells_of_a_confusion_figure_are_square_whatever_stands_below(notes):
    matrices = dict.fromkeys(("base class, resnet", "merged, resnet", "real, resnet"), np.eye(3) * 100)
    figure = figures.confusion_figure(matrices, ["cat", "sea lake", "dog"], ["merged, vit: no GPU"])
    figures.add_note(figure, notes)
    figure.canvas.draw()
    for ax in figure.axes[:3]:
        assert ax.get_window_extent().width == pytest.approx(ax.get_window_extent().height, rel=0.03)


def test_only_the_lowest_row_of_confusions_names_the_predicted_classes():
    matrices = dict.fromkeys(("a", "b", "c"), np.eye(2) * 100)
    axes = figures.confusion_figure(matrices, ["cat", "dog"]).axes
    assert [ax.get_xlabel() for ax in axes[:3]] == ["", "predicted class", "predicted class"]


# --- what was not run, widths -----------------------------------------------------------------------------------------


def test_what_was_not_run_stands_below_the_figure_and_above_the_note(tmp_path):
    reasons = ["merged, vit: no GPU", "merged, resnet: no GPU", "cifar10: base class, vit: too slow: days"]
    figure = figures.confusion_figure({"a": np.eye(2)}, ["cat", "dog"], reasons)
    for _ in range(2):
        figures.save_figure(figure, tmp_path / "a", "A miniature.")
    lines = figure.get_supxlabel().split("\n")
    assert "".join(lines[:-2]).startswith("not run: merged, vit; merged, resnet: no GPU")
    assert lines[-2:] == ["not run: cifar10: base class, vit: too slow: days", "A miniature."]


def test_a_data_set_is_named_once_for_all_that_was_not_run_of_it():
    lines = ["digits: image averaged, resnet: no model", "digits: image interpolated, resnet: no model"]
    lines += ["digits: merged, vit: no GPU", "cifar10: merged, vit: no model"]
    assert style.grouped(lines) == [
        "digits: image averaged, resnet; image interpolated, resnet; cifar10: merged, vit: no model",
        "digits: merged, vit: no GPU",
    ]


def test_the_seeds_are_named_where_all_intervals_are_over_the_same():
    first, second = "t over 8 replicates (training seeds only)", "t over 2 replicates (generation and training seeds)"
    assert style.over_words([first, "one replicate: no interval", first]) == "replicates (training seeds only)"
    assert style.over_words([first, second]) == style.over_words([]) == "replicates"
    assert style.over_words([first, float("nan")]) == "replicates (training seeds only)"  # of what was not run


def test_a_figure_of_nothing_says_why_there_is_nothing():
    assert texts(figures.confusion_figure({}, [], ["merged, vit: no GPU"]).axes[0]) == [
        "Nothing to draw. Not run:\nmerged, vit: no GPU"
    ]
    assert "nothing was evaluated for it" in texts(figures.accuracy_figure(t1("cnn").iloc[:0]).axes[0])[0]


def test_every_paper_figure_is_as_wide_as_a_column_or_the_text():
    two = {"a": np.eye(3), "b": np.eye(3)}
    for figure, width in (
        (figures.accuracy_figure(t1("cnn")), 6.9),
        (figures.confusion_figure(two, list("abc")), 6.9),
        (figures.confusion_figure({"a": np.eye(3)}, list("abc")), 3.3),
    ):
        assert figure.get_figwidth() == pytest.approx(width)


def test_every_trick_and_real_set_has_a_mark_of_its_own_and_settings_share_it():
    names = [*TRICKS, *REAL_TRICKS, UNKNOWN]
    assert len({style.trick_style(name) for name in names}) == len(names) == 13
    assert style.trick_style("random_guidance+guidance=3") == style.trick_style("random_guidance")
    assert style.trick_style("something else")  # a set that somebody named: a mark, not a crash


# --- notebooks 01 and 02 ----------------------------------------------------------------------------------------------


def test_the_guidance_histogram_counts_every_image():
    for guidance in (np.linspace(1, 5, 40), np.full(40, 7.5)):
        ax = figures.plot_guidance_histogram(guidance, "random_guidance")
        assert sum(bar.get_height() for bar in ax.patches) == 40


def test_history_draws_the_mean_over_replicates():
    history = {"replicate": [0, 0, 1, 1], "epoch": [1, 2, 1, 2], "loss": [2.0, 1.0, 4.0, 3.0]}
    ax = figures.plot_history(history | {"train_accuracy_percent": [10, 20, 30, 40]})
    assert list(ax.lines[-1].get_ydata()) == [3, 2]
    assert list(ax.figure.axes[1].lines[-1].get_ydata()) == [20, 30]


# --- style and saving -------------------------------------------------------------------------------------------------


def test_a_plot_goes_into_the_axes_it_is_given():
    ax = plt.subplots()[1]
    assert figures.plot_guidance_histogram([1.0, 2.0], "merged", ax) is ax


def test_a_saved_figure_repeats_byte_for_byte(tmp_path):
    made = [
        figures.save_figure(figures.accuracy_figure(t1("cnn")), tmp_path / name, "A miniature.") for name in ("a", "b")
    ]
    assert [path.name for path in made[0]] == ["a.png", "a.pdf"]
    assert [path.read_bytes() for path in made[0]] == [path.read_bytes() for path in made[1]]
    png, pdf = (path.read_bytes() for path in made[0])
    assert b"Software" not in png and b"CreationDate" not in pdf


def test_the_pdf_embeds_truetype_fonts(tmp_path):
    figure = figures.plot_guidance_histogram([1.0, 2.0], "merged").figure
    pdf = figures.save_figure(figure, tmp_path / "a", "note")[1].read_bytes()
    packed = re.findall(rb"FlateDecode.*?stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    pdf += b"".join(map(zlib.decompress, packed))
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf


def test_every_saved_figure_carries_its_note_once(tmp_path):
    figure = figures.plot_guidance_histogram([1.0, 2.0], "merged").figure
    for note in ("first note", "Miniature: not the paper's numbers"):
        figures.save_figure(figure, tmp_path / "a", note)
    assert figure.get_supxlabel() == "Miniature: not the paper's numbers"
    assert figure.texts.count(figure._supxlabel) == 1


TEN = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WHY = [f"digits: {trick}, resnet: no image-conditioned checkpoint is at hand" for trick in ("averaged", "interpolated")]
WHY += ["digits: merged, vit: on two cores it takes longer than this experiment may"]


def sample_grid(columns):
    return [[np.zeros((4, 3, 8, 8), np.uint8)] * len(columns)] * 3, ["base class", "random guidance", "merged"], columns


def confusions(n, classes):
    return {f"random guidance, guidance={i}, resnet": np.eye(len(classes)) * 100 for i in range(n)}, classes


def legend_of_a_long_title():
    figure, axes = style.new_panels(3, 3, 1.5)
    said = "bar, shade: 95 % interval over replicates (generation and training seeds); of a measure over generation seeds; dots: "
    style.add_legend(
        figure, {"eval": axes[0].plot([0, 1])[0]}, f"{said}each of two or three replicates, too few for it"
    )
    return figure


LONG = [f"a_rather_long_name_{i}" for i in range(15)]
DRAWN = {
    "F1": lambda: figures.sample_figure(*sample_grid(TEN), WHY),
    "F1, long names": lambda: figures.sample_figure(*sample_grid(LONG), WHY),
    "F2": lambda: figures.accuracy_figure(t1("cnn"), WHY),
    "F2, F11, three classifiers": lambda: figures.accuracy_figure(t1("cnn", "vit", "resnet50"), WHY),
    "F3, one": lambda: figures.confusion_figure(*confusions(1, TEN), WHY),
    "F3, two": lambda: figures.confusion_figure(*confusions(2, TEN), WHY),
    "F3, five": lambda: figures.confusion_figure(*confusions(5, LONG), WHY),
    "F3, 100 classes": lambda: figures.confusion_figure(*confusions(1, LONG * 7), WHY),
    "a long legend": legend_of_a_long_title,
    "nothing": lambda: style.not_run_figure(WHY * 3 + ["a reason, of many words: " + "word " * 90]),
    **{name: lambda name=name: test_curves_and_gains.DRAWN[name]() for name in test_curves_and_gains.DRAWN},
}


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_is_cut_off_and_the_note_overlaps_nothing(name):
    figure = DRAWN[name]()
    assert figure.get_figwidth() in (3.3, 6.9)  # of a column or of the text
    figures.add_note(figure, "Miniature: embedded model, scikit-learn digits; not the paper's numbers. " * 2)
    figure.set_dpi(style.STYLE["savefig.dpi"])  # at which letters are wider than at a screen's
    figure.canvas.draw()
    whole, inside = figure.bbox, figure.get_tightbbox()
    inside = [edge * figure.dpi for edge in (inside.x0, inside.y0, inside.x1, inside.y1)]
    assert inside[0] >= -1 and inside[1] >= -1 and inside[2] <= whole.x1 + 1 and inside[3] <= whole.y1 + 1
    note = figure._supxlabel.get_window_extent()
    assert all(ax.get_tightbbox().y0 >= note.y1 - 1 for ax in figure.axes if ax.get_tightbbox() is not None)


ODD = ["$5_$", "US $ 10 & $ 20", r"a_$\x$", "<b>x</b>", "a|b", "x^2 `y`"]
WITH_WORDS = {
    "F1": lambda: figures.sample_figure(*sample_grid(ODD), ODD),
    "F2": lambda: figures.accuracy_figure(t1("cnn").assign(dataset=ODD[2]), ODD),
    "F3": lambda: figures.confusion_figure({ODD[2]: np.eye(6)}, ODD, ODD),
    "F8": lambda: gains.class_gain_figure(gains.class_gains(per_class(ODD))),
    "prompts": lambda: figures.plot_images(np.zeros((6, 3, 8, 8), np.uint8), ODD).figure,
    "guidance": lambda: figures.plot_guidance_histogram([1.0], ODD[2]).figure,
    "nothing": lambda: style.not_run_figure(ODD),
}


def per_class(classes):
    rows = [[trick, mode, replicate, name, 50.0 + replicate] for trick in ("base_class", "merged") for replicate in (0, 1)
            for mode in ("eval", "authors") for name in classes]  # fmt: skip
    columns = ["trick", "evaluation_mode", "replicate", "class", "accuracy_percent"]
    return pd.DataFrame(rows, columns=columns).assign(dataset=ODD[0], architecture="cnn", **ONE_OF_EACH)


@pytest.mark.parametrize("name", WITH_WORDS)
def test_what_a_user_wrote_is_never_taken_for_mathematics(name, tmp_path):
    with mpl.rc_context({"text.usetex": True}):  # as a user may have it
        figure = WITH_WORDS[name]()
        figures.save_figure(figure, tmp_path / "a", r"US $ 10 & $ 20, $\x$.")
        words = [text for text in figure.findobj(mpl.text.Text) if "$" in text.get_text()]
        assert len(words) > 1 and not any(text.get_parse_math() or text.get_usetex() for text in words)
        assert figure.get_supxlabel().endswith(r"US $ 10 & $ 20, $\x$.")


@pytest.mark.parametrize("letters", ["दिन", "日本"])
def test_a_letter_that_the_font_lacks_is_a_box_that_the_note_explains(letters, tmp_path, recwarn):
    image = np.zeros((1, 3, 8, 8), np.uint8)
    for name, boxes in ((letters, True), ("café, ±2 µm", False)):
        figure = figures.plot_images(image, [name]).figure
        figures.save_figure(figure, tmp_path / "a", "Note.")
        assert figure.get_supxlabel().startswith("Note.") and ("box" in figure.get_supxlabel()) == boxes
    assert not [one for one in recwarn if "Glyph" in str(one.message)]


def test_figures_import_without_pandas_seaborn_and_torch():
    heavy = {"torch", "pandas", "seaborn", "scipy"}
    code = f"import sys, synthlib.results.figures; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
