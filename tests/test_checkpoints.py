"""Any text-to-image checkpoint: a single file is its diffusers twin to the last bit, other families draw as diffusers does."""

import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_models import compvis_config, write_tiny_sd, write_tiny_sd3, write_tiny_sdxl, write_tiny_single_file

from synthlib.generation import checkpoints, single_file
from synthlib.generation.pipelines import draw_with_pipeline, open_pipeline
from synthlib.generation.single_file import open_single_file, open_tokenizer
from synthlib.inputs import InputError

CPU = torch.device("cpu")
NETWORKS = ("unet", "vae", "text_encoder")


def refusal(call, *given):
    """The one line with which a call refuses what it is given."""
    with pytest.raises(InputError) as caught:
        call(*given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- one file in CompVis's layout ----


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("models") / "twin", width=32)


@pytest.fixture(scope="module")
def single(twin, tmp_path_factory):
    """The twin as one file, with its YAML and tokenizer."""
    file = write_tiny_single_file(twin, tmp_path_factory.mktemp("single") / "model.safetensors")
    shutil.copytree(twin / "tokenizer", file.parent / "model" / "tokenizer")
    return file


@pytest.fixture
def beside(single, tmp_path):
    """beside("name.ckpt"): a new file's path, with the tiny model's YAML and tokenizer in place."""

    def make(name):
        file = tmp_path / name
        shutil.copy(single.with_suffix(".yaml"), file.with_suffix(".yaml"))
        shutil.copytree(single.parent / "model" / "tokenizer", tmp_path / "tokenizer", dirs_exist_ok=True)
        return file

    return make


@pytest.fixture
def changed(single, beside):
    """changed(function): a file whose tensors the function has changed, and that says `metadata` of itself."""
    from safetensors.torch import load_file, save_file

    def make(change, metadata=None):
        tensors = load_file(single)
        save_file(change(tensors) or tensors, beside("changed.safetensors"), metadata=metadata)
        return beside("changed.safetensors")

    return make


def folder_parts(folder):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import AutoTokenizer, CLIPTextModel

    kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    return {name: kind.from_pretrained(folder / name).eval() for name, kind in kinds.items()} | {
        "tokenizer": AutoTokenizer.from_pretrained(folder / "tokenizer")
    }


def drawn(parts, file, seeds=(5, 2**64 - 1)):
    """Images of two prompts with and without guidance, by our sampler."""
    from synthlib.generation.checkpoints import Checkpoint, encode_prompts
    from synthlib.generation.sampler import draw

    checkpoint = Checkpoint(file, **parts, device=CPU, height=512, width=512)
    with torch.inference_mode():
        text = encode_prompts(checkpoint, ["", "a photo of a cat", "a dog"])
        return draw(checkpoint, text[1:], text[:1], torch.tensor([7.5, 1.0]), list(seeds), 4, 64, 64)


def same_weights(left, right):
    for part in NETWORKS:
        ours, theirs = left[part].state_dict(), right[part].state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    return True


def test_a_single_file_is_its_diffusers_twin_bit_by_bit(single, twin):
    one, folder = open_single_file(single, torch.float32), folder_parts(twin)
    assert same_weights(one, folder)
    for part in ("unet", "vae"):
        ours, theirs = one[part].config, folder[part].config
        assert all(ours[name] == theirs[name] for name in ours if not name.startswith("_"))
    images = drawn(one, single)
    assert torch.equal(images, drawn(folder, twin)) and images.shape == (2, 64, 64, 3)
    assert not torch.equal(images, drawn(one, single, seeds=(6, 2**64 - 1)))


def test_a_single_file_takes_the_precision_asked_for(single):
    parts = open_single_file(single, torch.bfloat16)
    for name in NETWORKS:
        assert not parts[name].training
        assert {x.dtype for x in parts[name].parameters()} == {torch.bfloat16}
        assert {x.device.type for x in [*parts[name].parameters(), *parts[name].buffers()]} == {"cpu"}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_ckpt_of_plain_tensors_is_the_same_model(single, beside, zipped):
    from safetensors.torch import load_file

    file = beside("model.ckpt")
    state = {"state_dict": load_file(single), "global_step": 470000}
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    assert same_weights(open_single_file(file, torch.float32), open_single_file(single, torch.float32))


@pytest.mark.parametrize("mark", [torch.zeros(0), True])
def test_a_mark_beside_the_weights_of_a_ckpt_is_read(single, beside, mark):
    from safetensors.torch import load_file

    torch.save({"state_dict": load_file(single), "v_pred": mark}, file := beside("model.ckpt"))
    assert "v_pred" in refusal(open_single_file, file, torch.float32)


