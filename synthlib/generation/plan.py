"""The plan: one row per image, in canonical order (replicate, trick, class, index), computed in arrays, shard by shard.

An image is a function of its row, the checkpoint, and (device, precision, batch size), so a row holds all that is its own.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthlib import hub, paths
from synthlib.data.datasets import DatasetSpec, check_distinct, read_prompts, read_spec
from synthlib.generation.prompts import DOMAIN_TRICKS, SLOTS, check_words, prompts_of, sources, variant_places, variants
from synthlib.inputs import InputError, parameter
from synthlib.names import IMAGE_TRICKS
from synthlib.settings import GenerateSettings

GUIDANCE_TRICKS = ("random_guidance", "domain_guidance")  # those whose guidance is drawn
AVERAGED = 3  # pool images whose mean conditions an image: second-hand, see paper_facts' domain-gap study


def splitmix64(x: np.ndarray) -> np.ndarray:
    """SplitMix64's output for the states `x` (uint64, any shape): Steele, Lea and Flood 2014, section 5."""
    with np.errstate(over="ignore"):
        z = x.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def hash64(*parts: object) -> np.uint64:
    """64 bits of sha256 over some values, each told from the next."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "big"))


@dataclass(frozen=True)
class Group:
    """The rows of one (replicate, drawn trick, class): the unit within which indices and batches count."""

    replicate: int
    source: str
    class_name: str
    count: int


@dataclass(frozen=True)
class Slice:
    """Rows `first` to `last` (not included) of a group."""

    group: Group
    first: int
    last: int


def plan_spec(settings: GenerateSettings) -> DatasetSpec:
    """The data set of a plan, with its prompts. No torch is imported for this, so that what is wrong is known in a second.

    InputError: an unknown data set, class or domain, no template for the trick, prompts that are not there, or a word that the
    model does not know, as far as the model is on this machine.
    """
    spec = read_spec(settings.dataset, settings.classes, settings.domains)
    check_distinct((words, name) for name, words in spec.classes.items())
    if settings.trick == "prompt_list":
        file = paths.resolve(settings.prompts_file or paths.prompts_file(settings.dataset))
        spec = replace(spec, prompts=read_prompts(file, settings.dataset, spec.classes))
    if settings.trick in IMAGE_TRICKS and settings.noise != "per_image":
        raise InputError(
            f"{parameter('noise')} is {settings.noise!r} with trick {settings.trick!r}; expected 'per_image': the authors' "
            "script has no order for images that are conditioned on images."
        )
    templates = {"multi_domain" if drawn in DOMAIN_TRICKS else drawn for drawn in sources(settings.trick, 3)}
    if lacking := templates - {*spec.templates, "prompt_list", *IMAGE_TRICKS}:
        raise InputError(
            f"data set {settings.dataset!r} has no template for {', '.join(sorted(lacking))}; expected one, such as "
            f"'an image of a {{class}}': add it to {paths.dataset_files()[settings.dataset]}."
        )
    if settings.trick not in IMAGE_TRICKS and (model := hub.find(settings.model, settings.revision)):
        check_words(model, prompts_of(spec, settings.trick, settings.images_per_class))
    return spec


def groups(settings: GenerateSettings, spec: DatasetSpec) -> list[Group]:
    """The plan's groups in canonical order."""
    parts = sources(settings.trick, settings.images_per_class)
    return [
        Group(replicate, source, class_name, count)
        for replicate in range(settings.replicates)
        for source, count in parts.items()
        for class_name in spec.classes
    ]


def group_rows(group: Group, settings: GenerateSettings, spec: DatasetSpec, first: int, last: int) -> pa.Table:
    """Rows `first` to `last` (not included) of a group, also beyond its count: a block is filled up with them.

    Columns: image_id, label, class, prompt, domain, trick, guidance_scale (float32), seed (uint64), replicate, index; and
    for noise "compvis" iteration and slot. `trick` is the drawn trick: a merged row is its source's row. `seed` is the
    image's own, or for "compvis" the one that all images of a replicate share (the experiment's seed + replicate). Where pool
    images take the place of a prompt, `prompt` says which.
    """
    index = np.arange(first, last, dtype=np.uint64)
    key = hash64(settings.seed, group.replicate, spec.name, group.source, group.class_name)
    with np.errstate(over="ignore"):
        own = splitmix64(key + index)
    if group.source in IMAGE_TRICKS:
        ids = spec.pool[group.class_name].ids
        asked = [(text, "") for text in mixture_texts(ids, *mixtures(group.source, own, len(ids)))]
        place = np.arange(len(asked))
    else:
        asked = variants(spec, group.source, group.class_name)
        place = variant_places(len(asked), index, settings.noise)
    prompts, domains = (pa.array([pair[part] for pair in asked], pa.string()) for part in (0, 1))
    place = pa.array(place.astype(np.int32))
    n = last - first
    name = f"{spec.name}-{group.source}-{group.class_name}-r{group.replicate}-".replace(" ", "_")
    number = pc.utf8_lpad(pa.array(index).cast(pa.string()), 6, "0")
    compvis = settings.noise == "compvis"
    columns = {
        "image_id": pc.binary_join_element_wise(name, number, ""),
        "label": pa.repeat(pa.scalar(list(spec.classes).index(group.class_name), pa.int64()), n),
        "class": pa.repeat(group.class_name, n),
        "prompt": pa.DictionaryArray.from_arrays(place, prompts).cast(pa.string()),
        "domain": pa.DictionaryArray.from_arrays(place, domains).cast(pa.string()),
        "trick": pa.repeat(group.source, n),
        "guidance_scale": pa.array(guidance_scales(group, own, settings, spec)),
        "seed": pa.array(np.full(n, settings.seed + group.replicate, np.uint64) if compvis else own),
        "replicate": pa.repeat(pa.scalar(group.replicate, pa.int64()), n),
        "index": pa.array(index.astype(np.int64)),
    }
    if compvis:
        in_prompt = index // np.uint64(SLOTS * len(asked))
        columns["iteration"] = pa.array(in_prompt.astype(np.int64))
        columns["slot"] = pa.array((index % np.uint64(SLOTS)).astype(np.int64))
    return pa.table(columns)


