"""CLIP zero-shot: a classifier made from class names and prompt templates by CLIP, without one training image.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 3.1.4. The networks are
open_clip's (`pip install open-clip-torch`), always in float32; the weights OpenAI's, others by their tag, or a local file.
"""

import difflib
import importlib.util
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch.nn import functional as F

from synthlib import digests, hub, paths
from synthlib.data.datasets import check_distinct, read_spec
from synthlib.devices import device_named, require_finite
from synthlib.inputs import InputError, choose, parameter, read_yaml, text
from synthlib.progress import progress

PROMPTS = ("clip", "ours")
BATCH_SIZE = 128
# Whether the name of a model says how its network was activated in training. QuickGELU is what OpenAI trained with, and
# what many others did not; weights do not tell, and with the wrong one accuracies fall without a word.
ACTIVATIONS = {"-quickgelu": True, "-gelu": False}
DAMAGED = "the network's weights are damaged: fetch them again, or give another file"
FILE, INSTEAD = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"  # open_clip's names in hub repositories
UNREADABLE = (
    RuntimeError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    StopIteration,
    pickle.UnpicklingError,
    safetensors.SafetensorError,
)


@dataclass(frozen=True)
class Preparation:
    """How a CLIP wants its images: resized to [size, size], centre crop of the rest if not squashed, then (x - mean) / std."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str  # bicubic or bilinear, with antialias
    squash: bool  # both sides to `size`; else the shorter one


@dataclass(frozen=True)
class Clip:
    """A CLIP in eval mode on its device, and what there is to say of it."""

    network: torch.nn.Module
    tokenize: Callable[[list[str]], torch.Tensor]  # n texts -> int64 [n, context length]
    preparation: Preparation
    model: str  # as open_clip names the network, without an activation
    weights: str  # in words, without any path
    sha256: str  # of the file of weights
    quick_gelu: bool

    def label(self) -> str:
        """One line: network, weights, activation."""
        activation = "QuickGELU" if self.quick_gelu else "GELU"
        return f"CLIP {self.model}, weights {self.weights}, sha256 {self.sha256[:12]}, {activation}, float32"


def clip_zero_shot(
    images: torch.Tensor,
    words: Sequence[str],
    templates: Sequence[str],
    model: str = "RN50",
    weights: str = "openai",
    device: str = "auto",
    batch_size: int = BATCH_SIZE,
) -> torch.Tensor:
    """Logits float32 [N, C] on the CPU of images uint8 [N, 3, H, W] for C classes, given by their words in a prompt.

    templates: prompts in which {} stands for a class's words. model, weights: see `load_clip`. Raises InputError as
    `load_clip` and `class_embeddings`.
    """
    clip = load_clip(model, weights, device)
    return image_logits(clip, class_embeddings(clip, words, templates, batch_size), images, batch_size)


def load_clip(model: str = "RN50", weights: str = "openai", device: str = "auto") -> Clip:
    """A CLIP by open_clip's name of the network, and its weights: a tag of open_clip's, or a local file.

    A tag's weights come from the hub, announced and verified, and their activation is known. A local file (.safetensors, or
    a pickle of tensors, opened so that it cannot run code) does not say its activation: where both kinds of weights exist,
    the model's name has to, "RN50-quickgelu" for OpenAI's weights or "RN50-gelu".

    InputError: open_clip is not installed, no such model or weights, weights of another network, no way to the hub.
    """
    open_clip, on = _open_clip(), device_named(device)
    name, quick_gelu = _split_name(model, open_clip)
    config = open_clip.get_model_config(name)
    if {"hf_tokenizer_name", "hf_model_name"} & set(config["text_cfg"]) or "siglip" in name.lower():
        raise InputError(
            f"{name} reads text with a tokenizer from elsewhere; expected one of CLIP's own, such as RN50."
        )
    tags = {tag: open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)}
    tag = weights.lower().replace("-", "_")  # as open_clip reads it
    if quick_gelu is not None:
        fitting = [key for key, value in tags.items() if bool(value.get("quick_gelu")) == quick_gelu]
    else:
        fitting = list(tags)
    if tag in fitting:
        file, said = _fetch(tag, tags[tag])
        quick_gelu, ways = bool(tags[tag].get("quick_gelu")), [tags[tag]]
    else:
        file = Path(weights).absolute() if Path(weights).is_file() else paths.resolve(weights)
        if not file.is_file():
            raise InputError(
                f"no weights {weights!r} of {model}; expected a local file, or one of the tags: "
                f"{', '.join(fitting) or 'none is known'}."
            )
        said, ways = f"of the local file {file.name}", list(tags.values())
        if quick_gelu is None and f"{name}-quickgelu" in open_clip.list_models():
            raise InputError(
                f"{file.name} does not say how its network was activated; expected the model {name}-quickgelu (OpenAI's "
                f"weights) or {name}-gelu: give that name."
            )
    same = [key for key in ("mean", "std", "interpolation", "resize_mode") if len({way[key] for way in ways}) == 1]
    try:
        network = open_clip.create_model(
            name,
            pretrained=str(file),
            precision="fp32",
            device=on,
            force_quick_gelu=bool(quick_gelu),
            force_preprocess_cfg={key: ways[0][key] for key in same},
            weights_only=True,
        )
    except UNREADABLE as error:
        raise InputError(
            f"{file.name} holds no weights of {name} that can be read ({' '.join(str(error).split())[:120]}); expected a "
            ".safetensors file, or a pickle of tensors alone, of this network: give another file or model."
        )
    quick_gelu = bool(quick_gelu or config.get("quick_gelu"))
    preparation = _preparation(network.visual.preprocess_cfg, name)
    tokenize = open_clip.get_tokenizer(name)
    return Clip(network.eval(), tokenize, preparation, name, said, digests.sha256_file(file), quick_gelu)


def _open_clip() -> Any:
    """The library, imported where it is needed: it takes a second, and not everybody has it."""
    try:
        import open_clip
    except ImportError:
        raise InputError("open_clip is not installed; expected it for CLIP: run `pip install open-clip-torch`.")
    return open_clip


def _split_name(model: str, open_clip: Any) -> tuple[str, bool | None]:
    """A model's name without its activation, and whether that is QuickGELU; None where the name does not say."""
    name, quick_gelu = model.replace("/", "-"), None  # the papers write ViT-B/32
    for ending, quick in ACTIVATIONS.items():
        if name.endswith(ending):
            name, quick_gelu = name.removesuffix(ending), quick
    known = [known for known in open_clip.list_models() if not known.endswith("-quickgelu")]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise InputError(
            f"unknown CLIP model {model!r}{'; did you mean ' + ', '.join(near) + '?' if near else ';'} Expected a name of "
            "open_clip.list_models(), such as RN50 or ViT-B-32."
        )
    return name, quick_gelu


