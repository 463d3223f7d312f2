"""Data sets: class names, and how prompts name them (experiments/datasets/*.yaml). Their real images: see data/real.py."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from synthlib import paths
from synthlib.inputs import InputError, choose, read_yaml

if TYPE_CHECKING:
    from synthlib.data.sets import ImageSet


@dataclass(frozen=True)
class DatasetSpec:
    """What prompts are made from. `classes` maps a class to its words in a prompt, in the data set's order.

    For some tricks also, by class: `prompts`, where they come from a list (`read_prompts`), and `pool`, real images that take
    the place of words (generation/conditioning.py).
    """

    name: str
    classes: dict[str, str]
    templates: dict[str, str]
    domains: tuple[str, ...]
    prompts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pool: dict[str, "ImageSet"] = field(default_factory=dict)


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


def read_prompts(file: Path, dataset: str, classes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The prompts of some classes of a data set, from a YAML file of `class: [prompt, ...]`, in the order of `classes`.

    InputError: no such file; a class that the data set does not have; one of `classes` without prompts; a prompt that is empty
    or no text.
    """
    if not file.is_file():
        raise InputError(
            f"no file of prompts {file}; expected a YAML file of class: [prompt, ...]: write it, or name another as prompts_file."
        )
    content = {str(name): prompts for name, prompts in read_yaml(file).items()}
    known = read_yaml(paths.dataset_files()[dataset])["classes"] or content  # "own" takes any class
    for name, prompts in content.items():
        choose(f"class in {file}", name, map(str, known))
        if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
            raise InputError(f"{file}: class {name!r} has {prompts!r:.60}; expected a list of texts, each in quotes.")
        if not all(prompt.strip() for prompt in prompts):
            raise InputError(f"{file}: class {name!r} has an empty prompt; expected words in each: remove it.")
    if lacking := [name for name in classes if not content.get(name)]:
        raise InputError(
            f"{file} has no prompts of {', '.join(lacking)}; expected at least one of each class: add them."
        )
    return {name: tuple(content[name]) for name in classes}
