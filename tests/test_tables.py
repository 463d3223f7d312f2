"""The tables: two small data sets whose accuracies, intervals and differences can be worked out by hand."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from safetensors.numpy import save_file

from synthlib import paths
from synthlib.inputs import InputError
from synthlib.results import cells, compare, differences, rows, tables

PUBLISHED = pd.DataFrame(
    {
        "dataset": ["cifar10", "cifar10", "cifar10"],
        "method": ["base class", "best tricks", "base class"],
        "classifier": ["ResNet50", "ResNet50", "ResNet50"],
        "accuracy_percent": [60.5, 81.0, 35.3],
        "setting": ["synthetic only, this paper", "synthetic only, this paper", "synthetic only"],
        "source": ["authors' README", "authors' README", "a peer's Table 1"],
    }
)
LABELS = np.arange(10) % 2  # ten test images of two classes


def logits_with(right: np.ndarray) -> np.ndarray:
    """float32 [..., N, 2] whose argmax is the label where `right` [..., N], else the other class."""
    predicted = np.where(right, LABELS, 1 - LABELS)
    return np.eye(2, dtype=np.float32)[predicted]


def finish(folder) -> None:
    """What 03_eval's receipt says about the files of a folder."""
    outputs = {}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        outputs[path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    of_a_step = {"notebook": "03_eval", "parameters": {}, "inputs": {}, "code": "", "recorded": {}}
    (folder / "receipt.json").write_text(json.dumps(of_a_step | {"outputs": outputs}))


def evaluated(root, trick, hits, dataset="digits", architecture="cnn", n_train=100, measures=(), bonus=1, best=(),
              top5=None, **variants):  # fmt: skip
    """An 03_eval folder: replicate r has hits[r] of 10 right in eval mode, and `bonus` more in the second shuffle.

    best: of the epoch that was best on the test set, so many right in each shuffle. variants: where they are not usual.
    """
    who = {"dataset": dataset, "split": "test", "trick": trick, "setting": "", "images": "drawn"}
    who |= {"architecture": architecture}
    who |= {"init": "scratch", "protocol": "miniature"} | variants
    folder = root / "-".join([dataset, trick, architecture, *variants.values()])
    folder.mkdir(parents=True)
    table = []

    def row(mode, replicate, accuracy):
        scores = {"accuracy_percent": accuracy, "top5_percent": top5, "ece_percent": 2.0 + replicate}
        seeds = {"replicate": replicate, "generation_seed": f"10:{replicate}", "training_seed": 20 + replicate}
        counts = {"n_train": n_train, "n_steps": 50, "n_test": 10}
        table.append(who | {"evaluation_mode": mode} | seeds | counts | scores)

    def save(name, right, shuffles):
        tensors = {"eval": logits_with(right), "authors": logits_with(shuffles), "labels": LABELS}
        save_file(tensors | {"order": np.tile(np.arange(10), (2, 1))}, folder / f"{name}.safetensors")

    for replicate, n in enumerate(hits):
        right = np.arange(10) < n
        save(f"logits-r{replicate}", right, np.stack([right, np.arange(10) < n + bonus]))
        row("eval", replicate, 10 * n)
        row("authors", replicate, 10 * n + 5 * bonus)
    for replicate, n in enumerate(best):
        right = np.arange(10) < n
        save(f"logits-best-r{replicate}", ~right, np.stack([right, right]))
        row("authors_best", replicate, 10 * n)
    pd.DataFrame(table, columns=rows.ROW_COLUMNS).to_csv(folder / "results.csv", index=False)
    if measures:
        same = [dataset, trick, who["setting"]]
        lines = [[*same, r, "vendi_per_class", "pixels", value, "", "", 50] for r, value in enumerate(measures)]
        pd.DataFrame(lines, columns=rows.MEASURE_COLUMNS).to_csv(folder / "measures.csv", index=False)
    (folder / "classes.json").write_text('["even", "odd"]')
    finish(folder)
    return str(folder)


def key(trick, mode):
    """A condition as `read_correct` names it."""
    return ("digits", "test", trick, "", "drawn", "cnn", "scratch", "miniature", mode)


@pytest.fixture
def dirs(tmp_path):
    """merged named first: the tables must put it after base class."""
    merged = evaluated(tmp_path, "merged", [7, 8, 9], measures=[3.0, 4.0, 5.0])
    return [merged, evaluated(tmp_path, "base_class", [5, 7, 6], measures=[2.0, 2.5, 3.0])]


def one(table, **values):
    chosen = table
    for column, value in values.items():
        chosen = chosen[chosen[column] == value]
    assert len(chosen) == 1
    return chosen.iloc[0]


# --- reading ----------------------------------------------------------------------------------------------------------


def test_rows_of_all_folders_come_in_canonical_order(dirs):
    read = rows.read_evaluations(dirs)
    assert len(read) == 2 * 2 * 3
    assert list(dict.fromkeys(read["trick"])) == ["base_class", "merged"]
    assert read["replicate"].tolist()[:6] == [0, 1, 2, 0, 1, 2]
    assert read["accuracy_percent"].tolist()[:6] == [50, 70, 60, 55, 75, 65]  # eval before authors


def test_a_folder_without_results_names_the_notebook_to_run(tmp_path):
    with pytest.raises(InputError, match=r"no results.csv in .*run notebooks/03_eval.ipynb"):
        rows.read_evaluations([tmp_path / "nothing"])
    with pytest.raises(InputError, match=r"03_eval"):
        rows.read_evaluations([])


def test_results_without_rows_name_the_notebook_to_run(tmp_path):
    (tmp_path / "results.csv").write_text(",".join(rows.ROW_COLUMNS) + "\n")
    finish(tmp_path)
    with pytest.raises(InputError, match=r"has no row.*run notebooks/03_eval.ipynb"):
        rows.read_evaluations([tmp_path])


def test_a_file_changed_after_its_receipt_is_refused(dirs):
    path = f"{dirs[0]}/results.csv"
    with open(path, "a") as file:
        file.write("\n")
    with pytest.raises(InputError, match="damaged"):
        rows.read_evaluations(dirs)


def test_a_folder_named_twice_is_refused(dirs):
    with pytest.raises(InputError, match="once"):
        rows.read_evaluations([dirs[0], dirs[0]])


def test_correctness_is_per_image_and_authors_mode_is_the_mean_over_shuffles(dirs):
    correct = rows.read_correct(dirs)
    assert set(correct) == {key(t, m) for t in ("base_class", "merged") for m in ("eval", "authors")}
    base = correct[key("base_class", "eval")]
    assert base.shape == (3, 10) and base.sum(axis=1).tolist() == [5, 7, 6]
    authors = correct[key("base_class", "authors")]
    assert authors[0].tolist() == [1, 1, 1, 1, 1, 0.5, 0, 0, 0, 0]


def test_the_best_epochs_correctness_is_read_from_its_own_logits(tmp_path):
    correct = rows.read_correct([evaluated(tmp_path, "merged", [7, 8], best=[9, 10])])
    assert correct[key("merged", "authors_best")].sum(axis=1).tolist() == [9, 10]
    assert correct[key("merged", "eval")].sum(axis=1).tolist() == [7, 8]


def test_results_of_older_code_lack_columns_and_say_so_in_one_line(dirs):
    path = f"{dirs[0]}/results.csv"
    pd.read_csv(path).drop(columns=["split", "ece_percent"]).to_csv(path, index=False)
    finish(Path(dirs[0]))
    with pytest.raises(InputError, match=r"lacks the columns split, ece_percent; .*run notebooks/03_eval") as error:
        rows.read_evaluations(dirs)
    assert "\n" not in str(error.value)


def test_variants_of_a_condition_are_no_duplicates_and_stand_beside_one_another(tmp_path):
    named = [{"images": "hosted"}, {"protocol": "authors"}, {"split": "rest"}, {"init": "imagenet"}, {}]
    read = rows.read_evaluations(evaluated(tmp_path, trick, [7], **one_of) for one_of in named for trick in ("merged",))
    assert read[["split", "images", "init", "protocol"]].to_numpy().tolist()[::2] == [
        ["test", "drawn", "scratch", "miniature"],
        ["test", "drawn", "scratch", "authors"],
        ["test", "drawn", "imagenet", "miniature"],
        ["test", "hosted", "scratch", "miniature"],
        ["rest", "drawn", "scratch", "miniature"],
    ]


def test_logits_that_contradict_the_stated_accuracy_are_refused(tmp_path):
    folder = evaluated(tmp_path, "merged", [7])
    frame = pd.read_csv(f"{folder}/results.csv")
    frame.loc[0, "accuracy_percent"] = 99.0
    frame.to_csv(f"{folder}/results.csv", index=False)
    finish(tmp_path / "digits-merged-cnn")
    with pytest.raises(InputError, match=r"70.000 %, but results.csv says 99.000 %"):
        rows.read_correct([folder])


def test_confusion_is_in_percent_of_the_true_class(tmp_path):
    evaluated(tmp_path, "merged", [7])
    # seven right: images 0..6, so class 0 (even) has 4 of 5 right and class 1 has 3 of 5
    matrix = rows.confusion_of((tmp_path / "digits-merged-cnn").glob("*.safetensors"), ["even", "odd"])
    assert matrix == pytest.approx(np.array([[80, 20], [40, 60]]))


def test_confusions_leave_out_the_best_epoch_on_the_test_set(tmp_path):
    folder = evaluated(tmp_path, "merged", [7], best=[9])
    assert rows.confusion_of(Path(folder).glob("*.safetensors"), ["even", "odd"])[0].tolist() == [80, 20]
    found, classes, who = rows.read_confusions([folder])["digits"]
    assert who["merged, cnn"] == {"dataset": "digits", "trick": "merged", "setting": "", "architecture": "cnn"}
    assert list(found) == ["merged, cnn"] and classes == ["even", "odd"]
    assert found["merged, cnn"].tolist() == [[80, 20], [40, 60]]
    with pytest.raises(InputError, match=r"expected logits-r0"):
        rows.confusion_of(Path(folder).glob("logits-best-*"), classes)


def test_confusions_of_a_hosted_set_and_of_ours_are_two(tmp_path):
    dirs = [evaluated(tmp_path, "merged", [7]), evaluated(tmp_path, "merged", [10], images="hosted")]
    found, _, _ = rows.read_confusions(dirs, [("digits", "merged", "cnn")])["digits"]
    assert list(found) == ["merged, cnn, images drawn", "merged, cnn, images hosted"]
    assert found["merged, cnn, images hosted"].tolist() == [[100, 0], [0, 100]]


# --- T1 ---------------------------------------------------------------------------------------------------------------


def test_t1_gives_mean_interval_method_and_counts(dirs):
    table = tables.accuracy_by_trick(rows.read_evaluations(dirs), PUBLISHED)
    row = one(table, trick="base_class", evaluation_mode="eval")
    # 50, 60, 70: s = 10, half = 4.30265 * 10 / sqrt(3) = 24.8414
    assert row["accuracy_percent"] == 60
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((60 - 24.8414, 60 + 24.8414), abs=1e-3)
    assert row["ci_method"] == "t over 3 replicates (generation and training seeds)"
    counts = row[["n_replicates", "n_generation_seeds", "n_training_seeds", "n_train", "n_steps", "n_test"]]
    assert counts.tolist() == [3, 3, 3, 100, 50, 10]
    assert row["published_percent"] == "not available" and row["published_source"] == "not available"


def test_t1_shows_a_wanted_condition_that_was_not_run_with_the_reason(dirs):
    wanted = [("digits", "merged", "cnn"), ("digits", "class_prompt", "cnn"), ("digits", "merged", "vit")]
    why = {("digits", "merged", "vit"): "needs a GPU"}
    table = tables.accuracy_by_trick(rows.read_evaluations(dirs), PUBLISHED, wanted, why)
    assert one(table, trick="class_prompt", evaluation_mode="eval")["status"].startswith("not run: no evaluated folder")
    assert one(table, architecture="vit", evaluation_mode="authors")["status"] == "not run: needs a GPU"
    assert pd.isna(one(table, architecture="vit", evaluation_mode="eval")["accuracy_percent"])
    assert list(dict.fromkeys(table[table["architecture"] == "cnn"]["trick"])) == [
        "base_class",
        "class_prompt",
        "merged",
    ]


def test_published_values_are_the_papers_own_with_their_source(tmp_path):
    folder = evaluated(tmp_path, "base_class", [6, 6], dataset="cifar10", architecture="resnet50")
    table = tables.accuracy_by_trick(rows.read_evaluations([folder]), PUBLISHED)
    row = one(table, trick="base_class", evaluation_mode="authors")
    assert (row["published_percent"], row["published_source"]) == (60.5, "authors' README")  # not the peer's 35.3
    assert one(table, trick="base_class", evaluation_mode="eval")["published_percent"] == "not available"
    best = one(table, trick="best tricks")
    assert best["published_percent"] == 81.0 and best["status"] == "published only: which tricks is not known"


def test_published_values_stand_beside_the_modes_the_images_and_the_test_set_of_the_paper_only(tmp_path):
    given = {"dataset": "cifar10", "architecture": "resnet50", "best": [8]}
    variants = [{}, {"images": "hosted"}, {"images": "imported"}, {"split": "rest"}]
    folders = [evaluated(tmp_path, "base_class", [6], **given, **variant) for variant in variants]
    table = tables.accuracy_by_trick(rows.read_evaluations(folders), PUBLISHED)
    has = table[(table["published_percent"] != "not available") & (table["trick"] == "base_class")]
    assert has[["split", "images", "evaluation_mode"]].to_numpy().tolist() == [
        ["test", "drawn", "authors"],
        ["test", "drawn", "authors_best"],
        ["test", "hosted", "authors"],
        ["test", "hosted", "authors_best"],
    ]
    assert set(has["published_percent"]) == {60.5}


def test_t1_keeps_variants_apart_and_the_view_names_only_what_differs(tmp_path):
    dirs = [evaluated(tmp_path, "merged", [7, 8]), evaluated(tmp_path, "merged", [9, 10], images="hosted", n_train=90)]
    table = tables.accuracy_by_trick(rows.read_evaluations(dirs), PUBLISHED, [("digits", "class_prompt", "cnn")])
    assert one(table, images="drawn", evaluation_mode="eval")["accuracy_percent"] == 75
    assert one(table, images="hosted", evaluation_mode="eval")["accuracy_percent"] == 95
    view = tables.accuracy_view(table)
    assert view[["trick", "images", "n train"]].to_numpy().tolist() == [
        ["class prompt", "", ""], ["merged", "drawn", "100"], ["merged", "hosted", "90"]
    ]  # fmt: skip
    assert not {"split", "init", "protocol"} & set(view.columns)


def test_a_table_of_one_variant_reads_as_if_there_were_none(dirs):
    view = tables.accuracy_view(tables.accuracy_by_trick(rows.read_evaluations(dirs), PUBLISHED))
    assert list(view.columns) == [
        "data set", "architecture", "trick", "accuracy %, eval mode", "accuracy %, authors' mode", "chance %", "published %",
        "n train", "n test", "replicates",
    ]  # fmt: skip


def test_a_condition_counts_as_run_whatever_its_variant(tmp_path):
    folder = evaluated(tmp_path, "merged", [7], images="hosted", init="imagenet")
    table = tables.accuracy_by_trick(rows.read_evaluations([folder]), PUBLISHED, [("digits", "merged", "cnn")])
    assert set(table["status"]) == {"run"}


def test_the_best_epoch_on_the_test_set_is_a_labelled_column_of_its_own(tmp_path):
    dirs = [evaluated(tmp_path, "merged", [7, 8], best=[9, 10]), evaluated(tmp_path, "base_class", [5, 6])]
    view = tables.accuracy_view(tables.accuracy_by_trick(rows.read_evaluations(dirs), PUBLISHED))
    column = "accuracy %, authors' mode, best epoch on the test set"
    assert [line.split(" ")[0] for line in view[column]] == ["", "95.0"]
    assert view["accuracy %, authors' mode"].str[:4].tolist() == ["60.0", "80.0"]


def test_top5_and_calibration_error_have_intervals_and_top5_shows_where_there_is_any(tmp_path):
    dirs = [evaluated(tmp_path, "merged", [7, 8, 9], top5=90.0), evaluated(tmp_path, "base_class", [5, 6, 7])]
    table = tables.accuracy_by_trick(rows.read_evaluations(dirs), PUBLISHED)
    row = one(table, trick="merged", evaluation_mode="eval")
    # ECE 2, 3, 4: s = 1, half = 4.30265 / sqrt(3)
    ece = (row["ece_percent"], row["ece_low"], row["ece_high"])
    assert ece == pytest.approx((3, 3 - 2.48414, 3 + 2.48414), abs=1e-4)
    assert (row["top5_percent"], row["top5_low"], row["top5_high"]) == (90, 90, 90)
    assert pd.isna(one(table, trick="base_class", evaluation_mode="eval")["top5_percent"])
    assert tables.accuracy_view(table)["top-5 %, eval mode"].tolist() == ["", "90.0 (mean of 90.0, 90.0, 90.0)"]


@pytest.mark.parametrize(
    ("hits", "words", "low", "high"),
    [
        ([9, 10], "95.0 (mean of 90.0, 100.0) (chance?)", 31.469, 100),  # 95 -+ 12.706 * 5; chance is 50
        ([0, 1, 0], "3.3 (mean of 0.0, 10.0, 0.0)", 0, 17.676),
        ([8, 9, 8, 9], "85.0 [75.8, 94.2]", 75.813, 94.187),
        ([9, 10, 10, 10], "97.5 [89.5, 100.0]", 89.544, 100),
        ([4, 5, 6, 7], "55.0 [34.5, 75.5] (chance?)", 34.458, 75.542),
        ([6, 4], "50.0 (mean of 60.0, 40.0) (chance?)", 0, 100),
        ([5], "50.0 (one replicate) (chance?)", None, None),
        ([7], "70.0 (one replicate) (chance?)", None, None),  # 7 of 10: Wilson has 40 to 89
        ([10], "100.0 (one replicate)", None, None),  # Wilson has 72 to 100
        ([7, 7, 7, 7], "70.0 [70.0, 70.0] (chance?)", 70, 70),  # all alike, as of classifiers that know one class
        ([10, 10, 10, 10], "100.0 [100.0, 100.0]", 100, 100),
    ],
)
def test_an_accuracy_has_an_interval_within_0_and_100_or_few_values_and_a_mark_where_it_covers_chance(
    tmp_path, hits, words, low, high
):
    table = tables.accuracy_by_trick(rows.read_evaluations([evaluated(tmp_path, "merged", hits, bonus=0)]), PUBLISHED)
    (line,) = tables.accuracy_view(table).to_dict("records")
    assert (line["accuracy %, eval mode"], line["chance %"]) == (words, "50.0")
    row = one(table, evaluation_mode="eval")
    assert row["chance_percent"] == 50 and row["accuracy_covers_chance"] == ("yes" if "chance" in words else "no")
    bounds = (row["ci_low"], row["ci_high"])
    assert bounds == pytest.approx((low, high), abs=1e-3) if low is not None else np.isnan(bounds).all()


def test_chance_stands_beside_published_accuracies_too_and_is_of_all_classes_there(tmp_path):
    folder = evaluated(tmp_path, "base_class", [6, 7], dataset="cifar10", architecture="resnet50", top5=90.0)
    table = tables.accuracy_by_trick(
        rows.read_evaluations([folder]).assign(n_classes=20), PUBLISHED, [("cifar10", "merged", "vit")]
    )
    assert one(table, trick="base_class", evaluation_mode="eval")["chance_percent"] == 5  # of a folder's own classes
    assert one(table, trick="best tricks")["chance_percent"] == 10
    lines = tables.accuracy_view(table).set_index("trick")["chance %"]
    assert lines["base class"] == "5.0 (top-5: 25.0)" and lines["merged"] == ""


def test_images_that_were_given_count_no_generation_seed(tmp_path):
    folder = tmp_path / "digits-merged-cnn"
    evaluated(tmp_path, "merged", [7, 8])
    frame = pd.read_csv(folder / "results.csv").assign(generation_seed=np.nan)
    frame.to_csv(folder / "results.csv", index=False)
    finish(folder)
    row = one(tables.accuracy_by_trick(rows.read_evaluations([folder]), PUBLISHED), evaluation_mode="eval")
    assert row["n_generation_seeds"] == 0 and row["ci_method"] == "t over 2 replicates (training seeds only)"


def test_replicates_of_unequal_size_are_not_averaged(dirs):
    read = rows.read_evaluations(dirs)
    read.loc[0, "n_train"] = 99
    with pytest.raises(InputError, match=r"n_train \[99, 100\]"):
        tables.accuracy_by_trick(read, PUBLISHED)


# --- T2 ---------------------------------------------------------------------------------------------------------------


def test_t2_is_merged_minus_base_paired_over_replicates(dirs):
    table = differences.base_against_merged(rows.read_evaluations(dirs), rows.read_correct(dirs), PUBLISHED)
    row = one(table, evaluation_mode="eval")
    # merged - base: 20, 10, 30: mean 20, s = 10, half = 24.8414
    assert (row["base_percent"], row["merged_percent"], row["difference_points"]) == (60, 80, 20)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((20 - 24.8414, 20 + 24.8414), abs=1e-3)
    assert row["difference_method"] == "paired t over 3 replicates (generation and training seeds)"
    assert row["bootstrap_method"] == "crossed bootstrap, 2000 draws of 3 replicates x 10 test images"
    assert 0 <= row["bootstrap_low"] < 20 < row["bootstrap_high"] <= 60
    assert (row["n_pairs"], row["n_test"], row["status"]) == (3, 10, "equal n_train")


def test_t2_pairs_by_replicate_number_and_not_by_position(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [5, 7, 6]), evaluated(tmp_path, "merged", [7, 8, 9])]
    read, correct = rows.read_evaluations(dirs), rows.read_correct(dirs)
    read = read[~((read["trick"] == "merged") & (read["replicate"] == 0))]
    correct = {key: value[1:] if key[1] == "merged" else value for key, value in correct.items()}
    row = one(differences.base_against_merged(read, correct, PUBLISHED), evaluation_mode="eval")
    assert row["n_pairs"] == 2 and row["difference_points"] == 20  # 80 - 70 and 90 - 60


