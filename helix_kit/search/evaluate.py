"""Candidates and what is done to them: flow and prediction, simulation, and one step of local search.

All of it depends on its arguments alone, so that it may run in any process and give the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from helix_kit.flow import Flow, longest_path
from helix_kit.placement.problem import Problem
from helix_kit.search.ease import Ease, eased_flow, nudged, plain
from helix_kit.search.moves import MOVES, MOVES_OF_ANY, Layout, key_of, neighbours
from helix_kit.search.predictor import Predictor

NEIGHBOURS = 30
POLISH_WIDTH = 4
STEEPNESS = 4
"""How a latency above its limit is marked down: by this power of limit / latency."""
SLACK = 1.15
"""Latency limits are this much wider for predictions: hetero42's prompt latencies are predicted a tenth too long."""
EASED = 0.25
"""How many of the neighbours differ in which kinds the flow spares."""
ADVENTUROUS = 0.3
"""How often a step simulates something that the predictor does not like: it has its own errors."""


@dataclass(frozen=True)
class Setting:
    """What a candidate is simulated under."""

    mode: str = "offline"
    execution: str = "layerwise"
    rate: float | None = None
    """Requests/s of online mode."""
    duration: float = 600.0
    warmup: float = 60.0
    seed: int = 0
    at_least: tuple[float, float] | None = None
    """Tokens/s at a quarter and half of the window below which a simulation ends early; see `score`."""


@dataclass(frozen=True)
class Rules:
    """What every candidate must keep to."""

    flow_split: Literal["balanced", "any"] = "balanced"
    partial_inference: bool = True
    pins: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Node -> layer range that it must hold."""
    max_stages: int | None = None
    """Most nodes that a request may pass."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Mean latencies by their names in what is served: above them a plan is worth less."""
    rate: float | None = None
    """Requests/s of online mode."""


