"""Our own plans for the published settings, and how they are simulated: published rules, Helix's own load."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from helix_kit.cluster import Cluster
from helix_kit.experiments.figures.common import published
from helix_kit.experiments.machinery.files import load
from helix_kit.model import Model
from helix_kit.workload import Workload

if TYPE_CHECKING:
    from helix_kit.placement.plan import Plan
    from helix_kit.placement.problem import Problem

OWN_PLANS = "own-plans"


@dataclass(frozen=True)
class Setting:
    """A cluster and a model of the evaluation."""

    setup: str
    cluster: str
    model: str

    def problem(self) -> Problem:
        """The placement problem."""
        from helix_kit.placement.problem import Problem

        return Problem.of(Cluster.preset(self.cluster), Model.preset(self.model))


SETTINGS = {
    ("single", "llama-30b"): Setting("single", "single24", "llama-30b"),
    ("single", "llama2-70b"): Setting("single", "single24", "llama2-70b"),
    ("geo", "llama-30b"): Setting("geo", "geo24", "llama-30b"),
    ("geo", "llama2-70b"): Setting("geo", "geo24", "llama2-70b"),
    ("hetero42", "llama2-70b"): Setting("hetero42", "hetero42", "llama2-70b"),
}


def own_plans(setting: Setting, folder: Path) -> dict[str, Plan]:
    """Objective -> our plan, from the results of the experiment ``own-plans``; requests follow the balanced flow."""
    table = load(OWN_PLANS, folder)
    mine = table[(table["setup"] == setting.setup) & (table["model"] == setting.model)]
    mine = mine[mine["objective"] != "published"]
    plans = {}
    for objective, part in mine.groupby("objective", sort=False):
        rows = part.to_dict("records")
        placement = {str(row["node"]): (int(row["start"]), int(row["end"])) for row in rows}
        ease = rows[0].get("ease")
        plans[str(objective)] = own_plan(
            setting, str(objective), placement, json.loads(ease) if isinstance(ease, str) else {}
        )
    return plans


def own_plan(setting: Setting, objective: str, placement: dict[str, tuple[int, int]], ease: dict[str, float]) -> Plan:
    """A plan of ours as the figures simulate it, with a flow that spares kinds as `ease` says."""
    from helix_kit.placement.plan import Plan
    from helix_kit.search.ease import eased_flow

    problem = setting.problem()
    flow = eased_flow(problem, placement, ease)
    return Plan.from_placement(problem, placement, method=f"own {objective}", flow=flow)


def requests_of(parts: tuple[dict[str, Any], ...]) -> Workload:
    """The published requests of a method: those of its separate parts together, by arrival."""
    if len(parts) == 1:
        return published.stream(parts[0])
    rows = ((r.arrival_s, r.input_tokens, r.output_tokens) for part in parts for r in published.stream(part))
    return Workload.of(rows, "published streams together")


def serving(plan: Plan, mode: Literal["online", "offline"], requests: Workload, *, seed: int = 0) -> dict[str, Any]:
    """Arguments of `simulate`: the published rules and Helix's scheduler; offline by the KV-driven feed of Helix."""
    warmup_s, duration_s = published.window_of(mode)
    return {
        "plan": plan, "workload": requests, "mode": mode, "policy": "helix", "execution": "layerwise",
        "warmup_s": warmup_s, "duration_s": duration_s, "seed": seed,
    }  # fmt: skip
