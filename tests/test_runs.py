"""Whole runs, each on a copy of the checkout: staleness, kills, repeatability, notebooks by hand, every result."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

pytestmark = pytest.mark.runs


def copy_checkout(folder):
    folder.mkdir(parents=True, exist_ok=True)
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("notebooks", "experiments", "synthlib", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore, symlinks=True)
    shutil.copy(ROOT / "Snakefile", folder / "Snakefile")
    return folder


def environment(root):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNTHLIB_")}
    return kept | {"PYTHONPATH": str(root)}


def synthlib(root, *words, check=True, **variables):
    """Run a command of the copy; its output as text, stderr after stdout."""
    command = [sys.executable, "-m", "synthlib.cli", *map(str, words)]
    done = subprocess.run(command, cwd=root, env=environment(root) | variables, capture_output=True, text=True)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def reproduce(root, *words):
    """The names of the steps that Snakemake brought up to date, and whether each one's notebook was executed."""
    before = executed(root)
    synthlib(root, "reproduce", "tiny", *words)
    return {name for name, when in executed(root).items() if before.get(name) != when}


def executed(root):
    """Step -> when its notebook was last executed."""
    pages = (root / "papermill_runs" / "tiny").glob("*/*/executed.ipynb")
    return {
        page.parent.relative_to(root / "papermill_runs" / "tiny").as_posix(): page.stat().st_mtime_ns for page in pages
    }


def files(root, *patterns):
    found = sorted(path for pattern in patterns for path in root.glob(pattern))
    assert found
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


TABLES = "figures/tiny/*.csv"
SHARDS = "papermill_runs/tiny/01_generate/*/*.parquet"
MODELS = "papermill_runs/tiny/02_train/*/*.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy of the checkout with a finished tiny run."""
    root = copy_checkout(tmp_path_factory.mktemp("finished") / "kit")
    synthlib(root, "reproduce", "tiny")
    return root


@pytest.fixture
def kit(finished, tmp_path):
    """A copy of `finished` to spoil."""
    shutil.copytree(finished, tmp_path / "kit", symlinks=True)
    return tmp_path / "kit"


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) >= 1, f"{old!r} is not in {path.name}"
    path.write_text(text.replace(old, new, 1))


def times(root, pattern):
    return {path.name: path.stat().st_mtime_ns for path in root.glob(pattern)}


GENERATED = {"01_generate/digits-class_prompt"}


def test_a_finished_run_runs_nothing_and_a_commit_alone_changes_nothing(kit):
    subprocess.run(["git", "init", "-q"], cwd=kit, check=True)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"]
    subprocess.run(git, cwd=kit, check=True)
    assert "nothing is run" in synthlib(kit, "reproduce", "tiny")
    assert "4 of 4 steps done" in synthlib(kit, "status", "tiny", "--verify")


def test_deleting_a_receipt_reruns_that_step_and_its_dependents_only_if_its_bytes_changed(kit):
    (kit / "papermill_runs/tiny/02_train/digits-class_prompt-resnet/receipt.json").unlink()
    assert "02_train/digits-class_prompt-resnet           missing" in synthlib(kit, "status", "tiny")
    assert reproduce(kit) == {"02_train/digits-class_prompt-resnet"}
    # and where the bytes do change, what depends on them runs too
    before = files(kit, SHARDS)
    edit(kit / "experiments/datasets/digits.yaml", "three: three", "three: collage")
    again = reproduce(kit)
    assert GENERATED | {"02_train/digits-class_prompt-resnet", "04_figures/all"} <= again
    after = files(kit, SHARDS)
    assert len(set(before) - set(after)) == 2  # the two shards that hold threes; the others stay
    assert {name: after.get(name) for name in set(before) & set(after)}.items() <= before.items()


