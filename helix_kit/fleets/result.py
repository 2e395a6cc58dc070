"""What `helix_kit.fleet` returns: the fleet with its plan, the bound on its price, and other fleets to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_kit._summary import Summarised, counted, number, percent
from helix_kit.metrics import SLO
from helix_kit.placement.plan import Plan


@dataclass(frozen=True)
class Checked:
    """A fleet that was simulated at the rate.

    Examples
    --------
    >>> Checked({"L4": 2}, 1.42, True, 0.995, {"tpot": 0.995}, {"tpot_s": 0.11}, ({"pipeline": "L4[32]"},)).text
    '2 L4'
    """

    machines: Mapping[str, int]
    """Kind -> how many."""
    usd_per_hour: float
    """Rent of all of them."""
    holds: bool
    """Whether the SLO holds: enough requests keep it, and the number in the system does not grow."""
    attainment: float
    """Share of the requests that kept all limits, over all seeds."""
    kept_by_limit: Mapping[str, float]
    """Limit (ttft, tpot, e2el) -> share that kept it."""
    at_share: Mapping[str, float]
    """ttft_s, tpot_s, e2el_s -> its value at the SLO's share, in s."""
    pipelines: Sequence[Mapping[str, Any]]
    """Pipelines with their number, price, and the requests/s that one serves within the SLO by itself."""

    @property
    def text(self) -> str:
        """The machines, such as ``2 L4, 1 A100-80G``."""
        return counted(dict(self.machines))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "machines": dict(self.machines), "usd_per_hour": self.usd_per_hour, "holds": self.holds,
            "attainment": self.attainment, "kept_by_limit": dict(self.kept_by_limit),
            "at_share": dict(self.at_share), "pipelines": [dict(p) for p in self.pipelines],
        }  # fmt: skip


@dataclass(frozen=True, repr=False)
class Fleet(Summarised):
    """The cheapest fleet found that keeps an SLO at a rate.

    Examples
    --------
    >>> two = Checked({"L4": 2}, 1.42, True, 1.0, {}, {}, ())
    >>> one = Checked({"H100-80G": 1}, 3.2, True, 1.0, {}, {}, ())
    >>> found = Fleet(rate_per_s=1.0, slo=SLO(tpot_s=0.1), best=two, bound_usd_per_hour=1.42, plan=None,
    ...               of_one_kind={"L4": two, "H100-80G": one}, others=(), prices={"L4": 0.71, "H100-80G": 3.2})
    >>> found.gap, round(found.saving("H100-80G"), 2), found.saving()
    (0.0, 0.56, 0.0)
    """

    rate_per_s: float
    """Requests/s."""
    slo: SLO
    """Limits of a request."""
    best: Checked
    """The fleet."""
    bound_usd_per_hour: float
    """No fleet of pipelines at these rates is cheaper: see `helix_kit.fleet`."""
    plan: Plan | None
    """Its plan, for `helix_kit.simulate`, `serve` or `export`."""
    of_one_kind: Mapping[str, Checked]
    """Kind -> the cheapest fleet of machines of that kind alone that keeps the SLO; without kinds that cannot."""
    others: Sequence[Checked]
    """The other fleets that were simulated, cheapest first."""
    prices: Mapping[str, float]
    """Kind -> USD/h of a machine."""
    facts: Mapping[str, Any] | None = None
    """Workload, payment, simulations, seconds and notes."""

    @property
    def usd_per_hour(self) -> float:
        """Rent of the fleet."""
        return self.best.usd_per_hour

    @property
    def gap(self) -> float:
        """(price - bound) / price."""
        return max(0.0, 1 - self.bound_usd_per_hour / self.usd_per_hour)

    @property
    def best_kind(self) -> str | None:
        """The kind whose machines alone cost least; None if no kind alone keeps the SLO."""
        return min(self.of_one_kind, key=lambda kind: self.of_one_kind[kind].usd_per_hour, default=None)

    @property
    def usd_per_million_requests(self) -> float:
        """Price of a million requests at this rate."""
        return self.usd_per_hour / (self.rate_per_s * 3600) * 1e6

    def saving(self, kind: str | None = None) -> float | None:
        """Share of the price of a kind alone that the fleet saves; None: of the best kind. None if it cannot."""
        chosen = kind or self.best_kind
        if chosen is None or chosen not in self.of_one_kind:
            return None
        return 1 - self.usd_per_hour / self.of_one_kind[chosen].usd_per_hour

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "rate_per_s": self.rate_per_s,
            "slo": {**{f"{name}_s": limit for name, limit in self.slo.limits.items()}, "at": self.slo.at},
            "usd_per_hour": self.usd_per_hour,
            "bound_usd_per_hour": self.bound_usd_per_hour,
            "gap": self.gap,
            "usd_per_million_requests": self.usd_per_million_requests,
            "best": self.best.to_dict(),
            "of_one_kind": {kind: found.to_dict() for kind, found in self.of_one_kind.items()},
            "best_kind": self.best_kind,
            "saving": self.saving(),
            "savings": {kind: self.saving(kind) for kind in self.of_one_kind},
            "others": [found.to_dict() for found in self.others],
            "prices_usd_per_hour": dict(self.prices),
            **dict(self.facts or {}),
        }

    def save(self, path: str | Path) -> None:
        """Write the fleet's plan as plan.json."""
        if self.plan is not None:
            self.plan.save(path)

    def _title(self) -> str:
        return f"{self.best.text} for {number(self.rate_per_s)} requests/s"

    def _facts(self) -> dict[str, str]:
        kind, saving = self.best_kind, self.saving()
        alone = "no kind alone keeps the SLO"
        if kind is not None and saving is not None:
            alone = (
                f"{percent(saving)} ({self.of_one_kind[kind].text} at ${self.of_one_kind[kind].usd_per_hour:,.2f}/h)"
            )
        return {
            "price": f"${self.usd_per_hour:,.2f}/h",
            "bound": f"${self.bound_usd_per_hour:,.2f}/h (gap {percent(self.gap)})",
            "keep the SLO": percent(self.best.attainment),
            "saving against the best kind alone": alone,
        }


__all__ = ["Checked", "Fleet"]
