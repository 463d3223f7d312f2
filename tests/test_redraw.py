"""Redraw: one image of a set, drawn again from its row alone, has the pixels that are stored."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from synthlib import paths, receipts
from synthlib.data.shards import decode_image, encode_png, read_table, shard_bytes, shard_classes
from synthlib.generation import sampler
from synthlib.generation.generate import generate, open_plan
from synthlib.generation.redraw import Redrawn, redraw, redrawn_text
from synthlib.inputs import InputError
from synthlib.runs.experiment import complete
from synthlib.settings import GenerateSettings

QUICK = {"num_inference_steps": 2, "classes": ["three", "seven"], "batch_size": 4, "device": "cpu"}


def make_set(folder, **given):
    """A finished set as notebook 01 makes it; its folder."""
    settings = GenerateSettings(**complete("01_generate", QUICK | {"run_dir": str(folder)} | given))
    files = generate(open_plan(settings))
    receipts.begin("01_generate", settings).finish(files)
    return Path(folder)


def shards_of(folder):
    return [folder / name for name in receipts.output_names(folder, ".parquet")]


def ids_of(folder):
    return [name for shard in shards_of(folder) for name in read_table(shard, ["image_id"])["image_id"].to_pylist()]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit_receipt(folder, **parameters):
    receipt = json.loads((folder / "receipt.json").read_text())
    receipt["parameters"] |= parameters
    (folder / "receipt.json").write_text(json.dumps(receipt))
    return receipt


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A merged set: 2 replicates, 2 classes, 9 images a class, 3 of each trick, so that every block of 4 was filled up."""
    return make_set(
        tmp_path_factory.mktemp("sets") / "merged", trick="merged", images_per_class=9, replicates=2, shard_rows=20
    )


@pytest.fixture
def merged(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "copy"))


def test_first_middle_and_last_image_of_a_merged_set_have_equal_pixels_and_nothing_is_written(merged):
    before, ids = contents(merged), ids_of(merged)
    assert len(ids) == 36 and ids[-1] == "digits-random_guidance-seven-r1-000002"
    for image_id in (ids[0], ids[17], ids[-1]):
        redrawn = redraw(merged, image_id)
        assert redrawn.equal and redrawn.differing_pixels == redrawn.largest_difference == 0 and not redrawn.differences
        assert redrawn.stored.shape == redrawn.redrawn.shape == (32, 32, 3)
        assert redrawn_text(redrawn) == f"{image_id}: same pixels"
    assert contents(merged) == before


def test_one_block_is_drawn_and_only_its_own_prompts_are_encoded(merged, monkeypatch):
    from synthlib.generation import checkpoints

    drawn, encoded = [], []
    denoise, encode = sampler.denoise, checkpoints.encode_prompts
    monkeypatch.setattr(sampler, "denoise", lambda *given: drawn.append(len(given[1])) or denoise(*given))
    monkeypatch.setattr(
        checkpoints, "encode_prompts", lambda model, texts: encoded.extend(texts) or encode(model, texts)
    )
    assert redraw(merged, "digits-class_prompt-seven-r0-000001").equal
    assert drawn == [4] and set(encoded) == {"", "seven"}


def test_noise_in_the_released_scripts_order_is_redrawn_too(tmp_path):
    folder = make_set(tmp_path / "set", trick="multi_domain", images_per_class=6, replicates=2, noise="compvis")
    redrawn = redraw(folder, "digits-multi_domain-seven-r1-000005")
    assert redrawn.equal and not redrawn.differences


def test_a_set_of_another_family_of_models_is_redrawn_by_its_own_pipeline(tmp_path):
    from tiny_models import write_tiny_sdxl

    model = write_tiny_sdxl(tmp_path / "sdxl")
    folder = make_set(tmp_path / "set", model=str(model), trick="class_prompt", images_per_class=2, batch_size=2)
    redrawn = redraw(folder, ids_of(folder)[3])
    assert redrawn.equal and redrawn.stored.shape == (64, 64, 3)


