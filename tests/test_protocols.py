"""What a protocol promises: its values, the learning rate, averages, the best epoch, precision, replicates, who is told."""

import csv
import functools
import importlib.machinery
import math
import sys
import types
from dataclasses import asdict, replace

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from synthlib import paths
from synthlib.data.sets import SyntheticSet
from synthlib.inputs import InputError, read_yaml
from synthlib.interrupts import Interrupted
from synthlib.runs.experiment import complete, notebook_defaults
from synthlib.settings import TrainSettings, protocol_values, transform_of
from synthlib.training import augment, checkpoint, logs, optimise, replicates
from synthlib.training import train as training
from synthlib.training.checkpoint import read_record
from synthlib.training.models import mixed_precision
from synthlib.training.optimise import AdamW, Average, learning_rate_at
from synthlib.training.replicates import chosen_images, train_replicates
from synthlib.training.train import preparation_for, train

CPU, GPU = torch.device("cpu"), torch.device("cuda")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tiny(monkeypatch):
    """In place of every architecture a network of 98 weights, for images of 4 x 4 pixels."""
    monkeypatch.setattr(checkpoint, "build_model", lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(48, 2)))


def settings(**changes) -> TrainSettings:
    base = {"dataset": "bars", "trick": "base_class", "epochs": 3, "batch_size": 4, "device": "cpu"}
    return TrainSettings(**complete("02_train", base | changes))