def test_t2_says_where_n_train_is_unequal(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [5]), evaluated(tmp_path, "merged_full", [7], n_train=300)]
    read, correct = rows.read_evaluations(dirs), rows.read_correct(dirs)
    row = one(differences.base_against_merged(read, correct, PUBLISHED, merged="merged_full"), evaluation_mode="eval")
    assert row["status"] == "unequal n_train (100 and 300)"


def test_t2_of_two_single_runs_asks_mcnemar_in_eval_mode_and_nobody_in_the_authors_mode(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [5]), evaluated(tmp_path, "merged", [8])]
    table = differences.base_against_merged(rows.read_evaluations(dirs), rows.read_correct(dirs), PUBLISHED)
    row = one(table, evaluation_mode="eval")
    # images 5, 6 and 7 only merged got right: p = 2 / 2^3
    assert row["p"] == pytest.approx(0.25) and pd.isna(row["difference_low"])
    assert row["difference_method"] == "McNemar, exact, 3 and 0 discordant of 10 test images"
    assert differences.difference_view(table).iloc[0]["p"] == "0.25 (McNemar)"
    row = one(table, evaluation_mode="authors")
    assert pd.isna(row["p"]) and row["difference_method"] == "one replicate: no interval"


def test_t2_pairs_what_differs_in_nothing_but_the_trick(tmp_path):
    variants = [{}, {"images": "hosted"}, {"init": "imagenet"}, {"split": "rest"}]
    dirs = [evaluated(tmp_path, "base_class", [4 + k, 5 + k], **variant) for k, variant in enumerate(variants)]
    dirs += [evaluated(tmp_path, "merged", [6, 8 + (k > 1)], **variant) for k, variant in enumerate(variants)]
    dirs += [evaluated(tmp_path, "real", [9, 9], images="real")]  # neither side: no line
    table = differences.base_against_merged(rows.read_evaluations(dirs), rows.read_correct(dirs), PUBLISHED)
    found = table[table["evaluation_mode"] == "eval"]
    assert found[["split", "images", "init", "difference_points"]].to_numpy().tolist() == [
        ["test", "drawn", "scratch", 25], ["test", "drawn", "imagenet", 10], ["test", "hosted", "scratch", 15],
        ["rest", "drawn", "scratch", 0],
    ]  # fmt: skip
    view = differences.difference_view(table)
    assert list(view.columns)[:6] == ["data set", "architecture", "split", "images", "init", "evaluated in"]


