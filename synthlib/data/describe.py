"""Describe: what a set of images holds, counted from its shards and its receipt; nothing is written, no pixel decoded."""

import hashlib
import io
import math
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from synthlib.data.shards import SIDEWAYS, exif_turn, join_shards, read_table, shard_classes
from synthlib.inputs import InputError

WIDTH = 100  # columns of a terminal
LABEL = 18  # of these for what a line is about
BAR = 40  # and for the longest bar of the histogram
FEW = 5  # examples of ids, prompts, groups
BINS = 10
NEEDED = ("image", "image_id", "label", "class", "trick", "replicate", "index", "pixels_sha256")
DRAWN_WITH = ("model", "revision", "scheduler", "num_inference_steps", "precision", "device", "batch_size", "resize",
              "lossy")  # fmt: skip


@dataclass(frozen=True)
class Guidance:
    """Guidance scales of the `n` images that have one; `counts` [10] between `edges` [11], both empty if all are equal."""

    n: int
    min: float
    mean: float
    max: float
    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class Duplicates:
    """Groups of images with the same pixels. examples: some groups' image_ids (of an imported set, file names), a few of each."""

    groups: int
    beyond_first: int
    across_classes: int
    examples: list[list[str]]


@dataclass(frozen=True)
class Description:
    """What a set holds; `dataclasses.asdict` of it is JSON. All counts are of images, in the set's order.

    classes: all, in the order of their labels; class_domains: images by class and domain, of those that have a domain;
    guidance and flagged: None where no image has a guidance scale, or none was shown to the safety checker (`asked` of them
    were); drawn_with: the distinct values of the columns DRAWN_WITH that there are; made: out of the receipt, None without one.
    """

    images: int
    replicates: int
    formats: dict[str, int]
    classes: dict[str, int]
    tricks: dict[str, int]
    domains: dict[str, int]
    class_domains: dict[str, dict[str, int]]
    prompts: int
    distinct_prompts: int
    prompt_examples: list[str]
    guidance: Guidance | None
    flagged: int | None
    asked: int
    black: int
    black_examples: list[str]
    duplicates: Duplicates
    drawn_with: dict[str, list]
    made: dict[str, Any] | None


# --- counting ---------------------------------------------------------------------------------------------------------


def describe(files: Sequence[Path], receipt: dict | None) -> Description:
    """Count what the shards of a set hold (see shards.set_files), one shard's images in memory at a time, never latents.

    receipt: the set's, see receipts.read_receipt. InputError for Parquet files that are no shards, and for damaged images.
    """
    tables, formats, black = [], Counter(), []
    for path in files:
        table = read_rows(path, with_images=True)
        sizes = [_header(value["bytes"].as_py(), path) for value in table["image"]]
        formats.update(f"{width} x {height} {kind}" for width, height, kind in sizes)
        shas = zip(_told_names(table), table["pixels_sha256"].to_pylist(), sizes, strict=True)
        black += [name for name, sha, (width, height, _) in shas if sha == _black(width, height)]
        tables.append(table.drop_columns(["image"]))
    rows = join_shards(tables, files)
    names, classes = rows["class"].to_pylist(), shard_classes(rows)
    labels, domains = Counter(rows["label"].to_pylist()), _column(rows, "domain")
    by_class: dict[str, Counter] = {name: Counter() for name in classes}
    for class_name, domain in zip(names, domains, strict=True):
        if domain:
            by_class[class_name][domain] += 1
    prompts = [prompt for prompt in _column(rows, "prompt") if prompt]
    distinct = list(dict.fromkeys(prompts))
    answers = [answer for answer in _column(rows, "flagged") if answer is not None]
    return Description(
        images=len(rows),
        replicates=len(pc.unique(rows["replicate"])),
        formats=dict(formats),
        classes={name: labels[number] for number, name in enumerate(classes)},
        tricks=dict(Counter(rows["trick"].to_pylist())),
        domains=dict(Counter(domain for domain in domains if domain)),
        class_domains={name: dict(found) for name, found in by_class.items() if found},
        prompts=len(prompts),
        distinct_prompts=len(distinct),
        prompt_examples=_spread(distinct),
        guidance=_guidance(_column(rows, "guidance_scale")),
        flagged=sum(answers) if answers else None,
        asked=len(answers),
        black=len(black),
        black_examples=black[:FEW],
        duplicates=_duplicates(rows["pixels_sha256"].to_pylist(), _told_names(rows), names),
        drawn_with={
            name: [value for value in rows[name].unique().to_pylist() if value is not None]
            for name in DRAWN_WITH
            if name in rows.column_names
        },
        made=None if receipt is None else _made(receipt),
    )


