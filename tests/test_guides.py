"""Every command of a guide is typed as it stands there, in order, in one folder; what is not says why."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image
from test_authors_commands import write_bars
from test_downloads import png, serve
from test_exchange import write_folder
from test_runs import copy_checkout
from tiny_models import write_tiny_sd, write_tiny_sdxl, write_tiny_single_file

from synthlib.cli import _parser
from synthlib.data.datasets import read_spec
from synthlib.data.real import load_real
from synthlib.data.shards import load_shards, read_shards

BLOCK = re.compile(r"(?P<marks>(?:<!--[^>]*-->\n)*)```(?P<kind>bash|python)\n(?P<text>.*?)```", re.S)
# Before a block: why it is not run, or why the lines that begin with some words are not.
MARK = re.compile(r"<!-- not run (?:here|in the tests of this page)(?:, (?P<line>[^:]+))?: \S.+ -->")
PAGES = {path.name: path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}


def blocks(text):
    """(kind, what is to be typed of it) of each block of commands; without what is marked, and what CI types by itself."""
    in_ci = re.findall(r"^stage (make .+)$", (ROOT / ".ci" / "run").read_text(), re.M)
    found = list(BLOCK.finditer(text))
    assert len(found) == len(re.findall(r"^ *```", text, re.M)) // 2, "a block of another kind"
    for block in found:
        kept = [line for line in block["text"].splitlines() if line.partition("#")[0].strip() not in in_ci]
        for comment in block["marks"].splitlines():
            mark = MARK.fullmatch(comment)
            assert mark, f"{comment} is no mark; expected <!-- not run here: why -->"
            rest = [line for line in kept if mark["line"] and not line.startswith(mark["line"])]
            assert len(rest) < len(kept), f"{comment} marks nothing"
            kept = rest
        yield block["kind"], "\n".join(kept).strip()


def not_accounted_for(page, text):
    """The blocks of a page that nothing types, marks, or runs in CI."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    typed = re.findall(r'type_all\("([^"]+)"', tests)
    return [block for _, block in blocks(text) if block and page not in typed]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_typed_by_a_test_or_says_why_not(page):
    assert not_accounted_for(page, PAGES[page].read_text()) == []


def test_a_command_that_nobody_types_is_found():
    new = "```bash\nsynthlib new\nmake reproduce   # in .ci/run\n```\n"
    assert not_accounted_for("new.md", new) == ["synthlib new"]
    assert not_accounted_for("new.md", f"<!-- not run here, synthlib new: it is new -->\n{new}") == []
    assert not_accounted_for("new.md", f"<!-- not run here: it is new -->\n{new}") == []
    assert not_accounted_for("new.md", "```bash\nmake test\n```\n") == []
    for wrong in ("<!-- not run here -->", "<!-- later -->", "<!-- not run here, synthlib old: it is old -->"):
        with pytest.raises(AssertionError, match="is no mark|marks nothing"):
            not_accounted_for("new.md", f"{wrong}\n{new}")
    with pytest.raises(AssertionError, match="another kind"):
        not_accounted_for("new.md", "```sh\nls\n```\n")


@pytest.mark.parametrize("page", PAGES)
def test_a_command_within_a_sentence_is_one_that_the_kit_has(page):
    prose = " ".join(re.sub(r"```.*?```", "", PAGES[page].read_text(), flags=re.S).split())
    for kind, words in re.findall(r"`(synthlib|make) ([^`]+)`", prose):
        if kind == "make":
            assert re.search(rf"^{words}:", (ROOT / "Makefile").read_text(), re.M), words
        elif " " in words:
            _parser().parse_args(shlex.split(words))  # ends the test where it understands them not
        else:
            with pytest.raises(SystemExit) as told:  # its help
                _parser().parse_args([words, "--help"])
            assert told.value.code == 0, words


def test_the_readme_leads_to_every_guide():
    text = PAGES["README.md"].read_text()
    assert [page for page in PAGES if page != "README.md" and f"(docs/{page})" not in text] == []


def type_all(page, root, **environment):
    """Run a page's blocks in `root`; everything that they printed."""
    bin_dir = Path(sys.executable).parent
    env = os.environ | {"PATH": f"{bin_dir}:{os.environ['PATH']}", "SYNTHLIB_ROOT": str(root)} | environment
    said = ""
    for kind, text in blocks(PAGES[page].read_text()):
        command = ["bash", "-euo", "pipefail", "-c", text] if kind == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
        said += done.stdout
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return said


def with_finished_runs(root, *names):
    """What `make reproduce` left of some experiments or steps in the checkout, so that it is not made again."""
    for path in [Path(home, name) for name in names for home in ("papermill_runs", "figures")]:
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, root / path)


def with_reference(root):
    """The committed runs, where a page reads them."""
    (root / "figures").mkdir()
    (root / "figures" / "reference").symlink_to(ROOT / "figures" / "reference")


@pytest.mark.runs
def test_the_readme(own_root, record_server):
    with_reference(own_root)
    with_finished_runs(own_root, "pocket")
    subprocess.run([sys.executable, "-m", "synthlib.cli", "reproduce", "pocket"], cwd=own_root, check=True)
    serve(record_server, "cifar10_generated_merged_32A")
    write_folder(own_root / "my_images", {"cat": 3, "dog": 2})
    write_bars(own_root / "data" / "cifar10", "cifar10", count=2)  # stands for the real images
    said = type_all("README.md", own_root, HF_HOME=str(own_root / "cache"))
    assert (own_root / "figures/pocket_full/reference.html").is_file()
    assert "All 6 steps are done; nothing is run." in said and "60.5, authors' README" in said
    assert "images in my_digits/<class>/" in said and "cifar10_generated_merged_32A is in data" in said
    assert (own_root / "saved_models/best_on_test_model.safetensors").is_file() and "authors mode" in said
    assert "steps would run" in said


@pytest.mark.runs
def test_the_guide_to_one_cell(own_root):
    with_finished_runs(own_root, "smoke")
    said = type_all("one_cell.md", own_root)
    assert "6 of 6 steps would run" in said and "digits    resnet        base class" in said
    assert "synthlib reproduce pocket_full --cell T2/digits/merged/vit" in said
    steps = {path.parent.name for path in (own_root / "papermill_runs/smoke").rglob("receipt.json")}
    assert {"digits-base_class", "digits-base_class-resnet"} <= steps


@pytest.mark.runs
def test_the_guide_from_a_number_to_its_image(own_root):
    """Its blocks compute each number from the one before it, and assert that they are the same."""
    with_reference(own_root)
    cell = "digits-base_class"
    with_finished_runs(own_root, *(f"pocket/{step}" for step in (
        f"01_generate/{cell}", f"02_train/{cell}-resnet", f"03_eval/{cell}-resnet")))  # fmt: skip
    said = type_all("how_a_number_comes_to_be.md", own_root)
    assert "digits-base_class-three-r0-000000: same pixels" in said and "300 images for replicate 0" in said
    assert Image.open(own_root / "three_again.png").size == (32, 32)
    assert {path.name for path in (own_root / "papermill_runs/pocket/03_eval").iterdir()} == {f"{cell}-resnet"}


def tiny_models(folder):
    """models/: a small Stable Diffusion of 64 pixels as a folder and as a single file, and an SDXL."""
    write_tiny_sd(folder / "my_sd", width=32)
    config = folder / "my_sd/unet/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": 8}))
    (folder / "single").mkdir()
    write_tiny_single_file(folder / "my_sd", folder / "single/my_sd.safetensors")
    shutil.copytree(folder / "my_sd/tokenizer", folder / "single/tokenizer")
    write_tiny_sdxl(folder / "my_sdxl")