def test_what_this_machine_lost_comes_back_from_the_mirror_and_is_not_run_again(kit, tmp_path):
    (drive := tmp_path / "drive").mkdir()
    assert "nothing is run" in synthlib(kit, "reproduce", "tiny", SYNTHLIB_MIRROR=str(drive))
    shutil.rmtree(kit / "papermill_runs")
    shutil.rmtree(kit / "figures")
    said = synthlib(kit, "reproduce", "tiny", SYNTHLIB_MIRROR=str(drive))
    assert f"came back from {drive}" in said and "nothing is run" in said


def test_a_markdown_cell_edited_runs_nothing(kit):
    edit(kit / "notebooks/01_generate.ipynb", "Edit them here", "Change them here")
    assert reproduce(kit) == set()


def test_a_plot_cell_edited_executes_01_again_and_draws_nothing(kit):
    shards = times(kit, SHARDS)
    edit(kit / "notebooks/01_generate.ipynb", "per_class=4", "per_class=2")
    assert "older code" in synthlib(kit, "status", "tiny")
    assert reproduce(kit) == GENERATED
    assert times(kit, SHARDS) == shards


def test_the_training_loop_edited_retrains_and_generates_nothing(kit):
    shards, models = times(kit, SHARDS), times(kit, MODELS)
    edit(kit / "synthlib/training/optimise.py", "math.cos(math.pi", "math.cos(0.9 * math.pi")
    again = reproduce(kit)
    assert {name.split("/")[0] for name in again} == {"02_train", "03_eval", "04_figures"}
    assert times(kit, SHARDS) == shards
    assert all(times(kit, MODELS)[name] != models[name] for name in models)


def test_a_docstring_of_the_sampler_draws_nothing_and_its_update_rule_draws_again(kit):
    sampler = kit / "synthlib/generation/sampler.py"
    shards, bytes_before = times(kit, SHARDS), files(kit, SHARDS)
    edit(sampler, "Draw a batch of images", "Draw some images")
    edit(sampler, "import torch\n", "import torch  # a comment\n")
    assert reproduce(kit) == set()
    assert times(kit, SHARDS) == shards
    edit(sampler, "without + scale *", "without + 0.5 * scale *")
    assert reproduce(kit) >= GENERATED
    after = files(kit, SHARDS)
    assert set(after.values()).isdisjoint(bytes_before.values())


@pytest.mark.parametrize("home", ["/proc/none", "read-only"])
def test_a_home_that_cannot_be_written_is_no_hindrance(tmp_path, home):
    if home == "read-only":
        home = tmp_path / "home"
        home.mkdir()
        (home / ".cache").write_text("")  # also root cannot make a folder of it
    root = copy_checkout(tmp_path / "kit")
    assert "11.1" in synthlib(root, "reproduce", "tiny", HOME=str(home), XDG_CACHE_HOME="not/absolute")


def test_keep_accepts_what_older_code_made_and_records_it(kit):
    edit(kit / "synthlib/generation/sampler.py", "without + scale *", "without + 0.5 * scale *")
    assert reproduce(kit, "--keep") == set()
    receipt = json.loads((kit / "papermill_runs/tiny/01_generate/digits-class_prompt/receipt.json").read_text())
    assert receipt["kept_from_code"]
    assert reproduce(kit) == set()


