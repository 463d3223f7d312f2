"""F4 to F10: the numbers behind each figure can be checked by hand, and each figure draws those numbers."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from synthlib.inputs import InputError
from synthlib.results import curves, diversity_plots, feature_map, gains, reliability, rows

WHO = {
    "dataset": "digits",
    "split": "test",
    "setting": "",
    "images": "drawn",
    "init": "scratch",
    "protocol": "miniature",
}
EMPTY_CAUSE = ["merged, resnet: no GPU"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def says_why(figure):
    return figure.axes[0].texts[0].get_text() == "Nothing to draw. Not run:\nmerged, resnet: no GPU"


# --- F4 ---------------------------------------------------------------------------------------------------------------


def diversity(treatments=("base_class", "merged"), replicates=3, measures=("vendi_per_class",)):
    """Condition i, replicate r: value 4 + i + r, accuracy 60 + i + 2 r."""
    lines = [
        {"trick": treatment.partition("+")[0], "setting": treatment.partition("+")[2], "replicate": r}
        | {"measure": measure, "value": 4.0 + i + r, "accuracy_percent": 60.0 + i + 2 * r}
        for measure in measures
        for i, treatment in enumerate(treatments)
        for r in range(replicates)
    ]
    constant = {"architecture": "cnn", "evaluation_mode": "eval", "feature_space": "pixels"}
    return pd.DataFrame(lines).assign(**{name: value for name, value in WHO.items() if name != "setting"}, **constant)


def test_diversity_has_a_mark_a_condition_and_a_dot_a_replicate():
    ax = diversity_plots.plot_diversity_against_accuracy(diversity())
    means = [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in ax.lines if len(line.get_xdata()) == 1
    ]
    assert means == [(5, 62), (6, 63)]
    assert [len(line.get_xdata()) for line in ax.lines] == [3, 1, 3, 1]
    marks = {(line.get_marker(), line.get_color()) for line in ax.lines if len(line.get_xdata()) == 3}
    assert len({marker for marker, _ in marks}) == len({colour for _, colour in marks}) == 2
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["base class", "merged"]


def test_settings_are_hollow_marks_of_their_trick_with_their_value_beside():
    ax = diversity_plots.plot_diversity_against_accuracy(
        diversity(("random_guidance", "random_guidance+guidance=3", "random_guidance+guidance=10"), replicates=1)
    )
    assert [text.get_text() for text in ax.texts] == ["3", "10"]
    assert [line.get_markerfacecolor() == "white" for line in ax.lines] == [False, True, True]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "random guidance",
        "random guidance, guidance as written beside",
    ]


def test_the_rank_correlation_of_conditions_in_order_is_one_and_their_number_is_said():
    points = diversity(("base_class", "class_prompt", "multi_domain", "random_guidance", "merged"), replicates=1)
    table = diversity_plots.correlation_table(points)
    assert table["correlation"].tolist() == [1.0] and table["n_conditions"].tolist() == [5]
    assert table["correlation_low"].iloc[0] == pytest.approx(1) and "5 conditions x 1 replicates" in str(
        table.iloc[0, -1]
    )
    falling = points.assign(accuracy_percent=-points["accuracy_percent"])
    assert diversity_plots.correlation_table(falling)["correlation"].tolist() == [-1.0]
    title = titles(diversity_plots.diversity_figure(points))[0]
    assert title == "digits, cnn\nρ = 1.00 [1.00, 1.00], n = 5"


def test_two_conditions_have_no_rank_correlation_and_three_no_interval():
    two, three = (diversity(("base_class", "multi_domain", "merged")[:n]) for n in (2, 3))
    assert diversity_plots.correlation_table(two)["correlation"].isna().all()
    assert titles(diversity_plots.diversity_figure(two)) == ["digits, cnn\nno ρ, n = 2"]
    found = diversity_plots.correlation_table(three).iloc[0]
    assert found["correlation"] == 1 and np.isnan(found["correlation_low"])


def test_the_table_of_rank_correlations_says_what_the_panels_say_and_only_what_differs():
    three = diversity(("base_class", "multi_domain", "merged"))
    both = pd.concat([three, three[three["trick"] != "merged"].assign(init="imagenet")])
    view = diversity_plots.correlation_view(diversity_plots.correlation_table(both))
    assert view["rank correlation"].tolist() == ["ρ = 1.00, n = 3", "no ρ, n = 2"]
    assert view["init"].tolist() == ["scratch", "imagenet"] and "protocol" not in view
    assert diversity_plots.correlation_view(diversity_plots.correlation_table(both.iloc[:0])).empty


def test_diversity_has_a_panel_a_measure_and_one_legend():
    figure = diversity_plots.diversity_figure(diversity(measures=("vendi_per_class", "recall")))
    assert len(figure.axes) == 2 and len(figure.legends) == 1
    assert not any(ax.get_legend() for ax in figure.axes)


def test_diversity_has_a_row_of_panels_a_variant_and_never_mixes_two():
    both = pd.concat([diversity(), diversity().assign(init="imagenet")])
    found = [title.partition("\n")[0] for title in titles(diversity_plots.diversity_figure(both))]
    assert found == ["digits, cnn, init scratch", "digits, cnn, init imagenet"]
    assert diversity_plots.correlation_table(both)["init"].tolist() == ["scratch", "imagenet"]
    with pytest.raises(InputError, match=r"init \['scratch', 'imagenet'\]; expected one"):
        diversity_plots.plot_diversity_against_accuracy(both)


# --- F5 ---------------------------------------------------------------------------------------------------------------


def two_clusters():
    rng = np.random.default_rng(0)
    features = {"real": rng.normal(size=(30, 8)), "merged": rng.normal(size=(20, 8)) + 50}
    return features, {"real": np.arange(30) % 3, "merged": np.arange(20) % 3}


def test_the_feature_map_keeps_far_sets_apart_and_repeats_exactly():
    features, labels = two_clusters()
    frame = feature_map.feature_map(features, labels, "digits", seed=0)
    assert frame.columns.tolist() == ["dataset", "set", "label", "x", "y"] and set(frame["dataset"]) == {"digits"}
    assert frame["set"].tolist() == ["real"] * 30 + ["merged"] * 20 and frame["label"].tolist()[30:33] == [0, 1, 2]
    real, merged = (frame.loc[frame["set"] == name, ["x", "y"]].to_numpy() for name in ("real", "merged"))
    between = np.linalg.norm(real.mean(0) - merged.mean(0))
    assert between > 2 * max(np.linalg.norm(real - real.mean(0), axis=1).max(), 1)
    pd.testing.assert_frame_equal(frame, feature_map.feature_map(features, labels, "digits", seed=0))


def test_a_large_set_is_thinned_and_a_small_one_is_kept():
    features, labels = two_clusters()
    frame = feature_map.feature_map(features, labels, "digits", most=25)
    assert frame["set"].value_counts().to_dict() == {"real": 25, "merged": 20}


def test_features_that_do_not_fit_are_refused():
    features, labels = two_clusters()
    with pytest.raises(InputError, match="one width"):
        feature_map.feature_map(features | {"real": np.zeros((30, 4))}, labels, "digits")
    with pytest.raises(InputError, match="20 labels; expected finite numbers"):
        feature_map.feature_map(features | {"merged": np.full((20, 8), np.nan)}, labels, "digits")


def test_each_panel_states_its_gap_with_the_interval_over_replicates():
    # KID 1, 2, 3: mean 2, s 1, t(0.975, 2) = 4.303, half width 4.303 / sqrt(3) = 2.484
    frame = pd.DataFrame(
        [["real", 0, 0.0, 0.0], ["merged", 0, 1.0, 1.0], ["base_class", 0, 2.0, 0.0]],
        columns=["set", "label", "x", "y"],
    )
    lines = [["merged", r, space, r + more] for space, more in (("clip", 1.0), ("pixels", 9.0)) for r in (0, 1, 2)]
    gaps = pd.DataFrame(lines, columns=["trick", "replicate", "feature_space", "value"])
    gaps = gaps.assign(dataset="digits", setting="", measure="kid")
    figure = feature_map.feature_map_figure(frame, gaps, "clip", ["multi_domain: no features"])
    assert titles(figure) == ["base class", "merged\nKID 2.00 [-0.484, 4.48]"]
    assert figure.get_suptitle() == "t-SNE of clip features; 1 real images in grey"
    assert figure.get_supxlabel() == "not run: multi_domain: no features"
    grey, own = figure.axes[1].collections
    assert grey.get_offsets().tolist() == [[0, 0]] and own.get_offsets().tolist() == [[1, 1]]
    with pytest.raises(InputError, match="the gaps are of digits, cifar10"):
        feature_map.feature_map_figure(frame, pd.concat([gaps, gaps.assign(dataset="cifar10")]), "clip")
    assert says_why(feature_map.feature_map_figure(frame[:1], None, "clip", EMPTY_CAUSE))


# --- F6, F7 -----------------------------------------------------------------------------------------------------------


def result_rows(lines):
    """(trick, setting, mode, n_train, accuracies of replicates) -> result rows of one classifier."""
    found = [
        WHO | {"trick": trick, "setting": setting, "evaluation_mode": mode, "n_train": n_train, "replicate": r}
        | {"accuracy_percent": accuracy, "generation_seed": f"64:{r}", "training_seed": r}
        for trick, setting, mode, n_train, accuracies in lines
        for r, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    return pd.DataFrame(found).assign(architecture="cnn", n_steps=50, n_test=10).reindex(columns=rows.ROW_COLUMNS)


def size_rows():
    return result_rows(
        [
            ("merged", "", "eval", 100, [60, 62]),
            ("merged", "images_per_class=5", "eval", 50, [50, 50]),
            ("merged_full", "", "eval", 300, [70]),
            ("merged", "guidance=3", "eval", 100, [99]),
        ]
    )


def test_images_per_class_is_what_the_classifier_learnt_from_and_other_settings_stay_out():
    frame = curves.images_curve(size_rows(), {"digits": 10})
    assert frame[["trick", "images_per_class", "mean"]].to_numpy().tolist() == [
        ["merged", 5, 50], ["merged", 10, 61], ["merged_full", 30, 70],
    ]  # fmt: skip
    # 60, 62: s / sqrt(2) = 1, t(0.975, 1) = 12.706
    assert frame.loc[1, "high"] == pytest.approx(61 + 12.706, abs=1e-3) and np.isnan(frame.loc[2, "low"])
    both = "t over 2 replicates (generation and training seeds)"
    assert frame["method"].tolist() == [both, both, "one replicate: no interval"]
    with pytest.raises(InputError, match="classes of digits is not given"):
        curves.images_curve(size_rows(), {})


def test_the_images_figure_has_a_log_axis_a_line_a_trick_and_says_the_steps():
    figure = curves.images_figure(curves.images_curve(size_rows(), {"digits": 10}), EMPTY_CAUSE)
    (ax,) = figure.axes
    assert ax.get_xscale() == "log" and ax.get_title(loc="left") == "digits, cnn\n50 training steps at every size"
    assert [line.get_ydata().tolist() for line in ax.lines if len(line.get_ydata())] == [[50, 61], [70]]
    assert legend(figure) == ["merged", "merged, full (3n images)", "eval mode"]
    uneven = size_rows().assign(n_steps=[50, 50, 20, 20, 150, 50])
    assert curves.steps_words(uneven) == "20 to 150 training steps"
    assert says_why(curves.images_figure(curves.images_curve(size_rows()[:0], {}), EMPTY_CAUSE))


def test_the_legend_says_which_seeds_the_intervals_are_over():
    def bars(table):
        return (
            curves.images_figure(curves.images_curve(table, {"digits": 10}))
            .legends[0]
            .get_title()
            .get_text()
            .replace("\n", " ")
        )

    dots = "dots: each of two or three replicates, too few for an interval"
    assert bars(size_rows()) == dots
    enough = result_rows(
        [("merged", "", "eval", 100, [60, 62, 61, 60]), ("merged", "images_per_class=5", "eval", 50, [50, 51, 52, 50])]
    )
    assert bars(enough) == "bar: 95 % interval over replicates (generation and training seeds)"
    assert bars(pd.concat([enough, size_rows().assign(trick="base_class")])) == f"{bars(enough)}; {dots}"
    given = enough.assign(generation_seed="64:0")
    assert bars(given) == "bar: 95 % interval over replicates (training seeds only)"
    small = given["setting"] == "images_per_class=5"
    mixed = given.assign(generation_seed=given["generation_seed"].where(~small, given["replicate"].astype(str)))
    assert bars(mixed) == "bar: 95 % interval over replicates"
    pool = curves.images_curve(size_rows().assign(trick="real", images="real"), {"digits": 10})
    assert pool["method"].iloc[0] == "t over 2 replicates (draws of the pool and training seeds)"


def test_more_epochs_at_equal_steps_stay_in_one_panel_and_another_protocol_does_not():
    table = size_rows()
    small = table["setting"] == "images_per_class=5"
    more_epochs = table.assign(protocol=table["protocol"].where(~small, "miniature, epochs=30"))
    assert len(curves.images_figure(curves.images_curve(more_epochs, {"digits": 10})).axes) == 1
    careful = pd.concat([table, table.assign(protocol="careful")])
    assert len(curves.images_figure(curves.images_curve(careful, {"digits": 10})).axes) == 2


def guidance_frame():
    tested = result_rows(
        [
            ("random_guidance", "", "eval", 100, [60, 62]),
            ("random_guidance", "guidance=7.5", "eval", 100, [40, 42]),
            ("random_guidance", "guidance=2", "eval", 100, [50, 52]),
            ("random_guidance", "images_per_class=5", "eval", 100, [1, 1]),
            ("merged", "", "eval", 100, [99, 99]),
        ]
    )
    measured = pd.DataFrame(
        [["digits", "random_guidance", setting, r, "recall", "clip", value, "drawn"]
         for setting, value in (("", 0.5), ("guidance=2", 0.4)) for r in (0, 1)],
        columns=["dataset", "trick", "setting", "replicate", "measure", "feature_space", "value", "images"],
    )  # fmt: skip
    return curves.guidance_curve(tested, measured, (1.5, 4.0))


def test_fixed_guidance_is_a_point_and_random_guidance_a_range():
    frame = guidance_frame()
    accuracy = frame[frame["quantity"] == "accuracy_percent"].sort_values("mean")
    assert accuracy[["guidance_low", "guidance_high", "mean"]].to_numpy().tolist() == [
        [7.5, 7.5, 41], [2, 2, 51], [1.5, 4, 61],
    ]  # fmt: skip
    assert accuracy["guidance"].isna().tolist() == [False, False, True]
    assert set(accuracy["trick"]) == {"random_guidance"}
    assert accuracy["setting"].tolist() == ["guidance=7.5", "guidance=2", ""]
    assert set(accuracy["method"]) == {"t over 2 replicates (generation and training seeds)"}
    recall = frame[frame["quantity"] == "recall"]
    assert recall["mean"].tolist() == [0.5, 0.4]
    assert set(recall["method"]) == {"t over 2 replicates (generation seeds only)"}


def test_the_guidance_figure_joins_fixed_values_in_order_and_bars_the_random_range():
    figure = curves.guidance_figure(guidance_frame())
    accuracy, recall = figure.axes[:2]
    bar, line = accuracy.lines
    assert list(bar.get_xdata()) == [1.5, 4] and list(bar.get_ydata()) == [61, 61]
    assert line.get_xdata().tolist() == [2, 7.5] and line.get_ydata().tolist() == [51, 41]
    assert titles(figure)[1] == "recall of the real images\ndigits (clip)" and list(recall.lines[0].get_ydata()) == [
        0.5,
        0.5,
    ]
    assert figure.legends[0].get_title().get_text().replace("\n", " ") == (
        "dots: each of two or three replicates, too few for an interval"
    )
    assert says_why(curves.guidance_figure(guidance_frame()[:0], EMPTY_CAUSE))


# --- F8 ---------------------------------------------------------------------------------------------------------------


def per_class(classes=("cat", "dog"), replicates=2):
    """Class i, replicate r: base 50 + r; merged gains 10 i + 2 r in eval mode, and 5 more in the authors'."""
    lines = [
        WHO | {"trick": trick, "evaluation_mode": mode, "replicate": r, "class": name}
        | {"accuracy_percent": 50.0 + r + (trick == "merged") * (10 * i + 2 * r + bonus)}
        for trick in ("base_class", "merged")
        for mode, bonus in (("eval", 0), ("authors", 5))
        for r in range(replicates)
        for i, name in enumerate(classes)
    ]  # fmt: skip
    return pd.DataFrame(lines).assign(architecture="cnn")


