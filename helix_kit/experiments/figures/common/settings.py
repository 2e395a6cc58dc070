"""The clusters and models of the evaluation, our own plans for them, and how these are simulated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from helix_kit.cluster import Cluster
from helix_kit.experiments.figures.common.published import Subcluster, measurement_window_s
from helix_kit.experiments.figures.common.served_plans import served_plan
from helix_kit.experiments.figures.common.simulation import Mode, Simulation
from helix_kit.experiments.machinery.files import load
from helix_kit.experiments.machinery.registry import Context, registered
from helix_kit.model import Model
from helix_kit.workload import Workload

if TYPE_CHECKING:
    from helix_kit.flow import Placement
    from helix_kit.placement.plan import Plan
    from helix_kit.placement.problem import Problem

DATA = ("clusters", "models", "profiles", "gpus.csv", "gpu_links.csv", "published")
"""What figures of the published clusters depend on, in the data folder."""
OWN_PLANS = "own-plans"
"""The experiment whose table holds our own plans."""


@dataclass(frozen=True)
class Setting:
    """A cluster and a model of the evaluation."""

    setup: str
    """The cluster's name in the published results."""
    cluster: str
    """The cluster's preset."""
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


OBJECTIVES = ("flow", "served")
"""What our own plans are made for: the largest flow, or the most served."""


def load_own_plans(setting: Setting, context: Context, objectives: Sequence[str] = OBJECTIVES) -> dict[str, Plan]:
    """Objective -> our plan: for the largest flow from the results of ``own-plans``, for the most served as stored.

    A fast run does without these results: it makes the plans of this setting alone, unless it has made them before.
    """
    if context.fast:
        part = registered()[OWN_PLANS].part
        assert part is not None
        alone = replace(context, measured={})  # The seconds of the search are no measurement of the figure.
        return plans_in(pd.concat([part(alone, setting, objective) for objective in objectives]), setting, objectives)
    plans = plans_in(load(OWN_PLANS, context.folder), setting, objectives)
    return {o: stored_served_plan(setting) if o == "served" else plan for o, plan in plans.items()}


def stored_served_plan(setting: Setting) -> Plan:
    """The plan of a setting that serves most offline, as it is stored: its search takes minutes to a quarter hour."""
    return served_plan("offline", setting.cluster, setting.model)


def plans_in(table: pd.DataFrame, setting: Setting, objectives: Sequence[str]) -> dict[str, Plan]:
    """Objective -> our plan for a setting, from rows of the experiment ``own-plans``."""
    ours = table[(table["setup"] == setting.setup) & (table["model"] == setting.model)]
    ours = ours[ours["objective"].isin(objectives)]
    plans = {}
    for objective, nodes in ours.groupby("objective", sort=False):
        rows = nodes.to_dict("records")
        placement = {str(row["node"]): (int(row["start"]), int(row["end"])) for row in rows}
        ease = rows[0].get("ease")
        shares = json.loads(ease) if isinstance(ease, str) else {}
        plans[str(objective)] = own_plan(setting, str(objective), placement, shares)
    return plans


def own_plan(setting: Setting, objective: str, placement: Placement, ease: Mapping[str, float]) -> Plan:
    """A plan of ours as the figures simulate it: requests follow the balanced flow, with kinds spared as in `ease`."""
    from helix_kit.placement.plan import Plan
    from helix_kit.search.capacity_shares import flow_with_shares

    problem = setting.problem()
    flow = flow_with_shares(problem, placement, ease)
    return Plan.from_placement(problem, dict(placement), method=f"own {objective}", flow=flow)


def joined_requests(subclusters: Sequence[Subcluster]) -> Workload:
    """The published requests of all subclusters of a method together, by arrival."""
    if len(subclusters) == 1:
        return subclusters[0].requests()
    requests = (r for subcluster in subclusters for r in subcluster.requests())
    return Workload.of(((r.arrival_s, r.input_tokens, r.output_tokens) for r in requests), "published streams together")


def helix_simulation(plan: Plan, mode: Mode, requests: Workload, *, seed: int = 0) -> Simulation:
    """A simulation of `plan` by the published rules, over the published window, with Helix's scheduler."""
    warmup_s, duration_s = measurement_window_s(mode)
    return Simulation(plan, requests, mode, warmup_s, duration_s, seed=seed)
