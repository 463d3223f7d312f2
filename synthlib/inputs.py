"""What is given from outside, checked at the edge: names, YAML files, values of parameters; and the one kind of error."""

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

# safe_load's, by LibYAML where PyYAML has it: an experiment of 500 steps reads its YAML files 2,000 times.
FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TEXT, INTEGER, FLOAT, MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "merge"))
WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]*")  # written as Python writes it, so that text and number are one
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class InputError(Exception):
    """Something given to synthlib is wrong: one line that says what, what was expected and what to do."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows this in place of a traceback."""
        return [f"InputError: {self}"]


_FLAGS: dict[str, str] = {}  # of the command that runs, by the parameter that each sets


@contextmanager
def written_as(flags: Mapping[str, str]) -> Iterator[None]:
    """Inside, messages name parameters as a command's caller writes them: by these flags."""
    _FLAGS.update(flags)
    try:
        yield
    finally:
        _FLAGS.clear()


def parameter(name: str) -> str:
    """A parameter as the caller writes it: the running command's flag for it, where there is one, else its own name."""
    return _FLAGS.get(name, name)


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """`name` if it is known; else InputError with the nearest known name and the whole list. kind: maybe a parameter."""
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(
        f"unknown {parameter(kind)} {name!r}{hint} Known: {', '.join(known)}.".replace("' Known", "'. Known")
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; whole numbers that are names in a mapping are text.

    InputError names the file, and the line that is malformed, has a name for the second time or one that is no text, or has a
    number that YAML reads as another one: 010 is 8, 12:30 is 750.
    """
    try:
        loader = FAST_LOADER(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if root is not None:
            _check_nodes(loader, root, path)
        value = None if root is None else loader.construct_document(root)
    except FileNotFoundError:
        raise InputError(
            f"no file {path}; expected one of: {', '.join(sorted(p.stem for p in path.parent.glob('*.yaml')))}."
        )
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise InputError(f"{path}{line}: {problem}; expected well-formed YAML, mend that line.")
    except (
        OSError,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: bytes that are not UTF-8, dates such as 2020-13-01
        raise InputError(f"cannot read {path}: {error}; expected YAML in UTF-8, what looks like a date in quotes.")
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds {type(value).__name__}; expected a mapping of names to values.")
    return value


def _check_nodes(loader: Any, root: yaml.Node, path: Path) -> None:
    """Raise what `read_yaml` refuses in a YAML file's nodes, and make names of whole numbers."""
    left, seen = [root], set()
    while left:
        node = left.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        line = f"{path}, line {node.start_mark.line + 1}"
        if isinstance(node, yaml.ScalarNode):
            whole = node.tag == INTEGER and not WHOLE_NUMBER.fullmatch(node.value)
            if whole or (node.tag == FLOAT and re.search("[:_]", node.value)):
                read = loader.construct_object(node)
                raise InputError(f"{line}: YAML reads {node.value} as {read}; write {read}, or put it in quotes.")
        elif isinstance(node, yaml.SequenceNode):
            left += node.value
        else:
            names: set[str] = set()
            for key, value in node.value:
                left.append(value)
                if key.tag == MERGE:
                    continue
                line = f"{path}, line {key.start_mark.line + 1}"
                if key.tag == INTEGER and WHOLE_NUMBER.fullmatch(key.value):
                    key.tag = TEXT
                if key.tag != TEXT:
                    read = loader.construct_object(key, deep=True)
                    shown = key.value if isinstance(key, yaml.ScalarNode) else "a name"
                    raise InputError(f"{line}: YAML reads {shown} as {read!r}, not as text; put it in quotes.")
                if key.value in names:
                    raise InputError(f"{line}: {key.value} is there twice; expected each name once: remove one.")
                names.add(key.value)


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file that somebody wrote. InputError: there is none, it is malformed, or has a name twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise InputError(f"{path}: {name} is there twice; expected each name once: remove one.")
            found[name] = value
        return found

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except FileNotFoundError:
        raise InputError(f"no file {path}; expected a JSON file of parameters.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}; expected JSON.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {error}; expected a JSON file of parameters.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a JSON {type(content).__name__}; expected an object of parameters.")
    return content


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """InputError, unless `condition` holds of a parameter's value."""
    if not condition:
        raise InputError(f"{parameter(name)} is {value!r}; expected {expected}.")


def text(name: str, value: Any) -> str:
    """`value` if it is text, or a whole number. InputError: it is what YAML makes of yes, 1.0, null, 2020-01-01."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    require(isinstance(value, str), name, value, "text: put it in quotes")
    return value


def cast(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind` (str, int, float, bool, or list of texts), losing nothing; InputError where that cannot be.

    Numbers may be text, for YAML 1.1 reads 1e-4 as such; none may be infinite or not a number.
    """
    if kind is list:
        require(isinstance(value, (list, tuple)), name, value, "a list")
        return [text(f"one of {name}", item) for item in value]
    if kind is str:
        return text(name, value)
    if kind is bool:
        require(isinstance(value, bool), name, value, "true or false, without quotes")
        return value
    number = value
    if isinstance(value, str) and NUMBER.fullmatch(value):
        number = int(value) if WHOLE_NUMBER.fullmatch(value) else float(value)
    expected = "a whole number" if kind is int else "a number"
    require(isinstance(number, (int, float)) and not isinstance(number, bool), name, value, expected)
    # Beyond 2**53 a float is no longer one whole number, beyond 2**1023 an int no float.
    fits = abs(number) < 2**1023 if isinstance(number, int) else math.isfinite(number)
    if kind is int and isinstance(number, float):
        fits = number.is_integer() and abs(number) <= 2**53
    require(fits, name, value, expected)
    return kind(number)