def test_the_gain_of_a_class_is_paired_over_replicates():
    table = gains.class_gains(per_class())
    found = table[table["evaluation_mode"] == "eval"].set_index("class")
    assert found["gain_points"].to_dict() == {"cat": 1, "dog": 11}  # 0 and 2, 10 and 12
    assert found.loc["cat", "gain_high"] == pytest.approx(1 + 12.706, abs=1e-3)  # s / sqrt(2) = 1, t(0.975, 1) = 12.706
    assert set(found["gain_method"]) == {"paired t over 2 replicates"}
    assert found["n_pairs"].tolist() == [2, 2] and found["base_percent"].tolist() == [50.5, 50.5]


def test_a_replicate_without_partner_and_a_class_without_images_give_no_gain():
    table = per_class()
    table = table[~((table["trick"] == "merged") & (table["replicate"] == 1))]
    table.loc[table["class"] == "cat", "accuracy_percent"] = np.nan
    found = gains.class_gains(table)
    assert found["class"].tolist() == ["dog", "dog"] and found["gain_points"].tolist() == [10, 15]  # eval, authors
    assert found["gain_low"].isna().all() and set(found["gain_method"]) == {"one replicate: no interval"}


def test_gains_say_which_seeds_were_replicated():
    table = gains.class_gains(per_class(replicates=4), over="replicates (training seeds only)")
    assert set(table["gain_method"]) == {"paired t over 4 replicates (training seeds only)"}
    title = gains.class_gain_figure(table, over="replicates (training seeds only)").legends[0].get_title().get_text()
    assert title.split() == "bar: 95 % interval of that class alone, over replicates (training seeds only)".split()


