"""``helix-kit reproduce``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from helix_kit.cli.shared import JsonFlag, SeedOption, Status, app
from helix_kit.errors import InputError


@app.command("reproduce")
def reproduce_command(
    names: Annotated[list[str] | None, typer.Argument(help="Experiments to run; none: list them.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Run every experiment.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Shorter runs: the same pictures, rougher numbers.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Run again what is already up to date.")] = False,
    folder: Annotated[Path, typer.Option(help="Where figures, tables and their provenance go.")] = Path("figures"),
    seed: SeedOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Regenerate figures and tables; what is finished and up to date is not run again."""
    from helix_kit.experiments.registry import Context, experiments, is_current, run_experiment

    known = experiments()
    if names and everything:
        raise InputError("expected names or --all, not both")
    wanted = list(known) if everything else names or []
    if not wanted:
        current = {name: is_current(name, folder, Context(fast=fast, seed=seed)) for name in known}
        if as_json:
            typer.echo(json.dumps({name: {"title": e.title, "current": current[name]} for name, e in known.items()}))
            return
        table = Table("Name", "Title", "Paper", "Up to date")
        for name, entry in known.items():
            table.add_row(name, entry.title, entry.paper, "yes" if current[name] else "no")
        Console().print(table)
        return
    results = {}
    for index, name in enumerate(wanted, start=1):
        started = time.perf_counter()
        with Status(f"{index}/{len(wanted)} {name}", as_json) as say:
            ran = run_experiment(name, folder, Context(fast=fast, seed=seed, say=say), force=force)
        results[name] = {"ran": ran, "seconds": round(time.perf_counter() - started, 2)}
        if not as_json:
            typer.echo(
                f"{name}: " + (f"{results[name]['seconds']:.1f} s -> {folder / name}.png" if ran else "up to date")
            )
    if as_json:
        typer.echo(json.dumps(results))
