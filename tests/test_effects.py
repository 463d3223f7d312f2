"""T3, T5 and T6: what stands beside our accuracies, and differences that can be worked out by hand."""

import json

import pandas as pd
import pytest
from test_tables import PUBLISHED, evaluated, one

from synthlib.digests import sha256_file
from synthlib.inputs import InputError
from synthlib.results import baselines, effects, rows

PEERS = pd.DataFrame(
    {
        "dataset": ["cifar10"] * 4 + ["eurosat"],
        "method": [
            "CLIP zero-shot",
            "CLIP zero-shot",
            "CLIP zero-shot (OpenCLIP)",
            "A peer",
            "CLIP zero-shot (OpenCLIP)",
        ],
        "generator": ["", "", "", "GLIDE", ""],
        "classifier": ["CLIP RN50", "CLIP ViT-B/32", "CLIP RN50", "ResNet50", "CLIP ViT-B/32"],
        "accuracy_percent": [75.6, 91.3, 71.57, 35.3, 50.44],
        "setting": ["zero-shot", "zero-shot", "zero-shot", "synthetic only", "zero-shot"],
        "source": ["Table 11", "Table 11", "open_clip", "its Table 1", "open_clip"],
    }
)
EVERYTHING = pd.concat([PUBLISHED[PUBLISHED["setting"].str.contains("this paper")].assign(generator="SD"), PEERS])
CLIP_COLUMNS = [*baselines.CLIP_COLUMNS, "n_classes"]
NO_CLIP = pd.DataFrame(columns=CLIP_COLUMNS)


def init_of(root, trick, init, hits, **given):
    """A folder of T5, where the init is a setting too."""
    return evaluated(root, trick, hits, init=init, setting=f"init={init}", **given)


def inputs(dirs):
    return rows.read_evaluations(dirs), rows.read_correct(dirs)


# --- T3 ---------------------------------------------------------------------------------------------------------------


def t3(root, clip=NO_CLIP, **given):
    dirs = [evaluated(root, "base_class", [6, 6], dataset="cifar10", architecture="resnet50", best=[8, 8])]
    return baselines.against_baselines(rows.read_evaluations(dirs), EVERYTHING, clip, **given)


def test_t3_has_ours_in_both_modes_then_clip_then_the_peers(tmp_path):
    table = t3(tmp_path)
    assert table["kind"].tolist() == ["ours"] * 3 + ["CLIP zero-shot"] * 2 + ["peer"]
    ours = table[table["trick"] == "base_class"]
    assert ours["evaluation_mode"].tolist() == ["eval", "authors"] and ours["accuracy_percent"].tolist() == [60, 65]
    assert ours["published_percent"].tolist() == ["not available", 60.5]
    assert one(table, trick="best tricks")["published_percent"] == 81
    peer = one(table, kind="peer")
    assert (peer["method"], peer["published_percent"], peer["status"]) == ("A peer", 35.3, "published only")
    assert peer["learned_from"] == "synthetic only (GLIDE)" and pd.isna(peer["accuracy_percent"])


def test_a_clip_that_was_not_run_names_its_command_and_keeps_its_published_value(tmp_path):
    table = t3(tmp_path)
    row = one(table, classifier="CLIP ViT-B/32")
    assert row["status"] == "not run: weights absent; synthlib baseline clip --dataset cifar10 --model ViT-B-32"
    assert (row["published_percent"], row["published_source"]) == (91.3, "Table 11")
    row = one(table, classifier="CLIP RN50")
    assert row["status"] == "not run: weights absent; synthlib baseline clip --dataset cifar10"
    assert (row["published_percent"], row["published_source"]) == (75.6, "Table 11; open_clip: 71.57")


def test_the_command_of_t3_is_one_that_the_command_line_takes(tmp_path, monkeypatch):
    import sys

    from synthlib import cli, cli_classifiers

    asked = []
    monkeypatch.setattr(
        cli_classifiers, "_baseline_clip", lambda options: asked.append((options.dataset, options.model))
    )
    for status in t3(tmp_path).query("kind == 'CLIP zero-shot'")["status"]:
        monkeypatch.setattr(sys, "argv", status.split("; ")[1].split())
        cli.main()
    assert asked == [("cifar10", "RN50"), ("cifar10", "ViT-B-32")]