def test_settings_are_never_paired_with_one_another():
    table = per_class().replace({"setting": {"": "init=imagenet"}}).assign(init="imagenet")
    other = table["trick"] == "merged"
    assert gains.class_gains(table.assign(setting=table["setting"].where(~other, ""))).empty
    both = pd.concat([per_class(), table])
    assert titles(gains.class_gain_figure(gains.class_gains(both))) == [
        "digits, cnn, init scratch",
        "digits, cnn, init=imagenet",
    ]


def test_classes_stand_in_the_order_of_their_gain():
    figure = gains.class_gain_figure(gains.class_gains(per_class()))
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dog", "cat"]
    assert sorted(float(x) for line in ax.lines[1:] for x in line.get_xdata()) == [1, 6, 11, 16]
    assert ax.get_xlabel() == "merged minus base class, points" and legend(figure) == ["eval mode", "authors' mode"]


def test_of_a_hundred_classes_the_ends_are_shown_and_the_rest_is_counted():
    names = [f"class_{i}" for i in range(100)]
    (ax,) = gains.class_gain_figure(gains.class_gains(per_class(names, replicates=1))).axes
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert len(shown) == 30 and shown[0] == "class 99" and shown[14:16] == ["class 85", "class 14"]
    assert [text.get_text() for text in ax.texts] == ["70 classes not shown"]
    assert says_why(gains.class_gain_figure(gains.class_gains(per_class()[:0]), EMPTY_CAUSE))


