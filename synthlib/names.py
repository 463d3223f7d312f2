"""Names of what can be asked for: tricks, architectures and other choices, with the aliases that the authors' code has."""

import difflib
import functools
import re

from synthlib.inputs import InputError, choose, parameter

# The paper's tricks; beyond the paper: domain and random guidance in one image, prompts from a list; of the domain-gap study:
# images conditioned on averaged and on interpolated embeddings of real pool images.
IMAGE_TRICKS = ("image_averaged", "image_interpolated")
TRICKS = ("base_class", "class_prompt", "multi_domain", "random_guidance", "merged", "merged_full",
          "domain_guidance", "prompt_list", *IMAGE_TRICKS)  # fmt: skip
MERGED_TRICKS = ("class_prompt", "multi_domain", "random_guidance")  # what merged and merged_full are made of
UNKNOWN = "unknown"  # the trick of a set that was made elsewhere, nobody knows how
TRICK_ALIASES = {"multidomain": "multi_domain", "random_scale": "random_guidance", "base": "base_class"}
REAL_TRICKS = ("real", "few_shot")  # conditions that train on real images, of the pool only: upper bound and few-shot
OF_THE_POOL = (*REAL_TRICKS, *IMAGE_TRICKS)  # learn from the pool, or from images that show it: tested on the rest
MINIATURES = ("resnet", "vit")  # small networks of the paper's families, for the pocket experiments
# The authors' seven, by torchvision's names (their ViTs are their own) and by those of their command line, in lower case.
FULL_SIZE = ("resnet50", "resnet101", "convnext_base", "convnext_small", "mobilenet_v3_small", "vit_b", "vit_s")
ARCHITECTURES = (*MINIATURES, *FULL_SIZE, "vit_b_16")  # torchvision's ViT-B/16, which has ImageNet weights
ARCHITECTURE_ALIASES = {"rs50": "resnet50", "rs101": "resnet101", "convnext": "convnext_base", "mbv3": "mobilenet_v3_small",
                        "convnext-s": "convnext_small", "vit-b": "vit_b", "vit-s": "vit_s"}  # fmt: skip
INITS = ("scratch", "imagenet")
TRANSFORMS = ("resized_crop", "rotated_crop")  # of the authors' code: for CIFAR, for EuroSAT
NORMALISATIONS = ("imagenet", "none", "half", "efficientnet_lite")
SCHEDULES = ("cosine_by_epoch", "cosine_by_step", "constant")
GENERAL_SPACE = "efficientnet-lite0-v1"  # of ImageNet, and its weights come with a package
LOGGERS = ("tensorboard", "wandb")
# What is tested on: all test images, or those that are in no pool (EuroSAT's pool is of them).
SPLITS = ("test", "rest")
EVALUATION_MODES = ("eval", "authors")
BEST_MODE = "authors_best"  # authors' mode, of the epoch that was best on the test set: labelled wherever it shows
CIFAR = ("cifar10", "cifar100")  # data sets
NOISES = ("per_image", "compvis")
GUIDANCE_DRAWS = ("uniform", "integer", "per_run_integer")
PRECISIONS = ("float32", "float16", "bfloat16")
RESIZES = ("", "32A", "64")


def trick_name(name: str) -> str:
    """The canonical name of a trick or of one of its aliases (the authors' code says multidomain, random_scale)."""
    return choose("trick", TRICK_ALIASES.get(name, name), TRICKS)


def condition_name(name: str) -> str:
    """The canonical name of a trick, or of other images that train a classifier: "unknown", "real", "few_shot"."""
    return choose("trick", TRICK_ALIASES.get(name, name), (*TRICKS, *REAL_TRICKS, UNKNOWN))


@functools.cache
def architecture_name(name: str) -> str:
    """The canonical name of an architecture: one of ARCHITECTURES, or else a model of timm's, as timm writes it.

    InputError: it is neither; with the nearest names.
    """
    known = ARCHITECTURE_ALIASES.get(name.lower(), name)
    if known in ARCHITECTURES:
        return known
    import timm  # takes seconds, and is asked only for what nobody else knows

    models = timm.list_models()
    if known.partition(".")[0] in models:
        return known
    near = [model for model in FULL_SIZE if known.lower() in model]
    near += difflib.get_close_matches(known.lower(), [*ARCHITECTURES, *models], n=3, cutoff=0.5)
    near = list(dict.fromkeys(near))[:3]
    raise InputError(
        f"unknown {parameter('architecture')} {name!r}{'; did you mean ' + ', '.join(near) + '?' if near else ';'} Expected one "
        f"of {', '.join(ARCHITECTURES)}, or a model of timm."
    )


def in_markdown(words: str) -> str:
    """A user's words as Markdown that shows them letter for letter: no emphasis, mathematics, HTML, link or cell's end."""
    special = r"[\\`*<$~|]|(?<![^\W_])_|\](?=[(\[:])|&(?=#?\w+;)"  # "_" opens no emphasis inside a word
    return re.sub(special, r"\\\g<0>", words)