class Callback:
    """What a training framework pickles beside the weights; unpickling it leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_pickled_code_is_refused_in_one_line_and_not_run(single, beside, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    mark = tmp_path / "ran"
    for zipped in (False, True):
        state = {"callbacks": Callback(mark), "state_dict": load_file(single)}
        torch.save(state, beside("model.ckpt"), _use_new_zipfile_serialization=zipped)
        said = refusal(open_single_file, tmp_path / "model.ckpt", torch.float32)
        assert "holds pickled code" in said and "does not run it" not in said and "which synthlib does not run" in said
        assert not mark.exists()
    beside("model-tensors.ckpt")
    monkeypatch.chdir(tmp_path)
    exec(re.search('python -c "(.*)"$', said)[1])  # the way out that the line names
    assert mark.exists()  # so the code was there to run
    assert same_weights(
        open_single_file(tmp_path / "model-tensors.ckpt", torch.float32), open_single_file(single, torch.float32)
    )


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.ckpt", "old.ckpt"])
@pytest.mark.parametrize("kept", [0, 10, 1000, 0.5, 0.999])
def test_a_truncated_file_is_one_line(single, beside, name, kept):
    from safetensors.torch import load_file

    file = beside(name)
    if file.suffix == ".safetensors":
        shutil.copy(single, file)
    else:
        torch.save(load_file(single), file, _use_new_zipfile_serialization=name == "cut.ckpt")
    whole = file.read_bytes()
    file.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    assert "fetch it again" in refusal(open_single_file, file, torch.float32)


def renamed(old, new):
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


def only(start):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name.startswith(start)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (renamed("cond_stage_model.", "conditioner.embedders.0."), "Stable Diffusion XL; expected the whole of Stable"),
        (renamed("cond_stage_model.transformer", "cond_stage_model.model"), "holds Stable Diffusion 2;"),
        (
            only("model.diffusion_model."),
            r"holds only model.diffusion_model.\*;.* no first_stage_model.\* and no cond_",
        ),
        (lambda tensors: {"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(2)}, "holds a LoRA"),
        (lambda tensors: {"fc.weight": torch.zeros(2)}, "holds keys such as 'fc.weight'"),
    ],
)
def test_another_layout_is_named_in_one_line(changed, change, said):
    line = refusal(open_single_file, changed(change), torch.float32)
    assert re.search(said, line) and "diffusers folder" in line


CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda tensors: tensors.pop(CONV_IN) is None,
            "has conv_in.weight missing where UNet2DConditionModel has [32, 4",
        ),
        (lambda tensors: tensors.update({CONV_IN: torch.zeros(32, 9, 3, 3)}), "has conv_in.weight [32, 9, 3, 3] where"),
        (
            lambda tensors: tensors.update({"model.diffusion_model.label_emb.0.0.weight": torch.zeros(2)}),
            "label_emb.0.0",
        ),
        (lambda tensors: tensors.update({"v_pred": torch.zeros(0)}), "marked v_pred"),
        (lambda tensors: tensors.update({"ztsnr": torch.zeros(1)}), "marked ztsnr"),
        (
            lambda tensors: tensors.update({"betas": torch.linspace(0.0001, 0.02, 1000)}),
            "betas of another noise schedule",
        ),
        (lambda tensors: tensors.update({"alphas_cumprod": torch.zeros(1000)}), "alphas_cumprod of another"),
        (lambda tensors: tensors.update({"scale_factor": torch.tensor(0.3)}), "a scale_factor of 0.3"),
        (
            lambda tensors: tensors.pop("first_stage_model.quant_conv.bias") is None,
            "quant_conv.bias missing where Auto",
        ),
        (
            renamed("mlp.fc1", "mlp.fc9"),
            "has no cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
        ),
        (
            renamed("encoder.layers.1.layer_norm1", "encoder.layers.1.layer_norm3"),
            "layer_norm1.bias missing where CLIP",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_an_error(changed, change, said):
    assert said in refusal(open_single_file, changed(change), torch.float32)


def test_what_training_leaves_in_a_file_is_passed_over(single, changed):
    from diffusers import DDIMScheduler

    names = ("model_ema.decay", "model_ema.diffusion_modelout2bias", "loss.logvar", "logvar",
             "first_stage_model.loss.discriminator.main.0.weight", "sqrt_one_minus_alphas_cumprod", "posterior_variance",
             "cond_stage_model.transformer.text_model.embeddings.position_ids", "cond_stage_model.logit_scale")  # fmt: skip
    schedule = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    left = {
        "betas": schedule.betas,
        "alphas_cumprod": schedule.alphas_cumprod.half(),
        "scale_factor": torch.tensor(0.18215),
    }
    file = changed(lambda tensors: tensors.update({name: torch.zeros(3) for name in names} | left))
    assert same_weights(open_single_file(file, torch.float32), open_single_file(single, torch.float32))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("modelspec.prediction_type", "v"),
        ("modelspec.predict_key", "v"),
        ("modelspec.architecture", "stable-diffusion-v2-768-v"),
        ("modelspec.timestep_range", "500,999"),
        ("modelspec.encoder_layer", "2"),
        ("modelspec.resolution", "large"),
        ("modelspec.resolution", "768x768"),  # the YAML beside it says 512
        ("ss_zero_terminal_snr", "True"),
        ("prediction_type", "v_prediction"),
        ("ss_base_model_version", "sd_v1_v"),
    ],
)
def test_what_a_file_says_of_another_process_is_refused_by_name(changed, name, value):
    said = refusal(open_single_file, changed(lambda tensors: None, {name: value}), torch.float32)
    assert name in said and repr(value) in said


def test_what_a_file_says_of_stable_diffusion_v1_is_no_hindrance(single, changed):
    said = {"modelspec.architecture": "stable-diffusion-v1", "modelspec.prediction_type": "epsilon", "modelspec.title": "Mine",
            "modelspec.resolution": "512x512", "modelspec.timestep_range": "0,1000", "format": "pt"}  # fmt: skip
    file = changed(lambda tensors: None, said)
    assert same_weights(open_single_file(file, torch.float32), open_single_file(single, torch.float32))


def test_without_a_yaml_the_resolution_that_a_file_says_is_its_native_size(tmp_path):
    unet, _, _ = single_file._sizes(tmp_path / "m.safetensors", {}, {"modelspec.resolution": "768x512"})
    assert unet["sample_size"] == [64, 96]  # the width is said first


def clip(layer, number):
    params = {"layer": layer, "layer_idx": number, "version": "openai/clip-vit-large-patch14"}
    return {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder", "params": params}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda params: params.update(parameterization="v"), "parameterization 'v'"),
        (lambda params: params.update(linear_end=0.02), "linear_end 0.02"),
        (lambda params: params.update(beta_schedule="cosine"), "beta_schedule 'cosine'"),
        (lambda params: params.update(use_ema=True), "use_ema True"),
        (lambda params: params.update(conditioning_key="hybrid"), "conditioning_key 'hybrid'"),
        (lambda params: params.update(never_heard_of=1), "never_heard_of 1"),
        (lambda params: params.update(cond_stage_config=clip("hidden", -2)), "cond_stage_config.params.layer 'hidden'"),
        (lambda params: params.update(cond_stage_config=clip("last", -2)), "cond_stage_config.params.layer_idx -2"),
        (
            lambda params: params.update(cond_stage_config={"target": "ldm.modules.encoders.modules.BERTEmbedder"}),
            "cond_stage_config.target",
        ),
        (lambda params: params["unet_config"]["params"].update(num_classes=10), "unet_config.params.num_classes 10"),
        (lambda params: params["unet_config"].update(num_classes=10), "unet_config.num_classes 10"),
        (lambda params: params.update(cond_stage_config={"layer": "hidden"}), "cond_stage_config.layer 'hidden'"),
        (lambda params: params.update(image_size="64"), "image_size '64'"),
        (lambda params: params.pop("unet_config"), "v1-inference.yaml"),
        (lambda params: params["unet_config"]["params"].update(model_channels=20), "describes no model"),
        (
            lambda params: params["unet_config"]["params"].update(channel_mult=[1, 2, 2]),
            "where UNet2DConditionModel has [64",
        ),
    ],
)
def test_a_yaml_that_does_not_belong_is_one_line(single, beside, change, said):
    file = beside("model.safetensors")
    shutil.copy(single, file)
    config = yaml.safe_load(file.with_suffix(".yaml").read_text())
    change(config["model"]["params"])
    file.with_suffix(".yaml").write_text(yaml.safe_dump(config))
    assert said in refusal(open_single_file, file, torch.float32)


def test_without_a_yaml_a_file_must_have_stable_diffusion_v1s_sizes(single, beside):
    file = beside("model.safetensors")
    shutil.copy(single, file)
    file.with_suffix(".yaml").unlink()
    assert "[77, 64] where CLIPTextModel has [77, 768]" in refusal(open_single_file, file, torch.float32)


def test_stable_diffusion_v1s_sizes_have_its_parameter_counts_and_are_its_yamls(tmp_path):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    (tmp_path / "v1.yaml").write_text(yaml.safe_dump(compvis_config()))
    words = {"embeddings.token_embedding": (49408, 768), "embeddings.position_embedding": (77, 768)}
    layers = {f"encoder.layers.{i}.mlp.fc1": (3072, 768) for i in range(12)}
    shapes = {f"cond_stage_model.transformer.text_model.{name}.weight": x for name, x in (words | layers).items()}
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
        unet, vae, text = single_file._sizes(tmp_path / "v1.safetensors", tensors, {})
        made = {UNet2DConditionModel: (single_file.SD_V1_UNET, unet), AutoencoderKL: (single_file.SD_V1_VAE, vae)}
        networks = [CLIPTextModel(CLIPTextConfig(**single_file.SD_V1_TEXT))]
        for kind, (constant, from_yaml) in made.items():
            networks.append(kind(**constant))
            assert json.loads(networks[-1].to_json_string()) == json.loads(kind(**from_yaml).to_json_string())
    assert text == single_file.SD_V1_TEXT
    millions = [round(sum(x.numel() for x in network.parameters()) / 1e6, 2) for network in networks]
    assert millions == [123.06, 859.52, 83.65]


# ---- the tokenizer that a single file lacks ----


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="needs pip install open-clip-torch")
def test_open_clips_vocabulary_gives_stable_diffusions_token_ids(tmp_path):
    from open_clip import tokenize

    tokenizer = open_tokenizer(tmp_path / "model.ckpt")
    given = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
    ids = tokenizer("a photo of a cat", **given).input_ids
    assert ids == [49406, 320, 1125, 539, 320, 2368] + [49407] * 71
    for prompt in ("Hello, World's 3rd café — 你好", "an image of a Siberian husky, sled dog", "word " * 100):
        reference = tokenize([prompt])[0]
        end = int(reference.argmax()) + 1  # open_clip pads with 0
        ids = tokenizer(prompt, **given).input_ids
        assert ids[:end] == reference[:end].tolist() and set(ids[end:]) <= {49407}
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_folder_beside_the_file_comes_first(single, tmp_path):
    shutil.copytree(single.parent / "model" / "tokenizer", tmp_path / "tokenizer")
    assert len(open_tokenizer(tmp_path / "model.ckpt")) == 190
    (tmp_path / "tokenizer" / "vocab.json").write_text("{")
    (tmp_path / "tokenizer" / "merges.txt").unlink()
    assert "mend or remove it" in refusal(open_tokenizer, tmp_path / "model.ckpt")


def test_without_any_tokenizer_the_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install open-clip-torch" in refusal(open_tokenizer, tmp_path / "model.ckpt")


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="needs pip install open-clip-torch")
def test_a_tokenizer_with_more_words_than_the_text_encoder_is_refused(single, tmp_path):
    for file in (single, single.with_suffix(".yaml")):
        shutil.copy(file, tmp_path)
    said = refusal(open_single_file, tmp_path / "model.safetensors", torch.float32)
    assert "has 49408 words" in said and "its text encoder only 190" in said


# ---- a folder is what it says, or is refused ----


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("models") / "sd")


def config(folder, name, **changes):
    """Change values of a JSON file; one that becomes "gone" is left out."""
    file = folder / name
    new = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in new.items() if value != "gone"}))


def tensors(folder, name, change):
    from safetensors.torch import load_file, save_file

    [file] = (folder / name).glob("*.safetensors")
    found = load_file(file)
    save_file(change(found) or found, file, metadata={"format": "pt"})


def without(part):
    return lambda found: {name: tensor for name, tensor in found.items() if part not in name}


def saved_anew(folder, name, kind, **changes):
    import diffusers
    import transformers

    if kind in ("UNet2DConditionModel", "AutoencoderKL"):
        kind = getattr(diffusers, kind)
        kind.from_config(kind.load_config(folder / name) | changes).save_pretrained(folder / name)
    else:
        kind = getattr(transformers, kind)
        kind(kind.config_class.from_pretrained(folder / name, **changes)).save_pretrained(folder / name)


def add_word(folder, name):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / name)
    tokenizer.add_tokens(["sks"])
    tokenizer.save_pretrained(folder / name)


def as_variant(folder):
    for file in folder.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))


def as_pointer(file):
    file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 492265874\n")


def as_link(file, target):
    file.unlink()
    file.symlink_to(target)


UNET, TEXT, SCHEDULE = "unet/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: tensors(m, "text_encoder", without("layers.1.")), "16 missing"),
        (lambda m: tensors(m, "unet", without("conv_out.bias")), "1 missing (conv_out.bias)"),
        (lambda m: tensors(m, "vae", without("conv_out.bias")), "2 missing (decoder.conv_out.bias)"),
        (lambda m: tensors(m, "unet", renamed("conv", "module.conv")), "missing (conv_in.bias)"),
        (
            lambda m: tensors(m, "unet", lambda found: found.update({"class_embedding.weight": torch.ones(2)})),
            "1 unexpected",
        ),
        (lambda m: config(m, TEXT, num_hidden_layers=1), "16 unexpected"),
        (lambda m: config(m, TEXT, intermediate_size=65), "mismatched"),
        (lambda m: config(m, UNET, block_out_channels=[8, 8, 16]), "expected shape"),
        (lambda m: config(m, "vae/config.json", _class_name="AutoencoderTiny"), "is of a AutoencoderTiny"),
        (lambda m: (m / SCHEDULE).write_text('{"prediction_type": "v_pre'), "scheduler_config.json is cut short"),
        (lambda m: (m / SCHEDULE).write_text("[]"), "scheduler_config.json is cut short"),
        (lambda m: shutil.rmtree(m / "scheduler"), "scheduler_config.json is not there"),
        (lambda m: config(m, SCHEDULE, _class_name="gone"), "for the scheduler"),
        (lambda m: (m / UNET).write_text("{"), "config.json is cut short"),
        (lambda m: (m / "model_index.json").write_text("[]"), "model_index.json is cut short"),
        (lambda m: config(m, UNET, sample_size="64"), "'64'"),
        (lambda m: config(m, UNET, sample_size=None), "None"),
        (lambda m: saved_anew(m, "unet", "UNet2DConditionModel", in_channels=9), "takes 9 channels"),
        (lambda m: saved_anew(m, "unet", "UNet2DConditionModel", out_channels=8), "gives 8"),
        (lambda m: saved_anew(m, "unet", "UNet2DConditionModel", cross_attention_dim=32), "words of 64 numbers"),
        (lambda m: saved_anew(m, "vae", "AutoencoderKL", latent_channels=8), "its vae has 8"),
        (lambda m: saved_anew(m, "vae", "AutoencoderKL", out_channels=1), "do not go together"),
        (lambda m: saved_anew(m, "text_encoder", "CLIPTextModel", max_position_embeddings=20), "reads 20"),
        (lambda m: add_word(m, "tokenizer"), "the last is 'sks'"),
        (as_variant, "only model.fp16.safetensors"),
        (lambda m: pickle_only(m / "vae" / "diffusion_pytorch_model.safetensors"), "only diffusion_pytorch_model.bin"),
        (lambda m: as_pointer(m / "unet" / "diffusion_pytorch_model.safetensors"), "git lfs pull"),
        (lambda m: config(m, "tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own"]}), "auto_map"),
        (lambda m: config(m, TEXT, text_config={"auto_map": {"AutoModel": "own.Own"}}), "auto_map"),
        (lambda m: config(m, "model_index.json", unet=["own", "Own"]), "['own', 'Own']"),
        (lambda m: config(m, "model_index.json", scheduler=["own", "Own"]), "['own', 'Own']"),
        (lambda m: config(m, "model_index.json", scheduler=["diffusers", "LCMScheduler"]), "the same class in both"),
        *(
            (lambda m, scale=scale: config(m, "vae/config.json", scaling_factor=scale), "a number above 0")
            for scale in (None, "0.18215", True, 0, -1, float("nan"), float("inf"))
        ),
        (lambda m: (m / UNET).write_text("[" * 100_000), "config.json is cut short"),
        (lambda m: as_link((m / UNET), m / UNET), "config.json is not there"),
        (lambda m: config(m, "tokenizer/vocab.json", **{"cat</w>": 190}), "does not make 'cat</w>'"),
        (lambda m: config(m, "model_index.json", _class_name=["own", "Own"]), "['own', 'Own']"),
    ],
)
def test_a_folder_whose_parts_are_not_what_it_says_is_one_line(sd_folder, tmp_path, change, said):
    folder = tmp_path / "m"
    shutil.copytree(sd_folder, folder)
    change(folder)
    assert said in refusal(checkpoints.open_checkpoint, str(folder))


def test_a_folder_of_older_names_is_the_same_model(sd_folder, tmp_path):
    """As Stable Diffusion v1.4's: an attention's layers, the text model one level deeper, a buffer that nothing reads."""
    shutil.copytree(sd_folder, tmp_path / "m")
    older = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}

    def rename(found):
        return {re.sub("|".join(older), lambda m: older[m[0]], name): tensor for name, tensor in found.items()}

    def deeper(found):
        found = {"text_model." + name.removeprefix("text_model."): tensor for name, tensor in found.items()}
        return found | {"text_model.embeddings.position_ids": torch.arange(77)[None]}

    tensors(tmp_path / "m", "vae", rename)
    tensors(tmp_path / "m", "text_encoder", deeper)
    assert same_weights(*(vars(checkpoints.open_checkpoint(str(m))) for m in (tmp_path / "m", sd_folder)))


def test_the_way_out_of_pickled_weights_that_the_line_names(sd_folder, tmp_path, monkeypatch):
    shutil.copytree(sd_folder, tmp_path / "m")
    pickle_only(tmp_path / "m" / "text_encoder" / "model.safetensors")
    said = refusal(checkpoints.open_checkpoint, str(tmp_path / "m"))
    monkeypatch.chdir(tmp_path / "m" / "text_encoder")
    exec(re.search('python -c "(.*)"$', said)[1])
    assert same_weights(*(vars(checkpoints.open_checkpoint(str(m))) for m in (tmp_path / "m", sd_folder)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sample_size": 32, "_diffusers_version": "0.6.0"}, (512, 512)),  # as diffusers' pipeline draws it
        ({"sample_size": 32, "_diffusers_version": "0.9.0.dev0"}, (256, 256)),
        ({"sample_size": 32, "_diffusers_version": "gone"}, (256, 256)),
        ({"sample_size": [8, 16], "_diffusers_version": "0.6.0"}, (64, 128)),
        ({"sample_size": 96, "_diffusers_version": "0.6.0"}, (768, 768)),
    ],
)
def test_native_size_is_that_of_diffusers_pipeline(sd_folder, tmp_path, changes, expected):
    from diffusers import StableDiffusionPipeline

    folder = tmp_path / "m"
    shutil.copytree(sd_folder, folder)
    config(folder, UNET, **changes)
    assert checkpoints.for_our_sampler(folder)
    opened = checkpoints.open_checkpoint(str(folder))
    assert (opened.height, opened.width) == expected
    size = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None).unet.config.sample_size
    assert [side * 8 for side in ([size, size] if isinstance(size, int) else size)] == list(expected)


# As in the folder of Stable Diffusion v1.4.
V1 = {"_class_name": "PNDMScheduler", "_diffusers_version": "0.7.0.dev0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
      "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
      "trained_betas": None, "clip_sample": False}  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "file", "changes"),
    [
        (True, SCHEDULE, {}),
        (True, SCHEDULE, {"_class_name": "DDIMScheduler", "steps_offset": 0, "clip_sample": True}),
        (True, SCHEDULE, {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "linspace"}),
        (True, SCHEDULE, {"_class_name": "EulerAncestralDiscreteScheduler"}),
        (
            True,
            SCHEDULE,
            {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True, "variance_type": None},
        ),
        (True, SCHEDULE, {"_class_name": "DDPMScheduler", "variance_type": "fixed_small", "thresholding": False}),
        (True, UNET, {"class_embed_type": None, "time_cond_proj_dim": None}),
        (False, SCHEDULE, {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}),
        (False, SCHEDULE, {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}),
        *(
            (False, SCHEDULE, {"_class_name": f"{name}Scheduler"})
            for name in ("LCM", "TCD", "EDMEuler", "CMStochasticIterative")
        ),
        (False, SCHEDULE, {"_class_name": ["own", "Own"]}),
        (False, SCHEDULE, {"beta_end": 0.02}),
        (False, SCHEDULE, {"beta_schedule": "gone"}),  # then diffusers takes its own default, which is another
        (False, SCHEDULE, {"trained_betas": [0.1] * 1000}),
        (False, SCHEDULE, {"rescale_betas_zero_snr": True}),
        (False, SCHEDULE, {"prediction_type": "v_prediction"}),
        (False, SCHEDULE, {"thresholding": True}),
        (False, SCHEDULE, {"use_flow_sigmas": True}),
        (False, SCHEDULE, {"variance_type": "learned_range"}),
        (False, SCHEDULE, {"timestep_type": "continuous"}),
        (False, UNET, {"time_cond_proj_dim": 256}),  # LCM
        (False, UNET, {"num_class_embeds": 10}),
        (False, UNET, {"addition_embed_type": "text_time"}),
        (False, UNET, {"attention_type": "gated"}),
        (False, TEXT, {"use_attention_mask": True}),
        (False, "model_index.json", {"vae": ["diffusers", "AsymmetricAutoencoderKL"]}),
        (False, "model_index.json", {"_class_name": "LatentConsistencyModelPipeline"}),
    ],
)
def test_our_sampler_draws_what_samples_the_same_process_and_nothing_else(sd_folder, tmp_path, ours, file, changes):
    folder = tmp_path / "m"
    shutil.copytree(sd_folder, folder)
    (folder / SCHEDULE).write_text(json.dumps(V1))
    config(folder, file, **changes)
    assert checkpoints.for_our_sampler(folder) == ours
    name = json.loads((folder / SCHEDULE).read_text())["_class_name"]
    assert checkpoints.scheduler_name(folder) == ("DDIM, eta 0, leading timesteps, offset 1" if ours else str(name))


def test_a_few_step_model_is_drawn_by_the_scheduler_that_its_folder_names(sd_folder, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(sd_folder, folder)  # model_index.json says PNDM
    config(folder, SCHEDULE, _class_name="EulerDiscreteScheduler", timestep_spacing="trailing")
    model = checkpoints.open_checkpoint(str(folder))
    assert model.scheduler == checkpoints.scheduler_name(folder) == "EulerDiscreteScheduler"
    images = draw_with_pipeline(model, PROMPTS[:1], torch.tensor([1.0]), SEEDS[:1], 1, 64, 64)
    assert model.pipeline.scheduler.timesteps.tolist() == [999]
    assert torch.equal(images, direct(model, PROMPTS[:1], 1.0, SEEDS[:1], num_inference_steps=1))


# ---- other families ----


@pytest.fixture(scope="module")
def sdxl_folder(tmp_path_factory):
    return write_tiny_sdxl(tmp_path_factory.mktemp("models") / "sdxl")


@pytest.fixture(scope="module")
def sdxl(sdxl_folder):
    return open_pipeline(sdxl_folder, CPU, torch.float32)


PROMPTS, SCALES, SEEDS = ["a cat", "a dog", "an owl", "a fox"], [7.5, 1.0, 7.5, 2.5], [3, 2**64 - 1, 2**63 + 5, 11]


def direct(model, prompts, scale, seeds, **given):
    """What the pipeline itself draws, as it makes pictures of its pixels."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    given = {"num_inference_steps": 4, "height": 64, "width": 64} | given
    images = model.pipeline(prompts, guidance_scale=scale, generator=generators, **given).images
    return torch.from_numpy(np.stack([np.asarray(image) for image in images]))