def test_t2_compares_the_best_epochs_only_where_both_have_them(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [5, 6]), evaluated(tmp_path, "merged", [7, 8], best=[9, 10])]
    read, correct = rows.read_evaluations(dirs), rows.read_correct(dirs)
    assert list(differences.base_against_merged(read, correct, PUBLISHED)["evaluation_mode"]) == ["eval", "authors"]
    dirs[0] = evaluated(tmp_path, "base_class", [5, 6], protocol="own", best=[6, 8])
    dirs[1] = evaluated(tmp_path, "merged", [7, 8], protocol="own", best=[9, 10])
    read, correct = rows.read_evaluations(dirs), rows.read_correct(dirs)
    row = one(differences.base_against_merged(read, correct, PUBLISHED), evaluation_mode="authors_best")
    assert row["difference_points"] == 25 and row["difference_method"].startswith("paired t")


def test_t2_without_merged_says_not_run(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [5, 6])]
    table = differences.base_against_merged(rows.read_evaluations(dirs), rows.read_correct(dirs), PUBLISHED)
    assert set(table["status"]) == {"not run: no evaluated folder was given for merged"}
    assert table["difference_points"].isna().all() and table["base_percent"].tolist() == [55, 60]


def test_t2_names_the_architectures_that_were_wanted_and_not_run(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [5, 6]), evaluated(tmp_path, "merged", [7, 8])]
    wanted = [("digits", trick, architecture) for trick in ("base_class", "merged") for architecture in ("cnn", "vit")]
    why = {("digits", "merged", "vit"): "no GPU", ("digits", "base_class", "vit"): "no GPU"}
    table = differences.base_against_merged(
        rows.read_evaluations(dirs), rows.read_correct(dirs), PUBLISHED, wanted=wanted, why_not_run=why
    )
    assert table["architecture"].tolist() == ["cnn", "cnn", "vit", "vit"]
    missing = one(table, architecture="vit", evaluation_mode="authors")
    assert missing["status"] == "not run: base class: no GPU; merged: no GPU" and pd.isna(missing["difference_points"])
    view = differences.difference_view(table)
    assert view["merged - base, points"].tolist()[2:] == ["not run", "not run"]
    nothing = differences.base_against_merged(rows.read_evaluations(dirs).iloc[:0], {}, PUBLISHED, wanted=wanted)
    assert len(nothing) == 4 and nothing["status"].str.startswith("not run: no evaluated folder").all()