def read_rows(path: Path, with_images: bool = False) -> pa.Table:
    """The rows of one shard without latents and, unless asked for, images. InputError where it is no shard of a set."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError):
        read_table(path)  # says what is wrong with it
        raise
    lacking = [name for name in NEEDED if name not in schema.names]
    if lacking or b"huggingface" not in (schema.metadata or {}):
        raise InputError(
            f"{path} is Parquet, but no shard of a set (no {', '.join(lacking) or 'class names'}); expected what 01_generate "
            "writes today: run that again, or bring others in with `synthlib import`."
        )
    left_out = ("latents",) if with_images else ("latents", "image")
    return read_table(path, [name for name in schema.names if name not in left_out])


def _column(rows: pa.Table, name: str) -> list:
    """A column's values; None for each where there is no such column."""
    return rows[name].to_pylist() if name in rows.column_names else [None] * len(rows)


def _told_names(rows: pa.Table) -> list[str]:
    """What a reader knows each image by: in an imported set its file's name, else its image_id."""
    return [
        file or image_id for file, image_id in zip(_column(rows, "file"), rows["image_id"].to_pylist(), strict=True)
    ]


def _header(data: bytes, path: Path) -> tuple[int, int, str]:
    """Width, height (upright) and format of an encoded image: PIL decodes nothing before it must."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return *(image.size[::-1] if exif_turn(image) in SIDEWAYS else image.size), image.format
    except (OSError, TypeError) as error:  # TypeError: null
        raise InputError(f"{path} holds what is no image ({str(error)[:60]}); make or import the set again.")


@cache
def _black(width: int, height: int) -> str:
    """pixels_sha256 of an image that is black all over."""
    return hashlib.sha256(bytes(3 * width * height)).hexdigest()


def _guidance(values: list[float | None]) -> Guidance | None:
    scales = np.array([value for value in values if value is not None], np.float64)
    if not len(scales):
        return None
    low, high = float(scales.min()), float(scales.max())
    counts, edges = np.histogram(scales, BINS) if low < high else (np.zeros(0, int), np.zeros(0))
    return Guidance(len(scales), low, float(scales.mean()), high, edges.tolist(), counts.tolist())


def _duplicates(shas: list[str], told: list[str], classes: list[str]) -> Duplicates:
    members: dict[str, list[int]] = defaultdict(list)
    for number, sha in enumerate(shas):
        members[sha].append(number)
    groups = [found for sha, found in members.items() if sha is not None and len(found) > 1]
    return Duplicates(
        groups=len(groups),
        beyond_first=sum(len(found) - 1 for found in groups),
        across_classes=sum(len({classes[number] for number in found}) > 1 for found in groups),
        examples=[[told[number] for number in found[:FEW]] for found in groups[:FEW]],
    )


def _made(receipt: dict) -> dict[str, Any]:
    """Who made a set, when and with what, as its receipt says."""
    recorded = receipt.get("recorded", {})
    made = {"by": receipt.get("notebook"), "origin": receipt.get("parameters", {}).get("origin")}
    made |= {name: recorded.get(name) for name in ("finished", "commit", "python", "versions", "hardware")}
    return {name: value for name, value in made.items() if value}


def _spread(values: list[str]) -> list[str]:
    """At most FEW of some values, from the first to the last."""
    return [values[place] for place in np.linspace(0, len(values) - 1, min(FEW, len(values))).round().astype(int)]


# --- words ------------------------------------------------------------------------------------------------------------


def description_text(description: Description) -> str:
    """A description for a terminal, at most 100 columns wide; each class has its count, however many there are."""
    d = description
    lines = [
        _line("images", f"{d.images} of {len(d.classes)} classes, {_number(d.replicates, 'replicate')}"),
        _line("size, format", ", ".join(f"{name}: {count}" for name, count in d.formats.items())),
        *_class_lines(d.classes),
        _line("tricks", _counts(d.tricks)),
        *_domain_lines(d),
        _line("prompts", _prompts(d)),
        *_guidance_lines(d.guidance),
        _line("safety checker", "not asked" if d.flagged is None else f"flagged {d.flagged} of {d.asked} images"),
        _line("black images", _black_images(d)),
        _line("exact duplicates", _duplicate_groups(d)),
    ]
    for name, values in d.drawn_with.items():
        lines.append(_line(name.removeprefix("num_").replace("_", " "), ", ".join(map(str, values)) or "unknown"))
    return "\n".join([*lines, *_made_lines(d.made)])


def _line(label: str, text: str) -> str:
    """A fact, wrapped, with its label at the left."""
    wrapped = textwrap.wrap(text, WIDTH - LABEL, break_on_hyphens=False) or [""]
    return "\n".join(f"{'' if number else label:<{LABEL}}{part}" for number, part in enumerate(wrapped))


def _number(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


def _class_lines(classes: dict[str, int]) -> list[str]:
    """Whether all classes have as many images; then every class with its count, in columns, down each of them first."""
    low, high = min(classes.values()), max(classes.values())
    least, most = (_few(n for n, count in classes.items() if count == bound) for bound in (low, high))
    equal = f"{_number(high, 'image')} each"
    lines = [_line("classes", equal if low == high else f"UNEQUAL: from {low} ({least}) to {high} ({most}) images")]
    wide = min(max(map(len, classes)), WIDTH - LABEL - 10)
    numbers = len(str(high))
    cells = [f"{_cut(name, wide):<{wide}} {count:>{numbers}}" for name, count in classes.items()]
    columns = max(1, (WIDTH - LABEL + 3) // (wide + 1 + numbers + 3))
    down = math.ceil(len(cells) / columns)
    return lines + [" " * LABEL + "   ".join(cells[row::down]).rstrip() for row in range(down)]


def _cut(name: str, most: int) -> str:
    """A name that is too long for a line loses its middle: its start and its end tell it from others."""
    start = most // 2
    return name if len(name) <= most else f"{name[:start]}...{name[start + 3 - most :]}"


def _domain_lines(d: Description) -> list[str]:
    """Images of each domain, and whether they are shared out among the classes in the same way."""
    if not d.domains:
        return [_line("domains", "none" if d.prompts else "unknown")]
    without = d.images - sum(d.domains.values())
    lines = [_line("domains", _counts(d.domains) + (f"; {_number(without, 'image')} without" if without else ""))]
    shares = {name: tuple(d.class_domains.get(name, {}).get(domain, 0) for domain in d.domains) for name in d.classes}
    usual = Counter(shares.values()).most_common(1)[0][0]
    told = f"{usual[0]} of each domain" if len(set(usual)) == 1 else _counts(dict(zip(d.domains, usual, strict=True)))
    others = {name: share for name, share in shares.items() if share != usual}
    if not others:
        return [*lines, _line("class x domain", f"the same in every class: {told}")]
    differ = [f"{name} ({', '.join(f'{domain} {n}' for domain, n, at in zip(d.domains, share, usual, strict=True) if n != at)})"
              for name, share in others.items()]  # fmt: skip
    return [*lines, _line("class x domain", f"DIFFERS: {told}, but not in {_few(differ)}")]


def _prompts(d: Description) -> str:
    if not d.prompts:
        return "unknown"
    which = "all images have one" if d.prompts == d.images else f"{d.prompts} of {d.images} images have one"
    return f"{which}, {d.distinct_prompts} distinct, such as {', '.join(map(repr, d.prompt_examples))}"


def _guidance_lines(guidance: Guidance | None) -> list[str]:
    if guidance is None:
        return [_line("guidance", "unknown")]
    g = guidance
    if not g.counts:
        return [_line("guidance", f"{_number(g.n, 'image')}, all {g.min:.4g}")]
    lines = [_line("guidance", f"{g.n} images, from {g.min:.4g} to {g.max:.4g}, mean {g.mean:.4g}")]
    for low, high, count in zip(g.edges, g.edges[1:], g.counts, strict=False):
        bar = "#" * math.ceil(BAR * count / max(g.counts))
        lines.append(f"{'':<{LABEL}}{low:6.2f} to {high:6.2f} {count:>7} {bar}".rstrip())
    return lines


def _black_images(d: Description) -> str:
    if not d.black:
        return "none"
    examples = ", ".join(d.black_examples) + (", ..." if d.black > len(d.black_examples) else "")
    return f"{d.black}: {examples} - the safety checker of the authors' script leaves such marks"


def _duplicate_groups(d: Description) -> str:
    found = d.duplicates
    if not found.groups:
        return "none"
    across = f"{found.across_classes} of them across classes" if found.across_classes else "none across classes"
    beyond = f"{_number(found.beyond_first, 'image')} beyond the first of each"
    black = ", black ones counted too" if d.black > 1 else ""
    examples = "; ".join(" = ".join(group) for group in found.examples)
    more = "; ..." if found.groups > len(found.examples) else ""
    return f"{_number(found.groups, 'group')} ({across}{black}), {beyond}: {examples}{more}"


def _made_lines(made: dict[str, Any] | None) -> list[str]:
    if made is None:
        return [_line("receipt", "no receipt: date, commit and versions are unknown")]
    versions = {"Python": made.get("python")} | made.get("versions", {})
    facts = {
        "made by": " ".join(str(made[name]) for name in ("by", "finished") if name in made),
        "from": ", ".join(f"{name} {value}" for name, value in made.get("origin", {}).items() if value),
        "commit": made.get("commit"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "hardware": made.get("hardware"),
    }
    return [_line(label, text) for label, text in facts.items() if text]