# --- F9 ---------------------------------------------------------------------------------------------------------------


def histories(**tested):
    lines = [
        {
            "trick": trick,
            "replicate": r,
            "epoch": epoch,
            "loss": 4.0 - epoch + r,
            "train_accuracy_percent": 10.0 * epoch,
        }
        for trick in ("base_class", "merged")
        for r in (0, 1)
        for epoch in (1, 2)
    ]
    return pd.DataFrame(lines).assign(**WHO, architecture="cnn", step=0, **tested)


def test_training_curves_are_the_mean_and_the_range_of_the_replicates():
    frame = curves.training_curves(histories())
    loss = frame[(frame["trick"] == "merged") & (frame["quantity"] == "loss")]
    assert loss[["epoch", "mean", "lowest", "highest", "n_replicates"]].to_numpy().tolist() == [
        [1, 3.5, 3, 4, 2],
        [2, 2.5, 2, 3, 2],
    ]
    figure = curves.training_figure(frame)
    assert [ax.get_ylabel() for ax in figure.axes] == ["training loss", "training accuracy, %"]
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == [[3.5, 2.5], [3.5, 2.5]]
    assert legend(figure) == ["base class", "merged"]


def test_histories_of_two_settings_are_never_averaged_as_replicates():
    two = pd.concat([histories(), histories()])
    with pytest.raises(InputError, match="two histories of digits, test, base_class"):
        curves.training_curves(two)
    two["setting"] = ["guidance=3"] * 8 + [""] * 8
    assert set(curves.training_curves(two)["n_replicates"]) == {2}