def test_a_setting_is_a_condition_of_its_own_in_t1(tmp_path):
    dirs = [evaluated(tmp_path, "random_guidance", [7, 8])]
    dirs += [evaluated(tmp_path, "random_guidance", [5, 6], setting="guidance=3", dataset="digits")]
    wanted = [("digits", f"random_guidance+guidance={value}", "cnn") for value in (3, 5)]
    table = tables.accuracy_by_trick(rows.read_evaluations(dirs), PUBLISHED, wanted)
    assert one(table, setting="guidance=3", evaluation_mode="eval")["accuracy_percent"] == 55
    assert one(table, setting="", evaluation_mode="eval")["accuracy_percent"] == 75
    missing = one(table, setting="guidance=5", evaluation_mode="eval")
    assert missing["trick"] == "random_guidance" and missing["status"].startswith("not run")
    view = tables.accuracy_view(table)
    assert view[["trick", "setting"]].to_numpy().tolist() == [
        ["random guidance", ""], ["random guidance", "guidance=3"], ["random guidance", "guidance=5"]
    ]  # fmt: skip
    path = tables.write_table(table, tmp_path / "t", "c", "n")[0]
    assert tables.accuracy_view(tables.read_table(path)).equals(view)


def test_a_published_value_stands_beside_no_setting_and_beside_no_two_inits(tmp_path):
    given = {"dataset": "cifar10", "architecture": "resnet50"}
    settings = ("", "init=scratch", "init=imagenet", "images_per_class=15")
    folders = [evaluated(tmp_path, "base_class", [6], **given, setting=setting) for setting in settings]
    table = tables.accuracy_by_trick(rows.read_evaluations(folders), PUBLISHED)
    assert table.loc[table["published_percent"] == 60.5, "setting"].tolist() == [""]
    folders = [evaluated(tmp_path / init, "base_class", [6], **given, init=init) for init in ("scratch", "imagenet")]
    table = tables.accuracy_by_trick(rows.read_evaluations(folders), PUBLISHED)
    alone = one(table, published_percent=60.5)
    assert (
        pd.isna(alone["accuracy_percent"])
        and alone["status"] == "published only: of which initial weights is not known"
    )
    assert alone["trick"] == "base_class" and pd.isna(alone["init"]) and alone["published_source"] == "authors' README"
    folders.append(evaluated(tmp_path / "scratch", "merged", [8], **given))
    t2 = differences.base_against_merged(rows.read_evaluations(folders), rows.read_correct(folders), PUBLISHED)
    assert set(t2["base_published_percent"]) == {"not available"}


