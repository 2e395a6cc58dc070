"""Writes `docs/reference/cli.md` from the command line program itself; the page is not committed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pages import write_page

if TYPE_CHECKING:
    from sphinx.application import Sphinx

INTRODUCTION = """
The same text as `helix-kit COMMAND --help`. Exit codes: 0 for success, 2 for wrong input, 3 where no plan exists, 130
after Ctrl-C.
"""


def cli_text() -> str:
    """Every command with its arguments, options and defaults, in Markdown."""
    import typer
    from typer.cli import get_docs_for_click

    from helix_kit.cli import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="helix-kit")
    text = re.sub(r"\[bold\](.*?)\[/(?:bold)?\]", r"`\1`", text)
    title, rest = text.split("\n", 1)
    return f"{title.replace('`helix-kit`', 'Command line')}\n{INTRODUCTION}{rest}"


def write_cli_page(app: Sphinx, config: object) -> None:
    """Write the page before Sphinx looks for pages."""
    write_page(Path(app.srcdir) / "reference" / "cli.md", cli_text())


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the page's writer."""
    app.connect("config-inited", write_cli_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