def pictures(n: int = 8, size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, brighter where the label is 1."""
    images = torch.randint(0, 128, (n, 3, size, size), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 2
    return (images + 100 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Stop(Exception):
    pass


def stopping_after(epoch: int):
    def on_epoch(row):
        if row["epoch"] == epoch:
            raise Stop

    return on_epoch


def scripted(*numbers: float):
    """A test that gives these numbers, in turn, and forgets none of its models."""
    left, models = list(numbers), []

    def test(model, preparation):
        models.append(model)
        return {"test_eval_percent": 1.0, "test_authors_percent": left.pop(0)}

    test.models = models
    return test


# --- presets ----------------------------------------------------------------------------------------------------------


def test_the_authors_protocol_is_their_code_to_the_letter():
    assert protocol_values("authors") == {
        "epochs": 50,
        "batch_size": 64,
        "learning_rate": 1e-4,
        "weight_decay": 0.9,
        "warmup": 0,
        "schedule": "cosine_by_epoch",
        "crop_scale_min": 0.08,
        "flip": 0.5,
        "ema_decay": 0,
        "precision": "float32",
        "test_every": 5,
    }


def test_the_authors_crop_and_flip_are_torchvisions_defaults():
    import inspect

    from torchvision import transforms

    crop = inspect.signature(transforms.RandomResizedCrop).parameters
    assert crop["scale"].default == (protocol_values("authors")["crop_scale_min"], 1.0)
    assert crop["ratio"].default == augment.RATIO
    flip = inspect.signature(transforms.RandomHorizontalFlip).parameters["p"].default
    assert flip == protocol_values("authors")["flip"]


def test_careful_changes_as_little_as_possible():
    authors, careful = protocol_values("authors"), protocol_values("careful")
    assert authors.keys() == careful.keys() == protocol_values("miniature").keys()
    differ = {name: careful[name] for name in authors if authors[name] != careful[name]}
    assert differ == {"weight_decay": 0.05, "warmup": 0.05, "precision": "auto", "test_every": 0}


@pytest.mark.parametrize("protocol", ["authors", "careful", "miniature"])
def test_what_is_left_empty_has_the_protocols_value_and_nothing_else(protocol):
    empty = dict.fromkeys(["epochs", "batch_size"], -1)
    found = settings(protocol=protocol, **empty)
    values = protocol_values(protocol)
    assert {name: getattr(found, name) for name in values} == values
    assert found.protocol_label() == protocol
    assert TrainSettings(**asdict(found)) == found


def test_what_is_given_counts_and_the_label_says_so():
    found = settings(protocol="careful", epochs=15, batch_size=64, weight_decay=0.0, flip=0.0)
    assert (found.epochs, found.weight_decay, found.flip, found.warmup) == (15, 0, 0, 0.05)
    assert found.protocol_label() == "careful, epochs=15, weight_decay=0.0, flip=0.0"
    assert TrainSettings(**asdict(found)) == found


def test_every_preset_parameter_is_empty_in_the_notebook():
    defaults = notebook_defaults("02_train")
    for protocol in read_yaml(paths.protocols_file()):
        assert all(defaults[name] in (-1, "") for name in protocol_values(protocol))


def test_a_protocol_or_a_value_that_cannot_be_is_one_line():
    for wrong, message in (
        ({"protocol": "author"}, "did you mean 'authors'"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"warmup": 1.5}, "warmup is 1.5"),
        ({"schedule": "cosine"}, "unknown schedule"),
        ({"log_to": ["tensorbord"]}, "did you mean 'tensorboard'"),
        ({"precision": "fp16"}, "unknown precision"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            settings(**wrong)
        assert "\n" not in str(caught.value)


# --- preparation ------------------------------------------------------------------------------------------------------


def test_eurosat_is_rotated_and_cropped_and_others_are_cropped_and_resized():
    assert transform_of("eurosat") == "rotated_crop"
    assert {transform_of(name) for name in ("cifar10", "cifar100", "digits", "nobody's")} == {"resized_crop"}
    assert settings(dataset="eurosat").transform == "rotated_crop"
    assert settings(dataset="eurosat", transform="resized_crop").transform == "resized_crop"


@pytest.mark.parametrize(
    ("dataset", "size"), [("cifar10", 32), ("cifar100", 32), ("eurosat", 224), ("digits", 512), ("own", 512)]
)
def test_images_of_512_pixels_are_for_a_network_of_the_authors_size(dataset, size):
    assert preparation_for(settings(dataset=dataset), 512).image_size == size
    assert preparation_for(settings(dataset=dataset, image_size=64), 512).image_size == 64


def test_the_networks_size_is_the_images_own_or_224_for_eurosat():
    cropped, rotated = settings(), settings(dataset="eurosat")
    assert preparation_for(cropped, 32) == augment.Preparation("resized_crop", 32, "imagenet")
    assert preparation_for(rotated, 64) == augment.Preparation("rotated_crop", 224, "none")
    assert preparation_for(replace(cropped, image_size=64), 32).image_size == 64
    assert preparation_for(replace(rotated, image_size=64), 64).image_size == 64


def test_normalisation_is_the_one_asked_for_then_the_weights_then_the_transforms():
    lite = settings(architecture="efficientnet_lite0", init="imagenet")
    assert preparation_for(lite, 32).normalisation == "efficientnet_lite"
    assert preparation_for(replace(lite, init="scratch"), 32).normalisation == "imagenet"
    assert preparation_for(replace(lite, normalisation="half"), 32).normalisation == "half"


def test_images_larger_than_the_networks_input_are_shrunk_once_with_antialias(tiny, monkeypatch):
    from torchvision.transforms.v2 import functional

    large, labels = pictures(8, 16)
    small = functional.resize(large.float(), [4, 4], antialias=True).round().to(torch.uint8)
    wanted = train(small, labels, 2, settings(), 0)
    assert same(train(large, labels, 2, settings(image_size=4), 0).state, wanted.state)
    monkeypatch.setattr(training, "CIFAR_SIZE", 4)
    assert same(train(large, labels, 2, settings(dataset="cifar10"), 0).state, wanted.state)
    monkeypatch.setattr(training, "SHRUNK_TOGETHER", 3)  # in how many parts changes nothing
    assert same(train(large, labels, 2, settings(image_size=4), 0).state, wanted.state)


# --- learning rate ----------------------------------------------------------------------------------------------------


def test_cosine_by_epoch_is_torchs_cosine_stepped_once_an_epoch():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=7)
    for epoch in range(7):
        theirs = optimiser.param_groups[0]["lr"]
        ours = [learning_rate_at(5 * epoch + step, 5, 7, 3e-3, 0.0, "cosine_by_epoch") for step in range(5)]
        assert ours == pytest.approx([theirs] * 5, rel=1e-9)
        optimiser.step()
        cosine.step()


def test_cosine_by_step_falls_at_each_step_and_constant_never():
    # 4 epochs of 2 steps: (1 + cos(pi k / 8)) / 2 at step k
    smooth = [learning_rate_at(step, 2, 4, 1.0, 0.0, "cosine_by_step") for step in range(8)]
    assert smooth == pytest.approx([(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)])
    assert smooth[0] == 1 and smooth[4] == pytest.approx(0.5)
    assert {learning_rate_at(step, 2, 4, 0.3, 0.0, "constant") for step in range(8)} == {0.3}


def test_warm_up_rises_by_equal_steps_to_the_whole_rate():
    # a quarter of 20 steps: fifths at steps 0 to 4, then the whole
    rates = [learning_rate_at(step, 5, 4, 1.0, 0.25, "constant") for step in range(20)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 16)
    assert learning_rate_at(0, 5, 4, 1.0, 0.04, "constant") == 1  # less than a step: no warm-up
    assert learning_rate_at(19, 5, 4, 1.0, 1.0, "constant") == 1  # all of them: the last is whole
    both = learning_rate_at(2, 5, 4, 1.0, 0.5, "cosine_by_step")  # 3 / 10 of the cosine's
    assert both == pytest.approx(0.3 * (1 + math.cos(math.pi * 2 / 20)) / 2)


def test_the_history_has_the_rate_of_each_epochs_first_step(tiny):
    rows = train(*pictures(), 2, settings(learning_rate=0.01, schedule="constant", warmup=0.5), 0).history
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.01 / 3, 0.01, 0.01])  # 3 of 6 steps: thirds


# --- the optimiser ----------------------------------------------------------------------------------------------------


def one_weight(value: float = 1.0) -> nn.Module:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(value)
    return model


def test_adamws_first_step_moves_by_the_rate_and_decays_by_rate_times_decay():
    model = one_weight(2.0)
    optimiser = AdamW(model)
    optimiser.backward(5 * model.weight.sum())
    optimiser.update(0.1, 0.9)
    # Loshchilov & Hutter 2019: 2 * (1 - 0.1 * 0.9) - 0.1 * sign(gradient)
    assert model.weight.item() == pytest.approx(2 * 0.91 - 0.1, abs=1e-6) and model.weight.grad is None


def test_in_float16_the_scale_of_the_loss_changes_no_step():
    plain, scaled = one_weight(), one_weight()
    for model, dtype in ((plain, torch.float32), (scaled, torch.float16)):
        optimiser = AdamW(model, dtype)
        for factor in (3.0, -0.5, 1.0):
            optimiser.backward(factor * model.weight.sum())
            if dtype == torch.float16:
                assert model.weight.grad.item() == factor * 65536
            optimiser.update(0.1, 0.05)
    assert scaled.weight.item() == pytest.approx(plain.weight.item(), abs=1e-6)


def test_a_step_whose_gradients_are_not_finite_is_left_out_and_the_scale_halved():
    model = one_weight()
    optimiser = AdamW(model, torch.float16)
    optimiser.backward(model.weight.sum() * math.inf)
    optimiser.update(0.1, 0.05)
    assert model.weight.item() == 1 and optimiser.tensors["step/weight"].item() == 0
    assert optimiser.tensors["scaler/scale"].item() == 32768
    optimiser.backward(model.weight.sum())
    optimiser.update(0.1, 0.0)
    assert model.weight.item() == pytest.approx(0.9, abs=1e-6) and optimiser.tensors["step/weight"].item() == 1


def test_parameters_that_are_frozen_or_of_no_use_stay_as_they_are():
    model = nn.ModuleDict({"used": one_weight(), "frozen": one_weight(3.0), "idle": one_weight(4.0)})
    model["frozen"].weight.requires_grad_(False)
    for dtype in (torch.float32, torch.float16):
        optimiser = AdamW(model, dtype)
        before = model["used"].weight.item()
        optimiser.backward((model["used"].weight * model["frozen"].weight).sum())
        optimiser.update(0.1, 0.0)
        assert model["used"].weight.item() == pytest.approx(before - 0.1, abs=1e-6)
        assert (model["frozen"].weight.item(), model["idle"].weight.item()) == (3, 4)


# --- the average of the weights ---------------------------------------------------------------------------------------


def test_the_average_moves_half_way_to_the_weights_with_decay_a_half():
    model = one_weight(0.0)
    average = Average(model, 0.5)
    for value in (4.0, 2.0, 6.0):  # 0 -> 2 -> 2 -> 4
        nn.init.constant_(model.weight, value)
        average.update()
    assert average.mean["average/weight"].item() == 4 and model.weight.item() == 6
    with average.in_place():
        assert model.weight.item() == 4
    assert model.weight.item() == 6
    slower = Average(one_weight(0.0), 0.75)
    nn.init.constant_(slower.model.weight, 8.0)
    slower.update()
    assert slower.mean["average/weight"].item() == 2  # a quarter of the way


def test_averaged_weights_are_what_is_tested_and_returned_and_decay_0_changes_no_bit(tiny, monkeypatch):
    after_each_step, update = [], AdamW.update

    def recorded(optimiser, *arguments):
        update(optimiser, *arguments)
        after_each_step.append([parameter.detach().clone() for parameter in optimiser.parameters])

    images, labels = pictures()
    plain = train(images, labels, 2, settings(ema_decay=0.0), 0)
    monkeypatch.setattr(optimise.AdamW, "update", recorded)
    test = scripted(1, 2, 3)
    averaged = train(images, labels, 2, settings(ema_decay=0.5, test_every=1), 0, test=test)
    assert len(after_each_step) == 6
    assert all(torch.equal(a, b) for a, b in zip(after_each_step[-1], plain.state.values(), strict=True))

    start = checkpoint.initial_model("resnet", 2, 4, training.seed_for(0, "initial weights"))
    mean = [parameter.detach() for parameter in start.parameters()]
    for step, weights in enumerate(after_each_step, 1):
        mean = [(m + w) / 2 for m, w in zip(mean, weights, strict=True)]
        if step % 2 == 0:
            tested = test.models[step // 2 - 1].parameters()
            assert all(torch.allclose(m, t, atol=1e-6) for m, t in zip(mean, tested, strict=True))
    assert all(torch.allclose(m, t, atol=1e-6) for m, t in zip(mean, averaged.state.values(), strict=True))
    assert not same(averaged.state, plain.state) and same(averaged.best, averaged.state)


# --- the best epoch ---------------------------------------------------------------------------------------------------


def test_the_best_epochs_weights_are_kept_and_of_equals_the_first(tiny):
    images, labels = pictures()
    arguments = {"epochs": 5, "schedule": "constant", "test_every": 1}
    trained = train(images, labels, 2, settings(**arguments), 0, test=scripted(10, 30, 20, 30, 5))
    assert trained.best_epoch == 2
    stopped = train(images, labels, 2, settings(**arguments | {"epochs": 2}), 0, test=scripted(1, 2))
    assert same(trained.best, stopped.state) and not same(trained.best, trained.state)
    assert [row["test_authors_percent"] for row in trained.history] == [10, 30, 20, 30, 5]
    assert {row["test_eval_percent"] for row in trained.history} == {1.0}


@pytest.mark.parametrize(
    ("epochs", "every", "tested"),
    [
        (50, 5, [1, 6, 11, 16, 21, 26, 31, 36, 41, 46]),
        (5, 2, [1, 3, 5]),
        (4, 2, [1, 3]),
        (2, 5, [1]),
        (3, 1, [1, 2, 3]),
    ],
)
def test_tests_begin_with_the_first_epoch_as_theirs_and_are_as_rare_as_asked(tiny, epochs, every, tested):
    test = scripted(*range(1, len(tested) + 1))
    trained = train(*pictures(), 2, settings(epochs=epochs, test_every=every), 0, test=test)
    assert [row["epoch"] for row in trained.history if "test_authors_percent" in row] == tested
    assert trained.best_epoch == tested[-1] and not test.models[len(tested) :]


def test_without_tests_nothing_is_chosen_and_no_bit_is_another(tiny):
    trained = train(*pictures(), 2, settings(epochs=5, test_every=2), 0, test=scripted(10, 20, 30))
    untested = train(*pictures(), 2, settings(epochs=5, test_every=0), 0, test=scripted())
    assert untested.best is None and untested.best_epoch is None and same(untested.state, trained.state)


def test_whatever_a_test_does_to_its_network_changes_no_bit_of_the_training():
    images, labels = pictures(8, 32)
    wanted = train(images, labels, 2, settings(), 0)

    def trains_on(model, preparation):  # train-mode passes move batch norm's averages
        model.train()
        for _ in range(3):
            model(preparation.test_input(images)).sum().backward()
        return {"test_authors_percent": 1.0}

    def ruins(model, preparation):
        for tensor in model.state_dict().values():
            tensor.zero_()
        return {"test_authors_percent": 1.0}

    for test in (trains_on, ruins):
        trained = train(images, labels, 2, settings(test_every=1), 0, test=test)
        assert same(trained.state, wanted.state)
    assert trained.best_epoch == 1 and trained.best["stem.1.running_var"].abs().sum() > 0


@pytest.mark.parametrize("stopped", [2, 3])
def test_a_training_that_goes_on_remembers_its_best_epoch(tiny, tmp_path, stopped):
    images, labels = pictures()
    chosen, numbers = settings(epochs=5, test_every=1), [10, 30, 20, 30, 5]
    wanted = train(images, labels, 2, chosen, 0, test=scripted(*numbers))
    arguments = (images, labels, 2, chosen, 0, tmp_path / "state")
    with pytest.raises(Stop):
        train(*arguments, scripted(*numbers), stopping_after(stopped), save_every_s=0)
    resumed = train(*arguments, scripted(*numbers[stopped:]), save_every_s=0)
    assert resumed.best_epoch == wanted.best_epoch == 2 and resumed.history == wanted.history
    assert same(resumed.best, wanted.best) and same(resumed.state, wanted.state)


def test_a_state_of_a_training_without_tests_is_not_gone_on_with_by_one_with_tests(tiny, tmp_path, capsys):
    images, labels = pictures()
    chosen = settings(epochs=3, test_every=1)
    with pytest.raises(Stop):
        train(images, labels, 2, chosen, 0, tmp_path / "state", None, stopping_after(2), save_every_s=0)
    trained = train(images, labels, 2, chosen, 0, tmp_path / "state", scripted(30, 20, 10))
    assert "belongs to another training" in capsys.readouterr().out and trained.best_epoch == 1


# --- precision --------------------------------------------------------------------------------------------------------


def test_auto_precision_on_cpus_is_bfloat16_where_instructions_and_network_profit(monkeypatch):
    def able(avx512, amx):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)

    for avx512, amx in ((True, False), (False, True)):
        able(avx512, amx)
        assert mixed_precision("vit_b", CPU, "auto") == mixed_precision("resnet50", CPU, "auto") == torch.bfloat16
        assert mixed_precision("mobilenet_v3_small", CPU, "auto") == torch.float32
        assert mixed_precision("vit_b", CPU, "float32") == torch.float32  # the authors'
    able(False, False)
    assert mixed_precision("vit_b", CPU, "auto") == mixed_precision("resnet50", CPU, "auto") == torch.float32
    assert mixed_precision("vit_b", CPU, "bfloat16") == torch.bfloat16


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((9, 0), torch.bfloat16), ((8, 0), torch.bfloat16), ((7, 5), torch.float16), ((7, 0), torch.float16),
     ((6, 1), torch.float32)],
)  # fmt: skip
def test_auto_precision_on_gpus_goes_by_capability(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert mixed_precision("mobilenet_v3_small", GPU, "auto") == mixed_precision("vit_b", GPU, "auto") == dtype
    assert mixed_precision("vit_b", GPU, "float32") == torch.float32


RESUMED = {
    "average": ("resnet", {"ema_decay": 0.9}),
    "bfloat16": ("resnet", {"precision": "bfloat16"}),
    "float16": ("vit", {"precision": "float16", "ema_decay": 0.5}),
    "dropout at full size": ("mobilenet_v3_small", {}),
    "eurosat": ("resnet", {"transform": "rotated_crop", "image_size": 32}),
}


@pytest.mark.parametrize("kind", RESUMED)
def test_an_interrupted_training_resumes_to_the_same_bits_whatever_it_keeps(tmp_path, kind, monkeypatch):
    from safetensors.torch import load_file

    growing = functools.partial(torch.amp.GradScaler, growth_interval=1)  # after each step, not after 2000
    monkeypatch.setattr(torch.amp, "GradScaler", growing)
    architecture, changes = RESUMED[kind]
    images, labels = pictures(6, 32)
    chosen = settings(architecture=architecture, batch_size=3, **changes)
    wanted = train(images, labels, 2, chosen, 1)
    with pytest.raises(Stop):
        train(images, labels, 2, chosen, 1, tmp_path / "state", None, stopping_after(2), save_every_s=0)
    seen = []
    resumed = train(images, labels, 2, chosen, 1, tmp_path / "state", None, seen.append)
    assert [row["epoch"] for row in seen] == [3]
    assert same(resumed.state, wanted.state) and resumed.history == wanted.history
    if kind == "float16":  # the scale is among what had to be kept
        assert load_file(tmp_path / "state")["scaler/scale"] not in (0, 65536)


def test_lower_precision_computes_in_it_and_keeps_float32_weights():
    images, labels = pictures(6, 32)
    found = {p: train(images, labels, 2, settings(precision=p), 1) for p in ("float32", "bfloat16", "float16")}
    assert all(t.dtype in (torch.float32, torch.int64) for run in found.values() for t in run.state.values())
    losses = [run.history[0]["loss"] for run in found.values()]
    assert len(set(losses)) == 3 and losses == pytest.approx([losses[0]] * 3, abs=0.03)


def test_one_seed_gives_one_mobilenet_and_another_seed_another():
    images, labels = pictures(6, 32)
    chosen = settings(architecture="mobilenet_v3_small", batch_size=3, epochs=1)
    first, again, other = (train(images, labels, 2, chosen, seed) for seed in (1, 1, 2))
    assert same(first.state, again.state) and first.history == again.history
    assert not same(first.state, other.state)


# --- the loop and the device ------------------------------------------------------------------------------------------


def broken(error: Exception):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def forward(self, x):
            raise error

    return lambda *_: Broken()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    ],
)
def test_too_little_memory_is_one_line_that_names_the_batch_size_to_try(monkeypatch, error):
    monkeypatch.setattr(checkpoint, "build_model", broken(error))
    with pytest.raises(InputError, match="ran out of memory at batch size 64 on cpu; try batch_size 32, a") as caught:
        train(*pictures(), 2, settings(batch_size=64), 0)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="at batch size 2 on cpu; try a smaller image_size"):
        train(*pictures(), 2, settings(batch_size=2), 0)


def test_another_error_is_raised_as_it_is(monkeypatch):
    monkeypatch.setattr(checkpoint, "build_model", broken(RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(*pictures(), 2, settings(), 0)


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: numbers read, boolean indices, and constants sent."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "lift_fresh")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("changes", [{}, {"transform": "rotated_crop"}, {"precision": "float16", "ema_decay": 0.5}])
def test_no_step_waits_for_the_device(changes):
    """Twice and eight times a network's steps in an epoch: what makes the host wait happens as often."""
    images, labels = pictures(16, 32)
    counts = []
    for batch_size in (8, 8, 2):  # the first makes what is kept for later
        with Waits() as waits:
            train(images, labels, 2, settings(epochs=1, batch_size=batch_size, image_size=32, **changes), 0)
        counts.append(waits.count)
    assert counts[2] - counts[1] <= 0 and counts[1] > 0


def test_images_that_would_fill_the_gpu_stay_where_they_are(monkeypatch):
    images, _ = pictures()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (images.nbytes * 2 - 1, 0))
    assert training._place(images, GPU) is images