def guidance_scales(group: Group, own: np.ndarray, settings: GenerateSettings, spec: DatasetSpec) -> np.ndarray:
    """Guidance of each image, float32 [N], from numbers of its own (`own`, uint64 [N]).

    Fixed but for random guidance (alone or with domains), where `guidance_draw` says how it is drawn from min_scale to
    max_scale: "uniform" and "integer" anew for each image, "per_run_integer" once for a replicate, as the authors' random_scale
    draws random.randint(min_scale, max_scale) once a script run (create_dataset.py; their generator had no seed).
    """
    n, draw = len(own), settings.guidance_draw
    if group.source not in GUIDANCE_TRICKS:
        return np.full(n, settings.guidance_scale, np.float32)
    if draw == "per_run_integer":
        own = np.full(n, hash64(settings.seed, group.replicate, spec.name, "guidance of the run"))
    unit = (splitmix64(own ^ np.uint64(0x5DEECE66D)) >> np.uint64(11)).astype(np.float64) / 2.0**53
    low, high = settings.min_scale, settings.max_scale
    if draw == "uniform":
        return (low + unit * (high - low)).astype(np.float32)
    low, high = np.ceil(low), np.floor(high)
    return (low + np.floor(unit * (high - low + 1))).astype(np.float32)


def mixtures(source: str, own: np.ndarray, pool: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of `pool` images condition each image, int [N, K], and with which weights, float64 [N, K]; from own uint64 [N].

    image_averaged: the mean of AVERAGED of them. image_interpolated: (1 - t) a + t b, t one of 0.001, 0.002, ... 0.999. The K
    of an image are distinct, and all choices are equally likely.
    """
    draws = splitmix64((own ^ np.uint64(0xB5026F5AA9))[:, None] + np.arange(pool, dtype=np.uint64))
    count = AVERAGED if source == "image_averaged" else 2
    places = np.argsort(draws, axis=1, kind="stable")[:, :count]
    if source == "image_averaged":
        return places, np.full(places.shape, 1 / count)
    t = (1 + splitmix64(own ^ np.uint64(0x2545F4914F)) % np.uint64(999)) / 1000
    return places, np.stack([1 - t, t], axis=1)


def mixture_texts(ids: Sequence[str], places: np.ndarray, weights: np.ndarray) -> list[str]:
    """What the rows of `mixtures` say in place of a prompt: enough to know the images and their weights from."""
    if places.shape[1] == 2:
        pairs = zip(places.tolist(), weights[:, 1].tolist(), strict=True)
        return [f"between pool images {ids[a]} and {ids[b]}, {t:.3f}" for (a, b), t in pairs]
    return [f"mean of pool images {' + '.join(ids[place] for place in row)}" for row in places.tolist()]


def n_rows(settings: GenerateSettings, spec: DatasetSpec) -> int:
    """Images in the plan."""
    return sum(group.count for group in groups(settings, spec))


def cut(settings: GenerateSettings, spec: DatasetSpec, rows: int) -> Iterator[list[Slice]]:
    """The plan in pieces of `rows` rows (the last may be shorter), each as slices of groups, without making a row."""
    piece, room = [], rows
    for group in groups(settings, spec):
        first = 0
        while first < group.count:
            last = min(group.count, first + room)
            piece.append(Slice(group, first, last))
            room -= last - first
            first = last
            if not room:
                yield piece
                piece, room = [], rows
    if piece:
        yield piece


def slice_rows(slices: list[Slice], settings: GenerateSettings, spec: DatasetSpec) -> pa.Table:
    """The rows of some slices, see group_rows for the columns."""
    return pa.concat_tables([group_rows(part.group, settings, spec, part.first, part.last) for part in slices])


def plan_rows(settings: GenerateSettings, spec: DatasetSpec, first: int, last: int) -> pa.Table:
    """Rows `first` to `last` (not included) of the whole plan."""
    found, passed = [], 0
    for group in groups(settings, spec):
        low, high = max(first - passed, 0), min(last - passed, group.count)
        if low < high:
            found.append(Slice(group, low, high))
        passed += group.count
    return slice_rows(found, settings, spec)
