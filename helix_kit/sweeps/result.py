"""The curves of a sweep, one for each plan: means over the seeds, their intervals, and where the plan saturates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kit import _files
from helix_kit._summary import Summarised, number
from helix_kit.metrics import SLO
from helix_kit.metrics.intervals import half_interval
from helix_kit.sweeps.regime import Backlog, Regime, highest_rate, knee_of, regime_of

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("plan", "rate_per_s", "concurrency", "seed", "backlog")


@dataclass(frozen=True, repr=False)
class PlanCurve(Summarised):
    """What one plan does at each load.

    Examples
    --------
    >>> curve = PlanCurve("mine", ({"rate_per_s": 1.0, "regime": "stable", "requests_per_s": 1.0},))
    >>> curve.knee_per_s is None, curve.stable_until_per_s
    (True, 1.0)
    """

    plan: str
    """Its name."""
    rows: tuple[dict[str, Any], ...]
    """For each load, the lowest first: the means over the seeds, their half intervals (`..._ci`), and the regime."""
    slo: SLO | None = None
    """Limits of a request."""

    def column(self, name: str) -> list[Any]:
        """A value of every load."""
        return [row.get(name) for row in self.rows]

    @property
    def is_closed(self) -> bool:
        """Whether the loads are concurrencies."""
        return bool(self.rows) and self.rows[0].get("concurrency") is not None

    @property
    def knee_per_s(self) -> float | None:
        """Requests/s up to which the plan keeps up; None when no rate overloads it, or in a closed loop."""
        if self.is_closed:
            return None
        return knee_of(self.column("rate_per_s"), self.column("requests_per_s"), self.column("regime"))

    @property
    def stable_until_per_s(self) -> float | None:
        """The highest rate below every rate at which requests wait; None in a closed loop or without one."""
        stable = None
        for row in self.rows:
            if row["regime"] != "stable" or self.is_closed:
                break
            stable = row["rate_per_s"]
        return stable

    @property
    def slo_rate_per_s(self) -> float | None:
        """The highest rate at which the SLO holds; None without an SLO, in a closed loop, or where it never holds."""
        if self.slo is None or self.is_closed:
            return None
        return highest_rate(self.column("rate_per_s"), self.column("attainment"), self.slo.at)

    @property
    def max_goodput(self) -> tuple[float, float] | None:
        """(load, requests/s) at which most requests keep the limits; None without an SLO."""
        if self.slo is None or not self.rows:
            return None
        best = max(self.rows, key=lambda row: row["goodput_per_s"])
        return best["concurrency"] if self.is_closed else best["rate_per_s"], best["goodput_per_s"]

    def to_dict(self) -> dict[str, Any]:
        """The curve as plain data, for JSON."""
        return {
            "plan": self.plan, "knee_per_s": self.knee_per_s, "stable_until_per_s": self.stable_until_per_s,
            "slo_rate_per_s": self.slo_rate_per_s, "max_goodput": self.max_goodput, "rows": list(self.rows),
        }  # fmt: skip

    def _title(self) -> str:
        return self.plan

    def _facts(self) -> dict[str, str]:
        facts = {"loads": str(len(self.rows))}
        facts["most output"] = f"{number(max(self.column('output_tokens_per_s'), default=None))} tokens/s"
        if not self.is_closed:
            facts["stable until"] = f"{number(self.stable_until_per_s)} requests/s"
            facts["knee"] = "beyond these loads" if self.knee_per_s is None else f"{number(self.knee_per_s)} requests/s"
        if self.slo is not None:
            held = self.slo_rate_per_s
            facts["SLO holds"] = "at no rate" if held is None else f"until {number(held)} requests/s"
        return facts


@dataclass(frozen=True, repr=False)
class Sweep(Summarised):
    """Plans at many loads: `table`, `curves`, `plot()`, `to_csv()`, `to_json()`.

    Examples
    --------
    >>> row = {"plan": "mine", "rate_per_s": 1.0, "concurrency": None, "seed": 0, "requests_per_s": 0.9,
    ...        "output_tokens_per_s": 90.0, "backlog": [1.0, 5.0, 5.0, 50.0, 0.0, 1.0]}
    >>> found = Sweep((row, {**row, "seed": 1, "requests_per_s": 1.1}))
    >>> found.curves["mine"].rows[0]["regime"], float(found.curves["mine"].rows[0]["requests_per_s"])
    ('stable', 1.0)
    """

    points: tuple[dict[str, Any], ...]
    """One row for each simulation: plan, load, seed and what was measured."""
    slo: SLO | None = None
    """Limits of a request."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """How the points were simulated."""

    @cached_property
    def curves(self) -> dict[str, PlanCurve]:
        """Name of a plan -> its curve."""
        grouped: dict[str, dict[tuple[Any, Any], list[dict[str, Any]]]] = {}
        for point in self.points:
            load = (point["rate_per_s"], point["concurrency"])
            grouped.setdefault(point["plan"], {}).setdefault(load, []).append(point)
        return {
            plan: PlanCurve(plan, tuple(_joined(loads[load]) for load in sorted(loads, key=_order)), self.slo)
            for plan, loads in grouped.items()
        }

    @property
    def table(self) -> pd.DataFrame:
        """One row for each plan and load: means over the seeds, half intervals, regime."""
        import pandas as pd

        return pd.DataFrame([row for curve in self.curves.values() for row in curve.rows])

    def to_csv(self, path: str | Path) -> None:
        """Write `table`."""
        _files.write_result(path, self.table.to_csv(index=False, lineterminator="\n"))

    def to_json(self, path: str | Path | None = None) -> str:
        """Curves and facts as JSON text, also written to `path` if given."""
        text = json.dumps(self.to_dict(), indent=1) + "\n"
        if path is not None:
            _files.write_result(path, text)
        return text

    def to_dict(self) -> dict[str, Any]:
        """Curves and facts as plain data."""
        return {**self.facts, "curves": [curve.to_dict() for curve in self.curves.values()]}

    def plot(self) -> Any:
        """A figure: throughput, TTFT, TPOT and attainment against the load, one line a plan (matplotlib)."""
        from helix_kit.plots.sweep import plot_sweep

        return plot_sweep(self)

    def _title(self) -> str:
        return f"of {', '.join(self.curves)}"

    def _facts(self) -> dict[str, str]:
        facts = {"points": str(len(self.points))}
        for plan, curve in self.curves.items():
            told = [f"{name} {value}" for name, value in curve._facts().items() if name != "loads"]
            facts[plan] = "; ".join(told)
        return facts


def _order(load: tuple[float | None, int | None]) -> float:
    rate, concurrency = load
    return float(rate if rate is not None else concurrency or 0)


def _joined(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The runs of one load as one row: means over the seeds, and half the width of their intervals."""
    first = points[0]
    row: dict[str, Any] = {key: first[key] for key in ("plan", "rate_per_s", "concurrency")}
    backlogs = [Backlog(*point["backlog"]) for point in points]
    regime: Regime = regime_of(backlogs) if first["concurrency"] is None else "stable"
    row |= {"seeds": len(points), "regime": regime}
    if first["concurrency"] is None:
        row["growth_per_s"] = float(np.mean([b.growth_per_s for b in backlogs]))
    for name in first:
        if name in KEYS:
            continue
        values = [point[name] for point in points if point[name] is not None]
        row[name] = float(np.mean(values)) if values else None
        row[f"{name}_ci"] = half_interval(values) if len(values) > 1 else None
    return row


__all__ = ["PlanCurve", "Sweep"]
