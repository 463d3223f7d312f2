"""Notebook 02's promises: exact crops, repeatable and resumable training, checkpoints that say what they are."""

import math

import pytest
import torch
from torch import nn

from synthlib.settings import ARCHITECTURES, InputError, TrainSettings
from synthlib.training import train as training
from synthlib.training.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Crops,
    batches,
    crop_and_resize,
    draw_crops,
    normalise,
)
from synthlib.training.models import build_model
from synthlib.training.train import load_model, model_bytes, train


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator())


def bars(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Class 0: a bright vertical bar somewhere on noise; class 1: a horizontal one."""
    images, labels = noise(n) // 4, torch.arange(n) % 2
    for k in range(n):
        at = 4 + (7 * k) % 24
        images[k, :, :, at : at + 4] = 250
        if labels[k]:
            images[k] = images[k].transpose(1, 2).clone()
    return images, labels


def settings(**changes) -> TrainSettings:
    base = {
        "run_dir": "", "dataset": "bars", "trick": "base_class", "generated_dir": "", "architecture": "resnet",
        "images_per_class": 0, "seed": 0, "epochs": 3, "batch_size": 16, "learning_rate": 2e-3, "weight_decay": 0.05,
        "crop_scale_min": 0.5, "flip": False, "device": "cpu", "threads": 1,
    }  # fmt: skip
    return TrainSettings(**(base | changes))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Augmentation


def test_crops_equal_torchvision_image_by_image():
    from torchvision.transforms.v2 import functional

    images = noise(64)
    crops = draw_crops(64, 32, 32, 0.08, True, generator())
    ours = crop_and_resize(images, crops, 32) / 255
    assert 10 < crops.flips.sum() < 54
    for image, box, flip, mine in zip(images, crops.boxes.tolist(), crops.flips, ours, strict=True):
        theirs = functional.resized_crop(image.float() / 255, *box, size=[32, 32], antialias=False)
        theirs = functional.horizontal_flip(theirs) if flip else theirs
        assert (mine - theirs).abs().max() < 1e-6


def test_a_whole_box_without_flip_changes_nothing_and_a_flip_mirrors():
    images, whole = noise(2), torch.tensor([[0, 0, 32, 32]] * 2)
    out = crop_and_resize(images, Crops(whole, torch.tensor([False, True])), 32)
    assert torch.allclose(out[0], images[0].float(), atol=1e-3)
    assert torch.allclose(out[1], images[1].float().flip(-1), atol=1e-3)


def test_nothing_outside_the_box_is_read():
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[:, :, 8:16, 8:16] = 200  # the box is bright, all around it is dark
    out = crop_and_resize(image, Crops(torch.tensor([[8, 8, 8, 8]]), torch.tensor([False])), 32)
    assert torch.allclose(out, torch.full_like(out, 200), atol=1e-3)


def test_boxes_are_distributed_as_torchvision_draws_them():
    from torchvision import transforms

    ours = draw_crops(4000, 32, 32, 0.25, False, generator()).boxes.double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        picture = torch.zeros(3, 32, 32)
        draws = [transforms.RandomResizedCrop.get_params(picture, [0.25, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    theirs = torch.tensor(draws, dtype=torch.float64)
    # means of boxes of some 20 +- 5 pixels: standard error of a difference about 0.12
    assert (ours.mean(0) - theirs.mean(0)).abs().max() < 0.5
    assert (ours.std(0) - theirs.std(0)).abs().max() < 0.5
    assert (ours[:, 0] + ours[:, 2]).max() <= 32 and (ours[:, 1] + ours[:, 3]).max() <= 32 and ours.min() >= 0


def test_where_no_box_fits_the_largest_central_crop_is_taken():
    # 8 x 64, area at least 99 %: no ratio within 3/4 to 4/3 fits; height 8 allows a width of 8 * 4/3 = 11
    assert draw_crops(3, 8, 64, 0.99, False, generator()).boxes.tolist() == [[0, 26, 8, 11]] * 3
    assert draw_crops(3, 64, 8, 0.99, False, generator()).boxes.tolist() == [[26, 0, 11, 8]] * 3


def test_digits_are_never_mirrored_when_flip_is_off():
    assert not draw_crops(1000, 32, 32, 0.5, False, generator()).flips.any()
    # and the switch alone decides: the boxes are the same
    on, off = (draw_crops(9, 32, 32, 0.5, flip, generator()) for flip in (True, False))
    assert torch.equal(on.boxes, off.boxes)


def test_normalise_is_imagenets():
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    expected = [(1 - mean) / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    assert torch.allclose(normalise(white)[0, :, 0, 0], torch.tensor(expected), atol=1e-6)


def test_a_last_batch_of_one_joins_the_batch_before_it():
    assert [(b.start, b.stop) for b in batches(10, 4)] == [(0, 4), (4, 8), (8, 10)]
    assert [(b.start, b.stop) for b in batches(9, 4)] == [(0, 4), (4, 9)]
    assert [(b.start, b.stop) for b in batches(1, 4)] == [(0, 1)]
    assert [(b.start, b.stop) for b in batches(2, 1)] == [(0, 1), (1, 2)]


# Networks


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_logits_and_is_small(architecture):
    model = build_model(architecture, 7, 32)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert sum(parameter.numel() for parameter in model.parameters()) < 300_000


def test_an_unknown_architecture_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'resnet'"):
        build_model("resnett", 10, 32)
    with pytest.raises(InputError, match="30"):
        build_model("vit", 10, 30)


# Training


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_same_seed_same_weights_and_global_generator_untouched(architecture):
    images, labels = bars(40)
    before = torch.get_rng_state()
    first = train(images, labels, 2, settings(architecture=architecture), 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)  # the global generator has no say
    again = train(images, labels, 2, settings(architecture=architecture), 5)
    other = train(images, labels, 2, settings(architecture=architecture), 6)
    assert same(first.state, again.state) and first.history == again.history
    assert not same(first.state, other.state)
    assert first.n_steps == 9 and [row["step"] for row in first.history] == [3, 6, 9]


def test_batch_norm_trains_on_every_step():
    images, labels = bars(40)
    state = train(images, labels, 2, settings(), 0).state
    assert state["stem.1.num_batches_tracked"] == 9 and state["stem.1.running_mean"].abs().min() > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_learns(architecture):
    images, labels = bars(128)
    trained = train(images, labels, 2, settings(architecture=architecture, epochs=12), 0)
    assert trained.history[-1]["train_accuracy_percent"] > 90
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]


def test_the_optimiser_is_torchs_adamw_with_cosine_over_epochs(monkeypatch):
    """One full batch an epoch, no randomness: a plain torch.optim.AdamW loop gives the same weights."""
    images, labels = bars(8)
    whole = torch.tensor([[0, 0, 32, 32]] * 8)
    monkeypatch.setattr(training, "build_model", lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)))
    monkeypatch.setattr(training, "draw_crops", lambda *_: Crops(whole, torch.zeros(8, dtype=torch.bool)))
    trained = train(images, labels, 2, settings(epochs=4, batch_size=8, weight_decay=0.9), 3)

    model = training._initial_model("resnet", 2, 32, 3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=4)
    x = normalise(images)
    for _ in range(4):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
        cosine.step()
    for name, value in model.state_dict().items():
        assert torch.allclose(trained.state[name], value, atol=2e-5), name
    assert not torch.allclose(training._initial_model("resnet", 2, 32, 3)[1].weight, model[1].weight, atol=1e-3)


class Stop(Exception):
    pass


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_interrupted_training_resumes_to_the_same_bits(tmp_path, architecture):
    images, labels = bars(33)
    wanted = train(images, labels, 2, settings(architecture=architecture, epochs=5), 1)

    def stop_after_three(row):
        if row["epoch"] == 3:
            raise Stop

    state, seen = tmp_path / "state.safetensors", []
    arguments = (images, labels, 2, settings(architecture=architecture, epochs=5), 1, state)
    with pytest.raises(Stop):
        train(*arguments, on_epoch=stop_after_three, save_every_s=0)
    resumed = train(*arguments, on_epoch=seen.append, save_every_s=0)
    assert [row["epoch"] for row in seen] == [4, 5]
    assert same(resumed.state, wanted.state) and resumed.history == wanted.history


def test_dropout_is_seeded_and_resumes_too(tmp_path, monkeypatch):
    def with_dropout(*_):
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3072, 2))

    monkeypatch.setattr(training, "build_model", with_dropout)
    images, labels = bars(8)
    wanted = train(images, labels, 2, settings(), 1)
    state = tmp_path / "state.safetensors"
    with pytest.raises(Stop):
        train(images, labels, 2, settings(), 1, state, on_epoch=lambda row: (_ for _ in ()).throw(Stop), save_every_s=0)
    torch.rand(5)
    assert same(train(images, labels, 2, settings(), 1, state).state, wanted.state)


@pytest.mark.parametrize("damage", ["truncated", "rubbish", "another training"])
def test_a_useless_state_file_means_starting_over_and_saying_so(tmp_path, capsys, damage):
    images, labels = bars(16)
    state = tmp_path / "state.safetensors"
    train(images, labels, 2, settings(), 8 if damage == "another training" else 1, state, save_every_s=0)
    if damage == "truncated":
        state.write_bytes(state.read_bytes()[:5000])
    if damage == "rubbish":
        state.write_bytes(b"rubbish")
    seen = []
    trained = train(images, labels, 2, settings(), 1, state, on_epoch=seen.append)
    assert [row["epoch"] for row in seen] == [1, 2, 3]
    assert same(trained.state, train(images, labels, 2, settings(), 1).state)
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and "training starts from epoch 1" in out


def test_the_state_file_is_written_no_more_often_than_asked(tmp_path):
    images, labels = bars(8)
    state = tmp_path / "state.safetensors"
    train(images, labels, 2, settings(), 1, state, save_every_s=math.inf)
    assert not state.exists()


def test_a_loss_that_is_not_finite_names_the_step_and_the_learning_rate(monkeypatch):
    monkeypatch.setattr(training, "build_model", lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)))
    images, labels = bars(32)
    calls = []

    def broken(batch):
        calls.append(len(batch))
        return normalise(batch) * (math.nan if len(calls) == 4 else 1)

    monkeypatch.setattr(training, "normalise", broken)
    with pytest.raises(InputError, match=r"nan at step 4 \(epoch 2, learning rate 0.0015\).*smaller"):
        train(images, labels, 2, settings(), 0)  # 0.0015 = 0.002 * (1 + cos(pi / 3)) / 2


def test_wrong_training_data_is_one_line():
    images, labels = bars(8)
    with pytest.raises(InputError, match="torch.uint8"):
        train(images.float(), labels, 2, settings(), 0)
    with pytest.raises(InputError, match="two or more"):
        train(images[:1], labels[:1], 2, settings(), 0)
    with pytest.raises(InputError, match="0 to 0"):
        train(images, labels, 1, settings(), 0)


# Checkpoints


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_checkpoint_gives_back_the_same_network_and_the_same_bytes(tmp_path, architecture):
    images, labels = bars(16)
    trained = train(images, labels, 2, settings(architecture=architecture, epochs=1), 0)
    for name in "ab":
        record = {"architecture": architecture, "classes": ["vertical", "horizontal"]}
        (tmp_path / name).write_bytes(model_bytes(trained, record))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    model = load_model(tmp_path / "a", architecture, 2, 32)
    assert not model.training and same(dict(model.state_dict()), trained.state)


def test_a_wrong_checkpoint_is_one_line_that_names_the_file(tmp_path):
    path = tmp_path / "model-r0.safetensors"
    images, labels = bars(16)
    trained = train(images, labels, 2, settings(architecture="vit", epochs=1), 0)
    path.write_bytes(model_bytes(trained, {"architecture": "vit", "classes": ["vertical", "horizontal"]}))
    for arguments, message in (
        (("resnet", 2, 32), "holds architecture 'vit'; expected 'resnet'"),
        (("vit", 10, 32), "holds 2 classes; expected 10"),
        (("vit", 2, 64), "does not fit a vit for 64 px"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            load_model(path, *arguments)
        assert path.name in str(caught.value) and "\n" not in str(caught.value)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="model-r0.safetensors is not a whole checkpoint"):
        load_model(path, "vit", 2, 32)
    with pytest.raises(InputError, match="absent"):
        load_model(tmp_path / "absent", "vit", 2, 32)