def test_dropout_is_seeded_on_the_gpu_that_is_meant_and_not_the_current_one(monkeypatch):
    import contextlib

    forked, seeds = [], {}

    class Generator:
        def __init__(self, number):
            self.number = number

        def manual_seed(self, seed):
            seeds[self.number] = seed

    def fork_rng(devices):
        forked.append(devices)
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
    monkeypatch.setattr(torch.cuda, "default_generators", (Generator(0), Generator(1)))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    before = torch.get_rng_state()
    for device, number in (("cuda:1", 1), ("cuda", 0)):
        with augment.seeded(7, torch.device(device)):
            assert torch.backends.cudnn.deterministic
        assert forked.pop() == [number] and seeds.pop(number) == 7 and not seeds
    torch.set_rng_state(before)


# --- replicates -------------------------------------------------------------------------------------------------------


def synthetic(n_replicates: int = 1, per_class: tuple[int, ...] = (4, 4)) -> SyntheticSet:
    """Images whose pixels all are 100 * label + 10 * replicate + index, in mixed order; ids say the same."""
    rows = [
        (label, number, index)
        for number in range(n_replicates)
        for label, n in enumerate(per_class)
        for index in range(n)
    ]
    rows = rows[::-1]
    values = torch.tensor([100 * label + 10 * number + index for label, number, index in rows], dtype=torch.uint8)
    table = {
        "image_id": [f"{label}-{number}-{index}" for label, number, index in rows],
        "label": [label for label, _, _ in rows],
        "replicate": [number for _, number, _ in rows],
        "index": [index for _, _, index in rows],
    }
    images = values.view(-1, 1, 1, 1).repeat(1, 3, 4, 4)
    return SyntheticSet(images, torch.tensor(table["label"]), ["a", "b"][: len(per_class)], pa.table(table))


