"""Nothing is run that no result needs, and everything that one needs is run before it."""

import pytest

from synthlib.inputs import InputError
from synthlib.runs.experiment import complete, parse_cell, plan_steps, read_experiment, read_results
from synthlib.settings import TRICKS

POCKET = read_experiment("pocket")


def names(**chosen):
    return [step.name for step in plan_steps(POCKET, **chosen)]


def test_pocket_is_one_step_a_condition_and_each_comes_after_what_it_needs():
    steps = plan_steps(POCKET)
    counts = {
        notebook: sum(s.notebook == notebook for s in steps) for notebook in ("01_generate", "02_train", "03_eval")
    }
    assert counts == {"01_generate": 5, "02_train": 10, "03_eval": 10} and steps[-1].name == "04_figures/all"
    seen = set()
    for step in steps:
        assert set(step.after) <= seen
        seen.add(step.name)


def test_merged_takes_its_images_from_its_parts():
    merged = next(step for step in plan_steps(POCKET) if step.name == "01_generate/digits-merged")
    assert [folder.rsplit("/", 1)[1] for folder in merged.parameters["reuse_dirs"]] == [
        "digits-class_prompt", "digits-multi_domain", "digits-random_guidance"]  # fmt: skip
    assert merged.parameters["images_per_class"] == POCKET.parameters["01_generate"]["images_per_class"]


def test_only_a_figure_of_images_needs_no_training():
    assert {name.split("/")[0] for name in names(only=["F1"])} == {"01_generate", "04_figures"}


def test_only_two_results_run_their_conditions_once():
    assert sorted(names(only=["T2", "F3"])) == sorted(set(names(only=["T2", "F3"])))
    assert "03_eval/digits-class_prompt-resnet" not in names(only=["T2"])
    assert "01_generate/digits-class_prompt" in names(only=["T2"])  # merged is made of it


def test_a_step_has_the_same_parameters_whichever_results_are_asked_for():
    everything = {step.name: step for step in plan_steps(POCKET)}
    for chosen in ({"only": ["F1", "T2"]}, {"cell": "T1/digits/merged/resnet"}):
        for step in plan_steps(POCKET, **chosen):
            assert step.notebook == "04_figures" or step == everything[step.name]


def test_measures_are_taken_once_a_set():
    with_measures = [step.name for step in plan_steps(POCKET) if step.parameters.get("measures")]
    assert with_measures == [f"03_eval/digits-{trick}-resnet" for trick in TRICKS[:5]]


def test_a_cell_is_its_chain_and_nothing_else():
    assert names(cell="T1/digits/base_class/vit") == [
        "01_generate/digits-base_class", "02_train/digits-base_class-vit", "03_eval/digits-base_class-vit"]  # fmt: skip
    assert parse_cell("T1/digits/random_scale/vit", POCKET) == ("digits", "random_guidance", "vit")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("T1/digits/merged", "RESULT/DATASET/TRICK/ARCHITECTURE"),
        ("T9/digits/merged/vit", "unknown result"),
        ("T1/digit/merged/vit", "did you mean 'digits'"),
        ("T1/digits/merged/vti", "did you mean 'vit'"),
        ("T2/digits/class_prompt/vit", "unknown trick of T2"),
        ("F1/digits/merged/vit", "no cells"),
    ],
)
def test_a_wrong_cell_is_one_line(text, said):
    with pytest.raises(InputError, match=said):
        parse_cell(text, POCKET)


def test_every_experiment_reads_and_wants_only_defined_results():
    for name in ("tiny", "smoke", "pocket"):
        experiment = read_experiment(name)
        assert {result.id for result in experiment.results} <= set(read_results())
        assert plan_steps(experiment)
    assert [result.id for result in read_experiment("smoke").results] == list(read_results())


def test_parameters_are_typed_and_complete():
    made = complete("02_train", {"learning_rate": "1e-3", "epochs": 3.0})
    assert made["learning_rate"] == 1e-3 and made["epochs"] == 3 and isinstance(made["epochs"], int)
    assert complete("02_train", {})["batch_size"] == 64
    with pytest.raises(InputError, match="epochs is '3x'"):
        complete("02_train", {"epochs": "3x"})
    with pytest.raises(InputError, match="log_to is 'wandb'; expected a list"):
        complete("02_train", {"log_to": "wandb"})


