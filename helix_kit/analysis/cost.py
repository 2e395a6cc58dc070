"""What a plan costs, and the energy that it takes: at its full flow, or at the load of a run.

Prices are those of the cluster's file, or else of the catalogue. The power of a GPU is an estimate: linear between idle
and its TDP by the share of its speed that is used. Machines without flow are left out of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from helix_kit._wording import count_text
from helix_kit.catalogue import PAYMENTS
from helix_kit.cluster import COORDINATOR
from helix_kit.errors import InputError
from helix_kit.flow import Flow
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.report import Run

J_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Cost:
    """Cost and energy at a load.

    Examples
    --------
    >>> cost = Cost(input_tokens_per_s=750.0, output_tokens_per_s=250.0, usd_per_hour=3.6, power_w=500.0)
    >>> cost.usd_per_million_tokens, cost.usd_per_million_output_tokens, cost.joules_per_token
    (1.0, 4.0, 0.5)
    """

    input_tokens_per_s: float
    """Prompt tokens/s."""
    output_tokens_per_s: float
    """Generated tokens/s."""
    usd_per_hour: float | None = None
    """Machines that carry flow, on demand; None where a price is unknown."""
    reserved_usd_per_hour: float | None = None
    """The same for a committed term; on demand where a seller has no such price."""
    spot_usd_per_hour: float | None = None
    """The same as spot machines, likewise."""
    not_reserved: tuple[str, ...] = ()
    """GPUs in use that no known seller reserves, counted on demand there."""
    not_spot: tuple[str, ...] = ()
    """GPUs in use without a spot price, counted on demand there."""
    egress_usd_per_hour: float = 0.0
    """GB that are sent over links with a price, at this load."""
    unpriced: tuple[str, ...] = ()
    """GPUs in use without a price."""
    idle: tuple[str, ...] = ()
    """Machines without flow: their price and power are not counted."""
    idle_usd_per_hour: float | None = 0.0
    """What they would cost; None where a price is unknown."""
    power_w: float | None = None
    """Power of the GPUs in use, an estimate; None where that of a kind is unknown."""
    gco2_per_kwh: float | None = None
    """Grams of CO2 for a kWh, as the user says."""

    @property
    def tokens_per_s(self) -> float:
        """Tokens/s, input and output."""
        return self.input_tokens_per_s + self.output_tokens_per_s

    @property
    def total_usd_per_hour(self) -> float | None:
        """Machines and egress, dollars per hour."""
        return None if self.usd_per_hour is None else self.usd_per_hour + self.egress_usd_per_hour

    @property
    def usd_per_million_tokens(self) -> float | None:
        """The whole cost divided among input and output tokens: usd/h / (tokens/s x 3600) x 10^6."""
        return self._per_million(self.tokens_per_s)

    @property
    def usd_per_million_input_tokens(self) -> float | None:
        """The whole cost divided among the input tokens alone."""
        return self._per_million(self.input_tokens_per_s)

    @property
    def usd_per_million_output_tokens(self) -> float | None:
        """The whole cost divided among the output tokens alone."""
        return self._per_million(self.output_tokens_per_s)

    def _per_million(self, tokens_per_s: float) -> float | None:
        usd = self.total_usd_per_hour
        return None if usd is None or not tokens_per_s else round(usd / (tokens_per_s * 3600) * 1e6, 9)

    @property
    def tokens_per_s_per_usd(self) -> float | None:
        """Tokens/s for each dollar per hour."""
        return self.tokens_per_s / self.total_usd_per_hour if self.total_usd_per_hour else None

    @property
    def joules_per_token(self) -> float | None:
        """Power / tokens/s, over input and output tokens."""
        return None if self.power_w is None or not self.tokens_per_s else self.power_w / self.tokens_per_s

    @property
    def tokens_per_s_per_mw(self) -> float | None:
        """Tokens/s for each megawatt."""
        return None if not self.power_w else self.tokens_per_s / (self.power_w / 1e6)

    @property
    def gco2_per_million_tokens(self) -> float | None:
        """Grams of CO2 for a million tokens, at the intensity given."""
        if self.gco2_per_kwh is None or self.joules_per_token is None:
            return None
        return self.joules_per_token * 1e6 / J_PER_KWH * self.gco2_per_kwh

    def to_dict(self) -> dict[str, Any]:
        """The figures by name, for tables and JSON."""
        names = {f.name for f in fields(self)}
        derived = [n for n, p in vars(type(self)).items() if isinstance(p, property) and n not in names]
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}

    def lines(self) -> dict[str, str]:
        """The figures as short texts by their titles, for reports."""

        def usd(value: float | None, digits: int = 2) -> str:
            return "unknown" if value is None else f"${value:,.{digits}f}"

        unknown = f" (no price for {', '.join(self.unpriced)})" if self.unpriced else ""
        egress = f" and {usd(self.egress_usd_per_hour)}/h of egress" if self.egress_usd_per_hour >= 0.005 else ""

        def paid_as(name: str, value: float | None, missing: tuple[str, ...]) -> str:
            if missing and value in (None, self.usd_per_hour):
                return f"no {name} price"
            return f"{usd(value)} {name}" + (f" (on demand: {', '.join(missing)})" if missing else "")

        told = {
            "Cost": f"{usd(self.usd_per_hour)}/h{egress} on demand{unknown}, "
            f"{paid_as('reserved', self.reserved_usd_per_hour, self.not_reserved)}, "
            f"{paid_as('spot', self.spot_usd_per_hour, self.not_spot)}"
        }
        if self.usd_per_million_tokens is not None:
            told["Per token"] = (
                f"{usd(self.usd_per_million_tokens, 3)} a million tokens (all of it on output: "
                f"{usd(self.usd_per_million_output_tokens, 3)})"
            )
            if self.tokens_per_s_per_usd is not None:
                told["Per token"] += f", {self.tokens_per_s_per_usd:,.0f} tokens/s for $1/h"
        if self.joules_per_token is not None and self.power_w is not None:
            told["Energy"] = (
                f"{self.power_w / 1e3:,.2f} kW, {self.joules_per_token:,.2f} J a token, "
                f"{self.tokens_per_s_per_mw:,.0f} tokens/s a MW (GPUs alone, estimated from TDP and idle power)"
            )
            if self.gco2_per_million_tokens is not None:
                told["Energy"] += f", {self.gco2_per_million_tokens:,.0f} g CO2 a million tokens"
        if self.idle:
            machines = count_text(len(self.idle), "machine")
            told["Idle"] = f"{machines} without flow, not counted: {usd(self.idle_usd_per_hour)}/h"
        return told


def cost_of(
    problem: Problem,
    flow: Flow,
    *,
    tokens_per_s: float | None = None,
    output_share: float | None = None,
    busy: Mapping[str, float] | None = None,
    gco2_per_kwh: float | None = None,
) -> Cost:
    """Cost and energy of a flow.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    flow
        The flow: its machines count, its links say what is sent where.
    tokens_per_s
        Input and output tokens/s of the load. None: the flow.
    output_share
        Share of the tokens that are output. None: that of the lengths that the problem is for.
    busy
        Node -> share of its speed in use. None: load x flow through it / its capacity.
    gco2_per_kwh
        Grams of CO2 for a kWh.

    Returns
    -------
    Cost
        The figures at this load.

    Raises
    ------
    InputError
        For a negative `gco2_per_kwh`.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}], "prices": {"L4": 0.5}})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> cost_of(six.problem, six.max_flow).usd_per_hour
    3.0
    """
    if gco2_per_kwh is not None and gco2_per_kwh < 0:
        raise InputError("expected a number of at least 0", field="gco2_per_kwh", value=gco2_per_kwh)
    cluster, model = problem.cluster, problem.model
    if output_share is None:
        output_share = problem.lengths.output_tokens / problem.lengths.tokens
    total = flow.tokens_per_s if tokens_per_s is None else tokens_per_s
    load = total / flow.tokens_per_s if flow.tokens_per_s else 0.0
    used = [n for n in cluster.nodes if flow.through(n.name) > 0]
    idle = [n for n in cluster.nodes if flow.through(n.name) <= 0]
    on_demand = {n.gpu: cluster.gpu(n.gpu).price.on_demand for n in cluster.nodes}
    unpriced = tuple(dict.fromkeys(n.gpu for n in used if on_demand[n.gpu] is None))
    rents: dict[str, float | None] = {}
    missing: dict[str, tuple[str, ...]] = {}
    for payment in PAYMENTS:
        paid = {n.name: cluster.usd_per_hour(n, payment) for n in used}
        prices = [cluster.usd_per_hour(n) if paid[n.name] is None else paid[n.name] for n in used]
        rents[payment] = None if unpriced else sum(p or 0.0 for p in prices)
        missing[payment] = tuple(dict.fromkeys(n.gpu for n in used if cluster.usd_per_hour(n, payment) is None))
    egress = 0.0
    for (source, target), tokens in flow.edges.items():
        size = model.token_bytes if COORDINATOR in (source, target) else problem.link_bytes_per_token
        egress += load * tokens * size / 1e9 * 3600 * cluster.link(source, target).usd_per_gb
    power: float | None = 0.0
    for node in used:
        share = load * flow.utilisation((node.name, node.name)) if busy is None else busy.get(node.name, 0.0)
        watts = cluster.gpu(node.gpu).power_w(share)
        power = None if watts is None or power is None else power + watts * node.gpus_per_node
    waste = [cluster.usd_per_hour(n) for n in idle]
    return Cost(
        input_tokens_per_s=total * (1 - output_share),
        output_tokens_per_s=total * output_share,
        usd_per_hour=rents["on_demand"],
        reserved_usd_per_hour=rents["reserved"],
        spot_usd_per_hour=rents["spot"],
        not_reserved=missing["reserved"],
        not_spot=missing["spot"],
        egress_usd_per_hour=egress,
        unpriced=unpriced,
        idle=tuple(n.name for n in idle),
        idle_usd_per_hour=None if None in waste else sum(p or 0.0 for p in waste),
        power_w=power if used else None,
        gco2_per_kwh=gco2_per_kwh,
    )


def cost(plan: Plan, run: Run | None = None, *, gco2_per_kwh: float | None = None) -> Cost:
    """Cost and energy of a plan: at its full flow, or as it was used in a run.

    Parameters
    ----------
    plan
        The plan.
    run
        A simulated or real run of it: its tokens/s, and how busy its machines were. None: the flow of the plan.
    gco2_per_kwh
        Grams of CO2 for a kWh, such as 30 for hydro power or 400 for a mixed grid.

    Returns
    -------
    Cost
        Dollars per hour and per million tokens, power, joules per token, and so on.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}], "prices": {"L4": 0.5}})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> six_cost = cost(six, gco2_per_kwh=100)
    >>> six_cost.usd_per_hour, round(six_cost.power_w), round(six_cost.joules_per_token, 1)
    (3.0, 432, 1.9)
    """
    if run is None:
        return cost_of(plan.problem, plan.max_flow, gco2_per_kwh=gco2_per_kwh)
    summary = run.summary()
    total = summary["input_tokens_per_s"] + summary["output_tokens_per_s"]
    return cost_of(
        plan.problem,
        plan.max_flow,
        tokens_per_s=total,
        output_share=summary["output_tokens_per_s"] / total if total else None,
        busy={name: use.busy for name, use in run.nodes.items()} or None,
        gco2_per_kwh=gco2_per_kwh,
    )
