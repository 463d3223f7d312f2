"""Class names: which names of two lists mean the same class, however each writes them."""

import functools
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from synthlib.data.archives import SourceError
from synthlib.inputs import choose

# Other names that classes go by: a folder's in the authors' script that resizes EuroSAT, and one in the hub's copy of CIFAR100.
OTHER_NAMES = {"eurosat": {"Sea": "SeaLake"}, "cifar100": {"cra": "crab"}}


def _looks(name: str) -> str:
    """What a reader sees of a name: canonical Unicode, nothing invisible, spaces alike."""
    seen = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFC", seen).split())


def _folded(name: str) -> str:
    """A name without differences of Unicode form (NFKC) and case."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _looks(name)).casefold())


@functools.cache  # of each of many images
def plain_name(name: str) -> str:
    """A class name without what writers differ in: Unicode form, case, spaces, punctuation.

    Letters, vowel signs and accents, numbers and symbols such as + stay; where only punctuation is, it stays too.
    """
    folded = _folded(name)
    kept = (letter for letter in folded if unicodedata.category(letter)[0] not in "ZP")
    return "".join(kept) or folded


def alike(name: str, known: Iterable[str]) -> str | None:
    """The one name of `known` that means the same class: equal, else alike but for what `plain_name` takes away."""
    known = list(known)
    for key in (str, _folded, plain_name):
        if found := [other for other in known if key(other) == key(name)]:
            return found[0] if len(found) == 1 or key is str else None
    return None


def choose_class(kind: str, name: str, known: Iterable[str]) -> str:
    """The name of `known` that means the same class (see `alike`); InputError, with the nearest, where there is none."""
    known = list(known)
    return alike(name, known) or choose(kind, name, known)


def require_distinct(classes: Sequence[str], where: str) -> None:
    """SourceError where two names of a class list are equal, or differ only in spaces, _ and what no reader sees."""
    for one, *others in _by(lambda name: _looks(name.replace("_", " ")), classes).values():
        if others:
            twice = f"the class {one!r} twice"
            what = twice if one in others else f"two classes that read the same, {one!a} and {others[0]!a}"
            raise SourceError(f"{where} names {what}; expected each class once: rename one, or merge them.")


def match_classes(
    found: Sequence[str],
    known: Sequence[str],
    name: str,
    dataset: str,
    part: bool = False,
    advice: str = "rename its folders, or name the data set it is of",
) -> dict[str, str]:
    """Class names of a source -> a data set's. Equal names match first, then those alike but for Unicode form and case, then
    also for spaces and punctuation (the authors' EuroSAT differs so), each only where one of the source is like one of the set.

    part: the source may have other classes too, which are left out. SourceError, with both lists, unless it is one to one.
    A line is printed where names of the source are alike and yet taken for several classes, and for one of OTHER_NAMES.
    """
    matched: dict[str, str] = {}
    for key in (str, _folded, plain_name):
        theirs, ours = _by(key, found), _by(key, known)
        matched |= {theirs[one][0]: ours[one][0] for one in theirs if len(theirs[one]) == len(ours.get(one, ())) == 1}
    renamed = {}
    for other, ours in OTHER_NAMES.get(dataset, {}).items():
        theirs = alike(other, [one for one in found if one not in matched])
        if theirs and ours in known and ours not in matched.values():
            renamed[theirs] = matched[theirs] = ours
    more = [one for one in found if one not in matched]
    less = [one for one in known if one not in matched.values()]
    pairs = [names for names in _by(plain_name, found).values() if len(names) > 1]
    told = f"{name} has classes alike but for case, spaces or punctuation ({'; '.join(_few(p, ' and ') for p in pairs[:3])})"
    if less or (more and not part):
        raise SourceError(
            f"{name} has {len(found)} classes, {dataset} has {len(known)}; {_both_sides(more, less)}"
            f"{f'; {told}' if pairs else ''}. Expected the same names, case, spaces and punctuation aside: {advice}."
        )
    if pairs:
        print(f"{told}; each is taken for a class of its own.")
    for theirs, ours in renamed.items():
        print(f"{name}: its class {theirs} is taken for {ours}.")
    return {one: matched[one] for one in found if one in matched}


def differing(found: Sequence[str], known: Sequence[str]) -> str:
    """Which names of two class lists are in one of them only: "only there: nought; missing there: zero"."""
    more, less = ([name for name in a if not alike(name, b)] for a, b in ((found, known), (known, found)))
    return _both_sides(more, less)


def _both_sides(more: Sequence[str], less: Sequence[str]) -> str:
    return f"only there: {_few(more)}; missing there: {_few(less)}"


def _by(key: Callable[[str], str], names: Iterable[str]) -> dict[str, list[str]]:
    grouped = defaultdict(list)
    for name in names:
        grouped[key(name)].append(name)
    return grouped


def _few(names: Sequence[str], between: str = ", ") -> str:
    return between.join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or "none"
