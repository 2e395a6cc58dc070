"""Every method under the same load rules: the comparison that the published loads do not allow.

The paper gives each method a load of its own. Here all serve the requests that Helix was given (LLaMA-2 70B, online),
under two rules: at the same rate for all, and at a rate in proportion to each plan's own max flow, so that all are
loaded to the same share of what they could carry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from helix_kit.experiments.figures.common import published
from helix_kit.experiments.figures.common.settings import OWN_PLANS, SETTINGS, own_plans, requests_of, serving
from helix_kit.experiments.figures.pictures.equal_load import draw_equal_load
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.experiments.figures.common.rows import COLUMNS, metric_rows
from helix_kit.experiments.figures.common.simulated import simulated
from helix_kit.workload import Workload

MODEL = "llama2-70b"
WARMUP_S, DURATION_S = 300.0, 600.0
"""A request takes up to minutes, so the first ones do not count; and at rates above Helix's the 1,800 s of published
requests are used up sooner."""
SAME, OWN_RATE = "same rate", "rate by own max flow"


@dataclass(frozen=True)
class Method:
    """A plan, or one for each part of the cluster, and how it is simulated."""

    name: str
    flow_tokens_per_s: tuple[float, ...]
    calls: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class _Case:
    setup: str
    section: str = "beyond"
    model: str = MODEL
    mode: str = "online"


def methods(setup: str, context: Context) -> Iterator[Method]:
    """Published methods with their plans and schedulers, and our plans with Helix's scheduler."""
    for name in ("helix", "swarm", "separate"):
        run = published.find(setup, MODEL, name, "online")
        flows = tuple(plan.flow_tokens_per_s for plan in run.plans())
        yield Method(name, flows, tuple(run.calls(seed=context.seed)))
    for objective, made in own_plans(SETTINGS[setup, MODEL], context.folder).items():
        call = serving(made, "online", Workload(()), seed=context.seed)
        yield Method(f"own {objective}", (made.flow_tokens_per_s,), (call,))


def dealt(requests: Workload, shares: tuple[float, ...]) -> list[Workload]:
    """The requests dealt out to parts in proportion to `shares`, each to the part that is furthest behind."""
    hands: list[list[tuple[float, int, int]]] = [[] for _ in shares]
    for r in requests:
        behind = min(range(len(shares)), key=lambda i: (len(hands[i]) + 1) / shares[i] if shares[i] > 0 else 1e300)
        hands[behind].append((r.arrival_s, r.input_tokens, r.output_tokens))
    return [Workload.of(hand) for hand in hands]


def faster(requests: Workload, factor: float) -> Workload:
    """The same requests, `factor` times as many a second."""
    return Workload.of((r.arrival_s / factor, r.input_tokens, r.output_tokens) for r in requests)


@experiment(
    "equal-load",
    title="The same load rules for every method",
    paper="Beyond the paper",
    draw=draw_equal_load,
    needs=(OWN_PLANS,),
    minutes=1.5,
    text="LLaMA-2 70B online: the requests that the paper gives Helix, at the same rate for all methods, and at rates "
    "in proportion to each plan's own max flow, so that all are loaded to the same share of what they could carry. The "
    "line over a bar is what is offered between minute 5 and 15; a bar well below it belongs to a plan that falls "
    "behind.",
)
def equal_load(context: Context) -> pd.DataFrame:
    """Metrics by setup and method; sources are the two rules. Offered tokens/s are those of decode."""
    rows = []
    for setup in dict.fromkeys(s for s, model in SETTINGS if model == MODEL):
        requests = requests_of(published.find(setup, MODEL, "helix", "online").parts)
        helix_flow = 0.0
        for method in methods(setup, context):
            total = sum(method.flow_tokens_per_s)
            helix_flow = helix_flow or total
            values = {}
            for rule, factor in ((SAME, 1.0), (OWN_RATE, total / helix_flow)):
                context.say(f"{setup} {method.name}, {rule}")
                given = faster(requests, factor)
                hands = [(c, h) for c, h in zip(method.calls, dealt(given, method.flow_tokens_per_s), strict=True) if h]
                window = {"warmup_s": WARMUP_S, "duration_s": DURATION_S, "feed": None}
                ran = simulated([{**call, **window, "workload": hand} for call, hand in hands], context)
                values[rule] = {"offered_tokens_per_s": _offered(given), **ran.metrics}
            rows += metric_rows(_Case(setup), method.name, values)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _offered(requests: Workload) -> float:
    """Decode tokens/s asked for within the window: every output token but the first of each request."""
    within = [r for r in requests if WARMUP_S <= r.arrival_s <= WARMUP_S + DURATION_S]
    return sum(r.output_tokens - 1 for r in within) / DURATION_S
