"""Several jobs and several calls on one set of runs: parts of a set, GPUs of their own, nothing done twice."""

import os
import signal
import subprocess
import sys
import venv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from test_runs import copy_checkout, edit, environment, files, synthlib

from synthlib import cli, paths, receipts
from synthlib.files import read_json, write_json
from synthlib.generation.generate import generate, open_plan
from synthlib.inputs import InputError
from synthlib.locks import process_id
from synthlib.runs import engine, graph, reproduce
from synthlib.runs.experiment import read_experiment
from synthlib.runs.reproduce import Means
from synthlib.runs.steps import plan_steps
from synthlib.settings import part_numbers

SHARDS = "papermill_runs/*/01_generate/*/*.parquet"
RESULTS = ("papermill_runs/*/03_eval/*/results.csv", "figures/*/*.csv")


def sha256_of(files):
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture
def small(settings, tmp_path):
    """Settings of a set of five shards."""
    given = {
        "classes": ["one", "two"],
        "images_per_class": 5,
        "num_inference_steps": 2,
        "batch_size": 2,
        "shard_rows": 2,
    }
    return settings("01_generate", trick="base_class", device="cpu", **given)


def parts_of(whole, number):
    return [
        replace(whole, run_dir=f"{whole.run_dir}/{place}", set_dir=whole.run_dir, part=f"{place}/{number}")
        for place in range(1, number + 1)
    ]


def test_a_set_in_parts_is_the_set(small, tmp_path, capsys):
    alone = replace(small, run_dir=str(tmp_path / "alone"))
    wanted = sha256_of(generate(open_plan(alone)))
    made = [generate(open_plan(part)) for part in reversed(parts_of(small, 3))]
    assert [len(part) - 1 for part in made] == [1, 2, 2]  # five shards, each in one part, and the plan
    assert sorted(path for part in made for path in part[:-1]) == generate(open_plan(small))[:-1]
    assert capsys.readouterr().out.splitlines()[-1] == "10 images: 0 drawn, 10 there already."
    assert sha256_of(generate(open_plan(small))) == wanted


def test_a_part_leaves_shards_of_another_layout_for_the_others_to_copy(small, capsys):
    generate(open_plan(small))
    layout = replace(small, shard_rows=5)
    for part in parts_of(layout, 2):
        generate(open_plan(part))
    generate(open_plan(layout))
    assert "drawn" in (said := capsys.readouterr().out) and said.count(" 0 drawn") == 3
    assert len(list(paths.resolve(small.run_dir).glob("shard-*.parquet"))) == 2


def test_shards_of_other_guidance_do_not_stay_when_parts_replace_them(small):
    generate(open_plan(small))
    other = replace(small, guidance_scale=3.0, replace=True)
    for part in parts_of(other, 2):
        generate(open_plan(part))
    kept = generate(open_plan(other))[:-1]
    assert sorted(paths.resolve(small.run_dir).glob("shard-*.parquet")) == kept


def test_a_part_that_is_none_is_one_line(small):
    assert part_numbers("") == (1, 1) and part_numbers("3/8") == (3, 8)
    for wrong in ("0/2", "3/2", "1/0", "half", "1/2/3", "-1/2"):
        with pytest.raises(InputError, match="part is .*; expected such a part as 3/8"):
            part_numbers(wrong)
    with pytest.raises(InputError, match="set_dir is ''; expected the set's folder"):
        replace(small, part="1/2")
    with pytest.raises(InputError, match="part 6/6 of .* has no shards"):
        generate(open_plan(parts_of(small, 6)[-1]))


