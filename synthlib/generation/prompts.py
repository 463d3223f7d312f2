"""Prompts: what each trick asks the text-to-image model for, class by class and image by image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synthlib import paths
from synthlib.data.datasets import DatasetSpec
from synthlib.files import read_json
from synthlib.inputs import InputError, parameter
from synthlib.names import MERGED_TRICKS

DOMAIN_TRICKS = ("multi_domain", "domain_guidance")  # prompts of multi_domain's template, in all domains in turn
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


def variants(spec: DatasetSpec, source: str, class_name: str) -> list[tuple[str, str]]:
    """(prompt, domain) of a class's prompts, which a drawn trick takes in turn; the domain is "" where there is none.

    From the trick's template; those of prompt_list from a list, as in the "language enhancement" of He et al. 2023 (arXiv
    2210.07574), whose sentences a T5 model wrote. domain_guidance has the prompts of multi_domain.
    """
    if source == "prompt_list":
        return [(prompt, "") for prompt in spec.prompts[class_name]]
    domains = spec.domains if source in DOMAIN_TRICKS else ("",)
    template = spec.templates["multi_domain" if source in DOMAIN_TRICKS else source]
    return [(template.replace("{domain}", d).replace("{class}", spec.classes[class_name]), d) for d in domains]


def variant_places(count: int, index: np.ndarray, noise: str) -> np.ndarray:
    """Which of `count` prompts each image takes, int [N], from its index in its class.

    The index modulo their number; in the released script's order (noise "compvis") pairs of images share one.
    """
    pairs = index // SLOTS if noise == "compvis" else index
    return (pairs % count).astype(np.int64)


def prompts_of(spec: DatasetSpec, trick: str, images_per_class: int) -> list[str]:
    """Every prompt of a trick, each once: few, so that their embeddings are worth keeping."""
    found: dict[str, None] = {}
    for source in sources(trick, images_per_class):
        for class_name in spec.classes:
            found |= dict.fromkeys(prompt for prompt, _ in variants(spec, source, class_name))
    if any(not prompt.strip() for prompt in found):
        raise InputError(f"trick {trick!r} gives an empty prompt; expected words in the class names and templates.")
    return list(found)


def check_words(model: Path, prompts: Sequence[str]) -> None:
    """InputError where a model's folder has a tokenizer of whole words, and a prompt has others; it lists the words it knows.

    CLIP's byte-pair vocabulary spells any word. What cannot be read is refused when the model is opened.
    """
    file = model / "tokenizer" / "tokenizer.json"
    content = read_json(file)
    vocabulary = isinstance(content, dict) and content.get("model") or {}
    if not isinstance(vocabulary, dict) or vocabulary.get("type") != "WordLevel":
        return
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # its own kind for what is malformed
        return
    special = {word["content"] for word in content.get("added_tokens", ())}
    unknown = tokenizer.token_to_id(vocabulary["unk_token"])
    words = sorted({word for prompt in prompts for word in prompt.lower().split()})
    if unknown is None:  # nothing stands for other words
        return
    strange = [word for word in words if unknown in tokenizer.encode(word, add_special_tokens=False).ids]
    if strange:
        known = ", ".join(sorted(tokenizer.get_vocab().keys() - special))
        name = "the embedded model" if model == paths.embedded_model() else model
        raise InputError(
            f"{name} does not know {', '.join(map(repr, strange))}; expected some of the words that it knows: {known}; choose "
            f"among these, or name as {parameter('model')} one that knows more, such as CompVis/stable-diffusion-v1-4."
        )
