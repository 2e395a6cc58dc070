"""``helix-kit evaluate``."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Column, Table

from helix_kit import _files
from helix_kit._summary import number
from helix_kit._wording import count_text
from helix_kit.cli.lengths import name_or_trace
from helix_kit.cli.shared import (
    GoodputOption,
    JsonFlag,
    ModelOption,
    QuantizeOption,
    SeedOption,
    Status,
    app,
    check_folder,
    chosen_model,
    plain_console,
    slo_of,
    stderr,
)
from helix_kit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from helix_kit.experiments.evaluate import Evaluation


@app.command("evaluate")
def evaluate_command(
    cluster: Annotated[str, typer.Argument(help="Name of a preset, or a cluster file.")],
    model: ModelOption,
    weights: Annotated[
        Path | None,
        typer.Option(help="Hugging Face folder with safetensors, for --real. Default: SmolLM2-135M, fetched once."),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Of helix, swarm, petals, separate, separate-plus, random, shortest-queue (both on Helix's "
            "placement), served; PLACEMENT+POLICY; or files with plans."
        ),
    ] = "helix,swarm,separate,random,shortest-queue,served",
    modes: Annotated[str, typer.Option(help="offline (kept full), online (requests arrive), or both.")] = (
        "offline,online"
    ),
    real: Annotated[bool, typer.Option("--real", help="Serve by workers on this machine's devices.")] = False,
    emulate: Annotated[
        bool,
        typer.Option("--emulate", help="Serve by a process for each node, paced to the profiles, with a stand-in."),
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes of serving, all runs together. Default: 3 real, 60 emulated.")
    ] = None,
    workload: Annotated[
        str, typer.Option(help="azure-conversation, azure-code, poisson, constant, or a trace file, repeated.")
    ] = "azure-conversation",
    rate: Annotated[
        float | None, typer.Option(help="Requests/s online. Default: 75 % of what the largest flow serves.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="Seconds that are measured. Default: chosen, as --warmup.")
    ] = None,
    warmup: Annotated[float | None, typer.Option(help="Seconds before measuring.")] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds for each plan.")] = 60.0,
    time_scale: Annotated[
        float | None, typer.Option(help="Factor on the times of paced workers. Default: 1 real, 2 emulated.")
    ] = None,
    launcher: Annotated[str, typer.Option(help="Workers: process (this machine) or ray (several).")] = "process",
    dtype: Annotated[str, typer.Option(help="Of real workers: float32, bfloat16 or float16.")] = "float32",
    devices: Annotated[
        str, typer.Option(help="GPUs: those that the plan names (plan), any of this machine (any), or none (cpu).")
    ] = "plan",
    pace: Annotated[
        bool,
        typer.Option(
            "--pace", help="Pad the steps of real workers to their nodes' profiles: fast cards as slower kinds."
        ),
    ] = False,
    quantize: QuantizeOption = None,
    profiles: Annotated[
        Path | None, typer.Option(help="Folder of measured profiles, as `profile -o` writes it.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder. Default: evaluation-CLUSTER-MODEL. Runs in it are not repeated."),
    ] = None,
    seed: SeedOption = 0,
    goodput: GoodputOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare methods on a cluster: plan by each, simulate and serve the same requests, one table and one picture.

    Ctrl-C keeps what is done, and the same command goes on from there.

    Example: [bold]helix-kit evaluate[/] laptop --model SmolLM2-135M --methods helix,swarm,separate --real
    """
    from helix_kit.experiments.evaluate import evaluate
    from helix_kit.profiles import load_profiles
    from helix_kit.runtime.interrupts import sigterm_interrupts

    if real and emulate:
        raise InputError("expected one of --real and --emulate")
    given = name_or_trace(workload)
    rounded = f"-{quantize}" if quantize else ""
    folder = output or Path(f"evaluation-{Path(cluster).stem}-{Path(model).resolve().name}{rounded}")
    check_folder(output=folder)
    if pace and not real:
        raise InputError("expected --real beside --pace: --emulate paces every node")
    serve_options: dict[str, Any] = {"launcher": launcher, "devices": devices, "dtype": dtype} if real else {}
    if pace:
        serve_options["pace"] = True
    chosen = chosen_model(model, quantize)
    if emulate:
        serve_options = {"launcher": launcher}
    with sigterm_interrupts(), Status("Evaluating", as_json) as say:
        found = evaluate(
            cluster,
            chosen,
            methods=methods,
            modes=modes,
            workers="real" if real else "emulated" if emulate else "simulated",
            weights=weights,
            workload=given,
            rate_per_s=rate,
            duration_s=duration,
            warmup_s=warmup,
            minutes=minutes,
            time_limit_s=time_limit,
            time_scale=time_scale,
            profiles=load_profiles(profiles, chosen.name) if profiles else None,
            seed=seed,
            slo=slo_of(goodput),
            folder=folder,
            progress=lambda done, of, what: say(f"{done} of {of}, {what}"),
            **serve_options,
        )
    found.to_csv(folder / "table.csv")
    found.to_json(folder / "evaluation.json")
    if not found.stopped:
        # A picture takes two seconds, too long after Ctrl-C.
        _files.write_figure(folder / "picture.png", found.plot(), dpi=200)
    if as_json:
        typer.echo(found.to_json())
    else:
        _print(found, folder)
        _print_goodput(found)
    if found.stopped:
        kept = f"{_done(found)} kept in {folder}, and the same command goes on from there"
        stderr.print(f"helix-kit: stopped; {kept}", soft_wrap=True)
        raise typer.Exit(130)
    if found.problems:
        raise typer.Exit(1)


