"""Simulations by content: what one figure has simulated, the next one reads.

The same simulation (plan, requests, rules, window, seed) is asked for by several figures: the offline run of Helix's
published plan stands in four of them. What a figure needs of a run (`Outcome`) is kept in ``FOLDER/.cache`` under a
digest of everything that it depends on, the simulator's code included; a second process that wants the same waits for
the first. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit.experiments.machinery import digests
from helix_kit.simulator import simulate

if TYPE_CHECKING:
    from helix_kit.experiments.machinery.registry import Context
    from helix_kit.placement.plan import Plan
    from helix_kit.report import Run

QUANTILES = ("p5", "p25", "p50", "p75", "p95")
FAST_SHARE = 0.1
"""A fast run simulates this share of the time."""
CACHE = ".cache"


@dataclass(frozen=True)
class Outcome:
    """What figures need of a run."""

    metrics: dict[str, float]
    """By the published names: ``decode_tokens_per_s``, ``prompt_latency_p50_s``, ...; a latency that no request has is
    left out."""
    nodes: dict[str, dict[str, float]]
    """Name -> `helix_kit.report.NodeUse` as a mapping."""


def metrics_of(run: Run) -> dict[str, float]:
    """A run by the published names of metrics."""
    summary = run.summary()
    found = {"decode_tokens_per_s": summary["decode_tokens_per_s"]}
    for phase in ("prompt", "decode"):
        latency = summary[f"{phase}_latency_s"]
        for name in ("avg", *QUANTILES):
            if latency[name] is not None:
                found[f"{phase}_latency_{name}_s"] = latency[name]
    return found


def simulated(calls: Sequence[Mapping[str, Any]], context: Context) -> Outcome:
    """The outcome of one simulation, or of several parts of a cluster together.

    Parameters
    ----------
    calls
        The arguments of `helix_kit.simulate` for each part. Their durations are in full: a fast `context` shortens
        them.
    """
    if context.fast:
        calls = [{**call, "duration_s": call["duration_s"] * FAST_SHARE} for call in calls]
    folder = context.folder / CACHE
    path = folder / f"{_digest(calls)}.json"
    with _alone(path):
        if not path.is_file():
            outcome = _simulate(calls)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
            part.replace(path)
        # Read back even by who has just written it: both see the same digits.
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))


def _simulate(calls: Sequence[Mapping[str, Any]]) -> Outcome:
    from helix_kit.report import merge

    runs = [simulate(**call) for call in calls]
    run = merge(runs) if len(runs) > 1 else runs[0]
    return Outcome(metrics_of(run), {name: asdict(use) for name, use in run.nodes.items()})


def _digest(calls: Sequence[Mapping[str, Any]]) -> str:
    digest = hashlib.sha256(digests.code_digest("helix_kit.simulator").encode())
    for call in calls:
        for name in sorted(call):
            digest.update(f"{name}={_content(call[name])}\n".encode())
    return digest.hexdigest()[:24]


def _content(value: Any) -> str:
    """What a simulation depends on, as text: not the names of plans and workloads, nor how long planning took."""
    if hasattr(value, "placement"):
        return _plan_content(value)
    if hasattr(value, "requests"):
        return hashlib.sha256(repr(value.requests).encode()).hexdigest()
    if isinstance(value, Mapping):
        return json.dumps(sorted(value.items()))
    return repr(value)


def _plan_content(plan: Plan) -> str:
    fields = {"cluster", "model", "profiles", "placement", "partial_inference", "flow", "node_throughput_tokens_per_s"}
    return plan.model_dump_json(include=fields)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; without file locks (Windows) two may simulate the same, to the same result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


__all__ = ["FAST_SHARE", "QUANTILES", "Outcome", "metrics_of", "simulated"]