@pytest.fixture
def fails(monkeypatch):
    """Call it, and from then on nothing may be trained."""

    def fail(*_, **__):
        raise AssertionError("trained again")

    return lambda: monkeypatch.setattr(replicates, "train", fail)


def records(files) -> list[dict]:
    return [read_record(file) for file in files if file.suffix == ".safetensors"]


def test_one_set_of_images_gives_as_many_classifiers_as_asked_with_seeds_of_their_own(tiny, tmp_path):
    files, _ = train_replicates(synthetic(), settings(replicates=3, seed=40), tmp_path)
    assert [file.name for file in files] == [*(f"model-r{r}.safetensors" for r in range(3)), "history.csv"]
    found = [(r["replicate"], r["image_replicate"], r["training_seed"]) for r in records(files)]
    assert found == [(0, 0, 40), (1, 0, 41), (2, 0, 42)]
    assert len({file.read_bytes() for file in files[:3]}) == 3


def test_replicates_of_images_are_taken_in_turn(tiny, tmp_path):
    files, _ = train_replicates(synthetic(2), settings(replicates=3), tmp_path)
    assert [r["image_replicate"] for r in records(files)] == [0, 1, 0]
    files, _ = train_replicates(synthetic(2), settings(replicates=0), tmp_path)
    assert [(r["replicate"], r["image_replicate"]) for r in records(files)] == [(0, 0), (1, 1)]