def _done(found: Evaluation) -> str:
    """How many plans and runs there are, with the verb."""
    rows = found.table
    plans = rows[rows["source"] == "plan"]["method"].nunique()
    runs = len(rows[rows["source"] != "plan"][["method", "mode", "source"]].drop_duplicates())
    return f"{count_text(plans, 'plan')} and {count_text(runs, 'run')} are"


def _print(found: Evaluation, folder: Path) -> None:
    """A row for each run, how far workers are from the simulation, and what a reader should know."""
    console = plain_console()
    heads = ("decode\ntokens/s", "prompt\np50, s", "decode\np50, s", "finished", "late\nsteps")
    title = f"{found.facts['model']} on {found.facts['cluster']}"
    table = _narrow_table(("Method", "Mode", "Source"), heads, title)
    metrics = ("decode_tokens_per_s", "prompt_latency_p50_s", "decode_latency_p50_s")
    for method, mode in found.runs:
        for source in ("simulated", found.workers):
            if source is None or found.value(method, mode, source, "decode_tokens_per_s") is None:
                continue
            late = found.value(method, mode, source, "late_steps_share")
            cells = [number(found.value(method, mode, source, metric)) for metric in metrics]
            finished = found.value(method, mode, source, "finished")
            counts = ("" if finished is None else f"{finished:.0f}", "" if late is None else f"{late:.1%}")
            table.add_row(found.labels[method], mode, source.removesuffix(" workers"), *cells, *counts)
    console.print(table)
    if len(differences := found.differences()):
        console.print(_beside(found, differences))
        if not differences["settled"].all():
            typer.echo("* This median lies between a fast and a slow group of tokens; a note below has the means.")
    for note in found.notes:
        typer.echo(f"Note: {note}")
    for problem in found.problems:
        typer.echo(f"Problem: {problem}", err=True)
    pictures = "" if found.stopped else " picture.png,"
    typer.echo(f"-> {folder}/table.csv,{pictures} evaluation.json")


def _narrow_table(names: Sequence[str], numbers: Sequence[str], title: str) -> Table:
    """An empty table with columns of names and of numbers, which fits into 80 columns."""
    left = [Column(name, no_wrap=True) for name in names]
    right = [Column(name, justify="right", no_wrap=True) for name in numbers]
    return Table(*left, *right, title=title, box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))


def _beside(found: Evaluation, differences: pd.DataFrame) -> Table:
    """A row for each run: what workers served beside the simulation, with the intervals."""
    from helix_kit.experiments.evaluate.result import NAMES

    heads = [name.replace(" ", "\n", 1) for name in NAMES.values()]
    title = f"{str(found.workers).capitalize()} beside the simulation, with intervals of 95 % confidence"
    table = _narrow_table(("Method", "Mode"), heads, title)
    for (method, mode), rows in differences.groupby(["method", "mode"], sort=False):
        told = {str(row["metric"]): _share(row) for row in rows.to_dict("records")}
        table.add_row(found.labels[str(method)], str(mode), *(told.get(metric, "") for metric in NAMES))
    return table


def _share(row: dict[Hashable, Any]) -> str:
    """The difference, and its interval on a line of its own if there is one: a row fits into 80 columns."""
    interval = "" if isnan(row["low"]) else f"\n{row['low']:+.1%} to {row['high']:+.1%}"
    return f"{row['difference']:+.1%}{'' if row['settled'] else ' *'}{interval}"


def _print_goodput(found: Evaluation) -> None:
    """A line for each run on the requests that keep the limits, where limits were given."""
    for method, mode in found.runs:
        for source in ("simulated", found.workers):
            goodput = None if source is None else found.value(method, mode, source, "goodput_per_s")
            if source is None or goodput is None:
                continue
            share = found.value(method, mode, source, "attainment")
            of_decided = "no request is decided" if share is None else f"{share:.1%} of those decided"
            told = f"{number(goodput)} requests/s keep the limits, {of_decided}"
            typer.echo(f"Goodput, {found.labels[method]}, {mode}, {source}: {told}")
