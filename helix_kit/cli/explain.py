"""``helix-kit explain``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from helix_kit.cli.output import print_json
from helix_kit.cli.shared import Co2Option, JsonFlag, Status, app, plain_console, print_cost
from helix_kit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from helix_kit.analysis import Change
    from helix_kit.placement.plan import Plan

FACTOR = 2.0
"""How much wider a link is made when nothing else is said."""

PROVEN_GAP = 1e-4
"""A flow whose gap is smaller is proven optimal."""

HEADINGS = {
    "tokens_per_s": "tokens/s", "gain_tokens_per_s": "gain", "usd_per_hour": "USD/h", "gain_per_usd": "gain\nper USD",
    "tokens_per_s_per_usd": "tokens/s\nper USD", "loss_tokens_per_s": "loss", "loss_percent": "loss %",
    "interval": "95 % interval",
}  # fmt: skip
"""Columns of the tables -> what is printed above them."""


@app.command("explain")
def explain_command(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan.json from `helix-kit plan`.")],
    what_if: Annotated[
        bool,
        typer.Option("--what-if", help="Also plan with a machine more or less, or wider links; rank by gain per $."),
    ] = False,
    buy: Annotated[
        str | None,
        typer.Option(help="With --what-if: machines to add, by GPU (L4x2 for two in one machine): H100-80G,L40S."),
    ] = None,
    widen: Annotated[
        list[str] | None,
        typer.Option(help="With --what-if: a pair of regions whose links alone are widened, REGION:REGION[=FACTOR]."),
    ] = None,
    losses: Annotated[
        bool, typer.Option("--losses", help="Also rank machines by what is lost when they fail.")
    ] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Seconds for all what-if changes together, and as many for all losses. Default: 16 and 10."
        ),
    ] = None,
    gco2_per_kwh: Co2Option = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what limits a plan, what it costs, what would help, and what each machine's loss would cost.

    Everything speaks of the plan's own objective: its flow, or what it serves in the simulator.

    Example: [bold]helix-kit explain[/] plan.json --what-if --buy H100-80G,L40S --widen lab:home=4
    """
    from helix_kit import analysis
    from helix_kit.placement.plan import Plan

    for option, given in (("--buy", buy), ("--widen", widen)):
        if given and not what_if:
            raise InputError("expected only with --what-if", field=option, value=str(given))
    plan = Plan.load(plan_file)
    asked = _asked(plan, buy, widen or []) if what_if else []
    sentences = analysis.explain(plan, simulated=plan.served is not None)
    paid = analysis.cost(plan, gco2_per_kwh=gco2_per_kwh)
    tables: dict[str, pd.DataFrame] = {}
    seconds: dict[str, Any] = {} if time_limit is None else {"total_s": time_limit}
    if what_if:
        with Status("Planning each change", as_json) as say:
            tables["what_if"] = analysis.what_if(
                plan, asked, progress=lambda done, of, name: say(f"{done} of {of}: {name}"), **seconds
            )
    if losses:
        with Status("Losing each machine", as_json) as say:
            tables["losses"] = analysis.losses(
                plan, progress=lambda done, of, name: say(f"{done} of {of}: {name}"), **seconds
            )
    if as_json:
        content = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        bases = {str(name): value for table in tables.values() for name, value in table.attrs.items()}
        print_json({"explanation": sentences.splitlines(), "cost": paid.to_dict(), **bases, **content})
        return
    typer.echo(sentences)
    print_cost(paid, at_full_flow=True)
    if what_if:
        typer.echo(_base_words(plan, tables["what_if"]))
    for name, table in tables.items():
        if name == "losses" and plan.served is not None:
            whole = table.attrs["whole_tokens_per_s"]
            typer.echo(
                f"In the runs of the losses, which are shorter, the whole plan has {whole:,.0f} decode tokens/s."
            )
        _print(table)
        if name == "what_if" and (words := _unchanged_words(plan, table)):
            typer.echo(words)
        if predicted := int(table["is_predicted"].sum()):
            typer.echo(
                f"{predicted} of {len(table)} rows are predicted, since the time was over: they have no interval. "
                "A longer --time-limit measures them."
            )