def with_record(folder):
    """The record of a run that left results.csv, and its logits."""
    (folder / "logits.safetensors").write_bytes(b"logits")
    made = {name: sha256_file(folder / name) for name in ("results.csv", "logits.safetensors")}
    (folder / "record.json").write_text(json.dumps({"outputs_sha256": made, "classes": list("abcdefghij")}))


def test_a_clip_that_was_run_stands_with_its_interval_beside_the_published_value(tmp_path):
    folder = tmp_path / "baselines" / "clip" / "cifar10-RN50"
    folder.mkdir(parents=True)
    line = {
        "dataset": "cifar10",
        "split": "test",
        "method": "CLIP zero-shot",
        "model": "RN50-quickgelu",
        "quick_gelu": True,
    }
    line |= {"weights": "of the local file RN50.safetensors", "weights_sha256": "not available", "prompts": "clip"}
    line |= {"n_templates": 18, "n_test": 10, "top1_percent": 50.0, "top1_low": 23.7, "top1_high": 76.3}
    pd.DataFrame([line | {"interval_method": "Wilson, 95 %, over 10 images"}]).to_csv(
        folder / "results.csv", index=False
    )
    with pytest.raises(InputError, match="not what `synthlib baseline clip` wrote"):  # nobody knows who did
        baselines.read_clip(tmp_path / "baselines")
    with_record(folder)
    table = t3(tmp_path, baselines.read_clip(tmp_path / "baselines"))
    row = one(table, classifier="CLIP RN50")
    assert row[["accuracy_percent", "ci_low", "ci_high", "n_test"]].tolist() == [50, 23.7, 76.3, 10]
    assert row["published_percent"] == 75.6 and row["ci_method"].startswith("Wilson")
    assert one(table, classifier="CLIP ViT-B/32")["status"].startswith("not run")
    view = baselines.baselines_view(table)
    line = one(view, classifier="CLIP RN50")
    assert (line["accuracy %"], line["chance %"]) == ("50.0 [23.7, 76.3]", "10.0")
    assert one(view, method="A peer")["chance %"] == "10.0"


def test_weights_that_are_not_openais_have_no_published_value(tmp_path):
    given = ["cifar10", "test", "RN50", "yfcc15m", "False", "clip", 10, 50.0, 23.7, 76.3, "Wilson", 10]
    row = one(t3(tmp_path, pd.DataFrame([given], columns=CLIP_COLUMNS)), classifier="CLIP RN50")
    assert row["published_percent"] == "not available" and row["accuracy_percent"] == 50


def test_no_clip_was_run_is_an_empty_frame_and_rn50_where_none_is_published(tmp_path):
    assert baselines.read_clip(tmp_path / "nothing").empty
    dirs = [evaluated(tmp_path, "base_class", [6, 6])]
    table = baselines.against_baselines(rows.read_evaluations(dirs), EVERYTHING, NO_CLIP)
    row = one(table, kind="CLIP zero-shot")
    assert (row["classifier"], row["published_percent"]) == ("CLIP RN50", "not available")
    (tmp_path / "baselines" / "clip" / "b").mkdir(parents=True)
    (tmp_path / "baselines" / "clip" / "b" / "results.csv").write_text("dataset\ndigits\n")
    with_record(tmp_path / "baselines" / "clip" / "b")
    with pytest.raises(InputError, match="lacks the columns split.*synthlib baseline clip"):
        baselines.read_clip(tmp_path / "baselines")


def test_t3_tells_apart_what_was_tested_on_other_images(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [6, 6]), evaluated(tmp_path, "real", [9, 9], images="real", split="rest")]
    view = baselines.baselines_view(baselines.against_baselines(rows.read_evaluations(dirs), EVERYTHING, NO_CLIP))
    ours = view[view["method"].str.startswith("ours")]
    assert ours[["method", "split", "learned from"]].drop_duplicates().to_numpy().tolist() == [
        ["ours: base class", "test", "drawn images"], ["ours: real", "rest", "real images"]
    ]  # fmt: skip


