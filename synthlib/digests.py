"""What counts as the same: digests of code (syntax trees, without docstrings, comments, annotations), of files and folders."""

import ast
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache, partial
from pathlib import Path

from synthlib import paths
from synthlib.inputs import InputError

SUMS = "SHA256SUMS"  # beside the embedded model's folder and the referee; `sha256sum --check` reads it
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


# --- of what comes with the package -----------------------------------------------------------------------------------


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS of what `python -m synthlib.pocket` left in a folder: the model in weights/, and the referee."""
    files = {**_sums(folder / "weights"), **_sums(folder / "referee.safetensors")}
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in files.items()), encoding="utf-8")


def check_shipped(path: Path) -> Path:
    """The embedded model's folder or the referee's file, if all its bytes are those of SHA256SUMS beside it.

    InputError: a file was changed, is missing or is none of ours.
    """
    try:
        lines = (path.parent / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    promised = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    promised = {name: promised[name] for name in promised if name.split("/")[0] == path.name}
    found = _sums(path)
    differs = sorted(name for name in promised | found if promised.get(name) != found.get(name))
    if differs or not found:
        raise InputError(
            f"{path.parent / (differs or [path.name])[0]} is not as it comes with synthlib (its sha256 is not in {SUMS}), so "
            "nothing is made with it; expected it unchanged: install synthlib again. (Name a model of your own by its folder.)"
        )
    return path


def _sums(path: Path) -> dict[str, str]:
    """sha256 of a file, or of all in a folder but hidden files, by name as seen from the folder above."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path] * path.is_file()
    return {each.relative_to(path.parent).as_posix(): sha256_file(each) for each in files if each.name[0] != "."}


# --- of what is read ---------------------------------------------------------------------------------------------------
# remembered=True is for planning: whether a step is done. It trusts that files whose device, inode, size and times are those of
# an earlier look hold the same bytes. Rotten bits change none of these, so what a number follows from is hashed when it is read.


def folder_digest(folder: Path, remembered: bool = False) -> str:
    """Digest of a checkpoint's folder: names and bytes of all its files, but hidden ones and those that tell of it."""
    names = sorted(path.relative_to(folder) for path in _files_below(folder))
    counted = [
        n for n in names if not any(p.startswith(".") for p in n.parts) and (n.parent.parts or n.suffix == ".json")
    ]
    return sha256_json({name.as_posix(): sha256_large_file(folder / name, remembered) for name in counted})


def _files_below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All files in a folder and below it, also behind links to folders, which rglob passes over; once around a circle."""
    real = folder.resolve()
    for path in folder.iterdir() if real not in above else ():
        if path.is_dir():
            yield from _files_below(path, above | {real})
        elif path.is_file():
            yield path


def path_digest(path: Path, remembered: bool = False) -> str:
    """Digest of a checkpoint's folder or single file."""
    return folder_digest(path, remembered) if path.is_dir() else sha256_large_file(path, remembered)


def images_digest(path: Path, remembered: bool = False) -> str | None:
    """Digest of the bytes of a file of images, or of the names and bytes in a folder of them; None if there are none.

    A folder of 27,000 images takes seconds to hash. Where it is remembered only names, sizes and times are looked at, and those
    anew after ten seconds, for many steps ask for one folder in a row.
    """
    if path.is_file():
        return sha256_large_file(path, remembered)
    moment = int(time.monotonic() / 10) if remembered else time.monotonic_ns()
    state, names = _folder_state(path, moment) if path.is_dir() else ("", [])

    def digest_now() -> str:
        return sha256_json({name: sha256_file(path / name) for name in names})

    return _remembered(state, remembered, digest_now) if names else None


def sha256_large_file(path: Path, remembered: bool = False) -> str:
    """sha256 of a file, hashed once in a process; of a large one it is remembered in the runs' folder."""
    state = _file_state(path)
    digest_now = partial(_sha256_once, path, state)
    large = path.stat().st_size >= LARGE
    return _remembered(sha256_json([str(path.resolve()), *state]), remembered, digest_now) if large else digest_now()


@cache
def _sha256_once(path: Path, state: tuple[int, ...]) -> str:
    return sha256_file(path)


def _file_state(path: Path) -> tuple[int, ...]:
    """What differs where a file was replaced or written, even if its time of last change was set back."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache(maxsize=64)
def _folder_state(folder: Path, moment: int) -> tuple[str, list[str]]:
    """A digest of `_file_state` of all files in a folder but hidden ones, and their names; kept for a moment."""
    names = sorted(path for path in _files_below(folder) if not path.name.startswith("."))
    state = [[path.relative_to(folder).as_posix(), *_file_state(path)] for path in names]
    return sha256_json(state), [name for name, *_ in state]


def _remembered(place: str, trusted: bool, digest_now: Callable[[], str]) -> str:
    """A digest; if `trusted` the one that is remembered at a place, by whatever process found it."""
    memory = paths.resolve("papermill_runs") / ".sha256" / place
    if trusted and memory.is_file() and len(known := memory.read_text()) == 64:
        return known
    digest = digest_now()
    with contextlib.suppress(OSError):  # where nothing can be written it is hashed again
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_name(f".{place}.{os.getpid()}")
        temporary.write_text(digest)
        os.replace(temporary, memory)
    return digest
