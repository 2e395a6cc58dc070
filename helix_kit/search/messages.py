"""What the search and its worker processes send each other: one line of JSON each.

The first line to a worker is the header: the problem and the requirements. Each further line is a task, and the worker
answers it with one line: the candidates that resulted. JSON keeps every float exactly, so a worker's answer equals what
this process would have computed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from helix_kit.flow import Flow, Placement
from helix_kit.metrics import SLO
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.search.candidate import Candidate, LatencyLimits, Requirements, Trial
from helix_kit.search.evaluate import Evaluator, Exploration, never
from helix_kit.simulator.scoring import Score


@dataclass(frozen=True)
class Simulate:
    """The task of simulating one candidate."""

    candidate: Candidate
    trial: Trial

    def run(self, evaluator: Evaluator, stop: Callable[[], bool] = never) -> list[Candidate]:
        """The candidate with its score."""
        return [] if stop() else [evaluator.simulate(self.candidate, self.trial)]

    def to_json(self) -> str:
        """The task as a line for a worker."""
        return json.dumps({"simulate": {"candidate": candidate_data(self.candidate), "trial": asdict(self.trial)}})


@dataclass(frozen=True)
class Explore:
    """The task of one step of local search; see `Evaluator.explore`."""

    step: Exploration
    trial: Trial
    known: Collection[str]

    def run(self, evaluator: Evaluator, stop: Callable[[], bool] = never) -> list[Candidate]:
        """The neighbours that were simulated."""
        return evaluator.explore(self.step, self.trial, self.known, stop)

    def to_json(self) -> str:
        """The task as a line for a worker."""
        return json.dumps(
            {"explore": {"step": asdict(self.step), "trial": asdict(self.trial), "known": sorted(self.known)}}
        )


@dataclass(frozen=True)
class Polish:
    """The task of improving one placement by predictions alone; see `Evaluator.polish`."""

    parent: Placement
    seed: int
    rounds: int
    deadline_s: float
    """When to end, in seconds of `time.monotonic`, which is the same clock in all processes of a machine."""

    def run(self, evaluator: Evaluator, stop: Callable[[], bool] = never) -> list[Candidate]:
        """The two placements that are predicted best."""

        def is_over() -> bool:
            return time.monotonic() >= self.deadline_s or stop()

        return evaluator.polish(self.parent, seed=self.seed, rounds=self.rounds, should_stop=is_over)

    def to_json(self) -> str:
        """The task as a line for a worker."""
        return json.dumps({"polish": asdict(self)})


Task = Simulate | Explore | Polish


def task_of(line: str) -> Task:
    """The task that a line describes."""
    ((kind, data),) = json.loads(line).items()
    if kind == "simulate":
        return Simulate(candidate_of(data["candidate"]), trial_of(data["trial"]))
    if kind == "explore":
        read = {"parent": layout_of(data["step"]["parent"]), "correction": tuple(data["step"]["correction"])}
        step = Exploration(**{**data["step"], **read})
        return Explore(step, trial_of(data["trial"]), frozenset(data["known"]))
    return Polish(**{**data, "parent": layout_of(data["parent"])})


def trial_of(data: Mapping[str, Any]) -> Trial:
    """The trial that JSON describes."""
    return Trial(**{**data, "slo": slo_of(data["slo"])})


def slo_of(data: Mapping[str, Any] | None) -> SLO | None:
    """The SLO that JSON describes."""
    return None if data is None else SLO(**data)


def header_line(problem: Problem, requirements: Requirements) -> str:
    """The first line to a worker."""
    # A plan carries cluster, model and profiles: any plan of the problem describes it.
    node = next(n.name for n in problem.cluster.nodes if problem.max_layers(n.name) > 0)
    plan = Plan.from_placement(
        problem, {node: (0, 1)}, method="none", flow=Flow(0.0, {}, {}, ()), bound_tokens_per_s=0.0
    ).model_copy(update={"gap": 0.0})
    return json.dumps({"plan": plan.model_dump(mode="json"), "requirements": asdict(requirements)})


def evaluator_of(header: str) -> Evaluator:
    """The evaluator of the problem and the requirements in a worker's first line."""
    data = json.loads(header)
    required = data["requirements"]
    requirements = Requirements(
        **{
            **required,
            "pins": layout_of(required["pins"]),
            "limits": LatencyLimits(**required["limits"]),
            "lengths": tuple((i, o) for i, o in required["lengths"]),
            "slo": slo_of(required["slo"]),
        }
    )
    return Evaluator(Plan.model_validate(data["plan"]).problem, requirements)


def answer_line(candidates: Sequence[Candidate]) -> str:
    """A worker's answer."""
    return json.dumps([candidate_data(c) for c in candidates])


def answer_of(line: str) -> list[Candidate]:
    """The candidates in a worker's answer."""
    return [candidate_of(data) for data in json.loads(line)]


def candidate_data(candidate: Candidate) -> dict[str, Any]:
    """A candidate as JSON data, without the capacities and the min cut of its flow."""
    return {
        "placement": candidate.placement,
        "tokens_per_s": candidate.flow.tokens_per_s,
        "edges": [[a, b, f] for (a, b), f in candidate.flow.edges.items()],
        "predicted_value": candidate.predicted_value,
        "score": candidate.score.to_dict() if candidate.score else None,
        "value": candidate.value,
        "shares": candidate.shares,
    }


def candidate_of(data: Mapping[str, Any]) -> Candidate:
    """The candidate that `candidate_data` described."""
    return Candidate(
        layout_of(data["placement"]),
        Flow(data["tokens_per_s"], {(a, b): f for a, b, f in data["edges"]}, {}, ()),
        data["predicted_value"],
        Score(**data["score"]) if data["score"] else None,
        data["value"],
        data["shares"],
    )


def layout_of(data: Mapping[str, Sequence[int]]) -> Placement:
    """A placement whose layer ranges JSON turned into lists."""
    return {node: (start, end) for node, (start, end) in data.items()}
