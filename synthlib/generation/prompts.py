"""Prompts: what each trick asks the text-to-image model for, class by class and image by image."""

import numpy as np

from synthlib.data.datasets import DatasetSpec
from synthlib.inputs import InputError
from synthlib.settings import MERGED_TRICKS

SLOTS = 2  # images that the released script draws at once, all of one prompt (create_dataset.py: n_samples 2)


def sources(trick: str, images_per_class: int) -> dict[str, int]:
    """How many images per class a trick takes from each drawn trick (its first indices).

    merged: a third of each part, a remainder in the order of MERGED_TRICKS, so that its size is the base's.
    merged_full: all of each part, three times the size (the authors' follow-on code).
    """
    if trick == "merged":
        third, rest = divmod(images_per_class, len(MERGED_TRICKS))
        counts = {part: third + (place < rest) for place, part in enumerate(MERGED_TRICKS)}
        return {part: count for part, count in counts.items() if count}
    if trick == "merged_full":
        return dict.fromkeys(MERGED_TRICKS, images_per_class)
    return {trick: images_per_class}


def domain_places(spec: DatasetSpec, source: str, index: np.ndarray, noise: str) -> np.ndarray:
    """Which of the data set's domains each image takes, int [N], from its index in its class; all 0 without domains.

    The index modulo the number of domains; in the released script's order (noise "compvis") pairs of images share one.
    """
    if source != "multi_domain":
        return np.zeros(len(index), np.int64)
    pairs = index // SLOTS if noise == "compvis" else index
    return (pairs % len(spec.domains)).astype(np.int64)


def domains_of(spec: DatasetSpec, source: str) -> tuple[str, ...]:
    """The domains of a drawn trick's prompts; ("",) for tricks without domains."""
    return spec.domains if source == "multi_domain" else ("",)


def prompt_of(spec: DatasetSpec, source: str, class_name: str, domain: str) -> str:
    """The prompt of an image, from the template of its drawn trick."""
    return spec.templates[source].replace("{domain}", domain).replace("{class}", spec.classes[class_name])


def prompts_of(spec: DatasetSpec, trick: str, images_per_class: int) -> list[str]:
    """Every prompt of a trick, each once: few, so that their embeddings are worth keeping."""
    found: dict[str, None] = {}
    for source in sources(trick, images_per_class):
        for class_name in spec.classes:
            for domain in domains_of(spec, source):
                found[prompt_of(spec, source, class_name, domain)] = None
    if any(not prompt.strip() for prompt in found):
        raise InputError(f"trick {trick!r} gives an empty prompt; expected words in the class names and templates.")
    return list(found)
