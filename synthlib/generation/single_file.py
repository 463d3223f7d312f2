"""Single files: a Stable Diffusion v1 checkpoint as CompVis published them, one .safetensors or .ckpt for the whole model."""

import gzip
import importlib.util
import json
import pickle
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from synthlib.files import is_lfs_pointer
from synthlib.generation.parts import check_fit, first_line, open_part, refuse_own_code
from synthlib.generation.stated import MARKS, check_process, check_yaml
from synthlib.inputs import InputError, read_yaml

# Stable Diffusion v1 (CompVis, configs/stable-diffusion/v1-inference.yaml), as arguments of diffusers' UNet2DConditionModel
# and AutoencoderKL and of transformers' CLIPTextConfig: 859.52 M, 83.65 M and 123.06 M parameters.
SD_V1_UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,  # diffusers' name for the number of heads
}
SD_V1_VAE = {
    "sample_size": 512,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
SD_V1_TEXT = {  # CLIP ViT-L/14's text half
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
}
# Kept by training beside the weights: averages, the schedule's buffers, losses, what CLIP's text model does not use.
EXTRAS = re.compile(
    r"model_ema\.|(first_stage_model\.)?loss\.|(betas|\w*alphas\w*|posterior_\w+|lvlb_weights|logvar|scale_factor)$"
    r"|.*(position_ids|logit_scale|text_projection(\.weight)?)$"
)
OTHER_LAYOUTS = {  # part of a key -> whose it is; the first that is found is named
    "lora": "a LoRA (changes to a model, not a model)",
    "conditioner.embedders.": "Stable Diffusion XL",
    "cond_stage_model.model.": "Stable Diffusion 2",
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "Flux",
    "control_model.": "a ControlNet",
    "down_blocks.": "one network of a diffusers folder",
}


def open_single_file(file: Path, dtype: torch.dtype) -> dict[str, Any]:
    """tokenizer, text_encoder, unet and vae of a CompVis-layout file, the networks on the CPU in `dtype`.

    Where a file holds averaged weights (model_ema) too, the plain ones are taken, as CompVis's sampler (use_ema: False) and
    diffusers do. Sizes other than Stable Diffusion v1's come from a CompVis YAML of the same stem beside the file. diffusers
    converts (loaders/single_file_utils.py); a tensor too many, too few or of another shape is an InputError, like a file
    that is cut short, of another layout, or holds pickled code.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders import single_file_utils as converters
    from transformers import CLIPTextConfig, CLIPTextModel

    tensors, said = _read_tensors(file)
    _check_layout(file, tensors)
    check_process(file, tensors, said)
    unet, vae, text = _sizes(file, tensors, said)
    tensors = {name: tensor for name, tensor in tensors.items() if not EXTRAS.match(name)}
    given = {part: {k: v for k, v in tensors.items() if k.startswith(prefix)} for part, prefix in PREFIXES.items()}
    converted = {
        "unet": converters.convert_ldm_unet_checkpoint(dict(given["unet"]), unet),
        "vae": converters.convert_ldm_vae_checkpoint(dict(given["vae"]), vae),
        "text_encoder": converters.convert_ldm_clip_checkpoint(dict(given["text_encoder"])),
    }
    used = {tensor.data_ptr() for part in converted.values() for tensor in part.values()}
    strange = [name for name, tensor in tensors.items() if tensor.data_ptr() not in used]
    if strange:
        raise _misfit(file, f"holds {strange[0]}, one of {len(strange)} tensors that this model has no place for")
    parts = {
        "tokenizer": open_tokenizer(file),
        "text_encoder": _fill(file, lambda: CLIPTextModel(CLIPTextConfig(**text)), converted["text_encoder"], dtype),
        "unet": _fill(file, lambda: UNet2DConditionModel(**unet), converted["unet"], dtype),
        "vae": _fill(file, lambda: AutoencoderKL(**vae), converted["vae"], dtype),
    }
    check_fit(file, parts)
    return parts


def _read_tensors(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a file by name, and its header's metadata; nothing in it is executed."""
    if file.suffix not in (".safetensors", ".ckpt", ".pt", ".pth"):
        raise InputError(
            f"{file} is no checkpoint file; expected .safetensors, .ckpt, .pt or .pth, or a diffusers folder."
        )
    if file.suffix != ".safetensors" and torch.__version__ < "2.6":  # its weights_only can be got round: CVE-2025-32434
        raise InputError(f"{file} needs torch 2.6 to be read safely; update torch, or give a .safetensors file.")
    if is_lfs_pointer(file):
        raise InputError(f"{file} is a Git LFS pointer, not the file; run `git lfs pull` in its folder.")
    try:
        if file.suffix == ".safetensors":
            from safetensors import safe_open
            from safetensors.torch import load_file

            with safe_open(file, "pt") as opened:
                said = opened.metadata() or {}
            return load_file(file), said
        with file.open("rb") as opened:
            zipped = opened.read(2) == b"PK"  # the older format cannot be mapped into memory
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
        state = {k: v for k, v in state.items() if k in MARKS} | state.get("state_dict", state)
        # A mark that is no tensor is one, too.
        tensors = {str(k): torch.empty(0) if k in MARKS else v for k, v in state.items()}
        return {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}, {}
    except Exception as error:  # a dozen kinds, by where a file is cut
        code = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code:
            raise InputError(
                f"{file} holds pickled code ({code[1]}), which synthlib does not run; take its .safetensors release, or, if "
                "you trust the file, keep only its tensors (this runs that code, and needs the packages it names): python "
                f"-c \"import torch; torch.save(torch.load('{file.name}', 'cpu', weights_only=False)['state_dict'], "
                f"'{file.stem}-tensors.ckpt')\""
            )
        raise InputError(f"cannot read {file}: {first_line(error)}; expected a whole checkpoint file, fetch it again.")


def _check_layout(file: Path, names: dict[str, torch.Tensor]) -> None:
    """InputError unless all three parts of Stable Diffusion v1 are there."""
    lacking = [prefix + "*" for prefix in PREFIXES.values() if not any(name.startswith(prefix) for name in names)]
    if not lacking:
        return
    found = next((whose for part, whose in OTHER_LAYOUTS.items() if any(part in name for name in names)), None)
    if not found and len(lacking) < len(PREFIXES):
        found = "only " + " and ".join(f"{prefix}*" for prefix in PREFIXES.values() if f"{prefix}*" not in lacking)
    raise InputError(
        f"{file} holds {found or f'keys such as {min(names, default=None)!r}'}; expected the whole of Stable Diffusion v1 in "
        f"CompVis's layout, but there is no {' and no '.join(lacking)}; give such a file, or the model's diffusers folder."
    )


def _sizes(file: Path, tensors: dict[str, torch.Tensor], said: dict[str, str]) -> tuple[dict, dict, dict]:
    """Arguments of UNet, VAE and text encoder: Stable Diffusion v1's, or those of a YAML of the same stem.

    `said`: the file's metadata, which may name the resolution that it was tuned to, as "768x512" (width first).
    """
    beside, stated = file.with_suffix(".yaml"), said.get("modelspec.resolution", "")
    pixels = [int(side) for side in reversed(stated.split("x"))] if re.fullmatch(r"\d+x\d+", stated) else None
    if stated and (pixels is None or 0 in pixels or any(side % 64 for side in pixels)):
        raise InputError(
            f"{file} says modelspec.resolution {stated!r}; expected one such as 512x512, in multiples of 64."
        )
    if not beside.is_file():
        unet, vae, text = dict(SD_V1_UNET), dict(SD_V1_VAE), SD_V1_TEXT
        if pixels:
            unet["sample_size"] = [side // 8 for side in pixels]
    else:
        unet, vae, text = _yaml_sizes(beside, file, tensors)
        if pixels and pixels != [vae["sample_size"]] * 2:
            raise InputError(
                f"{file} says modelspec.resolution {stated!r}, {beside.name} has image_size {unet['sample_size']}; mend one."
            )
    scale = tensors.get("scale_factor")
    if scale is not None and (scale.numel() != 1 or abs(scale.item() / vae["scaling_factor"] - 1) > 0.01):
        raise InputError(
            f"{file} holds a scale_factor of {scale.tolist()} where {vae['scaling_factor']} is expected; give a YAML beside it "
            "that has its scale_factor, or the model's diffusers folder."
        )
    return unet, vae, text


def _yaml_sizes(beside: Path, file: Path, tensors: dict[str, torch.Tensor]) -> tuple[dict, dict, dict]:
    """What a CompVis YAML has of UNet, VAE and text encoder. InputError: no such file, or it says what is not read."""
    from diffusers.loaders.single_file_utils import (
        create_unet_diffusers_config_from_ldm,
        create_vae_diffusers_config_from_ldm,
    )

    config = read_yaml(beside)
    try:
        check_yaml(beside, config)
        params = config["model"]["params"]
        unet = create_unet_diffusers_config_from_ldm(config, tensors)
        vae = create_vae_diffusers_config_from_ldm(config, tensors)
        unet["sample_size"] = params.get("image_size", unet["sample_size"])  # diffusers takes 512 px for granted
        if type(unet["sample_size"]) is not int or not isinstance(vae["scaling_factor"], (int, float)):
            raise TypeError(f"image_size {unet['sample_size']!r}, scale_factor {vae['scaling_factor']!r}")
        vae["sample_size"] = unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
    except (KeyError, TypeError, AttributeError, AssertionError) as error:
        raise InputError(
            f"cannot use {beside}: {error!r}; expected a configuration like CompVis's v1-inference.yaml, mend it."
        )
    return unet, vae, _text_sizes(file, tensors)


def _text_sizes(file: Path, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """A CLIP text encoder's sizes, from the shapes of its tensors; 64 channels a head, as in every CLIP."""
    start = PREFIXES["text_encoder"]
    shapes = {name.removeprefix(start).removeprefix("text_model."): x.shape for name, x in tensors.items()}
    try:
        words, width = shapes["embeddings.token_embedding.weight"]
        length, inner = shapes["embeddings.position_embedding.weight"][0], shapes["encoder.layers.0.mlp.fc1.weight"][0]
    except KeyError as error:
        raise _misfit(file, f"has no {start}text_model.{error.args[0]}")
    return SD_V1_TEXT | {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": len([name for name in shapes if name.endswith("mlp.fc1.weight")]),
        "num_attention_heads": max(width // 64, 1),
        "max_position_embeddings": length,
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": words - 1,
    }


def _fill(
    file: Path, make: Callable[[], torch.nn.Module], tensors: dict[str, torch.Tensor], dtype: torch.dtype
) -> torch.nn.Module:
    """The network that `make` builds, with exactly these tensors. InputError names the first that does not fit."""
    from accelerate import init_empty_weights

    try:
        with init_empty_weights():
            network = make()
    except ValueError as error:
        raise InputError(f"{file.with_suffix('.yaml')} describes no model: {str(error).splitlines()[0]}; mend it.")
    wanted = network.state_dict()
    # transformers before 5.6 keeps CLIP's text model one level deeper; files are of both kinds
    deeper = "text_model." if all(name.startswith("text_model.") for name in wanted) else ""
    tensors = {deeper + name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    for name in sorted(wanted.keys() | tensors.keys()):
        has, needs = (list(x[name].shape) if name in x else None for x in (tensors, wanted))
        if has != needs:
            raise _misfit(file, f"has {name} {has or 'missing'} where {type(network).__name__} has {needs or 'none'}")
    # Copies, so that neither alignment in the file nor a later change of it reaches the results.
    network.load_state_dict({name: x.to(dtype, copy=True) for name, x in tensors.items()}, strict=True, assign=True)
    return network.eval()


def _misfit(file: Path, what: str) -> InputError:
    return InputError(
        f"{file} {what}; expected the tensors of Stable Diffusion v1, or of {file.with_suffix('.yaml').name} beside it; "
        "give the YAML that belongs to the file, or the model's diffusers folder."
    )


def open_tokenizer(file: Path) -> Any:
    """The tokenizer of a single file, which holds none: from a folder beside it, else CLIP's from an installed open_clip.

    The vocabulary is CLIP's (Radford et al. 2021; open_clip/tokenizer.py): 256 bytes, the same as ends of words, 48,894
    merges, start and end of text; ids equal those of openai/clip-vit-large-patch14.
    """
    from transformers import AutoTokenizer

    for folder in (file.with_suffix("") / "tokenizer", file.parent / "tokenizer"):
        if folder.is_dir():
            refuse_own_code(folder)
            try:
                return open_part(AutoTokenizer, folder)
            except InputError as error:
                raise InputError(f"{error} That is the tokenizer of {file}: mend or remove it.")
    package = importlib.util.find_spec("open_clip")  # found, not imported: that takes seconds
    merges_file = Path(package.origin).parent / "bpe_simple_vocab_16e6.txt.gz" if package else None
    if not (merges_file and merges_file.is_file()):
        raise InputError(
            f"{file} holds no tokenizer, as single files do not; pip install open-clip-torch, which brings "
            f"CLIP's, or put the model's tokenizer folder at {file.parent / 'tokenizer'}."
        )
    from tokenizers.pre_tokenizers import ByteLevel

    with gzip.open(merges_file, "rt", encoding="utf-8") as lines:
        merges = lines.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = sorted(ByteLevel.alphabet())  # one printable character per byte, in CLIP's order
    words = [*letters, *(x + "</w>" for x in letters), *(merge.replace(" ", "") for merge in merges)]
    start, end = "<|startoftext|>", "<|endoftext|>"
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": start, "eos_token": end}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vocabulary = {word: number for number, word in enumerate([*words, start, end])}
        (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config | {"unk_token": end, "pad_token": end}))
        return open_part(AutoTokenizer, folder)
