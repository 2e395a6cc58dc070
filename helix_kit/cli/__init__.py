"""The command line: ``helix-kit plan``, ``diff``, ``explain``, ``simulate``, ``sweep``, ``fleet``, ``serve``,
``bench``, ``evaluate``, ``export``, ``profile``, ``exam``, ``reproduce`` and ``catalog``.

Each takes ``--json``: the result and nothing else on stdout; progress and messages go to stderr. Exit codes: 0 done,
2 wrong input, 3 no plan exists, 130 stopped by Ctrl-C, 1 for what is none of these, such as a full disk; each failure
is one message without a traceback.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from helix_kit import __version__
from helix_kit.cli import (  # noqa: F401  (importing them registers the commands)
    bench,
    catalog,
    diff,
    evaluate,
    exam,
    explain,
    export,
    fleet,
    plan,
    profile,
    reproduce,
    serve,
    simulate,
    sweep,
)
from helix_kit.cli.command import Command
from helix_kit.cli.shared import app, joined_limits
from helix_kit.errors import HelixKitError

for _registered in app.registered_commands:
    _registered.cls = Command


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"helix-kit {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the ``helix-kit`` program."""
    try:
        app(joined_limits(sys.argv[1:]), standalone_mode=True)
    except HelixKitError as error:
        typer.echo(f"helix-kit: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("helix-kit: stopped", err=True)
        sys.exit(130)
