"""Nothing is run that no result needs, and everything that one needs is run before it."""

import pytest

from synthlib.data.datasets import read_spec
from synthlib.files import read_json
from synthlib.inputs import InputError, cast, read_yaml
from synthlib.names import TRICKS
from synthlib.runs.experiment import complete, read_experiment, read_results
from synthlib.runs.steps import parse_cell, plan_steps

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
    of_full = [name for name, parameters in FULL.items() if "vendi_per_class" in parameters.get("measures", ())]
    assert len(of_full) == 11 and all(name.endswith("-resnet") for name in of_full)


def test_a_cell_is_its_chain_and_nothing_else():
    assert names(cell="T1/digits/base_class/vit") == [
        "01_generate/digits-base_class", "02_train/digits-base_class-vit", "03_eval/digits-base_class-vit"]  # fmt: skip
    assert parse_cell("T1/digits/random_scale/vit", POCKET) == ("digits", "random_guidance", "vit")


FULL = {step.name: step.parameters for step in plan_steps(read_experiment("pocket_full"))}


def test_every_result_is_wanted_by_the_experiments_that_promise_all():
    for name in ("smoke", "pocket_full", "paper"):
        assert [result.id for result in read_experiment(name).results] == list(read_results())


def test_fixed_guidance_is_random_guidance_with_one_value_and_sets_of_its_own():
    drawn = FULL["01_generate/digits-random_guidance+guidance=1.5"]
    assert (drawn["trick"], drawn["min_scale"], drawn["max_scale"]) == ("random_guidance", 1.5, 1.5)
    plain = FULL["01_generate/digits-random_guidance"]
    assert {k for k in drawn if drawn[k] != plain[k]} == {"run_dir", "min_scale", "max_scale", "replicates"}
    tested = FULL["03_eval/digits-random_guidance+guidance=1.5-resnet"]
    assert tested["setting"] == "guidance=1.5" and tested["generated_dir"] == drawn["run_dir"]
    assert tested["measures"] == ["vendi_per_class", "recall", "agreement"]


def test_fewer_images_are_of_the_same_set_in_as_many_steps():
    few, all_ = FULL["02_train/digits-base_class+images_per_class=15-resnet"], FULL["02_train/digits-base_class-resnet"]
    assert few["generated_dir"] == all_["generated_dir"] and few["images_per_class"] == 15
    assert (few["epochs"], all_["epochs"]) == (67, 20)  # 150 images are 3 batches of 64, 600 are 10: 201 and 200 steps
    of_base = {name.split("=")[1].split("-")[0] for name in FULL if "02_train/digits-base_class+images" in name}
    assert of_base == {"6", "15", "30"}  # 60 is the set itself, and it has no more
    of_full = {name.split("=")[1].split("-")[0] for name in FULL if "02_train/digits-merged_full+images" in name}
    assert of_full == {"120", "180"}  # of 60 and fewer it is merged


def test_a_condition_has_the_most_replicates_that_a_result_wants():
    replicates = {name: parameters["replicates"] for name, parameters in FULL.items() if "replicates" in parameters}
    assert replicates["01_generate/digits-base_class"] == replicates["02_train/digits-base_class-resnet"] == 8
    assert replicates["02_train/digits-base_class-vit"] == 3  # T2 alone wants it, of the same images
    assert replicates["01_generate/digits-prompt_list"] == replicates["02_train/digits-prompt_list-resnet"] == 3
    assert replicates["02_train/digits-real-resnet"] == replicates["02_train/digits-few_shot-resnet"] == 3


def test_a_filter_stands_between_drawing_and_training():
    kept = FULL["01b_filter/digits-merged_full+judge=glyphs"]
    assert (kept["judge"], kept["images_per_class"]) == ("glyphs", 60)
    trained = FULL["02_train/digits-merged_full+judge=glyphs-resnet"]
    assert trained["kept_dir"] == kept["run_dir"] and trained["generated_dir"] == kept["generated_dir"]
    assert kept["generated_dir"] == FULL["01_generate/digits-merged_full"]["run_dir"]