def far(left, right):
    """The largest difference of two images, in levels."""
    return (left.int() - right.int()).abs().max().item()


def test_a_pipelines_images_are_those_of_direct_calls_in_the_order_asked(sdxl):
    images = draw_with_pipeline(sdxl, PROMPTS, torch.tensor(SCALES), SEEDS, 4, 64, 64)
    assert images.shape == (4, 64, 64, 3) and images.dtype == torch.uint8
    pair = direct(sdxl, ["a cat", "an owl"], 7.5, [SEEDS[0], SEEDS[2]])
    assert torch.equal(images[[0, 2]], pair)  # one call per scale
    for row in (1, 3):
        assert torch.equal(images[row : row + 1], direct(sdxl, [PROMPTS[row]], SCALES[row], [SEEDS[row]]))
    for row in range(4):
        alone = direct(sdxl, [PROMPTS[row]], SCALES[row], [SEEDS[row]])[0]
        assert far(images[row], alone) <= 1 < 20 < min(far(alone, images[other]) for other in range(4) if other != row)


def test_neighbours_seeds_and_scales_do_not_change_an_image(sdxl):
    one = draw_with_pipeline(sdxl, PROMPTS, torch.tensor(SCALES), SEEDS, 4, 64, 64)
    other = draw_with_pipeline(sdxl, PROMPTS, torch.tensor([7.5, 3.0, 7.5, 4.0]), [3, 4, 6, 7], 4, 64, 64)
    assert torch.equal(one[0], other[0])
    assert not any(torch.equal(one[row], other[row]) for row in (1, 2, 3))


