"""What a dashboard keeps from one visit to the next: the editor's last plan, and results that take seconds.

Every visit to a dashboard starts a kernel of its own, which would compute everything anew. The dashboard names a folder
in an environment variable; without it, as in a notebook, nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

import helix_kit
from helix_kit import _files
from helix_kit.analysis.key_figures import KeyFigures
from helix_kit.errors import HelixKitError
from helix_kit.placement.plan import Plan

VARIABLE = "HELIX_KIT_DASHBOARD"
"""Environment variable with the folder of a dashboard's results."""
MAX_RESULTS = 200
"""Results kept at most; the oldest are deleted."""
T = TypeVar("T")


class _UnknownTypeError(Exception):
    """A value of a type that is not kept."""


def remembered(function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """Call a function, or take the result that a dashboard kept from an equal call.

    Parameters
    ----------
    function
        A function of this package that returns a plan, key figures or a table.
    arguments, keywords
        What it is called with.

    Returns
    -------
    object
        What the function returns. A table is equal up to the types of its columns.

    Examples
    --------
    >>> remembered(max, 3, 5)
    5
    """
    folder = _folder()
    if folder is None:
        return function(*arguments, **keywords)
    try:
        call = [function.__module__, function.__qualname__, _plain(arguments), _plain(keywords), _version()]
    except (_UnknownTypeError, AttributeError):
        return function(*arguments, **keywords)
    path = folder / f"{hashlib.sha256(json.dumps(call, sort_keys=True).encode()).hexdigest()[:24]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError, HelixKitError):
        kept: T = _unpack(json.loads(path.read_text(encoding="utf-8")))
        return kept
    result = function(*arguments, **keywords)
    with suppress(_UnknownTypeError, OSError):
        _write(path, json.dumps(_packed(result)))
        _delete_oldest(folder)
    return result


def keep_plan(name: str | None, plan: Plan) -> None:
    """Keep a plan under a name until the next visit; outside a dashboard, and without a name, do nothing."""
    folder = _folder()
    if folder is not None and name is not None:
        with suppress(OSError):
            _write(folder / f"{name}.plan.json", plan.to_json())


def kept_plan(name: str | None) -> Plan | None:
    """The plan of the last visit; None without one, and where another version of the package has written it."""
    folder = _folder()
    if folder is None or name is None:
        return None
    try:
        return Plan.load(folder / f"{name}.plan.json")
    except (HelixKitError, OSError):
        return None


def _folder() -> Path | None:
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


@cache
def _version() -> str:
    """The package's version and the time of its last change, so that results of other code are not taken."""
    files = Path(helix_kit.__file__).parent.rglob("*.py")
    return f"{helix_kit.__version__} {max(path.stat().st_mtime_ns for path in files)}"


def _plain(value: Any) -> Any:
    """A value as JSON can hold it, equal for equal values."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return [[_plain(key), _plain(item)] for key, item in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise _UnknownTypeError


def _packed(result: Any) -> dict[str, Any]:
    import pandas as pd

    if isinstance(result, Plan):
        return {"plan": result.model_dump(mode="json")}
    if isinstance(result, KeyFigures):
        return {"figures": asdict(result)}
    if isinstance(result, pd.DataFrame):
        # Through JSON and back, numbers of numpy become plain ones.
        return {"table": json.loads(result.to_json(orient="split", double_precision=15)), "index": result.index.name}
    raise _UnknownTypeError


def _unpack(data: dict[str, Any]) -> Any:
    if "plan" in data:
        return Plan.model_validate(data["plan"])
    if "figures" in data:
        return KeyFigures(**{**data["figures"], "unpriced": tuple(data["figures"]["unpriced"])})
    import pandas as pd

    return pd.DataFrame(**data["table"]).rename_axis(data["index"])


def _write(path: Path, text: str) -> None:
    """Write a file whole: two visits at once must not mix theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _files.write_whole(path, text.encode())


def _delete_oldest(folder: Path) -> None:
    paths = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in paths[:-MAX_RESULTS]:
        path.unlink(missing_ok=True)


__all__ = ["VARIABLE", "remembered"]
