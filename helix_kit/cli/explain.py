"""``helix-kit explain``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from helix_kit.cli.shared import JsonFlag, Status, app

if TYPE_CHECKING:
    import pandas as pd


@app.command("explain")
def explain_command(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan.json from `helix-kit plan`.")],
    what_if: Annotated[
        bool,
        typer.Option("--what-if", help="Also plan with a machine more or less, or wider links; rank the gains."),
    ] = False,
    losses: Annotated[
        bool, typer.Option("--losses", help="Also rank machines by the flow lost when they fail.")
    ] = False,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds of solving for each change.")] = 10.0,
    as_json: JsonFlag = False,
) -> None:
    """Say what limits a plan, what would help, and what each machine's loss would cost."""
    from helix_kit import analysis
    from helix_kit.placement.plan import Plan

    plan = Plan.load(plan_file)
    sentences = analysis.explain(plan)
    tables: dict[str, pd.DataFrame] = {}
    if what_if:
        with Status("Planning each change", as_json) as say:
            tables["what_if"] = analysis.what_if(
                plan, time_limit_s=time_limit, progress=lambda done, of, name: say(f"{done} of {of}: {name}")
            )
    if losses:
        tables["losses"] = analysis.losses(plan)
    if as_json:
        content = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        typer.echo(json.dumps({"explanation": sentences.splitlines(), **content}))
        return
    typer.echo(sentences)
    for table in tables.values():
        brief = table.drop(columns=["kind", "gap", "gain_percent"], errors="ignore")
        first, *rest = (column.replace("_", " ") for column in brief.columns)
        shown = Table(Column(first, no_wrap=True), *(Column(name, justify="right") for name in rest))
        for row in brief.itertuples(index=False):
            shown.add_row(*(_cell(value) for value in row))
        Console().print(shown)


def _cell(value: object) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return "-"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"
    return str(value)
