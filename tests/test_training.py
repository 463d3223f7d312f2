"""Notebook 02's promises: exact crops, repeatable and resumable training, checkpoints that say what they are."""

import math

import pytest
import torch
from torch import nn

from synthlib.inputs import InputError
from synthlib.names import MINIATURES
from synthlib.runs.experiment import complete
from synthlib.settings import TrainSettings
from synthlib.training import augment, checkpoint
from synthlib.training import train as training
from synthlib.training.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Crops,
    Preparation,
    batches,
    crop_and_resize,
    draw_crops,
    draw_rotations,
    normalise,
    rotate_and_flip,
)
from synthlib.training.checkpoint import initial_model, load_model, model_bytes
from synthlib.training.models import build_model
from synthlib.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


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
    base = {"dataset": "bars", "trick": "base_class", "epochs": 3, "batch_size": 16, "device": "cpu"}
    return TrainSettings(**complete("02_train", base | changes))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Augmentation


@pytest.mark.parametrize(
    ("size", "out", "tolerance"), [(32, 32, 1e-6), (64, 64, 1e-6), (64, 224, 1e-6), (224, 224, 1e-6)]
)
def test_crops_equal_torchvision_image_by_image(size, out, tolerance):
    from torchvision.transforms.v2 import functional

    images = noise(64, size)
    crops = draw_crops(64, size, size, 0.08, 0.5, generator())
    ours = crop_and_resize(images, crops, out) / 255
    assert 10 < crops.flips.sum() < 54
    for image, box, flip, mine in zip(images, crops.boxes.tolist(), crops.flips, ours, strict=True):
        theirs = functional.resized_crop(image.float() / 255, *box, size=[out, out], antialias=False)
        theirs = functional.horizontal_flip(theirs) if flip else theirs
        assert (mine - theirs).abs().max() < tolerance


def test_eurosats_training_transform_equals_torchvision_image_by_image():
    from torchvision.transforms.v2 import functional

    images, preparation = noise(48, 64), Preparation("rotated_crop", 224, "none")
    drawn = preparation.draw(48, 64, 64, 0.08, 0.5, generator())
    ours = preparation.train_input(images, drawn)
    assert 8 < drawn.flips.sum() < 40 and drawn.corners.min() == 0 and drawn.corners.max() == 32
    assert drawn.angles.min() < -80 and drawn.angles.max() > 80
    rotated = rotate_and_flip(images, drawn)
    for k, image in enumerate(images):
        theirs = functional.rotate(image.float(), drawn.angles[k].item())
        theirs = functional.horizontal_flip(theirs) if drawn.flips[k] else theirs
        assert torch.equal(rotated[k], theirs)
        theirs = functional.resize(theirs, [256], antialias=True)
        theirs = functional.crop(theirs, *drawn.corners[k].tolist(), 224, 224) / 255
        assert (ours[k] - theirs).abs().max() < 1e-6


def test_rotation_by_ninety_degrees_is_a_quarter_turn_and_a_flip_mirrors_it():
    image = noise(1, 8)
    turn = augment.Rotations(torch.tensor([90.0]), torch.tensor([False]), torch.zeros(1, 2, dtype=torch.long))
    assert torch.equal(rotate_and_flip(image, turn)[0], image[0].rot90(1, (1, 2)).float())
    mirrored = augment.Rotations(torch.tensor([0.0]), torch.tensor([True]), torch.zeros(1, 2, dtype=torch.long))
    assert torch.equal(rotate_and_flip(image, mirrored)[0], image[0].flip(-1).float())


@pytest.mark.parametrize(("transform", "size"), [("resized_crop", 32), ("resized_crop", 64), ("rotated_crop", 224)])
def test_test_transforms_equal_torchvisions(transform, size):
    from torchvision import transforms

    images = noise(4, 64)
    names = {"resized_crop": "imagenet", "rotated_crop": "none"}
    ours = Preparation(transform, size, names[transform]).test_input(images)
    steps = [transforms.Resize(size, antialias=True), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    if transform == "rotated_crop":
        steps = [transforms.Resize(256, antialias=True), transforms.CenterCrop(224)]
    theirs = transforms.Compose(steps)(images.float() / 255)
    assert ours.shape == (4, 3, size, size) and (ours - theirs).abs().max() < 5e-6


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

    ours = draw_crops(4000, 32, 32, 0.25, 0.0, generator()).boxes.double()
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
    assert draw_crops(3, 8, 64, 0.99, 0.0, generator()).boxes.tolist() == [[0, 26, 8, 11]] * 3
    assert draw_crops(3, 64, 8, 0.99, 0.0, generator()).boxes.tolist() == [[26, 0, 11, 8]] * 3


def test_no_image_is_mirrored_where_the_chance_is_zero_and_all_where_it_is_one():
    assert (
        draw_rotations(100, 32, 1.0, generator()).flips.all()
        and not draw_rotations(100, 32, 0.0, generator()).flips.any()
    )
    assert not draw_crops(1000, 32, 32, 0.5, 0.0, generator()).flips.any()
    # and the switch alone decides: the boxes are the same
    on, off = (draw_crops(9, 32, 32, 0.5, flip, generator()) for flip in (0.5, 0.0))
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


@pytest.mark.parametrize("architecture", MINIATURES)
def test_every_architecture_gives_logits_and_is_small(architecture):
    model = build_model(architecture, 7, 32)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert sum(parameter.numel() for parameter in model.parameters()) < 300_000


def test_an_unknown_architecture_names_the_nearest():
    with pytest.raises(InputError, match="did you mean resnet"):
        build_model("resnett", 10, 32)
    with pytest.raises(InputError, match="30"):
        build_model("vit", 10, 30)


# Training


@pytest.mark.parametrize("architecture", MINIATURES)
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


@pytest.mark.parametrize("architecture", MINIATURES)
def test_training_learns(architecture):
    images, labels = bars(128)
    trained = train(images, labels, 2, settings(architecture=architecture, epochs=12), 0)
    assert trained.history[-1]["train_accuracy_percent"] > 90
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]


