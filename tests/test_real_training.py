"""Trained on generated images, tested on real ones: Stable Diffusion's pictures of CIFAR10's classes; and class orders."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from synthlib.data.datasets import read_spec
from synthlib.results.statistics import wilson_interval

DATA = Path(os.environ.get("SYNTHLIB_TEST_DATA", ROOT.parent / "shared" / "data"))
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images in {DATA} (SYNTHLIB_TEST_DATA)"),
]


def synthlib(root, *words):
    command = [sys.executable, "-m", "synthlib.cli", *map(str, words)]
    env = os.environ | {"SYNTHLIB_ROOT": str(root)}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def train_and_test(root, source, dataset, real, **training):
    """Import a packed set, train MobileNetV3-S on it by notebook 02, test it by notebook 03: the rows of results.csv."""
    synthlib(root, "import", source, root / "set", "--dataset", dataset)
    shared = {"dataset": dataset, "trick": "unknown", "architecture": "MBV3", "generated_dir": "set", "device": "cpu"}
    steps = {
        "02_train": {"run_dir": "trained", "protocol": "careful", **training},
        "03_eval": {"run_dir": "tested", "trained_dir": "trained", "real_dir": str(real), "measures": []},
    }
    for step, parameters in steps.items():
        (root / "parameters.json").write_text(json.dumps(shared | parameters))
        synthlib(root, "run", step, "--params", root / "parameters.json")
    return pd.read_csv(root / "tested" / "results.csv").set_index("evaluation_mode")


def test_mobilenet_learns_cifar10_from_stable_diffusion_alone(own_root):
    """CIFAKE: 15,000 images of Stable Diffusion v1.4, by prompts other than the paper's; chance is 10 %."""
    source, real = DATA / "cifake_sd14_15k.npz", DATA / "cifar10_real_test_5k.npz"
    rows = train_and_test(own_root, source, "cifar10", real, epochs=5)
    assert rows.index.tolist() == ["eval", "authors"]
    for mode in rows.index:
        row = rows.loc[mode]
        assert (row["n_train"], row["n_test"], row["n_steps"], row["images"]) == (15_000, 5_000, 5 * 235, "imported")
        found = wilson_interval(round(row["accuracy_percent"] * 50), 5_000)
        assert found.low > 20, (mode, found)
    assert (own_root / "tested" / "executed.ipynb").is_file()


@pytest.mark.parametrize(
    ("dataset", "file", "training", "above"),
    [
        ("cifar100", "cifar100_real_test_1k.npz", {"epochs": 12}, 3.5),
        ("eurosat", "eurosat_real_1500.npz", {"epochs": 5, "image_size": 64}, 30),
    ],
)
def test_real_subsets_go_through_the_test_path_in_their_class_order(own_root, dataset, file, training, above):
    """Trained on the very images that it is tested on: the number says nothing, but classes in another order give chance."""
    rows = train_and_test(own_root, DATA / file, dataset, DATA / file, learning_rate=2e-3, weight_decay=0, **training)
    classes = list(read_spec(dataset).classes)
    assert json.loads((own_root / "tested" / "classes.json").read_text()) == classes
    assert rows.loc["authors", "accuracy_percent"] > above  # chance: 1 and 10 %
    by_class = pd.read_csv(own_root / "tested" / "per_class.csv")
    assert by_class["class"].drop_duplicates().tolist() == classes
    assert rows["top5_percent"].notna().all() == (dataset == "cifar100")
