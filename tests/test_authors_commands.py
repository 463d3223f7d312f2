"""The authors' commands: `train` and `eval` with their arguments, their files and their way of choosing, all labelled."""

import functools
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from processes import Gate, exit_code, forked
from safetensors.torch import save_file

from synthlib import cli, cli_authors
from synthlib.data.datasets import read_spec
from synthlib.data.imports import import_set
from synthlib.data.sources import open_source
from synthlib.evaluation.evaluate import accuracy_percent, load_logits
from synthlib.evaluation.predict import predict_authors
from synthlib.files import RECEIPT
from synthlib.inputs import InputError
from synthlib.results.statistics import wilson_interval
from synthlib.runs.experiment import complete
from synthlib.settings import TrainSettings
from synthlib.training import checkpoint
from synthlib.training import train as training
from synthlib.training.checkpoint import initial_model, load_model, preparation_of, read_record
from synthlib.training.imagenet import read_tensors
from synthlib.training.models import build_model
from synthlib.training.replicates import read_training_set

LAST, BEST = "trained_model.safetensors", "best_on_test_model.safetensors"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def write_bars(folder, dataset="digits", count=4, seed=0, size=32):
    """<class>/<n>.png: a bright bar on noise, RGBA as the authors' images are; its place tells the class."""
    rng = np.random.default_rng(seed)
    names = list(read_spec(dataset).classes)
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
            pixels[:, label * size // len(names) :][:, :3] = 250
            Image.fromarray(pixels).convert("RGBA").save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Images to learn from, and others that stand for the real ones."""
    folder = tmp_path_factory.mktemp("images")
    return write_bars(folder / "synthetic"), write_bars(folder / "real", count=3, seed=1)


def run(command, places, *words, model="resnet"):
    """One of the two commands on these images, with the words given; its exit code."""
    synthetic, real = places
    given = ["--model", model] if model else []
    given += ["--dataset", "digits", "--real_data_location", str(real)]
    if command == "train":
        given += ["--syn_data_location", str(synthetic), "--epoch", "2", "--batch_size", "16"]
    return cli.main([command, *given, *map(str, words)])


@pytest.fixture(scope="module")
def trained(places, tmp_path_factory):
    """The folder of a finished training, as the authors' protocol has it."""
    folder = tmp_path_factory.mktemp("trained")
    assert run("train", places, "--model_path", folder) == 0
    return folder


def one_line(capsys):
    """What a refused command said on stderr, which is one line."""
    text = capsys.readouterr().err
    assert text.startswith("synthlib: ") and text.count("\n") == 1
    return text


# --- as their README writes them --------------------------------------------------------------------------------------


def test_both_commands_work_as_the_authors_readme_writes_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_bars(tmp_path / "syn" / "cifar10_generated_32A", "cifar10", count=2)
    write_bars(tmp_path / "real", "cifar10", count=2, seed=1)
    words = "--model MBV3 --epoch 2 --batch_size 8 --dataset cifar10 --img_size 32 --lr 0.001 --wd 0.9 --model_path saved_models/"
    assert cli.main(["train", *words.split(), "--syn_data_location", "syn", "--real_data_location", "real"]) == 0
    record = read_record(tmp_path / "saved_models" / LAST)
    assert record["architecture"] == "mobilenet_v3_small" and record["dataset"] == "cifar10"
    assert record["protocol"] == "authors, epochs=2, batch_size=8, learning_rate=0.001, image_size=32"
    assert (record["n_train"], record["n_steps"], record["image_size"], record["init"]) == (20, 6, 32, "scratch")
    assert record["classes"] == list(read_spec("cifar10").classes)
    capsys.readouterr()
    words = (
        "--model MBV3 --model_path saved_models/trained_model.safetensors --dataset cifar10 --real_data_location real"
    )
    assert cli.main(["eval", *words.split()]) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"^eval +[\d.]+ % \[[\d.]+, [\d.]+\](?: \(chance\?\))? +chance 10.00 % +ECE +[\d.]+$", printed, re.M
    )
    assert re.search(r"^authors mode: .*train mode.*batch norm", printed, re.M)


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_three_commands_of_the_readme_in_a_row_end_in_an_accuracy(tiny_sd, tmp_path, monkeypatch, capsys, whole):
    """Typed as in the authors' README but for the program's name. whole: with the true Vit-B, not a small network for it."""
    monkeypatch.chdir(tmp_path)
    if not whole:
        monkeypatch.setattr(checkpoint, "build_model", lambda _, n, size, *others: build_model("vit", n, size))
    small = f"--model {tiny_sd} --n_samples 2 --n_iter 2 --ddim_steps 2 --H 64 --W 64 --device cpu"
    typed = "generate --classes dog cat --trick class_prompt --outdir synthetic_datasets/cats_and_dogs"
    assert cli.main([*typed.split(), *small.split()]) == 0
    drawn = tmp_path / "synthetic_datasets" / "cats_and_dogs"
    assert sorted(path.name for path in drawn.iterdir()) == ["cat", "dog"] and len(list(drawn.glob("*/*.png"))) == 8
    typed = "train --model resnet --protocol careful --epoch 1 --dataset own --model_path own --syn_data_location"
    assert cli.main([*typed.split(), str(drawn)]) == 0 and cli.main(["import", str(drawn), "imported"]) == 0
    assert read_record(tmp_path / "own" / LAST)["trick"] == "class_prompt"  # that generate says beside its folder
    assert json.loads((tmp_path / "imported" / RECEIPT).read_text())["parameters"]["trick"] == "class_prompt"
    write_bars(tmp_path / "data" / "synthetic_cifar10", "cifar10")
    for name in ("cat", "dog"):  # in their places among the ten, larger than the others as they are
        shutil.rmtree(tmp_path / "data" / "synthetic_cifar10" / name)
        shutil.copytree(drawn / name, tmp_path / "data" / "synthetic_cifar10" / name)
    write_bars(tmp_path / "data" / "real_cifar10", "cifar10", count=2, seed=1)
    typed = "train --model Vit-B --epoch 10 --batch_size 32 --dataset cifar10 --model_path saved_models/ "
    typed += "--syn_data_location data/synthetic_cifar10 --real_data_location data/real_cifar10"
    assert cli.main(typed.split()) == 0
    printed = capsys.readouterr().out
    assert "vit_b for 32 px" in printed and "takes none so small" in printed
    record = read_record(tmp_path / "saved_models" / LAST)
    assert [row["epoch"] for row in record["history"] if "test_authors_percent" in row] == [1, 6]
    typed = "eval --model Vit-B --model_path saved_models/trained_model.pt --dataset cifar10 "
    assert cli.main([*typed.split(), "--real_data_location", "data/real_cifar10"]) == 0
    printed = capsys.readouterr().out
    assert "no file saved_models/trained_model.pt: saved_models/trained_model.safetensors is tested" in printed
    assert re.search(r"^authors +[\d.]+ % \[", printed, re.M) and "in batches of 32:" in printed


