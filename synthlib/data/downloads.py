"""Downloads: the real data sets, and the twelve synthetic sets that the authors host, checked before they count."""

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from synthlib import digests, paths, receipts
from synthlib.data import records
from synthlib.data.archives import SourceError
from synthlib.data.classes import match_classes
from synthlib.data.datasets import read_spec
from synthlib.data.hosted import HOSTED, REAL
from synthlib.data.imports import import_set, is_imported
from synthlib.data.sources import open_source
from synthlib.inputs import choose
from synthlib.locks import claim
from synthlib.progress import progress

# As torchvision's EuroSAT.download has them, where they cannot be read from outside.
EUROSAT_URL = (
    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip"
)
EUROSAT_MD5 = "c8fa014336c82ac7804f0398fcb19387"
REAL_LICENCES = {"cifar10": "not stated by its makers", "cifar100": "not stated by its makers", "eurosat": "mit"}


def download(name: str) -> Path:
    """Bring a data set into the data folder, or find it there; return its folder.

    A hosted set becomes shards with a receipt, as 01_generate makes them, straight out of the archive. A real one keeps the
    files that torchvision reads. InputError, in one line, for whatever is refused; nothing half-done counts.
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
    """torchvision's own files, by its own addresses and checksums; the archive comes by our way, which resumes."""
    import torchvision.datasets
    from torchvision.datasets.utils import extract_archive

    with claim(folder / ".lock"):
        if name == "eurosat":
            place = folder / "eurosat" / "2750"
            if not place.is_dir():
                archive, _ = records.fetch(_real_file("EuroSAT.zip", EUROSAT_URL, EUROSAT_MD5, name), folder)
                part = folder / ".part"
                shutil.rmtree(part, ignore_errors=True)  # of a call that was cut off
                extract_archive(archive, part)
                place.parent.mkdir(exist_ok=True)
                (part / "2750").rename(place)
                part.rmdir()
            splits = {"all": torchvision.datasets.EuroSAT(folder)}
        else:
            kind = getattr(torchvision.datasets, name.upper())
            try:
                kind(folder)
            except RuntimeError:  # not there, or not whole
                records.fetch(_real_file(kind.filename, kind.url, kind.tgz_md5, name), folder)
            splits = {"train": kind(folder, download=True), "test": kind(folder, train=False)}
    known = list(read_spec(name).classes)
    for split, images in splits.items():
        match_classes(images.classes, known, f"{name} in {folder}", name)
        print(f"{name}, {split}: {_count(images, known)}")
    return folder


def _real_file(file: str, url: str, md5: str, name: str) -> records.RecordFile:
    return records.with_size(records.RecordFile(file, url, None, md5, REAL_LICENCES[name], "", ""))


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