def test_a_wanted_condition_of_t3_that_was_not_run_says_why(tmp_path):
    condition = ("eurosat", "merged", "resnet50")
    table = t3(tmp_path, wanted=[condition], why_not_run={condition: "no GPU"})
    assert (
        table.loc[(table["dataset"] == "eurosat") & (table["kind"] == "ours"), "status"].tolist()
        == ["not run: no GPU"] * 2
    )
    assert one(table, dataset="eurosat", kind="CLIP zero-shot")["published_percent"] == 50.44


# --- T5 ---------------------------------------------------------------------------------------------------------------


def t5_dirs(root):
    return [
        init_of(root, "base_class", "scratch", [4, 5, 6], best=[7, 7, 7]),
        init_of(root, "merged", "scratch", [6, 6, 9], best=[8, 8, 9]),
        init_of(root, "base_class", "imagenet", [5, 7, 9], bonus=0),
    ]


def test_t5_gives_each_choice_its_worth_over_the_same_replicates(tmp_path):
    table = effects.protocol_effects(*inputs(t5_dirs(tmp_path)))
    row = one(table, effect="merged - base class", init="scratch", evaluation_mode="eval")
    assert row["difference_points"] == 20 and row["n_pairs"] == 3  # 20, 10, 30
    assert row["difference_low"] == pytest.approx(20 - 24.8414, abs=1e-3)
    row = one(table, effect="ImageNet weights - from scratch", trick="base_class", evaluation_mode="eval")
    assert row["difference_points"] == 20 and row["setting"] == "init=imagenet"  # 10, 20, 30
    row = one(table, effect="authors' mode - eval mode", trick="base_class", init="scratch")
    assert (row["difference_points"], row["difference_low"]) == (5, 5)  # one more in the second of two shuffles
    assert one(table, effect="authors' mode - eval mode", trick="base_class", init="imagenet")["difference_points"] == 0
    row = one(table, effect="best epoch on the test set - last epoch", trick="base_class", init="scratch")
    assert row["difference_points"] == pytest.approx((25 + 15 + 5) / 3)  # 70 - 45, 55, 65
    gain = one(table, effect="merged - base class", init="scratch", evaluation_mode="authors_best")
    assert gain["difference_points"] == pytest.approx((10 + 10 + 20) / 3)


def test_t5_says_of_each_missing_part_what_is_missing(tmp_path):
    why = {("digits", "merged+init=imagenet", "cnn"): "no weights"}
    wanted = [("digits", "base_class+init=scratch", "vit")]
    table = effects.protocol_effects(*inputs(t5_dirs(tmp_path)), wanted, why)
    row = one(table, effect="merged - base class", init="imagenet", evaluation_mode="eval", architecture="cnn")
    assert row["status"] == "not run: merged, init=imagenet: no weights" and pd.isna(row["difference_points"])
    row = one(
        table, effect="best epoch on the test set - last epoch", init="imagenet", trick="base_class", architecture="cnn"
    )
    assert row["status"].startswith("not run: no best epoch on the test set was kept")
    assert table.loc[table["architecture"] == "vit", "status"].str.startswith("not run").all()
    view = effects.effects_view(table)
    assert view.loc[view["architecture"] == "vit", ["effect", "points"]].to_numpy().tolist() == [["all", "not run"]]
    assert (
        one(view, effect="authors' mode - eval mode", trick="merged", init="scratch")["points"]
        == "+5.0 (mean of +5.0, +5.0, +5.0)"
    )


def test_t5_refuses_a_condition_that_is_there_under_two_names(tmp_path):
    dirs = [*t5_dirs(tmp_path), evaluated(tmp_path, "base_class", [1, 2, 3])]
    with pytest.raises(InputError, match="base_class, cnn, init scratch is there twice"):
        effects.protocol_effects(*inputs(dirs))


# --- T6 ---------------------------------------------------------------------------------------------------------------


