"""The filter's promises: equal numbers, the first that the judge agrees with, no real label; training takes the kept only."""

from dataclasses import asdict

import pandas as pd
import pytest
import torch
from test_redraw import make_set

from synthlib import receipts
from synthlib.data.shards import read_shards
from synthlib.evaluation import filter as filtering
from synthlib.evaluation.filter import KEPT_COLUMNS, choose_images, filter_set, rejected_rows, votes
from synthlib.evaluation.referee import Judge, glyph_logits, judge_named
from synthlib.inputs import InputError
from synthlib.runs.run import run_step
from synthlib.training.replicates import chosen_images, read_training_set

pytestmark = pytest.mark.usefixtures("one_thread")


def judged(*rows: tuple) -> pd.DataFrame:
    """Rows of (replicate, class, index, agrees, probability)."""
    return pd.DataFrame(rows, columns=["replicate", "class", "index", "agrees", "probability"])


SIX = judged(
    (0, "cat", 0, True, 0.9),
    (0, "cat", 1, False, 0.3),
    (0, "cat", 2, True, 0.6),
    (0, "cat", 3, False, 0.4),
    (0, "cat", 4, True, 0.5),
    (1, "cat", 0, False, 0.1),
)


def test_the_first_that_the_judge_agrees_with_are_kept():
    assert choose_images(SIX[:5], 2).tolist() == [True, False, True, False, False]  # not those of highest probability
    assert choose_images(SIX[:5], 0).tolist() == [True, False, True, False, True]  # 0: all of them


def test_where_too_few_agree_the_likeliest_others_follow():
    assert choose_images(SIX[:5], 4).tolist() == [True, False, True, True, True]  # 0.4 before 0.3
    assert choose_images(SIX, 1).tolist() == [True, False, False, False, False, True]  # each replicate for itself


def test_a_class_without_enough_images_is_one_line():
    with pytest.raises(InputError, match="replicate 0 has only 5 images of 'cat'; expected at least 6: generate more"):
        choose_images(SIX[:5], 6)
    with pytest.raises(InputError, match="replicate 1 has no image that the judge agrees with of 'cat'"):
        choose_images(SIX, 0)


