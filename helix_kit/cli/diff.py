"""``helix-kit diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from helix_kit.cli.output import print_json
from helix_kit.cli.shared import JsonFlag, app, print_diff


@app.command("diff")
def diff_command(
    before: Annotated[Path, typer.Argument(metavar="PLAN", help="The plan.json that is in use.")],
    after: Annotated[Path, typer.Argument(metavar="OTHER", help="The plan.json that is to follow it.")],
    as_json: JsonFlag = False,
) -> None:
    """Say what changes from one plan to another: who holds what, the flow, and the weights that nodes have to load.

    Example: [bold]helix-kit diff[/] plan.json other.json
    """
    from helix_kit.placement.plan import Plan

    change = Plan.load(before).diff(Plan.load(after))
    if as_json:
        print_json(change.to_dict())
    else:
        print_diff(change, f"From {before} to {after}")