@pytest.mark.parametrize(
    ("name", "dataset", "inner", "size"),
    [
        ("cifar10_generated_32A", "cifar10", "", 32),
        ("cifar10_generated_merged_32A", "cifar10", "", 32),
        ("cifar100_generated_multidomain_32A", "cifar100", "", 32),
        ("EuroSat_generated_64", "eurosat", "eurosat/2750", 224),
    ],
)
def test_a_data_set_may_be_named_as_the_authors_train_network_takes_it(
    tmp_path, monkeypatch, capsys, name, dataset, inner, size
):
    monkeypatch.chdir(tmp_path)
    for place, seed in ((tmp_path / "syn" / name, 0), (tmp_path / "real", 1)):
        write_bars(place / inner if inner else place, dataset, count=1, seed=seed)
    write_bars(tmp_path / "syn" / "another_set", "digits", count=1)
    same = ["--model", "resnet", "--model_path", "saved_models/", "--dataset", name, "--real_data_location", "real"]
    for place, typed in (("syn", name), (f"syn/{name}", name), ("syn", name.lower())):
        words = [*same, "--dataset", typed, "--syn_data_location", place, "--epoch", "1"]
        assert cli.main(["train", *words]) == 0
    record = read_record(tmp_path / "saved_models" / LAST)
    classes = list(read_spec(dataset).classes)
    assert (record["dataset"], record["classes"], record["n_train"]) == (dataset, classes, len(classes))
    assert record["image_size"] == size
    assert cli.main(["eval", *same]) == 0
    assert f"{dataset}: {len(classes)} real test images" in capsys.readouterr().out
    assert cli.main(["train", *same, "--syn_data_location", "real", "--epoch", "1"]) == 2
    assert f"no {name} in real; expected a folder of that name" in one_line(capsys)


def test_what_is_not_given_is_the_protocols(trained):
    record = read_record(trained / LAST)
    assert record["protocol"] == "authors, epochs=2, batch_size=16"
    assert record["history"][0]["learning_rate"] == 1e-4 and record["normalisation"] == "imagenet"


def test_each_epoch_is_a_line_with_loss_and_accuracies_in_both_modes(places, tmp_path, capsys):
    assert run("train", places, "--model_path", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if re.match(r" +\d", line)]
    history = read_record(tmp_path / LAST)["history"]
    assert [int(row[0]) for row in rows] == [1, 2]
    names = ("loss", "train_accuracy_percent", "test_eval_percent", "test_authors_percent")
    for row, kept, many in zip(
        rows, history, (4, 2), strict=True
    ):  # they test after the first epoch, then after the sixth
        told = [kept[name] for name in names if name in kept]
        assert [float(value) for value in row[1:]] == pytest.approx(told, abs=0.006) and len(told) == many
    assert re.search(r"last epoch, [\d.]+ % \(eval\), [\d.]+ % \(authors\), chance 10.00 %", "\n".join(lines))


