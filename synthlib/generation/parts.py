"""Parts: the networks of a text-to-image model's folder and what feeds them, each opened whole, no code of its own."""

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from synthlib.files import is_lfs_pointer, read_json
from synthlib.hub import INDEX
from synthlib.inputs import InputError

# Stable Diffusion v1's noise schedule, explicit: a checkpoint's own config may be PNDM's, which would clip the samples.
DDIM = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "prediction_type": "epsilon",
}


OWN_CODE = ("auto_map", "custom_pipelines")  # keys under which transformers and diffusers look for Python in a folder
# Tensors that a text encoder may bring and that nothing reads here: buffers of older versions, CLIP's other half.
UNREAD = re.compile(r".*(position_ids|logit_scale|(text|visual)_projection(\.weight|\.bias)?)$|vision_model\.")


def first_line(error: Exception) -> str:
    """What a library says, short enough for one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(" .")


def read_config(file: Path) -> dict[str, Any]:
    """The JSON object in a file that a model cannot do without. InputError where there is none: no default stands for it."""
    found = read_json(file)
    if not isinstance(found, dict):
        what = "is cut short or no JSON object" if file.is_file() else "is not there"
        raise InputError(
            f"cannot open the checkpoint: {file} {what}, without which nobody knows how the model is meant; expected a whole "
            "diffusers folder, fetch it again."
        )
    return found


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json of a diffusers folder. InputError: no such folder, or one that names Python of its own to be run."""
    if not (folder / INDEX).is_file():
        raise InputError(
            f"{folder} is not a text-to-image checkpoint (no {INDEX}); give a diffusers folder, such as one that "
            "StableDiffusionPipeline.save_pretrained writes, a .safetensors file, or a hub id."
        )
    refuse_own_code(folder)
    return read_config(folder / INDEX)


def refuse_own_code(folder: Path) -> None:
    """InputError where a configuration in a folder, or in one of its parts, names Python of its own."""
    for file in sorted([folder / INDEX, *folder.glob("*config.json"), *folder.glob("*/*config.json")]):
        if word := _own_code(read_json(file)):
            raise InputError(
                f"{file} names code of the model's own ({word}), which synthlib does not run; expected classes of diffusers and "
                "transformers only: choose another model, or, if it needs none of that code, remove the key."
            )


def _own_code(value: Any) -> str | None:
    """The key that names code, anywhere in a JSON value."""
    if isinstance(value, dict):
        found = next((word for word in OWN_CODE if value.get(word)), None)
        return found or next(filter(None, map(_own_code, value.values())), None)
    return next(filter(None, map(_own_code, value)), None) if isinstance(value, list) else None


def named_class(file: Path, part: str, named: Any) -> type:
    """The class that a configuration names for a part, [library, class]. InputError where neither library has it."""
    import diffusers
    import transformers

    library, name = named if isinstance(named, list) and len(named) == 2 else (None, None)
    modules = {"diffusers": diffusers, "transformers": transformers}
    module = modules.get(library) or getattr(diffusers.pipelines, str(library), None)
    found = getattr(module, str(name), None)
    if not hasattr(found, "from_pretrained"):
        raise InputError(
            f"cannot open the checkpoint: {file} names {named!r} for {part}, a class that neither diffusers "
            f"{diffusers.__version__} nor transformers {transformers.__version__} has; choose another model, or update them."
        )
    return found


def open_scheduler(folder: Path) -> Any:
    """The scheduler of a diffusers folder: of the class that its own configuration names."""
    file = folder / "scheduler" / "scheduler_config.json"
    kind = named_class(file, "the scheduler", ["diffusers", read_config(file).get("_class_name")])
    return open_part(kind, file.parent)


def open_part(kind: type, folder: Path, dtype: torch.dtype | None = None) -> Any:
    """A network in `dtype`, on the CPU, from its safetensors, or a tokenizer, processor or scheduler, of a folder of its own.

    InputError: it cannot be read, is of another class, or a network lacks tensors (which the libraries fill at random), has
    some of another shape, or some that it has no place for.
    """
    import diffusers
    import transformers

    for file in folder.glob("*"):
        if file.is_file() and is_lfs_pointer(file):
            raise InputError(f"{file} is a Git LFS pointer, not the file; run `git lfs pull` in its folder.")
    ours = issubclass(kind, transformers.PreTrainedModel)
    given: dict[str, Any] = {"local_files_only": True}
    if kind.__module__.startswith("transformers."):
        given["trust_remote_code"] = False
    if issubclass(kind, torch.nn.Module):
        config = read_config(folder / "config.json")
        if config.get("_class_name") not in (None, kind.__name__):
            raise InputError(
                f"{folder / 'config.json'} is of a {config['_class_name']}, where a {kind.__name__} is expected; fetch it again."
            )
        _check_weights(folder, "model" if ours else "diffusion_pytorch_model")
        given |= {"use_safetensors": True, "torch_dtype": dtype, "output_loading_info": True}
        if ours:
            given["ignore_mismatched_sizes"] = True  # said in the loading information, not in a table
    logs = (diffusers.utils.logging, transformers.utils.logging)
    levels = [log.get_verbosity() for log in logs]
    try:
        for log in logs:
            log.disable_progress_bar()
            log.set_verbosity_error()  # what they warn of is refused below
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch_dtype is dtype now, which older ones do not know
            found = kind.from_pretrained(folder, **given)
    except Exception as error:  # each library raises its own kinds for a file missing, cut short or of another shape
        raise InputError(
            f"cannot open the checkpoint {folder} as a {kind.__name__}: {first_line(error)}; expected a whole diffusers "
            "folder, fetch it again."
        )
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)
    if not issubclass(kind, torch.nn.Module):
        if kind.__name__.startswith("CLIPTokenizer"):
            _check_merges(folder, found)
        return found
    network, told = found
    wrong = {what: sorted(map(str, told[f"{what}_keys"])) for what in ("missing", "mismatched", "unexpected")}
    wrong["unexpected"] = [name for name in wrong["unexpected"] if not (ours and UNREAD.match(name))]
    if any(wrong.values()):
        said = ", ".join(f"{len(names)} {what} ({names[0]})" for what, names in wrong.items() if names)
        raise InputError(
            f"the weights in {folder} are not those of its config.json's {kind.__name__}: {said}; expected each tensor to have "
            "its place and each place its tensor: fetch weights and config.json again, both of one model."
        )
    return network


