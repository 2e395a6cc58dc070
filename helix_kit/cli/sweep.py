"""``helix-kit sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.table import Table

from helix_kit import _files
from helix_kit._summary import number
from helix_kit._wording import agreeing, count_text
from helix_kit.cli.lengths import name_or_trace
from helix_kit.cli.output import print_json
from helix_kit.cli.shared import (
    GoodputOption,
    JsonFlag,
    PolicyOption,
    Status,
    app,
    check_picture,
    check_writable,
    plain_console,
    slo_of,
)
from helix_kit.errors import InputError

if TYPE_CHECKING:
    from helix_kit.sweeps import Sweep


@app.command("sweep")
def sweep_command(
    plan_files: Annotated[list[Path], typer.Argument(metavar="PLAN...", help="One or more plan.json.")],
    rates: Annotated[
        str,
        typer.Option(
            help="Requests/s: auto (12 rates around what the best plan serves), auto:COUNT, FROM:TO:STEP or 0.5,1,2."
        ),
    ] = "auto",
    concurrency: Annotated[
        str | None,
        typer.Option(help="In place of --rates, a closed loop: this many requests served at once, as 1,8,64."),
    ] = None,
    workload: Annotated[
        str, typer.Option(help="azure-conversation, azure-code, poisson, constant, or a trace file, repeated.")
    ] = "azure-conversation",
    goodput: GoodputOption = None,
    policy: PolicyOption = "helix",
    execution: Annotated[str, typer.Option(help="range: as our runtime; layerwise: the published rules.")] = "range",
    engine: Annotated[
        str | None,
        typer.Option(help="Serving engine, such as vllm-0.15, or a YAML file of one. Default: the plan's own."),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="Simulated seconds that are measured. Default: three mean stays of a request.")
    ] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Simulated seconds before. Default: two and a half mean stays.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each point, for the intervals.")] = 3,
    jobs: Annotated[int | None, typer.Option(min=1, help="Simulations at once. Default: one a core.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Keep every point in this file; points in it are not simulated again.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the picture (PNG, PDF or SVG).")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the table (.csv) or curves (.json).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Simulate plans at many loads: saturation curves, knees, and the highest rate at which an SLO holds.

    Example: [bold]helix-kit sweep[/] plan.json other.json --rates auto --slo ttft:3 tpot:1 at:0.9 --plot curves.png
    """
    from helix_kit.sweeps import sweep

    slo = slo_of(goodput)
    check_writable(plot=plot, output=output, resume=resume)
    check_picture("--plot", plot)
    if output is not None and output.suffix not in {".csv", ".json"}:
        raise InputError("expected a file that ends with .csv or .json", field="--output", value=str(output))
    chosen = name_or_trace(workload)
    points = 0

    def progress(done: int, of: int, what: str) -> None:
        nonlocal points
        points = done
        say(f"{done} of {of}, {what}")

    try:
        with Status("Sweeping", as_json) as say:
            found = sweep(
                plan_files,
                rates=rates,
                concurrency=None if concurrency is None else _numbers(concurrency),
                workload=chosen,
                slo=slo,
                policy=policy,
                execution=cast(Literal["range", "layerwise"], execution),  # checked by sweep
                engine=engine,
                duration_s=duration,
                warmup_s=warmup,
                seeds=seeds,
                jobs=jobs,
                resume=resume,
                progress=progress,
            )
    except KeyboardInterrupt:
        kept = f"kept in {resume}, and the same command goes on from there"
        told = f"{count_text(points, 'point')} {agreeing(points, 'is', 'are')}"
        typer.echo(f"stopped: {told} {kept if resume else 'lost, which --resume FILE would keep'}", err=True)
        raise
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found)
    if plot is not None:
        _files.write_figure(plot, found.plot())
    if output is not None:
        found.to_csv(output) if output.suffix == ".csv" else found.to_json(output)


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise InputError("expected whole numbers such as 1,8,64", field="--concurrency", value=text)
    return [int(part) for part in parts]


def _print(found: Sweep) -> None:
    """A table a plan, and a line on where it saturates."""
    columns = {"requests_per_s": "served/s", "output_tokens_per_s": "tokens/s", "ttft_p50_s": "TTFT p50",
               "ttft_p99_s": "p99", "tpot_p50_s": "TPOT p50", "tpot_p99_s": "p99"}  # fmt: skip
    if found.slo is not None:
        columns["attainment"] = "kept"
    for curve in found.curves.values():
        head = "at once" if curve.is_closed else "rate/s"
        regimes = ["" if row["regime"] == "stable" else row["regime"] for row in curve.rows]
        names = (head, *columns.values())
        # Close together where regimes stand beside the numbers, so that all of them fit 80 columns.
        table = Table(title=curve.plan, padding=(0, 0 if any(regimes) else 1))
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        if any(regimes):
            table.add_column("", no_wrap=True)
        for row, regime in zip(curve.rows, regimes, strict=True):
            load = row["concurrency"] if curve.is_closed else row["rate_per_s"]
            cells = [number(load), *(number(row[name]) for name in columns)]
            table.add_row(*cells, *([regime] if any(regimes) else []))
        plain_console().print(table)
        told = [f"{name} {value}" for name, value in curve._facts().items() if name != "loads"]
        typer.echo(f"{curve.plan}: {'; '.join(told)}")
    facts = found.facts
    typer.echo(
        f"{count_text(len(facts['seeds']), 'seed')}, "
        f"{facts['duration_s']:g} s after {facts['warmup_s']:g} s of warm-up, "
        f"{facts['workload']}, policy {facts['policy']}"
    )
