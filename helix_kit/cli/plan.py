"""``helix-kit plan``."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from helix_kit.cli.command import stop_on_interrupt
from helix_kit.cli.lengths import planned_lengths
from helix_kit.cli.output import write
from helix_kit.cli.shared import (
    JsonFlag,
    Mode,
    ModelOption,
    QuantizeOption,
    SeedOption,
    Status,
    app,
    check_picture,
    check_writable,
    chosen_model,
    help_of,
    print_diff,
    print_plan,
)
from helix_kit.errors import InfeasibleError, InputError
from helix_kit.placement.method import PlanOptions
from helix_kit.placement.methods import method_names
from helix_kit.search.options import ServedOptions

if TYPE_CHECKING:
    from helix_kit.placement.plan import Plan

SERVED = "Objective served: "


@app.command("plan")
def plan_command(
    cluster: Annotated[str, typer.Argument(help="A preset (see `helix-kit catalog`) or a cluster YAML file.")],
    model: ModelOption,
    method: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(method_names())}; or a function of your own, as module:function or ./file.py:function."
        ),
    ] = "pattern",
    objective: Annotated[
        str | None,
        typer.Option(
            help="served: the most tokens/s in the simulator, searched for until the time limit. goodput: the most "
            "requests/s that keep --slo, at --rate, or the highest rate at which it holds. flow: the "
            "paper's maximum flow, proven in seconds. Default: goodput with --slo, otherwise served; flow with "
            "--from-plan, --reach or a --method other than pattern."
        ),
    ] = None,
    solver: Annotated[str, typer.Option(help=help_of(PlanOptions, "solver"))] = "highs",
    time_limit: Annotated[float, typer.Option(help=help_of(PlanOptions, "time_limit_s"))] = 60.0,
    partial_inference: Annotated[bool, typer.Option(help=help_of(PlanOptions, "partial_inference"))] = True,
    mode: Annotated[Mode | None, typer.Option(help=SERVED + help_of(ServedOptions, "mode"))] = None,
    rate: Annotated[float | None, typer.Option(help=SERVED + help_of(ServedOptions, "rate_per_s"))] = None,
    slo: Annotated[
        str | None,
        typer.Option(
            metavar="LIMITS",
            help="Objective goodput: limits in seconds and the share of requests that keep them, such as "
            "ttft:0.5,tpot:0.05,at:0.9; also e2el.",
        ),
    ] = None,
    latency_limit: Annotated[
        float | None, typer.Option(help=SERVED + help_of(ServedOptions, "latency_limit_s"))
    ] = None,
    prompt_latency_limit: Annotated[
        float | None, typer.Option(help=SERVED + help_of(ServedOptions, "prompt_latency_limit_s"))
    ] = None,
    pareto_pick: Annotated[
        str | None,
        typer.Option(help=SERVED + help_of(ServedOptions, "pareto_pick")),
    ] = None,
    execution: Annotated[str | None, typer.Option(help=SERVED + help_of(ServedOptions, "execution"))] = None,
    max_stages: Annotated[int | None, typer.Option(min=1, help=help_of(PlanOptions, "max_stages"))] = None,
    pin: Annotated[
        list[str] | None, typer.Option(metavar="NODE=START:END", help="Layers a node must hold; may be repeated.")
    ] = None,
    from_plan: Annotated[
        Path | None,
        typer.Option(metavar="PLAN", help="A plan.json in use, changed only where that pays (see --price-per-gb)."),
    ] = None,
    price_per_gb: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="With --from-plan: tokens/s of flow that a GB of weights must bring before a node loads it anew. "
            "0: any gain pays. A higher value moves fewer layers.",
        ),
    ] = None,
    reach: Annotated[
        float | None,
        typer.Option(
            metavar="TOKENS_PER_S",
            help="Choose the cheapest nodes (prices of the cluster or the catalogue) whose flow reaches this.",
        ),
    ] = None,
    write_lp: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --method paper-milp: write the program as an LP file.")
    ] = None,
    flow_split: Annotated[str, typer.Option(help=help_of(PlanOptions, "flow_split"))] = "balanced",
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Count work in place of seconds, so that the same command gives the same bytes; it may take longer or "
            "shorter than the time limit. Without it the machine's speed and load decide how far the search comes, and "
            "two runs may give two plans.",
        ),
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Plan for the requests of this trace (as for `simulate`): their mean lengths "
            "decide T(k) and links; objective served simulates with their lengths.",
        ),
    ] = None,
    workload: Annotated[
        str | None, typer.Option(help="Plan for a sampled workload: azure-conversation (the default) or azure-code.")
    ] = None,
    input_tokens: Annotated[
        float | None, typer.Option(metavar="N", help="Plan for prompts of N tokens on average; with --output-tokens.")
    ] = None,
    output_tokens: Annotated[
        float | None, typer.Option(metavar="N", help="Plan for answers of N tokens on average; with --input-tokens.")
    ] = None,
    profiles: Annotated[Path | None, typer.Option(help="Folder of measured profiles to use in place of ours.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Serving engine that will run the plan, such as vllm-0.15, or a YAML file of one: machines are as "
            "fast as its steps, and the plan is a set of replicas. Default: our runtime."
        ),
    ] = None,
    memory_share: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of each GPU's memory for weights, embeddings and KV cache, where a node's profile is an "
            "estimate. Default: memory_share of the cluster file, 0.9 without one.",
        ),
    ] = None,
    quantize: QuantizeOption = None,
    seed: SeedOption = 0,
    pareto_png: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=SERVED + "draw throughput against latency of the plans that the search found.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the plan to this JSON file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Place the layers of a model on a cluster, with a proven bound on what is possible.

    Example: [bold]helix-kit plan[/] mine.yaml --model qwen3-32b --time-limit 60 -o plan.json

    In four bits: [bold]helix-kit plan[/] mine.yaml --model qwen3-32b --quantize int4 -o plan.json

    With limits: [bold]helix-kit plan[/] mine.yaml --model qwen3-32b --slo ttft:2,tpot:0.2,at:0.9 -o plan.json
    """
    from helix_kit.cluster import load_cluster
    from helix_kit.placement.cheapest import cheapest
    from helix_kit.placement.plan import Plan
    from helix_kit.planning import plan
    from helix_kit.profiles import load_profiles
    from helix_kit.workload.lengths import mean_lengths

    if time_limit <= 0:
        raise InputError("expected a positive number of seconds", field="--time-limit", value=time_limit)
    check_writable(output=output, write_lp=write_lp, pareto_png=pareto_png)
    check_picture("--pareto-png", pareto_png)
    pins = parse_pins(pin or [])
    # --method, --from-plan and --reach choose by flow. Otherwise the default is what a user will see served.
    about_flow = method != "pattern" or from_plan is not None or reach is not None
    objective = objective or ("goodput" if slo is not None else "flow" if about_flow else "served")
    if (slo is None) == (objective == "goodput"):
        raise InputError("expected with --objective goodput, and only there", field="--slo", value=slo)
    if price_per_gb is not None and (from_plan is None or price_per_gb < 0):
        raise InputError("expected a number from 0, with --from-plan", field="--price-per-gb", value=price_per_gb)
    if write_lp is not None and method != "paper-milp":
        raise InputError("expected only with --method paper-milp", field="--write-lp", value=str(write_lp))
    given = {
        "mode": mode and mode.value, "rate_per_s": rate, "latency_limit_s": latency_limit,
        "prompt_latency_limit_s": prompt_latency_limit, "pareto_pick": pareto_pick, "execution": execution,
    }  # fmt: skip
    options = _search_options(objective, given)
    if pareto_png is not None and objective == "flow":
        raise InputError(
            "expected only with --objective served or goodput", field="--pareto-png", value=str(pareto_png)
        )
    if slo is not None:
        options["slo"] = slo
    if write_lp is not None:
        options["write_lp"] = write_lp
    if deterministic:
        options["deterministic"] = True
    if reach is not None:
        others = {
            "--method": method != "pattern", "--objective": objective != "flow", "--max-stages": max_stages is not None,
            "--pin": bool(pins), "--from-plan": from_plan is not None, "--flow-split": flow_split != "balanced",
            "--no-partial-inference": not partial_inference, "--deterministic": deterministic,
            "--engine": engine is not None,
        }  # fmt: skip
        _check_reach(reach, [name for name, is_given in others.items() if is_given])
    planned_for = planned_lengths(trace, workload, input_tokens, output_tokens)
    described, chosen = load_cluster(cluster), chosen_model(model, quantize)
    if memory_share is not None:
        if not 0 < memory_share <= 1:
            raise InputError("expected a number above 0, at most 1", field="--memory-share", value=memory_share)
        described = described.with_memory_share(memory_share)
    base = Plan.load(from_plan) if from_plan is not None else None
    measured = load_profiles(profiles, chosen.name) if profiles else None
    with Status(f"Placing {chosen.name} on {described.name}", as_json) as say, stop_on_interrupt() as stop:

        def progress(seconds: float, value: float, bound: float, message: str) -> None:
            said = f"; {message}" if message else ""
            say(f"{seconds:.1f} s: flow {value:,.1f}, bound {bound:,.1f} tokens/s{said}")

        if reach is not None:
            result = cheapest(
                described, chosen, reach, solver=solver, time_limit_s=time_limit, seed=seed, profiles=measured,
                lengths=None if planned_for is None else mean_lengths(planned_for), stop=stop, progress=progress,
            )  # fmt: skip
        else:
            result = plan(
                described, chosen, method=method, objective=objective, solver=solver, time_limit_s=time_limit,
                seed=seed, partial_inference=partial_inference, profiles=measured, engine=engine,
                memory_share=memory_share, workload=planned_for,
                flow_split=cast(Literal["balanced", "any"], flow_split),  # checked by plan
                max_stages=max_stages, pins=pins or None, base=base, price_per_gb=price_per_gb or 0.0, stop=stop,
                progress=progress, **options,
            )  # fmt: skip
    if stop.is_set():
        typer.echo("helix-kit: stopped; this is the best plan so far", err=True)
    if output:
        write(output, result.to_json())
    if pareto_png:
        _draw_pareto(result, pareto_png)
    if as_json:
        typer.echo(result.to_json(), nl=False)
    else:
        print_plan(result, output)
        if base is not None:
            print_diff(base.diff(result), f"From {from_plan} to this plan")


