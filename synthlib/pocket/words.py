"""The words that the embedded model knows, and its tokenizer."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from synthlib.pocket.glyphs import CLASSES, DOMAINS, TEMPLATES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAX_TOKENS = 12  # the longest caption has nine with its two ends
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


def vocabulary() -> dict[str, list[str]]:
    """Class words, domain names, prompt templates and every single word (lower case) that the model knows."""
    words = sorted({word for text in captions() for word in text.lower().split()})
    return {"classes": list(CLASSES), "domains": list(DOMAINS), "templates": list(TEMPLATES), "words": words}


def write_vocabulary(file: Path) -> None:
    """Write `vocabulary()` as JSON, for readers that would rather not import anything."""
    file.write_text(json.dumps(vocabulary(), indent=1) + "\n", encoding="utf-8")


def captions() -> list[str]:
    """Every caption that occurs, the empty one (no prompt: the unconditional side of guidance) first."""
    texts = {t.format_map({"class": name, "domain": d}): None for t in TEMPLATES for name in CLASSES for d in DOMAINS}
    return ["", *texts]


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """Word-level tokenizer: lower case, split at spaces and punctuation, `<bos> words <eos>` padded to MAX_TOKENS."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate([*SPECIAL, *vocabulary()["words"]])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<bos>", ids["<bos>"]), ("<eos>", ids["<eos>"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
        padding_side="right",
    )