def test_a_pipeline_is_drawn_without_watermark_and_says_its_size_and_scheduler(sdxl):
    assert (sdxl.height, sdxl.width, sdxl.scheduler) == (64, 64, "EulerDiscreteScheduler")
    assert sdxl.pipeline.watermark is None
    assert not any(part.training for part in sdxl.pipeline.components.values() if isinstance(part, torch.nn.Module))


def test_a_transformer_model_draws(tmp_path):
    model = open_pipeline(write_tiny_sd3(tmp_path / "sd3"), CPU, torch.float32)
    assert (model.height, model.width, model.scheduler) == (64, 64, "FlowMatchEulerDiscreteScheduler")
    images = draw_with_pipeline(model, PROMPTS[:2], torch.tensor([5.0, 3.0]), SEEDS[:2], 4, 64, 64)
    for row, scale in enumerate((5.0, 3.0)):
        assert torch.equal(images[row : row + 1], direct(model, [PROMPTS[row]], scale, [SEEDS[row]]))


def test_v_prediction_is_drawn_by_the_checkpoints_own_scheduler(tmp_path):
    folder = write_tiny_sd(tmp_path / "v")
    file = folder / "scheduler" / "scheduler_config.json"
    noise = open_pipeline(folder, CPU, torch.float32)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "v_prediction"}))
    # Listed, but left out by a download for drawing without the safety checker.
    config(folder, "model_index.json", feature_extractor=["transformers", "CLIPImageProcessor"])
    model = open_pipeline(folder, CPU, torch.float32)
    assert (model.height, model.width, model.scheduler) == (512, 512, "PNDMScheduler")
    assert model.pipeline.scheduler.config.prediction_type == "v_prediction"
    asked = (PROMPTS[:1], torch.tensor([7.5]), SEEDS[:1], 4, 64, 64)  # PNDM repeats a timestep: five for four
    images = draw_with_pipeline(model, *asked)
    assert torch.equal(images, direct(model, PROMPTS[:1], 7.5, SEEDS[:1]))
    assert not torch.equal(images, draw_with_pipeline(noise, *asked))


