"""Feature spaces for the measures, by name and version: numbers compare within one version only.

A name may be followed by a local file of the network's weights, "dinov2-vit-s14-v1@weights/dinov2.safetensors", where the
published ones cannot be fetched. pocket-referee-v1 and pixels-v1 need nothing.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from synthlib import paths
from synthlib.devices import device_named, require_finite
from synthlib.evaluation import clip_zero_shot as clip
from synthlib.evaluation.clip_zero_shot import DAMAGED
from synthlib.inputs import InputError, choose
from synthlib.progress import progress
from synthlib.training.augment import NORMALISATIONS
from synthlib.training.imagenet import LITE0, LITE0_PACKAGE
from synthlib.training.models import build_model, memory_format

PIXELS = "pixels-v1"
BATCH_SIZE = 128
DINOV2 = "vit_small_patch14_dinov2.lvd142m"


@dataclass(frozen=True)
class FeatureSpace:
    """How features are taken, and whether what they need is on this machine."""

    # images uint8 [N, 3, H, W], device, file of weights or "" -> features [N, D]
    extract: Callable[[torch.Tensor, str, str], torch.Tensor]
    has_weights: Callable[[], bool]  # the published ones
    clip: str = ""  # the network's name for `load_clip`, of a space that also reads text


def _pocket_referee(images: torch.Tensor, device: str, weights: str) -> torch.Tensor:
    """The last layer but one of the pocket referee, a small CNN trained on glyphs of fonts the generator never saw."""
    from synthlib.pocket import referee  # only here: no other wing needs the embedded model's weights

    if tuple(images.shape[1:]) != (3, 32, 32):
        raise InputError(
            f"images are {images.shape[2]} x {images.shape[3]}, and pocket-referee-v1 sees 32 x 32; take measures in another "
            "feature space, or set measures to []."
        )
    return referee.features(images)


def _pixels(images: torch.Tensor, device: str, weights: str) -> torch.Tensor:
    """The pixels, each image less its own mean, so that cosine similarity is correlation; needs no network."""
    flat = images.flatten(1).float() / 255
    return flat - flat.mean(1, keepdim=True)


def _lite0(images: torch.Tensor, device: str, weights: str) -> torch.Tensor:
    """Pooled features [N, 1280] of EfficientNet-Lite0, trained on ImageNet, of images resized to 96 px (bilinear, antialias).

    96 and not the 224 that it was trained at: a fifth of the pixels, and images of 32 px have no more to show.
    """
    preparation = clip.Preparation(96, *NORMALISATIONS["efficientnet_lite"], "bilinear", True)
    return _pooled(LITE0, images, preparation, device, weights)


def _dinov2(images: torch.Tensor, device: str, weights: str) -> torch.Tensor:
    """The class token [N, 384] of DINOv2's small ViT (Oquab et al. 2023), of images resized to 224 px (bicubic, antialias)."""
    preparation = clip.Preparation(224, *NORMALISATIONS["imagenet"], "bicubic", True)
    return _pooled(DINOV2, images, preparation, device, weights)


@torch.no_grad()
def _pooled(
    architecture: str, images: torch.Tensor, preparation: clip.Preparation, device: str, weights: str
) -> torch.Tensor:
    """What a network of timm gives its last layer, [N, D], in eval mode and float32."""
    classes = 0 if architecture == DINOV2 else 1000  # DINOv2 has none
    with torch.random.fork_rng(devices=[]):  # a network is drawn before it is filled: nobody's random numbers move
        network = build_model(architecture, classes, preparation.size, "imagenet", weights).eval()
    on, layout = device_named(device), memory_format(network)
    network = network.to(on, memory_format=layout)
    found = []
    for part in progress(images.split(BATCH_SIZE), f"{architecture} looks at images", unit="batch"):
        prepared = clip.prepare(part, preparation, on).contiguous(memory_format=layout)
        found.append(network.forward_head(network.forward_features(prepared), pre_logits=True).float().cpu())
    return torch.cat(found)


def _clip(model: str, images: torch.Tensor, device: str, weights: str) -> torch.Tensor:
    """Embeddings [N, D], of length 1, of OpenAI's CLIP."""
    return clip.image_embeddings(clip.load_clip(model, weights or "openai", device), images)


def _clip_space(model: str) -> FeatureSpace:
    return FeatureSpace(partial(_clip, model), partial(clip.has_clip, model), model)


_SPACES = {
    "pocket-referee-v1": FeatureSpace(_pocket_referee, lambda: True),
    PIXELS: FeatureSpace(_pixels, lambda: True),
    "efficientnet-lite0-v1": FeatureSpace(_lite0, lambda: importlib.util.find_spec(LITE0_PACKAGE) is not None),
    "clip-rn50-openai-v1": _clip_space("RN50-quickgelu"),
    "clip-vit-b-32-openai-v1": _clip_space("ViT-B-32-quickgelu"),
    "dinov2-vit-s14-v1": FeatureSpace(_dinov2, lambda: clip.in_cache(f"timm/{DINOV2}", "model.safetensors")),
}
FEATURE_SPACES = tuple(_SPACES)
OF_CLIP = tuple(name for name, space in _SPACES.items() if space.clip)


def extract_features(images: torch.Tensor, feature_space: str, device: str = "cpu") -> torch.Tensor:
    """Features float32 [N, D] on the CPU of uint8 images [N, 3, H, W].

    InputError: the feature space is not known; or, beginning "weights absent", its weights are neither here nor to be had,
    with what fetches them; or it gives nan or infinity.
    """
    name, weights = split_name(feature_space)
    with _absence_said(feature_space):
        features = _SPACES[name].extract(images, device, weights)
    require_finite(torch.isfinite(features).all(), f"features {feature_space}", DAMAGED)
    return features


def load_space_clip(feature_space: str, device: str = "cpu") -> clip.Clip:
    """The CLIP behind a feature space of OF_CLIP. InputError as `extract_features`, or a space without one."""
    name, weights = split_name(feature_space)
    choose("feature space that reads text", name, OF_CLIP)
    with _absence_said(feature_space):
        return clip.load_clip(_SPACES[name].clip, weights or "openai", device)


def has_weights(feature_space: str) -> bool:
    """Whether all that a feature space needs is on this machine; never downloads. InputError: the space is not known."""
    name, weights = split_name(feature_space)
    return paths.resolve(weights).is_file() if weights else _SPACES[name].has_weights()


def split_name(feature_space: str) -> tuple[str, str]:
    """A feature space's name, which rows say, and the file of weights given with it, or "". InputError: not known."""
    name, _, weights = feature_space.partition("@")
    return choose("feature space", name, FEATURE_SPACES), weights


@contextlib.contextmanager
def _absence_said(feature_space: str) -> Iterator[None]:
    """An InputError for want of weights begins "weights absent", so that a reader can tell it from others."""
    try:
        yield
    except InputError as error:
        if has_weights(feature_space):
            raise
        name = split_name(feature_space)[0]
        raise InputError(f"weights absent of {name}: {error} (Here a local file is given as {name}@FILE.)")
