"""The embedded model: what it is, that it draws what is asked, and that its program runs."""

import json
import shutil

import pytest
import torch

from synthlib import digests, paths
from synthlib.inputs import InputError
from synthlib.pocket import glyphs, words
from synthlib.pocket.__main__ import main
from synthlib.pocket.check import (
    CHECK_SEED,
    DOMAIN_TEMPLATE,
    FOLDER,
    check,
    near_copies,
    nearest_glyph,
    open_weights,
    sample,
)
from synthlib.pocket.glyphs import CLASSES, DOMAINS, HELD_OUT_FONTS, TRAINING_FONTS, draw_glyphs
from synthlib.pocket.parts import make_scheduler
from synthlib.pocket.referee import FEATURES, features, judge, load_referee

WEIGHTS = FOLDER / "weights"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny_build(tmp_path_factory):
    """The folder of a whole build of a few steps, and the fonts that each block of glyphs was drawn with, in order."""
    folder, asked, fields = tmp_path_factory.mktemp("tiny"), [], glyphs.distance_fields

    def watched(fonts):
        asked.append(fonts)
        return fields(fonts)

    tiny = ["--glyphs", "200", "--autoencoder-steps", "2", "--steps", "3", "--batch", "8", "--referee-glyphs", "128"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glyphs, "distance_fields", watched)
        patch.setattr(glyphs, "BLOCK", 50)
        main(["--outdir", str(folder), "--no-check", "--rounds", "2", *tiny])
    return folder, asked


@pytest.mark.parametrize("opener", ["StableDiffusionPipeline", "AutoPipelineForText2Image"])
def test_weights_are_an_ordinary_diffusers_checkpoint_that_draws_32_pixels(opener):
    import diffusers

    pipeline = getattr(diffusers, opener).from_pretrained(WEIGHTS)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a photo of a seven", num_inference_steps=2, output_type="np").images
    assert image.shape == (1, 32, 32, 3)
    assert pipeline.safety_checker is None and pipeline.feature_extractor is None
    assert pipeline.config.requires_safety_checker is False


def test_the_sampling_loop_of_the_check_draws_what_the_pipeline_draws():
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(WEIGHTS)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(11)
    theirs = pipeline("an image of a two", num_inference_steps=10, generator=generator, output_type="np").images
    ours = sample(open_weights(), ["an image of a two"], 7.5, seed=11, steps=10)
    difference = torch.from_numpy(theirs[0]).permute(2, 0, 1) * 255 - ours[0].float()
    assert difference.abs().max() < 0.51  # rounding


def test_weights_are_small_safe_and_scheduled_as_documented():
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 8_000_000
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    assert not any("_name_or_path" in file.read_text() for file in files if file.suffix == ".json")
    scheduler = json.loads((WEIGHTS / "scheduler" / "scheduler_config.json").read_text())
    wanted = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
    wanted |= dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading")
    assert scheduler["_class_name"] == "DDIMScheduler" and scheduler["prediction_type"] == "epsilon"
    assert {key: scheduler[key] for key in wanted} == wanted
    assert (FOLDER / "referee.safetensors").stat().st_size <= 500_000


def test_every_caption_word_is_known_and_an_unknown_one_is_marked():
    tokenizer = open_weights().tokenizer
    unknown = tokenizer.unk_token_id
    for text in words.captions():
        ids = tokenizer(text).input_ids
        assert unknown not in ids and len(ids) <= words.MAX_TOKENS
    assert tokenizer("a photo of a zebra").input_ids.count(unknown) == 1
    assert json.loads((WEIGHTS / "vocabulary.json").read_text()) == words.vocabulary()
    assert words.vocabulary()["classes"] == list(CLASSES) and len(DOMAINS) == 10


def test_the_same_seed_draws_the_same_corpus_and_another_seed_another(monkeypatch):
    monkeypatch.setattr(glyphs, "BLOCK", 50)
    one, again, other = draw_glyphs(70, 3), draw_glyphs(50, 3), draw_glyphs(50, 4)
    assert torch.equal(one.images[:50], again.images) and one.captions[:50] == again.captions
    assert not torch.equal(again.images, other.images)


def test_a_caption_tells_the_truth_and_both_polarities_occur():
    corpus = draw_glyphs(500, 5)
    for label, domain, caption in zip(corpus.labels, corpus.domains, corpus.captions, strict=True):
        assert caption.endswith(CLASSES[label])
        assert DOMAINS[domain] in caption or not any(f"{name} of" in caption for name in DOMAINS)
    border = corpus.images.float().mean(1)[:, [0, -1]].mean((1, 2))
    assert (border > 128).float().mean() > 0.25 and (border < 128).float().mean() > 0.25


def test_held_out_fonts_are_never_in_the_training_corpus(tiny_build):
    assert not set(TRAINING_FONTS) & set(HELD_OUT_FONTS) and len(HELD_OUT_FONTS) == 5
    _, asked = tiny_build  # the referee comes first, then the generator
    assert list(dict.fromkeys(asked)) == [HELD_OUT_FONTS, TRAINING_FONTS]
    assert asked == sorted(asked, key=asked.index)


