"""Signatures stay short and docstrings say what a caller needs."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import pkgutil
import re
import textwrap
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from numpydoc.docscrape import NumpyDocString
from pydantic import BaseModel

import helix_kit

PACKAGE = Path(helix_kit.__file__).resolve().parent
MAX_PARAMETERS = 8
VERBS = {
    "planning.plan": "public verb",
    "simulator.api.simulate": "public verb",
    "simulator.scoring.score": "public, with the keywords of `simulate`",
    "runtime.serving.serve": "public verb",
    "analysis.compare.compare": "public verb: takes keywords of `plan` and of `simulate`",
    "experiments.evaluate.api.evaluate": "public verb, with keywords of `plan` and of `serve`",
    "sweeps.api.sweep": "public verb, with keywords of `simulate`",
    "fleets.api.fleet": "public verb, with keywords of `plan` and of `simulate`",
    "report.run.Run.__init__": "a record of what a run is made of",
    "runtime.worker.attention.attend": "the signature that transformers calls, with its layers' options",
}
"""Functions that may take more parameters, with the reason."""


def functions(path: Path):
    """(qualified name, definition) of every function in a source file, nested ones too."""

    def walk(node: ast.AST, prefix: str):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{prefix}{child.name}", child
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                name = f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix
                yield from walk(child, name)

    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    yield from walk(ast.parse(path.read_text(encoding="utf-8")), f"{module}.")


def is_kernel(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it runs on a GPU: its parameters are pointers, strides and sizes."""
    return any("triton.jit" in ast.unparse(d) for d in definition.decorator_list)


def is_command(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is a command of the command line, whose parameters are its options."""
    return any(".command" in ast.unparse(d) for d in definition.decorator_list)


def test_no_function_takes_more_than_eight_parameters():
    long, used = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, definition in functions(path):
            arguments = definition.args
            names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > MAX_PARAMETERS and name in VERBS:
                used.add(name)
            elif count > MAX_PARAMETERS and not is_command(definition) and not is_kernel(definition):
                long.append(f"{name}: {count}")
    assert not long
    assert used == set(VERBS), "a listed function is short now: take it off the list"


def test_simulated_state_is_read_by_name():
    hits = [
        f"{path.name}: {line.strip()}"
        for path in (PACKAGE / "simulator").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"\bstate\[-?\d|\bstate\[\d*:|len\(nodes\) - [12]\b", line)
    ]
    assert not hits


def public() -> dict[str, Any]:
    """Dotted name -> object for every function and class of ours in an `__all__`."""
    found: dict[int, tuple[str, Any]] = {}
    for info in pkgutil.walk_packages(helix_kit.__path__, "helix_kit."):
        # Triton comes with a torch for GPUs only; its functions are those of `torch_kernels`.
        if info.name.endswith(("__main__", ".triton_kernels")):
            continue
        module = import_module(info.name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__.startswith("helix_kit"):
                found.setdefault(id(value), (f"{value.__module__}.{value.__qualname__}", value))
    return dict(sorted(found.values()))


PUBLIC = public()


def field_names(cls: type) -> list[str]:
    """Fields of a dataclass, pydantic model or named tuple."""
    if dataclasses.is_dataclass(cls):
        return [f.name for f in dataclasses.fields(cls) if not f.name.startswith("_")]
    if issubclass(cls, BaseModel):
        return list(cls.__annotations__)
    return list(getattr(cls, "_fields", ()))


def described_fields(cls: type) -> set[str]:
    """Fields that a string below them describes in the source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    named = set()
    for statement, following in pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            named.add(statement.target.id)  # type: ignore[union-attr]
    return named


def complaints(name: str, value: Any, *, method: bool = False) -> list[str]:
    """What a docstring lacks: parameters, returns, an example.

    A method needs no example of its own. Its summary may say what it returns, and name up to three parameters.
    """
    if not value.__doc__:
        return [f"{name}: no docstring"]
    doc = NumpyDocString(inspect.cleandoc(value.__doc__))
    listed = {n.strip("* ") for p in (*doc["Parameters"], *doc["Other Parameters"]) for n in p.name.split(",")}
    wrong = []
    if inspect.isclass(value) and (issubclass(value, BaseException) or getattr(value, "_is_protocol", False)):
        return wrong
    if not method and not doc["Examples"] and ">>>" not in value.__doc__:
        wrong.append(f"{name}: no example")
    if inspect.isclass(value):
        fields = field_names(value)
        listed |= {n.strip() for p in doc["Attributes"] for n in p.name.split(",")}
        if fields:
            missing = set(fields) - listed - described_fields(value)
        else:
            init = value.__dict__.get("__init__")
            missing = {p for p in inspect.signature(init).parameters if p != "self"} - listed if init else set()
        if missing:
            wrong.append(f"{name}: nothing said of {', '.join(sorted(missing))}")
        return wrong
    signature = inspect.signature(value)
    wanted = {p for p in signature.parameters if p not in {"self", "cls"}}
    if method and len(wanted) <= 3 and not listed:
        return wrong
    if missing := wanted - listed:
        wrong.append(f"{name}: nothing said of {', '.join(sorted(missing))}")
    if extra := listed - wanted:
        wrong.append(f"{name}: describes {', '.join(sorted(extra))}, which it does not take")
    returns = signature.return_annotation
    if (
        not method
        and returns not in (None, "None", inspect.Signature.empty, "NoReturn")
        and not (doc["Returns"] or doc["Yields"])
    ):
        wrong.append(f"{name}: nothing said of what it returns")
    return wrong


def methods(cls: type) -> dict[str, Any]:
    """Public methods that the class defines itself. A method that overrides another one has its description."""
    found = {}
    for name, member in vars(cls).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        inherited = any(hasattr(base, name) for base in cls.__mro__[1:])
        if not name.startswith("_") and not inherited and inspect.isfunction(function):
            found[name] = function
    return found


@pytest.mark.parametrize("name", PUBLIC)
def test_public_docstrings_say_what_a_caller_needs(name):
    value = PUBLIC[name]
    wrong = complaints(name, value)
    if inspect.isclass(value) and value.__module__.startswith("helix_kit"):
        for method, function in methods(value).items():
            wrong += complaints(f"{name}.{method}", function, method=True)
    assert not wrong