def test_long_older_work_is_not_redone_unasked(kit):
    for file in (kit / "papermill_runs/tiny/01_generate/digits-class_prompt").glob("*.key"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": 3600}))
    edit(kit / "synthlib/generation/sampler.py", "without + scale *", "without + 1.0 * scale *")
    said = synthlib(kit, "reproduce", "tiny", check=False)
    assert "--redo" in said and "--keep" in said and "Traceback" not in said
    before = files(kit, SHARDS)
    assert reproduce(kit, "--redo") == GENERATED  # drawn again to the same bytes, so nothing after it runs
    assert files(kit, SHARDS) == before


def test_more_images_later_keep_what_was_made(kit):
    before = files(kit, SHARDS)
    edit(kit / "experiments/tiny.yaml", "images_per_class: 4", "images_per_class: 8")
    assert reproduce(kit) >= GENERATED
    page = (kit / "papermill_runs/tiny/01_generate/digits-class_prompt/executed.ipynb").read_text()
    assert (
        "160 images: 80 drawn, 80 there already." in page
        and "Warning" not in page
        and set(files(kit, SHARDS)) != set(before)
    )


def test_one_cell_and_one_result_run_only_what_they_need(tmp_path):
    kit = copy_checkout(tmp_path / "kit")
    said = synthlib(kit, "reproduce", "smoke", "--only", "F1", "--dry-run")
    assert "6 of 6 steps would run" in said and "02_train" not in said
    said = synthlib(kit, "reproduce", "tiny", "--cell", "T1/digits/class_prompt/resnet")
    assert set(executed(kit)) == {f"{s}/digits-class_prompt{a}" for s, a in (
        ("01_generate", ""), ("02_train", "-resnet"), ("03_eval", "-resnet"))}  # fmt: skip
    assert "eval" in said and "authors" in said and "[" in said
    assert "Traceback" not in synthlib(kit, "reproduce", "tiny", "--cell", "T1/digits/class_promt/resnet", check=False)
    assert "| digits   | resnet       | class prompt " in synthlib(kit, "reproduce", "tiny", "--only", "T1")


def test_a_second_reproduction_from_scratch_gives_the_same_bytes(finished, tmp_path):
    kit = copy_checkout(tmp_path / "kit")
    synthlib(kit, "reproduce", "tiny", "--cores", "1")
    made = (TABLES, SHARDS, MODELS, "figures/tiny/*.md", "figures/tiny/*.tex")
    assert files(kit, *made) == files(finished, *made)


def test_kill_9_of_everything_at_random_moments_then_the_same_bytes(finished, tmp_path):
    kit = copy_checkout(tmp_path / "kit")
    moments = random.Random(64)
    for _ in range(5):
        command = [sys.executable, "-m", "synthlib.cli", "reproduce", "tiny"]
        engine = subprocess.Popen(
            command, cwd=kit, env=environment(kit), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(2, 12))
        family = [psutil.Process(engine.pid), *psutil.Process(engine.pid).children(recursive=True)]
        for process in family if engine.poll() is None else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        engine.wait()
    synthlib(kit, "reproduce", "tiny")
    assert files(kit, TABLES, SHARDS, MODELS) == files(finished, TABLES, SHARDS, MODELS)


LONG = {"run_dir": "papermill_runs/x/01_generate/a", "images_per_class": 400, "num_inference_steps": 40}


def start_long_generation(kit):
    """A driver at work on a long step, and the kernel that holds the step's lock."""
    (kit / "p.json").write_text(json.dumps(LONG))
    command = [sys.executable, "-m", "synthlib.cli", "run", "01_generate", "--params", "p.json"]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    driver = subprocess.Popen(command, cwd=kit, env=environment(kit), **streams)
    owner = wait_for(kit / LONG["run_dir"] / ".lock.owner")
    return driver, psutil.Process(int(json.loads(owner.read_text())["process"].split(":")[0]))


def test_an_orphaned_kernel_is_ended_by_the_next_run(tmp_path):
    kit = copy_checkout(tmp_path / "kit")
    driver, kernel = start_long_generation(kit)
    kernel.suspend()  # so that it cannot notice that its parent is gone
    driver.kill()
    driver.wait()
    (kit / "p.json").write_text(json.dumps(LONG | {"images_per_class": 3, "num_inference_steps": 2}))
    assert "done" in synthlib(kit, "run", "01_generate", "--params", "p.json")
    assert not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE


def wait_for(path, seconds=60):
    end = time.monotonic() + seconds
    while not path.exists() or not path.read_text().strip():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.1)
    return path