def _fetch(tag: str, config: dict[str, Any]) -> tuple[Path, str]:
    """The file of a tag's weights, and what it is in words."""
    model, safe, instead = _files(config)
    file = hub.fetch_one(model, safe, instead=instead)
    return file, f"{tag} ({file.name} of {model})"


def _files(config: dict[str, Any]) -> tuple[str, str, str]:
    """The repository of a tag's weights, the file that open_clip itself looks for first, and what it takes instead."""
    model, _, name = config["hf_hub"].rpartition("/")
    return model, f"{Path(name).stem}.safetensors" if name else FILE, name or INSTEAD


def has_clip(model: str, tag: str = "openai") -> bool:
    """Whether a tag's weights are in this machine's cache, and open_clip is installed; no network."""
    if importlib.util.find_spec("open_clip") is None:
        return False
    open_clip = _open_clip()
    name, _ = _split_name(model, open_clip)
    repository, *files = _files(open_clip.get_pretrained_cfg(name, tag))
    return any(in_cache(repository, file) for file in files)


def in_cache(repository: str, file: str) -> bool:
    """Whether the hub's cache has a file of a repository, at the main revision; no network."""
    from huggingface_hub import try_to_load_from_cache

    folder = os.environ.get("HF_HUB_CACHE") or (f"{home}/hub" if (home := os.environ.get("HF_HOME")) else None)
    return isinstance(try_to_load_from_cache(repository, file, cache_dir=folder), str)


def _preparation(config: dict[str, Any], name: str) -> Preparation:
    """What open_clip says of a network's images. InputError: a way that is not ours (padding)."""
    height, width = config["size"] if isinstance(config["size"], (tuple, list)) else (config["size"],) * 2
    if height != width or config["resize_mode"] == "longest":
        raise InputError(f"{name} wants its images padded; expected a network of square images, such as RN50.")
    mean, std, squash = tuple(config["mean"]), tuple(config["std"]), config["resize_mode"] == "squash"
    return Preparation(height, mean, std, config["interpolation"], squash)


def prepare(images: torch.Tensor, preparation: Preparation, device: torch.device | str = "cpu") -> torch.Tensor:
    """Images uint8 [N, 3, H, W] as a CLIP wants them: float32 [N, 3, S, S] on `device`.

    open_clip's own transform (transform.py, image_transform) takes one PIL image after the other; this is the same for a
    batch. Resized as bytes on the CPU, where torch does as Pillow does, whatever the device: 8-bit values are at most 2 apart
    from Pillow's, and 99.3 % of them equal (bilinear: 1 and 95 %; measured on CIFAR10, EuroSAT and noise). In float, as torch
    resizes on a GPU or a CPU without AVX2, up to 24 apart and 77 to 86 % equal: Pillow cuts off at 0 and 255 between its passes.
    """
    from torchvision.transforms import InterpolationMode  # takes a second
    from torchvision.transforms.v2 import functional as resizing

    size = preparation.size
    sides = [size, size] if preparation.squash else [size]
    mode = InterpolationMode(preparation.interpolation)
    images = resizing.center_crop(resizing.resize(images.cpu(), sides, mode, antialias=True), [size, size]).to(device)
    mean, std = (torch.tensor(x, device=device).view(1, 3, 1, 1) for x in (preparation.mean, preparation.std))
    return (images.float() / 255 - mean) / std