def test_a_classifier_is_that_of_train_with_its_seed_and_its_images(tiny, tmp_path):
    images, chosen = synthetic(2), settings(replicates=2, seed=5)
    files, _ = train_replicates(images, chosen, tmp_path)
    mine = images.replicate(1)
    assert same(load_file(files[1]), train(mine.images, mine.labels, 2, chosen, 6).state)


def test_unused_images_are_random_over_the_whole_set_and_the_same_for_every_architecture():
    whole = synthetic(per_class=(40, 60))
    found = chosen_images(whole, settings(unused_images=30), 0, 9)
    ids = found.column("image_id").tolist()
    assert len(set(ids)) == 70 and set(ids) < set(whole.column("image_id"))
    assert [i for i in whole.column("image_id") if i in set(ids)] == ids  # the others stay where they were
    assert torch.equal(
        found.images[:, 0, 0, 0], 100 * found.labels.to(torch.uint8) + torch.tensor(found.column("index"))
    )
    assert found.labels.bincount().tolist() != [25, 45]  # not the same number of each class, and not the last of each
    assert max(found.column("index")[found.labels.numpy() == 0]) > 28
    again = chosen_images(whole, settings(unused_images=30, architecture="vit", batch_size=8), 0, 9)
    assert again.column("image_id").tolist() == ids
    assert chosen_images(whole, settings(unused_images=30), 0, 8).column("image_id").tolist() != ids
    few = chosen_images(whole, settings(unused_images=30, images_per_class=20), 0, 9)  # of those that are left
    assert few.labels.bincount().tolist() == [20, 20] and set(few.column("image_id")) < set(ids)
    assert len(chosen_images(whole, settings(), 0, 7).labels) == 100


