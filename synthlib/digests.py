"""What counts as the same code: digests of syntax trees, without docstrings, comments and annotations."""

import ast
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path

from synthlib import paths

LARGE = 50_000_000  # bytes; hashing a checkpoint of 4 GB in each of many processes would take minutes


def sha256_text(text: str) -> str:
    """sha256 of a text, as hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_bytes(data: bytes) -> str:
    """sha256 of some bytes, as hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: object) -> str:
    """sha256 of a JSON value in its canonical form (sorted keys)."""
    return sha256_text(json.dumps(value, sort_keys=True, ensure_ascii=True))


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, as hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Bare(ast.NodeTransformer):
    """Takes docstrings and annotations away; an annotated field without a value keeps its name."""

    def _without_docstring(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
        return node

    visit_Module = visit_ClassDef = _without_docstring

    def visit_FunctionDef(self, node: ast.AST) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_arg(self, node: ast.AST) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AST) -> ast.AST:
        value = self.visit(node.value) if node.value else ast.Constant(value=...)
        return ast.copy_location(ast.Assign(targets=[node.target], value=value), node)


def bare_source(source: str) -> str:
    """A source in normal form: two that differ in comments, layout, docstrings or annotations only become equal."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell with magics, such as %matplotlib
        return source
    return ast.unparse(ast.fix_missing_locations(_Bare().visit(tree)))


def code_cells(notebook: Path) -> list[str]:
    """Sources of a notebook's code cells, but for the setup cell and the parameters, part of a step's key by their values."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    skipped = {"setup", "parameters", "injected-parameters"}
    wanted = [c for c in cells if c["cell_type"] == "code" and not skipped & set(c["metadata"].get("tags", []))]
    return ["".join(cell["source"]) for cell in wanted]


def _module_file(name: str) -> Path | None:
    parts = name.split(".")[1:]
    for file in (paths.package().joinpath(*parts).with_suffix(".py"), paths.package().joinpath(*parts, "__init__.py")):
        if file.is_file():
            return file
    return None


def _imports(source: str) -> set[str]:
    """The synthlib modules that a source imports, at the top or inside functions."""
    found = set()
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {name for name in names if name.startswith("synthlib.") and _module_file(name)}
    return found


def modules_used(sources: Iterable[str]) -> list[str]:
    """All synthlib modules that some sources import, directly or through one another, sorted."""
    waiting, seen = set().union(*map(_imports, sources)), set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= _imports(_module_file(name).read_text(encoding="utf-8")) - seen
    return sorted(seen)


@cache
def module_digest(name: str) -> str:
    """Digest of one module's code, e.g. "synthlib.generation.sampler"."""
    return sha256_text(bare_source(_module_file(name).read_text(encoding="utf-8")))


@cache
def notebook_digest(step: str) -> str:
    """Digest of the code that makes a step's files: the notebook's code cells and every module they use."""
    cells = code_cells(paths.notebook(step))
    modules = {name: module_digest(name) for name in modules_used(cells)}
    return sha256_json({"cells": [bare_source(cell) for cell in cells], "modules": modules})


@cache
def folder_digest(folder: Path) -> str:
    """Digest of a checkpoint's folder: names and bytes of all its files, but hidden ones and those that tell of it."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    counted = [
        n for n in names if not any(p.startswith(".") for p in n.parts) and (n.parent.parts or n.suffix == ".json")
    ]
    return sha256_json({name.as_posix(): sha256_large_file(folder / name) for name in counted})


def fingerprint(path: Path) -> str | None:
    """What tells in a moment whether a file or folder of images has changed; None if there is none.

    Of a folder: names, sizes and times of last change, because hashing 27,000 images at each look would take seconds;
    looked at anew after ten seconds, for many steps ask for one folder in a row.
    """
    if path.is_file():
        return sha256_large_file(path)
    return _folder_fingerprint(path, int(time.monotonic() / 10)) if path.is_dir() else None


@lru_cache(maxsize=64)
def _folder_fingerprint(path: Path, moment: int) -> str | None:
    names = sorted(found for found in path.rglob("*") if found.is_file() and not found.name.startswith("."))
    told = [(found.relative_to(path).as_posix(), found.stat().st_size, found.stat().st_mtime_ns) for found in names]
    return sha256_json(told) if told else None


def path_digest(path: Path) -> str:
    """Digest of a file or a folder."""
    return folder_digest(path) if path.is_dir() else sha256_large_file(path)


def sha256_large_file(path: Path) -> str:
    """sha256 of a file; of a large one it is remembered in the runs' folder, by path, size and time of last change."""
    found = path.stat()
    if found.st_size < LARGE:
        return sha256_file(path)
    place = sha256_text(json.dumps([str(path.resolve()), found.st_size, found.st_mtime_ns]))
    memory = paths.resolve("papermill_runs") / ".sha256" / place
    if memory.is_file() and len(known := memory.read_text()) == 64:
        return known
    digest = sha256_file(path)
    with contextlib.suppress(OSError):  # where nothing can be written it is hashed again
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_name(f".{place}.{os.getpid()}")
        temporary.write_text(digest)
        os.replace(temporary, memory)
    return digest
