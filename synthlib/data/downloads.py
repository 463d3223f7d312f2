"""Downloads: the real data sets, and the twelve synthetic sets that the authors host, checked before they count."""

import contextlib
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from synthlib import digests, hub, paths, receipts
from synthlib.data import readers, records
from synthlib.data.archives import SourceError
from synthlib.data.classes import match_classes
from synthlib.data.datasets import read_spec
from synthlib.data.hosted import HOSTED, REAL, REAL_LICENCES
from synthlib.data.imports import import_set, is_imported
from synthlib.data.real import load_real
from synthlib.data.sources import open_source
from synthlib.files import write_json
from synthlib.inputs import InputError, choose
from synthlib.locks import claim
from synthlib.progress import progress

# The hub's copies of CIFAR, put there by the university that made it: repository, commit, images of a class in each split.
HUB_CIFAR = {
    "cifar10": ("uoft-cs/cifar10", "0b2714987fa478483af9968de7c934580d0bb9a2", {"train": 5000, "test": 1000}),
    "cifar100": ("uoft-cs/cifar100", "aadb3af77e9048adbea6b47c21a81e47dd092ae5", {"train": 500, "test": 100}),
}
# As torchvision's EuroSAT.download has them, where they cannot be read from outside.
EUROSAT_URL = (
    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip"
)
EUROSAT_MD5 = "c8fa014336c82ac7804f0398fcb19387"


def download(name: str) -> Path:
    """Bring a data set into the data folder, or find it there; return its folder.

    A hosted set becomes shards with a receipt, as 01_generate makes them, straight out of the archive. A real one keeps its
    files: EuroSAT torchvision's, CIFAR the hub's Parquet or, where SYNTHLIB_CIFAR names an address or the hub fails,
    torchvision's. InputError, in one line, for whatever is refused; nothing half-done counts.
    """
    name = choose("data set", name, (*REAL, *HOSTED))
    folder = paths.data_home() / name
    return _download_real(name, folder) if name in REAL else _download_hosted(name, folder)


def _download_hosted(name: str, folder: Path) -> Path:
    hosted = HOSTED[name]
    if is_imported(folder, {"dataset": receipts.dataset_digest(hosted.dataset)}):
        print(f"{name} is there already: {folder}")
        return folder
    archives = paths.data_home() / ".archives"
    file = records.find_file(f"{name}.tar.gz", hosted.record, hosted.fallback)
    archive, sha256 = records.fetch(file, archives)
    origin = {"name": name, "url": file.url, "licence": file.licence, "sha256": sha256}
    origin["md5"] = file.md5 or "none to be had: trusted on first use"
    try:
        import_set(open_source(archive), folder, hosted.dataset, hosted.trick, 0, origin, "download")
    except SourceError:
        if not file.md5:  # a bad copy that was trusted shall not stand in the way of a good one
            records.forget(file, archives)
        raise
    return folder


def _download_real(name: str, folder: Path) -> Path:
    with claim(folder / ".lock"):
        known = list(read_spec(name).classes)
        if name == "eurosat":
            splits = {"all": _eurosat(folder)}
            match_classes(splits["all"].classes, known, f"{name} in {folder}", name)
        else:
            _bring_cifar(name, folder)
            loaded = {"train": load_real(name, "pool", str(folder)), "test": load_real(name, "test", str(folder))}
            splits = {
                split: list(zip(real.images, real.labels.tolist(), strict=True)) for split, real in loaded.items()
            }
    for split, images in splits.items():
        print(f"{name}, {split}: {_count(images, known)}")
    return folder


def _eurosat(folder: Path) -> Any:
    """torchvision's data set, by its own address and checksum; the archive comes by our way, which resumes."""
    import torchvision.datasets
    from torchvision.datasets.utils import extract_archive

    place = folder / "eurosat" / "2750"
    if not place.is_dir():
        archive, _ = records.fetch(_real_file("EuroSAT.zip", EUROSAT_URL, EUROSAT_MD5, "eurosat", folder), folder)
        part = folder / ".part"
        shutil.rmtree(part, ignore_errors=True)  # of a call that was cut off
        extract_archive(archive, part)
        place.parent.mkdir(exist_ok=True)
        (part / "2750").rename(place)
        part.rmdir()
    return torchvision.datasets.EuroSAT(folder)


