"""Notebook 03's promises: two modes that change nothing, rows with every count."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from synthlib.data.sets import ImageSet
from synthlib.evaluation import predict
from synthlib.evaluation.evaluate import (
    Classifier,
    Logits,
    accuracy_percent,
    load_logits,
    logits_bytes,
    orders_text,
    per_class_accuracy,
    per_class_rows,
    result_rows,
    top5_percent,
)
from synthlib.evaluation.predict import predict_authors, predict_eval
from synthlib.inputs import InputError
from synthlib.training.augment import Preparation, normalise
from synthlib.training.models import build_model

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(n: int, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


AS_IS = Preparation("resized_crop", 32, "imagenet")


def network(architecture: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(architecture, 10, 32)


# The two modes


@pytest.mark.parametrize("training", [True, False])
def test_no_mode_changes_the_callers_model(training):
    model = network("resnet").train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    predict_eval(model, noise(20), AS_IS, 8)
    predict_authors(model, noise(20), AS_IS, batch_size=8, shuffles=2, seed=1)
    assert all(module.training == training for module in model.modules())
    # Parameters and buffers.
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert len(dict(model.named_buffers())) > 0
    assert torch.equal(torch.get_rng_state(), generator)


def test_eval_mode_is_the_networks_answer_whatever_the_batch():
    model, images = network("resnet").eval(), noise(20)
    with torch.no_grad():
        expected = model(normalise(images))
    for batch_size in (1, 3, 20, 64):
        assert torch.allclose(predict_eval(model, images, AS_IS, batch_size), expected, atol=1e-5)


def test_authors_mode_uses_the_statistics_of_each_test_batch():
    """A one-channel batch norm by hand: brightness b of each image becomes (b - mean) / sqrt(variance) of its batch."""

    class Brightness(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(1)

        def forward(self, images):
            b = self.norm(images.mean((1, 2, 3)).unsqueeze(1))
            return torch.cat([b, -b], dim=1)

    grey = torch.tensor([10, 30, 70, 90, 130, 200, 250])
    images = grey.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    logits, order = predict_authors(Brightness(), images, AS_IS, batch_size=4, shuffles=3, seed=7)
    assert logits.shape == (3, 7, 2) and order.shape == (3, 7)
    for shuffle in range(3):
        assert sorted(order[shuffle].tolist()) == list(range(7))
        for rows in (order[shuffle][:4], order[shuffle][4:]):  # the last batch is partial, and kept
            b = normalise(images).mean((1, 2, 3))[rows]
            expected = (b - b.mean()) / (b.var(correction=0) + 1e-5).sqrt()
            assert torch.allclose(logits[shuffle, rows, 0], expected, atol=1e-5)
    assert not torch.allclose(logits[0], predict_eval(Brightness(), images, AS_IS, 4), atol=0.1)

    labels = torch.tensor([1, 1, 0, 0, 0, 0, 0])
    by_hand = torch.empty(3, 7, dtype=torch.long)
    for shuffle in range(3):
        for rows in (order[shuffle][:4], order[shuffle][4:]):
            by_hand[shuffle, rows] = (grey[rows] < grey[rows].double().mean()).long()  # darker than its batch: class 1
    right = 100 * (by_hand == labels).double().mean().item()
    assert accuracy_percent(logits, labels) == pytest.approx(right)
    untouched = accuracy_percent(predict_eval(Brightness(), images, AS_IS), labels)
    # in eval mode nothing is subtracted but ImageNet's mean, (0.485 + 0.456 + 0.406) / 3 of white: about 114
    assert untouched == pytest.approx(100 * 5 / 7) and abs(untouched - right) > 1


def test_the_first_order_is_the_files_where_there_is_one_and_the_others_are_the_same_shuffles():
    model, images = network("resnet"), noise(20)
    logits, order = predict_authors(model, images, AS_IS, 8, 3, 5, True)
    shuffled, shuffles = predict_authors(model, images, AS_IS, 8, 3, 5)
    assert order[0].tolist() == list(range(20)) and torch.equal(order[1:], shuffles[:2])
    with torch.no_grad():  # as their loop: train mode, batch after batch, which a fresh copy's statistics do not leave
        batches = [network("resnet").train()(normalise(images[start : start + 8])) for start in (0, 8, 16)]
    assert torch.allclose(logits[0], torch.cat(batches), atol=1e-5)
    for found, said in ((order, "file order, 2 shuffles"), (order[:1], "file order"), (shuffles, "3 shuffles")):
        assert orders_text(found) == said


def test_while_training_the_test_takes_the_trainings_batches_in_the_authors_order():
    real = ImageSet(noise(20), torch.arange(20) % 10, [str(k) for k in range(10)], [str(k) for k in range(20)], True)
    model = network("resnet")
    found = {}
    for in_file_order, batch_size in ((True, 4), (True, 10), (False, 4)):
        test = predict.tester(replace(real, in_file_order=in_file_order), real.classes, batch_size)
        logits, _ = predict_authors(model, real.images, AS_IS, batch_size, 1, 0, in_file_order)
        assert test(model, AS_IS)["test_authors_percent"] == accuracy_percent(logits, real.labels)
        found[test.digest] = logits
    assert len(found) == 3  # a best epoch that other batches or another order chose is another


def test_a_vit_without_dropout_agrees_in_both_modes():
    model, images = network("vit"), noise(40)
    logits, _ = predict_authors(model, images, AS_IS, batch_size=16, shuffles=2, seed=0)
    for shuffle in logits:
        assert torch.allclose(shuffle, predict_eval(model, images, AS_IS, 16), atol=1e-5)


def test_a_batch_norm_net_differs_between_the_modes_and_between_shuffles_but_not_between_runs():
    model, images = network("resnet"), noise(40)
    logits, order = predict_authors(model, images, AS_IS, batch_size=16, shuffles=2, seed=3)
    again, same_order = predict_authors(model, images, AS_IS, batch_size=16, shuffles=2, seed=3)
    assert torch.equal(logits, again) and torch.equal(order, same_order)
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)
    assert not torch.allclose(logits[0], predict_eval(model, images, AS_IS, 16), atol=1e-3)


def test_dropout_stays_on_in_authors_mode_and_is_seeded():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 64), nn.Dropout(0.5))
    images = noise(4)
    logits, _ = predict_authors(model, images, AS_IS, batch_size=4, shuffles=2, seed=0)
    torch.rand(7)
    assert torch.equal(logits, predict_authors(model, images, AS_IS, batch_size=4, shuffles=2, seed=0)[0])
    assert 0.3 < (logits == 0).double().mean() < 0.7
    assert not (predict_eval(model, images, AS_IS, 4) == 0).any()


def test_a_last_batch_of_one_image_does_not_crash_batch_norm_on_a_1x1_map():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten())
    assert predict_authors(model, noise(9), AS_IS, batch_size=4, shuffles=1, seed=0)[0].isfinite().all()
    with pytest.raises(InputError, match="two or more"):
        predict_authors(model, noise(1), AS_IS)


# Rows and files

# Four images of three classes, predicted 0, 1, 1, 0: two right (the first and the third).
LABELS = torch.tensor([0, 0, 1, 2])
LOGITS = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 9, 0], [9, 0, 0]])
ALL_RIGHT = torch.nn.functional.one_hot(LABELS, 3).float()


def test_accuracy_by_hand_in_all_and_by_class():
    assert accuracy_percent(LOGITS, LABELS) == 50
    assert accuracy_percent(torch.stack([LOGITS, ALL_RIGHT]), LABELS) == 75  # the mean over shuffles
    assert per_class_accuracy(LOGITS, LABELS, 3).tolist() == [50, 100, 0]
    assert per_class_accuracy(torch.stack([LOGITS, ALL_RIGHT]), LABELS, 3).tolist() == [75, 100, 50]
    assert math.isnan(per_class_accuracy(LOGITS, LABELS, 4)[3])


WHO = Classifier("digits", "test", "merged", "guidance=3", "drawn", "resnet", "scratch", "miniature", 1, generation_seed="64:1",
                 training_seed=12, unused_images=20, n_train=400, n_steps=210)  # fmt: skip
# Sure of everything (confidence 100 % but for 0.02 %), half of it right; of all shuffles three quarters.
BOTH = Logits(LOGITS, torch.stack([LOGITS, 9 * ALL_RIGHT]), torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]]), LABELS)


def test_result_rows_carry_both_modes_the_whole_condition_and_every_count():
    in_eval, in_authors = result_rows(WHO, BOTH)
    assert in_eval | {"ece_percent": 50} == {
        "dataset": "digits", "split": "test", "trick": "merged", "setting": "guidance=3", "images": "drawn",
        "architecture": "resnet", "init": "scratch", "protocol": "miniature", "evaluation_mode": "eval", "replicate": 1,
        "generation_seed": "64:1", "training_seed": 12, "unused_images": 20, "n_train": 400, "n_steps": 210, "n_test": 4,
        "orders": None, "accuracy_percent": 50.0, "top5_percent": None, "ece_percent": 50,
    }  # fmt: skip
    assert in_authors == in_eval | {
        "evaluation_mode": "authors", "orders": "file order, 1 shuffle", "accuracy_percent": 75.0,
        "ece_percent": in_authors["ece_percent"],
    }  # fmt: skip
    assert [row["ece_percent"] for row in (in_eval, in_authors)] == pytest.approx([50, 25], abs=0.03)
    assert list(in_authors) == list(in_eval)


def test_the_rows_are_what_the_tables_read():
    from synthlib.results.rows import CONDITION, ROW_COLUMNS

    assert list(result_rows(WHO, BOTH)[0]) == ROW_COLUMNS
    assert list(WHO.condition("eval")) == CONDITION


def test_the_best_epoch_on_the_test_set_is_one_row_of_its_own_in_the_authors_mode():
    (row,) = result_rows(WHO, BOTH, best_on_test=True)
    assert row["evaluation_mode"] == "authors_best" and row["accuracy_percent"] == 75
    assert row["orders"] == "file order, 1 shuffle"
    assert list(row) == list(result_rows(WHO, BOTH)[0])


def test_per_class_rows_carry_the_condition_too():
    lines = per_class_rows(WHO, BOTH, ["a", "b", "c"])
    assert [(line["evaluation_mode"], line["class"], line["accuracy_percent"]) for line in lines] == [
        ("eval", "a", 50), ("eval", "b", 100), ("eval", "c", 0),
        ("authors", "a", 75), ("authors", "b", 100), ("authors", "c", 50),
    ]  # fmt: skip
    assert list(lines[0]) == [*WHO.condition("eval"), "replicate", "class", "accuracy_percent"]


def test_top5_counts_an_image_whose_class_is_among_the_five_highest():
    # eleven classes, class k has logit -k: the five highest are 0 to 4, and of the labels 0, 4, 5, 10 two are there
    logits, labels = -torch.arange(11.0).repeat(4, 1), torch.tensor([0, 4, 5, 10])
    assert top5_percent(logits, labels) == 50
    assert top5_percent(torch.stack([logits, -logits]), labels) == 37.5  # the other way round: of 6 to 10 one is there
    assert top5_percent(logits[:, :10], labels) is None  # of ten classes five are half: nothing to report
    hundred = Logits(logits, logits[None], torch.arange(4)[None], labels)
    assert result_rows(WHO, hundred)[0]["top5_percent"] == 50


def test_logits_files_hold_everything_in_the_same_bytes(tmp_path):
    logits = Logits(LOGITS, torch.stack([LOGITS, ALL_RIGHT]), torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]]), LABELS)
    (tmp_path / "a").write_bytes(logits_bytes(logits))
    assert (tmp_path / "a").read_bytes() == logits_bytes(logits)
    read = load_logits(tmp_path / "a")
    for name in ("eval", "authors", "order", "labels"):
        assert torch.equal(getattr(read, name), getattr(logits, name))
        assert getattr(read, name).dtype == getattr(logits, name).dtype


@pytest.mark.parametrize("content", [b"rubbish", None, "truncated"])
def test_a_damaged_logits_file_is_one_line_that_names_it(tmp_path, content):
    path = tmp_path / "logits-r0.safetensors"
    if content == "truncated":
        path.write_bytes(logits_bytes(Logits(LOGITS, LOGITS[None], torch.arange(4)[None], LABELS))[:-8])
    elif content:
        path.write_bytes(content)
    with pytest.raises(InputError, match="logits-r0.safetensors is not a whole logits file") as caught:
        load_logits(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("predict", [predict_eval, predict_authors])
def test_logits_that_are_not_finite_are_no_prediction_of_class_0(predict, value):
    model = network("resnet")
    list(model.parameters())[-1].data[3] = value
    with pytest.raises(InputError, match="not finite"):
        predict(model, noise(4), AS_IS)