def test_a_scheduler_that_makes_another_number_of_steps_is_refused(sdxl, monkeypatch):
    asked = (sdxl, PROMPTS[:1], torch.tensor([2.0]), [1], 4, 64, 64)
    real = sdxl.pipeline.scheduler.set_timesteps
    for change in (-1, 1):
        monkeypatch.setattr(sdxl.pipeline.scheduler, "set_timesteps", lambda n, c=change, **k: real(n + c, **k))
        assert f"makes {4 + change} steps where 4 were asked" in refusal(draw_with_pipeline, *asked)


def test_a_second_order_scheduler_may_have_more_timesteps(sdxl, monkeypatch):
    from diffusers import HeunDiscreteScheduler

    monkeypatch.setattr(
        sdxl.pipeline, "scheduler", HeunDiscreteScheduler.from_config(sdxl.pipeline.scheduler.config), raising=False
    )
    assert draw_with_pipeline(sdxl, PROMPTS[:1], torch.tensor([2.0]), [1], 4, 64, 64).shape == (1, 64, 64, 3)
    assert len(sdxl.pipeline.scheduler.timesteps) == 7


def test_a_bad_size_is_one_line(sdxl):
    said = refusal(draw_with_pipeline, sdxl, PROMPTS[:1], torch.tensor([2.0]), [1], 4, 60, 64)
    assert "cannot draw 60 x 64 pixels" in said and "divisible by 8" in said and "its own size is 64 x 64" in said