def test_a_killed_kernel_is_one_line_with_its_signal_and_memory(tmp_path):
    kit = copy_checkout(tmp_path / "kit")
    driver, kernel = start_long_generation(kit)
    kernel.send_signal(signal.SIGKILL)
    said = driver.communicate(timeout=60)[1].strip().splitlines()
    assert driver.returncode == 2
    assert "killed by signal 9, often out of memory; peak seen" in said[-1] and said[-1].startswith("synthlib: ")


def started(root, *words):
    """A command of the copy, running."""
    command = [sys.executable, "-m", "synthlib.cli", *map(str, words)]
    return subprocess.Popen(
        command, cwd=root, env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a CI in the background ignores Ctrl-C, and so would it
    )  # fmt: skip


RUN, REPRODUCE = ("run", "01_generate", "--params", "long.json"), ("reproduce", "tiny")


@pytest.mark.parametrize(
    ("words", "number", "code"),
    [
        (RUN, signal.SIGTERM, 143),
        (REPRODUCE, signal.SIGTERM, 143),
        (RUN, signal.SIGINT, 130),
        (REPRODUCE, signal.SIGINT, 130),
    ],
)
def test_sigterm_and_ctrl_c_end_a_run_after_the_block_in_work_and_the_next_goes_on(words, number, code, tmp_path):
    root = copy_checkout(tmp_path / "kit")
    given = {
        "images_per_class": 200,
        "num_inference_steps": 40,
        "batch_size": 5,
        "trick": "class_prompt",
        "device": "cpu",
    }
    folder = root / "papermill_runs" / "long"
    if words[0] == "run":
        (root / "long.json").write_text(json.dumps(given | {"run_dir": "papermill_runs/long"}))
    else:
        folder = root / "papermill_runs/tiny/01_generate/digits-class_prompt"
        file = root / "experiments" / "tiny.yaml"
        file.write_text(file.read_text().replace("images_per_class: 4, batch_size: 4, replicates: 2, num_inference_steps: 3",
                        "images_per_class: 200, batch_size: 5, replicates: 1, num_inference_steps: 40"))  # fmt: skip
        edit(file, "shard_rows: 20", "shard_rows: 1000")
    process = started(root, *words)
    while not (folder / "plan.json").is_file():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    time.sleep(6)  # the model is open by then, and 2,000 images are not drawn in it
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does it: to the command and all that it started
    else:
        process.terminate()
    said = process.communicate(timeout=60)[0]
    assert process.returncode == code, said
    why = "stopped by SIGTERM" if number == signal.SIGTERM else "interrupted"
    assert said.strip().splitlines()[-1].startswith(f"synthlib: {why}; what is finished is kept")
    there = [pq.read_metadata(path).num_rows for path in folder.glob("part-*.parquet")]
    assert len(there) == 1 and 0 < there[0] < 1000 and there[0] % 5 == 0
    assert not psutil.Process().children(recursive=True)
    if words[0] == "run":
        edit(root / "long.json", '"images_per_class": 200', '"images_per_class": 3')
        assert "01_generate: done" in synthlib(root, *words)
        done = json.loads((folder / "receipt.json").read_text())["outputs"]
        assert len([name for name in done if name.endswith(".parquet")]) == 1


