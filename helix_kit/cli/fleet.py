"""``helix-kit fleet``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from helix_kit import _files
from helix_kit._summary import number, percent
from helix_kit.cli.command import stop_on_interrupt
from helix_kit.cli.lengths import planned_lengths
from helix_kit.cli.output import print_json, write
from helix_kit.cli.shared import (
    GoodputOption,
    JsonFlag,
    ModelOption,
    PolicyOption,
    QuantizeOption,
    SeedOption,
    Status,
    app,
    check_writable,
    chosen_model,
    plain_console,
    slo_of,
)
from helix_kit.errors import InfeasibleError, InputError

if TYPE_CHECKING:
    from helix_kit.fleets import Checked, Fleet


@app.command("fleet")
def fleet_command(
    model: ModelOption,
    rate: Annotated[float, typer.Option(help="Requests/s to serve.")],
    gpus: Annotated[str, typer.Option(help="Machines on offer: L4,A10G,H100-80G; L4x2 is a machine with two.")],
    slo: GoodputOption = None,
    trace: Annotated[Path | None, typer.Option(help="Requests of this trace, repeated at the rate.")] = None,
    workload: Annotated[
        str | None, typer.Option(help="azure-conversation (the default), azure-code, poisson or constant.")
    ] = None,
    input_tokens: Annotated[float | None, typer.Option(help="With --output-tokens: equal requests.")] = None,
    output_tokens: Annotated[float | None, typer.Option(help="With --input-tokens.")] = None,
    stock: Annotated[str | None, typer.Option(help="How many there are: L4=8,H100-80G=1. Others: any number.")] = None,
    budget: Annotated[float | None, typer.Option(help="USD per hour that the fleet may cost.")] = None,
    prices: Annotated[
        str | None, typer.Option(help="USD per hour of a GPU, as L4=0.6. Default: the catalogue's, see `catalog`.")
    ] = None,
    payment: Annotated[str, typer.Option(help="Price of the catalogue: on_demand, reserved or spot.")] = "on_demand",
    engine: Annotated[
        str | None, typer.Option(help="Engine that is simulated, such as vllm-0.15. Default: our runtime.")
    ] = None,
    policy: PolicyOption = "helix",
    quantize: QuantizeOption = None,
    max_stages: Annotated[int | None, typer.Option(min=1, help="Machines of a pipeline at most.")] = None,
    bandwidth_gbps: Annotated[float, typer.Option(help="Gbit/s between any two machines.")] = 10.0,
    latency_ms: Annotated[float, typer.Option(help="Milliseconds between any two machines.")] = 1.0,
    solver: Annotated[str, typer.Option(help="highs, glpk or gurobi.")] = "highs",
    seeds: Annotated[int, typer.Option(min=1, help="Simulations of each fleet.")] = 2,
    seed: SeedOption = 0,
    time_limit: Annotated[
        float, typer.Option(help="Seconds for the search. Ctrl-C ends it with the cheapest fleet so far.")
    ] = 120.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the fleet's plan.json.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the cheapest machines that serve a rate within an SLO, in pipelines of one kind or of several.

    Example: [bold]helix-kit fleet[/] --model llama3.1-8b --rate 4 --slo tpot:0.12 --gpus L4,A10G,A100-80G,H100-80G
    """
    from helix_kit.cluster import Link
    from helix_kit.fleets import fleet
    from helix_kit.workload.named import SAMPLED, SYNTHETIC

    limits = slo_of(slo)
    if limits is None:
        raise InputError("expected limits such as ttft:2 tpot:0.1 at:0.99", field="--slo")
    check_writable(output=output)
    # A workload that is sampled has arrivals of its own as well as lengths.
    asked = planned_lengths(trace, workload, input_tokens, output_tokens)
    is_sampled = workload in SAMPLED or workload in SYNTHETIC
    chosen = chosen_model(model, quantize)
    link = _files.validate(Link, {"bandwidth_gbps": bandwidth_gbps, "latency_ms": latency_ms}, "the network")
    with Status("Searching", as_json) as say, stop_on_interrupt() as stop:
        try:
            found = fleet(
                chosen,
                rate,
                slo=limits,
                gpus=[name.strip() for name in gpus.split(",") if name.strip()],
                workload=workload if is_sampled and workload else "azure-conversation" if asked is None else asked,
                stock={kind: _whole(kind, n) for kind, n in _pairs(stock, "--stock").items()},
                budget_usd_per_hour=budget,
                prices=_pairs(prices, "--prices"),
                payment=payment,
                link=link,
                engine=engine,
                policy=policy,
                max_stages=max_stages,
                solver=solver,
                seeds=seeds,
                seed=seed,
                time_limit_s=time_limit,
                stop=stop,
                progress=say,
            )
        except InfeasibleError:
            if stop.is_set():  # before a fleet was found
                raise KeyboardInterrupt from None
            raise
    if stop.is_set():
        typer.echo("helix-kit: stopped; this is the cheapest fleet so far", err=True)
    if output is not None and found.plan is not None:
        write(output, found.plan.to_json())
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found, output)