def test_each_training_leaves_out_images_of_its_own_and_its_record_says_how_many(tiny, tmp_path):
    images = synthetic(per_class=(40, 60))
    files, _ = train_replicates(images, settings(replicates=2, seed=7, unused_images=30, epochs=1), tmp_path)
    assert [(r["n_train"], r["unused_images"], r["batch_size"]) for r in records(files)] == [(70, 30, 4)] * 2
    assert {r["protocol"] for r in records(files)} == {settings(epochs=1).protocol_label()}
    for file, seed in zip(files, (7, 8), strict=False):
        part = chosen_images(images, settings(unused_images=30), 0, seed)
        wanted = train(part.images, part.labels, 2, settings(epochs=1), seed)
        assert same(load_file(file), wanted.state)


def test_images_that_are_too_few_are_one_line():
    for changes, message in (
        ({"unused_images": 8}, "unused_images is 8, and replicate 0 has 8 images; expected fewer"),
        ({"unused_images": 10_000}, "unused_images is 10000, and replicate 0 has 8 images; expected fewer"),
        ({"unused_images": 7}, "has 0 images of '[ab]' without its 7 unused ones; expected at least 1"),
        ({"unused_images": 2, "images_per_class": 4}, "without its 2 unused ones; expected at least 4"),
        ({"images_per_class": 5}, "expected at least 5, generate more"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            chosen_images(synthetic(), settings(**changes), 0, 0)
        assert "\n" not in str(caught.value)


def test_history_csv_is_the_records_history(tiny, tmp_path):
    files, history = train_replicates(
        synthetic(), settings(replicates=2, test_every=2), tmp_path, scripted(10, 20, 30, 40)
    )
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    told = [
        {"replicate": r["replicate"]} | row
        for r in (read_record(tmp_path / f"model-r{n}.safetensors") for n in (0, 1))
        for row in r["history"]
    ]
    assert len(rows) == len(told) == 6 and list(rows[0]) == list(history)
    for row, wanted in zip(rows, told, strict=True):
        assert row == {name: str(wanted.get(name, "")) for name in row}
    assert [row["test_authors_percent"] for row in rows] == ["10", "", "20", "30", "", "40"]
    assert history["replicate"] == [0, 0, 0, 1, 1, 1]


def test_the_best_epoch_is_kept_beside_the_last_and_labelled(tiny, tmp_path):
    files, _ = train_replicates(synthetic(), settings(test_every=1), tmp_path, scripted(10, 30, 20))
    assert [file.name for file in files] == ["model-r0.safetensors", "best-r0.safetensors", "history.csv"]
    last, best = records(files)
    assert (last["epoch"], last["chosen"]) == (3, "last")
    assert (best["epoch"], best["chosen"]) == (2, "best on the test set")


def test_what_is_there_already_is_not_trained_again(tiny, tmp_path, fails):
    chosen = settings(replicates=2, test_every=1)
    first = train_replicates(synthetic(), chosen, tmp_path, scripted(*range(6)))
    before = {file: file.read_bytes() for file in first[0]}
    fails()
    again = train_replicates(synthetic(), chosen, tmp_path, scripted())
    assert again == first and {file: file.read_bytes() for file in again[0]} == before


def test_a_protocol_that_tests_more_rarely_than_there_are_epochs_trains_once(tiny, tmp_path, fails):
    chosen = settings(epochs=2, test_every=5)
    files, _ = train_replicates(synthetic(), chosen, tmp_path, scripted(10))
    assert [file.name for file in files] == ["model-r0.safetensors", "best-r0.safetensors", "history.csv"]
    fails()
    train_replicates(synthetic(), chosen, tmp_path, scripted())


def test_who_is_told_and_what_the_protocol_is_called_retrain_nothing(tiny, tmp_path, fails):
    chosen = settings(protocol="miniature")
    train_replicates(synthetic(), chosen, tmp_path)
    fails()
    renamed = replace(chosen, protocol="careful", log_to=["tensorboard"], run_dir="elsewhere", dataset="stripes")
    assert renamed.learning_rate == chosen.learning_rate == 2e-3
    train_replicates(synthetic(), renamed, tmp_path)


def test_an_interrupt_between_two_trainings_is_one_line_too_and_what_is_finished_stays(tiny, tmp_path, monkeypatch):
    def interrupted_before_the_second(images, settings, source, training_seed):
        if source:
            raise KeyboardInterrupt
        return chosen_images(images, settings, source, training_seed)

    monkeypatch.setattr(replicates, "chosen_images", interrupted_before_the_second)
    with pytest.raises(Interrupted):
        train_replicates(synthetic(2), settings(replicates=2), tmp_path)
    assert [file.name for file in tmp_path.glob("*.safetensors")] == ["model-r0.safetensors"]


@pytest.mark.parametrize("changes", [{"learning_rate": 1e-3}, {"flip": 0.5}, {"seed": 1}, {"precision": "bfloat16"},
                                     {"ema_decay": 0.5}, {"threads": 2}, {"images_per_class": 3}])  # fmt: skip
def test_what_decides_the_weights_is_trained_again(tiny, tmp_path, fails, changes):
    chosen = settings()
    train_replicates(synthetic(), chosen, tmp_path)
    fails()
    with pytest.raises(AssertionError, match="trained again"):
        train_replicates(synthetic(), replace(chosen, **changes), tmp_path)


def test_auto_precision_is_trained_again_where_another_cpu_computes_otherwise(tiny, tmp_path, fails, monkeypatch):
    chosen = settings(architecture="vit", precision="auto")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    train_replicates(synthetic(), chosen, tmp_path)
    fails()
    train_replicates(synthetic(), replace(chosen, precision="float32"), tmp_path)  # which is what auto was
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    with pytest.raises(AssertionError, match="trained again"):
        train_replicates(synthetic(), chosen, tmp_path)


# --- who is told ------------------------------------------------------------------------------------------------------


def test_tensorboard_is_told_every_number_of_the_history(tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    chosen = settings(replicates=2, log_to=["tensorboard"], test_every=1)
    _, history = train_replicates(synthetic(), chosen, tmp_path, scripted(10, 30, 20, 1, 2, 3))
    for number in (0, 1):
        told = EventAccumulator(str(tmp_path / f"model-r{number}.tensorboard")).Reload()
        rows = [k for k, replicate in enumerate(history["replicate"]) if replicate == number]
        assert set(told.Tags()["scalars"]) == set(history) - {"replicate"}
        for name in set(history) - {"replicate"}:
            events = told.Scalars(name)
            assert [event.step for event in events] == [2, 4, 6]
            assert [event.value for event in events] == pytest.approx([history[name][k] for k in rows], rel=1e-6)


def test_wandb_is_told_every_row_and_that_it_is_over(tiny, tmp_path, monkeypatch):
    started, told, finished = [], [], []
    run = types.SimpleNamespace(log=lambda row, step: told.append((step, dict(row))), finish=lambda: finished.append(1))
    fake = types.ModuleType("wandb")
    fake.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    fake.init = lambda **how: started.append(how) or run
    monkeypatch.setitem(sys.modules, "wandb", fake)
    chosen = settings(log_to=["wandb"], architecture="vit")
    _, history = train_replicates(synthetic(), chosen, tmp_path)
    assert len(started) == len(finished) == 1
    assert (started[0]["project"], started[0]["name"]) == ("synthlib", "bars-base_class-vit-r0")
    assert started[0]["config"]["learning_rate"] == chosen.learning_rate and started[0]["dir"].is_dir()
    assert [step for step, _ in told] == [2, 4, 6]
    assert [row["loss"] for _, row in told] == history["loss"]


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_is_one_line(tiny, tmp_path, monkeypatch, package):
    monkeypatch.setattr(logs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"log_to needs {package}.*`pip install {package}`, or leave it out") as caught:
        train_replicates(synthetic(), settings(log_to=[package]), tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("*.safetensors"))


def test_nobody_is_told_and_nothing_imported_where_nothing_is_asked(tiny, tmp_path, monkeypatch):
    for module in ("tensorboard", "wandb", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it would fail
    train_replicates(synthetic(), settings(), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "history.csv",
        "model-r0.csv",
        "model-r0.safetensors",
        "model-r0.safetensors.key",
    ]