# --- F4's numbers -----------------------------------------------------------------------------------------------------


def test_each_accuracy_stands_beside_the_measure_of_its_own_images(dirs):
    frame = rows.diversity_against_accuracy(rows.read_evaluations(dirs), rows.read_measures(dirs))
    merged = frame[(frame["trick"] == "merged") & (frame["evaluation_mode"] == "eval")]
    assert merged[["value", "accuracy_percent"]].to_numpy().tolist() == [[3, 70], [4, 80], [5, 90]]


def test_measures_repeated_by_a_second_architecture_count_once(tmp_path):
    dirs = [evaluated(tmp_path, "merged", [7], architecture=name, measures=[3.0]) for name in ("cnn", "vit")]
    assert len(rows.read_measures(dirs)) == 1


def test_a_hosted_set_stands_beside_its_own_measures(tmp_path):
    dirs = [evaluated(tmp_path, "merged", [7], measures=[3.0])]
    dirs += [evaluated(tmp_path, "merged", [9], measures=[5.0], images="hosted")]
    frame = rows.diversity_against_accuracy(rows.read_evaluations(dirs), rows.read_measures(dirs))
    in_eval = frame[frame["evaluation_mode"] == "eval"]
    assert in_eval[["images", "value", "accuracy_percent"]].to_numpy().tolist() == [["drawn", 3, 70], ["hosted", 5, 90]]


def test_no_measures_is_an_empty_frame_and_nothing_to_draw(tmp_path):
    from synthlib.results import diversity_plots

    dirs = [evaluated(tmp_path, "merged", [7])]
    measures = rows.read_measures(dirs)
    points = rows.diversity_against_accuracy(rows.read_evaluations(dirs), measures)
    assert measures.empty and points.empty and diversity_plots.correlation_table(points).empty
    figure = diversity_plots.diversity_figure(points, not_run=["digits: merged, cnn: not measured"])
    assert "not measured" in " ".join(text.get_text() for text in figure.axes[0].texts)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_t1(dirs, folder):
    table = tables.accuracy_by_trick(rows.read_evaluations(dirs), PUBLISHED, [("digits", "class_prompt", "cnn")])
    note = "A miniature: 100 % digits, not the paper's numbers_."
    return tables.write_table(
        table, folder / "accuracy_by_trick", "Accuracy by trick", note, tables.accuracy_view(table)
    )


def test_a_table_is_written_as_csv_markdown_and_latex_with_equal_bytes_each_time(dirs, tmp_path):
    first, second = write_t1(dirs, tmp_path / "a"), write_t1(dirs, tmp_path / "b")
    assert [path.name for path in first] == [f"accuracy_by_trick.{suffix}" for suffix in ("csv", "md", "tex")]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_markdown_has_the_interval_in_the_cell_the_modes_as_columns_and_the_note(dirs, tmp_path):
    text = write_t1(dirs, tmp_path)[1].read_text()
    lines = text.splitlines()
    header, ruler, base = lines[2], lines[3], lines[4]
    assert "accuracy %, eval mode" in header and "accuracy %, authors' mode" in header
    assert "60.0 (mean of 50.0, 70.0, 60.0) (chance?)" in base and "not available" in base
    assert len(header) == len(ruler) == len(base)
    assert "not run: no evaluated folder" in text and text.endswith("not the paper's numbers_.\n")


