"""Results: written to the user's files, or printed as JSON."""

from __future__ import annotations

import errno
import json
import math
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from helix_kit import _files
from helix_kit.errors import HelixKitError, InputError

FULL = frozenset({errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC})
"""Errors of the operating system that say nothing of the name of a file."""


def write(path: Path, text: str) -> None:
    """Write `text` to the file of an --output option; InputError when that is impossible, HelixKitError on a full disk.

    The text may be the result of long work, so it is then kept in a folder for temporary files.
    """
    try:
        _files.write_result(path, text)
    except OSError as error:
        kept = ""
        with suppress(OSError):
            file = Path(tempfile.mkdtemp(prefix="helix-kit-")) / path.name
            file.write_text(text, encoding="utf-8")
            kept = f"; it is in {file}"
        told = InputError(f"cannot be written ({error.strerror}){kept}", where=path, field="--output")
        # A full disk is no wrong input: it has the exit code of what is the machine's.
        raise (HelixKitError(str(told)) if error.errno in FULL else told) from None


def print_json(content: Mapping[str, Any]) -> None:
    """Print a result as JSON on stdout. JSON has no word for what is not finite: it is null."""
    typer.echo(json.dumps(_finite(content), allow_nan=False))


def _finite(content: Any) -> Any:
    """The content with None for each number that is not finite.

    >>> _finite({"a": [1, float("inf")], "b": "text"})
    {'a': [1, None], 'b': 'text'}
    """
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
