"""Same input, same output: an image is a function of its row, whatever the shards, the order and the interruptions."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from synthlib.data.exports import write_image_folder
from synthlib.data.shards import load_shards, read_table
from synthlib.generation import checkpoints, sampler
from synthlib.generation.generate import generate, open_plan
from synthlib.inputs import InputError

QUICK = {"num_inference_steps": 3, "classes": ["three", "seven"], "batch_size": 4, "device": "cpu"}


def images_of(files):
    """image_id -> sha256 of its encoded bytes."""
    rows = [row for path in files[:-1] for row in read_table(path).to_pylist()]
    found = {row["image_id"]: hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in rows}
    assert len(found) == len(rows)
    return found


def test_a_trick_without_a_template_is_refused_in_one_line(settings, own_root):
    (own_root / "experiments").unlink()
    shutil.copytree(ROOT / "experiments", own_root / "experiments")
    file = own_root / "experiments/datasets/digits.yaml"
    file.write_text(file.read_text().replace("  base_class: an image of a {class}\n", ""))
    with pytest.raises(InputError, match="'digits' has no template for base_class; expected one, .*digits.yaml"):
        open_plan(settings("01_generate", trick="base_class"))


@pytest.fixture
def drawn(monkeypatch):
    """How many blocks were drawn."""
    calls = []
    real = sampler.denoise
    monkeypatch.setattr(sampler, "denoise", lambda *given: calls.append(1) or real(*given))
    return calls


@pytest.fixture
def make(settings, tmp_path):
    def make(folder, **given):
        return generate(open_plan(settings("01_generate", **(QUICK | {"run_dir": str(tmp_path / folder)} | given))))

    return make


def test_one_three_and_seven_shards_and_more_images_later_give_the_same_bytes(make, drawn):
    one = images_of(make("one", trick="random_guidance", images_per_class=10, shard_rows=20))
    for rows in (7, 3):
        assert images_of(make(f"{rows}", trick="random_guidance", images_per_class=10, shard_rows=rows)) == one
    few = images_of(make("later", trick="random_guidance", images_per_class=6))
    blocks = len(drawn)
    more = images_of(make("later", trick="random_guidance", images_per_class=10))
    assert few.items() <= more.items() and more == one
    assert len(drawn) - blocks == 2 * 2  # of each class only the blocks that hold images 6 to 9


def test_a_finished_set_and_another_shard_layout_draw_nothing(make, drawn):
    first = images_of(make("a", trick="class_prompt", images_per_class=4, shard_rows=8))
    blocks = len(drawn)
    assert images_of(make("a", trick="class_prompt", images_per_class=4, shard_rows=8)) == first
    again = make("a", trick="class_prompt", images_per_class=4, shard_rows=3)
    assert images_of(again) == first and len(again) == 4
    assert len(drawn) == blocks
    assert len(list(Path(again[0]).parent.glob("shard-*.parquet"))) == 3  # the old layout is gone


def test_fewer_images_lose_none(make, drawn):
    many = images_of(make("fewer", trick="class_prompt", images_per_class=8, shard_rows=8))
    blocks = len(drawn)
    make("fewer", trick="class_prompt", images_per_class=2, shard_rows=8)
    assert images_of(make("fewer", trick="class_prompt", images_per_class=8, shard_rows=8)) == many
    assert len(drawn) == blocks


def test_merged_draws_nothing_where_its_sources_exist(make, drawn, tmp_path):
    parts = {}
    for trick in ("class_prompt", "multi_domain", "random_guidance"):
        parts |= images_of(make(trick, trick=trick, images_per_class=6))
    blocks = len(drawn)
    merged = images_of(make("merged", trick="merged", images_per_class=6, reuse_dirs=[str(tmp_path / t) for t in (
        "class_prompt", "multi_domain", "random_guidance")]))  # fmt: skip
    assert len(drawn) == blocks
    assert merged.items() <= parts.items() and len(merged) == 12
    assert images_of(make("alone", trick="merged", images_per_class=6)) == merged  # drawn anew: the same bytes


def test_a_truncated_shard_is_drawn_again_to_the_same_bytes(make, capsys):
    files = make("cut", trick="class_prompt", images_per_class=4)
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[:-100])
    assert make("cut", trick="class_prompt", images_per_class=4)[0].read_bytes() == whole
    assert "damaged" in capsys.readouterr().out


def test_a_folder_of_another_plan_is_refused_and_left_alone(make):
    files = make("mine", trick="class_prompt", images_per_class=2)
    with pytest.raises(InputError, match="another plan's shards"):
        make("mine", trick="class_prompt", images_per_class=2, num_inference_steps=4)
    assert files[0].is_file()
    make("mine", trick="class_prompt", images_per_class=2, num_inference_steps=4, replace=True)


def test_a_class_with_other_words_is_drawn_anew(make, drawn, monkeypatch):
    from dataclasses import replace

    from synthlib.generation import plan as module

    before = images_of(make("words", trick="class_prompt", images_per_class=2))
    blocks, real = len(drawn), module.read_spec

    def with_other_words(*given):
        spec = real(*given)
        return replace(spec, classes=spec.classes | {"three": "two"})

    monkeypatch.setattr(module, "read_spec", with_other_words)
    after = images_of(make("words", trick="class_prompt", images_per_class=2, replace=True))
    changed = {name for name in before if before[name] != after[name]}
    assert {name.split("-")[2] for name in changed} == {"three"} and len(changed) == 2
    assert len(drawn) == blocks + 1  # the images of seven are still good


def test_a_guidance_setting_that_a_trick_does_not_read_changes_nothing(make, drawn):
    fixed = images_of(make("fixed", trick="class_prompt", images_per_class=4))
    random = images_of(make("random", trick="random_guidance", images_per_class=4))
    blocks = len(drawn)
    assert (
        images_of(make("fixed", trick="class_prompt", images_per_class=4, max_scale=3, guidance_draw="integer"))
        == fixed
    )
    assert images_of(make("random", trick="random_guidance", images_per_class=4, guidance_scale=3)) == random
    assert len(drawn) == blocks
    with pytest.raises(InputError, match="another plan's shards .other guidance."):
        make("random", trick="random_guidance", images_per_class=4, max_scale=3)
    again = images_of(make("random", trick="random_guidance", images_per_class=4, max_scale=3, replace=True))
    assert len(drawn) == blocks + 2 and not set(again.values()) & set(random.values())


def test_shards_keep_what_made_each_image(make):
    images = load_shards(make("rows", trick="multi_domain", images_per_class=2)[:-1])
    assert images.classes == ["three", "seven"] and images.labels.tolist() == [0, 0, 1, 1]
    assert images.images.shape == (4, 3, 32, 32) and images.images.dtype == torch.uint8
    assert images.column("prompt").tolist()[:2] == ["a photo of a three", "a drawing of a three"]


@pytest.fixture(scope="module")
def embedded():
    return checkpoints.open_checkpoint("")


def test_sampler_agrees_with_the_diffusers_pipeline_image_by_image(embedded):
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(embedded.folder)
    pipeline.scheduler = DDIMScheduler(**checkpoints.DDIM)
    pipeline.set_progress_bar_config(disable=True)
    prompts, scales, seeds = ["a photo of a three", "seven", "an image of a two"], [7.5, 1.0, 2.5], [3, 2**63 + 5, 11]
    text = checkpoints.encode_prompts(embedded, ["", *prompts])
    ours = sampler.draw(embedded, text[1:], text[:1], torch.tensor(scales), seeds, 10, 32, 32)
    for image, prompt, scale, seed in zip(ours, prompts, scales, seeds, strict=True):
        latents = sampler.initial_noise([seed], (embedded.unet.config.in_channels, 8, 8))
        given = {"num_inference_steps": 10, "guidance_scale": scale, "latents": latents, "output_type": "np"}
        theirs = pipeline(prompt, **given).images[0]
        assert np.abs(image.numpy() - theirs * 255).max() <= 1.01  # rounding of a last bit


def test_guidance_one_skips_the_pass_without_text(embedded, monkeypatch):
    sizes = []
    forward = embedded.unet.forward
    monkeypatch.setattr(embedded.unet, "forward", lambda x, *a, **k: sizes.append(len(x)) or forward(x, *a, **k))
    text = checkpoints.encode_prompts(embedded, ["", "two", "two", "two"])
    sampler.draw(embedded, text[1:], text[:1], torch.tensor([1.0, 3.0, 1.0]), [1, 2, 3], 2, 32, 32)
    assert sizes == [4, 4]


def test_own_classes_with_a_tiny_checkpoint_of_stable_diffusions_layout(tiny_sd, tmp_path):
    from torchvision.datasets import ImageFolder

    from synthlib.cli import main

    words = ["--classes", "dog", "cat", "--n_samples", "1", "--n_iter", "2", "--ddim_steps", "2", "--batch_size", "2"]
    words += ["--H", "64", "--W", "64", "--model", str(tiny_sd), "--device", "cpu"]
    assert main(["generate", *words, "--outdir", str(tmp_path / "out")]) == 0
    found = ImageFolder(tmp_path / "out")
    assert found.classes == ["cat", "dog"] and len(found) == 4 and found[0][0].size == (64, 64)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--classes", "three", "dog"], "it knows: 3d"),
        (["--classes", "three", "--H", "30"], "multiples of 8"),
        (["--classes", "three", "--model", "nowhere"], "no model 'nowhere' on this machine"),
        (["--classes", "three", "--n_iter", "0"], "n_iter is 0"),
        (["--classes", "three", "--trick", "clas_prompt"], "did you mean 'class_prompt'"),
        (["--classes", "three", "--min_scale", "6"], "at most --max_scale"),
        (["--classes", " "], "folder"),
        (["--classes", "three", "--trick", "multi_domain", "--domains", "oil"], "does not know 'oil'"),
        (["--classes", "three", "--device", "tpu9"], "device"),
        (["--classes", "three", "--ddim_steps", "1000"], "fewer than 1000"),
    ],
)
def test_bad_input_is_one_line_and_not_zero(words, said, tmp_path, capsys):
    from synthlib.cli import main

    assert main(["generate", "--outdir", str(tmp_path / "out"), "--n_samples", "1", "--n_iter", "1", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1] and lines[-1].startswith("synthlib: ")
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.parquet"))


def test_a_word_that_the_model_does_not_know_is_refused_before_torch_is_imported(tmp_path):
    code = "import sys; from synthlib.cli import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    words = ["generate", "--classes", "three", "dog", "--outdir", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"] and "'dog'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_class_folders_fill_while_the_rest_is_drawn(settings, tmp_path):
    plan = open_plan(settings("01_generate", **QUICK, run_dir=str(tmp_path / "set"), images_per_class=4, shard_rows=3))
    seen = []

    def show(shard):
        write_image_folder([shard], tmp_path / "out")
        seen.append(len(list((tmp_path / "out").glob("*/*.png"))))

    generate(plan, show)
    assert seen == [3, 6, 8]


def test_a_truncated_checkpoint_is_one_line(tiny_sd, tmp_path):
    import shutil

    shutil.copytree(tiny_sd, tmp_path / "cut")
    weights = tmp_path / "cut" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(InputError, match="cannot open the checkpoint"):
        checkpoints.open_checkpoint(str(tmp_path / "cut"))


def test_a_few_images_of_a_large_set_are_read_without_the_others(make, monkeypatch):
    from synthlib.data import shards
    from synthlib.results.samples import grid_row, spread_rows

    files = make("few", trick="merged", images_per_class=9, shard_rows=4, classes=[])[:-1]
    decoded, real = [], shards.decode_image
    monkeypatch.setattr(shards, "decode_image", lambda data: decoded.append(1) or real(data))
    few = load_shards(files, lambda rows: spread_rows(rows, per_class=2, by_trick=True))
    assert len(decoded) == 2 * 3 * 10 == len(few.images)
    assert sorted(set(few.column("index").tolist())) == [0, 2]  # of three images a part the first and the last
    whole = load_shards(files)
    place = {name: number for number, name in enumerate(whole.column("image_id"))}
    assert torch.equal(few.images, whole.images[[place[name] for name in few.column("image_id")]])
    assert [len(cell) for cell in grid_row(few)] == [6] * 10


def test_of_a_hundred_classes_ten_have_a_column():
    from synthlib.results.samples import shown

    assert shown(100) == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99] and shown(3) == [0, 1, 2]


def altered(folder, part, tensor, factor, prediction):
    """A copy of the embedded model with one tensor multiplied; by another prediction it is drawn by diffusers' pipeline."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(ROOT / "synthlib/pocket/weights", folder)
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    tensors[next(name for name in tensors if name.endswith(tensor))] *= factor
    save_file(tensors, file, metadata={"format": "pt"})
    config = folder / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace('"epsilon"', f'"{prediction}"'))
    return str(folder)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("part", "tensor", "factor", "precision"),
    [
        ("vae", "decoder.conv_in.weight", 1e6, "float16"),  # beyond 65504
        ("vae", "decoder.conv_out.weight", 1e6, "float16"),  # the last layer: infinite, and no nan
        ("unet", "conv_in.weight", 1e6, "float16"),
        ("unet", "conv_out.bias", float("nan"), "float32"),
        ("text_encoder", "final_layer_norm.weight", float("nan"), "bfloat16"),
    ],
)
def test_what_is_not_finite_is_never_kept(make, tmp_path, part, tensor, factor, precision, prediction):
    model = altered(tmp_path / "model", part, tensor, factor, prediction)
    few = {"model": model, "classes": ["three"], "images_per_class": 1, "trick": "class_prompt", "batch_size": 1}
    with pytest.raises(InputError, match=f"{model} in {precision} on cpu are not finite") as caught:
        make("set", **few, precision=precision)
    assert "\n" not in str(caught.value) and not list((tmp_path / "set").glob("*.parquet"))
    if factor > 1:  # what no float16 holds float32 does
        assert len(images_of(make("set", **few, precision="float32"))) == 1


def test_what_was_drawn_before_a_block_that_is_not_finite_is_kept(make, tmp_path, monkeypatch):
    real, calls = sampler.denoise, []

    def second_fails(*given):
        calls.append(1)
        return real(*given) * (torch.nan if len(calls) == 2 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(sampler, "denoise", second_fails)
        with pytest.raises(InputError, match="not finite"):
            make("set", trick="base_class", images_per_class=4)
    assert len(images_of([*(tmp_path / "set").glob("part-*.parquet"), None])) == 4
    again, whole = (images_of(make(name, trick="base_class", images_per_class=4)) for name in ("set", "whole"))
    assert again == whole


@pytest.mark.parametrize("name", ["guidance_scale", "min_scale", "max_scale"])
@pytest.mark.parametrize("value", [1e308, float("inf"), float("nan"), 1001.0, 0.5])
def test_guidance_that_no_loop_carries_is_one_line(settings, name, value):
    with pytest.raises(InputError, match=re.escape(f"{name} is {value}; expected")):
        settings("01_generate", **{name: value})


def test_the_highest_guidance_gives_finite_images(make):
    assert len(images_of(make("set", trick="class_prompt", guidance_scale=1000, images_per_class=2))) == 4
