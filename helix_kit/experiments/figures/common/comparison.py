"""A plan of ours beside the published Helix plan: what placement, links and the split of the flow each gain.

Between the published plan and ours three things differ: the placement, the links that requests may take (the published
programs drop links, and use those of their solution), and how the scheduler splits requests over them (the published
program takes the maximum flow that networkx finds, ours the balanced one). `variants` changes one after the other.

Everything is measured on the request streams that the published sampler draws with six seeds. Searches draw their
requests from another sampler, so no plan was chosen on a stream that is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from helix_kit.experiments.figures.common.metrics import PHASES, SPEED, latency_name, metrics_of
from helix_kit.experiments.figures.common.published import STREAM_SEEDS, offline_requests, published_run
from helix_kit.experiments.figures.common.settings import Setting, helix_simulation
from helix_kit.experiments.figures.common.simulation import Execution, Simulation, run_together
from helix_kit.flow import Flow, Placement
from helix_kit.placement.plan import Plan

Variant = Literal["published", "our split", "fair base", "ours", "ours, first split"]
LABELS: dict[Variant, str] = {
    "published": "published placement, links and split",
    "our split": "published placement and links, our split",
    "fair base": "published placement, all links, our split",
    "ours": "our placement, all links, our split",
    "ours, first split": "our placement under the published scheduler",
}
Measure = Callable[[Sequence[Simulation]], Mapping[str, float]]
"""Simulates a plan, or the separate subclusters of one, and gives its metrics by their published names."""


@dataclass(frozen=True)
class Means:
    """Means over request streams of what a plan serves."""

    decode_tokens_per_s: float
    first_stream_tokens_per_s: float
    """Decode tokens/s on the published stream alone."""
    latency_s: dict[str, float]
    """Phase (``prompt`` or ``decode``) -> mean latency in s."""
    p95_s: dict[str, float]
    """Phase -> 95th percentile of the latency in s."""

    @classmethod
    def of(cls, runs: Sequence[Mapping[str, float]]) -> Means:
        """From the metrics of one run a stream, the published stream first."""

        def mean(metric: str) -> float:
            return float(np.mean([run[metric] for run in runs]))

        return cls(
            mean(SPEED),
            runs[0][SPEED],
            {phase: mean(latency_name(phase, "avg")) for phase in PHASES},
            {phase: mean(latency_name(phase, "p95")) for phase in PHASES},
        )

    def missed(self, base: Means) -> list[str]:
        """The phases whose mean latency is above that of `base`, in words with both numbers."""
        return [
            f"{phase}: {self.latency_s[phase]:.2f} s beside {base.latency_s[phase]:.2f} s"
            for phase in PHASES
            if self.latency_s[phase] > base.latency_s[phase]
        ]


def measure(simulations: Sequence[Simulation]) -> dict[str, float]:
    """The metrics of a run, simulated in this process."""
    return metrics_of(run_together(list(simulations)))


def variants(
    setting: Setting, plan: Plan, *, execution: Execution = "layerwise"
) -> dict[Variant, tuple[Simulation, ...]]:
    """What is compared, each on the published stream: the steps from the published Helix plan to `plan`.

    The published 30B plans are separate clusters with a scheduler each, and stay so as long as their links are theirs.
    """
    published = published_simulations(setting, execution)
    problem, split = setting.problem(), plan.flow_split
    placement = {node: span for one in published for node, span in one.plan.placement.items()}
    steps: dict[Variant, tuple[Simulation, ...]] = {"published": published}
    if split == "balanced":
        steps["our split"] = tuple(_with_our_split(one) for one in published)
    steps["fair base"] = (_ours(setting, placement, problem.max_flow(placement, split=split), execution),)
    steps["ours"] = (replace(helix_simulation(plan, "offline", offline_requests()), execution=execution),)
    if split == "balanced":
        first = problem.max_flow(plan.placement, split="any")
        steps["ours, first split"] = (_ours(setting, plan.placement, first, execution),)
    return steps


def published_simulations(setting: Setting, execution: Execution = "layerwise") -> tuple[Simulation, ...]:
    """The published Helix plan offline, one simulation for each of its subclusters."""
    run = published_run(setting.setup, setting.model, "helix", "offline")
    return tuple(run.simulations(execution=execution))


def paper_tokens_per_s(setting: Setting) -> float:
    """The throughput that the paper's simulation has for the published Helix plan offline."""
    return published_run(setting.setup, setting.model, "helix", "offline").values("simulation")[SPEED]


def means_of(simulations: Sequence[Simulation], run: Measure = measure, seeds: Sequence[int] = STREAM_SEEDS) -> Means:
    """Means over the streams of `seeds`, each simulated by `run`."""
    return Means.of([run(on_stream(simulations, seed)) for seed in seeds])


def on_stream(simulations: Sequence[Simulation], seed: int) -> list[Simulation]:
    """The same simulations with the requests that the published sampler draws with `seed`."""
    return [replace(simulation, workload=offline_requests(seed)) for simulation in simulations]


def _with_our_split(simulation: Simulation) -> Simulation:
    """A published simulation in which the flow over its own links is the balanced one."""
    plan = simulation.plan
    flow = plan.problem.max_flow(plan.placement, links=list(simulation.links or ()), split="balanced")
    ours = Plan.from_placement(plan.problem, plan.placement, method="published, our split", flow=flow)
    return replace(simulation, plan=ours, links=tuple(flow.edges))


def _ours(setting: Setting, placement: Placement, flow: Flow, execution: Execution) -> Simulation:
    plan = Plan.from_placement(setting.problem(), dict(placement), method="compared", flow=flow)
    return replace(helix_simulation(plan, "offline", offline_requests()), execution=execution)
