"""``helix-kit simulate``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from helix_kit._plugins import is_ours, is_own_code, told
from helix_kit._summary import number
from helix_kit.cli.output import print_json
from helix_kit.cli.shared import (
    Co2Option,
    GoodputOption,
    JsonFlag,
    Mode,
    PolicyOption,
    SeedOption,
    Status,
    app,
    check_writable,
    print_cost,
    print_run,
    slo_of,
)
from helix_kit.errors import HelixKitError, InputError

if TYPE_CHECKING:
    from helix_kit.placement.plan import Plan
    from helix_kit.workload import Workload

WARMUP_S, DURATION_S = 60.0, 600.0
"""Defaults of a sampled workload and of offline runs."""
MAX_LENGTH_FACTOR = 1.5
"""Requests that are longer or shorter than the plan's by more than this factor are said to be."""
SETTLED_STAYS = 2.5
"""A warm-up of so many mean stays of a request leaves out the start of a backlog, as in sweeps."""
MAX_BACKLOG = 1_000_000
"""A sampled backlog of more requests is not made longer; if it runs dry, the result says so."""


@app.command("simulate")
def simulate_command(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan.json from `helix-kit plan`.")],
    trace: Annotated[Path | None, typer.Option(help="Trace file (CSV, JSON lines): ours, Azure, BurstGPT, ...")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns of another trace: arrival=NAME,input=NAME,output=NAME.")
    ] = None,
    time_unit: Annotated[str | None, typer.Option(help="Unit of the trace's times: s, ms, us or ns.")] = None,
    workload: Annotated[str, typer.Option(help="Sampled workload, used without --trace.")] = "azure-conversation",
    mode: Annotated[Mode, typer.Option(help="Arrivals over time, or KV caches kept full.")] = Mode.ONLINE,
    policy: PolicyOption = "helix",
    rate: Annotated[float | None, typer.Option(help="Requests/s (online). Default: 75 % of the plan's flow.")] = None,
    duration: Annotated[
        float | None,
        typer.Option(help="Simulated seconds that are measured. Default: 600; with --trace, all of it and 60 s more."),
    ] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Simulated seconds before measuring starts. Default: 60; with --trace, 0.")
    ] = None,
    execution: Annotated[str, typer.Option(help="range: as our runtime; layerwise: the published rules.")] = "range",
    engine: Annotated[
        str | None,
        typer.Option(help="Serving engine to predict, such as vllm-0.15, or a YAML file of one; see data/engines."),
    ] = None,
    sorts_samples: Annotated[
        bool, typer.Option("--top-p", help="With --engine: requests are sampled with top-p or top-k.")
    ] = False,
    penalises: Annotated[
        bool, typer.Option("--penalties", help="With --engine: requests have a penalty for repetition.")
    ] = False,
    prefix_cache: Annotated[
        bool, typer.Option(help="Share the KV cache of prompts that begin alike, where the workload says which do.")
    ] = True,
    seed: SeedOption = 0,
    records: Annotated[Path | None, typer.Option(help="Write one row per request to this CSV file.")] = None,
    perfetto: Annotated[Path | None, typer.Option(help="Write a Chrome/Perfetto trace of every batch.")] = None,
    goodput: GoodputOption = None,
    gco2_per_kwh: Co2Option = None,
    as_json: JsonFlag = False,
) -> None:
    """Simulate traffic on a plan: throughput, latencies (TTFT, TPOT, ITL, E2EL) and goodput under limits.

    Example: [bold]helix-kit simulate[/] plan.json --rate 0.5 --goodput ttft:2 tpot:0.8 at:0.9
    """
    from helix_kit.analysis import cost
    from helix_kit.placement.plan import Plan
    from helix_kit.profiles.engines import load_engine
    from helix_kit.simulator import BatchingOptions, simulate
    from helix_kit.workload import make_workload

    for name, value in {"--duration": duration, "--rate": rate}.items():
        if value is not None and value <= 0:
            raise InputError("expected a positive number", field=name, value=value)
    if warmup is not None and warmup < 0:
        raise InputError("expected a number of at least 0", field="--warmup", value=warmup)
    slo = slo_of(goodput)
    check_writable(records=records, perfetto=perfetto)
    plan = Plan.load(plan_file)
    # A trace is measured from its first to its last request unless the user says otherwise.
    if trace is None or mode is Mode.OFFLINE:
        warmup = WARMUP_S if warmup is None else warmup
        duration = DURATION_S if duration is None else duration

    def requests_for(seconds: float) -> Workload:
        return make_workload(
            workload if trace is None else trace, plan, mode=mode.value, rate_per_s=rate, duration_s=seconds, seed=seed,
            columns=_parse_columns(columns), time_unit=time_unit,
        )  # fmt: skip

    seconds = (warmup or 0.0) + (duration or DURATION_S)
    requests = requests_for(seconds)
    if not len(requests):
        expected = f"expected a higher rate or a longer --duration: no request arrives within {seconds:g} s"
        raise InputError(expected, field="--rate", value=rate)
    notes = [*requests.notes, *_other_lengths(plan, requests)]
    # An engine has rules of its own: its record says whether it shares prompts.
    record = load_engine(engine) if engine is not None else plan.engine if execution == "range" else None
    options = None if prefix_cache or record is not None else BatchingOptions(prefix_cache=False)
    if record is not None and not prefix_cache:
        record = record.with_rules(prefix_cache=False)
    late = 0 if duration is None else sum(r.arrival_s > (warmup or 0.0) + duration for r in requests)
    if late:
        notes.append(f"{late} of {len(requests)} requests arrive after the simulated time and are left out")
    with Status("Simulating", as_json) as say, _errors_of(policy):
        while True:
            run = simulate(
                plan,
                requests,
                mode=mode.value,
                policy=policy,
                execution=cast(Literal["range", "layerwise"], execution),  # checked by simulate
                duration_s=duration,
                warmup_s=warmup,
                seed=seed,
                engine=record,
                options=options,
                sorts_samples=sorts_samples,
                penalises=penalises,
                progress=lambda now_s, end_s: say(f"{now_s:,.0f} of {end_s:,.0f} simulated seconds"),
            )
            # A sampled backlog that ran dry is made longer, unless the cluster turns away whatever comes.
            is_short = "ran_dry_s" in run.facts and trace is None and not run.partial
            if not is_short or len(requests) > MAX_BACKLOG or all(r.outcome == "rejected" for r in run.records):
                break
            seconds *= 2
            requests = requests_for(seconds)
    summary = run.summary(slo)
    if mode is Mode.OFFLINE and not run.partial:
        notes += _start_counts(summary, warmup or 0.0)
    summary["notes"] = [*notes, *summary["notes"]]
    paid = cost(plan, run, gco2_per_kwh=gco2_per_kwh)
    if as_json:
        print_json({**summary, "cost": paid.to_dict()})
    else:
        print_run(summary, f"{plan.cluster.name}, {plan.model.name}: {mode.value}, policy {policy}")
        print_cost(paid)
    if records:
        run.to_csv(records)
    if perfetto:
        run.to_perfetto(perfetto)
    if run.partial:
        typer.echo("helix-kit: stopped; these are the figures until then", err=True)
        raise typer.Exit(130)