def test_latex_uses_booktabs_and_escapes_what_latex_reads_as_code(dirs, tmp_path):
    text = write_t1(dirs, tmp_path)[2].read_text()
    assert all(
        rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{Accuracy by trick. (chance?): ")
    )
    assert r"100 \% digits" in text and r"numbers\_." in text and r"accuracy \%" in text
    body = text[text.index(r"\begin{tabular}") :]
    assert not [line for line in body.splitlines() if "_" in line.replace(r"\_", "")]
    assert text.count("{") == text.count("}")
    assert r"\end{tabular}}" in text and r"\resizebox" in text  # never wider than the text


@pytest.mark.parametrize(
    ("words", "markdown", "latex"),
    [
        ("$5_$ & $x$", r"\$5_\$ & \$x\$", r"\$5\_\$ \& \$x\$"),
        (r"a_$\x$", r"a_\$\\x\$", r"a\_\$\textbackslash{}x\$"),
        ("_a_ *b* ~c~", r"\_a_ \*b\* \~c\~", r"\_a\_ *b* \textasciitilde{}c\textasciitilde{}"),
        ("<b>x</b>&amp;", r"\<b>x\</b>\&amp;", r"$<$b$>$x$<$/b$>$\&amp;"),
        ("`a`|[b](c)", r"\`a\`\|[b\](c)", r"\textasciigrave{}a\textasciigrave{}\textbar{}{[}b{]}(c)"),
        ("two\n\nlines {#1} ^ 5 %", "two lines {#1} ^ 5 %", r"two lines \{\#1\} \textasciicircum{} 5 \%"),
        ("n_train, [1, 2], 95 %", "n_train, [1, 2], 95 %", r"n\_train, {[}1, 2{]}, 95 \%"),  # plain where it can be
    ],
)
def test_what_a_user_wrote_is_shown_letter_for_letter(tmp_path, words, markdown, latex):
    _, md, tex = tables.write_table(pd.DataFrame({"class": [words], "n": [1]}), tmp_path / "t", "Caption.", words)
    cells = md.read_text().split("\n")[4].replace(r"\|", "BAR").split("|")
    assert cells[1].strip().replace("BAR", r"\|") == markdown
    assert f"{latex} & 1" in tex.read_text() and f"Caption. {latex}" in tex.read_text()


def test_the_csv_reads_back_to_the_same_view(dirs, tmp_path):
    table = tables.accuracy_by_trick(rows.read_evaluations(dirs), PUBLISHED)
    path = tables.write_table(table, tmp_path / "t", "c", "n")[0]
    assert tables.accuracy_view(tables.read_table(path)).equals(tables.accuracy_view(table))
    assert "100.0" not in path.read_text()  # a count stays a whole number


def test_t2_view_has_signed_differences(dirs):
    table = differences.base_against_merged(rows.read_evaluations(dirs), rows.read_correct(dirs), PUBLISHED)
    line = differences.difference_view(table).iloc[0]
    assert (line["base %"], line["chance %"]) == ("60.0 (mean of 50.0, 70.0, 60.0) (chance?)", "50.0")
    assert line["merged - base, points"] == "+20.0 (mean of +20.0, +10.0, +30.0)" and line["n train"] == "100"


def test_the_committed_published_values_hold_the_papers_own_rows():
    published = rows.read_published(paths.package().parent / "experiments" / "published.csv")
    condition = cells.unrun("cifar10", "base_class", "resnet50", "authors")
    assert cells.published_value(published, condition)[0] == 60.5
    assert cells.published_value(published, condition | {"dataset": "digits"})[0] == "not available"


@pytest.mark.parametrize("value", ["6O.5", "", "nan", "605", "True", "1_0"])
def test_a_published_value_that_is_no_percentage_is_one_line(tmp_path, value):
    text = (paths.package().parent / "experiments" / "published.csv").read_text()
    (tmp_path / "published.csv").write_text(text.replace(",60.5,", f",{value},", 1))
    with pytest.raises(InputError, match="accuracy_percent in .*published.csv, line 2"):
        rows.read_published(tmp_path / "published.csv")


# --- the comparison with a reference ----------------------------------------------------------------------------------


def verdicts(ours, reference):
    return {line.file: (line.verdict, line.detail) for line in compare.compare_with_reference(ours, reference)}


def test_equal_tables_are_the_same(dirs, tmp_path):
    write_t1(dirs, tmp_path / "a"), write_t1(dirs, tmp_path / "b")
    assert verdicts(tmp_path / "a", tmp_path / "b")["accuracy_by_trick.csv"][0] == "same"


def test_an_accuracy_inside_the_references_interval_is_within_it(dirs, tmp_path):
    write_t1(dirs, tmp_path / "a"), write_t1(dirs, tmp_path / "b")
    path = tmp_path / "a" / "accuracy_by_trick.csv"
    path.write_text(path.read_text().replace(",60,", ",61,", 1))
    verdict, detail = verdicts(tmp_path / "a", tmp_path / "b")["accuracy_by_trick.csv"]
    assert verdict == "within interval" and "1" in detail


def test_an_accuracy_outside_the_references_interval_differs_and_the_cell_is_named(dirs, tmp_path):
    write_t1(dirs, tmp_path / "a"), write_t1(dirs, tmp_path / "b")
    path = tmp_path / "a" / "accuracy_by_trick.csv"
    path.write_text(path.read_text().replace(",60,", ",85,", 1))  # the reference: [35.2, 84.8]
    verdict, detail = verdicts(tmp_path / "a", tmp_path / "b")["accuracy_by_trick.csv"]
    assert verdict == "differs"
    assert all(part in detail for part in ("base_class", "eval", "accuracy_percent", "85", "35.1586", "84.8414"))


def test_other_counts_or_other_rows_differ_whatever_the_accuracy(dirs, tmp_path):
    write_t1(dirs, tmp_path / "a"), write_t1(dirs, tmp_path / "b")
    path = tmp_path / "a" / "accuracy_by_trick.csv"
    text = path.read_text()
    path.write_text(text.replace(",100,50,10,", ",200,50,10,", 1))
    verdict, detail = verdicts(tmp_path / "a", tmp_path / "b")["accuracy_by_trick.csv"]
    assert verdict == "differs" and "n_train" in detail and "200" in detail
    path.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    verdict, detail = verdicts(tmp_path / "a", tmp_path / "b")["accuracy_by_trick.csv"]
    assert verdict == "differs" and "rows" in detail


def test_replicates_are_compared_by_their_mean(dirs, tmp_path):
    frame = rows.diversity_against_accuracy(rows.read_evaluations(dirs), rows.read_measures(dirs))
    for folder, shift in (("a", 0.1), ("b", 0.0)):
        moved = frame.assign(value=frame["value"] + shift)
        tables.write_table(moved, tmp_path / folder / "diversity_against_accuracy", "c", "n")
    assert verdicts(tmp_path / "a", tmp_path / "b")["diversity_against_accuracy.csv"][0] == "within interval"


def test_a_table_without_reference_says_so(dirs, tmp_path):
    write_t1(dirs, tmp_path / "a")
    assert verdicts(tmp_path / "a", tmp_path / "b")["accuracy_by_trick.csv"][0] == "no reference"


def test_a_reference_table_that_was_not_made_is_named(dirs, tmp_path):
    write_t1(dirs, tmp_path / "b")
    (tmp_path / "a").mkdir()
    verdict, detail = verdicts(tmp_path / "a", tmp_path / "b")["accuracy_by_trick.csv"]
    assert verdict == "differs" and "not made" in detail


def test_a_difference_is_compared_by_its_interval_and_a_verdict_must_be_the_same(tmp_path):
    columns = ["dataset", "trick", "architecture", "difference_points", "difference_low", "difference_high", "p_holm",
               "bootstrap_low", "verdict"]  # fmt: skip
    lines = {"b": ["digits", "merged", "cnn", 20.0, 10.0, 30.0, 0.01, 12.0, "held"]}
    lines["a"] = [*lines["b"][:3], 25.0, 11.0, 39.0, 0.04, 13.0, "held"]
    for folder, line in lines.items():
        tables.write_table(pd.DataFrame([line], columns=columns), tmp_path / folder / "claims", "c", "n")
    assert verdicts(tmp_path / "a", tmp_path / "b")["claims.csv"][0] == "within interval"
    lines["a"][-1] = "undecided"
    tables.write_table(pd.DataFrame([lines["a"]], columns=columns), tmp_path / "a" / "claims", "c", "n")
    verdict, detail = verdicts(tmp_path / "a", tmp_path / "b")["claims.csv"]
    assert verdict == "differs" and "verdict is undecided, committed held" in detail


def test_a_curve_is_compared_by_the_interval_that_it_has(tmp_path):
    for folder, mean in (("a", 2.1), ("b", 2.0)):
        frame = pd.DataFrame([["digits", 1, "loss", mean, 1.9, 2.2]],
                             columns=["dataset", "epoch", "quantity", "mean", "lowest", "highest"])  # fmt: skip
        tables.write_table(frame, tmp_path / folder / "curves", "c", "n")
    assert verdicts(tmp_path / "a", tmp_path / "b")["curves.csv"][0] == "within interval"


def test_a_map_is_compared_by_its_images_and_not_by_their_places(tmp_path):
    for folder, x, label in (("a", 1.5, 3), ("b", -7.25, 3), ("c", 1.5, 4)):
        frame = pd.DataFrame([["real", label, x, 2.0]], columns=["set", "label", "x", "y"])
        tables.write_table(frame, tmp_path / folder / "map", "c", "n")
    assert verdicts(tmp_path / "a", tmp_path / "b")["map.csv"][0] == "same"
    assert verdicts(tmp_path / "a", tmp_path / "c")["map.csv"][0] == "differs"


def test_results_csv_repeats_the_others_and_is_not_compared(dirs, tmp_path):
    write_t1(dirs, tmp_path / "a"), write_t1(dirs, tmp_path / "b")
    (tmp_path / "a" / "results.csv").write_text("commit\none\n")
    (tmp_path / "b" / "results.csv").write_text("commit\nother\n")
    assert list(verdicts(tmp_path / "a", tmp_path / "b")) == ["accuracy_by_trick.csv"]


def test_the_terminal_summary_shows_t1_and_the_verdicts(dirs, tmp_path):
    write_t1(dirs, tmp_path / "a")
    text = compare.summary_text(tmp_path / "a", compare.compare_with_reference(tmp_path / "a", tmp_path / "b"))
    assert "(chance?): chance, 100 / number of classes" in text
    assert "60.0 (mean of" in text and text.endswith("no committed run to compare with.") and "|" not in text
    write_t1(dirs, tmp_path / "b")
    text = compare.summary_text(tmp_path / "a", compare.compare_with_reference(tmp_path / "a", tmp_path / "b"))
    assert "60.0 (mean of" in text and text.endswith("accuracy_by_trick.csv: same (equal bytes)")


def test_a_table_of_older_code_cannot_be_summed_up_and_says_so(dirs, tmp_path):
    path = write_t1(dirs, tmp_path / "a")[0]
    pd.read_csv(path).drop(columns=["split", "init"]).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"lacks the columns split, init; .*run notebooks/04_figures"):
        compare.summary_text(tmp_path / "a")


