"""Writing generated pages: a page is written only when its text changed, so that Sphinx reads only what is new."""

from __future__ import annotations

from pathlib import Path


def write_page(path: Path, text: str) -> None:
    """Write `text` to `path` unless the file holds it already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def remove_others(folder: Path, pattern: str, kept: set[Path]) -> None:
    """Remove the generated pages of an earlier build that this build does not write."""
    for path in folder.glob(pattern):
        if path not in kept:
            path.unlink()