@pytest.mark.parametrize(
    ("notebook", "params", "said"),
    [
        ("02_train", {"epoch": 3}, "did you mean 'epochs'"),
        ("02_train", {"architecture": "resnt"}, "did you mean resnet"),
        ("01_generate", {"trick": "multi_domian"}, "did you mean 'multi_domain'"),
        ("01_generate", {"images_per_class": -2}, "images_per_class is -2"),
        ("01_generat", {}, "did you mean '01_generate'"),
        ("03_eval", {}, "run notebooks/02_train.ipynb first"),
        ("01_generate", {"run_dir": "README.md/x"}, "cannot write"),
    ],
)
def test_bad_parameters_are_one_line(notebook, params, said, tmp_path):
    kit = copy_checkout(tmp_path / "kit")
    (kit / "README.md").write_text("a file")
    (kit / "p.json").write_text(json.dumps(params))
    command = [sys.executable, "-m", "synthlib.cli", "run", notebook, "--params", "p.json"]
    done = subprocess.run(command, cwd=kit, env=environment(kit), capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr.strip().splitlines()[-1]


def test_a_malformed_experiment_names_file_and_line(tmp_path):
    kit = copy_checkout(tmp_path / "kit")
    (kit / "experiments/odd.yaml").write_text("title: Odd\nresults: [T1\ndatasets: [digits]\n")
    said = synthlib(kit, "reproduce", "odd", check=False)
    assert "odd.yaml, line 3" in said and "Traceback" not in said
    edit(kit / "experiments/tiny.yaml", "datasets", "dataset")
    assert "did you mean 'datasets'" in synthlib(kit, "status", "tiny", check=False)
    assert "did you mean 'pocket'" in synthlib(kit, "reproduce", "poket", check=False)


def test_notebooks_run_by_hand_from_any_folder_in_order_with_their_defaults(tmp_path):
    kit = copy_checkout(tmp_path / "kit")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for notebook in ("01_generate", "02_train", "03_eval", "04_figures"):
        if notebook == "02_train":  # as the issue types it
            words = [str(kit / "notebooks" / f"{notebook}.ipynb"), "out.ipynb", "-p", "seed", "1"]
        else:
            words = [str(kit / "notebooks" / f"{notebook}.ipynb"), "out.ipynb"]
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "papermill", *words],
            cwd=elsewhere,
            env=environment(kit),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert time.monotonic() - start < 120
    assert (kit / "figures/interactive/accuracy_by_trick.csv").is_file()
    from pages import parse, wrong_numbers

    synthlib(kit, "report", "interactive")
    soup = parse(kit / "figures/interactive/report.html")
    assert wrong_numbers(soup, kit / "figures/interactive/results.csv") == [] and soup.select("#T1 td.number")
    assert len(soup.select("#gallery ~ .card figure")) > 10 and len(soup.select("#steps ~ details")) == 4


def test_a_notebook_run_too_early_names_the_one_to_run_first(tmp_path):
    kit = copy_checkout(tmp_path / "kit")
    command = [sys.executable, "-m", "papermill", str(kit / "notebooks/02_train.ipynb"), str(tmp_path / "out.ipynb")]
    done = subprocess.run(command, cwd=tmp_path, env=environment(kit), capture_output=True, text=True)
    assert done.returncode != 0
    assert "run notebooks/01_generate.ipynb first" in done.stderr


