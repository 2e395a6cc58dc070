"""Metrics of a run under the names that the published results have."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helix_kit.report import Run

SPEED = "decode_tokens_per_s"
PHASES = ("prompt", "decode")
QUANTILES = ("p5", "p25", "p50", "p75", "p95")


def latency_name(phase: str, quantile: str) -> str:
    """The published name of a latency, such as ``prompt_latency_p50_s``."""
    return f"{phase}_latency_{quantile}_s"


def metrics_of(run: Run) -> dict[str, float]:
    """Decode throughput and latencies of a run; a latency that no request has is left out."""
    return {SPEED: run.summary()[SPEED], **latencies_of(run)}


def latencies_of(run: Run) -> dict[str, float]:
    """Mean and percentiles of both latencies of a run in s; a latency that no request has is left out."""
    summary = run.summary()
    values = {
        latency_name(phase, quantile): summary[f"{phase}_latency_s"][quantile]
        for phase in PHASES
        for quantile in ("avg", *QUANTILES)
    }
    return {name: value for name, value in values.items() if value is not None}