def test_what_cannot_be_had_is_not_run_and_says_why():
    last = FULL["04_figures/all"]
    why = "no image-conditioned checkpoint"
    assert last["not_run"] == [f"digits/image_{how}/resnet: {why}" for how in ("averaged", "interpolated")]
    assert "F11: digits/image_averaged/resnet" in last["wanted"]
    paper = plan_steps(read_experiment("paper"))
    no_list = [line for line in paper[-1].parameters["not_run"] if line.endswith("no list of prompts for cifar100")]
    assert no_list == ["cifar100/prompt_list/resnet50: no list of prompts for cifar100"]
    drawn = [s.parameters for s in paper if s.notebook == "01_generate" and s.parameters["trick"] == "image_averaged"]
    assert len(drawn) == 3 and all(given["model"].startswith("lambdalabs/") for given in drawn)


@pytest.mark.parametrize("name", ["pocket_full", "paper", "hosted"])
def test_no_classifier_is_trained_twice(name):
    """A setting that changes nothing of training is tested with the checkpoints of the trick alone."""
    trained = [step.parameters for step in plan_steps(read_experiment(name)) if step.notebook == "02_train"]
    alike = [tuple((k, str(v)) for k, v in sorted(given.items()) if k != "run_dir") for given in trained]
    assert len(set(alike)) == len(alike)


def test_eurosat_has_a_zero_shot_twin_beside_what_learned_from_its_pool():
    paper = {step.name: step.parameters for step in plan_steps(read_experiment("paper"))}
    twins = [name for name in paper if "split=rest" in name and name.startswith("03_eval")]
    assert twins == [f"03_eval/eurosat-{trick}+split=rest-resnet50" for trick in ("base_class", "merged")]
    assert all(paper[name]["split"] == "rest" for name in twins)
    assert paper["03_eval/eurosat-real-resnet50"]["split"] == "rest"
    assert paper["03_eval/eurosat-merged-resnet50"]["split"] == "test"


def test_leaving_out_a_trick_leaves_its_cells_not_run(own_root):
    import shutil

    import yaml
    from conftest import ROOT

    (own_root / "experiments").unlink()
    shutil.copytree(ROOT / "experiments", own_root / "experiments")
    content = yaml.safe_load((ROOT / "experiments/pocket.yaml").read_text())
    content["tricks"] = ["base_class", "class_prompt", "merged"]
    (own_root / "experiments/less.yaml").write_text(yaml.safe_dump(content))
    steps = plan_steps(read_experiment("less"))
    assert "digits/multi_domain/resnet: this experiment leaves it out" in steps[-1].parameters["not_run"]
    assert "01_generate/digits-multi_domain" in [step.name for step in steps]  # merged is made of it
    assert "02_train/digits-multi_domain-resnet" not in [step.name for step in steps]


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
    from synthlib import costly
    from synthlib.runs.reproduce import settle_older_code

    [step] = [step for step in plan_steps(read_experiment("tiny")) if step.notebook == "01_generate"]
    shard = own_root / step.run_dir / "shard-00000-aaaaaaaa.parquet"
    key = costly.FileKey("shards", "settings", "code of last week")
    costly.write_keyed(shard, b"images", key, seconds=3600)
    with pytest.raises(InputError, match="1 steps were made by older code and took 60 minutes; give --redo"):
        settle_older_code([step], redo=False, keep=False)
    settle_older_code([step], redo=False, keep=True)
    stored = read_json(shard.with_name(f"{shard.name}.key"))
    assert stored["code"] == costly.costly_code("shards") and stored["kept_from_code"] == "code of last week"
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
        ({"replicates": {"others": 0}}, "replicates of T1 is 0; expected a number"),
        ({"replicates": {"T9": 2}}, "unknown result under replicates"),
        ({"vary": {"guidence": [1]}}, "unknown axis under vary in odd.yaml 'guidence'; did you mean 'guidance'"),
        ({"vary": {"guidance": 1}}, "guidance under vary is 1; expected a list"),
        ({"by_trick": {"mergd": {}}}, "unknown name in by_trick"),
        ({"note": ...}, "note is missing; expected a str"),
        ({"note": 5}, "note is 5; expected a str"),
        (
            {"generate": {"images_per_class": "many"}},
            "experiment odd, step 01_generate/digits-class_prompt: images_per_class is 'many'; expected",
        ),
    ],
)
def test_a_strange_experiment_file_is_one_line(own_root, changed, said):
    import shutil

    import yaml
    from conftest import ROOT

    (own_root / "experiments").unlink()
    shutil.copytree(ROOT / "experiments", own_root / "experiments")
    content = yaml.safe_load((ROOT / "experiments/tiny.yaml").read_text()) | changed
    content = {key: value for key, value in content.items() if value is not ...}
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
    rows = pd.DataFrame({"dataset": "cifar10", "trick": "merged", "setting": "", "architecture": ["resnet50", "vit_b"]})
    assert only(rows, settings.conditions("T1"))["architecture"].tolist() == ["resnet50"]
    assert len(only(rows, settings.conditions("T2"))) == 2 and only(rows, []) is rows
    with pytest.raises(InputError, match="nothing was evaluated"):
        only(None, [])


