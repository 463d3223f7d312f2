"""Prompts from a list: taken in turn from a file whose content, not name, decides an image; a bad file is one line."""

import re

import pytest
import yaml

from synthlib import cli, paths
from synthlib.data.datasets import read_prompts, read_spec
from synthlib.data.shards import read_table
from synthlib.generation import sampler
from synthlib.generation.checkpoints import check_length, open_checkpoint
from synthlib.generation.generate import generate, open_plan
from synthlib.generation.prompts import check_words
from synthlib.inputs import InputError

LISTS = {"three": ["a photo of a three", "three"], "seven": ["a sketch of seven", "a poster of a seven", "seven"]}
QUICK = {
    "num_inference_steps": 2,
    "classes": ["three", "seven"],
    "batch_size": 4,
    "device": "cpu",
    "trick": "prompt_list",
}


@pytest.fixture
def plan(settings, tmp_path):
    """plan({"three": [...]}, name="p.yaml", ...): the plan of these lists, written into a file of that name."""

    def make(lists, name="p.yaml", **given):
        (tmp_path / name).write_text(yaml.safe_dump(lists))
        given = QUICK | {"run_dir": str(tmp_path / "run"), "prompts_file": str(tmp_path / name)} | given
        return open_plan(settings("01_generate", **given))

    return make


@pytest.fixture
def drawn(monkeypatch):
    """How many blocks were drawn."""
    calls, real = [], sampler.denoise
    monkeypatch.setattr(sampler, "denoise", lambda *given: calls.append(1) or real(*given))
    return calls


def pixels(files):
    rows = [row for path in files[:-1] for row in read_table(path).to_pylist()]
    return {row["image_id"]: row["pixels_sha256"] for row in rows}


def test_the_prompt_is_the_index_modulo_the_classs_own_number_of_prompts(plan):
    rows = plan(LISTS, images_per_class=5).rows(0, 10)
    three, seven = LISTS["three"], LISTS["seven"]
    assert rows["prompt"].to_pylist() == [three[i] for i in (0, 1, 0, 1, 0)] + [seven[i] for i in (0, 1, 2, 0, 1)]
    assert set(rows["trick"].to_pylist()) == {"prompt_list"} and set(rows["domain"].to_pylist()) == {""}
    assert set(rows["guidance_scale"].to_pylist()) == {7.5}


def test_in_the_scripts_order_pairs_share_a_prompt_and_each_prompt_counts_its_own_iterations(plan):
    rows = plan(LISTS, images_per_class=6, noise="compvis", num_inference_steps=4).rows(0, 6).to_pylist()
    assert [row["prompt"] for row in rows] == [LISTS["three"][i] for i in (0, 0, 1, 1, 0, 0)]
    assert [(row["iteration"], row["slot"]) for row in rows] == [(0, 0), (0, 1), (0, 0), (0, 1), (1, 0), (1, 1)]


def test_other_prompts_of_a_class_draw_that_class_anew_and_name_its_shards_anew(plan, drawn):
    before = plan(LISTS, images_per_class=2, shard_rows=2)
    images, blocks = pixels(generate(before)), len(drawn)
    changed = LISTS | {"three": ["a photo of a three", "a drawing of three"]}
    with pytest.raises(InputError, match="another plan's shards .other classes."):
        plan(changed, images_per_class=2, shard_rows=2)
    after = plan(changed, images_per_class=2, shard_rows=2, replace=True)
    same = [old == new for (old, _), (new, _) in zip(before.shards(), after.shards(), strict=True)]
    assert same == [False, True]
    again = pixels(generate(after))
    assert [name for name in images if images[name] != again[name]] == ["digits-prompt_list-three-r0-000001"]
    assert len(drawn) == blocks + 1


def test_the_same_prompts_in_a_file_of_another_name_draw_nothing(plan, drawn):
    images, blocks = pixels(generate(plan(LISTS, images_per_class=2))), len(drawn)
    assert pixels(generate(plan(LISTS, name="other.yaml", images_per_class=2))) == images
    assert len(drawn) == blocks