def test_the_calibration_error_is_compared_with_the_reference_by_its_interval(dirs, tmp_path):
    write_t1(dirs, tmp_path / "a"), write_t1(dirs, tmp_path / "b")
    path = tmp_path / "a" / "accuracy_by_trick.csv"
    for ece, verdict in ((3.5, "within interval"), (9.0, "differs")):  # the reference: 3 [0.5, 5.5]
        frame = pd.read_csv(path, keep_default_na=False)
        frame.loc[0, "ece_percent"] = str(ece)
        frame.to_csv(path, index=False)
        assert verdicts(tmp_path / "a", tmp_path / "b")["accuracy_by_trick.csv"][0] == verdict


def test_one_cell_of_t1_can_be_shown_from_its_evaluated_folder(dirs):
    header, _, line, note = compare.cell_text(dirs[1]).splitlines()
    assert "accuracy %, eval mode" in header and "base class" in line and "60.0 (mean of" in line
    assert note.startswith("(chance?): ")


def test_tables_import_without_torch_and_matplotlib():
    code = "import sys, synthlib.results.tables; print(sorted({'torch', 'matplotlib', 'seaborn'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_a_run_without_t1_has_a_summary_all_the_same(tmp_path):
    assert compare.summary_text(tmp_path) == ""


def test_single_cells_and_bins_and_bounds_have_moved_and_are_not_judged(tmp_path):
    """Cells of a confusion matrix, and bins of confidence of which some are empty: another CPU gives others."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    cells = pd.DataFrame({"condition": "merged, cnn", "true_class": ["one", "two"], "percent": [80.0, 90.0]})
    cells.to_csv(tmp_path / "b" / "confusion.csv", index=False)
    cells.assign(percent=[82.5, 90.0]).to_csv(tmp_path / "a" / "confusion.csv", index=False)
    bins = {"trick": "merged", "bin_low_percent": [0.0, 50.0] * 2, "replicate": [0, 0, 1, 1], "n": [0, 10, 0, 10]}
    bins = pd.DataFrame(bins | {"confidence_percent": [None, 70.0] * 2, "accuracy_percent": [None, 60.0, None, 80.0]})
    bins.to_csv(tmp_path / "b" / "reliability.csv", index=False)
    moved = bins.assign(
        accuracy_percent=[5, 10.0, None, 99.0], confidence_percent=[1, 50.0, None, 72.5], n=[1, 9, 0, 10]
    )
    moved.to_csv(tmp_path / "a" / "reliability.csv", index=False)
    found = verdicts(tmp_path / "a", tmp_path / "b")
    assert found["confusion.csv"][0] == "moved" and "1 number " in found["confusion.csv"][1]
    assert "by 2.5 at most" in found["confusion.csv"][1]
    assert found["reliability.csv"][0] == "moved" and "by 50 at most" in found["reliability.csv"][1]


# --- as a healthy run on another machine has it -----------------------------------------------------------------------

BOUND = re.compile(r"(?:.*_)?(?:low|high)|p|.*_p|p_holm")


def perturbed(folder):
    """The committed run of pocket: estimates elsewhere in their intervals, bounds, p, cells and bins elsewhere."""
    shutil.copytree(ROOT / "figures" / "reference" / "pocket", folder)
    rng = np.random.default_rng(0)
    for file in folder.glob("*.csv"):
        table = pd.read_csv(file, keep_default_na=False, na_values=[""])
        for name, (low, high, _) in cells.INTERVALS.items():
            if name in table and low in table:
                table[name] = table[low] + (table[high] - table[low]) * rng.uniform(0.1, 0.9, len(table))
        if file.name in ("confusion.csv", "reliability.csv"):
            for name in {"percent", "accuracy_percent", "confidence_percent", "n"} & set(table):
                table[name] += rng.integers(0, 9, len(table))
        for name in [name for name in table if BOUND.fullmatch(name)]:
            table[name] += rng.uniform(-0.01, 0.01, len(table))
        table.to_csv(file, index=False, float_format="%.6g")
    return folder


def edit(file, **columns):
    """columns: name -> a value for the first row, or a list of all."""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    for name, value in columns.items():
        table[name] = value if isinstance(value, list) else [value, *table[name][1:]]
    table.to_csv(file, index=False)


@pytest.mark.parametrize(
    ("columns", "agrees", "said"),
    [
        ({}, True, ""),
        ({"orders": ["5"] * 20, "unused_images": ["0"] * 20}, True, "not in the committed run: orders, unused_images"),
        ({"accuracy_percent": "60"}, False, "resnet, scratch, miniature, epochs=20, eval: accuracy_percent is 60"),
        ({"ece_percent": "40"}, False, "ece_percent is 40, committed 11.7818 [5.98811, 17.5754]"),
        ({"accuracy_percent": ""}, False, "accuracy_percent is empty"),
        ({"n_train": "200"}, False, "n_train is 200, committed 300"),
        ({"trick": "merged"}, False, "1 of its rows not here"),
    ],
)
def test_a_run_of_another_machine_agrees_and_what_does_not_is_said_first(tmp_path, columns, agrees, said):
    reference = ROOT / "figures" / "reference" / "pocket"
    edit(perturbed(tmp_path / "run") / "accuracy_by_trick.csv", **columns)
    found = compare.compare_with_reference(tmp_path / "run", reference)
    first, *details = compare.summary_text(tmp_path, found).splitlines()
    assert first.startswith("All headline numbers agree") == agrees
    assert said in (first if not agrees else " ".join(details))
    assert [line.file for line in found if line.verdict == "differs"] == ["accuracy_by_trick.csv"] * (not agrees)


def test_what_only_the_committed_run_has_is_said_and_only_rows_differ(tmp_path):
    reference = ROOT / "figures" / "reference" / "pocket"
    file = perturbed(tmp_path / "run") / "claims.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table.drop(columns="n_claims").to_csv(file, index=False)
    assert verdicts(file.parent, reference)["claims.csv"][0] == "within interval"
    assert "only in the committed run: n_claims" in verdicts(file.parent, reference)["claims.csv"][1]
    pd.concat([table, table.tail(1).assign(trick="prompt_list")]).to_csv(file, index=False)
    verdict, detail = verdicts(file.parent, reference)["claims.csv"]
    assert verdict == "within interval" and "not in the committed run: 1 row" in detail
    table.tail(-1).to_csv(file, index=False)
    assert verdicts(file.parent, reference)["claims.csv"][0] == "differs"


def test_a_headline_number_that_lacks_its_column_or_an_interval_is_not_said_to_agree(tmp_path):
    source = ROOT / "figures" / "reference" / "pocket" / "accuracy_by_trick.csv"
    table = pd.read_csv(source, dtype=str, keep_default_na=False)
    for name in ("ours", "committed"):
        (tmp_path / name).mkdir()
    table.to_csv(tmp_path / "committed" / source.name, index=False)
    table.drop(columns="accuracy_percent").to_csv(tmp_path / "ours" / source.name, index=False)
    said = compare.agreement(compare.compare_with_reference(tmp_path / "ours", tmp_path / "committed"))
    assert said.startswith("Not all") and "accuracy_percent" in said
    table.assign(ci_low="", ci_high="").to_csv(tmp_path / "committed" / source.name, index=False)
    table.assign(accuracy_percent="99").to_csv(tmp_path / "ours" / source.name, index=False)
    said = compare.agreement(compare.compare_with_reference(tmp_path / "ours", tmp_path / "committed"))
    assert "with an interval" in said and f"{len(table)} numbers without one moved" in said


def test_of_a_part_of_an_experiment_only_that_part_is_compared(tmp_path):
    reference = ROOT / "figures" / "reference" / "pocket"
    (tmp_path / "run").mkdir()
    shutil.copy(reference / "claims.csv", tmp_path / "run")
    [line] = compare.compare_with_reference(tmp_path / "run", reference, ["claims.csv"])
    assert line.verdict == "same" and compare.agreement([line]).startswith("All headline numbers agree")