def test_smoke_makes_every_result_and_no_cell_is_empty(tmp_path):
    """Also: a result's file that is gone is made again by its step alone, and every number is in results.csv.

    And the page shows all of it, by numbers that are those of results.csv.
    """
    import pandas as pd
    import yaml
    from pages import parse, wrong_numbers

    kit = copy_checkout(tmp_path / "kit")
    synthlib(kit, "reproduce", "smoke")
    results = json.loads((kit / "papermill_runs/smoke/04_figures/all/receipt.json").read_text())["parameters"][
        "results"
    ]
    defined = yaml.safe_load((kit / "experiments/results.yaml").read_text())
    assert results == list(defined)
    figures = kit / "figures" / "smoke"
    for name, result in defined.items():
        suffixes = (
            {"csv", "md", "tex"} if name.startswith("T") else {"png", "pdf"} | ({"csv"} if name != "F1" else set())
        )
        made = {path.suffix[1:] for path in figures.glob(f"{result['file']}.*")}
        assert suffixes <= made, (name, made)
    assert all(path.stat().st_size > 0 for path in figures.iterdir())

    table = pd.read_csv(figures / "accuracy_by_trick.csv", keep_default_na=False)
    wanted = ["dataset", "trick", "architecture", "evaluation_mode", "accuracy_percent", "ci_low", "ci_high", "ci_method",
              "n_replicates", "n_generation_seeds", "n_training_seeds", "n_train", "n_test", "published_percent",
              "published_source"]  # fmt: skip
    assert set(wanted) <= set(table.columns)
    assert len(table) == 5 * 2 and (table[wanted].astype(str) != "").all().all()
    assert set(table["n_test"]) == {1197} and table["n_train"].nunique() == 1
    assert Path(figures / "sample_grid.png").stat().st_size > 10_000
    gap = pd.read_csv(figures / "domain_gap.csv")
    unrun = gap[gap["status"] != "run"]
    assert set(unrun["trick"]) == {"image_averaged", "image_interpolated"}
    assert set(unrun["status"]) == {"not run: no image-conditioned checkpoint"}
    clip = pd.read_csv(figures / "baselines.csv").query("method == 'CLIP zero-shot'")
    assert clip["status"].str.startswith("not run: weights absent").all() and clip["accuracy_percent"].isna().all()
    for name in ("claims", "protocol_effects", "beyond_the_paper"):
        assert (pd.read_csv(figures / f"{name}.csv")["status"].str.startswith("not run")).sum() == 0, name

    numbers = pd.read_csv(figures / "results.csv", low_memory=False)
    assert set(numbers["result"]) == set(defined) - {"F1"}  # which is pictures
    assert numbers.loc[numbers["quantity"] == "accuracy_percent", "run_dir"].notna().any()

    soup = parse(figures / "report.html")
    assert wrong_numbers(soup, figures / "results.csv") == []
    assert [card["id"] for card in soup.select("article.card")] == results
    for card in soup.select("article.card"):
        assert card.select(".figure img" if card["id"].startswith("F") else "td.number"), card["id"]
    captions = [caption.get_text(" ") for caption in soup.select("#gallery ~ .card figcaption")]
    assert len([text for text in captions if "guidance" in text and "seed" in text]) >= 10 * 5
    assert len(soup.select("#mistakes ~ .card figure")) == 20
    pages = {a["href"] for a in soup.select('a[href^="pages/"]')}
    assert len(pages) == len(list((kit / "papermill_runs/smoke").glob("*/*/receipt.json")))
    assert all((figures / page).is_file() for page in pages)

    lost = figures / "guidance.png"
    lost.unlink()
    before = {path: path.stat().st_mtime_ns for path in (kit / "papermill_runs/smoke").glob("*/*/executed.ipynb")}
    said = synthlib(kit, "status", "smoke")
    assert "output missing" in said and f"{len(before) - 1} of {len(before)} steps done" in said
    synthlib(kit, "reproduce", "smoke")
    again = {path.parent.name for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert lost.is_file() and again == {"all"}

    # Without it: what depends on it was not run, and nothing fails or is zero.
    for trick in ("merged", "random_guidance"):
        given = json.loads((kit / "papermill_runs/smoke/04_figures/all/receipt.json").read_text())["parameters"]
        given |= {"run_dir": f"papermill_runs/without/{trick}", "figures_dir": f"figures/without_{trick}"}
        for name in ("evaluated_dirs", "trained_dirs", "generated_dirs"):
            given[name] = [folder for folder in given[name] if not re.search(rf"/digits-{trick}(\+|-|$)", folder)]
        (kit / "without.json").write_text(json.dumps(given))
        synthlib(kit, "run", "04_figures", "--params", "without.json")
        less = kit / "figures" / f"without_{trick}"
        table = pd.read_csv(less / "accuracy_by_trick.csv")
        unrun = table[table["trick"] == trick]
        assert set(unrun["status"]) == {"not run: no evaluated folder was given for it"}
        assert unrun["accuracy_percent"].isna().all() and set(table[table["trick"] != trick]["status"]) == {"run"}
        claims = pd.read_csv(less / "claims.csv")
        assert claims[claims["trick"] == trick]["verdict"].str.startswith("not run").all()
        figures_there = {path.name for path in less.glob("*.png")}
        assert figures_there >= {path.name for path in figures.glob("*.png")} - {"sample_grid.png"}