def test_a_merged_set_gives_its_tricks_in_turn_by_index():
    """Three tricks one after the other, as a set is ordered, all agreed with: of each the indices 0 and 1 come first."""
    frame = judged(*[(0, "cat", index, True, 0.9) for _ in range(3) for index in range(4)])
    assert choose_images(frame, 6).nonzero()[0].tolist() == [0, 1, 4, 5, 8, 9]
    assert choose_images(frame, 4).nonzero()[0].tolist() == [0, 1, 4, 8]  # the remainder in the tricks' order


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A finished set of merged_full images of three and seven, twelve of each class in each of two replicates."""
    folder = tmp_path_factory.mktemp("sets") / "full"
    return make_set(folder, trick="merged_full", images_per_class=4, replicates=2, seed=5)


def filter_settings(settings, drawn, **given):
    return settings("01b_filter", **{"trick": "merged_full", "generated_dir": str(drawn), "device": "cpu"} | given)


def filtered(settings, drawn, **given):
    """A finished 01b_filter step: its settings, and what the judge said."""
    chosen = filter_settings(settings, drawn, **given)
    step = receipts.begin("01b_filter", chosen)
    files, frame = filter_set(chosen, step.folder)
    step.finish(files)
    return chosen, frame


def test_a_filtered_set_says_what_the_glyph_referee_sees_and_keeps_equal_numbers(settings, drawn, tmp_path, capsys):
    chosen, frame = filtered(settings, drawn, images_per_class=4)
    images = read_shards(drawn)
    logits = glyph_logits(images.images)
    seen = [f"{judge_named('glyphs', 'digits').classes[k]}" for k in logits.argmax(1).tolist()]
    assert frame["image_id"].tolist() == images.column("image_id").tolist()
    assert frame["judge_class"].tolist() == seen
    assert frame["agrees"].tolist() == [a == b for a, b in zip(seen, images.column("class"), strict=True)]
    places = torch.tensor([[3, 7][label] for label in images.labels.tolist()])
    own = logits.softmax(1).gather(1, places.unsqueeze(1)).squeeze(1)
    assert frame["probability"].tolist() == pytest.approx(own.tolist(), abs=1e-5)
    kept = pd.read_csv(tmp_path / "01b_filter" / "kept.csv")
    assert list(kept.columns) == KEPT_COLUMNS
    assert kept.groupby(["replicate", "class"]).size().tolist() == [4, 4, 4, 4]
    assert kept["image_id"].tolist() == frame.loc[frame["kept"], "image_id"].tolist()
    assert set(kept["trick"]) <= {"class_prompt", "multi_domain", "random_guidance"}
    agreed = int(frame["agrees"].sum())
    assert kept["agrees"].all()  # of each class there are enough here
    assert f"glyphs agrees with {agreed} of 48 images; 16 are kept.\n" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "01b_filter" / "judged.csv")) == 48


def test_training_takes_the_kept_images_only_and_as_many_of_each_class(settings, drawn, tmp_path):
    chosen, frame = filtered(settings, drawn, images_per_class=4)
    train = settings(
        "02_train", trick="merged_full", generated_dir=str(drawn), kept_dir=chosen.run_dir, images_per_class=4
    )
    images, all_images = read_training_set(train), read_shards(drawn)
    kept = frame["kept"].to_numpy()
    assert torch.equal(images.images, all_images.images[kept.tolist()])
    assert images.column("image_id").tolist() == frame.loc[kept, "image_id"].tolist()
    for replicate in (0, 1):
        assert chosen_images(images.replicate(replicate), train, replicate, 0).labels.bincount().tolist() == [4, 4]
    receipts.begin("02_train", train).lock.release()  # the step takes both folders as inputs


def test_kept_images_of_another_set_are_refused(settings, drawn, tmp_path):
    chosen, _ = filtered(settings, drawn, images_per_class=4)
    other = make_set(tmp_path / "other", trick="merged_full", images_per_class=4, seed=6)
    train = settings("02_train", trick="merged_full", generated_dir=str(other), kept_dir=chosen.run_dir)
    with pytest.raises(
        InputError, match=r"was chosen from .*full, and generated_dir is .*other; expected the same"
    ) as caught:
        read_training_set(train)
    assert "\n" not in str(caught.value)
    real = settings("02_train", trick="real", kept_dir=chosen.run_dir)
    with pytest.raises(InputError, match="real images are not judged"):
        read_training_set(real)


def test_a_damaged_list_of_kept_images_is_found(settings, drawn, tmp_path):
    chosen, _ = filtered(settings, drawn, images_per_class=4)
    file = tmp_path / "01b_filter" / "kept.csv"
    file.write_text(file.read_text().replace("-r0-", "-r1-"))
    train = settings("02_train", trick="merged_full", generated_dir=str(drawn), kept_dir=chosen.run_dir)
    with pytest.raises(InputError, match="kept.csv is missing or damaged"):
        read_training_set(train)


def test_no_judge_that_learned_from_real_labels_is_offered(settings, drawn):
    for judge in ("papermill_runs/x/02_train/model-r0.safetensors", "clip:", "glyph", ""):
        with pytest.raises(InputError, match="unknown judge .* so no checkpoint") as caught:
            filter_set(filter_settings(settings, drawn, judge=judge), drawn)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="knows digits only"):
        judge_named("glyphs", "cifar10")
    with pytest.raises(InputError, match="trick is 'real'"):
        filter_settings(settings, drawn, trick="real")


def test_clip_judges_by_our_own_words_for_the_classes_of_the_set(monkeypatch):
    from synthlib.evaluation import clip_zero_shot as zero_shot

    asked = []
    clip = zero_shot.Clip(None, None, None, "ViT-B-32", "none", "", True)
    monkeypatch.setattr(zero_shot, "load_clip", lambda *given: asked.append(given) or clip)
    monkeypatch.setattr(zero_shot, "class_embeddings", lambda clip, words, templates: asked.append((words, templates)))
    judge = judge_named("clip:ViT-B-32", "cifar10", ["cat", "automobile"])
    assert judge.name == "clip:ViT-B-32" and judge.classes == ["cat", "automobile"]
    assert asked[0] == ("ViT-B-32", "openai", "cpu")
    words, templates = asked[1]
    assert len(words) == 2 and templates == ["an image of a {}"]


def test_what_is_looked_at_was_rejected_and_votes_are_the_judge_s(settings, drawn, monkeypatch, capsys):
    """A judge that says seven to all: every three is rejected; of 24 of them 5 are shown, from the first to the last."""
    seven = Judge("seven", ["three", "seven"], lambda x: torch.tensor([[0.0, 2]]).expand(len(x), 2))
    monkeypatch.setattr(filtering, "judge_named", lambda *given: seven)
    _, frame = filtered(settings, drawn, images_per_class=2)
    said = "agrees with 24 of 48 images; 8 are kept, 4 of them without its agreement, for want of others."
    assert said in capsys.readouterr().out
    threes = (frame["class"] == "three").to_numpy().nonzero()[0]
    some = rejected_rows(frame, 5)
    assert (
        len(threes) == 24 and set(some) <= set(threes) and (some[0], some[-1], len(some)) == (threes[0], threes[-1], 5)
    )
    assert len(rejected_rows(frame[frame["agrees"]], 5)) == 0
    logits, labels = votes(frame, ["three", "seven"])
    assert logits[:, 1].all() and not logits[:, 0].any()
    assert (labels == 0).tolist() == (frame["class"] == "three").tolist()


@pytest.mark.runs
def test_the_notebook_runs_and_its_receipt_names_both_lists(settings, drawn):
    chosen = filter_settings(settings, drawn, images_per_class=4)
    run_step("01b_filter", asdict(chosen))
    assert set(receipts.read_receipt(chosen.run_dir)["outputs"]) == {"kept.csv", "judged.csv"}
