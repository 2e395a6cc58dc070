"""The command line: ``helix-kit plan | simulate | serve | catalog``, each with ``--json``.

Tables and progress bars go to stderr, so that ``--json`` on stdout stays clean for scripts. Exit codes: 0 done,
2 wrong input, 3 no plan exists, 130 stopped by Ctrl-C; each failure is one message without a traceback.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from helix_kit import __version__
from helix_kit.errors import HelixKitError, InputError

if TYPE_CHECKING:
    from helix_kit.placement.plan import Plan

app = typer.Typer(
    name="helix-kit",
    help="Plan, simulate and serve large language models over whatever GPUs you have.\n\n"
    "Typical path: [bold]helix-kit plan[/] single24 --model llama2-70b -o plan.json, then "
    "[bold]helix-kit simulate[/] plan.json, then [bold]helix-kit serve[/] plan.json --weights DIR.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
_stderr = Console(stderr=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, nothing else.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Same seed, same bytes out.")]


class Method(StrEnum):
    """Placement methods that the command line offers."""

    PATTERN = "pattern"
    PAPER_MILP = "paper-milp"
    SWARM = "swarm"
    PETALS = "petals"
    SEPARATE = "separate"


class Solver(StrEnum):
    """Solvers behind the mixed-integer programs."""

    HIGHS = "highs"
    GLPK = "glpk"


class Mode(StrEnum):
    """Traffic: all requests waiting (offline), or arriving over time (online)."""

    ONLINE = "online"
    OFFLINE = "offline"


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"helix-kit {__version__}")
        raise typer.Exit


@app.command("plan")
def plan_command(
    cluster: Annotated[str, typer.Argument(help="A preset (see `helix-kit catalog`) or a cluster YAML file.")],
    model: Annotated[str, typer.Option(help="A preset, a YAML file, or a folder with a Hugging Face config.json.")],
    method: Annotated[Method, typer.Option(help="How layers are placed.")] = Method.PATTERN,
    objective: Annotated[str, typer.Option(help="What the placement maximises.")] = "flow",
    solver: Annotated[Solver, typer.Option(help="Solver of the mixed-integer programs.")] = Solver.HIGHS,
    time_limit: Annotated[float, typer.Option(help="Seconds after which the best plan so far is returned.")] = 60.0,
    partial_inference: Annotated[bool, typer.Option(help="Let requests enter a node's layers part-way.")] = True,
    profiles: Annotated[Path | None, typer.Option(help="Folder of measured profiles that go before ours.")] = None,
    seed: SeedOption = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the plan to this JSON file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Place the layers of a model on a cluster, with a proven bound on what is possible."""
    from helix_kit.cluster import load_cluster
    from helix_kit.model import load_model
    from helix_kit.placement import plan
    from helix_kit.profiles import load_profiles

    if time_limit <= 0:
        raise InputError("expected a positive number of seconds", field="--time-limit", value=time_limit)
    described, chosen = load_cluster(cluster), load_model(model)
    measured = load_profiles(profiles, chosen.name) if profiles else None
    with _status(f"Placing {chosen.name} on {described.name}", as_json) as say:
        result = plan(
            described,
            chosen,
            method=method.value,
            objective=objective,
            solver=solver.value,
            time_limit=time_limit,
            seed=seed,
            partial_inference=partial_inference,
            profiles=measured,
            progress=lambda seconds, value, bound, message: say(
                f"{seconds:.1f} s: {value:,.1f} tokens/s, bound {bound:,.1f}  {message}"
            ),
        )
    if output:
        _write(output, result.to_json())
    if as_json:
        typer.echo(result.to_json(), nl=False)
    else:
        _print_plan(result, output)