@torch.no_grad()
def class_embeddings(
    clip: Clip, words: Sequence[str], templates: Sequence[str], batch_size: int = BATCH_SIZE
) -> torch.Tensor:
    """One direction for each class: float32 [C, D], of length 1, on the CLIP's device.

    Every template with a class's words is embedded and normalised; their mean is normalised again (section 3.1.4 of the
    paper: the ensemble is over embeddings, not over probabilities). InputError: no class, empty words, a template without {}.
    """
    if not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise InputError(f"class words are {list(words)}; expected words for each class.")
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        raise InputError(f"prompt templates {wrong or list(templates)} are not whole; expected one {{}} in each.")
    texts = [template.replace("{}", word) for word in words for template in templates]
    device = clip.network.logit_scale.device
    parts = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
    embedded = [
        clip.network.encode_text(clip.tokenize(part).to(device)) for part in progress(parts, "CLIP reads prompts")
    ]
    each = F.normalize(torch.cat(embedded).float(), dim=-1).view(len(words), len(templates), -1)
    return _finite(F.normalize(each.mean(1), dim=-1), clip)


@torch.no_grad()
def image_logits(
    clip: Clip, embeddings: torch.Tensor, images: torch.Tensor, batch_size: int = BATCH_SIZE
) -> torch.Tensor:
    """Logits float32 [N, C] on the CPU of images uint8 [N, 3, H, W]: cosine with each class, times CLIP's own scale.

    embeddings: of `class_embeddings`, [C, D]. A network's logit bias, where it has one, is the same for all classes: left out.
    """
    scale = clip.network.logit_scale.exp()
    found = [(scale * seen @ embeddings.T).float().cpu() for seen in _seen(clip, images, batch_size)]
    return _finite(torch.cat(found), clip)


@torch.no_grad()
def image_embeddings(clip: Clip, images: torch.Tensor, batch_size: int = BATCH_SIZE) -> torch.Tensor:
    """Embeddings float32 [N, D] of length 1, on the CPU, of images uint8 [N, 3, H, W]."""
    return _finite(torch.cat([seen.cpu() for seen in _seen(clip, images, batch_size)]), clip)


def _finite(values: torch.Tensor, clip: Clip) -> torch.Tensor:
    """Logits or embeddings, all finite. NotFinite: the CLIP's weights are damaged."""
    require_finite(torch.isfinite(values).all(), f"numbers of CLIP {clip.model}, weights {clip.weights},", DAMAGED)
    return values


def _seen(clip: Clip, images: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
    """The embeddings of each batch [B, D], of length 1, on the CLIP's device."""
    device = clip.network.logit_scale.device
    for part in progress(images.split(batch_size), f"CLIP {clip.model} looks at images", unit="batch"):
        yield F.normalize(clip.network.encode_image(prepare(part, clip.preparation, device)).float(), dim=-1)


def read_prompts(dataset: str, classes: Sequence[str], prompts: str = "clip") -> tuple[list[str], list[str]]:
    """The words of each class, in this order, and the templates, in which {} stands for them.

    prompts: "clip", what the CLIP paper uses (experiments/clip_prompts.yaml), or "ours", the words and the base_class template
    that our text-to-image models are asked with (experiments/datasets). InputError: a class or data set without words.
    """
    if choose("prompts", prompts, PROMPTS) == "ours":
        spec = read_spec(dataset, list(classes))
        if "base_class" not in spec.templates:
            raise InputError(f"data set {dataset!r} has no template for base_class; expected one: add it to its file.")
        return [spec.classes[name] for name in classes], [spec.templates["base_class"].replace("{class}", "{}")]
    file = paths.root() / "experiments" / "clip_prompts.yaml"
    known = read_yaml(file)
    if dataset not in known:
        raise InputError(
            f"{file.name} has no prompts for data set {dataset!r}, only for {', '.join(known)}; expected them there: write "
            f"them, or take {parameter('prompts')} ours."
        )
    kinds = {"classes": dict, "templates": list}
    if not all(isinstance(known[dataset].get(key), kind) for key, kind in kinds.items()):
        raise InputError(
            f"{file.name} lacks classes or templates of {dataset}; expected a mapping and a list: add them."
        )
    words = {
        name: text(f"class {name} of {dataset} in {file.name}", value)
        for name, value in known[dataset]["classes"].items()
    }
    without = [name for name in classes if not words.get(name, "").strip()]
    if without:
        raise InputError(
            f"{file.name} has no words for class {', '.join(without)} of {dataset}; expected words for every class: write "
            f"them there, or take {parameter('prompts')} ours."
        )
    check_distinct((words[name], name) for name in classes)
    templates = [text(f"a template of {dataset} in {file.name}", given) for given in known[dataset]["templates"]]
    return [words[name] for name in classes], templates
