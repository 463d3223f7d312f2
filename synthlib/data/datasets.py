"""Data sets: class names, and how prompts name them (experiments/datasets/*.yaml). Their real images: see data/real.py."""

from dataclasses import dataclass

from synthlib import paths
from synthlib.inputs import InputError, choose, read_yaml


@dataclass(frozen=True)
class DatasetSpec:
    """What prompts are made from. `classes` maps a class to its words in a prompt, in the data set's order."""

    name: str
    classes: dict[str, str]
    templates: dict[str, str]
    domains: tuple[str, ...]


def read_spec(dataset: str, classes: list[str] = (), domains: list[str] = ()) -> DatasetSpec:
    """A data set by name, or a part of it: the `classes` and `domains` given, else all.

    The data set "own" takes any class and domain; underscores in a class become spaces in its prompt, as in the
    authors' create_dataset.py. Raises InputError for an unknown data set, class or domain, and for an empty class list.
    """
    files = paths.dataset_files()
    content = read_yaml(files[choose("data set", dataset, files)])
    known = {str(name): str(words) for name, words in content["classes"].items()}
    if known:
        chosen = {name: known[choose("class", name, known)] for name in classes or known}
        for domain in domains:
            choose("domain", domain, content["domains"])
    else:
        chosen = {name: name.replace("_", " ") for name in classes}
    if not chosen:
        raise InputError(f"the class list of data set {dataset!r} is empty; expected at least one class name.")
    if not all(name.strip() and "/" not in name and not name.startswith(".") for name in chosen):
        raise InputError(f"class names {list(chosen)} cannot all name a folder; expected words without slashes.")
    return DatasetSpec(dataset, chosen, dict(content["templates"]), tuple(domains or content["domains"]))
