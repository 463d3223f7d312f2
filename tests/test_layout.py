"""The package as README.md lays it out: what each wing imports, and no circles."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

from conftest import ROOT

from synthlib.runs.run import REFUSALS

PACKAGE = ROOT / "synthlib"
ROW = re.compile(r"^\| `(?P<wing>\w+)/` \|[^|]*\|(?P<imports>[^|]*)\|", re.M)


def module(path: Path) -> str:
    """synthlib.data.shards, of a wing's __init__.py synthlib.data."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in PACKAGE.rglob("*.py")}
WINGS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def wing(name: str) -> str:
    """The wing of a module; "" on the ground floor, "cli" of the command line."""
    own = f"{name}.".split(".")[1]
    return own if own in WINGS else "cli" if own.startswith("cli") else ""


def imported(name: str) -> set[str]:
    """The modules of ours that a module imports, also within functions, or only takes types from."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "synthlib":
            found |= {one if (one := f"{node.module}.{each.name}") in MODULES else node.module for each in node.names}
    return found - {"synthlib", name}


def test_each_wing_imports_what_the_readme_says_and_no_more():
    table = {
        row["wing"]: set(re.findall(r"\w+", row["imports"])) for row in ROW.finditer((ROOT / "README.md").read_text())
    }
    assert set(table) == WINGS
    found = {name: set() for name in WINGS}
    for name in MODULES:
        others = {wing(one) for one in imported(name)} - {"", wing(name)}
        if wing(name) == "":
            assert not others, f"{name} is of the ground floor and imports {others}"
        elif wing(name) != "cli":
            found[wing(name)] |= others
    assert found == table


def test_no_module_imports_itself_through_others():
    list(TopologicalSorter({name: imported(name) for name in MODULES}).static_order())  # CycleError names the circle


def test_a_module_is_read_in_one_sitting():
    assert [name for name, path in MODULES.items() if len(path.read_text(encoding="utf-8").splitlines()) > 400] == []


def test_a_step_knows_every_kind_of_error_that_is_told_in_one_line():
    texts = (path.read_text(encoding="utf-8") for path in MODULES.values())
    kinds = {kind for text in texts for kind in re.findall(rf"^class (\w+)\((?:{'|'.join(REFUSALS)})\)", text, re.M)}
    assert {"InputError", *kinds} == set(REFUSALS)
