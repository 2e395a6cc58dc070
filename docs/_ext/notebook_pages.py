"""Copies the notebooks into `docs/notebooks/`, where Sphinx finds them; the copies are not committed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pages import remove_others, write_page

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def copy_notebooks(app: Sphinx, config: object) -> None:
    """Copy each notebook; its links into `docs/` are relative to the copy's place."""
    docs = Path(app.srcdir)
    written = set()
    for source in sorted((docs.parent / "notebooks").glob("*.ipynb")):
        target = docs / "notebooks" / source.name
        write_page(target, source.read_text(encoding="utf-8").replace("](../docs/", "](../"))
        written.add(target)
    remove_others(docs / "notebooks", "*.ipynb", written)


def setup(app: Sphinx) -> dict[str, bool]:
    """Copy before Sphinx looks for pages."""
    app.connect("config-inited", copy_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
