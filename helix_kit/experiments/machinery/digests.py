"""What a result depends on, as digests: an experiment runs again only if something that it uses has changed.

The code that counts is what the experiment's module imports, directly or through others. It is found by reading the
imports in the sources, so an import inside a function counts too. Three rules say how far:

- Outside `experiments` a folder such as ``placement`` counts as a whole, because its modules are chosen at run time.
  Modules of `experiments` count one by one.
- The folder of the machinery, which only runs and writes experiments, does not count.
- Pictures do not count for a table. They have a digest of their own, so a new colour means a new drawing, no new run.

Only the syntax of a source counts: comments, docstrings and layout change no result.
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
PLOTS, WIDGETS = "helix_kit.plots", "helix_kit.widgets"
PICTURES = "helix_kit.experiments.figures.pictures"


def code_digest(module: str, *, drawing: bool = False) -> str:
    """Digest of the sources that a table depends on; with `drawing`, of those that its picture depends on."""
    digest = hashlib.sha256()
    for path in sources_of(module, drawing):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0{syntax_digest(path)}\0".encode())
    return digest.hexdigest()[:16]


def data_digest(names: Iterable[str]) -> str:
    """Digest of files and folders of the data folder; "" is all of it.

    It is computed once in a process, since the package's data do not change while a program runs.
    """
    return _data_digest(_files.data_dir(), tuple(names))


@cache
def _data_digest(folder: Path, names: tuple[str, ...]) -> str:
    paths = {path for name in names for path in [folder / name, *(folder / name).rglob("*")] if path.is_file()}
    return _digest((path.relative_to(folder), path) for path in sorted(paths))


def files_digest(paths: Iterable[Path]) -> str:
    """Digest of whole files, by name and content; a missing file counts as empty."""
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
def syntax_digest(path: Path) -> str:
    """Digest of a source's syntax tree without docstrings and other strings that stand alone."""
    tree = _tree(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


@cache
def sources_of(module: str, drawing: bool) -> tuple[Path, ...]:
    """The source files that `module` depends on; with `drawing`, those that its drawing depends on."""
    found: set[Path] = set()
    queue = [module]
    while queue:
        for path in _files_of(queue.pop()) - found:
            found.add(path)
            queue += [name for name in _imports(path) if _counts(name, path, drawing)]
    return tuple(sorted(found))


def _counts(name: str, importer: Path, drawing: bool) -> bool:
    """Whether the import of `name` in the file `importer` counts."""
    if _within(name, MACHINERY):
        return False
    if drawing:
        # A picture is drawn from the table alone, so the code that computes the table does not count.
        return _within(name, PLOTS) or _within(name, PICTURES)
    shows = any(_within(name, folder) for folder in (PLOTS, WIDGETS, PICTURES))
    return not shows or importer.is_relative_to(PACKAGE / "plots")


def _within(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}.")


def _files_of(module: str) -> set[Path]:
    """The files that `module` stands for: in `experiments` its own, elsewhere those of its whole folder."""
    names = module.split(".")[1:]
    if not names:
        return set()
    path = PACKAGE.joinpath(*names)
    if names[0] == "experiments":
        return {p for p in (path.with_suffix(".py"),) if p.is_file()}
    folder = PACKAGE / names[0]
    return set(folder.rglob("*.py")) if folder.is_dir() else {p for p in (folder.with_suffix(".py"),) if p.is_file()}


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
