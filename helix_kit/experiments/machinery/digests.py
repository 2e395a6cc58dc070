"""What a result depends on, as digests: an experiment is run again only when something that it uses has changed.

The code that counts is what the experiment's module imports, directly or not, found by reading the imports in the
source (so what is imported lazily counts too). A room such as ``placement`` counts as a whole, since its parts pick
each other at run time; modules of `experiments` count one by one. Left out are the machinery that only runs and
writes (`MACHINERY`), and pictures, which have a digest of their own: a new colour needs a new drawing, no new run.
Of a source only the syntax counts: comments, docstrings and layout change no result.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from helix_kit import _files

PACKAGE = Path(_files.__file__).resolve().parent
MACHINERY = "helix_kit.experiments.machinery"
SHOWING = ("helix_kit.plots", "helix_kit.widgets")
PICTURES = "helix_kit.experiments.figures.pictures"


def code_digest(module: str, *, drawing: bool = False) -> str:
    """Digest of the sources behind `module`; with `drawing`, of those behind a picture (plots count then)."""
    digest = hashlib.sha256()
    for path in _sources(module, drawing):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0{_syntax_digest(path)}\0".encode())
    return digest.hexdigest()[:16]


def data_digest(parts: Iterable[str]) -> str:
    """Digest of the files below `parts` of the data folder ("" for all of it); data do not change under a program."""
    return _data_digest(_files.data_dir(), tuple(parts))


@cache
def _data_digest(folder: Path, parts: tuple[str, ...]) -> str:
    found = {path for part in parts for path in [folder / part, *(folder / part).rglob("*")] if path.is_file()}
    return _digest((path.relative_to(folder), path) for path in sorted(found))


def files_digest(paths: Iterable[Path]) -> str:
    """Digest of whole files, by name and content; a missing one counts as empty."""
    return _digest((Path(path.name), path) for path in paths)


def _digest(named: Iterable[tuple[Path, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in named:
        digest.update(name.as_posix().encode() + b"\0")
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:16]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _syntax_digest(path: Path) -> str:
    """Digest of a source's syntax tree without docstrings (and other strings that nobody uses)."""
    tree = _tree(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


@cache
def _sources(module: str, drawing: bool) -> tuple[Path, ...]:
    found: set[Path] = set()
    queue = [module]
    while queue:
        for path in _files_of(queue.pop()) - found:
            found.add(path)
            queue += [name for name in _imports(path) if _counts(name, path, drawing)]
    return tuple(sorted(found))


def _counts(name: str, importer: Path, drawing: bool) -> bool:
    if name.startswith(MACHINERY):
        return False
    if drawing:
        # A picture is drawn from the table alone: what the table took to compute is not its business.
        return name.startswith((*SHOWING[:1], PICTURES))
    return not name.startswith((*SHOWING, PICTURES)) or importer.is_relative_to(PACKAGE / "plots")


def _files_of(module: str) -> set[Path]:
    """The files that `module` stands for: one of `experiments` itself, else its whole room."""
    parts = module.split(".")[1:]
    if not parts:
        return set()
    path = PACKAGE.joinpath(*parts)
    if parts[0] == "experiments":
        return {p for p in (path.with_suffix(".py"),) if p.is_file()}
    room = PACKAGE / parts[0]
    return set(room.rglob("*.py")) if room.is_dir() else {p for p in (room.with_suffix(".py"),) if p.is_file()}


@cache
def _imports(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(name for name in names if name.split(".")[0] == "helix_kit")