def _pairs(text: str | None, option: str) -> dict[str, float]:
    """``L4=8,T4=2`` as a mapping.

    >>> _pairs("L4=8, T4=2", "--stock")
    {'L4': 8.0, 'T4': 2.0}
    """
    found: dict[str, float] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError("expected pairs such as L4=8,H100-80G=1", field=option, value=text)
    return found


def _whole(kind: str, value: float) -> int:
    if not value.is_integer():
        raise InputError("expected a whole number", field="--stock", value=f"{kind}={value:g}")
    return int(value)


def _print(found: Fleet, output: Path | None) -> None:
    """The fleet's pipelines, how it compares with others, and the bound."""
    columns = (Column(name, justify="right") for name in ("Number", "USD/h each", "Requests/s each"))
    table = Table(
        "Pipeline (kind[layers])", *columns,
        title=f"{found.best.text}: ${found.usd_per_hour:,.2f}/h",
    )  # fmt: skip
    for row in found.best.pipelines:
        cells = (str(row["count"]), f"{row['usd_per_hour']:.2f}", number(row["rate_per_s"]))
        table.add_row(row["pipeline"], *cells)
    console = plain_console()
    console.print(table)
    others = Table("Fleet", *(Column(name, justify="right") for name in ("USD/h", "saved", "keep the SLO")), "")
    shown: list[tuple[Checked, str]] = [(one, f"best of {kind} alone") for kind, one in found.of_one_kind.items()]
    alone = [one for one, _ in shown]
    shown += [(one, "runner-up" if one.holds else "breaks the SLO") for one in found.others if one not in alone]
    for one, what in sorted(shown, key=lambda pair: pair[0].usd_per_hour):
        saved = 1 - found.usd_per_hour / one.usd_per_hour
        others.add_row(one.text, f"{one.usd_per_hour:,.2f}", percent(saved), percent(one.attainment), what)
    console.print(others)
    facts = found.facts or {}
    saving, kind = found.saving(), found.best_kind
    lines = {
        "Price": f"${found.usd_per_hour:,.2f}/h, ${found.usd_per_million_requests:,.0f} for a million requests",
        "Bound": f"${found.bound_usd_per_hour:,.2f}/h (gap {percent(found.gap)}): no fleet of pipelines at these rates "
        "is cheaper",
        "One kind": "no kind alone keeps the SLO"
        if saving is None or kind is None
        else "this is the cheapest fleet of one kind"
        if abs(saving) < 5e-5
        else f"{percent(saving)} less than {found.of_one_kind[kind].text}",
        "SLO": f"{found.slo}; kept for {percent(found.best.attainment)}",
        "Load": f"{number(found.rate_per_s)} requests/s of {facts.get('lengths')}",
        "Tried": f"{facts.get('patterns')} pipelines, {facts.get('measured_pipelines')} of them simulated; "
        f"{facts.get('simulations')} simulations in {facts.get('seconds')} s"
        + ("" if facts.get("is_complete") else "; the time limit ended the search"),
    }
    if output is not None:
        lines["Written to"] = str(output)
    for name, text in lines.items():
        typer.echo(f"{name + ':':<12} {text}")
