"""The paper's experiment: its conditions as paper_facts has them, its generate step on a tiny checkpoint of SD v1's layout."""

import hashlib
import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from synthlib import hub
from synthlib.data.datasets import read_spec
from synthlib.data.shards import read_table
from synthlib.generation.checkpoints import DDIM
from synthlib.generation.generate import generate, open_plan
from synthlib.generation.plan import n_rows
from synthlib.generation.prompts import prompts_of
from synthlib.inputs import InputError
from synthlib.runs.experiment import read_experiment
from synthlib.runs.steps import plan_steps
from synthlib.settings import GenerateSettings

PAPER = {step.name: step for step in plan_steps(read_experiment("paper"))}
MODEL = "CompVis/stable-diffusion-v1-4"


def generate_settings(name, **given):
    return GenerateSettings(**PAPER[name].parameters | given)


def test_every_condition_of_the_three_data_sets_is_there():
    tricks = ("base_class", "class_prompt", "multi_domain", "random_guidance", "merged")
    wanted = {f"01_generate/{dataset}-{trick}" for dataset in ("cifar10", "cifar100", "eurosat") for trick in tricks}
    drawn = {name for name in PAPER if name.startswith("01_generate")}
    beyond = ("domain_guidance", "prompt_list", "merged_full", "image_", "guidance=")
    assert wanted == {name for name in drawn if not any(word in name for word in beyond)}


@pytest.mark.parametrize(
    ("dataset", "classes", "images", "resize"),
    [("cifar10", 10, 60_000, "32A"), ("cifar100", 100, 60_000, "32A"), ("eurosat", 10, 27_000, "64")],
)
def test_sizes_and_settings_are_those_known_of_the_paper(dataset, classes, images, resize):
    for trick in ("base_class", "random_guidance", "merged"):
        given = generate_settings(f"01_generate/{dataset}-{trick}")
        spec = read_spec(dataset)
        assert len(spec.classes) == classes and n_rows(given, spec) == images
        assert (given.model, len(given.revision)) == (MODEL, 40)
        assert (given.height, given.width, given.num_inference_steps, given.seed) == (512, 512, 40, 64)
        assert (given.guidance_scale, given.min_scale, given.max_scale, given.resize) == (7.5, 1, 5, resize)


def test_prompts_are_words_and_the_papers():
    for dataset in ("cifar10", "cifar100", "eurosat"):
        for trick in ("base_class", "class_prompt", "multi_domain", "random_guidance"):
            prompts = prompts_of(read_spec(dataset), trick, 10)
            assert not any("_" in prompt or "{" in prompt for prompt in prompts)
            assert dataset == "eurosat" or len(set(prompts)) == len(read_spec(dataset).classes) * (
                10 if trick == "multi_domain" else 1
            )
    assert "a rock drawing of a aquarium fish" in prompts_of(read_spec("cifar100"), "multi_domain", 10)
    assert "an image of lawn mower" in prompts_of(read_spec("cifar100"), "random_guidance", 10)
    satellite = "a satellite photo of a annual crop field in the style of a painting"
    assert satellite in prompts_of(read_spec("eurosat"), "multi_domain", 10)


def test_ddim_timesteps_at_40_steps_are_compvis():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**DDIM)
    scheduler.set_timesteps(40)
    assert scheduler.timesteps.tolist() == [1 + 25 * step for step in reversed(range(40))]  # make_ddim_timesteps, + 1
    assert scheduler.config.clip_sample is False and scheduler.final_alpha_cumprod == scheduler.alphas_cumprod[0]


