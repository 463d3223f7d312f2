"""Images conditioned on pool images: as diffusers draws them, mixed as the row says, and never of the test split."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from tiny_models import write_tiny_variations

from synthlib.data import real
from synthlib.data.real import load_real
from synthlib.data.sets import ImageSet
from synthlib.data.shards import read_table
from synthlib.generation import checkpoints, sampler
from synthlib.generation.conditioning import PoolEmbeddings, encode_images, read_pool
from synthlib.generation.generate import generate, open_plan
from synthlib.generation.plan import mixtures, splitmix64
from synthlib.generation.redraw import redraw
from synthlib.inputs import InputError
from synthlib.receipts import begin

TRICKS = ("image_averaged", "image_interpolated")
QUICK = {"num_inference_steps": 3, "classes": ["three", "seven"], "batch_size": 4, "device": "cpu", "pool_per_class": 6}


@pytest.fixture(scope="module")
def variations(tmp_path_factory):
    return write_tiny_variations(tmp_path_factory.mktemp("models") / "variations")


@pytest.fixture(scope="module")
def model(variations):
    return checkpoints.open_checkpoint(str(variations))


@pytest.fixture
def given(settings, variations, tmp_path):
    """given("folder", ...): settings of image_averaged with the tiny model."""

    def make(folder="run", **given):
        here = {"run_dir": str(tmp_path / folder), "model": str(variations), "trick": "image_averaged"}
        return settings("01_generate", **(QUICK | here | given))

    return make


def rows_of(files):
    return [row for path in files[:-1] for row in read_table(path).to_pylist()]


def pixels(files):
    found = {row["image_id"]: row["pixels_sha256"] for row in rows_of(files)}
    assert len(found) == len(rows_of(files))
    return found


def pool_of(images):
    """A pool of one class, "three", from images uint8 [P, 3, H, W]."""
    ids = [f"p{number}" for number in range(len(images))]
    return {"three": ImageSet(images, torch.zeros(len(images), dtype=torch.long), ["three"], ids)}


def some_images(count, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, 40, 48), dtype=np.uint8))


# ---- the model ----


def test_sampler_agrees_with_the_diffusers_pipeline_image_by_image(model):
    from diffusers import DDIMScheduler, StableDiffusionImageVariationPipeline

    pipeline = StableDiffusionImageVariationPipeline.from_pretrained(model.folder)
    pipeline.scheduler = DDIMScheduler(**checkpoints.DDIM)
    pipeline.set_progress_bar_config(disable=True)
    images, scales, seeds = some_images(3), [7.5, 1.0, 2.5], [3, 2**63 + 5, 11]
    nothing = PoolEmbeddings(model, pool_of(images)).nothing()
    embeddings = encode_images(model, images)[:, None]
    ours = sampler.draw(model, embeddings, nothing, torch.tensor(scales), seeds, 10, 64, 64)
    for number, (image, scale, seed) in enumerate(zip(ours, scales, seeds, strict=True)):
        picture = Image.fromarray(images[number].permute(1, 2, 0).numpy())
        noise = sampler.initial_noise([seed], (4, 8, 8))
        asked = {"num_inference_steps": 10, "guidance_scale": scale, "latents": noise, "output_type": "np"}
        theirs = pipeline(picture, height=64, width=64, **asked).images[0]
        assert np.abs(image.numpy() - theirs * 255).max() <= 1.01  # rounding of a last bit
    other = sampler.draw(model, embeddings.flip(0), nothing, torch.tensor(scales), seeds, 10, 64, 64)
    assert (ours[0].int() - other[0].int()).abs().max() > 1  # the image it is conditioned on matters
    assert (model.height, model.width) == (64, 64)


def row_for(trick, seeds):
    n = len(seeds)
    return pa.table({"class": ["three"] * n, "trick": [trick] * n, "seed": pa.array(seeds, pa.uint64())})


@pytest.mark.parametrize("trick", TRICKS)
def test_a_mixture_of_equal_images_is_the_image(model, trick):
    one = some_images(1)
    mixed = PoolEmbeddings(model, pool_of(one.expand(5, -1, -1, -1))).at(row_for(trick, [1, 2, 2**64 - 1]))
    alone = encode_images(model, one)[:, None]
    assert mixed.shape == (3, 1, 16) and torch.allclose(mixed, alone.expand(3, -1, -1), rtol=1e-5, atol=1e-6)


def test_embeddings_are_mixed_with_the_weights_of_the_row(model):
    images, seeds = some_images(4), np.array([5, 6], np.uint64)
    each = encode_images(model, images)
    for trick in TRICKS:
        places, weights = mixtures(trick, seeds, 4)
        mixed = PoolEmbeddings(model, pool_of(images)).at(row_for(trick, seeds))
        for row in range(2):
            expected = sum(float(w) * each[place] for place, w in zip(places[row], weights[row], strict=True))
            assert torch.allclose(mixed[row, 0], expected, rtol=1e-5, atol=1e-6)


def test_a_pool_image_is_encoded_once(model, monkeypatch):
    calls, encoder = [], model.image_encoder
    real_forward = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda *a, **k: calls.append(1) or real_forward(*a, **k))
    embeddings = PoolEmbeddings(model, pool_of(some_images(3)))
    for _ in range(2):
        embeddings.at(row_for("image_averaged", [1, 2, 3, 4]))
    assert len(calls) == 3


# ---- the plan ----


def test_mixtures_are_distinct_images_all_equally_likely():
    seeds = splitmix64(np.arange(6000, dtype=np.uint64))
    places, weights = mixtures("image_averaged", seeds, 5)
    assert places.shape == (6000, 3) and weights.tolist() == [[1 / 3] * 3] * 6000
    assert all(len(set(row)) == 3 for row in places.tolist())
    _, counts = np.unique(np.sort(places, axis=1), axis=0, return_counts=True)
    assert len(counts) == 10 and abs(counts - 600).max() < 100  # 10 triples of 5; four standard deviations
    places, weights = mixtures("image_interpolated", seeds, 5)
    assert places.shape == (6000, 2) and (places[:, 0] != places[:, 1]).all()
    t = weights[:, 1]
    assert np.allclose(weights.sum(axis=1), 1) and t.min() > 0 and t.max() < 1
    assert abs(t.mean() - 0.5) < 0.02 and abs(t.std() - 1 / np.sqrt(12)) < 0.01
    assert np.array_equal(t, np.round(t, 3))  # what the row says is what is used


def test_rows_say_what_they_are_conditioned_on(given):
    plan = open_plan(given(images_per_class=4))
    ids, rows = plan.spec.pool["seven"].ids, plan.rows(4, 8)
    places, _ = mixtures("image_averaged", rows["seed"].to_numpy(), 6)
    said = [f"mean of pool images {ids[a]} + {ids[b]} + {ids[c]}" for a, b, c in places.tolist()]
    assert rows["prompt"].to_pylist() == said and set(rows["domain"].to_pylist()) == {""}
    plan = open_plan(given("other", trick="image_interpolated", images_per_class=4))
    ids, rows = plan.spec.pool["three"].ids, plan.rows(0, 4)
    places, weights = mixtures("image_interpolated", rows["seed"].to_numpy(), 6)
    said = [
        f"between pool images {ids[a]} and {ids[b]}, {t:.3f}" for (a, b), (_, t) in zip(places, weights, strict=True)
    ]
    assert rows["prompt"].to_pylist() == said and set(rows["guidance_scale"].to_pylist()) == {7.5}


@pytest.mark.parametrize("trick", TRICKS)
def test_only_pool_images_of_the_own_class_are_used_never_test_images(given, trick):
    plan = open_plan(given(trick=trick, images_per_class=50))
    pool, tested = load_real("digits", "pool"), set(load_real("digits", "test").ids)
    label = {name: pool.classes[number] for name, number in zip(pool.ids, pool.labels, strict=True)}
    for row in plan.rows(0, len(plan)).to_pylist():
        named = [word.rstrip(",") for word in row["prompt"].split() if word.startswith("digits-")]
        assert len(set(named)) == (3 if trick == "image_averaged" else 2)
        assert {label[name] for name in named} == {row["class"]} and tested.isdisjoint(named)


def test_the_pool_is_the_first_few_shot_draw(given):
    drawn = real.real_training_set("digits", images_per_class=6, seed=64, classes=["three", "seven"])
    pool = read_pool(given(), ["three", "seven"])
    assert [*pool["three"].ids, *pool["seven"].ids] == drawn.rows["image_id"].to_pylist()
    assert torch.equal(pool["seven"].images, drawn.images[6:])
    assert read_pool(given(), ["seven"])["seven"].ids == pool["seven"].ids  # whatever other classes are asked for


# ---- shards ----


def test_same_seed_same_image_for_any_shard_layout_and_more_images_later(given):
    one = pixels(generate(open_plan(given("one", images_per_class=10, shard_rows=20))))
    for rows in (7, 3):
        assert pixels(generate(open_plan(given(f"{rows}", images_per_class=10, shard_rows=rows)))) == one
    few = pixels(generate(open_plan(given("later", images_per_class=6))))
    more = pixels(generate(open_plan(given("later", images_per_class=10))))
    assert few.items() <= more.items() and more == one and len(set(one.values())) == 20


def own_pool(folder, shift=0):
    """Class folders train/ and test/ of some small images."""
    images = np.random.default_rng(1).integers(0, 200, (2, 2, 6, 3, 32, 32), dtype=np.uint8)
    for i, split in enumerate(("train", "test")):
        for j, name in enumerate(("three", "seven")):
            (folder / split / name).mkdir(parents=True)
            for k, image in enumerate(images[i, j]):
                Image.fromarray(image.transpose(1, 2, 0) + shift).save(folder / split / name / f"{k}.png")
    return str(folder)


def test_other_pixels_under_the_same_names_are_another_key_and_draw_anew(given, tmp_path):
    first = own_pool(tmp_path / "a" / "set")
    moved = shutil.copytree(first, tmp_path / "b" / "set")
    other = own_pool(tmp_path / "c" / "set", shift=20)
    plans = [open_plan(given(real_dir=str(place), images_per_class=2)) for place in (first, moved, other)]
    assert len({tuple(plan.rows(0, 4)["prompt"].to_pylist()) for plan in plans}) == 1
    assert plans[0].key == plans[1].key != plans[2].key
    assert "mean of pool images train/" in plans[0].rows(0, 1)["prompt"][0].as_py()
    before = pixels(generate(plans[0]))
    with pytest.raises(InputError, match="another plan's shards"):
        open_plan(given(real_dir=other, images_per_class=2))
    after = pixels(generate(open_plan(given(real_dir=other, images_per_class=2, replace=True))))
    assert before.keys() == after.keys() and not set(before.values()) & set(after.values())


def test_an_image_is_drawn_again_from_its_row(given):
    asked = given(images_per_class=3, trick="image_interpolated")
    plan = open_plan(asked)
    files = generate(plan)
    begin("01_generate", asked).finish(files)
    found = redraw(plan.folder, "digits-image_interpolated-seven-r0-000002")
    assert found.equal and not found.differences
    assert rows_of(files)[0]["pool"].startswith("6 of each class, sha256:")


# ---- refusals ----


def refusal(call, *given):
    with pytest.raises(InputError) as caught:
        call(*given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_trick_of_prompts_with_an_image_model_and_the_other_way_round_are_refused(given, tiny_sd, tmp_path):
    for trick in ("class_prompt", "merged", "prompt_list", "domain_guidance"):
        said = refusal(open_plan, given(trick=trick))
        assert f"draws from images, but trick '{trick}' gives prompts; expected a text-to-image model" in said
    for model in ("", str(tiny_sd)):
        said = refusal(open_plan, given(model=model))
        assert "draws from text, but trick 'image_averaged' gives images; expected a diffusers folder" in said
    assert not (tmp_path / "run").exists()


def test_the_scripts_order_of_noise_is_refused(given):
    said = refusal(open_plan, given(noise="compvis", num_inference_steps=4))
    assert "noise is 'compvis' with trick 'image_averaged'; expected 'per_image'" in said


def test_a_pool_that_is_too_small_is_refused(given, tmp_path):
    said = refusal(open_plan, given(pool_per_class=7, real_dir=own_pool(tmp_path / "small")))
    assert "has 6 images of 'three'; expected at least 7" in said
    assert "pool_per_class is 2; expected at least 3" in refusal(open_plan, given(pool_per_class=2))
    said = refusal(open_plan, given(pool_per_class=1, trick="image_interpolated"))
    assert "pool_per_class is 1; expected at least 2" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: shutil.rmtree(m / "feature_extractor"), "cannot open the checkpoint"),
        (lambda m: shutil.rmtree(m / "image_encoder"), "cannot open the checkpoint"),
        (lambda m: (m / "image_encoder" / "model.safetensors").write_bytes(b"cut"), "cannot open the checkpoint"),
    ],
)
def test_an_image_model_that_is_not_whole_is_one_line(variations, tmp_path, change, said):
    shutil.copytree(variations, tmp_path / "m")
    change(tmp_path / "m")
    assert said in refusal(checkpoints.open_checkpoint, str(tmp_path / "m"))


def test_an_image_model_of_another_noise_schedule_is_refused(given, variations, tmp_path):
    shutil.copytree(variations, tmp_path / "v")
    file = tmp_path / "v" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "v_prediction"}))
    assert "has another noise schedule" in refusal(open_plan, given(model=str(tmp_path / "v")))


def test_an_encoder_whose_embeddings_the_unet_does_not_take_is_refused(variations, tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    shutil.copytree(variations, tmp_path / "m")
    config = CLIPVisionConfig.from_pretrained(variations / "image_encoder")
    config.projection_dim = 24
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "m" / "image_encoder")
    said = refusal(checkpoints.open_checkpoint, str(tmp_path / "m"))
    assert "has embeddings of 24 numbers, its unet takes 16" in said


def test_an_image_model_has_no_text_encoder_and_does_not_train(model):
    assert model.tokenizer is None and model.text_encoder is None
    names = {
        field.name for field in dataclasses.fields(model) if isinstance(getattr(model, field.name), torch.nn.Module)
    }
    assert names == {"image_encoder", "unet", "vae"}
    assert not any(getattr(model, name).training for name in names)
