"""Referees: what another classifier sees in generated images (results/label_noise.py makes a table of it)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from synthlib.data.classes import choose_class
from synthlib.data.datasets import read_spec
from synthlib.data.sets import ImageSet
from synthlib.data.shards import load_shards
from synthlib.devices import device_named
from synthlib.evaluation.predict import predict_eval
from synthlib.inputs import InputError
from synthlib.names import UNKNOWN
from synthlib.training.checkpoint import load_model, preparation_of

JUDGES = ("glyphs", "clip", "clip:<model>")  # none has learned from real images with their labels
CLIP_MODEL = "RN50"  # of "clip"


@dataclass(frozen=True)
class Judge:
    """A referee that may choose among images: it learned from no real label."""

    name: str  # as rows say it: glyphs, or clip:<model>
    classes: list[str]
    logits: Callable[[torch.Tensor], torch.Tensor]  # images uint8 [n, 3, H, W] -> logits [n, C]


def judge_named(judge: str, dataset: str, classes: Sequence[str] = (), device: str = "cpu") -> Judge:
    """A judge of a data set's classes by name.

    glyphs: the pocket glyph referee, which learned from drawn glyphs of fonts that the generator never saw; digits only.
    clip, clip:<model>: zero-shot by OpenAI's weights, with the words and the base_class template of our data set.
    Checkpoints of 02_train are not offered: one that learned from real images would bring their labels in.

    InputError: another name, a data set that the judge does not know, or no weights.
    """
    kind, _, model = judge.partition(":")
    if kind == "clip" and (model or judge == "clip"):
        from synthlib.evaluation import clip_zero_shot as zero_shot

        names = list(read_spec(dataset, list(classes)).classes)
        words, templates = zero_shot.read_prompts(dataset, names, "ours")
        clip = zero_shot.load_clip(model or CLIP_MODEL, "openai", device)
        embeddings = zero_shot.class_embeddings(clip, words, templates)
        return Judge(f"clip:{clip.model}", names, lambda images: zero_shot.image_logits(clip, embeddings, images))
    if judge != "glyphs":
        raise InputError(
            f"unknown judge {judge!r}; expected one of {', '.join(JUDGES)}: none that learned from real labels, so no checkpoint."
        )
    if dataset != "digits":
        raise InputError(
            f"the judge 'glyphs' knows digits only, and the data set is {dataset!r}; expected clip: take it."
        )
    from synthlib.pocket.glyphs import CLASSES

    return Judge("glyphs", list(CLASSES), glyph_logits)


def judge_set(
    files: Sequence[Path], classes: Sequence[str], logits_of: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, pd.DataFrame]:
    """What a referee says of a generated set: logits [N, C], labels int64 [N] into `classes`, and a row for each image.

    logits_of: images uint8 [n, 3, H, W] -> logits [n, C] for the referee's C `classes`. Rows: image_id, trick, class,
    referee_class. Shard by shard: a set of 512 px need not fit into memory. InputError: a class that the referee lacks.
    """
    logits, labels, rows = [], [], []
    for file in files:
        part = load_shards([file])
        numbers = [classes.index(choose_class("class of the referee", name, classes)) for name in part.classes]
        logits.append(logits_of(part.images))
        labels.append(torch.tensor(numbers)[part.labels])
        drawn = "trick" in part.rows.column_names
        tricks = part.column("trick").tolist() if drawn else [UNKNOWN] * len(part.labels)
        said = [classes[k] for k in logits[-1].argmax(1).tolist()]
        rows += zip(part.column("image_id"), tricks, (classes[k] for k in labels[-1].tolist()), said, strict=True)
    return (
        torch.cat(logits),
        torch.cat(labels),
        pd.DataFrame(rows, columns=["image_id", "trick", "class", "referee_class"]),
    )


def referee_errors(real: ImageSet, classes: Sequence[str], logits_of: Callable[[torch.Tensor], torch.Tensor]) -> int:
    """How many of the real images a referee (as in `judge_set`) gets wrong. InputError: a class that the referee lacks."""
    numbers = torch.tensor(
        [classes.index(choose_class("class of the referee", name, classes)) for name in real.classes]
    )
    wrong = logits_of(real.images).argmax(1) != numbers[real.labels]
    return int(wrong.sum())


def glyph_logits(images: torch.Tensor) -> torch.Tensor:
    """Logits float32 [N, 10] of the pocket referee for uint8 images [N, 3, 32, 32]: zero to nine. InputError: another size."""
    from synthlib.pocket.referee import judge_logits  # only here: no other referee needs the embedded model's weights

    if tuple(images.shape[1:]) != (3, 32, 32):
        raise InputError(
            f"images are {images.shape[2]} x {images.shape[3]}, and the glyph referee expects 32 x 32; draw or import the set "
            "at that size."
        )
    return judge_logits(images)[0]


def checkpoint_referee(path: Path, device: str) -> tuple[dict, Callable[[torch.Tensor], torch.Tensor]]:
    """A checkpoint of 02_train as a referee, such as one that learned from the real pool: its record, and images -> logits."""
    model, record = load_model(path)
    model, preparation = model.to(device_named(device)), preparation_of(record)
    return record, lambda images: predict_eval(model, images, preparation)