def test_a_stored_image_that_was_changed_is_told_as_different_and_the_receipt_stays(merged):
    shard = shards_of(merged)[0]
    table = read_table(shard)
    images = [image["bytes"] for image in table["image"].to_pylist()]
    pixels = decode_image(images[5]).copy()
    pixels[3, 4, 1] ^= 0x40  # 64 of 255, in one pixel
    images[5] = encode_png(pixels)
    shard.write_bytes(shard_bytes(table.drop_columns(["image"]), images, shard_classes(table)))
    image_id, before = table["image_id"][5].as_py(), contents(merged)
    redrawn = redraw(merged, image_id)
    assert not redrawn.equal and redrawn.differing_pixels == 1 and redrawn.largest_difference == 64
    assert "differs in 1 of 1024 pixels, by at most 64 of 255" in redrawn_text(redrawn)
    assert "changed since" in redrawn_text(redrawn) and "\n" not in redrawn_text(redrawn)
    assert redraw(merged, table["image_id"][4].as_py()).equal
    assert contents(merged) == before


def test_what_is_not_as_it_was_is_told(merged):
    receipt = edit_receipt(merged, precision="bfloat16")
    receipt["recorded"]["versions"]["diffusers"] = "0.1.2"
    (merged / "receipt.json").write_text(json.dumps(receipt))
    shard = shards_of(merged)[0]
    key = json.loads((merged / f"{shard.name}.key").read_text())
    (merged / f"{shard.name}.key").write_text(json.dumps(key | {"code": "of old"}))
    redrawn = redraw(merged, ids_of(merged)[0])
    assert not redrawn.equal and redrawn.differing_pixels > 0
    assert redrawn.differences[0] == "precision float32 then, bfloat16 here"
    assert any(said.startswith("diffusers 0.1.2 then, ") for said in redrawn.differences)
    assert "the code that draws has changed" in redrawn.differences and len(redrawn.differences) == 3
    assert "precision float32 then, bfloat16 here" in redrawn_text(redrawn)


def test_same_pixels_and_what_differs_nonetheless_are_one_line():
    black = np.zeros((2, 2, 3), np.uint8)
    same = Redrawn("a", black, black, True, 0, 0, ["torch 2.6 then, 2.7 here"])
    assert redrawn_text(same) == "a: same pixels, although here is not as then: torch 2.6 then, 2.7 here"
    other = Redrawn("a", black, black + 9, False, 9, 4, [])
    assert redrawn_text(other).endswith(
        "4 of 4 pixels, by at most 9 of 255; here is not as then: nothing that is recorded"
    )


def test_a_changed_prompt_template_is_one_line(merged, monkeypatch, tmp_path):
    spec = yaml.safe_load(paths.dataset_files()["digits"].read_text())
    spec["templates"]["class_prompt"] = "an image of {class}"
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    monkeypatch.setattr(paths, "dataset_files", lambda: {"digits": tmp_path / "digits.yaml"})
    with pytest.raises(InputError, match="prompt 'three' then, 'an image of three' today") as error:
        redraw(merged, "digits-class_prompt-three-r0-000000")
    assert "\n" not in str(error.value)
    assert redraw(merged, "digits-random_guidance-three-r0-000000").equal  # its template is as it was


def test_other_seeds_are_one_line(merged):
    edit_receipt(merged, seed=65)
    with pytest.raises(InputError, match="asks for another image than .*seed .* then, .* today") as error:
        redraw(merged, ids_of(merged)[0])
    assert "prompt '" not in str(error.value) and "\n" not in str(error.value)


def test_a_mistyped_image_is_one_line_with_the_nearest(merged):
    with pytest.raises(InputError, match=r"its 36 rows.*; did you mean 'digits-class_prompt-seven-r1-000002'\?$"):
        redraw(merged, "digits-class_promt-seven-r1-000002")
    with pytest.raises(InputError, match=r"no image 'x' in \S+; expected .* named after\.$"):
        redraw(merged, "x")


def test_a_set_that_nobody_knows_the_making_of_is_one_line(merged, tmp_path):
    receipt, image_id = json.loads((merged / "receipt.json").read_text()), ids_of(merged)[0]
    del receipt["parameters"]["noise"]
    (merged / "receipt.json").write_text(json.dumps(receipt))
    with pytest.raises(InputError, match="other code, whose settings differ in noise"):
        redraw(merged, image_id)
    (merged / "receipt.json").write_text(json.dumps(receipt | {"notebook": "import"}))
    with pytest.raises(InputError, match="came by `synthlib import`, so nobody knows what it was drawn from"):
        redraw(merged, image_id)
    (merged / "receipt.json").unlink()
    with pytest.raises(InputError, match="has no receipt, so nobody knows"):
        redraw(merged, image_id)