def _check_merges(folder: Path, tokenizer: Any) -> None:
    """InputError where merges.txt lacks lines: words that only a merge can make would be read as letters, without a word."""
    file, words = folder / "merges.txt", read_json(folder / "vocab.json")
    if not file.is_file() or not isinstance(words, dict):
        return  # all is in tokenizer.json
    made = {"".join(line.split()) for line in file.read_text(encoding="utf-8").split("\n")[1:]}
    made |= {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    lacking = [word for word in words if len(word.removesuffix("</w>")) > 1 and word not in made]
    if lacking:
        raise InputError(
            f"{file} does not make {lacking[0]!r}, one of {len(lacking)} words of vocab.json; expected a line for each: "
            "it was cut short, fetch it again."
        )


def _check_weights(folder: Path, stem: str) -> None:
    """InputError where a network's folder has no full safetensors weights: what it has in their place, and what to do."""
    wanted = f"{stem}.safetensors"
    if (folder / wanted).is_file() or (folder / f"{wanted}.index.json").is_file():
        return
    variants, pickles = (sorted(path.name for path in folder.glob(f"*.{end}")) for end in ("safetensors", "bin"))
    if variants:
        raise InputError(
            f"{folder} has only {variants[0]}, weights of a variant (fp16 is half of the precision); expected {wanted}: fetch "
            f"that, too, or, to draw with the variant, rename it to {wanted}."
        )
    if pickles:
        raise InputError(
            f"{folder} has only {pickles[0]}, which can hold code and is not loaded; expected {wanted}: fetch that, or write it "
            'there: python -c "import glob, torch; from safetensors.torch import save_file; save_file({k: v.clone() for f in '
            "glob.glob('*.bin') for k, v in torch.load(f, 'cpu', weights_only=True).items()}, "
            f"'{wanted}', {{'format': 'pt'}})\""
        )
    raise InputError(f"{folder} has no {wanted}; expected a whole diffusers folder, fetch it again.")


def check_fit(folder: Path, parts: Mapping[str, Any]) -> None:
    """InputError unless a model's parts fit: words and lengths of tokenizers and text encoders, channels of UNet and VAE."""
    for name, tokenizer in parts.items():
        encoder = parts.get(name.replace("tokenizer", "text_encoder"))
        if not name.startswith("tokenizer") or not tokenizer or not isinstance(encoder, torch.nn.Module):
            continue
        rows = getattr(getattr(encoder, "get_input_embeddings", lambda: None)(), "num_embeddings", None)
        word, last = max(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
        if rows is not None and last >= rows:
            raise InputError(
                f"the {name} of {folder} has {last + 1} words (the last is {word!r}), its text encoder only {rows}; expected "
                "those that were trained together: put the model's own there."
            )
        most = getattr(encoder.config, "max_position_embeddings", None)
        if str(getattr(encoder.config, "model_type", "")).startswith("clip") and tokenizer.model_max_length > most:
            raise InputError(
                f"the {name} of {folder} gives up to {tokenizer.model_max_length:.4g} tokens, its text encoder reads {most}; "
                f"expected model_max_length {most} in its tokenizer_config.json."
            )
    unet, vae = (parts.get(name) for name in ("unet", "vae"))
    if type(vae).__name__ != "AutoencoderKL":
        return
    latent, scale = vae.config.latent_channels, vae.config.scaling_factor
    if type(scale) not in (int, float) or not 0 < scale < math.inf:
        raise InputError(
            f"the vae of {folder} states a scaling_factor of {scale!r}; expected a number above 0, such as 0.18215: fetch its "
            "config.json again."
        )
    if unet is None:
        return
    takes, gives = unet.config.in_channels, unet.config.out_channels
    if (takes, gives) != (latent, latent):
        raise InputError(
            f"the unet of {folder} takes {takes} channels and gives {gives}, its vae has {latent}; expected three equal numbers, "
            "as models have that draw from text alone (inpainting and editing take more): choose such a model."
        )


def sides(folder: Path, stated: Any) -> tuple[int, int]:
    """Height and width of a sample_size, which is a number or two. InputError where it is neither."""
    both = list(stated) if isinstance(stated, (list, tuple)) else [stated, stated]
    if len(both) != 2 or not all(type(side) is int and side > 0 for side in both):
        raise InputError(
            f"{folder} states its size as {stated!r}; expected a number or two, such as 64: mend sample_size in its config.json."
        )
    return both[0], both[1]