def test_test_accuracy_is_drawn_only_where_the_history_has_it():
    empty = histories(test_eval_percent=None, test_authors_percent=None)
    assert len(curves.training_figure(curves.training_curves(empty)).axes) == 2
    figure = curves.training_figure(
        curves.training_curves(histories(test_eval_percent=50.0, test_authors_percent=60.0))
    )
    assert [line.get_linestyle() for line in figure.axes[2].lines] == ["-", "--", "-", "--"]
    assert legend(figure)[-2:] == ["eval mode", "authors' mode"]
    assert says_why(curves.training_figure(curves.training_curves(histories()[:0]), EMPTY_CAUSE))


# --- F10 --------------------------------------------------------------------------------------------------------------


def calibration(**who):
    """Two bins of 10 images: sure 40, right 30; sure 90, right 90: ECE 5."""
    bins = [[0.0, 50.0, 10, 40.0, 30.0], [50.0, 100.0, 10, 90.0, 90.0]]
    names = ["bin_low_percent", "bin_high_percent", "n", "confidence_percent", "accuracy_percent"]
    return pd.DataFrame(bins, columns=names).assign(**WHO | {"evaluation_mode": "eval", "replicate": 0} | who)


def test_reliability_has_a_panel_a_condition_with_its_ece():
    both = pd.concat([calibration(trick=trick, architecture="cnn") for trick in ("merged", "base_class")])
    both["setting"] = np.nan  # as pandas reads the empty cells of a CSV
    figure = reliability.reliability_figure(both)
    assert titles(figure) == ["digits, cnn\nbase class", "digits, cnn\nmerged"]
    for ax in figure.axes:
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ECE 5.0 %"]
    assert legend(figure) == ["calibrated", "eval mode"]
    assert reliability.plot_reliability(both[both["trick"] == "merged"]).get_title(loc="left") == "digits, cnn, merged"