def test_referee_reads_fresh_held_out_glyphs():
    fresh = draw_glyphs(500, 77_000, HELD_OUT_FONTS)
    classes, domains, _ = judge(fresh.images)
    assert (classes == fresh.labels).float().mean() >= 0.9
    assert (domains == fresh.domains).float().mean() >= 0.9
    found = features(fresh.images[:3])
    assert found.shape == (3, FEATURES) and found.dtype == torch.float32
    assert not load_referee().training


def test_samples_show_the_digit_that_the_prompt_names():
    prompts = [DOMAIN_TEMPLATE.format_map({"class": k, "domain": d}) for d in DOMAINS for k in CLASSES]
    images = sample(open_weights(), prompts, 7.5, CHECK_SEED)
    classes, domains, _ = judge(images)
    assert (classes == torch.arange(10).repeat(10)).float().mean() >= 0.9
    assert (domains == torch.arange(10).repeat_interleave(10)).float().mean() >= 0.7


def test_a_tiny_build_gives_a_folder_that_loads_and_records_itself(tiny_build):
    folder, _ = tiny_build
    assert sample(open_weights(folder / "weights"), ["seven"], 7.5, 0, steps=2).shape == (1, 3, 32, 32)
    record = json.loads((folder / "weights_record.json").read_text())
    assert record["settings"]["steps"] == 3
    assert [(entry["round"], entry["step"]) for entry in record["denoiser_loss"]] == [(0, 3), (1, 2)]
    assert {"torch", "diffusers"} <= set(record["versions"]) and "denoiser_1" in record["seconds"]
    assert load_referee(folder / "referee.safetensors")
    assert {path.name for path in folder.iterdir()} == {
        "weights",
        "weights_record.json",
        "referee.safetensors",
        "referee_record.json",
        "SHA256SUMS",
    }
    for name in ("weights", "referee.safetensors"):
        assert digests.check_shipped(folder / name)


SHIPPED = [line.split()[1] for line in (FOLDER / "SHA256SUMS").read_text().splitlines()]


def test_the_sums_are_of_all_that_is_shipped():
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()] + [FOLDER / "referee.safetensors"]
    assert set(SHIPPED) == {file.relative_to(FOLDER).as_posix() for file in files}


@pytest.mark.parametrize("name", [*SHIPPED, "weights/unet/config.json gone", "weights/unet/extra.safetensors"])
def test_one_changed_bit_in_what_is_shipped_is_refused(settings, tmp_path, monkeypatch, name):
    from synthlib.evaluation.features import extract_features
    from synthlib.generation.generate import open_plan

    shutil.copytree(FOLDER, tmp_path / "pocket", ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.png"))
    monkeypatch.setattr(paths, "embedded_model", lambda: tmp_path / "pocket/weights")
    monkeypatch.setattr(paths, "referee_weights", lambda: tmp_path / "pocket/referee.safetensors")
    plan, images = settings("01_generate", images_per_class=1), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    open_plan(plan), extract_features(images, "pocket-referee-v1")
    file = tmp_path / "pocket" / name.removesuffix(" gone")
    data = bytearray(file.read_bytes() if file.exists() else b"?")
    data[len(data) // 2] ^= 1
    file.unlink() if "gone" in name else file.write_bytes(data)
    with pytest.raises(InputError, match=f"{file.name} is not as it comes with synthlib"):
        extract_features(images, "pocket-referee-v1") if "referee" in name else open_plan(plan)
    if "weights" in name and file.suffix == ".safetensors":  # given by its path it is a model as others are
        shutil.copytree(tmp_path / "pocket/weights", tmp_path / "mine")
        open_plan(settings("01_generate", images_per_class=1, model=str(tmp_path / "mine")))


def test_a_copied_glyph_is_caught(monkeypatch):
    monkeypatch.setattr(glyphs, "BLOCK", 50)
    corpus = draw_glyphs(50, 6).images
    assert nearest_glyph(corpus[:5], corpus).max() < 0.5  # cdist rounds
    assert nearest_glyph(255 - corpus[:5], corpus).min() > 5
    caught = near_copies(open_weights(), corpus, draw_glyphs(100, 7, HELD_OUT_FONTS), 50, 6)
    assert caught["near_copies_percent"] == 100


def test_the_scheduler_of_training_is_the_scheduler_of_the_folder():
    from diffusers import DDIMScheduler

    shipped = DDIMScheduler.from_pretrained(WEIGHTS / "scheduler")
    assert torch.equal(shipped.alphas_cumprod, make_scheduler().alphas_cumprod)


@pytest.mark.slow
def test_the_shipped_weights_pass_every_mark(tmp_path):
    import shutil

    shutil.copytree(WEIGHTS, tmp_path / "weights")
    shutil.copy(FOLDER / "referee.safetensors", tmp_path)
    result = check(tmp_path)
    assert all(result["passed"].values()), result["passed"]