@app.command("simulate")
def simulate_command(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan.json from `helix-kit plan`.")],
    trace: Annotated[Path | None, typer.Option(help="CSV of requests: ours, Azure, BurstGPT or Mooncake.")] = None,
    workload: Annotated[str, typer.Option(help="Sampled workload, where there is no trace.")] = "azure-conversation",
    mode: Annotated[Mode, typer.Option(help="Arrivals over time, or KV caches kept full.")] = Mode.ONLINE,
    policy: Annotated[str, typer.Option(help="Request scheduling: helix, swarm, random, shortest-queue.")] = "helix",
    rate: Annotated[float | None, typer.Option(help="Requests/s (online). Default: 60 % of the plan's flow.")] = None,
    duration: Annotated[float, typer.Option(help="Simulated seconds that are measured.")] = 600.0,
    warmup: Annotated[float, typer.Option(help="Simulated seconds before measuring starts.")] = 60.0,
    execution: Annotated[str, typer.Option(help="range: as our runtime; layerwise: the published rules.")] = "range",
    seed: SeedOption = 0,
    records: Annotated[Path | None, typer.Option(help="Write one row per request to this CSV file.")] = None,
    perfetto: Annotated[Path | None, typer.Option(help="Write a Chrome/Perfetto trace of every batch.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Simulate traffic on a plan: throughput, prompt and decode latency."""
    from helix_kit.placement.plan import Plan
    from helix_kit.simulator import simulate
    from helix_kit.workload import make_workload

    for name, value in {"--duration": duration, "--rate": rate}.items():
        if value is not None and value <= 0:
            raise InputError("expected a positive number", field=name, value=value)
    if warmup < 0:
        raise InputError("expected a number of at least 0", field="--warmup", value=warmup)
    plan = Plan.load(plan_file)
    requests = make_workload(
        workload if trace is None else trace, plan, mode=mode.value, rate=rate, duration=warmup + duration, seed=seed
    )
    with _status("Simulating", as_json) as say:
        run = simulate(
            plan,
            requests,
            mode=mode.value,
            policy=policy,
            execution=execution,
            duration=duration,
            warmup=warmup,
            seed=seed,
            progress=lambda now_s, end_s: say(f"{now_s:,.0f} of {end_s:,.0f} simulated seconds"),
        )
    if records:
        run.to_csv(records)
    if perfetto:
        run.to_perfetto(perfetto)
    summary = run.summary()
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        _print_run(summary, f"{plan.cluster.name}, {plan.model.name}: {mode.value}, policy {policy}")


@app.command("serve")
def serve_command(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan.json from `helix-kit plan`.")],
    weights: Annotated[
        Path | None, typer.Option(help="Hugging Face folder with safetensors. Default: SmolLM2-135M, fetched once.")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="Prompt to answer; may be repeated. Default: stdin.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to generate per prompt.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.0,
    policy: Annotated[str, typer.Option(help="Request scheduling policy.")] = "helix",
    launcher: Annotated[str, typer.Option(help="How workers start: process or inproc.")] = "process",
    seed: SeedOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Serve a model for real on one worker per node of the plan, and answer prompts."""
    from helix_kit.placement.plan import Plan
    from helix_kit.runtime import serve

    plan = Plan.load(plan_file)
    prompts = prompt or [line.strip() for line in sys.stdin if line.strip()]
    if not prompts:
        raise InputError("expected at least one --prompt, or prompts on standard input, one a line")
    with _status(f"Starting {len(plan.placement)} workers", as_json) as say:
        engine = serve(plan, weights=weights, policy=policy, launcher=launcher, seed=seed, progress=say)
    with engine:
        answers = engine.generate(prompts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        summary = engine.run().summary()
    if as_json:
        typer.echo(json.dumps({"completions": [a.to_dict() for a in answers], "summary": summary}))
        return
    for question, answer in zip(prompts, answers, strict=True):
        stages = " -> ".join(f"{s.node}[{s.start},{s.end})" for s in answer.pipeline)
        typer.echo(f"> {question}\n{answer.text.strip()}")
        _stderr.print(f"[dim]{stages}[/]\n")
    _print_run(summary, f"{plan.cluster.name}, {plan.model.name}: served")


@app.command("catalog")
def catalog_command(as_json: JsonFlag = False) -> None:
    """List the clusters, models and GPUs that ship with the package."""
    from helix_kit import cluster, model
    from helix_kit.profiles import gpus

    clusters = {name: cluster.Cluster.preset(name).kind_counts for name in cluster.preset_names()}
    models = {name: model.Model.preset(name) for name in model.preset_names()}
    if as_json:
        content = {
            "clusters": clusters,
            "models": {name: m.model_dump() for name, m in models.items()},
            "gpus": {name: {"memory_gb": g.memory_gb, "fp16_tflops": g.fp16_tflops} for name, g in gpus().items()},
        }
        typer.echo(json.dumps(content))
        return
    console = Console()
    table = Table("Cluster", "Nodes", "Machines")
    for name, kinds in clusters.items():
        table.add_row(name, str(sum(kinds.values())), ", ".join(f"{n} x {kind}" for kind, n in kinds.items()))
    console.print(table)
    table = Table("Model", "Layers", "GB per layer", "GB in layers")
    for name, m in models.items():
        table.add_row(name, str(m.num_layers), f"{m.layer_gb:.3g}", f"{m.num_layers * m.layer_gb:.3g}")
    console.print(table)
    table = Table("GPU", "Memory GB", "GB/s", "TFLOPS fp16", "USD/h", "Source")
    for name, g in gpus().items():
        price = "" if g.price_usd_per_hour is None else f"{g.price_usd_per_hour:.2f}"
        figures = (f"{g.memory_gb:g}", f"{g.memory_bandwidth_gb_per_s:g}", f"{g.fp16_tflops:g}", price)
        table.add_row(name, *figures, g.source.split(";")[0])
    console.print(table)


class _status:
    """A spinner on stderr with a message that can change; silent with --json or when stderr is no terminal."""

    def __init__(self, title: str, quiet: bool) -> None:
        self._title = title
        self._spinner = None if quiet or not _stderr.is_terminal else _stderr.status(title)

    def __enter__(self) -> Callable[[str], None]:
        if self._spinner:
            self._spinner.start()
        return self._say

    def _say(self, message: str) -> None:
        if self._spinner:
            self._spinner.update(f"{self._title}: {message}")

    def __exit__(self, *_: object) -> None:
        if self._spinner:
            self._spinner.stop()


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", where=path, field="--output") from None


def _print_plan(plan: Plan, output: Path | None) -> None:
    problem, flow = plan.problem, plan.max_flow
    cut = set(flow.min_cut)
    table = Table("Node", "Layers", "Flow tokens/s", "of capacity", title=f"{plan.model.name} on {plan.cluster.name}")
    for name, (start, end) in sorted(plan.placement.items(), key=lambda item: (item[1], item[0])):
        used = flow.utilisation((name, name))
        mark = "  bottleneck" if (name, name) in cut else ""
        table.add_row(name, f"[{start}, {end})", f"{flow.through(name):,.1f}", f"{used:.0%}{mark}")
    console = Console()
    console.print(table, markup=False)
    unused = [n.name for n in problem.cluster.nodes if n.name not in plan.placement]
    lines = {
        "Max flow": f"{plan.flow_tokens_per_s:,.1f} tokens/s",
        "Proven bound": f"{plan.bound_tokens_per_s:,.1f} tokens/s (gap {plan.gap:.2%})",
        "Pipelines": f"{len(plan.pipelines)}, {min(len(p) for p, _ in plan.pipelines)} to "
        f"{max(len(p) for p, _ in plan.pipelines)} stages"
        if plan.pipelines
        else "none",
        "Method": f"{plan.method}, {plan.solver or 'no solver'}, {plan.seconds:.2f} s, seed {plan.seed}",
        "Profiles": "; ".join(sorted({p.source for p in plan.profiles.values()})),
    }
    if unused:
        lines["Not used"] = ", ".join(unused)
    for note in plan.notes:
        lines.setdefault("Note", note)
    if output:
        lines["Written to"] = str(output)
    for name, text in lines.items():
        typer.echo(f"{name + ':':<14} {text}")


def _print_run(summary: dict[str, Any], title: str) -> None:
    table = Table("", "average", "p5", "p25", "p50", "p75", "p95", title=title)
    for name, key in (("Prompt latency, s", "prompt_latency_s"), ("Decode latency, s", "decode_latency_s")):
        values = summary[key]
        shown = [values[q] for q in ("avg", "p5", "p25", "p50", "p75", "p95")]
        table.add_row(name, *("-" if v is None else f"{v:.3f}" for v in shown))
    Console().print(table)
    typer.echo(f"Decode throughput: {summary['decode_tokens_per_s']:,.1f} tokens/s")


def main() -> None:
    """Entry point of the ``helix-kit`` program."""
    try:
        app(standalone_mode=True)
    except HelixKitError as error:
        typer.echo(f"helix-kit: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("helix-kit: stopped", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