def test_a_prompts_file_changes_nothing_for_a_trick_that_does_not_read_it(plan):
    named = plan(LISTS, trick="class_prompt", pool_per_class=7, real_dir="elsewhere")
    unnamed = plan(LISTS, trick="class_prompt", prompts_file="")
    assert named.key == unnamed.key and list(named.shards()) == list(unnamed.shards())


def test_the_files_that_come_with_the_kit_name_each_class_and_no_other(settings):
    for dataset, count, also in (("digits", 14, {}), ("cifar10", 20, {"automobile": "car"})):
        classes = read_spec(dataset).classes
        prompts = read_prompts(paths.prompts_file(dataset), dataset, classes)
        assert list(prompts) == list(classes)
        for name, mine in prompts.items():
            assert len(set(mine)) == len(mine) == count
            for prompt in mine:
                words = set(re.findall(r"\w+", prompt))
                assert words & {name, also.get(name, name)}, prompt
                assert not words & {*classes, *also.values()} - {name, also.get(name, name)}, prompt


def test_the_embedded_model_knows_every_word_of_the_digits_prompts():
    prompts = read_prompts(paths.prompts_file("digits"), "digits", read_spec("digits").classes)
    check_words(paths.embedded_model(), [prompt for mine in prompts.values() for prompt in mine])


def test_a_prompt_that_the_text_encoder_would_cut_is_one_line():
    model = open_checkpoint("")
    check_length(model, ["a " * 9 + "three"])  # 10 words and two ends: what it reads
    with pytest.raises(InputError, match="has 13 tokens with its two ends; expected at most 12"):
        check_length(model, ["a " * 10 + "three"])


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"three": ["three"]}, "has no prompts of seven; expected at least one of each class"),
        (LISTS | {"seven": []}, "has no prompts of seven"),
        (LISTS | {"sevn": ["sevn"]}, "unknown class in .*p.yaml 'sevn'; did you mean 'seven'"),
        (LISTS | {"seven": ["seven", " "]}, "class 'seven' has an empty prompt"),
        (LISTS | {"seven": ["Three ", "seven"]}, "'three' and 'seven' are both asked for by 'Three '"),
        (LISTS | {"seven": ["a {class}"]}, "expected words without placeholders"),
        (LISTS | {True: ["yes"]}, "reads true as True, not as text; put it in quotes"),
        (LISTS | {"seven": [True]}, r"class 'seven' has \[True\]; expected a list of texts, each in quotes"),
        (LISTS | {"seven": "seven"}, "class 'seven' has 'seven'; expected a list of texts"),
        (LISTS | {"seven": ["seven", 7]}, r"class 'seven' has \['seven', 7\]; expected a list of texts"),
        (["three"], "holds list; expected a mapping"),
    ],
)
def test_a_bad_file_of_prompts_is_one_line(plan, lists, said):
    with pytest.raises(InputError, match=said) as error:
        plan(lists)
    assert "\n" not in str(error.value)


def test_no_file_of_prompts_is_one_line(plan, settings, tmp_path):
    with pytest.raises(InputError, match="no file of prompts .*nowhere.yaml; expected a YAML file of class:") as error:
        plan(LISTS, prompts_file=str(tmp_path / "nowhere.yaml"))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no file of prompts .*eurosat.yaml"):
        open_plan(settings("01_generate", trick="prompt_list", dataset="eurosat"))


def test_own_classes_may_have_prompts_of_any_class(tmp_path):
    (tmp_path / "p.yaml").write_text("fire_truck: [a red fire truck]\nbus: [a bus]\n")
    assert read_prompts(tmp_path / "p.yaml", "own", ["bus"]) == {"bus": ("a bus",)}


def test_a_prompts_file_is_looked_for_where_it_was_typed(tmp_path, monkeypatch, capsys):
    (tmp_path / "p.yaml").write_text("three: ['']")
    monkeypatch.chdir(tmp_path)
    given = ["--classes", "three", "--trick", "prompt_list", "--prompts_file", "p.yaml", "--outdir", "out"]
    assert cli.main(["generate", *given]) == 2
    assert "empty prompt" in capsys.readouterr().err
