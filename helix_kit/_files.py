"""Where the package's data lies, and how users' files are read: as plain data, with errors that name the file.

YAML is read by the rules of YAML 1.2: ``no`` and ``1:30`` are text and ``010`` is ten. A key that stands twice in one
mapping is an error, in YAML and in JSON, because readers that keep the last one lose what the first one said.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from helix_kit.errors import InputError

M = TypeVar("M", bound=BaseModel)


def data_dir() -> Path:
    """Folder of catalogues, profiles and presets: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "data"
    return installed if installed.is_dir() else package.parent / "data"


def cache_dir() -> Path:
    """Where what was computed or fetched is kept: ``HELIX_KIT_CACHE``, else the platform's cache folder."""
    if given := os.environ.get("HELIX_KIT_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "helix_kit"


def notebook_path(name: str) -> Path:
    """A notebook that the package runs: inside an installed wheel, or in `notebooks/` of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "notebooks" / name
    return installed if installed.is_file() else package.parent / "notebooks" / name


UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-16, in which PowerShell 5 writes what is sent to a file."""
HINTS = {
    b"\x1f\x8b": " (it is packed by gzip: unpack it first)",
    b"PK": " (it is a zip archive or a spreadsheet: unpack it, or save it as CSV)",
}
"""First bytes of a file that is no text -> what it may be."""


def read_text(path: str | Path) -> str:
    """Text of `path`, without a byte order mark: in UTF-8, or in UTF-16 where that mark says so.

    A file that is missing or not text is an InputError.
    """
    path, content = Path(path), b""
    try:
        content = path.read_bytes()  # once, since it may be a pipe
        encoding = "utf-16" if content.startswith(UTF_16) else "utf-8-sig"
        return io.TextIOWrapper(io.BytesIO(content), encoding=encoding).read()
    except FileNotFoundError:
        raise InputError("no such file", where=path) from None
    except UnicodeError as error:
        raise InputError(f"expected text in UTF-8{HINTS.get(content[:2], '')}: {error}", where=path) from None
    except OSError as error:
        raise InputError(f"cannot be read as text ({error.strerror})", where=path) from None


def exists(path: str | Path) -> bool:
    """Whether there is a file or folder of this name; a name that no file can have, such as a very long one, has none.

    >>> exists("a" * 5000)
    False
    """
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def read_yaml(path: str | Path) -> Any:
    """Parsed YAML of `path`: plain data only, no tags of programming languages."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    text = read_text(path)
    try:
        return YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        raise InputError(f"expected every key once: {error.problem}", where=f"{path}:{line}") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = path if mark is None else f"{path}:{mark.line + 1}"
        raise InputError(f"not valid YAML: {error.problem}", where=where) from None
    except RecursionError:
        raise InputError("not valid YAML here: it is nested too deeply", where=path) from None
    except (YAMLError, ValueError) as error:
        raise InputError(f"not valid YAML: {error}", where=path) from None


def write_yaml(data: Any) -> str:
    """`data` as YAML text, in its own order, with inner lists and mappings on one line each."""
    from ruamel.yaml import YAML

    writer: Any = YAML(typ="safe", pure=True)
    writer.default_flow_style = None
    writer.width = 160
    writer.sort_base_mapping_type_on_output = False
    buffer = io.StringIO()
    writer.dump(data, buffer)
    return buffer.getvalue()


def read_json(path: str | Path) -> Any:
    """Parsed JSON of `path`."""
    return parse_json(read_text(path), path)


def parse_json(text: str, where: object, *, lines: bool = True) -> Any:
    """The value that a JSON text means.

    An InputError says what is wrong `where`, with the line if the text has `lines`. A key that stands twice is refused,
    since the last one would hide the others.

    >>> parse_json('{"a": [1]}', "x.json")
    {'a': [1]}
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            raise InputError("expected every key once", where=where, field=next(k for k in keys if keys.count(k) > 1))
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}" if lines else where
        raise InputError(f"not valid JSON: {error.msg}", where=place) from None
    except InputError:
        raise
    except RecursionError:
        raise InputError("not valid JSON here: it is nested too deeply", where=where) from None
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"not valid JSON: {error}", where=where) from None


