"""Our own plans for a published setting, simulated under the published rules and Helix's own load rules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from helix_kit.cluster import Cluster
from helix_kit.experiments import published
from helix_kit.model import Model
from helix_kit.workload import Workload

if TYPE_CHECKING:
    from helix_kit.placement.plan import Plan
    from helix_kit.report import Run

TIME_LIMIT_S, FAST_TIME_LIMIT_S = 60.0, 15.0
OBJECTIVES = ("flow", "served")


@dataclass(frozen=True)
class Setting:
    """A cluster and a model of the evaluation."""

    setup: str
    cluster: str
    model: str


SETTINGS = {
    ("single", "llama-30b"): Setting("single", "single24", "llama-30b"),
    ("single", "llama2-70b"): Setting("single", "single24", "llama2-70b"),
    ("geo", "llama-30b"): Setting("geo", "geo24", "llama-30b"),
    ("geo", "llama2-70b"): Setting("geo", "geo24", "llama2-70b"),
    ("hetero42", "llama2-70b"): Setting("hetero42", "hetero42", "llama2-70b"),
}


def objectives() -> tuple[str, ...]:
    """What our planner can maximise: the flow, and what the plan serves in the simulator."""
    from helix_kit.placement import planner

    return tuple(objective for objective in OBJECTIVES if objective in planner.OBJECTIVES)


@cache
def own_plan(setting: Setting, objective: str, fast: bool, seed: int = 0) -> Plan:
    """Our plan: pattern program, balanced flow."""
    from helix_kit.placement.planner import plan

    return plan(
        Cluster.preset(setting.cluster),
        Model.preset(setting.model),
        objective=objective,
        time_limit=FAST_TIME_LIMIT_S if fast else TIME_LIMIT_S,
        seed=seed,
    )


def requests_of(parts: tuple[dict[str, Any], ...]) -> Workload:
    """The published requests of a method: those of its separate parts together, by arrival."""
    rows = sorted(
        ((r.arrival_s, r.input_tokens, r.output_tokens) for part in parts for r in published.stream(part)),
        key=lambda row: row[0],
    )
    return published.stream(parts[0]) if len(parts) == 1 else Workload.of(rows, "published streams together")


def serve(plan: Plan, mode: Literal["online", "offline"], requests: Workload, *, seed: int = 0) -> Run:
    """The plan under the published rules and Helix's scheduler; offline by the KV-driven feed the paper gives Helix."""
    from helix_kit.simulator import simulate

    warmup, duration = published.ONLINE_WINDOW_S if mode == "online" else published.OFFLINE_WINDOW_S
    return simulate(
        plan, requests, mode=mode, execution="layerwise", warmup=warmup, duration=duration, seed=seed
    )  # fmt: skip