# --- what they learn from ---------------------------------------------------------------------------------------------


def test_class_folders_their_archive_and_eurosats_layout_train_the_same_network(places, trained, tmp_path):
    archive, deeper = tmp_path / "digits_generated_32A.tar.gz", tmp_path / "layout"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(places[0], "digits_generated_32A")
    (deeper / "eurosat").mkdir(parents=True)
    (deeper / "eurosat" / "2750").symlink_to(places[0])
    for number, place in enumerate((archive, deeper)):
        assert run("train", (place, places[1]), "--model_path", tmp_path / f"{number}") == 0
        assert (tmp_path / f"{number}" / LAST).read_bytes() == (trained / LAST).read_bytes()


def test_a_set_of_ours_tells_its_trick_and_a_damaged_one_is_refused(places, tmp_path, capsys):
    import_set(open_source(places[0]), tmp_path / "set", "digits", "class_prompt")
    assert run("train", (tmp_path / "set", places[1]), "--model_path", tmp_path) == 0
    assert (read_record(tmp_path / LAST)["trick"], read_record(tmp_path / LAST)["n_train"]) == ("class_prompt", 40)
    shard = next((tmp_path / "set").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])
    capsys.readouterr()
    assert run("train", (tmp_path / "set", places[1]), "--model_path", tmp_path) == 2
    assert "damaged" in one_line(capsys)
    (tmp_path / "set" / RECEIPT).unlink()
    assert run("train", (tmp_path / "set", places[1]), "--model_path", tmp_path) == 2
    assert "is not finished" in one_line(capsys)