def test_an_image_of_another_size_than_asked_is_refused(sdxl):
    def smaller(**given):
        return sdxl.pipeline(**(given | {"height": 56}))  # as Flux does with a size that it cannot draw

    smaller.scheduler = sdxl.pipeline.scheduler
    said = refusal(
        draw_with_pipeline, replace(sdxl, pipeline=smaller), PROMPTS[:1], torch.tensor([2.0]), [1], 4, 64, 64
    )
    assert "drew 56 x 64 pixels where 64 x 64 were asked" in said


def test_what_a_pipeline_cannot_draw_with_is_one_line_and_too_little_memory_is_not(sdxl):
    def fails(said):
        def pipeline(**given):
            raise RuntimeError(said)

        return (replace(sdxl, pipeline=pipeline), PROMPTS[:1], torch.tensor([2.0]), [1], 4, 64, 64)

    assert "mat1 and mat2" in refusal(draw_with_pipeline, *fails("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="out of memory"):
        draw_with_pipeline(*fails("CUDA out of memory"))


def test_native_size_is_never_zero(sdxl_folder, tmp_path):
    shutil.copytree(sdxl_folder, tmp_path / "m")
    file = tmp_path / "m" / "unet" / "config.json"
    for given, expected in ((None, (1024, 1024)), ([4, 8], (32, 64)), (16, (128, 128))):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_size": given}))
        model = open_pipeline(tmp_path / "m", CPU, torch.float32)
        assert (model.height, model.width) == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: cut(m / "unet" / "diffusion_pytorch_model.safetensors"), "fetch it again"),
        (lambda m: shutil.rmtree(m / "vae"), "fetch it again"),
        (lambda m: pickle_only(m / "unet" / "diffusion_pytorch_model.safetensors"), "only diffusion_pytorch_model.bin"),
        (
            lambda m: config(m, "model_index.json", _class_name="NewestPipeline"),
            "names the pipeline 'NewestPipeline', which diffusers",
        ),
        (
            lambda m: config(m, "model_index.json", _class_name="DDPMPipeline"),
            "expected a whole diffusers folder of a text-to-image pipeline",
        ),
        (
            lambda m: config(m, "model_index.json", _class_name=["own_code", "OwnPipeline"]),
            "expected a text-to-image pipeline of diffusers'",
        ),
        (lambda m: config(m, "model_index.json", unet=["own_code", "OwnUNet"]), "cannot open the checkpoint"),
        (lambda m: config(m, "vae/config.json", scaling_factor=None), "a number above 0"),
        (lambda m: tensors(m, "text_encoder_2", without("layers.1.")), "16 missing"),
        (lambda m: tensors(m, "vae", without("conv_out.bias")), "2 missing"),
        (lambda m: add_word(m, "tokenizer_2"), "the last is 'sks'"),
        (lambda m: saved_anew(m, "unet", "UNet2DConditionModel", in_channels=9), "takes 9 channels"),
        (lambda m: config(m, UNET, sample_size="8"), "'8'"),
        (lambda m: shutil.rmtree(m / "scheduler"), "scheduler_config.json is not there"),
        (lambda m: as_pointer(m / "vae" / "diffusion_pytorch_model.safetensors"), "git lfs pull"),
        (lambda m: config(m, UNET, auto_map={"AutoModel": "own_code.OwnUNet"}), "auto_map"),
        (lambda m: (m / "model_index.json").write_text("[]"), "model_index.json is cut short or no JSON object"),
    ],
)
def test_a_folder_that_cannot_be_opened_is_one_line_and_its_code_is_not_run(sdxl_folder, tmp_path, change, said):
    folder, mark = tmp_path / "m", tmp_path / "ran"
    shutil.copytree(sdxl_folder, folder)
    for place in (folder, folder / "unet"):
        (place / "own_code.py").write_text(f"open({str(mark)!r}, 'w')\nclass OwnUNet: pass\nclass OwnPipeline: pass\n")
    change(folder)
    assert said in refusal(open_pipeline, folder, CPU, torch.float32)
    assert not mark.exists()


def cut(file):
    file.write_bytes(file.read_bytes()[:-1000])


def pickle_only(file):
    from safetensors.torch import load_file

    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
