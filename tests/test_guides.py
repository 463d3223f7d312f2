"""Every command of a guide is typed as it stands there, in order, in one folder; what is not says why."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image
from test_downloads import png, serve
from test_exchange import write_folder
from test_runs import copy_checkout

from synthlib.data.datasets import read_spec
from synthlib.data.real import load_real
from synthlib.data.shards import load_shards, read_shards

BLOCK = re.compile(r"(?P<reason><!--[^>]*-->\n)?```(?P<kind>bash|python)\n(?P<text>.*?)```", re.S)


def blocks(page):
    """(kind, text, why it is not run or "") of each block of commands."""
    found = [(m["kind"], m["text"], m["reason"] or "") for m in BLOCK.finditer((ROOT / "docs" / page).read_text())]
    assert len(found) == (ROOT / "docs" / page).read_text().count("\n```") // 2, "a block of another kind"
    return found


def type_all(page, root, **environment):
    """Run a page's blocks in `root`; everything that they printed."""
    bin_dir = Path(sys.executable).parent
    env = os.environ | {"PATH": f"{bin_dir}:{os.environ['PATH']}", "SYNTHLIB_ROOT": str(root)} | environment
    said = ""
    for kind, text, reason in blocks(page):
        if reason:
            assert re.fullmatch(r"<!-- not run [^:]*: .+-->\n", reason), reason
            continue
        command = ["bash", "-euo", "pipefail", "-c", text] if kind == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
        said += done.stdout
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return said


@pytest.mark.runs
def test_the_guide_to_exchanging_sets(own_root, record_server):
    serve(record_server, "cifar10_generated_class_prompt_32A")
    write_folder(own_root / "my_images", {"cat": 3, "dog": 2})
    encoded = [png(32, label, 0, "RGB") for label in range(10)]
    np.savez(
        own_root / "my_cifar.npz",
        encoded=np.frombuffer(b"".join(encoded), np.uint8),
        offsets=np.cumsum([0, *map(len, encoded)]),
        labels=np.arange(10),
        class_names=np.array(list(read_spec("cifar10").classes)),
    )
    said = type_all("exchange.md", own_root, HF_HOME=str(own_root / "cache"))
    assert "Fetching cifar10_generated_class_prompt_32A.tar.gz" in said
    assert (own_root / "papermill_runs/hosted/02_train/receipt.json").is_file()
    assert "['seven', 'three'] 12" in said  # ImageFolder and EuroSAT
    assert "['three', 'seven']" in said  # Hugging Face, and the .npz
    assert "own-class_prompt-three-r0-000000: same pixels" in said
    assert Image.open(own_root / "digits.png").width > 300 and Image.open(own_root / "redrawn.png").size == (32, 32)
    assert (own_root / "digits.json").is_file() and not list(own_root.glob("*.part"))


def own_experiments(root):
    """The checkout's experiments as a folder of one's own, where a guide may add one."""
    (root / "experiments").unlink()
    shutil.copytree(ROOT / "experiments", root / "experiments")


@pytest.mark.runs
def test_the_guide_to_own_data(own_root):
    own_experiments(own_root)
    real = load_real("digits", "test", classes=["three", "seven", "eight"])
    for number, (image, label) in enumerate(zip(real.images, real.labels, strict=True)):
        folder = own_root / "my_photos" / real.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).resize((32 + number % 3,) * 2).save(folder / f"{number}.png")
    said = type_all("own_data.md", own_root)
    table = pd.read_csv(own_root / "figures/three_classes/accuracy_by_trick.csv")
    run = table[table["status"] == "run"]
    assert (run["n_test"] == len(real.labels)).all() and set(run["trick"]) == {"base_class", "multi_domain"}
    assert set(table["status"]) == {"run", "not run: this experiment leaves it out"}
    assert "my_models/trained_model.safetensors" in said
    rows = pd.read_csv(own_root / "papermill_runs/mine/03_eval/results.csv")
    assert rows["n_test"].unique().tolist() == [len(real.labels)] and rows["training_seed"].nunique() == 3


@pytest.mark.runs
def test_the_guide_to_a_new_trick(tmp_path):
    """Its edits fit the code as it is today, and the trick goes all the way to its row."""
    root = copy_checkout(tmp_path / "kit")
    said = type_all("add_a_trick.md", root, PYTHONPATH=str(root))
    table = pd.read_csv(root / "figures/cads/beyond_the_paper.csv")
    run = table[table["status"] == "run"]
    assert set(run["trick"]) == {"base_class", "cads"} and run["n_train"].nunique() == 1 and "cads" in said
    without = """if True:
        from synthlib.generation import paint
        from synthlib.generation.generate import generate, open_plan
        from synthlib.receipts import settings_of
        from dataclasses import replace
        paint.annealed = lambda text, seeds, steps: text
        generate(open_plan(replace(settings_of("papermill_runs/cads/01_generate/digits-cads"), run_dir="plain")))
        """
    kept = {"PYTHONPATH": str(root), "SYNTHLIB_ROOT": str(root)}
    subprocess.run([sys.executable, "-c", without], cwd=root, env=os.environ | kept, check=True)
    annealed = read_shards(root / "papermill_runs/cads/01_generate/digits-cads")
    plain = load_shards(sorted((root / "plain").glob("*.parquet")))
    assert plain.column("seed").tolist() == annealed.column("seed").tolist()  # the same rows, and other pixels
    assert (plain.images != annealed.images).flatten(1).any(1).all()


@pytest.mark.runs
def test_the_guide_to_training(own_root):
    said = type_all("training.md", own_root)
    rows = pd.read_csv(own_root / "papermill_runs/base/03_eval/results.csv")
    assert set(rows["trick"]) == {"few_shot"} and (rows["n_train"] == 50).all() and rows["replicate"].nunique() == 3
    assert "02_train/cifar10-base_class-resnet50" in said and "cifar10_generated_merged_32A" in said
    assert "glyph" in said and list(own_root.glob("papermill_runs/baselines/referee/*/label_noise.csv"))