def test_the_optimiser_is_torchs_adamw_with_cosine_over_epochs(monkeypatch):
    """One full batch an epoch, no randomness: a plain torch.optim.AdamW loop gives the same weights."""
    images, labels = bars(8)
    whole = torch.tensor([[0, 0, 32, 32]] * 8)
    monkeypatch.setattr(checkpoint, "build_model", lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)))
    monkeypatch.setattr(augment, "draw_crops", lambda *_: Crops(whole, torch.zeros(8, dtype=torch.bool)))
    trained = train(images, labels, 2, settings(epochs=4, batch_size=8, weight_decay=0.9, learning_rate=2e-3), 3)

    model = initial_model("resnet", 2, 32, training.seed_for(3, "initial weights"))
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
    assert not torch.allclose(
        initial_model("resnet", 2, 32, training.seed_for(3, "initial weights"))[1].weight, model[1].weight, atol=1e-3
    )


class Stop(Exception):
    pass


@pytest.mark.parametrize("architecture", MINIATURES)
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

    monkeypatch.setattr(checkpoint, "build_model", with_dropout)
    images, labels = bars(8)
    wanted = train(images, labels, 2, settings(), 1)
    state = tmp_path / "state.safetensors"
    with pytest.raises(Stop):
        train(images, labels, 2, settings(), 1, state, on_epoch=lambda row: (_ for _ in ()).throw(Stop), save_every_s=0)
    torch.rand(5)
    assert same(train(images, labels, 2, settings(), 1, state).state, wanted.state)


@pytest.mark.parametrize("damage", ["truncated", "rubbish", "a changed byte", "another training"])
def test_a_useless_state_file_means_starting_over_and_saying_so(tmp_path, capsys, damage):
    images, labels = bars(16)
    state = tmp_path / "state.safetensors"
    train(images, labels, 2, settings(), 8 if damage == "another training" else 1, state, save_every_s=0)
    if damage == "truncated":
        state.write_bytes(state.read_bytes()[:5000])
    if damage == "rubbish":
        state.write_bytes(b"rubbish")
    if damage == "a changed byte":
        state.write_bytes((data := state.read_bytes())[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
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
    monkeypatch.setattr(checkpoint, "build_model", lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)))
    images, labels = bars(32)
    calls = []

    def broken(batch, normalisation):
        calls.append(len(batch))
        return normalise(batch) * (math.nan if len(calls) == 4 else 1)

    monkeypatch.setattr(augment, "normalise", broken)
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


def record(architecture, **more):
    facts = {"architecture": architecture, "classes": ["vertical", "horizontal"], "image_size": 32}
    return facts | {"transform": "resized_crop", "normalisation": "imagenet"} | more


@pytest.mark.parametrize("architecture", MINIATURES)
def test_a_checkpoint_gives_back_the_same_network_and_the_same_bytes(tmp_path, architecture):
    images, labels = bars(16)
    trained = train(images, labels, 2, settings(architecture=architecture, epochs=1), 0)
    for name in "ab":
        (tmp_path / f"{name}.safetensors").write_bytes(model_bytes(trained.state, record(architecture)))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    model, found = load_model(tmp_path / "a.safetensors", architecture, ["vertical", "horizontal"])
    assert not model.training and same(dict(model.state_dict()), trained.state)
    assert found["image_size"] == 32 and checkpoint.preparation_of(found) == trained.preparation


