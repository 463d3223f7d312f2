"""Feature spaces for the diversity measures, by name and version: numbers compare within one version only."""

from collections.abc import Callable

import torch

from synthlib.inputs import InputError, choose


def _pocket_referee(images: torch.Tensor) -> torch.Tensor:
    """The last layer but one of the pocket referee, a small CNN trained on glyphs of fonts the generator never saw."""
    from synthlib.pocket import referee  # only here: no other wing needs the embedded model's weights

    if tuple(images.shape[1:]) != (3, 32, 32):
        raise InputError(
            f"images are {images.shape[2]} x {images.shape[3]}, and pocket-referee-v1 sees 32 x 32; take measures in another "
            "feature_space, or set measures to []."
        )
    return referee.features(images)


def _pixels(images: torch.Tensor) -> torch.Tensor:
    """The pixels, each image less its own mean, so that cosine similarity is correlation; needs no network."""
    flat = images.flatten(1).float() / 255
    return flat - flat.mean(1, keepdim=True)


_SPACES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "pocket-referee-v1": _pocket_referee,
    "pixels-v1": _pixels,
}
FEATURE_SPACES = tuple(_SPACES)


def extract_features(images: torch.Tensor, feature_space: str) -> torch.Tensor:
    """Features float32 [N, D] of uint8 images [N, 3, H, W]. InputError: the feature space is not known."""
    return _SPACES[choose("feature space", feature_space, FEATURE_SPACES)](images)
