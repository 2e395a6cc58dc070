"""What an evaluation gives: one tidy table, what went wrong, and the picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from helix_kit import _files
from helix_kit._summary import Summarised, number
from helix_kit.experiments.evaluate.intervals import COMPARED
from helix_kit.experiments.evaluate.options import SIMULATED
from helix_kit.experiments.figures.common.metrics import SPEED, latency_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("method", "mode", "source", "metric", "value")
NAMES = {
    SPEED: "decode throughput",
    latency_name("prompt", "p50"): "median prompt latency",
    latency_name("decode", "p50"): "median decode latency",
}
"""Names of the metrics in which workers are compared with the simulation."""


@dataclass(frozen=True, repr=False)
class Evaluation(Summarised):
    """Methods side by side.

    Parameters
    ----------
    table
        One row a metric: method, mode, source, metric, value. Sources are ``plan``, ``simulated``, and ``real workers``
        or ``emulated workers``.
    labels
        Method -> its name in pictures, in the order of the methods.
    facts
        Cluster, model, workload, windows, seed and version.
    notes
        What a reader should know of the requests and the runs.
    problems
        What could not be planned or measured, and why.
    stopped
        Whether Ctrl-C ended it before all runs were done.
    intervals
        (method, mode, metric) -> bootstrap interval of the difference between workers and simulation, with 95 %
        confidence.
    unsettled
        (method, mode, metric) of medians that lie between a fast and a slow group of tokens, where a few tokens more on
        one side move them far.

    Examples
    --------
    >>> rows = [("helix", "online", "simulated", "decode_tokens_per_s", 50.0),
    ...         ("helix", "online", "real workers", "decode_tokens_per_s", 49.0)]
    >>> found = Evaluation(pd.DataFrame(rows, columns=list(COLUMNS)), {"helix": "Helix"}, {})
    >>> found.value("helix", "online", "simulated", "decode_tokens_per_s")
    50.0
    >>> found.differences()["difference"].round(3).tolist()
    [-0.02]
    """

    table: pd.DataFrame
    labels: dict[str, str]
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    stopped: bool = field(default=False)
    intervals: dict[tuple[str, str, str], tuple[float, float]] = field(default_factory=dict)
    unsettled: frozenset[tuple[str, str, str]] = frozenset()

    def value(self, method: str, mode: str, source: str, metric: str) -> float | None:
        """One value of the table.

        Parameters
        ----------
        method, mode, source, metric
            As in the table.

        Returns
        -------
        float or None
            None where the table has no such row.
        """
        t = self.table
        rows = t[(t["method"] == method) & (t["mode"] == mode) & (t["source"] == source) & (t["metric"] == metric)]
        return float(rows["value"].iloc[0]) if len(rows) else None

    @property
    def workers(self) -> str | None:
        """The source of what workers served; None where nothing was."""
        others = [s for s in dict.fromkeys(self.table["source"]) if s not in {SIMULATED, "plan"}]
        return str(others[0]) if others else None

    @property
    def runs(self) -> list[tuple[str, str]]:
        """(method, mode) of all runs, in the order of the table."""
        ran = self.table[self.table["source"] != "plan"]
        return list(dict.fromkeys(zip(ran["method"], ran["mode"], strict=True)))

    def differences(self) -> pd.DataFrame:
        """How far workers are from the simulation, as a share of it.

        Columns: method, mode, metric, simulated, served, difference, low and high, the ends of its interval, and
        settled: False for a median that lies between a fast and a slow group of tokens.
        """
        rows = []
        for method, mode in self.runs if self.workers else ():
            for metric in COMPARED:
                simulated = self.value(method, mode, SIMULATED, metric)
                served = self.value(method, mode, str(self.workers), metric)
                if simulated and served is not None:
                    ends = self.intervals.get((method, mode, metric), (float("nan"), float("nan")))
                    settled = (method, mode, metric) not in self.unsettled
                    rows.append((method, mode, metric, simulated, served, served / simulated - 1, *ends, settled))
        columns = ["method", "mode", "metric", "simulated", "served", "difference", "low", "high", "settled"]
        return pd.DataFrame(rows, columns=columns)

    def plot(self) -> Figure:
        """Bars of decode throughput and boxes of prompt and decode latency, a row of panels for each mode."""
        from helix_kit.experiments.evaluate.picture import draw

        return draw(self)

    def to_csv(self, path: str | Path) -> None:
        """Write the table."""
        _files.write_result(path, self.table.to_csv(index=False, lineterminator="\n"))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, ready for JSON."""
        return {
            **self.facts,
            "methods": self.labels,
            "rows": self.table.to_dict("records"),
            "differences": [_without_nan(row) for row in self.differences().to_dict("records")],
            "notes": list(self.notes),
            "problems": list(self.problems),
            "stopped": self.stopped,
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """`to_dict` as JSON text, also written to `path` if given."""
        text = json.dumps(self.to_dict())
        if path is not None:
            _files.write_result(path, text + "\n")
        return text

    def _title(self) -> str:
        return f"{self.facts.get('model', '')} on {self.facts.get('cluster', '')}"

    def _facts(self) -> dict[str, str]:
        told = {}
        for method, mode in self.runs:
            speeds = [self.value(method, mode, s, SPEED) for s in (SIMULATED, self.workers or "")]
            shown = " and ".join(number(v) for v in speeds if v is not None)
            told[f"{self.labels.get(method, method)} {mode}"] = f"{shown} decode tokens/s"
        if self.problems:
            told["problems"] = str(len(self.problems))
        return told


def _without_nan(row: dict[Any, Any]) -> dict[Any, Any]:
    """The row with None for what is not known; JSON has no NaN."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def evaluation_of(
    plan_rows: Sequence[tuple[str, str, float]],
    records: Sequence[dict[str, Any]],
    labels: dict[str, str],
    facts: dict[str, Any],
    **more: Any,
) -> Evaluation:
    """The evaluation of plans' figures (method, metric, value) and of records of runs."""
    rows: list[tuple[str, str, str, str, float]] = [(m, "", "plan", metric, v) for m, metric, v in plan_rows]
    for record in records:
        keys = (record["method"], record["mode"], record["source"])
        rows += [(*keys, metric, float(value)) for metric, value in record["metrics"].items()]
    intervals, unsettled = {}, set()
    for record in records:
        for found in record.get("differences", ()):
            key = (record["method"], record["mode"], found["metric"])
            intervals[key] = (found["low"], found["high"])
            if not found.get("is_settled", True):
                unsettled.add(key)
    more = {"intervals": intervals, "unsettled": frozenset(unsettled), **more}
    return Evaluation(pd.DataFrame(rows, columns=list(COLUMNS)), labels, facts, **more)


__all__ = ["Evaluation"]
