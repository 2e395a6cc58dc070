"""The parts that several commands use: the application, common options, the progress line and the tables."""

from __future__ import annotations

import inspect
import os
import re
import time
from collections.abc import Callable
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from helix_kit._summary import number
from helix_kit._wording import count_text
from helix_kit.errors import InputError
from helix_kit.scheduling import POLICY_NAMES

if TYPE_CHECKING:
    from helix_kit.analysis import Cost
    from helix_kit.metrics import SLO
    from helix_kit.model import Model
    from helix_kit.placement.diff import PlanDiff
    from helix_kit.placement.plan import Plan
    from helix_kit.placement.served import Served

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
stderr = Console(stderr=True, markup=False)
"""Without rich's markup: names of clusters, models and files are the user's, and may have brackets."""
LIMIT = re.compile(r"(ttft|tpot|e2el|at)(_s)?:", re.IGNORECASE)
"""How an argument begins that is a limit of an SLO."""
PICTURES = (".png", ".pdf", ".svg")
"""Endings of the names of picture files."""
LINE_EVERY_S = 10.0
"""Seconds between lines of progress where there is no terminal, such as in a log file."""

MEASURES = {
    "ttft_s": "TTFT (prompt latency)",
    "tpot_s": "TPOT",
    "itl_s": "ITL (decode latency)",
    "e2el_s": "E2EL",
    "queue_s": "Queue time",
}
"""Keys of a run's summary -> what tables call them; `helix_kit.metrics.DEFINITIONS` defines them."""

GoodputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--goodput", "--slo", metavar="LIMITS",
        help="Limits of a request, as ttft:0.5 tpot:0.05 e2el:20 at:0.95 (seconds or 500ms; at: the share that should "
        "keep them, 0.99): adds goodput and attainment.",
    ),
]  # fmt: skip
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, nothing else.")]
PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy",
        help=f"Request scheduling: {', '.join(name.replace('_', '-') for name in POLICY_NAMES)}; "
        "or a class of your own, as module:Class or ./file.py:Class.",
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        help="Seed; the same seed gives the same output, byte for byte, where no time limit decides "
        "(`plan --deterministic`).",
    ),
]


def slo_of(parts: list[str] | None) -> SLO | None:
    """The SLO that ``--goodput`` asks for; None without it."""
    from helix_kit.metrics import SLO

    return SLO.parse(" ".join(parts)) if parts else None


def joined_limits(arguments: list[str]) -> list[str]:
    """The arguments with all limits after ``--goodput`` or ``--slo`` as one, since an option takes one value.

    >>> joined_limits(["simulate", "p.json", "--goodput", "ttft:0.5", "tpot:0.05", "--json"])
    ['simulate', 'p.json', '--goodput', 'ttft:0.5 tpot:0.05', '--json']
    """
    joined: list[str] = []
    for argument in arguments:
        follows = len(joined) > 1 and joined[-2] in {"--goodput", "--slo"}
        if follows and LIMIT.match(argument):
            joined[-1] += f" {argument}"
        else:
            joined.append(argument)
    return joined


def help_of(record: type, option: str) -> str:
    """The text for ``--help`` that the docstring of an option record has under the option's name."""
    lines = inspect.cleandoc(record.__doc__ or "").splitlines()
    text = takewhile(lambda line: line.startswith("    "), lines[lines.index(option) + 1 :])
    return " ".join(line.strip() for line in text).replace("``", "")


ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="A preset, a YAML file, a folder with a Hugging Face config.json, or a model on a hub, such as "
        "Qwen/Qwen3-8B, of which only that file is fetched.",
    ),
]
QuantizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD",
        help="Round the weights of the layers to int4 or int8 when they are loaded: the machines hold more layers, and "
        "`serve` rounds them by itself.",
    ),
]


def chosen_model(model: str, quantize: str | None) -> Model:
    """The model that ``--model`` names, with its weights rounded as ``--quantize`` says."""
    from helix_kit.model import load_model

    found = load_model(model)
    return found if quantize is None else found.quantized(quantize)


Co2Option = Annotated[
    float | None,
    typer.Option("--gco2-per-kwh", min=0, help="Grams of CO2 for a kWh where the machines stand, such as 30 or 400."),
]


def plain_console() -> Console:
    """A console for tables on stdout, without rich's markup, as `stderr`."""
    return Console(markup=False)


class Mode(StrEnum):
    """Traffic: all requests waiting (offline), or arriving over time (online)."""

    ONLINE = "online"
    OFFLINE = "offline"


class Status:
    """Progress of long work on stderr: a spinner on a terminal, else a line every ten seconds; with --json none."""

    def __init__(self, title: str, quiet: bool) -> None:
        self._title, self._quiet = title, quiet
        self._spinner = None if quiet or not stderr.is_terminal else stderr.status(Text(title))
        self._said = ""
        self._next_line_s = time.monotonic() + LINE_EVERY_S

    def __enter__(self) -> Callable[[str], None]:
        if self._spinner:
            self._spinner.start()
        return self._say

    def _say(self, message: str) -> None:
        if self._spinner:
            self._spinner.update(Text(f"{self._title}: {message}"))
        elif not self._quiet and message != self._said and time.monotonic() >= self._next_line_s:
            self._said, self._next_line_s = message, time.monotonic() + LINE_EVERY_S
            typer.echo(f"{self._title}: {message}", err=True)

    def __exit__(self, *_: object) -> None:
        if self._spinner:
            self._spinner.stop()


