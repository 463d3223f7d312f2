"""Data sets: class names, and how prompts name them (experiments/datasets/*.yaml). Their real images: see data/real.py."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from synthlib import paths
from synthlib.data.classes import require_distinct
from synthlib.inputs import InputError, choose, parameter, read_yaml, require, text

if TYPE_CHECKING:
    from synthlib.data.sets import ImageSet

# Bytes of data set and class: with trick, replicate, number and suffix the name of an image's file, which may have 255.
LONGEST_NAME = 200
UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories; not joiners, which Hindi and emoji need
PLACEHOLDER = re.compile(r"\{\w*\}")


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
    authors' create_dataset.py. Raises InputError for an unknown data set, class or domain, for an empty class list, for class
    names that cannot all name a folder, and for words and templates that would give two classes one prompt.
    """
    files = paths.dataset_files()
    file = files[choose("data set", dataset, files)]
    content = read_yaml(file)
    for key, kind in {"classes": dict, "templates": dict, "domains": list}.items():
        expected = "a list of texts" if kind is list else "a mapping of names to texts"
        require(isinstance(content.get(key), kind), f"{key} in {file}", content.get(key), expected)
    known = {name: text(f"class {name} in {file}", words) for name, words in content["classes"].items()}
    templates = {trick: text(f"{trick} in {file}", template) for trick, template in content["templates"].items()}
    for trick, template in templates.items():
        _check_template(f"template {trick} in {file}", template, trick == "multi_domain")
    if known:
        chosen = {name: known[choose("class", name, known)] for name in classes or known}
        for domain in domains:
            choose("domain", domain, content["domains"])
    else:
        chosen = {name: name.replace("_", " ") for name in classes}
    if not chosen:
        raise InputError(f"the class list of data set {dataset!r} is empty; expected at least one class name.")
    check_class_names(classes or chosen, dataset)
    domains = [text(f"one of domains in {file}", domain) for domain in domains or content["domains"]]
    for words in (*chosen.values(), *domains):
        _check_words(f"{words!r} of data set {dataset}", words)
    if known:  # names given are not drawn from by all who read them; generate.open_plan looks at those, too
        check_distinct((words, name) for name, words in chosen.items())
    if len({" ".join(words.casefold().split()) for words in domains}) < len(domains) or (
        not domains and "multi_domain" in templates
    ):
        raise InputError(
            f"the domains of data set {dataset} are {', '.join(domains) or 'none'}; expected some, each once: mend them."
        )
    return DatasetSpec(dataset, chosen, templates, tuple(domains))


def check_class_names(names: Iterable[str], dataset: str) -> None:
    """Raise InputError unless each name can name a folder, and in it the files of images, and no two read the same."""
    names = list(names)
    for name in names:
        room = LONGEST_NAME - len(dataset.encode())
        if not name or name != name.strip():
            wrong = "is empty, or begins or ends with a space"
        elif {"/", "\\"} & {*name}:
            wrong = "has slashes"
        elif name.startswith("."):
            wrong = "begins with a dot"
        elif any(unicodedata.category(sign) in UNSEEN for sign in name):
            wrong = "has a line break, a tab or another sign that cannot be shown"
        elif len(name.encode()) > room:
            wrong = f"is {len(name.encode())} bytes long, where {room} fit"
        else:
            continue
        raise InputError(f"class {name[:40]!r} {wrong}; expected a name that a folder can have: rename it.")
    require_distinct(names, dataset or "the set")


def _check_template(name: str, template: str, with_domain: bool) -> None:
    """InputError, unless a template has {class}, also {domain} in multi_domain, and no other braces."""
    wanted = ["{class}", "{domain}"] if with_domain else ["{class}"]
    rest = template
    for placeholder in wanted:
        rest = rest.replace(placeholder, "")
    whole = all(placeholder in template for placeholder in wanted) and not {"{", "}"} & {*rest}
    require(whole, name, template, f"{' and '.join(wanted)} in it and no other braces, or all classes get one prompt")


def _check_words(name: str, words: str) -> None:
    """InputError: words that go into a prompt are none, or have a placeholder, which only templates may have."""
    require(bool(words.strip()), name, words, "words: it is empty")
    require(not PLACEHOLDER.search(words), name, words, "words without placeholders: they are taken as they are")


def check_distinct(pairs: Iterable[tuple[str, str]]) -> None:
    """InputError: two classes are asked for by the same words, capitals and spaces aside, of the (words, class) given."""
    seen: dict[str, str] = {}
    for words, name in pairs:
        other = seen.setdefault(" ".join(words.casefold().split()), name)
        if other != name:
            raise InputError(
                f"classes {other!r} and {name!r} are both asked for by {words!r}; expected different prompts, or their images "
                "are the same: change the words of one."
            )


def read_prompts(file: Path, dataset: str, classes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The prompts of some classes of a data set, from a YAML file of `class: [prompt, ...]`, in the order of `classes`.

    InputError: no such file; a class that the data set does not have; one of `classes` without prompts, or with one of
    another's; a prompt that is empty or no text, or has a placeholder.
    """
    if not file.is_file():
        raise InputError(
            f"no file of prompts {file}; expected a YAML file of class: [prompt, ...]: write it, or name another "
            f"as {parameter('prompts_file')}."
        )
    content = read_yaml(file)
    known = read_yaml(paths.dataset_files()[dataset])["classes"] or content  # "own" takes any class
    for name, prompts in content.items():
        choose(f"class in {file}", name, known)
        if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
            raise InputError(f"{file}: class {name!r} has {prompts!r:.60}; expected a list of texts, each in quotes.")
        if not all(prompt.strip() for prompt in prompts):
            raise InputError(f"{file}: class {name!r} has an empty prompt; expected words in each: remove it.")
        for prompt in prompts:
            _check_words(f"a prompt of class {name!r} in {file}", prompt)
    if lacking := [name for name in classes if not content.get(name)]:
        raise InputError(
            f"{file} has no prompts of {', '.join(lacking)}; expected at least one of each class: add them."
        )
    check_distinct((prompt, name) for name in classes for prompt in content[name])
    return {name: tuple(content[name]) for name in classes}
