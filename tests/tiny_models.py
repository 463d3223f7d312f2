"""Tiny text-to-image models of the great ones' layouts, with random weights from a fixed seed, for tests."""

import json
import re
from pathlib import Path

import torch
import yaml

START, END = "<|startoftext|>", "<|endoftext|>"


def write_tiny_sd(folder, width=8):
    """A diffusers folder of Stable Diffusion v1's layout; native size 512 x 512.

    width: channels of all levels. 8 draws 512 px in 40 steps in about a second; a single file needs 32, because CompVis's
    code, and so its YAML, always normalises in 32 groups.
    """
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    folder, groups = Path(folder), 32 if width % 32 == 0 else 4
    torch.manual_seed(0)
    words = write_tokenizer(folder / "tokenizer")
    CLIPTextModel(text_config(words)).save_pretrained(folder / "text_encoder")
    UNet2DConditionModel(
        sample_size=64, block_out_channels=(width,) * 3, layers_per_block=2, cross_attention_dim=64, attention_head_dim=2,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"), norm_num_groups=groups,
    ).save_pretrained(folder / "unet")  # fmt: skip
    tiny_vae(AutoencoderKL, width, groups, 0.18215, 512).save_pretrained(folder / "vae")
    PNDMScheduler(
        skip_prk_steps=True, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    write_index(folder, "StableDiffusionPipeline", {
        "tokenizer": ["transformers", "CLIPTokenizer"], "text_encoder": ["transformers", "CLIPTextModel"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "PNDMScheduler"], "safety_checker": [None, None], "feature_extractor": [None, None],
    })  # fmt: skip
    return folder


def write_tiny_variations(folder, width=8):
    """A diffusers folder of the image variations' layout (lambdalabs/sd-image-variations-diffusers); native size 64 x 64.

    Each of its networks has the layout of the great one's, and the feature extractor resizes to 32 px.
    """
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = Path(folder)
    torch.manual_seed(3)
    CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=16,
    )).save_pretrained(folder / "image_encoder")  # fmt: skip
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder / "feature_extractor"
    )
    UNet2DConditionModel(
        sample_size=8, block_out_channels=(width,) * 2, layers_per_block=1, cross_attention_dim=16, attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")  # fmt: skip
    tiny_vae(AutoencoderKL, width, 4, 0.18215, 64).save_pretrained(folder / "vae")
    PNDMScheduler(
        skip_prk_steps=True, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    write_index(folder, "StableDiffusionImageVariationPipeline", {
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "PNDMScheduler"], "safety_checker": [None, None], "requires_safety_checker": False,
    })  # fmt: skip
    return folder


def write_tiny_sdxl(folder):
    """A diffusers folder of Stable Diffusion XL's layout; native size 64 x 64."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    folder = Path(folder)
    torch.manual_seed(1)
    for name in ("tokenizer", "tokenizer_2"):
        words = write_tokenizer(folder / name)
    CLIPTextModel(text_config(words)).save_pretrained(folder / "text_encoder")
    CLIPTextModelWithProjection(text_config(words)).save_pretrained(folder / "text_encoder_2")
    UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=128, attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, use_linear_projection=True, transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 64,
    ).save_pretrained(folder / "unet")  # fmt: skip
    tiny_vae(AutoencoderKL, 8, 4, 0.13025, 64).save_pretrained(folder / "vae")
    EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="leading", steps_offset=1
    ).save_pretrained(folder / "scheduler")
    write_index(folder, "StableDiffusionXLPipeline", {
        "tokenizer": ["transformers", "CLIPTokenizer"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"], "force_zeros_for_empty_prompt": True,
    })  # fmt: skip
    return folder


def write_tiny_sd3(folder):
    """A diffusers folder of Stable Diffusion 3's layout, a transformer without the optional T5; native size 64 x 64."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
    from transformers import CLIPTextModelWithProjection

    folder = Path(folder)
    torch.manual_seed(2)
    for number in ("", "_2"):
        words = write_tokenizer(folder / f"tokenizer{number}")
        CLIPTextModelWithProjection(text_config(words)).save_pretrained(folder / f"text_encoder{number}")
    SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=128, caption_projection_dim=32, pooled_projection_dim=128,
        pos_embed_max_size=8,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    tiny_vae(AutoencoderKL, 8, 4, 1.5305, 64, shift_factor=0.0609).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    write_index(folder, "StableDiffusion3Pipeline", {
        "tokenizer": ["transformers", "CLIPTokenizer"], "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_3": [None, None], "text_encoder_3": [None, None],
        "transformer": ["diffusers", "SD3Transformer2DModel"], "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    })  # fmt: skip
    return folder


def write_tokenizer(folder):
    """CLIP's kind of tokenizer over the letters, without merges. How many words it has."""
    folder.mkdir(parents=True)
    letters = [chr(i) for i in range(33, 127)]
    words = [*letters, *(f"{x}</w>" for x in letters), START, END]
    (folder / "vocab.json").write_text(json.dumps({x: i for i, x in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = special | {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(words)


def text_config(words):
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=words, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1,
        projection_dim=64, bos_token_id=words - 2, eos_token_id=words - 1, pad_token_id=words - 1,
    )  # fmt: skip


def tiny_vae(kind, width, groups, scaling_factor, sample_size, shift_factor=None):
    return kind(
        block_out_channels=(width,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=1,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=groups,
        scaling_factor=scaling_factor, sample_size=sample_size, shift_factor=shift_factor,
    )  # fmt: skip


def write_index(folder, kind, parts):
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind, "_diffusers_version": "0.35.0"} | parts))


def write_tiny_single_file(folder, file):
    """The weights of `write_tiny_sd(folder, width=32)` as one CompVis-layout .safetensors, with the YAML of its sizes."""
    from safetensors.torch import load_file, save_file

    folder, file = Path(folder), Path(file)
    unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
    assert unet["norm_num_groups"] == vae["norm_num_groups"] == 32, (
        "CompVis's layout needs write_tiny_sd(..., width=32)"
    )
    tensors = {}
    for name, tensor in load_file(folder / "unet" / "diffusion_pytorch_model.safetensors").items():
        tensors["model.diffusion_model." + unet_name(name, unet["layers_per_block"])] = tensor
    for name, tensor in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        name = vae_name(name, len(vae["block_out_channels"]))
        is_conv = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)  # 1 x 1 convolutions there, linear layers here
        tensors["first_stage_model." + name] = tensor[:, :, None, None] if is_conv else tensor
    for name, tensor in load_file(folder / "text_encoder" / "model.safetensors").items():
        tensors["cond_stage_model.transformer.text_model." + name.removeprefix("text_model.")] = tensor
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    levels = unet["block_out_channels"]
    attention = [2**i for i, kind in enumerate(unet["down_block_types"]) if kind == "CrossAttnDownBlock2D"]
    file.with_suffix(".yaml").write_text(yaml.safe_dump(compvis_config(
        image_size=unet["sample_size"], scale_factor=vae["scaling_factor"], attention_resolutions=attention,
        channels=levels, layers=unet["layers_per_block"], num_heads=unet["attention_head_dim"],
        context_dim=unet["cross_attention_dim"], vae_channels=vae["block_out_channels"], vae_layers=vae["layers_per_block"],
    )))  # fmt: skip
    return file


def compvis_config(
    image_size=64, scale_factor=0.18215, attention_resolutions=(4, 2, 1), channels=(320, 640, 1280, 1280), layers=2,
    num_heads=8, context_dim=768, vae_channels=(128, 256, 512, 512), vae_layers=2,
):  # fmt: skip
    """A configuration in the form of CompVis's v1-inference.yaml, by default with its values."""
    unet = {
        "in_channels": 4, "out_channels": 4, "model_channels": channels[0], "num_res_blocks": layers,
        "attention_resolutions": list(attention_resolutions), "channel_mult": [c // channels[0] for c in channels],
        "num_heads": num_heads, "use_spatial_transformer": True, "transformer_depth": 1, "context_dim": context_dim,
        "use_checkpoint": True, "legacy": False,
    }  # fmt: skip
    vae = {
        "double_z": True, "z_channels": 4, "in_channels": 3, "out_ch": 3, "ch": vae_channels[0],
        "ch_mult": [c // vae_channels[0] for c in vae_channels], "num_res_blocks": vae_layers, "attn_resolutions": [],
    }  # fmt: skip
    params = {
        "linear_start": 0.00085, "linear_end": 0.0120, "timesteps": 1000, "image_size": image_size, "channels": 4,
        "scale_factor": scale_factor, "use_ema": False, "unet_config": {"params": unet},
        "first_stage_config": {"params": {"embed_dim": 4, "ddconfig": vae}},
    }  # fmt: skip
    return {"model": {"params": params}}


def unet_name(name, layers):
    """diffusers' name of a UNet tensor -> CompVis's. There each block has one number, a level's resizing included."""
    for ours, theirs in (
        ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
        ("conv_in.", "input_blocks.0.0."), ("conv_norm_out.", "out.0."), ("conv_out.", "out.2."),
    ):  # fmt: skip
        if name.startswith(ours):
            return name.replace(ours, theirs)
    place, rest = re.fullmatch(r"(.*?(?:resnets|attentions|downsamplers|upsamplers)\.\d+)\.(.*)", name).groups()
    numbers = [int(x) for x in re.findall(r"\d+", place)]
    if "resnets" in place:
        for ours, theirs in (
            ("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"),
            ("norm2", "out_layers.0"), ("conv2", "out_layers.3"), ("conv_shortcut", "skip_connection"),
        ):  # fmt: skip
            rest = re.sub(f"^{ours}", theirs, rest)
    if place.startswith("mid_block"):
        return f"middle_block.{1 if 'attentions' in place else 2 * numbers[0]}.{rest}"
    level, block = numbers
    first = level * (layers + 1)
    if "downsamplers" in place:
        return f"input_blocks.{first + layers + 1}.0.{rest.replace('conv', 'op')}"
    if "upsamplers" in place:
        return (
            f"output_blocks.{first + layers}.{2 if level == 0 else 1}.{rest}"  # after the attention, which level 0 has
        )
    part = 1 if "attentions" in place else 0
    if place.startswith("down"):
        return f"input_blocks.{first + block + 1}.{part}.{rest}"
    return f"output_blocks.{first + block}.{part}.{rest}"


def vae_name(name, levels):
    """diffusers' name of a VAE tensor -> CompVis's, whose decoder counts its levels from the last."""
    name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"up.{levels - 1 - int(m[1])}.upsample.", name)
    name = re.sub(r"mid_block\.resnets\.(\d)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", name)
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    if "mid_block.attentions.0." in name:
        name = name.replace("mid_block.attentions.0.", "mid.attn_1.").replace("group_norm", "norm")
        name = name.replace("to_out.0", "proj_out").replace("to_", "")
    return name