def check_picture(option: str, path: Path | None) -> None:
    """Raise InputError, which names the option, for a file whose name is not that of a picture."""
    if path is not None and path.suffix.lower() not in PICTURES:
        raise InputError(f"expected a file name that ends in {', '.join(PICTURES)}", field=option, value=str(path))


def check_writable(**outputs: Path | None) -> None:
    """Raise InputError for an output file that cannot be written, named by its option.

    Commands call this before long work, so that no result is lost.
    """
    for option, path in outputs.items():
        if path is None:
            continue
        field = f"--{option.replace('_', '-')}"
        if path.is_dir():
            raise InputError("cannot be written (it is a folder)", where=path, field=field)
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            reason = "permission denied" if path.parent.is_dir() else f"no folder {path.parent}"
            raise InputError(f"cannot be written ({reason})", where=path, field=field)


def check_folder(**outputs: Path | None) -> None:
    """Raise InputError for a folder that cannot be made or written, named by its option. It may be a new one."""
    for option, path in outputs.items():
        if path is None:
            continue
        field = f"--{option.replace('_', '-')}"
        nearest = next(p for p in (path, *path.parents) if p.exists())
        if not nearest.is_dir():
            raise InputError("expected a folder, not a file", where=nearest, field=field)
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise InputError("cannot be written (permission denied)", where=nearest, field=field)


def print_plan(plan: Plan, output: Path | None) -> None:
    """Print the layers of each node, then the plan's value and bound, and how it was made."""
    problem, flow = plan.problem, plan.max_flow
    cut = set(flow.min_cut)
    table = Table("Node", "Layers", "Flow tokens/s", "of capacity", title=f"{plan.model.name} on {plan.cluster.name}")
    for name, (start, end) in sorted(plan.placement.items(), key=lambda item: (item[1], item[0])):
        used = flow.utilisation((name, name))
        mark = "  bottleneck" if (name, name) in cut else ""
        table.add_row(name, f"[{start}, {end})", f"{flow.through(name):,.1f}", f"{used:.0%}{mark}")
    plain_console().print(table)
    from helix_kit.analysis import cost  # the command line alone needs it here

    unused = [n.name for n in problem.cluster.nodes if n.name not in plan.placement]
    lines = {
        "Flow": f"{plan.flow_tokens_per_s:,.1f} tokens/s",
        "Proven bound": f"{plan.bound_tokens_per_s:,.1f} tokens/s (gap {plan.gap:.2%})",
        "Pipelines": _pipelines_line(plan),
        "Method": f"{plan.method}, {plan.solver or 'no solver'}, {plan.seconds:.2f} s, seed {plan.seed}",
        "Planned for": str(plan.lengths),
        "Profiles": _profiles_line(plan),
        **plan.split_facts,
    }
    if plan.model.quantize:
        lines["Weights"] = f"those of the layers are rounded to {plan.model.quantize} when they are loaded"
    if plan.served and plan.served.max_flow_tokens_per_s is not None:
        lines["Most flow"] = _most_flow_line(plan.served)
    if plan.served:
        how = "simulated" if plan.served.is_simulated else "predicted, since no simulation ended in time"
        width = plan.served.half_width_tokens_per_s
        interval = f" +- {width:,.1f}" if width > 0 else ""
        if plan.served.goodput_text:
            lines["Goodput"] = plan.served.goodput_text
        lines["Served"] = (
            f"{plan.served.decode_tokens_per_s:,.1f}{interval} decode tokens/s, "
            f"prompt {plan.served.prompt_latency_s:.2f} s, "
            f"decode {plan.served.decode_latency_s:.2f} s ({how}; {plan.served.mode})"
        )
    lines |= _cost_lines(cost(plan), at_full_flow=True)
    lines.pop("Idle", None)
    if unused:
        lines["Not used"] = ", ".join(unused)
    if plan.notes:
        lines["Notes"] = "\n               ".join(plan.notes)
    if output:
        lines["Written to"] = str(output)
    for name, text in lines.items():
        typer.echo(f"{name + ':':<14} {text}")


def _most_flow_line(served: Served) -> str:
    """The largest flow that the search knows, with its bound where it was searched for."""
    most = f"{served.max_flow_tokens_per_s:,.1f} tokens/s"
    if served.max_flow_bound_tokens_per_s is None:
        return f"{most}, of the sets of replicas that were tried"
    return (
        f"{most}, at most {served.max_flow_bound_tokens_per_s:,.1f} (gap {served.max_flow_gap:.2%}), found in "
        f"{served.max_flow_seconds:.1f} s; --objective flow searches for it until the time limit"
    )