def test_long_work_of_older_code_is_not_redone_unasked_where_the_step_was_interrupted(own_root):
    """A step that never ended has no receipt, only its shards and their keys."""
    from synthlib import receipts
    from synthlib.runs.reproduce import settle_older_code

    [step] = [step for step in plan_steps(read_experiment("tiny")) if step.notebook == "01_generate"]
    shard = own_root / step.run_dir / "shard-00000-aaaaaaaa.parquet"
    key = receipts.FileKey("shards", "settings", "code of last week")
    receipts.write_keyed(shard, b"images", key, seconds=3600)
    with pytest.raises(InputError, match="1 steps were made by older code and took 60 minutes; give --redo"):
        settle_older_code([step], redo=False, keep=False)
    settle_older_code([step], redo=False, keep=True)
    stored = receipts.read_json(shard.with_name(f"{shard.name}.key"))
    assert stored["code"] == receipts.costly_code("shards") and stored["kept_from_code"] == "code of last week"
    settle_older_code([step], redo=False, keep=False)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tricks": None}, "tricks is None; expected a list"),
        ({"tricks": []}, "tricks is .*expected a list of some"),
        ({"by_dataset": ["digits"]}, "by_dataset is .*expected a mapping"),
        ({"by_dataset": {"digits": None}}, "digits is None; expected a mapping"),
        ({"by_dataset": {"digits": {"train": [1]}}}, "train is .*expected a mapping"),
        ({"train": ["x"]}, "train is .*expected a mapping"),
        ({"train": {"architecture": "vit"}}, "architecture for 02_train follows from the results"),
        ({"evaluate": {"measures": ["vendi"]}}, "measures for 03_eval follows from the results"),
        ({"architectures": [50]}, "no architectures for T1"),
        ({"architectures": {"T9": ["resnet"]}}, "unknown result under architectures"),
        ({"architectures": {"others": []}}, "no architectures for T1"),
        ({"sets": "hosted"}, "has nothing to run"),  # nobody hosts digits
        ({"sets": "found"}, "unknown sets in odd.yaml"),
    ],
)
def test_a_strange_experiment_file_is_one_line(own_root, changed, said):
    import shutil

    import yaml
    from conftest import ROOT

    (own_root / "experiments").unlink()
    shutil.copytree(ROOT / "experiments", own_root / "experiments")
    content = yaml.safe_load((ROOT / "experiments/tiny.yaml").read_text()) | changed
    (own_root / "experiments/odd.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=said) as error:
        plan_steps(read_experiment("odd"))
    assert "\n" not in str(error.value)


def test_real_images_that_come_while_a_process_runs_are_seen(own_root, monkeypatch):
    """`reproduce` looks before it downloads, and again when all is done."""
    from synthlib import receipts
    from synthlib.runs.reproduce import wanted_downloads

    monkeypatch.setenv("SYNTHLIB_DATA", str(own_root / "data"))
    step = next(step for step in plan_steps(read_experiment("colab")) if step.notebook == "03_eval")
    assert wanted_downloads([step]) == ["cifar10"]
    assert receipts.input_digests(step.parameters)["real images"] is None
    (own_root / "data/cifar10").mkdir(parents=True)
    (own_root / "data/cifar10/test_batch").write_bytes(b"images")
    assert wanted_downloads([step]) == []
    assert receipts.input_digests(step.parameters)["real images"] is not None


def test_a_figure_alone_has_its_hosted_sets_downloaded_too():
    from synthlib.runs.reproduce import wanted_downloads

    steps = plan_steps(read_experiment("hosted"), ["F1"])
    assert [step.notebook for step in steps] == ["04_figures"] and len(wanted_downloads(steps)) == 12


def test_a_table_has_only_the_conditions_that_it_wants():
    """The seven networks of T2 do not get into T1, which is of ResNet50."""
    import pandas as pd

    from synthlib.results.rows import only
    from synthlib.settings import FiguresSettings

    settings = FiguresSettings(**plan_steps(read_experiment("hosted"))[-1].parameters)
    assert {condition[2] for condition in settings.conditions("T1")} == {"resnet50"}
    assert len({condition[2] for condition in settings.conditions("T2")}) == 7
    rows = pd.DataFrame({"dataset": "cifar10", "trick": "merged", "architecture": ["resnet50", "vit_b"]})
    assert only(rows, settings.conditions("T1"))["architecture"].tolist() == ["resnet50"]
    assert len(only(rows, settings.conditions("T2"))) == 2 and only(rows, []) is rows
    with pytest.raises(InputError, match="nothing was evaluated"):
        only(None, [])