def _asked(plan: Plan, buy: str | None, widen: list[str]) -> list[Change]:
    """The changes that the options ask for; without options, the usual ones."""
    from helix_kit.analysis import changes

    if buy is None and not widen:
        return changes(plan)
    asked = []
    if buy is not None:
        kinds = [kind.strip() for kind in buy.split(",") if kind.strip()]
        if not kinds:
            raise InputError("expected GPUs, such as H100-80G,L40S", field="--buy", value=buy)
        with _named("--buy"):
            asked += changes(plan, add=kinds, widen=1, lose=False)
    for text in widen:
        pair, equals, factor = text.partition("=")
        regions = tuple(pair.split(":"))
        try:
            times = float(factor) if equals else FACTOR
        except ValueError:
            times = 0.0
        if len(regions) != 2 or not 1 < times < math.inf:
            raise InputError("expected REGION:REGION or REGION:REGION=FACTOR above 1", field="--widen", value=text)
        with _named("--widen"):
            asked += changes(plan, add=[], widen=times, lose=False, links=[(regions[0], regions[1])])
    return asked


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Errors about the changes that an option asks for name that option."""
    try:
        yield
    except InputError as error:
        raise InputError(error.expected, field=option, value=error.value) from error


def _base_words(plan: Plan, table: pd.DataFrame) -> str:
    unit = "decode tokens/s" if plan.served is not None else "tokens/s"
    own, base = table.attrs["plan_tokens_per_s"], table.attrs["base_tokens_per_s"]
    words = f"Measured as below, this plan has {own:,.0f} {unit}."
    if base > own * 1.001:
        words += f" Without any change a plan with {base:,.0f} was found; gains are against that one."
    return f"{words} A longer --time-limit gives closer answers."


def _unchanged_words(plan: Plan, table: pd.DataFrame) -> str:
    """How many changes gain nothing only as far as the search came; a flow that is proven optimal gains no more."""
    is_open = (table["gain_tokens_per_s"] == 0) & (table["kind"] != "lose") & ~table["is_predicted"]
    if plan.served is None:
        is_open &= ~(table["gap"].astype(float) < PROVEN_GAP)
    if not is_open.any():
        return ""
    return (
        f"For {is_open.sum()} of {len(table)} changes no better plan was found in the time, which counts as a gain "
        "of 0. A longer --time-limit may find one."
    )


def _print(table: pd.DataFrame) -> None:
    """Print a table with rounded numbers; a gain or loss of a served plan with its 95 % interval.

    In place of its interval, a row that is predicted says so.
    """
    brief = table.copy()
    for what in ("gain", "loss"):
        if f"{what}_low" in brief:
            ends = (brief[f"{what}_{end}"] for end in ("tokens_per_s", "low", "high"))
            shown = [_interval(*row) for row in zip(*ends, strict=True)]
            if any(shown):
                brief.insert(list(brief.columns).index(f"{what}_tokens_per_s") + 1, "interval", shown)
    hidden = ["kind", "gap", "gain_percent", "gain_low", "gain_high", "loss_low", "loss_high", "is_predicted"]
    brief = brief.drop(columns=hidden, errors="ignore")
    first, *rest = (HEADINGS.get(column, column.replace("_", " ")) for column in brief.columns)
    columns = [Column(name, justify="right", no_wrap="\n" not in name) for name in rest]
    printed = Table(Column(first, overflow="fold"), *columns)
    for row in brief.itertuples(index=False):
        printed.add_row(*(_cell(value) for value in row))
    plain_console().print(printed)


def _interval(mean: float, low: float, high: float) -> str:
    """The interval of a gain or loss; in its place whether it is predicted, or was not found at all."""
    if math.isnan(low):
        return "no time" if math.isnan(mean) else "predicted"
    return "" if low == high else f"{_cell(low)} to {_cell(high)}"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        if math.isnan(value):
            return "-"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"
    return str(value)