def _pipelines_line(plan: Plan) -> str:
    """How many pipelines there are, and of how many stages."""
    stages = sorted({len(pipeline) for pipeline, _ in plan.pipelines})
    if not stages:
        return "none"
    if len(stages) == 1:
        return f"{len(plan.pipelines)} of {count_text(stages[0], 'stage')}"
    return f"{len(plan.pipelines)}, {stages[0]} to {stages[-1]} stages"


def _profiles_line(plan: Plan) -> str:
    """Where the machines' speeds come from; estimates are named by kind alone, since plan.json has their sources."""
    from helix_kit.profiles.roofline import SOURCE, is_estimate

    measured = sorted({p.source for p in plan.profiles.values() if not is_estimate(p)})
    estimated = sorted(kind for kind, p in plan.profiles.items() if is_estimate(p))
    return "; ".join([*measured, *([f"{SOURCE} ({', '.join(estimated)})"] if estimated else [])])


def print_diff(change: PlanDiff, title: str) -> None:
    """Print what changes from one plan to another: a table of the nodes, then the figures and the weights to load."""
    console = plain_console()
    typer.echo(f"{title}:")
    table = Table("Node", "Before", "After", Column("GB to load", justify="right"), "")
    for *cells, kind in change.rows():
        table.add_row(*cells, "" if kind == "same" else kind)
    console.print(table)
    for name, (old, new, relative) in change.figures().items():
        same = old == new
        typer.echo(f"{name + ':':<24} {old}" if same else f"{name + ':':<24} {old} -> {new}  {relative}".rstrip())
    typer.echo(f"{'To load:':<24} {change.load_text()}")
    for note in change.notes:
        typer.echo(f"{'Note:':<24} {note}")


def goodput_line(goodput: dict[str, Any]) -> str:
    """One line on a `Goodput` that was turned into plain data."""
    share = "no request is decided" if goodput["attainment"] is None else f"{goodput['attainment']:.1%} of the requests"
    limits = ", ".join(f"{n} <= {goodput['slo'][f'{n}_s']:g} s" for n in goodput["kept_by_limit"])
    return (
        f"Goodput: {number(goodput['requests_per_s'])} requests/s, "
        f"{goodput['output_tokens_per_s']:,.1f} output tokens/s; {limits}: {share} "
        f"({goodput['kept']:,} of {goodput['decided']:,}), "
        f"{'at least' if goodput['holds'] else 'fewer than'} the {goodput['slo']['at']:.1%} asked for"
    )


def print_cost(cost: Cost, *, at_full_flow: bool = False) -> None:
    """Print what a plan costs at a load, and its energy; `at_full_flow` says that this is the load."""
    for name, text in _cost_lines(cost, at_full_flow=at_full_flow).items():
        typer.echo(f"{name + ':':<18} {text}")


def _cost_lines(cost: Cost, *, at_full_flow: bool) -> dict[str, str]:
    """The figures by their titles, with the load that those for a token are at."""
    load = ", at full flow" if at_full_flow else ""
    return {name: f"{text}{load}" if name == "Per token" else text for name, text in cost.lines().items()}


def _seconds(value: float | None) -> str:
    """Seconds with three decimals, and with one from 100 s on: a row of six numbers fits into 80 columns.

    >>> _seconds(0.0312), _seconds(342.1678), _seconds(None)
    ('0.031', '342.2', '-')
    """
    return "-" if value is None else f"{value:.3f}" if value < 100 else f"{value:.1f}"


def print_run(summary: dict[str, Any], title: str) -> None:
    """Print the latencies and the throughput of a simulated or real run."""
    table = Table("", "average", "p5", "p25", "p50", "p75", "p95", title=title)
    for name, key in (("Prompt latency, s", "prompt_latency_s"), ("Decode latency, s", "decode_latency_s")):
        values = summary[key]
        shown = [values[q] for q in ("avg", "p5", "p25", "p50", "p75", "p95")]
        table.add_row(name, *map(_seconds, shown))
    console = plain_console()
    console.print(table)
    quantiles = ("mean", "p50", "p90", "p95", "p99", "max")
    table = Table(Column("Seconds", no_wrap=True), *quantiles)
    for key, name in MEASURES.items():
        table.add_row(name, *(_seconds(summary[key][q]) for q in quantiles))
    console.print(table)
    typer.echo(f"Decode throughput: {summary['decode_tokens_per_s']:,.1f} tokens/s")
    typer.echo(
        f"Requests: {number(summary['requests_per_s'])} a second; tokens/s: {summary['input_tokens_per_s']:,.1f} in, "
        f"{summary['output_tokens_per_s']:,.1f} out; at most {summary['peak_concurrency']:,} served at once"
    )
    if (rate := summary.get("prefix_hit_rate", 0.0)) > 0:
        typer.echo(f"Prefix caches held {rate:.1%} of the prompts' tokens")
    if goodput := summary.get("goodput"):
        typer.echo(goodput_line(goodput))
    for note in summary["notes"]:
        typer.echo(f"Note: {note}")