@pytest.mark.runs
def test_the_guide_to_another_generator(own_root):
    own_experiments(own_root)
    tiny_models(own_root / "models")
    said = type_all("another_generator.md", own_root)
    assert "my_sd and my_sd.safetensors drew the same 8 images" in said and "EulerDiscreteScheduler" in said
    assert "points" in said
    drew = {}
    for name in ("with_mine", "with_embedded"):
        drew[name] = read_shards(own_root / f"papermill_runs/{name}/01_generate/digits-base_class")
    assert {str(images.column("model")[0]) for images in drew.values()} == {"my_sd", "synthlib/pocket"}
    assert (drew["with_mine"].column("seed") == drew["with_embedded"].column("seed")).all()


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


def far_above_chance(rows, eval_above=45):
    """Of three classes, in the mean of each condition: here 60 and more; last bits move a mean by a few points."""
    means = rows.groupby([name for name in ("trick", "evaluation_mode") if name in rows])["accuracy_percent"].mean()
    modes = means.index.get_level_values("evaluation_mode")
    assert set(modes) == {"eval", "authors"}
    assert (means[modes == "eval"] > eval_above).all() and (means[modes == "authors"] > 55).all(), means


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
    assert (run["n_replicates"] == 4).all() and (run["chance_percent"].round(1) == 33.3).all()
    far_above_chance(run)
    assert (run["n_test"] == len(real.labels)).all() and set(run["trick"]) == {"base_class", "multi_domain"}
    assert set(table["status"]) == {"run", "not run: this experiment leaves it out"}
    assert "my_models/trained_model.safetensors" in said
    assert "Next: synthlib train" in said and "Next: synthlib run 03_eval" in said  # each says what comes after it
    assert "Rows: papermill_runs/mine/03_eval/results.csv" in said and "chance %" in said
    lines = dict(re.findall(r"^(eval|authors) +([\d.]+) % \[.*\]   chance 33.33 %", said, re.M))
    far_above_chance(
        pd.DataFrame({"evaluation_mode": lines.keys(), "accuracy_percent": map(float, lines.values())}), 39
    )
    named = pd.read_csv(own_root / "papermill_runs/house_numbers/03_eval/house_numbers-multi_domain-resnet/results.csv")
    assert (named["dataset"] == "house_numbers").all() and (named["n_test"] == len(real.labels)).all()
    assert (named["n_train"] == 180).all() and named["replicate"].nunique() == 4
    far_above_chance(named)
    rows = pd.read_csv(own_root / "papermill_runs/mine/03_eval/results.csv")
    assert rows["n_test"].unique().tolist() == [len(real.labels)] and rows["training_seed"].nunique() == 4
    far_above_chance(rows)


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