@pytest.fixture
def as_if_fetched(tiny_sd, tmp_path, monkeypatch):
    """The tiny checkpoint in the hub's cache, in the place of Stable Diffusion v1.4 at the pinned commit."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    commit = PAPER["01_generate/cifar10-base_class"].parameters["revision"]
    snapshot = tmp_path / "cache" / f"models--{MODEL.replace('/', '--')}" / "snapshots" / commit
    shutil.copytree(tiny_sd, snapshot)
    assert hub.find(MODEL, commit) == snapshot
    return commit


@pytest.mark.parametrize(
    ("dataset", "two", "side"), [("cifar10", ["cat", "ship"], 32), ("eurosat", ["Forest", "River"], 64)]
)
def test_the_generate_step_runs_unchanged_on_a_tiny_checkpoint(as_if_fetched, tmp_path, dataset, two, side):
    """All settings are the experiment's, 512 px and 40 steps among them; only the sizes are a test's: 2 classes, 2 images."""
    few = {"run_dir": str(tmp_path / "run"), "classes": two, "images_per_class": 2, "batch_size": 2}
    files = generate(open_plan(generate_settings(f"01_generate/{dataset}-multi_domain", **few)))
    rows = [row for path in files[:-1] for row in read_table(path).to_pylist()]
    assert len(rows) == 4
    for row in rows:
        pixels = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
        assert pixels.shape == (side, side, 3)
        assert row["pixels_sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()
        assert row["prompt"] == read_spec(dataset).templates["multi_domain"].replace("{domain}", row["domain"]).replace(
            "{class}", read_spec(dataset).classes[row["class"]]
        )
        assert (row["model"], row["revision"], row["num_inference_steps"]) == (MODEL, as_if_fetched, 40)
        assert (row["scheduler"], row["precision"]) == ("DDIM, eta 0, leading timesteps, offset 1", "float32")
        assert (row["device"], row["batch_size"], row["flagged"]) == ("cpu", 2, None)
        assert row["resize"].startswith(
            "32A: bilinear to 32 px, antialias" if side == 32 else "64: bilinear to 64 px, no anti"
        )
    assert str(tmp_path) not in json.dumps([{k: v for k, v in row.items() if k != "image"} for row in rows])


def test_a_fetched_model_that_was_cleaned_away_does_not_make_its_images_stale(as_if_fetched, tmp_path):
    from synthlib import receipts

    before = receipts.model_digest(MODEL, as_if_fetched)
    shutil.rmtree(tmp_path / "cache")
    assert receipts.model_digest(MODEL, as_if_fetched) == before == f"{MODEL}@{as_if_fetched}"


SMALL = {"dataset": "own", "classes": ["cat"], "images_per_class": 2, "batch_size": 2, "height": 64, "width": 64,
         "num_inference_steps": 2, "device": "cpu", "trick": "class_prompt"}  # fmt: skip


def rows_of(settings, **given):
    files = generate(open_plan(settings("01_generate", **SMALL | given)))
    return [row for path in files[:-1] for row in read_table(path).to_pylist()]


def test_the_safety_checkers_opinion_is_recorded_and_pixels_stay(settings, tiny_sd, tmp_path):
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    shutil.copytree(tiny_sd, tmp_path / "sd")
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 32,
              "patch_size": 16, "projection_dim": 8}  # fmt: skip
    torch.manual_seed(0)
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "sd" / "feature_extractor"
    )
    plain = rows_of(settings, model=str(tmp_path / "sd"), run_dir=str(tmp_path / "off"))
    for weight, expected in ((-2.0, True), (2.0, False)):  # a concept is found where cosine - threshold > 0
        checker.concept_embeds_weights.data.fill_(weight)
        checker.special_care_embeds_weights.data.fill_(2.0)
        checker.save_pretrained(tmp_path / "sd" / "safety_checker")
        found = rows_of(settings, model=str(tmp_path / "sd"), run_dir=str(tmp_path / str(expected)), safety="flag")
        assert [row["flagged"] for row in found] == [expected] * 2
        assert [row["image"] for row in found] == [row["image"] for row in plain]
    assert [row["flagged"] for row in plain] == [None, None]
    checker.concept_embeds_weights.data.fill_(torch.nan)  # it would flag nothing, whatever it sees
    checker.save_pretrained(tmp_path / "sd" / "safety_checker")
    with pytest.raises(InputError, match="safety checker's weights .* are not finite"):
        rows_of(settings, model=str(tmp_path / "sd"), run_dir=str(tmp_path / "nan"), safety="flag")
    from safetensors.torch import load_file, save_file

    from synthlib.generation import safety

    file = tmp_path / "sd" / "safety_checker" / "model.safetensors"
    whole = load_file(file)
    save_file(
        {name: tensor for name, tensor in whole.items() if "visual_projection" not in name}, file, {"format": "pt"}
    )
    with pytest.raises(InputError, match="1 missing .visual_projection.weight"):  # not an opinion of random weights
        safety.open_safety_checker(tmp_path / "sd", torch.device("cpu"))
    save_file(whole, file, {"format": "pt"})
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(
        tmp_path / "sd" / "feature_extractor"
    )
    with pytest.raises(InputError, match="does not take what its feature_extractor gives"):
        safety.open_safety_checker(tmp_path / "sd", torch.device("cpu"))


def test_asking_a_checker_that_is_not_there_is_one_line(settings, tiny_sd):
    with pytest.raises(InputError, match="has no safety_checker"):
        rows_of(settings, model=str(tiny_sd), safety="flag")


def test_kept_latents_are_those_of_the_image(settings, tiny_sd, tmp_path):
    from synthlib.data.shards import load_shards
    from synthlib.generation import checkpoints, sampler

    files = generate(open_plan(settings("01_generate", **SMALL, model=str(tiny_sd), keep_latents=True)))
    [first, _] = read_table(files[0]).to_pylist()
    latents = torch.from_numpy(np.frombuffer(first["latents"], np.float16).copy()).reshape(1, 4, 8, 8).float()
    again = sampler.decode(checkpoints.open_checkpoint(str(tiny_sd)).vae, latents)[0].numpy()
    image = np.asarray(Image.open(io.BytesIO(first["image"]["bytes"]))).astype(int)
    assert np.abs(again - image).max() <= 2  # float16
    assert "latents" not in load_shards(files[:-1]).rows.column_names


def test_lossy_options_change_the_images_and_are_never_taken_for_the_lossless_ones(settings, tiny_sd, tmp_path):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).save_pretrained(
        tmp_path / "taesd"
    )
    plain = settings("01_generate", **SMALL, model=str(tiny_sd), run_dir=str(tmp_path / "plain"))
    files = generate(open_plan(plain))
    whole = [row["image"]["bytes"] for row in read_table(files[0]).to_pylist()]
    for name, value in (("lossy_guidance_until", 0.5), ("lossy_vae", str(tmp_path / "taesd"))):
        found = rows_of(
            settings,
            model=str(tiny_sd),
            reuse_dirs=[str(tmp_path / "plain")],
            run_dir=str(tmp_path / name),
            **{name: value},
        )
        assert all(row["image"]["bytes"] not in whole for row in found)


def test_compvis_mode_truncates_and_takes_the_scripts_noise(settings, tiny_sd, tmp_path):
    from synthlib.generation import checkpoints, sampler

    rows = rows_of(settings, model=str(tiny_sd), noise="compvis", images_per_class=4)
    assert [(row["iteration"], row["slot"], row["seed"]) for row in rows] == [
        (0, 0, 64),
        (0, 1, 64),
        (1, 0, 64),
        (1, 1, 64),
    ]
    generator = torch.Generator().manual_seed(64)
    draws = [torch.randn((2, 4, 8, 8), generator=generator) for _ in range(4)]  # of each iteration 1 + 2 steps
    model = checkpoints.open_checkpoint(str(tiny_sd))
    no_text, text = checkpoints.encode_prompts(model, ["", "cat"]).split(1)
    latents = sampler.denoise(model, text.expand(2, -1, -1), no_text, torch.tensor([7.5, 7.5]), draws[3], 2)
    exact = model.vae.decode(latents / model.vae.config.scaling_factor, return_dict=False)[0]
    theirs = (255.0 * torch.clamp((exact + 1) / 2, 0, 1)).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    for row, image in zip(rows[2:], theirs, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))), image)


def test_guidance_one_fills_up_the_other_pass_of_a_compiled_model_and_stays_what_it_was(tiny_sd):
    from dataclasses import replace

    from synthlib.generation import checkpoints, sampler

    model = checkpoints.open_checkpoint(str(tiny_sd))
    no_text, text = checkpoints.encode_prompts(model, ["", "cat"]).split(1)
    guidance = torch.tensor([1.0, 3.0, 1.0, 1.0, 4.0, 1.0, 1.0, 1.0])
    noise = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sizes, forward = [], model.unet.forward
    model.unet.forward = lambda x, *given, **named: sizes.append(len(x)) or forward(x, *given, **named)
    given = (text.expand(8, -1, -1), no_text, guidance, noise, 3)
    plain, padded = sampler.denoise(model, *given), sampler.denoise(replace(model, compiled=True), *given)
    assert sizes == [10] * 3 + [10] * 3
    three = (*given[:2], torch.tensor([1.0, 3.0, 1.0, 1.0, 4.0, 2.0, 1.0, 1.0]), *given[3:])
    sampler.denoise(replace(model, compiled=True), *three)
    assert sizes[6:] == [12] * 3  # three guided images take the place of four: few sizes, few compilations
    assert torch.allclose(plain, padded, atol=1e-4)


def test_a_single_compvis_file_gives_the_images_of_its_diffusers_twin(settings, tmp_path):
    from tiny_models import write_tiny_sd, write_tiny_single_file

    write_tiny_sd(tmp_path / "twin", width=32)
    (tmp_path / "one").mkdir()
    write_tiny_single_file(tmp_path / "twin", tmp_path / "one" / "model.safetensors")
    shutil.copytree(tmp_path / "twin" / "tokenizer", tmp_path / "one" / "tokenizer")
    pair = [rows_of(settings, model=str(tmp_path / name), run_dir=str(tmp_path / f"run{name[:3]}"), trick="random_guidance")
            for name in ("twin", "one/model.safetensors")]  # fmt: skip
    assert [row["image"]["bytes"] for row in pair[0]] == [row["image"]["bytes"] for row in pair[1]]
    assert [row["model"] for row in pair[1]] == ["model.safetensors"] * 2


def test_another_family_takes_the_same_plan_and_shards(settings, tiny_sd, tmp_path):
    from tiny_models import write_tiny_sdxl

    write_tiny_sdxl(tmp_path / "xl")
    given = {"trick": "random_guidance", "images_per_class": 3, "height": 0, "width": 0, "resize": "32A"}
    rows = rows_of(settings, model=str(tmp_path / "xl"), **given)
    v1 = rows_of(settings, model=str(tiny_sd), run_dir=str(tmp_path / "v1"), **given | {"height": 64, "width": 64})
    same = ("image_id", "prompt", "guidance_scale", "seed", "num_inference_steps", "batch_size", "resize")
    assert [[row[name] for name in same] for row in rows] == [[row[name] for name in same] for row in v1]
    assert rows[0]["scheduler"] == "EulerDiscreteScheduler" and rows[0]["image"]["bytes"] != v1[0]["image"]["bytes"]
    assert np.asarray(Image.open(io.BytesIO(rows[0]["image"]["bytes"]))).shape == (32, 32, 3)


def test_what_a_pipeline_cannot_do_is_refused_in_one_line(settings, tmp_path):
    from tiny_models import write_tiny_sdxl

    write_tiny_sdxl(tmp_path / "xl")
    for name, value in (("noise", "compvis"), ("keep_latents", True), ("lossy_guidance_until", 0.5)):
        with pytest.raises(
            InputError, match=f"{name} is {value!r}, which only checkpoints of Stable Diffusion v1's kind"
        ):
            rows_of(settings, model=str(tmp_path / "xl"), run_dir=str(tmp_path / name), **{name: value})


@pytest.mark.slow
def test_a_compiled_unet_draws_the_same_but_for_rounding(tiny_sd):
    from synthlib.generation import checkpoints, sampler

    plain, compiled = (checkpoints.open_checkpoint(str(tiny_sd), compile=choice) for choice in (False, True))
    no_text, *text = checkpoints.encode_prompts(plain, ["", "cat", "dog", "ship", "frog"]).split(1)
    noise = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    given = (torch.cat(text), no_text, torch.tensor([7.5, 3.0, 1.0, 2.0]), noise, 3)
    first, again = sampler.denoise(compiled, *given), sampler.denoise(compiled, *given)
    assert torch.equal(first, again)
    assert (first - sampler.denoise(plain, *given)).abs().max() < 1e-4
    assert (first - sampler.denoise(plain, *given[:2], torch.full((4,), 7.5), *given[3:])).abs().max() > 1e-2


def test_a_checkpoints_folder_may_be_moved_and_told_about(settings, tiny_sd, tmp_path):
    from synthlib import digests

    shutil.copytree(tiny_sd, tmp_path / "old")
    first = rows_of(settings, model=str(tmp_path / "old"))
    shutil.move(tmp_path / "old", tmp_path / "new")
    (tmp_path / "new" / "README.md").write_text("a card")
    (tmp_path / "new" / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / "new" / ".cache" / "huggingface" / "model_index.json.metadata").write_text("when it came")
    again = rows_of(settings, model=str(tmp_path / "new"))
    assert [row["image"] for row in again] == [row["image"] for row in first]
    assert first[0]["revision"] == f"sha256:{digests.folder_digest(tmp_path / 'new')[:12]}"
    config = tmp_path / "new" / "unet" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(InputError, match="another plan's shards"):
        rows_of(settings, model=str(tmp_path / "new"))


def test_a_branch_that_moves_between_planning_and_drawing_changes_nothing(settings, tiny_sd, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    store = tmp_path / "cache" / "models--some--model"
    one, other = "a" * 40, "b" * 40
    shutil.copytree(tiny_sd, store / "snapshots" / one)
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text(one)
    plan = open_plan(settings("01_generate", **SMALL, model="some/model"))
    (store / "refs" / "main").write_text(other)  # of which nothing is there, and the hub is out of reach
    [row, _] = read_table(generate(plan)[0]).to_pylist()
    assert (row["model"], row["revision"]) == ("some/model", one)


def test_a_revision_of_what_is_no_hub_id_is_refused(settings, tiny_sd):
    with pytest.raises(InputError, match="revision is 'main'"):
        open_plan(settings("01_generate", **SMALL, model=str(tiny_sd), revision="main"))


def test_the_scripts_order_takes_two_samples_at_a_time_only(tmp_path, capsys):
    from synthlib.cli import main

    words = ["generate", "--classes", "two", "--noise", "compvis", "--n_samples", "3", "--outdir", str(tmp_path)]
    assert main(words) == 2 and "n_samples is 3; expected 2 with --noise compvis" in capsys.readouterr().err