def test_a_condition_of_empty_bins_is_not_drawn():
    nothing = calibration(trick="merged", architecture="cnn").assign(n=0, confidence_percent=np.nan)
    assert says_why(reliability.reliability_figure(nothing, EMPTY_CAUSE))


# --- all, which test_figures draws to see that nothing is cut off ------------------------------------------------------


def both_calibrations():
    return pd.concat([calibration(trick=trick, architecture="cnn") for trick in ("merged", "base_class")])


MAP = pd.DataFrame({"set": ["real", "merged", "base_class"], "label": 0, "x": [0.0, 1, 2], "y": [0.0, 1, 0]})
NAMES = [f"a_rather_long_name_of_class_{i}" for i in range(100)]
DRAWN = {
    "F4": lambda: diversity_plots.diversity_figure(
        diversity(measures=("recall", "vendi", "density")), not_run=EMPTY_CAUSE
    ),
    "F5": lambda: feature_map.feature_map_figure(MAP, None, "clip", EMPTY_CAUSE),
    "F6": lambda: curves.images_figure(curves.images_curve(size_rows(), {"digits": 10}), EMPTY_CAUSE),
    "F7": lambda: curves.guidance_figure(guidance_frame(), EMPTY_CAUSE),
    "F8": lambda: gains.class_gain_figure(gains.class_gains(per_class(NAMES)), EMPTY_CAUSE),
    "F8, one column": lambda: gains.class_gain_figure(gains.class_gains(per_class()), EMPTY_CAUSE, OVER),
    "F9": lambda: curves.training_figure(curves.training_curves(histories()), EMPTY_CAUSE),
    "F10": lambda: reliability.reliability_figure(both_calibrations(), EMPTY_CAUSE),
}
OVER = "replicates (generation and training seeds)"