def _search_options(objective: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options of objectives served and goodput that are given; InputError for those that the objective lacks."""
    options = {name: value for name, value in given.items() if value is not None}
    known = {"served": set(options), "goodput": {"rate_per_s", "execution"}}.get(objective, set())
    if clash := [name for name in options if name not in known]:
        names = ", ".join(f"--{name.removesuffix('_s').removesuffix('_per').replace('_', '-')}" for name in clash)
        raise InputError(f"{names}: expected only with --objective served", field="--objective", value=objective)
    return options


def _check_reach(reach: float, others: list[str]) -> None:
    """Raise InputError for a flow that is no positive number, and for options that do not go with ``--reach``."""
    if not 0 < reach < math.inf:
        raise InputError("expected a positive number of tokens/s", field="--reach", value=reach)
    if others:
        raise InputError(f"expected without {', '.join(others)}", field="--reach", value=reach)


def _draw_pareto(result: Plan, path: Path) -> None:
    """Write the picture of ``--pareto-png``."""
    try:
        result.pareto(path)
    except OSError as error:
        reason = f"cannot be written ({error.strerror})"
        raise InputError(reason, where=path, field="--pareto-png") from None


def parse_pin(text: str) -> tuple[str, tuple[int, int]]:
    """``NODE=START:END`` as (node, (start, end))."""
    found = re.fullmatch(r"(.+)=(\d+):(\d+)", text)
    if not found:
        raise InputError("expected NODE=START:END, such as A100-40G-0=0:8", field="--pin", value=text)
    return found[1], (int(found[2]), int(found[3]))


def parse_pins(texts: list[str]) -> dict[str, tuple[int, int]]:
    """Node -> layer range for every ``NODE=START:END``; two different ranges for one node are an InfeasibleError."""
    pins: dict[str, tuple[int, int]] = {}
    for text in texts:
        node, span = parse_pin(text)
        if pins.setdefault(node, span) != span:
            first = "{}:{}".format(*pins[node])
            raise InfeasibleError(
                f"contradictory pins: {node} cannot hold {first} and {text.removeprefix(node + '=')} at once",
                fix=f"drop one of the two, or pin {node} to one range that covers both",
            )
    return pins
