"""Where the package's own data lies, and how user files are read (safely, with errors that name the file)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from helix_kit.errors import InputError

M = TypeVar("M", bound=BaseModel)


def data_dir() -> Path:
    """Folder of catalogues, profiles and presets: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "data"
    return installed if installed.is_dir() else package.parent / "data"


def read_text(path: str | Path) -> str:
    """Text of `path`; raises InputError when it is missing, a folder or not UTF-8."""
    path = Path(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("no such file", where=path) from None
    except (IsADirectoryError, UnicodeDecodeError, PermissionError) as error:
        raise InputError(f"cannot be read as text ({error})", where=path) from None


def read_yaml(path: str | Path) -> Any:
    """Parsed YAML of `path` (safe loader: plain data only)."""
    import yaml

    try:
        return yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {error}", where=path) from None


def read_json(path: str | Path) -> Any:
    """Parsed JSON of `path`."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON: {error}", where=path) from None


def validate(model: type[M], data: Any, where: object) -> M:
    """`model` built from plain data; a failure names the file, the field and the value."""
    if not isinstance(data, dict):
        raise InputError("expected a mapping of fields", where=where, value=data, field="content")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(describe(error), where=where) from None


def describe(error: ValidationError) -> str:
    """One line a problem: ``nodes[2].gpu = 'A1000': what was expected``."""
    lines = []
    for problem in error.errors():
        field = ""
        for part in problem["loc"]:
            field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else str(part)
        shown = problem["input"]
        # A whole section as the offending value says nothing; only scalars are worth printing.
        value = "" if isinstance(shown, dict | list | tuple) else f" = {shown!r}"
        text = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{field}{value}: {text}" if field else text)
    return "; ".join(lines)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Text for a name that is not in a catalogue, with the nearest names first."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}Known: {', '.join(known)}"
