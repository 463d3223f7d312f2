"""The plan: one row per image, in canonical order (replicate, trick, class, index), computed in arrays.

An image is a function of its row, the checkpoint, and (device, precision, batch size), so a row holds all that is its own.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from synthlib.data.datasets import DatasetSpec
from synthlib.generation.prompts import domain_of, prompt_of, sources
from synthlib.settings import GenerateSettings


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

    Columns: image_id, label, class, prompt, domain, trick, guidance_scale (float32), seed (uint64), replicate, index.
    `trick` is the drawn trick: a merged row is its source's row.
    """
    index = np.arange(first, last, dtype=np.uint64)
    key = hash64(settings.seed, group.replicate, spec.name, group.source, group.class_name)
    with np.errstate(over="ignore"):
        seed = splitmix64(key + index)
    domains = [domain_of(spec, group.source, i) for i in range(max(1, len(spec.domains)))]
    prompts = [prompt_of(spec, group.source, group.class_name, domain) for domain in domains]
    place = pa.array((index % np.uint64(len(domains))).astype(np.int32))
    n = last - first
    name = f"{spec.name}-{group.source}-{group.class_name}-r{group.replicate}-".replace(" ", "_")
    return pa.table(
        {
            "image_id": pa.array([f"{name}{i:06d}" for i in range(first, last)]),
            "label": pa.array(np.full(n, list(spec.classes).index(group.class_name), np.int64)),
            "class": pa.repeat(group.class_name, n),
            "prompt": pa.DictionaryArray.from_arrays(place, prompts).cast(pa.string()),
            "domain": pa.DictionaryArray.from_arrays(place, domains).cast(pa.string()),
            "trick": pa.repeat(group.source, n),
            "guidance_scale": pa.array(guidance_scales(group.source, seed, settings)),
            "seed": pa.array(seed),
            "replicate": pa.array(np.full(n, group.replicate, np.int64)),
            "index": pa.array(index.astype(np.int64)),
        }
    )


def guidance_scales(source: str, seed: np.ndarray, settings: GenerateSettings) -> np.ndarray:
    """Guidance of each image, float32 [N]: fixed, or for random guidance uniform on [min_scale, max_scale].

    The authors' random_scale draws one integer a script run; ours is drawn anew for each image, from its seed.
    """
    if source != "random_guidance":
        return np.full(len(seed), settings.guidance_scale, np.float32)
    unit = (splitmix64(seed ^ np.uint64(0x5DEECE66D)) >> np.uint64(11)).astype(np.float64) / 2.0**53
    return (settings.min_scale + unit * (settings.max_scale - settings.min_scale)).astype(np.float32)


def n_rows(settings: GenerateSettings, spec: DatasetSpec) -> int:
    """Images in the plan."""
    return sum(group.count for group in groups(settings, spec))


def plan_rows(settings: GenerateSettings, spec: DatasetSpec, first: int, last: int) -> pa.Table:
    """Rows `first` to `last` (not included) of the whole plan."""
    tables, passed = [], 0
    for group in groups(settings, spec):
        low, high = max(first - passed, 0), min(last - passed, group.count)
        if low < high:
            tables.append(group_rows(group, settings, spec, low, high))
        passed += group.count
    return pa.concat_tables(tables)
