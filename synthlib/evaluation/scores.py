"""Scores that each generated image has for itself: does a referee see the class it was drawn for, does it show its prompt?"""

import numpy as np
import torch
from torch.nn import functional as F

from synthlib.data.sets import SyntheticSet
from synthlib.devices import require_finite
from synthlib.evaluation.clip_zero_shot import BATCH_SIZE, DAMAGED, Clip, has_clip, image_embeddings
from synthlib.evaluation.features import OF_CLIP, has_weights, load_space_clip, split_name
from synthlib.evaluation.referee import CLIP_MODEL, Judge, judge_named
from synthlib.inputs import choose
from synthlib.names import IMAGE_TRICKS

USUAL_CLIP = "clip-vit-b-32-openai-v1"  # Hessel et al.'s network: where no feature space is a CLIP's


def agreement(generated: SyntheticSet, judge: Judge) -> torch.Tensor:
    """100 for an image whose drawn class the judge's highest logit is of, else 0; float64 [N].

    InputError: a class that the judge lacks.
    """
    known = judge.classes
    numbers = torch.tensor([known.index(choose("class of the judge", name, known)) for name in generated.classes])
    return 100 * (judge.logits(generated.images).argmax(1) == numbers[generated.labels]).double()


@torch.no_grad()
def clip_scores(generated: SyntheticSet, clip: Clip) -> torch.Tensor:
    """100 x cosine of an image's and its own prompt's embedding, at least 0; float64 [N].

    Hessel et al. 2021, "CLIPScore", section 3, with w = 100 in place of their 2.5. NotFinite: some are nan.
    """
    texts, which = np.unique(generated.column("prompt").astype(str), return_inverse=True)
    device, parts = clip.network.logit_scale.device, torch.arange(len(texts)).split(BATCH_SIZE)
    tokens = [clip.tokenize([str(texts[k]) for k in part]).to(device) for part in parts]
    read = F.normalize(torch.cat([clip.network.encode_text(part).float() for part in tokens]), dim=-1).cpu()
    cosines = (image_embeddings(clip, generated.images) * read[torch.from_numpy(which)]).sum(1)
    require_finite(torch.isfinite(cosines).all(), f"scores of CLIP {clip.model}", DAMAGED)
    return 100 * cosines.double().clamp(min=0)


def score_images(
    measure: str, generated: SyntheticSet, dataset: str, feature_spaces: list[str], device: str
) -> dict[str, torch.Tensor]:
    """Judge's name -> scores float64 [N] of agreement or clip_score; none, after a line that says why, where it cannot be taken.

    agreement: by the glyph referee for digits, elsewhere by CLIP. clip_score: by the CLIPs among `feature_spaces`, else by
    USUAL_CLIP. Nothing is downloaded for either: CLIP's weights are at hand or they are not.
    """
    if measure == "agreement":
        judge = "glyphs" if dataset == "digits" else "clip"
        if judge == "clip" and not has_clip(CLIP_MODEL):
            fetch = f"`synthlib baseline clip --dataset {dataset}`"
            print(f"not run: agreement: weights absent of CLIP {CLIP_MODEL}; {fetch} fetches them.")
            return {}
        found = judge_named(judge, dataset, generated.classes, device)
        return {found.name: agreement(generated, found)}
    if "prompt" not in generated.rows.column_names or generated.rows["prompt"].null_count:
        print("not run: clip_score: the prompts of these images are not known.")
        return {}
    if set(generated.column("trick")) & set(IMAGE_TRICKS):
        print("not run: clip_score: these images are conditioned on images, not on prompts.")
        return {}
    scores = {}
    for space in [name for name in feature_spaces if split_name(name)[0] in OF_CLIP] or [USUAL_CLIP]:
        if has_weights(space):
            scores[split_name(space)[0]] = clip_scores(generated, load_space_clip(space, device))
        else:
            print(f"not run: clip_score in {space}: weights absent; naming it among the feature_spaces fetches them.")
    return scores