def _bring_cifar(name: str, folder: Path) -> None:
    """The hub's copy or torchvision's files, whichever is there already; else the first of them that can be had."""
    import torchvision.datasets

    kind = getattr(torchvision.datasets, name.upper())
    named = address = records.mirror("SYNTHLIB_CIFAR", "")
    with contextlib.suppress(InputError):
        return readers.check_copy(folder / readers.COPY, name)
    shutil.rmtree(folder / readers.COPY, ignore_errors=True)  # that is not whole
    with contextlib.suppress(RuntimeError):  # not there, or not whole
        kind(folder)
        return
    usual = kind.url.rpartition("/")[0]
    if not address:
        try:
            return _cifar_from_hub(name, folder, f"SYNTHLIB_CIFAR={usual} takes torchvision's file instead")
        except InputError as error:
            print(f"{error} So torchvision's file is taken, from {usual}.", flush=True)
            address = usual
    other = f"the hub's copy is https://huggingface.co/datasets/{HUB_CIFAR[name][0]}"
    other += ", taken without SYNTHLIB_CIFAR" if named else "; SYNTHLIB_CIFAR names any mirror of this"
    file = _real_file(kind.filename, f"{address}/{kind.filename}", kind.tgz_md5, name, folder, f"{other}; ")
    records.fetch(file, folder)
    kind(folder, download=True)  # unpacks it


def _cifar_from_hub(name: str, folder: Path, elsewhere: str) -> None:
    """The hub's Parquet files, split by split in a folder of their own, whose name they get when all is there and counted."""
    repository, commit, per_class = HUB_CIFAR[name]
    part, sums = folder / ".part", {}
    shutil.rmtree(part, ignore_errors=True)  # of a call that was cut off
    files = hub.fetch_parquet(repository, commit, elsewhere)
    for split, each in per_class.items():
        (part / split).mkdir(parents=True)
        for file in (file for file in files if split in re.split("[^a-z]+", file.name)):
            shutil.copyfile(file, part / split / file.name)
            sums[f"{split}/{file.name}"] = digests.sha256_file(part / split / file.name)
        source = open_source(part / split)
        match_classes(source.classes, list(read_spec(name).classes), f"{split} of {repository}", name)
        counts = Counter(item.class_name for item in source.items)
        if set(counts.values()) != {each} or len(counts) != len(source.classes):
            raise InputError(
                f"{split} of {repository} at {commit[:7]} has {counts.total()} images, {min(counts.values())} to "
                f"{max(counts.values())} of a class; expected {each} of each of {len(source.classes)}."
            )
    write_json(part / readers.ORIGIN, {"repository": repository, "revision": commit, "sha256": sums})
    part.rename(folder / readers.COPY)


def _real_file(file: str, url: str, md5: str, name: str, folder: Path, other: str = "") -> records.RecordFile:
    elsewhere = f"{other}or put {file} into {folder} yourself, from wherever you can have it (md5 {md5})"
    return records.with_size(records.RecordFile(file, url, None, md5, REAL_LICENCES[name], "", "", elsewhere))


def _count(images: Iterable[tuple[Any, int]], classes: list[str]) -> str:
    """How many (image, label) there are of each class; which classes differ; black images and exact duplicates."""
    labels, hashes, black = Counter(), Counter(), 0
    for image, label in progress(images, "check", unit="image"):
        pixels = np.asarray(image)
        labels[label] += 1
        hashes[digests.sha256_bytes(pixels.tobytes())] += 1
        black += not pixels.any()
    counts = {name: labels[number] for number, name in enumerate(classes)}
    each = f"{min(counts.values())} each" if len(set(counts.values())) == 1 else (
        "unequal: " + ", ".join(f"{name} {count}" for name, count in counts.items()))  # fmt: skip
    again = hashes.total() - len(hashes)
    return f"{labels.total()} images of {len(classes)} classes, {each}; {again} exact duplicates, {black} black images."