@dataclass
class Candidate:
    """A placement with its flow, what the predictor says and what the simulator measured."""

    placement: Layout
    flow: Flow
    predicted: float
    """Decode tokens/s, as `worth` counts them."""
    served: dict[str, float] | None = None
    value: float = 0.0
    """What is maximised, from `served`."""
    ease: Ease = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Most nodes that a request passes."""
        return longest_path(self.flow, self.placement)


def worth(served: Mapping[str, float], limits: Mapping[str, float], *, online: bool) -> float:
    """What the search maximises: decode tokens/s, marked down for each mean latency above its limit.

    Online, where throughput is what is offered, a plan is better for answering sooner: of a prompt's latency a
    twentieth counts, since it is paid once.
    """
    value = served["decode_tokens_per_s"]
    for name, limit in limits.items():
        if served[name] > limit:
            value *= (limit / served[name]) ** STEEPNESS
    if online:
        value /= 1 + served["decode_latency_s"] + served["prompt_latency_s"] / 20
    return value


class Evaluator:
    """Makes, simulates and varies candidates of one problem under given rules."""

    def __init__(self, problem: Problem, rules: Rules) -> None:
        self.problem, self.rules = problem, rules
        self.predictor = Predictor(problem)

    @property
    def may_ease(self) -> bool:
        """Whether flows may spare kinds of machine: where the split is any, they are the maximum as it is met."""
        return self.rules.flow_split == "balanced" and len(set(self.problem.kind_of.values())) > 1

    def shape(self, placement: Layout) -> list[Any]:
        """The same for placements that differ in which of two equal machines stands where."""
        kinds, region = self.problem.kind_of, self.problem.cluster.region_of
        return sorted((kinds[n], region(n), span) for n, span in placement.items())

    def identity(self, placement: Layout, ease: Ease | None = None) -> str:
        """The same for placements that serve the same: those of one shape.

        Without a balanced split the order of equal machines decides which of them idle, so there every placement is
        its own.
        """
        rows = list(key_of(placement)) if self.rules.flow_split == "any" else self.shape(placement)
        rows += sorted((ease or {}).items())
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]

    def candidate(self, placement: Layout, ease: Ease | None = None) -> Candidate | None:
        """The placement with flow and prediction; None when it carries nothing or breaks a rule."""
        rules = self.rules
        if any(placement.get(n) != span for n, span in rules.pins.items()):
            return None
        partial = rules.partial_inference
        if rules.flow_split == "any":
            flow = self.problem.max_flow(placement, partial_inference=partial)
        else:
            flow = eased_flow(self.problem, placement, ease or {}, partial_inference=partial)
        if flow.tokens_per_s <= 0:
            return None
        expected = asdict(self.predictor(placement, flow, rules.rate))
        limits = {name: SLACK * limit for name, limit in rules.limits.items()}
        made = Candidate(placement, flow, worth(expected, limits, online=rules.rate is not None), ease=ease or {})
        return made if rules.max_stages is None or made.depth <= rules.max_stages else None

    def simulate(self, candidate: Candidate, setting: Setting) -> Candidate:
        """The candidate with what it serves."""
        served = score_one(self.problem, (candidate.placement, candidate.flow), setting)
        return replace(candidate, served=served)

    def explore(self, parent: Layout, setting: Setting, *, seed: int, known: Collection[str], picks: int,
                ease: Ease | None = None, stop: Callable[[], bool] = lambda: False) -> list[Candidate]:  # fmt: skip
        """A step of local search: of the placements near `parent`, the `picks` that the predictor likes, simulated.

        `known` are identities that have been simulated before.
        """
        rng = np.random.default_rng(seed)
        fresh: dict[str, Candidate] = {}
        free = self.rules.flow_split == "any"
        moves, count = (MOVES_OF_ANY, 2 * NEIGHBOURS) if free else (MOVES, NEIGHBOURS)
        for near in neighbours(self.problem, parent, rng, count, moves):
            if stop():
                break
            placement, share = near, dict(ease or {})
            if self.may_ease and rng.random() < EASED:
                share = nudged(self.problem, parent, share, rng)
                placement = parent if rng.random() < 0.5 else near
            share = plain(self.problem, placement, share)
            name = self.identity(placement, share)
            made = None if name in known or name in fresh else self.candidate(placement, share)
            if made is not None:
                fresh[name] = made
        ranked = by_prediction(list(fresh.values()))
        chosen = ranked[:picks]
        if len(ranked) > picks and rng.random() < ADVENTUROUS:
            chosen[-1] = ranked[int(rng.integers(picks, len(ranked)))]
        return [self.simulate(c, setting) for c in chosen if not stop()]

    def polish(
        self, parent: Layout, *, seed: int, rounds: int, over: Callable[[], bool] = lambda: False
    ) -> list[Candidate]:
        """The best two found from `parent` by the predictor alone, without a simulation.

        For flows that nobody balances: which machine stands where decides how evenly they fall, and a thousand such
        plans are compared in the time of a few simulations. `over` is asked each round.
        """
        rng = np.random.default_rng(seed)
        start = self.candidate(parent)
        best = [start] if start else []
        for _ in range(rounds if best else 0):
            if over():
                break
            near = best[int(rng.integers(len(best)))].placement
            made = (self.candidate(p) for p in neighbours(self.problem, near, rng, NEIGHBOURS, MOVES_OF_ANY))
            # Of placements that are as good as each other one is kept.
            by_value = {round(c.predicted, 6): c for c in (*(m for m in made if m is not None), *best)}
            best = by_prediction(list(by_value.values()))[:POLISH_WIDTH]
        return best[:2]


def by_prediction(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Best predicted first."""
    return sorted(candidates, key=lambda c: (-c.predicted, key_of(c.placement)))


def score_one(problem: Problem, candidate: tuple[Layout, Flow], setting: Setting) -> dict[str, float]:
    """Simulate one candidate here: decode_tokens_per_s, prompt_latency_s, decode_latency_s (means)."""
    from helix_kit.simulator import score
    from helix_kit.workload import Workload

    workload = None
    if setting.mode == "online":
        until = setting.warmup + setting.duration
        workload = Workload.azure_conversation(rate_per_s=setting.rate or 1.0, duration_s=until, seed=setting.seed)
    found = score(
        (problem, *candidate),
        workload,
        mode=setting.mode,  # type: ignore[arg-type]
        execution=setting.execution,  # type: ignore[arg-type]
        duration_s=setting.duration,
        warmup_s=setting.warmup,
        seed=setting.seed,
        at_least=setting.at_least,
    )
    return found.to_dict()