def scratch_of(path: Path) -> Path:
    """Where a file is written before it takes its place: in the same folder, and of this thread alone.

    >>> scratch_of(Path("a/config.json")).name.startswith(".config.json.")
    True
    """
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader finds all of it or nothing, also when several write it at once.

    Where that is impossible, such as on a full disk, the file that was there stays as it was.
    """
    scratch = scratch_of(path)
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    except BaseException:  # Ctrl-C too
        scratch.unlink(missing_ok=True)
        raise


def write_result(path: str | Path, content: str | bytes) -> None:
    """Write a user's file: in one step where that is possible, straight into it where it is a device or a pipe.

    A link is followed, and a file in a folder that may not be changed is written to all the same. An OSError has the
    name of the file, also that of a full disk.
    """
    target, data = Path(path), content.encode() if isinstance(content, str) else content
    try:
        # Asked before links are followed: that of /dev/stdout leads to no name.
        is_file = target.is_file() or not target.exists()
        if is_file and os.access(target.resolve().parent, os.W_OK):
            write_whole(target.resolve(), data)
        else:
            target.write_bytes(data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_figure(path: str | Path, figure: Any, **options: Any) -> None:
    """Write a matplotlib figure as `write_result` does, in the format of the file's ending."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix.removeprefix(".").lower() or "png", **options)
    write_result(path, buffer.getvalue())


def validate(model: type[M], data: Any, where: object) -> M:
    """`model` built from plain data. An InputError names the file, the field and the value."""
    if not isinstance(data, dict):
        raise InputError("expected a mapping of fields", where=where, value=data, field="content")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(describe(error, model), where=where) from None


PLAIN = {
    "missing": "missing field",
    "string_type": "expected text (in YAML, text that looks like something else needs quotes)",
    "string_pattern_mismatch": "expected letters a to z, digits, '.', '_' and '-', with a letter or digit first",
    "float_parsing": "expected a number without a unit",
    "float_type": "expected a number",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "tuple_type": "expected a list",
    "dict_type": "expected a mapping of fields",
    "model_type": "expected a mapping of fields",
    "too_short": "expected at least one entry",
    "string_too_short": "expected at least one character",
    "finite_number": "expected a finite number",
}
"""Our words for the kinds of errors that pydantic reports."""


def describe(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """All problems on one line, such as ``nodes[2].gpu = 'A1000': what was expected; ...``."""
    return "; ".join(problems_of(error, model))


def problems_of(error: ValidationError, model: type[BaseModel] | None = None) -> list[str]:
    """Field, value and what was expected of each problem.

    `model` is the class that was validated: with it, unknown fields get the nearest known names.
    """
    lines = []
    problems = error.errors()
    for problem in problems:
        place = problem["loc"]
        # pydantic counts only valid entries: a list with a faulty one may count as empty, which is not a second fault.
        inner = any(other["loc"][: len(place)] == place and other is not problem for other in problems)
        if problem["type"] == "too_short" and inner:
            continue
        field = ""
        for part in place:
            field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else str(part)
        shown = problem["input"]
        # A whole section as the offending value says nothing; only scalars are worth printing.
        value = "" if isinstance(shown, dict | list | tuple) else f" = {shown!r}"
        text = PLAIN.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        text = text.replace("Input should be", "expected a value")
        if problem["type"] == "extra_forbidden":
            text = _unknown_field(str(place[-1]), _model_at(model, place[:-1]))
        lines.append(f"{field}{value}: {text}" if field else text)
    return lines


def _unknown_field(name: str, model: type[BaseModel] | None) -> str:
    known = list(model.model_fields) if model is not None else []
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    hint = f": did you mean {' or '.join(near)}?" if near else f": expected one of {', '.join(known)}" if known else ""
    return f"unknown field{hint}"


def _model_at(model: type[BaseModel] | None, place: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The class whose fields stand at `place`, as far as annotations tell."""
    for part in place:
        if model is None or not isinstance(part, str):
            continue
        field = model.model_fields.get(part)
        if field is None:
            # The key of a mapping, such as the name of a GPU: its value was found with the field.
            continue
        model = _inner_model(field.annotation)
    return model


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in get_args(annotation) if (found := _inner_model(a)) is not None), None)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Text for a name that is not in a catalogue, with the nearest names first."""
    known = sorted(set(known))
    folded = {entry.casefold().replace(" ", ""): entry for entry in known}
    same = folded.get(name.casefold().replace(" ", ""))
    near = [same] if same else difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}Known: {', '.join(known)}"