def _start_counts(summary: dict[str, Any], warmup_s: float) -> list[str]:
    """A note where a backlog is measured before the requests of its start have left: all prompts came at once then."""
    stay_s = summary["e2el_s"]["mean"]
    if stay_s is None or warmup_s >= stay_s:
        return []
    enough = math.ceil(SETTLED_STAYS * stay_s)
    return [
        f"requests stay {number(stay_s)} s on average, more than the warm-up: the start, when machines are empty and "
        f"all requests begin with their prompts, still counts; --warmup {enough} leaves it out"
    ]


def _other_lengths(plan: Plan, requests: Workload) -> list[str]:
    """A note where requests are much longer or shorter than those that the plan is for."""
    from helix_kit.workload.lengths import mean_lengths

    found, planned = mean_lengths(requests), plan.lengths
    factor = found.tokens / planned.tokens
    if 1 / MAX_LENGTH_FACTOR <= factor <= MAX_LENGTH_FACTOR:
        return []
    return [f"the plan is for requests of {planned}, these have {found}: plan for them with --trace, or simulate those"]


@contextmanager
def _errors_of(policy: str) -> Iterator[None]:
    """Turn what a policy of the user's own raises into one message with the line; a defect of ours keeps its trace."""
    try:
        yield
    except HelixKitError:
        raise
    except Exception as error:
        if not is_own_code(policy) or is_ours(error):
            raise
        raise HelixKitError(f"policy {policy!r} failed: {told(error)}") from error


def _parse_columns(text: str | None) -> dict[str, str] | None:
    """``arrival=ts,input=prompt`` as a mapping."""
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    for role, equals, name in pairs:
        if not (role.strip() and equals and name.strip()):
            raise InputError("expected arrival=NAME,input=NAME,output=NAME", field="--columns", value=text)
    return {role.strip(): name.strip() for role, _, name in pairs}