def test_sets_are_cut_into_parts_but_for_those_that_copy(own_root):
    steps = plan_steps(read_experiment("pocket"))
    cut = {step.name: step for step in graph.in_parts(steps, 64)}
    shards = -(-300 * 5 // 1000)
    assert cut["01_generate/digits-base_class"].after == tuple(
        f"01_generate/digits-base_class/{place}-of-{shards}" for place in range(1, shards + 1)
    )
    assert not any(name.startswith("01_generate/digits-merged/") for name in cut)
    assert set(cut["01_generate/digits-merged"].after) == {
        f"01_generate/digits-{part}" for part in ("class_prompt", "multi_domain", "random_guidance")
    }
    assert graph.in_parts(steps, 1) == steps
    again = graph.in_parts(list(cut.values()), 64)
    assert [step.name for step in again if step.name.count("/") > 2] == []  # a part has no parts
    part = cut[f"01_generate/digits-base_class/1-of-{shards}"]
    whole = next(step for step in steps if step.name == "01_generate/digits-base_class")
    assert part.parameters | {"part": "", "set_dir": "", "run_dir": whole.run_dir} == whole.parameters


def test_what_a_profile_says_and_a_person_says_otherwise(own_root, monkeypatch):
    profile = own_root / "mine"
    profile.mkdir()
    (profile / "config.yaml").write_text("executor: slurm\nconfig: [parts=8]\njobs: 3\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setattr("synthlib.gpus._models", dict)
    steps = plan_steps(read_experiment("tiny"))
    on_gpus = [replace(step, parameters=step.parameters | {"device": "auto"}) for step in steps]

    def launch(means, steps=on_gpus):
        return reproduce.launch_by(means, steps)

    found = launch(Means(str(profile)))
    assert (found.options, found.parts, found.said) == (["--profile", str(profile)], 8, "by slurm")
    own = launch(Means(str(profile), cores=4, parts=2))
    assert own.options == [*found.options, "--cores", "4"] and own.parts == 2
    with pytest.raises(InputError, match="--gpus is 'all'; expected none with executor slurm"):
        launch(Means(str(profile), gpus="all"))
    with pytest.raises(InputError, match="unknown profile 'slrm'; did you mean 'slurm'"):
        launch(Means("slrm"))
    found = launch(Means(cores=4))
    assert found.options[-4:] == ["--cores", "4", "--resources", "gpu=3"]
    assert (found.parts, found.said) == (3, "on 4 cores and 3 GPUs")
    found = launch(Means(gpus="0,2"))
    assert found.options[-1] == "gpu=2" and found.parts == 2 and found.environment["CUDA_VISIBLE_DEVICES"] == "0,2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launch(Means()).options[-1] == "gpu=1"  # one step at a time that would take a GPU if there were one


def test_gpus_are_looked_for_only_if_a_step_wants_one(own_root, monkeypatch):
    steps = plan_steps(read_experiment("tiny"))
    monkeypatch.setattr("synthlib.gpus._models", lambda: {"GPU-a": "NVIDIA H100", "GPU-b": "NVIDIA T400"})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert reproduce.launch_by(Means(), steps).parts == 1
    with pytest.raises(InputError, match="several models"):
        reproduce.launch_by(Means(), [replace(steps[0], parameters=steps[0].parameters | {"device": "auto"})])


@pytest.mark.parametrize("wrong", ["parts=8", "{parts: 8}", "[parts=eight]", "[other=1]"])
def test_a_malformed_profile_is_one_line(own_root, wrong):
    (own_root / "mine").mkdir()
    (own_root / "mine" / "config.yaml").write_text(f"executor: slurm\nconfig: {wrong}\n")
    with pytest.raises(InputError, match=r"config is .*; expected nothing, or such as \[parts=8\]"):
        reproduce.launch_by(Means(str(own_root / "mine")), [])


def left_by_a_dead_call(home, name, **given):
    """The folder of a call whose caller has ended, as that left it."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    process = process_id(dead.pid)
    dead.wait()
    call = graph._caller() | {"process": process, "engine": "", "jobs_elsewhere": False} | given
    write_json(home / name / graph.CALL, call)
    return home / name


def test_what_dead_calls_left_is_tidied_and_that_of_live_ones_and_of_others_is_not(own_root):
    steps = plan_steps(read_experiment("tiny"))
    mine = graph.open_engine(home := own_root / ".engine", steps)
    left_by_a_dead_call(home, "dead")
    others = {
        "elsewhere": {"machine": "elsewhere"},
        "of another": {"user": "another"},
        "remote": {"jobs_elsewhere": True},
    }
    kept = {left_by_a_dead_call(home, name, **given).name for name, given in others.items()}
    assert not mine.ended(steps[0])
    (mine.folder / "still at work").touch()
    graph._tidy(home)
    assert {folder.name for folder in home.iterdir()} == {mine.folder.name, *kept}
    assert (mine.folder / "still at work").is_file()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_snakemake_whose_caller_died_is_told_to_end_and_keeps_its_folder_until_then(own_root, elsewhere):
    steps = plan_steps(read_experiment("tiny"))
    snakemake = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    left = left_by_a_dead_call(own_root / ".engine", "left", jobs_elsewhere=elsewhere)
    graph.Engine(left, steps).started(snakemake.pid)
    graph.open_engine(own_root / ".engine", steps)
    assert left.is_dir() and snakemake.wait(timeout=20) == -signal.SIGTERM
    graph.open_engine(own_root / ".engine", steps)
    assert left.exists() == elsewhere  # these jobs may outlive it


def test_calls_share_no_file_of_parameters(own_root):
    steps = plan_steps(read_experiment("tiny"))
    first = graph.open_engine(own_root / "first", steps)
    edited = [replace(step, parameters=step.parameters | {"seed": 7}) for step in steps]
    graph.open_engine(own_root / "second", edited)
    spec = read_json(first.folder / graph.GRAPH)["steps"][steps[0].name]["spec"]
    assert read_json(Path(spec))["parameters"] == steps[0].parameters


@pytest.mark.parametrize(
    ("means", "said"),
    [
        (Means("slrum"), "unknown profile 'slrum'; did you mean 'slurm'"),
        (Means(gpus="all"), "there is no GPU here"),
        (Means(cores=-3), "--cores is -3, --parts 0; expected numbers of at least 1"),
        (Means(parts=-1), "--cores is 0, --parts -1; expected numbers of at least 1"),
    ],
)
def test_wrong_means_are_refused_though_all_is_done(own_root, monkeypatch, means, said):
    experiment = read_experiment("tiny")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(reproduce, "states", lambda steps: dict.fromkeys((step.name for step in steps), "done"))
    assert not reproduce.reproduce(experiment, steps := plan_steps(experiment), Means())
    with pytest.raises(InputError, match=said):
        reproduce.reproduce(experiment, steps, means)


def test_a_slurm_that_does_not_answer_is_one_line(own_root, monkeypatch):
    (own_root / "sinfo").write_text("#!/bin/sh\necho 'sinfo: fatal: no configuration source' >&2\nexit 1\n")
    (own_root / "sinfo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{own_root}{os.pathsep}{os.environ['PATH']}")
    experiment = read_experiment("tiny")
    with pytest.raises(
        InputError, match="Slurm does not answer here .sinfo: fatal: no configuration source.; expected"
    ):
        reproduce.reproduce(experiment, plan_steps(experiment), Means("slurm"))


def python_with(folder, *modules):
    """A Python that has nothing but some modules, which are empty."""
    venv.EnvBuilder(symlinks=True).create(folder)
    packages = next((folder / "lib").glob("python*")) / "site-packages"
    for name in modules:
        (packages / f"{name}.py").touch()
    return str(folder / "bin" / "python")


BOTH = ("snakemake", "snakemake_executor_plugin_slurm")


@pytest.mark.parametrize(
    ("this", "own", "named", "executor", "found"),
    [
        (BOTH, BOTH, None, "local", "this"),
        ((), BOTH, None, "local", ".engine"),
        (BOTH[:1], BOTH, None, "slurm", ".engine"),
        (BOTH, BOTH, BOTH, "slurm", "named"),
        ((), (), None, "local", "Snakemake, which runs the steps, is not installed.*: synthlib engine"),
        (BOTH, BOTH, BOTH[:1], "slurm", "SYNTHLIB_ENGINE is .*; expected a Python that has snakemake and snakemake-ex"),
        (BOTH, BOTH, None, "slrum", "executor is 'slrum', which is not installed.*pip.*install snakemake-executor-"),
    ],
)
def test_the_python_that_starts_snakemake(own_root, monkeypatch, this, own, named, executor, found):
    pythons = {name: python_with(own_root / name, *had) for name, had in (("this", this), (".engine", own))}
    monkeypatch.delenv("SYNTHLIB_ENGINE", raising=False)
    if named:
        pythons["named"] = python_with(own_root / "named", *named)
        monkeypatch.setenv("SYNTHLIB_ENGINE", os.path.relpath(pythons["named"]))
    monkeypatch.setattr(sys, "executable", pythons["this"])
    if found in pythons:
        assert engine.engine_python(executor) == pythons[found]
    else:
        with pytest.raises(InputError, match=found):
            engine.engine_python(executor)


def test_without_snakemake_what_is_done_is_found_and_what_is_not_is_refused_before_a_download(own_root, monkeypatch):
    experiment = read_experiment("tiny")
    steps = plan_steps(experiment)
    monkeypatch.setenv("SYNTHLIB_ENGINE", "/nowhere")
    monkeypatch.setattr(reproduce.hub, "fetch", lambda *_: pytest.fail("fetched"))
    assert cli.main(["reproduce", "tiny", "--dry-run"]) == 0
    with pytest.raises(InputError, match="SYNTHLIB_ENGINE is '/nowhere'; expected a Python that has snakemake, or"):
        reproduce.reproduce(experiment, steps, Means())
    monkeypatch.setattr(reproduce, "states", lambda steps: dict.fromkeys((step.name for step in steps), "done"))
    assert not reproduce.reproduce(experiment, steps, Means())


def test_an_engine_that_cannot_be_installed_leaves_nothing(own_root, monkeypatch, capsys):
    for name in ("pyproject.toml", "constraints.txt"):
        (own_root / name).symlink_to(ROOT / name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert cli.main(["engine"]) == 2 and not (own_root / ".engine").exists()
    said = capsys.readouterr().err
    assert "snakemake" in said and said.count("\n") == 1


@pytest.mark.runs
def test_an_engine_of_its_own_gives_the_bytes_of_one_in_this_python(tmp_path, own_engine):
    roots = {}
    for name in ("this", "own"):
        roots[name] = root = copy_checkout(tmp_path / name)
        (root / ".engine").symlink_to(own_engine)
    (roots["own"] / "smart_open.py").write_text(
        "raise SystemExit('a package of the other Python')"
    )  # on its PYTHONPATH
    synthlib(roots["this"], "reproduce", "tiny", "--parts", "2")
    synthlib(roots["own"], "reproduce", "tiny", "--parts", "2", SYNTHLIB_ENGINE=".engine/bin/python")
    assert files(roots["own"], SHARDS, *RESULTS) == files(roots["this"], SHARDS, *RESULTS)


@pytest.mark.runs
def test_two_gpus_share_a_set_and_each_job_has_one_of_its_own(tmp_path):
    root = copy_checkout(tmp_path / "kit")
    edit(root / "experiments/tiny.yaml", "generate: {device: cpu", "generate: {device: auto")
    two = {"CUDA_VISIBLE_DEVICES": "0,1", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "synthlib.cli", "reproduce", "tiny", "--cores", "2", "--gpus", "all"]
    done = subprocess.run(command, cwd=root, env=environment(root) | two, capture_output=True, text=True)
    assert done.returncode == 0 and "2 GPUs" in done.stdout, done.stdout + done.stderr
    folder = root / "papermill_runs/tiny/01_generate/digits-class_prompt"
    made = [receipts.read_receipt(folder / "parts" / f"{place}-of-2") for place in (1, 2)]
    assert {receipt["recorded"]["visible_gpus"] for receipt in made} == {"0", "1"}
    assert [len(receipt["outputs"]) for receipt in made] == [3, 3]  # two shards and the plan
    alone = copy_checkout(tmp_path / "alone")
    edit(alone / "experiments/tiny.yaml", "generate: {device: cpu", "generate: {device: auto")
    synthlib(alone, "reproduce", "tiny")
    assert files(root, SHARDS, *RESULTS) == files(alone, SHARDS, *RESULTS)


@pytest.mark.runs
def test_generate_on_all_gpus_is_generate(own_root, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("claims")))
    words = ["generate", "--classes", "three", "--n_iter", "750", "--ddim_steps", "2", "--outdir"]
    run = [sys.executable, "-m", "synthlib.cli", *words]
    subprocess.run([*run, "alone"], cwd=own_root, check=True)
    gpus = os.environ | {"CUDA_VISIBLE_DEVICES": "0,1"}
    done = subprocess.run([*run, "shared", "--gpus", "all"], cwd=own_root, env=gpus, capture_output=True, text=True)
    assert "2 jobs on 2 cores and 2 GPUs" in done.stdout and "1500 images: 0 drawn" in done.stdout, done.stderr
    assert sha256_of((own_root / ".alone.synthlib").glob("*.parquet")) == sha256_of(
        (own_root / ".shared.synthlib").glob("*.parquet")
    )
    assert len(list((own_root / "shared/three").glob("*.png"))) == 1500


def test_a_set_of_one_shard_is_drawn_on_the_gpu_that_was_chosen(own_root, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("TMPDIR", str(own_root))  # claims of this test's own
    monkeypatch.setattr("tempfile.tempdir", None)
    words = ["--classes", "three", "--n_iter", "1", "--ddim_steps", "2", "--outdir", str(own_root / "out")]
    assert cli.main(["generate", *words, "--gpus", "1"]) == 0
    assert [lock.stem for lock in own_root.glob("synthlib-gpus-*/*.lock")] == ["1"]


@pytest.mark.runs
def test_four_calls_at_once_never_do_a_step_twice(tmp_path):
    root = copy_checkout(tmp_path / "kit")
    counted = tmp_path / "begun"
    edit(
        root / "synthlib/receipts.py",
        "    lock = claim_folder(folder)\n    inputs",
        f"    lock = claim_folder(folder)\n    open({str(counted)!r}, 'a').write(f'{{folder.name}}\\n')\n    inputs",
    )
    command = [sys.executable, "-m", "synthlib.cli", "reproduce", "tiny", "--parts", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    calls = [subprocess.Popen(command, cwd=root, env=environment(root), **pipes) for _ in range(4)]
    said = [call.communicate()[0] for call in calls]
    assert [call.returncode for call in calls] == [0] * 4, "\n".join(said)
    begun = Counter(counted.read_text().split())
    names = {"1-of-2": 1, "2-of-2": 1, "digits-class_prompt": 1, "digits-class_prompt-resnet": 2, "all": 1}
    assert begun == names  # resnet: 02_train and 03_eval
    assert not list((root / "papermill_runs/tiny/.engine").iterdir())