def test_a_wrong_checkpoint_is_one_line_that_names_the_file(tmp_path):
    path = tmp_path / "model-r0.safetensors"
    images, labels = bars(16)
    trained = train(images, labels, 2, settings(architecture="vit", epochs=1), 0)
    path.write_bytes(model_bytes(trained.state, record("vit")))
    for arguments, message in (
        (("resnet", ["a", "b"]), "holds architecture 'vit'; expected 'resnet'"),
        (("vit", list("abcdefghij")), "holds 2 classes; expected 10"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            load_model(path, *arguments)
        assert path.name in str(caught.value) and "\n" not in str(caught.value)
    path.write_bytes(model_bytes(trained.state, record("vit", image_size=64)))
    with pytest.raises(
        InputError, match=r"does not fit a vit of 2 classes for 64 px images \(1 tensors, such as position"
    ):
        load_model(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="model-r0.safetensors is not a whole checkpoint"):
        load_model(path, "vit", ["a", "b"])
    with pytest.raises(InputError, match="absent"):
        load_model(tmp_path / "absent", "vit", ["a", "b"])


CHANGES = {  # what stands in a checkpoint, and what it becomes
    "a weight": (b"\x3e", b"\x3f"),
    "the order of the classes": (rb"[\"vertical\", \"horizontal\"]", rb"[\"horizontal\", \"vertical\"]"),
    "the normalisation": (b"imagenet", b"imagdnet"),
    "the size": (b"32, ", b"36, "),
    "a tensor's name": (b'"head.bias"', b'"hdad.bias"'),
    "the record's name": (b'"synthlib"', b'"synthlic"'),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_checkpoint_that_was_changed_after_it_was_written_is_one_line(tmp_path, what):
    data = model_bytes(initial_model("resnet", 2, 32, 0).state_dict(), record("resnet"))
    found = data.rfind(CHANGES[what][0])
    assert found > 0
    path = tmp_path / "changed.safetensors"
    path.write_bytes(data[:found] + CHANGES[what][1] + data[found + len(CHANGES[what][0]) :])
    with pytest.raises(InputError, match="changed.safetensors (was changed|is not a whole checkpoint)") as caught:
        load_model(path, "resnet", ["vertical", "horizontal"], 32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39])
def test_weights_that_are_not_finite_or_no_floats_are_one_line(tmp_path, value):
    state = initial_model("resnet", 2, 32, 0).state_dict()
    state["head.bias"] = torch.tensor([value, 0.0], dtype=torch.float64)
    torch.save(state, tmp_path / "theirs.pt")
    with pytest.raises(InputError, match=r"theirs.pt holds weights that are not finite \(head.bias\)"):
        load_model(tmp_path / "theirs.pt", "resnet", ["a", "b"], 32)
    state["head.bias"] = torch.tensor([1, 2], dtype=torch.int8)
    torch.save(state, tmp_path / "theirs.pt")
    with pytest.raises(InputError, match=r"theirs.pt does not fit a resnet.*such as head.bias"):
        load_model(tmp_path / "theirs.pt", "resnet", ["a", "b"], 32)


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize(("architecture", "dim"), [("vit_b", 768), ("vit_s", 448)])
def test_a_checkpoint_of_torchvisions_vit_under_the_authors_name_is_one_line(tmp_path, architecture, dim, said):
    path, state = tmp_path / "old.safetensors", {"encoder.pos_embedding": torch.zeros(1, 5, dim)}
    path.write_bytes(model_bytes(state, record(architecture) if said else {}))
    with pytest.raises(InputError, match=f"torchvision's ViT, .*authors' {architecture}.* is vit_b_16") as caught:
        load_model(path, architecture, ["vertical", "horizontal"], 32)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_checkpoint_that_called_torchvisions_vit_vit_b_is_read_as_vit_b_16(tmp_path):
    path, state = tmp_path / "old.safetensors", initial_model("vit_b_16", 2, 32, 0).state_dict()
    path.write_bytes(model_bytes(state, record("vit_b")))
    for architecture in ("", "vit_b_16"):
        model, found = load_model(path, architecture)
        assert found["architecture"] == "vit_b_16" and same(dict(model.state_dict()), dict(state))


WRAPPED = {
    "the authors'": lambda state: state,
    "DataParallel": lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
    "torch.compile": lambda state: {
        "model_state_dict": {f"_orig_mod.{name}": t for name, t in state.items()},
        "epoch": 3,
    },
    "Lightning": lambda state: {"state_dict": {f"model._orig_mod.{name}": t for name, t in state.items()}, "epoch": 3},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_a_state_dict_is_read_whatever_wrapped_its_network(tmp_path, wrapper):
    state = initial_model("resnet", 2, 32, 0).state_dict()
    torch.save(WRAPPED[wrapper](state), tmp_path / "theirs.pt")
    model, _ = load_model(tmp_path / "theirs.pt", "resnet", ["vertical", "horizontal"], 32)
    assert same(dict(model.state_dict()), dict(state))


def test_a_pt_of_plain_tensors_is_read_and_a_pickle_that_could_run_code_is_not(tmp_path):
    state = initial_model("resnet", 2, 32, 0).state_dict()
    torch.save(state, tmp_path / "theirs.pt")
    model, found = load_model(tmp_path / "theirs.pt", "resnet", ["vertical", "horizontal"], 32)
    assert same(dict(model.state_dict()), dict(state)) and found["classes"] == ["vertical", "horizontal"]
    torch.save(initial_model("resnet", 2, 32, 0), tmp_path / "whole.pt")  # a module: opening it would run code
    with pytest.raises(InputError, match="whole.pt is a pickle of more than plain tensors.*save a state_dict"):
        load_model(tmp_path / "whole.pt", "resnet", ["vertical", "horizontal"], 32)
    with pytest.raises(InputError, match="does not say what network it holds"):
        load_model(tmp_path / "theirs.pt")
