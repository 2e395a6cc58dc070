"""Every method under the same load rules, a comparison that the published loads do not allow.

The paper gives each method a load of its own. Here all methods serve the requests that Helix was given (LLaMA-2 70B,
online), under two rules: at the same rate for all, and at a rate in proportion to each plan's own max flow, so that all
are loaded to the same share of the flow that they could carry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from helix_kit.experiments.figures.common.published import published_run
from helix_kit.experiments.figures.common.rows import COLUMNS, Case, metric_rows
from helix_kit.experiments.figures.common.settings import (
    OWN_PLANS,
    SETTINGS,
    helix_simulation,
    joined_requests,
    load_own_plans,
)
from helix_kit.experiments.figures.common.simulated import simulated
from helix_kit.experiments.figures.common.simulation import Simulation
from helix_kit.experiments.figures.pictures.equal_load import draw_equal_load
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.workload import Workload

MODEL = "llama2-70b"
WARMUP_S, DURATION_S = 300.0, 600.0
"""A request takes up to minutes, so those of the first five do not count. A rate above Helix's uses up the 1,800 s of
published requests sooner, so the window ends after fifteen."""
SAME, OWN_RATE = "same rate", "rate by own max flow"


@dataclass(frozen=True)
class Method:
    """A method's plan, or one plan for each separate subcluster, with a simulation of each."""

    name: str
    flow_tokens_per_s: tuple[float, ...]
    simulations: tuple[Simulation, ...]


def methods(setup: str, context: Context) -> Iterator[Method]:
    """Published methods with their plans and schedulers, and our plans with Helix's scheduler."""
    for name in ("helix", "swarm", "separate"):
        run = published_run(setup, MODEL, name, "online")
        flows = tuple(plan.flow_tokens_per_s for plan in run.plans())
        yield Method(name, flows, tuple(run.simulations(seed=context.seed)))
    for objective, plan in load_own_plans(SETTINGS[setup, MODEL], context).items():
        simulation = helix_simulation(plan, "online", Workload(()), seed=context.seed)
        yield Method(f"own {objective}", (plan.flow_tokens_per_s,), (simulation,))


def dealt(requests: Workload, shares: Sequence[float]) -> list[Workload]:
    """The requests dealt out in proportion to `shares`, each to the workload that is furthest behind its share."""
    hands: list[list[tuple[float, int, int]]] = [[] for _ in shares]
    for r in requests:
        behind = min(range(len(shares)), key=lambda i: (len(hands[i]) + 1) / shares[i] if shares[i] > 0 else 1e300)
        hands[behind].append((r.arrival_s, r.input_tokens, r.output_tokens))
    return [Workload.of(hand) for hand in hands]


def faster(requests: Workload, factor: float) -> Workload:
    """The same requests, `factor` times as many in a second."""
    return Workload.of((r.arrival_s / factor, r.input_tokens, r.output_tokens) for r in requests)


@experiment(
    "equal-load",
    title="The same load rules for every method",
    paper="Beyond the paper",
    draw=draw_equal_load,
    needs=(OWN_PLANS,),
    minutes=1.5,
    text="LLaMA-2 70B online: the requests that the paper gives Helix, at the same rate for all methods, and at rates "
    "in proportion to each plan's own max flow, so that all are loaded to the same share of the flow that they could "
    "carry. The line over a bar is the load offered between minute 5 and 15. A plan whose bar is well below the line "
    "falls behind.",
)
def equal_load(context: Context) -> pd.DataFrame:
    """Metrics by setup and method; sources are the two rules. Offered tokens/s are those of decode."""
    rows: list[dict[str, Any]] = []
    for setup in dict.fromkeys(s for s, model in SETTINGS if model == MODEL):
        requests = joined_requests(published_run(setup, MODEL, "helix", "online").subclusters)
        helix_flow = 0.0
        for method in methods(setup, context):
            total = sum(method.flow_tokens_per_s)
            helix_flow = helix_flow or total
            values = {}
            for rule, factor in ((SAME, 1.0), (OWN_RATE, total / helix_flow)):
                context.say(f"{setup} {method.name}, {rule}")
                offered = faster(requests, factor)
                outcome = simulated(_loaded(method, offered), context)
                values[rule] = {"offered_tokens_per_s": _offered_tokens_per_s(offered), **outcome.metrics}
            rows += metric_rows(Case("beyond", setup, MODEL, "online"), method.name, values)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _loaded(method: Method, requests: Workload) -> list[Simulation]:
    """The method's simulations with the requests dealt out to them; a subcluster without requests is left out."""
    return [
        replace(simulation, workload=hand, warmup_s=WARMUP_S, duration_s=DURATION_S, feed=None)
        for simulation, hand in zip(method.simulations, dealt(requests, method.flow_tokens_per_s), strict=True)
        if hand
    ]


def _offered_tokens_per_s(requests: Workload) -> float:
    """Decode tokens/s requested within the window: every output token of a request but the first."""
    within = [r for r in requests if WARMUP_S <= r.arrival_s <= WARMUP_S + DURATION_S]
    return sum(r.output_tokens - 1 for r in within) / DURATION_S