def test_only_one_replicate_of_a_set_is_learned_from(places, tmp_path, capsys):
    import_set(open_source(places[0]), tmp_path / "set", "digits")
    table = pq.read_table(tmp_path / "set" / "shard-00000.parquet")
    replicates = pa.array([1 + index // 2 for index in table["index"].to_pylist()])
    (tmp_path / "two").mkdir()
    place = table.column_names.index("replicate")
    pq.write_table(table.set_column(place, "replicate", replicates), tmp_path / "two" / "shard-00000.parquet")
    assert run("train", (tmp_path / "two", places[1]), "--model_path", tmp_path) == 0
    assert "several replicates; number 1" in capsys.readouterr().out
    record = read_record(tmp_path / LAST)
    assert (record["n_train"], record["image_replicate"]) == (20, 1)


def test_labels_follow_the_data_sets_order_not_that_of_the_folders(places, tmp_path, monkeypatch):
    def caught(images, labels, *others):
        at = images[:, 0].float().mean(1).argmax(1)  # the column where the bar of class k begins is 32 k / 10
        found.append(torch.stack([at, labels * 32 // 10], 1))
        raise KeyboardInterrupt

    found = []
    monkeypatch.setattr(training, "train", caught)
    assert run("train", places, "--model_path", tmp_path) == 130
    assert (found[0][:, 0] - found[0][:, 1]).clamp(0, 2).equal(found[0][:, 0] - found[0][:, 1])
    assert found[0][:, 1].unique().numel() == 10


def test_classes_that_do_not_match_are_listed(places, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    for folder in places[0].iterdir():
        (tmp_path / "other" / ("nought" if folder.name == "zero" else folder.name)).symlink_to(folder)
    assert run("train", (tmp_path / "other", places[1]), "--model_path", tmp_path) == 2
    assert "only there: nought; missing there: zero" in one_line(capsys)


def write_photographs(folder, names=("cat", "dog"), count=2):
    """<class>/<n>.jpg of several sizes."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for place in range(count):
            Image.new("RGB", (300 - 20 * place, 240), (40 * number, 90, 60 * place)).save(
                folder / name / f"{place}.jpg"
            )
    return folder


OWN = ["--dataset", "own", "--epoch", "1", "--protocol", "careful"]


@pytest.mark.parametrize(
    ("model", "words", "size"), [("resnet", [], 32), ("MBV3", [], 224), ("resnet", ["--img_size", "48"], 48)]
)
def test_photographs_of_several_sizes_become_squares_of_the_networks_size(tmp_path, capsys, model, words, size):
    given = ["--model", model, *OWN, *words, "--model_path", str(tmp_path)]
    assert cli.main(["train", *given, "--syn_data_location", str(write_photographs(tmp_path / "photos"))]) == 0
    assert (
        f"photos: images are not all squares of one size; each is cropped to a square in the middle and resized to {size} x"
        in (capsys.readouterr().out)
    )
    assert read_record(tmp_path / LAST)["image_size"] == size


def test_what_needs_real_images_that_are_not_there_names_a_protocol_that_needs_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SYNTHLIB_DATA", str(tmp_path / "nothing"))
    write_photographs(tmp_path / "photos", read_spec("cifar10").classes)
    given = ["train", "--model", "resnet", "--epoch", "1", "--syn_data_location", str(tmp_path / "photos")]
    for dataset, more in (("own", ()), ("cifar10", ["`synthlib download cifar10`"])):
        place = ["--dataset", dataset, "--model_path", str(tmp_path / dataset)]
        assert cli.main([*given, *place]) == 2
        said = one_line(capsys)
        assert all(word in said for word in ("--real_data_location", "--protocol careful", *more))
        assert cli.main([*given, *place, "--protocol", "careful"]) == 0
    settings = TrainSettings(**complete("02_train", {"dataset": "own", "trick": "unknown", "protocol": "authors"}))
    with pytest.raises(InputError, match="give their folder as real_dir, or take protocol careful"):
        read_training_set(settings)


def test_one_class_alone_is_not_learned(tmp_path, capsys):
    one = write_photographs(tmp_path / "one", ["cat"])
    assert (
        cli.main(["train", "--model", "resnet", *OWN, "--syn_data_location", str(one), "--model_path", str(tmp_path)])
        == 2
    )
    assert "'cat'" in one_line(capsys)
    import_set(open_source(one), tmp_path / "set", size=32)
    given = {"dataset": "own", "trick": "unknown", "generated_dir": str(tmp_path / "set")}
    with pytest.raises(InputError, match="'cat'"):
        read_training_set(TrainSettings(**complete("02_train", given)))


@pytest.mark.parametrize(
    ("command", "words", "flag", "name"),
    [
        ("train", "--epoch 0", "--epoch", "epochs"),
        ("train", "--lr 20", "--lr", "learning_rate"),
        ("train", "--wd 11", "--wd", "weight_decay"),
        ("train", "--batch_size 1", "--batch_size", " batch_size"),
        ("train", "--img_size -1", "--img_size", "image_size"),
        ("train", "--model vit --img_size 33", "--img_size", "image_size"),
        ("train", "--model Vit-B --img_size 33", "--img_size", "image_size"),
        ("train", "--init imagenett", "--init", "unknown init"),
        ("train", "--init imagenet", "--weights", "`weights`"),
        ("train", "--weights x.pth", "--init", " init "),
        ("train", "--protocol carefull", "--protocol", "unknown protocol"),
        ("train", "--trick mixed", "--trick", "unknown trick"),
        ("train", "--unused_images 400", "--unused_images", " unused_images"),
        ("train", "--device tpu", "--device", "unknown device"),
        ("eval", "--batch_size 1", "--batch_size", " batch_size"),
        ("eval", "", "--real_data_location", "real_dir"),
        ("import", "", "--size", "give size"),
        ("import", "--size 4", "--size", " size is"),
        ("import", "--label_column x", "--label_column", " label_column"),
        ("import", "--trick mixed", "--trick", "unknown trick"),
        ("generate", "--n_samples 0", "--n_samples", " n_samples"),
        ("generate", "--ddim_steps 0", "--ddim_steps", "num_inference_steps"),
        ("generate", "--H 30", "--H", "height"),
        ("generate", "--min_scale 6", "--max_scale", " max_scale"),
        ("generate", "--trick random_guidance --noise compvis --ddim_steps 30", "--ddim_steps", "num_inference_steps"),
        ("generate", "--trick prompt_list", "--prompts_file", " prompts_file"),
        ("generate", "--revision main", "--revision", " revision"),
        ("generate", "--shard_rows 0", "--shard_rows", " shard_rows"),
        ("baseline clip", "--batch_size 0", "--batch_size", " batch_size"),
        ("baseline referee", "--referee glpyh", "--referee", "unknown referee"),
        ("run 02_train", "learning_rate", "learning_rate", "--"),
        ("run 02_train", "image_size", "image_size", "--"),
    ],
)
def test_what_is_wrong_is_named_as_the_caller_writes_it(trained, tmp_path, capsys, command, words, flag, name):
    (tmp_path / "params.json").write_text(json.dumps({words: "none"}))
    photos = write_photographs(tmp_path / "photos")
    place = {
        "train": ["--model", "resnet", *OWN, "--syn_data_location", photos, "--model_path", tmp_path],
        "eval": ["--dataset", "own", "--model_path", trained],
        "import": [photos, tmp_path / "imported"],
        "generate": ["--classes", "three", "--outdir", tmp_path / "out"],
        "baseline clip": ["--dataset", "digits"],
        "baseline referee": [photos, "--dataset", "digits"],
        "run 02_train": ["--params", tmp_path / "params.json"],
    }[command]
    if command == "baseline referee":
        import_set(open_source(photos), tmp_path / "set", size=32)
        place[0] = tmp_path / "set"
    typed = [] if command == "run 02_train" else words.split()
    assert cli.main([*command.split(), *map(str, place), *typed]) == 2
    said = one_line(capsys)
    assert flag in said and name not in said, said


def test_cifar_of_any_size_is_for_a_network_of_32_pixels_unless_another_is_asked_for(tmp_path):
    synthetic, real = write_bars(tmp_path / "s", "cifar10", 1, size=64), write_bars(tmp_path / "r", "cifar10", 1, 1)
    given = ["--model", "resnet", "--dataset", "cifar10", "--epoch", "1", "--syn_data_location", str(synthetic)]
    given += ["--real_data_location", str(real), "--model_path", str(tmp_path)]
    for more, size in (([], 32), (["--img_size", "48"], 48)):
        assert cli.main(["train", *given, *more]) == 0
        assert read_record(tmp_path / LAST)["image_size"] == size


def test_unused_images_are_left_out_counted_and_refused_where_none_would_be_left(places, tmp_path, capsys):
    assert run("train", places, "--model_path", tmp_path, "--unused_images", 5) == 0
    printed = capsys.readouterr().out
    assert "35 images of 10 classes" in printed and "5 more images, at random, are left out" in printed
    assert "authors' loader" not in printed  # theirs has no digits
    record = read_record(tmp_path / LAST)
    assert (record["n_train"], record["unused_images"], record["n_steps"]) == (35, 5, 2 * 3)
    for number in (40, 10_000):
        assert run("train", places, "--model_path", tmp_path / "new", "--unused_images", number) == 2
        assert f"unused_images is {number}, and replicate 0 has 40 images" in one_line(capsys)
    assert not (tmp_path / "new" / LAST).exists()


@pytest.mark.parametrize(
    ("words", "theirs", "said"),
    [
        ("", 5, "the authors' loader leaves 5 images of a CIFAR set out, at random: --unused_images 5 does so"),
        ("", 10, "the authors' loader leaves 10 images of a CIFAR set out, at random, and takes none so small"),
        ("--unused_images 3", 5, "the authors' loader leaves 5 images of a CIFAR set out"),
        ("--unused_images 5", 5, ""),
        ("--protocol careful", 5, ""),
    ],
)
def test_what_the_authors_loader_leaves_out_of_a_cifar_set_is_said_in_their_protocol(
    tmp_path, monkeypatch, capsys, words, theirs, said
):
    monkeypatch.setattr(cli_authors, "AUTHORS_UNUSED", theirs)  # in place of 10,000
    synthetic, real = write_bars(tmp_path / "s", "cifar10", 2), write_bars(tmp_path / "r", "cifar10", 1, 1)
    given = ["--model", "resnet", "--dataset", "cifar10", "--epoch", "1", "--syn_data_location", str(synthetic)]
    given += ["--real_data_location", str(real), "--model_path", str(tmp_path), *words.split()]
    if theirs == 10:
        for left_out in synthetic.glob("*/1.png"):
            left_out.unlink()
    assert cli.main(["train", *given]) == 0
    printed = capsys.readouterr().out
    assert said in printed and ("authors' loader" in printed) == bool(said)


def test_the_test_images_are_not_learned_from(places, tmp_path, capsys):
    assert run("train", (places[1], places[1]), "--model_path", tmp_path) == 2
    assert "to be tested on" in one_line(capsys)


# --- what they write --------------------------------------------------------------------------------------------------


def test_the_last_epoch_and_the_best_on_the_test_set_say_which_they_are(places, tmp_path, monkeypatch, capsys):
    scores = iter([50.0, 10.0, 10.0])  # of the first epoch, of the second, ...

    def tester(real, classes, batch_size):
        def test(model, preparation):
            score = next(scores)
            return {"test_eval_percent": score, "test_authors_percent": score}

        return test

    monkeypatch.setattr("synthlib.evaluation.predict.tester", tester)
    assert run("train", places, "--model_path", tmp_path) == 0
    printed = capsys.readouterr().out
    assert f"{LAST}: last epoch, 10.00 %" in printed
    assert f"{BEST}: epoch 1, chosen: best on the test set, 50.00 %" in printed
    last, best = read_record(tmp_path / LAST), read_record(tmp_path / BEST)
    assert (last["epoch"], last["chosen"]) == (2, "last") and (best["epoch"], best["chosen"]) == (
        1,
        "best on the test set",
    )
    a, b = read_tensors(tmp_path / LAST), read_tensors(tmp_path / BEST)
    assert any(not torch.equal(a[name], b[name]) for name in a)
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, "trained_model.csv", LAST]  # no state is left
    for name, said in ((LAST, "epoch 2, chosen: last epoch"), (BEST, "epoch 1, chosen: best on the test set, so")):
        assert run("eval", places, "--model_path", tmp_path / name) == 0
        assert said in capsys.readouterr().out


def test_the_careful_protocol_tests_once_at_the_end_and_chooses_nothing(places, trained, tmp_path, capsys):
    for name in (LAST, BEST):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    assert run("train", places, "--model_path", tmp_path, "--protocol", "careful") == 0
    printed = capsys.readouterr().out
    assert re.search(rf"replaces, at its end: .*{LAST}, .*{BEST}", printed)
    assert re.search(r"last epoch, [\d.]+ % \(eval\), [\d.]+ % \(authors\)", printed) and "best on" not in printed
    record = read_record(tmp_path / LAST)
    assert record["protocol"] == "careful, epochs=2, batch_size=16" and "test_eval_percent" not in record["history"][0]
    assert not (tmp_path / BEST).exists()  # of the earlier training


def test_a_training_that_was_interrupted_ends_with_the_same_bytes(places, trained, tmp_path, monkeypatch, capsys):
    def stops(*words, **named):
        def on_epoch(row):
            raise KeyboardInterrupt

        return functools.partial(real, save_every_s=0)(*words[:-1], on_epoch, **named)

    real = training.train
    monkeypatch.setattr(training, "train", stops)
    assert run("train", places, "--model_path", tmp_path) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["trained_model.state"]
    monkeypatch.setattr(training, "train", real)
    assert run("train", places, "--model_path", tmp_path) == 0
    assert "goes on after epoch 1" in capsys.readouterr().out
    for name in (LAST, BEST):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


@pytest.mark.parametrize("name", ["", LAST, "model.pt"])
def test_of_two_trainings_into_one_place_one_is_refused(places, tmp_path, monkeypatch, capsys, name):
    """Also where only the checkpoint of the best epoch would be the same."""
    gate, real = Gate(), training.train
    monkeypatch.setattr(training, "train", lambda *_, **__: gate.wait())
    other = forked(lambda: run("train", places, "--model_path", tmp_path))
    gate.reached()
    monkeypatch.setattr(training, "train", real)
    assert run("train", places, "--model_path", tmp_path / name) == 2
    assert f"process {other}" in one_line(capsys)
    os.kill(other, signal.SIGKILL)
    assert exit_code(other) == -signal.SIGKILL
    if not name:
        assert run("train", places, "--model_path", tmp_path) == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, "trained_model.csv", LAST]


def test_a_state_of_other_settings_is_not_gone_on_with_and_it_says_so(places, trained, tmp_path, capsys):
    (tmp_path / "trained_model.state").write_bytes((trained / LAST).read_bytes())
    assert run("train", places, "--model_path", tmp_path) == 0
    assert "belongs to another training" in capsys.readouterr().out
    assert (tmp_path / LAST).read_bytes() == (trained / LAST).read_bytes()


def test_wandb_is_one_line_where_it_is_not_installed(places, tmp_path, capsys):
    if importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    assert run("train", places, "--model_path", tmp_path, "--wandb") == 2
    assert "pip install wandb" in one_line(capsys)


def test_an_unknown_model_names_the_nearest(places, tmp_path, capsys):
    assert run("train", places, "--model_path", tmp_path, model="RS50x") == 2
    assert "unknown --model 'RS50x'" in one_line(capsys)
    assert run("eval", places, "--model_path", tmp_path, model="mobilenet_v3_smal") == 2
    assert "did you mean mobilenet_v3_small" in one_line(capsys)


def test_real_images_that_are_missing_are_one_line_before_any_training(places, tmp_path, capsys):
    assert run("train", (places[0], tmp_path / "nothing"), "--model_path", tmp_path) == 2
    assert "nothing" in one_line(capsys)
    assert not (tmp_path / LAST).exists()


# --- what they read ---------------------------------------------------------------------------------------------------


def test_the_authors_pt_of_plain_tensors_is_tested_as_ours_is(places, trained, tmp_path, capsys):
    assert run("eval", places, "--model_path", trained / LAST) == 0
    ours = capsys.readouterr().out.splitlines()
    torch.save(read_tensors(trained / LAST), tmp_path / "theirs.pt")
    assert run("eval", places, "--model_path", tmp_path / "theirs.pt", "--batch_size", 16) == 0
    theirs = capsys.readouterr().out.splitlines()
    assert "no record" in theirs[0]
    numbers = [[line for line in lines if line.startswith(("eval ", "authors "))] for lines in (ours, theirs)]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 3
    assert run("eval", places, "--model_path", tmp_path / "theirs.pt") == 0
    assert "batches of 64, their default" in capsys.readouterr().out
    assert run("eval", places, "--model_path", tmp_path / "theirs.pt", model="") == 2
    assert "does not say what network" in one_line(capsys)


def test_the_command_that_train_prints_works_as_it_is_pasted(places, tmp_path, monkeypatch, capsys):
    (real := tmp_path / "real images").symlink_to(places[1])
    monkeypatch.chdir(tmp_path)
    for path in ("my models/", "my models/it's mine.pt"):
        assert run("train", (places[0], real), "--model_path", path, model="resnet") == 0
        printed = capsys.readouterr().out
        tested = re.search(r"last epoch, ([\d.]+) % \(eval\), ([\d.]+) % \(authors\)", printed).groups()
        program, *words = shlex.split(printed.splitlines()[-1].partition(": ")[2])
        assert program == "synthlib" and cli.main(words) == 0
        found = capsys.readouterr().out
        assert re.search(rf"^eval +{tested[0]} %", found, re.M)
        assert f"one shuffle {tested[1]} %, 4 shuffles" in found and "batches of 16:" in found  # as in training


def test_a_pt_that_is_not_there_is_the_safetensors_of_its_name_and_a_folder_has_the_last_epoch(places, trained, capsys):
    lines = {}
    for name in ("", LAST, "trained_model.pt", "trained_model.pth", "best_on_test_model.pt"):
        assert run("eval", places, "--model_path", trained / name) == 0
        lines[name] = capsys.readouterr().out.splitlines()
    assert lines[""] == lines[LAST] == lines["trained_model.pt"][1:] == lines["trained_model.pth"][1:]
    assert all(f"{LAST} is tested, which is there" in lines[f"trained_model{end}"][0] for end in (".pt", ".pth"))
    assert "chosen: best on the test set" in "".join(lines["best_on_test_model.pt"])
    assert run("eval", places, "--model_path", trained / "other.pt") == 2
    assert "other.pt" in one_line(capsys)


def test_authors_mode_is_in_batches_of_the_training_unless_others_are_asked_for(places, trained, tmp_path, capsys):
    from synthlib.data.real import load_real

    real = load_real("digits", "test", str(places[1]))
    model, record = load_model(trained / LAST)
    for words, size in (((), 16), (("--batch_size", 7), 7), (("--batch_size", 64), 64)):
        file = tmp_path / f"{size}.safetensors"
        assert run("eval", places, "--model_path", trained, "--logits", file, *words) == 0
        assert f"batches of {size}:" in capsys.readouterr().out
        wanted, _ = predict_authors(model, real.images, preparation_of(record), size)
        assert torch.equal(load_logits(file).authors, wanted)
    for number in (1, -3):
        assert run("eval", places, "--model_path", trained, "--batch_size", number) == 2
        assert f"batch_size is {number}" in one_line(capsys)


def test_the_authors_order_and_the_shuffles_stand_side_by_side(tmp_path, monkeypatch, capsys):
    """Of CIFAR their order is that of the test file, which Parquet keeps and class folders do not."""
    folders = write_bars(tmp_path / "folders", "cifar10", count=3)
    import_set(open_source(folders), tmp_path / "set", "cifar10")
    torch.save(initial_model("resnet", 10, 32, 0).state_dict(), tmp_path / "new.pt")
    words = ["eval", "--model", "resnet", "--model_path", str(tmp_path / "new.pt"), "--dataset", "cifar10"]
    for place, said in (("set", "file order, as theirs,"), ("folders", "one shuffle (theirs is file order")):
        capsys.readouterr()
        file = tmp_path / f"{place}.safetensors"
        assert cli.main([*words, "--real_data_location", str(tmp_path / place), "--logits", str(file)]) == 0
        logits, printed = load_logits(file), capsys.readouterr().out
        assert logits.order.shape == (5, 30) and (logits.order[0].tolist() == list(range(30))) == (place == "set")
        first, others = (accuracy_percent(part, logits.labels) for part in (logits.authors[0], logits.authors[1:]))
        assert re.search(rf"^{re.escape(said)}.* {first:.2f} %, 4 shuffles {others:.2f} % in the mean", printed, re.M)


def test_a_pt_that_train_writes_is_plain_tensors_and_comes_back(places, trained, tmp_path):
    assert run("train", places, "--model_path", tmp_path / "mine.pt") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best_on_test_mine.pt", "mine.csv", "mine.pt"]
    mine, ours = torch.load(tmp_path / "mine.pt", weights_only=True), read_tensors(trained / LAST)
    assert mine.keys() == ours.keys() and all(torch.equal(mine[name], ours[name]) for name in ours)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_their_mbv3_saves_is_tested_under_the_name_that_they_gave_it(tmp_path, monkeypatch, capsys, suffix):
    from torchvision.models import mobilenet_v3_small

    monkeypatch.chdir(tmp_path)
    write_bars(tmp_path / "real", "cifar10", count=2)
    file = f"MBV3_syn_trained{suffix}"
    with torch.random.fork_rng(devices=[]):
        (torch.save if suffix == ".pt" else save_file)(mobilenet_v3_small(num_classes=10).state_dict(), file)
    words = f"--model MBV3 --model_path {file} --dataset cifar10 --real_data_location real"
    assert cli.main(["eval", *words.split()]) == 0
    assert "mobilenet_v3_small for 32 px; no record" in capsys.readouterr().out


def test_the_eval_that_train_prints_runs_with_their_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_bars(tmp_path / "syn", "cifar10", count=2)
    write_bars(tmp_path / "real", "cifar10", count=2, seed=1)
    words = "--model MBV3 --epoch 1 --dataset cifar10 --model_path saved_models/x.pt"
    assert cli.main(["train", *words.split(), "--syn_data_location", "syn", "--real_data_location", "real"]) == 0
    printed = re.search(r"synthlib (eval .*)", capsys.readouterr().out)[1]
    assert cli.main(printed.split()) == 0
    assert "mobilenet_v3_small for 32 px" in capsys.readouterr().out
    data = bytearray((tmp_path / "saved_models" / "x.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "saved_models" / "x.pt").write_bytes(data)
    assert cli.main(printed.split()) == 2
    assert "x.pt is not whole" in one_line(capsys)


def test_a_pickle_of_a_whole_module_is_refused(places, trained, tmp_path, capsys):
    torch.save(load_model(trained / LAST)[0], tmp_path / "module.pt")
    assert run("eval", places, "--model_path", tmp_path / "module.pt") == 2
    assert "more than plain tensors" in one_line(capsys)


def test_a_checkpoint_of_another_network_size_or_data_set_is_refused(places, trained, tmp_path, capsys):
    assert run("eval", places, "--model_path", trained / LAST, model="vit") == 2
    assert "holds architecture 'resnet'; expected 'vit'" in one_line(capsys)
    assert run("eval", places, "--model_path", trained, "--img_size", "64") == 2
    assert "32 px images; expected 64" in one_line(capsys)
    real = write_bars(tmp_path / "cifar", "cifar10", count=1)
    words = ["--model_path", str(trained / LAST), "--dataset", "cifar10", "--real_data_location", str(real)]
    assert cli.main(["eval", *words]) == 2
    assert "zero" in (said := one_line(capsys)) and "airplane" in said


def test_the_logits_give_every_printed_number_again(places, trained, tmp_path, capsys):
    assert run("eval", places, "--model_path", trained / LAST, "--logits", tmp_path / "logits.safetensors") == 0
    printed = capsys.readouterr().out
    logits = load_logits(tmp_path / "logits.safetensors")
    assert len(logits.labels) == 30 and logits.authors.shape == (5, 30, 10)
    for mode, values in (("eval", logits.eval), ("authors", logits.authors)):
        accuracy = accuracy_percent(values, logits.labels)
        _, low, high = wilson_interval(round(accuracy * 30 / 100), 30)
        marked = re.escape(" (chance?)" if low <= 10 <= high else "")
        assert re.search(
            rf"^{mode} +{accuracy:.2f} % \[{low:.2f}, {high:.2f}\]{marked}   chance 10.00 %", printed, re.M
        )


def test_top5_is_said_of_more_than_ten_classes(places, trained, tmp_path, capsys):
    real = write_bars(tmp_path / "real", "cifar100", count=1)
    torch.save(initial_model("resnet", 100, 32, 0).state_dict(), tmp_path / "new.pth")
    words = ["--model", "resnet", "--model_path", str(tmp_path / "new.pth"), "--dataset", "CIFAR100"]
    assert cli.main(["eval", *words, "--real_data_location", str(real)]) == 0
    said = capsys.readouterr().out
    assert said.count("top-5") == 2 and len(re.findall(r"chance 1.00 %   top-5 .* %   chance 5.00 %", said)) == 2
    assert run("eval", places, "--model_path", trained) == 0
    assert "top-5" not in capsys.readouterr().out


def test_classes_of_ones_own_train_and_are_tested(places, tmp_path, capsys):
    words = [
        "--model",
        "resnet",
        "--dataset",
        "own",
        "--real_data_location",
        str(places[1]),
        "--model_path",
        str(tmp_path),
    ]
    assert cli.main(["train", *words, "--syn_data_location", str(places[0]), "--epoch", "1"]) == 0
    assert read_record(tmp_path / LAST)["classes"] == sorted(read_spec("digits").classes)
    assert cli.main(["eval", *words]) == 0
    assert "own: 30 real test images" in capsys.readouterr().out


def test_classes_that_a_checkpoint_and_real_images_do_not_share_are_listed_from_both_sides(trained, tmp_path, capsys):
    names = sorted(read_spec("digits").classes)
    given = ["eval", "--dataset", "own", "--model_path", str(trained), "--real_data_location"]
    other = write_photographs(tmp_path / "other", [*names[1:], "nought", "ten"])
    assert cli.main([*given, str(other)]) == 2
    said = one_line(capsys)
    assert all(word in said for word in (names[0], "nought", "ten", LAST, str(other)))
    assert cli.main([*given, str(write_photographs(tmp_path / "more", [*names, "ten"]))]) == 0
    assert re.search(f"{LAST} does not know are left out: ten$", capsys.readouterr().out, re.M)