def test_t6_has_each_condition_with_its_gain_over_base_and_merged_and_its_source(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [4, 5, 6]), evaluated(tmp_path, "merged", [6, 6, 9], best=[9, 9, 9])]
    dirs += [
        evaluated(tmp_path, "domain_guidance", [7, 8, 9]),
        evaluated(tmp_path, "merged_full", [8, 9, 9], n_train=300),
    ]
    dirs += [
        evaluated(tmp_path, "base_class", [5, 6, 7], setting="judge=glyphs"),
        evaluated(tmp_path, "mine", [5, 5, 5]),
    ]
    read, correct = inputs(dirs)
    why = {("digits", "prompt_list", "cnn"): "no list"}
    table = effects.beyond(read, correct, PUBLISHED, [("digits", "prompt_list", "cnn")], why)
    assert set(table["evaluation_mode"]) == {"eval", "authors"}
    row = one(table, trick="domain_guidance", evaluation_mode="eval")
    # over base: 30 each; over merged: 10, 20, 0
    assert (row["accuracy_percent"], row["over_base_points"], row["over_base_p"]) == (80, 30, 0)
    assert row["over_merged_points"] == 10 and row["over_merged_low"] == pytest.approx(10 - 24.8414, abs=1e-3)
    assert row["source"] == "ours: domain and random guidance in one image" and row["n_replicates"] == 3
    judged = one(table, setting="judge=glyphs", evaluation_mode="eval")
    assert judged["over_base_points"] == 10 and judged["source"].startswith("He et al. 2023 (2210.07574), CLIP filter")
    full = one(table, trick="merged_full", evaluation_mode="eval")
    assert full["over_base_remark"] == "unequal n_train (100 and 300)" and "follow-on" in full["source"]
    plain = one(table, trick="base_class", setting="", evaluation_mode="eval")
    assert pd.isna(plain["over_base_points"]) and plain["source"] == "the paper"
    assert set(table.loc[table["trick"] == "mine", "source"]) == {"not stated"}  # a trick that somebody added
    assert one(table, trick="prompt_list", evaluation_mode="eval")["status"] == "not run: no list"
    view = effects.beyond_view(table)
    assert (
        one(view, trick="domain guidance", **{"evaluated in": "eval mode"})["- base, points"]
        == "+30.0 (mean of +30.0, +30.0, +30.0)"
    )
    assert view["remark"].str.contains("base: unequal").any()


def test_t6_without_merged_says_what_it_could_not_be_compared_with(tmp_path):
    read, correct = inputs([evaluated(tmp_path, "domain_guidance", [7, 8, 9])])
    row = one(effects.beyond(read, correct, PUBLISHED), evaluation_mode="eval")
    assert row["over_merged_remark"] == "not run: no evaluated folder was given for merged"
    assert pd.isna(row["over_merged_points"])


# --- nothing was run --------------------------------------------------------------------------------------------------


def test_where_none_of_what_was_wanted_was_run_every_table_says_so(tmp_path):
    from conftest import ROOT

    from synthlib.results import claims, differences, tables

    read, correct = inputs([evaluated(tmp_path, "real", [7, 8], images="real")])
    none, wanted, why = read.iloc[:0], [("digits", "base_class", "cnn"), ("digits", "merged", "cnn")], {}
    asked = claims.read_claims(ROOT / "experiments" / "claims.yaml")
    made = {
        "T1": (tables.accuracy_by_trick(none, PUBLISHED, wanted, why), tables.accuracy_view),
        "T2": (differences.base_against_merged(none, correct, PUBLISHED, wanted=wanted), differences.difference_view),
        "T3": (baselines.against_baselines(none, EVERYTHING, NO_CLIP, wanted, why), baselines.baselines_view),
        "T4": (claims.claims_table(none, correct, asked, wanted, why), claims.claims_view),
        "T5": (effects.protocol_effects(none, correct, wanted, why), effects.effects_view),
        "T6": (effects.beyond(none, correct, PUBLISHED, wanted, why), effects.beyond_view),
    }
    for name, (table, view_of) in made.items():
        assert len(table) and table["status"].str.startswith("not run").all(), name
        assert view_of(table).apply(lambda line: "not run" in set(line), axis=1).all(), name
