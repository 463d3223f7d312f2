"""The paper's tables from the authors' own images, end to end on small archives served on loopback; nothing is generated."""

import io
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from test_downloads import authors_archive, serve
from test_runs import copy_checkout

from synthlib.data.datasets import read_spec
from synthlib.data.hosted import HOSTED, hosted_name
from synthlib.inputs import InputError
from synthlib.names import FULL_SIZE, REAL_TRICKS
from synthlib.runs.experiment import read_experiment
from synthlib.runs.steps import parse_cell, plan_steps

NOT_HOSTED = {("cifar100", "class_prompt"), ("eurosat", "class_prompt"), ("eurosat", "multi_domain")}


def test_hosted_plans_every_set_of_the_twelve_and_generates_nothing():
    steps = plan_steps(read_experiment("hosted"))
    assert {step.notebook for step in steps} == {"02_train", "03_eval", "04_figures"}
    plain = [s for s in steps if s.notebook == "02_train" and "+" not in s.name and "/real" not in s.name]
    trained = {tuple(step.parameters[name] for name in ("dataset", "trick", "architecture")): step.parameters
               for step in plain if step.parameters["trick"] not in REAL_TRICKS}  # fmt: skip
    sets = {(hosted.dataset, hosted.trick): name for name, hosted in HOSTED.items()}
    assert {c[:2] for c in trained if c[2] == "resnet50"} == set(sets)
    both = {c for c in sets if c[1] in ("base_class", "merged")}
    assert set(trained) == {(*c, "resnet50") for c in sets} | {(*c, a) for c in both for a in FULL_SIZE}
    for (dataset, trick, _), parameters in trained.items():
        assert Path(parameters["generated_dir"]).name == sets[dataset, trick] == hosted_name(dataset, trick)
        assert (parameters["protocol"], parameters["replicates"], parameters["weight_decay"]) == ("authors", 3, 0.9)
    last = steps[-1].parameters
    said = [line for line in last["not_run"] if "merged_full" not in line]
    assert {tuple(line.split(": ")[0].split("/")[:2]) for line in said} == NOT_HOSTED
    assert all(line.endswith(": the authors host no such set") for line in last["not_run"])


@pytest.mark.parametrize("name", ["hosted", "paper"])
def test_ten_thousand_images_of_a_synthetic_cifar_set_are_held_out_as_by_the_authors_loader_and_no_others(name):
    for step in plan_steps(read_experiment(name)):
        given = step.parameters
        if step.notebook == "02_train":  # in F6 so many images of each class are learned from as it says
            held_out = given["dataset"] != "eurosat" and given["trick"] not in REAL_TRICKS
            held_out = held_out and given["images_per_class"] == 0
            assert given["unused_images"] == (10_000 if held_out else 0), step.name
            assert given["test_every"] == 5 and given["batch_size"] == 64, step.name


def test_what_the_paper_compares_learns_from_equal_numbers_of_images_in_equal_numbers_of_steps():
    steps = plan_steps(read_experiment("paper"))
    drawn = {step.run_dir: step.parameters for step in steps if step.notebook == "01_generate"}
    for dataset, n in (("cifar10", 50_000), ("cifar100", 50_000), ("eurosat", 27_000)):
        classes = len(read_spec(dataset).classes)
        for step in (step for step in steps if step.notebook == "02_train" and step.parameters["dataset"] == dataset):
            given = step.parameters
            if given["trick"] in REAL_TRICKS or "merged_full" in step.name:
                continue
            per_class = given["images_per_class"] or drawn[given["generated_dir"]]["images_per_class"]
            learned = classes * per_class - given["unused_images"]
            assert given["images_per_class"] or learned == n, step.name
            batches = math.ceil(learned / given["batch_size"]) * given["epochs"]
            assert batches == pytest.approx(50 * math.ceil(n / 64), rel=0.02), step.name


def test_a_cell_that_is_not_hosted_says_so():
    hosted = read_experiment("hosted")
    assert len(plan_steps(hosted, cell="T2/cifar10/merged/Vit-B")) == 2
    assert parse_cell("T2/cifar10/merged/vit_b", hosted) == ("cifar10", "merged", "vit_b")
    with pytest.raises(InputError, match="the authors host no such set"):
        plan_steps(hosted, cell="T1/eurosat/class_prompt/resnet50")
    with pytest.raises(InputError, match="unknown architecture of T1 in hosted 'vit_b'"):  # T1 is of ResNet50 only
        plan_steps(hosted, cell="T1/cifar10/merged/vit_b")