# --- what YAML and JSON make of what was written -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{yes: yes, no: no}", "line 1: YAML reads yes as True, not as text; put it in quotes"),
        ("a: 1\n001: cat", "line 2: YAML reads 001 as 1, not as text"),
        ("{12:30: x}", "12:30 as 750"),
        ("{on: a, 01: b}", "reads on as True"),
        ("{cat: cat, no: no}", "reads no as False"),
        ("{1e+3: a, 1.0: a}", "reads 1.0 as 1.0"),
        ("{~: a}", "reads ~ as None"),
        ("{2020-01-01: a}", "as datetime.date"),
        ("{2020-13-01: a}", "month must be in"),
        ("{? [a, b] : c}", "not as text"),
        ("{1: a, '1': b}", "line 1: 1 is there twice"),
        ("a: 1\nb: {c: 1, d: 2,\n  c: 3}", "line 3: c is there twice"),
        ("seed: 010", "reads 010 as 8; write 8, or put it in quotes"),
        ("seed: [0x1F]", "reads 0x1F as 31"),
        ("seed: 1_000", "reads 1_000 as 1000"),
        ("seed: 1:30.5", "reads 1:30.5 as 90.5"),
        ("a: \ud800".encode("utf-8", "surrogatepass"), "cannot read"),
    ],
)  # fmt: skip
def test_yaml_that_is_read_as_something_else_is_refused(tmp_path, text, said):
    (tmp_path / "a.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=said) as error:
        read_yaml(tmp_path / "a.yaml")
    assert "a.yaml" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{0: cat, 10: 7}", {"0": "cat", "10": 7}),
        ("{'001': a, \"yes\": b, 0o17: c}", {"001": "a", "yes": "b", "0o17": "c"}),
        ("{a: yes, b: 1.5e-3, c: [-3, ~]}", {"a": True, "b": 1.5e-3, "c": [-3, None]}),
        ("a: &a {b: 1, c: 2}\nd: &d {<<: *a, c: 3}\ne: {<<: *d, f: 4}", {
            "a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}, "e": {"b": 1, "c": 3, "f": 4}}),
    ],
)  # fmt: skip
def test_yaml_that_is_what_it_looks_like_is_read(tmp_path, text, value):
    (tmp_path / "a.yaml").write_text(text)
    assert read_yaml(tmp_path / "a.yaml") == value


NO = object()


@pytest.mark.parametrize(
    ("value", "kind", "found"),
    [
        (4, int, 4), (4.0, int, 4), ("4", int, 4), ("1e3", int, 1000), (-(2**62), int, -(2**62)),
        (4.9, int, NO), ("4.9", int, NO), (True, int, NO), ("True", int, NO), ("0x10", int, NO), ("1_000", int, NO),
        ("[4]", int, NO), (1e300, int, NO), ("nan", int, NO), (float("inf"), int, NO), (None, int, NO), ("", int, NO),
        ("\u0663", int, NO), (2, float, 2.0), ("1e-4", float, 1e-4), (".5", float, 0.5), (True, float, NO), ("nan", float, NO),
        ("inf", float, NO), (float("nan"), float, NO), ("1e999", float, NO), (10**400, float, NO), ("1_0", float, NO),
        (True, bool, True), (False, bool, False), (1, bool, NO), ("yes", bool, NO), ("False", bool, NO), (None, bool, NO),
        ("x", str, "x"), (7, str, "7"), (True, str, NO), (1.0, str, NO), (None, str, NO), (["x"], str, NO),
        (["a", 1], list, ["a", "1"]), (("a",), list, ["a"]), (["a", True], list, NO), ([1.5], list, NO), ("a", list, NO),
    ],
)  # fmt: skip
def test_a_parameter_is_cast_without_loss_or_refused(value, kind, found):
    if found is not NO:
        assert cast("it", value, kind) == found and type(cast("it", value, kind)) is type(found)
        return
    with pytest.raises(InputError, match="^(one of )?it is .*; expected"):
        cast("it", value, kind)


def test_parameters_in_json_are_there_once(tmp_path, capsys):
    from synthlib import cli

    for text, said in (('{"seed": 1, "seed": 2}', "seed is there twice"), ('{"threads": NaN}', "threads is nan"),
                       ('{"threads": true}', "threads is True"), ("[1]", "expected an object")):  # fmt: skip
        (tmp_path / "p.json").write_text(text)
        assert cli.main(["run", "02_train", "--params", str(tmp_path / "p.json")]) == 2
        assert said in (told := capsys.readouterr().err) and told.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            "datasets/digits.yaml",
            "zero: zero",
            "zero: no",
            "class zero in .*digits.yaml is False; expected text: put it in quo",
        ),
        ("datasets/digits.yaml", "sketch", "2020-01-01", "one of domains in .* expected text"),
        (
            "datasets/digits.yaml",
            'class_prompt: "{class}"',
            "class_prompt: {class}",
            "class_prompt in .* expected text",
        ),
        ("datasets/digits.yaml", "domains: [", "domain: [", "domains in .* is None; expected a list"),
        ("datasets/digits.yaml", "an image of a {class}", "an image of a class", "expected {class} in it"),
        ("datasets/digits.yaml", "an image of a {class}", "an image of a {class} {domain}", "no other braces"),
        ("datasets/digits.yaml", "an image of a {class}", "an image of a {class}}", "no other braces"),
        ("datasets/digits.yaml", "an image of a {class}", "an image of a {class}, {word}", "no other braces"),
        ("datasets/digits.yaml", "a {domain} of", "a photo of", "expected {class} and {domain} in it"),
        ("datasets/digits.yaml", "sketch, ", "'', ", "expected words: it is empty"),
        ("datasets/digits.yaml", "sketch", "photo", "photo, drawing.*each once"),
        ("datasets/digits.yaml", "sketch", "Photo", "photo, drawing.*each once"),
        ("datasets/digits.yaml", "one: one", "one: ZERO", "'zero' and 'one' are both asked for by 'ZERO'"),
        ("datasets/digits.yaml", "one: one", "Zero: ZERO", "'zero' and 'Zero' are both asked for"),
        ("datasets/digits.yaml", "one: one", "one: '{class}'", "words without placeholders"),
        (
            "protocols.yaml",
            "epochs: 30",
            "epochs: '30.5'",
            "epochs of protocol miniature is '30.5'; expected a whole number",
        ),
        ("protocols.yaml", "epochs: 30", "epoch: 30", "did you mean 'epochs'"),
        ("results.yaml", "file: accuracy_by_trick", "file: off", "file of T1 in results.yaml is False"),
        ("results.yaml", "title: Accuracy by trick", "titel: Accuracy", "title of T1 in results.yaml is None"),
        ("tiny.yaml", "results: [T1", "results: [yes, T1", "one of results in .* is True; expected text"),
        (
            "tiny.yaml",
            "results:",
            "vary: {images_per_class: [4.5]}\nresults:",
            "images_per_class under vary .* a whole number",
        ),
        ("tiny.yaml", "results:", "replicates: {others: yes}\nresults:", "replicates of T1 is True; expected a number"),
        ("tiny.yaml", "results:", "note: again\nresults:", "note is there twice"),
    ],
)
def test_an_edit_that_says_something_else_than_was_meant_is_one_line(own_root, file, old, new, said):
    import shutil

    from conftest import ROOT

    (own_root / "experiments").unlink()
    shutil.copytree(ROOT / "experiments", own_root / "experiments")
    path = own_root / "experiments" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=said) as error:
        plan_steps(read_experiment("tiny"))
        read_spec("digits")
    assert "\n" not in str(error.value)
