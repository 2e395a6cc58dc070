"""``helix-kit reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from helix_kit.cli.output import print_json
from helix_kit.cli.shared import JsonFlag, SeedOption, Status, app, check_folder, plain_console
from helix_kit.errors import InputError

if TYPE_CHECKING:
    from helix_kit.experiments import Done


@app.command("reproduce")
def reproduce_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Experiments to run, by name or by section of the paper (6.3); none: list them."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Run every experiment.")] = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="Shorter runs: the same pictures, rougher numbers, in figures/fast.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Run the named experiments again, even if they are up to date.")
    ] = False,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Draw the pictures again from the tables that are there; compute nothing.")
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Experiments to run at the same time.")] = 1,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where figures, tables and their provenance go; by default figures, or figures/fast."),
    ] = None,
    document: Annotated[
        Path | None, typer.Option(help="Also write the document with all pictures and the table of agreement.")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Regenerate figures and tables, except those that are up to date. Without names: list all experiments.

    Example: [bold]helix-kit reproduce[/] single-cluster
    """
    from helix_kit.experiments import experiments, run_all
    from helix_kit.experiments.machinery.catalogue import experiments_of
    from helix_kit.experiments.machinery.files import FAST_FIGURES, FIGURES

    folder = folder or (FAST_FIGURES if fast else FIGURES)
    known = experiments()
    if names and everything:
        raise InputError("expected names or --all, not both")
    named = [name for word in names or [] for name in experiments_of(word)]
    wanted = list(known) if everything else list(dict.fromkeys(named))
    if redraw:
        if not wanted:
            raise InputError("expected names or --all with --redraw")
        _redraw([n for n in wanted if not everything or (folder / f"{n}.csv").is_file()], folder, as_json)
        wanted = []
        if document is None:
            return
    if not wanted and document is None:
        _list(folder, fast, seed, as_json)
        return
    check_folder(folder=folder)
    results: dict[str, dict[str, object]] = {}
    title = "" if jobs == 1 else f"{jobs} at a time: "
    with Status("reproduce", as_json) as say:

        def started(name: str, index: int, total: int) -> None:
            nonlocal title
            title = f"{index}/{total} {name}" if jobs == 1 else title
            say(title if jobs == 1 else f"{title}{name} started, {index - 1} of {total} done")

        steps = run_all(
            wanted,
            folder,
            fast=fast,
            seed=seed,
            force=force,
            jobs=jobs,
            say=lambda message: say(f"{title}: {message}"),
            start=started,
        )
        try:
            for done in steps:
                results[done.name] = _facts(done)
                if not as_json:
                    typer.echo(_line(done, folder))
        except KeyboardInterrupt:
            typer.echo(
                f"stopped after {len(results)}: they are kept, and the same command goes on from there", err=True
            )
            raise
    if document is not None:
        from helix_kit.experiments.machinery.document import write_document

        write_document(document, folder)
        if not as_json:
            typer.echo(f"-> {document}")
    if as_json:
        print_json(results)


def _facts(done: Done) -> dict[str, object]:
    facts: dict[str, object] = {"ran": done.ran, "seconds": round(done.seconds, 2)}
    return {**facts, "skipped": done.skipped} if done.skipped else facts


def _line(done: Done, folder: Path) -> str:
    what = f"{done.seconds:.1f} s -> {folder / done.name}.png" if done.ran else "up to date"
    what = f"skipped: {done.skipped}" if done.skipped else what
    left = f", about {_duration(done.left_s)} left" if done.ran and done.index < done.total else ""
    return f"[{done.index}/{done.total}] {done.name}: {what}{left}"


def _redraw(names: list[str], folder: Path, as_json: bool) -> None:
    from helix_kit.experiments import redraw

    for name in names:
        redraw(name, folder)
        if not as_json:
            typer.echo(f"{name}: drawn again -> {folder / name}.png")
    if as_json:
        print_json({name: {"redrawn": True} for name in names})


def _list(folder: Path, fast: bool, seed: int, as_json: bool) -> None:
    from helix_kit.experiments import Context, experiments, is_current

    known = experiments()
    current = {name: is_current(name, folder, Context(fast=fast, seed=seed)) for name in known}
    if as_json:
        print_json({name: {"title": e.title, "current": current[name]} for name, e in known.items()})
        return
    table = Table("Name", "Title", "Paper", "Up to date")
    for name, entry in known.items():
        table.add_row(name, entry.title, entry.paper, "yes" if current[name] else "no")
    plain_console().print(table)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