def small_real(folder, dataset, size, per_class=2):
    """A packed .npz of real images, that tell their class by their colour."""
    classes = list(read_spec(dataset).classes)
    images = []
    for label in range(len(classes)):
        for number in range(per_class):
            file = io.BytesIO()
            Image.new("RGB", (size, size), (label, number + 1, 200)).save(file, "PNG")
            images.append(file.getvalue())
    np.savez(
        folder / f"{dataset}.npz",
        encoded=np.frombuffer(b"".join(images), np.uint8),
        offsets=np.cumsum([0, *map(len, images)]),
        labels=np.repeat(np.arange(len(classes)), per_class),
        class_names=np.array(classes),
    )
    return str(folder / f"{dataset}.npz")


@pytest.mark.runs
def test_the_tables_of_the_paper_from_small_archives(tmp_path, record_server):
    root = copy_checkout(tmp_path / "copy")
    for name in HOSTED:
        serve(record_server, name, authors_archive(name, per_class=2))
    file = root / "experiments" / "hosted.yaml"
    content = yaml.safe_load(file.read_text())
    # those that two images a class, and no weights from a hub, are enough for
    content["results"] = ["T1", "T2", "T4", "F1", "F2", "F3", "F8", "F9", "F10"]
    content["architectures"] = {"T2": ["MBV3", "vit"], "others": ["MBV3"]}
    content["train"] |= {"epochs": 1, "replicates": 2, "image_size": 32, "device": "cpu"}
    content["evaluate"] = {"shuffles": 2, "device": "cpu"}
    del content["by_trick"]
    sizes = {"cifar10": 32, "cifar100": 32, "eurosat": 64}
    real = {dataset: {"real_dir": small_real(tmp_path, dataset, size)} for dataset, size in sizes.items()}
    content["by_dataset"] = {dataset: {"train": given, "evaluate": given} for dataset, given in real.items()}
    file.write_text(yaml.safe_dump(content))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNTHLIB_")}
    kept |= {"PYTHONPATH": str(root), "SYNTHLIB_ZENODO": record_server.address}
    command = [sys.executable, "-m", "synthlib.cli", "reproduce", "hosted"]
    done = subprocess.run(command, cwd=root, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    table = pd.read_csv(root / "figures/hosted/accuracy_by_trick.csv")
    run = table[table["status"] == "run"]
    ran = set(map(tuple, run[["dataset", "trick"]].drop_duplicates().to_numpy()))
    assert ran == {(hosted.dataset, hosted.trick) for hosted in HOSTED.values()}
    assert set(run["architecture"]) == {"mobilenet_v3_small"}  # though T2 has another one too
    assert set(run["evaluation_mode"]) == {"eval", "authors", "authors_best"} and set(run["images"]) == {"hosted"}
    assert (run["n_replicates"] == 2).all() and (run["n_generation_seeds"] == 1).all()
    assert run["ci_method"].str.contains("training seeds only").all()
    missing = table[table["status"] == "not run: the authors host no such set"]
    assert set(map(tuple, missing[["dataset", "trick"]].to_numpy())) == NOT_HOSTED
    assert dict(zip(run["dataset"], run["n_test"], strict=True)) == {"cifar10": 20, "cifar100": 200, "eurosat": 20}
    assert run[run["dataset"] == "cifar100"]["top5_percent"].notna().all()  # 100 classes
    figures = {path.name for path in (root / "figures/hosted").glob("*.png")}
    assert figures >= {f"{name}_{dataset}.png" for name in ("confusion", "sample_grid") for dataset in sizes}
    claims = pd.read_csv(root / "figures/hosted/claims.csv")
    unhosted = claims[(claims["dataset"] == "eurosat") & claims["trick"].isin(["class_prompt", "multi_domain"])]
    assert len(unhosted) == 4 and unhosted["verdict"].str.contains("the authors host no such set").all()
    assert set(claims["dataset"]) == set(sizes)
    pairs = pd.read_csv(root / "figures/hosted/base_against_merged.csv")
    assert set(pairs["dataset"]) == set(sizes) and (pairs["n_pairs"] == 2).all()
    again = subprocess.run(command, cwd=root, env=kept, capture_output=True, text=True)
    assert "nothing is run" in again.stdout
