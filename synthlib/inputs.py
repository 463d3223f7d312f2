"""What is given from outside, checked at the edge: names, YAML files, values of parameters; and the one kind of error."""

import ast
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

# safe_load's, by LibYAML where PyYAML has it: an experiment of 500 steps reads its YAML files 2,000 times.
FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class InputError(Exception):
    """Something given to synthlib is wrong: one line that says what, what was expected and what to do."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows this in place of a traceback."""
        return [f"InputError: {self}"]


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """`name` if it is known; else InputError with the nearest known name and the whole list."""
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}.".replace("' Known", "'. Known"))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. InputError names the file, and the line where it is malformed."""
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=FAST_LOADER)
    except FileNotFoundError:
        raise InputError(
            f"no file {path}; expected one of: {', '.join(sorted(p.stem for p in path.parent.glob('*.yaml')))}."
        )
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise InputError(f"{path}{line}: {problem}; expected well-formed YAML, mend that line.")
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds {type(value).__name__}; expected a mapping of names to values.")
    return value


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """InputError, unless `condition` holds of a parameter's value."""
    if not condition:
        raise InputError(f"{name} is {value!r}; expected {expected}.")


def cast(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind` (str, int, float, bool or list), losing nothing; InputError where that cannot be."""
    if kind is list:
        require(isinstance(value, (list, tuple)), name, value, "a list")
        return list(value)
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-4 as a string
        except ValueError:
            pass
    if kind is int and not isinstance(value, bool):
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str):
            try:
                return int(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                pass
    require(
        isinstance(value, kind) and not (kind is int and isinstance(value, bool)), name, value, f"type {kind.__name__}"
    )
    return value
