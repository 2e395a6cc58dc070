"""Plans for engines that serve replicas: sets of chains, each simulated by the engine's rules.

The integer program of `helix_kit.placement.replicas` is solved once for each largest number of stages, since T(k) knows
neither the time on links nor how many requests a workload has in flight: short chains answer sooner, long ones have
more KV cache. The simulated engine chooses among the sets.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from helix_kit._wording import agreeing, count_text
from helix_kit.errors import InfeasibleError
from helix_kit.placement.idle import idle_notes
from helix_kit.placement.method import PlanOptions
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.placement.replicas import best_replicas
from helix_kit.placement.served import Served
from helix_kit.placement.watch import Watch
from helix_kit.search.candidate import Candidate, LatencyLimits, Trial, value_of
from helix_kit.search.evaluate import simulated
from helix_kit.search.limit_notes import limit_notes
from helix_kit.search.moves import key_of
from helix_kit.search.options import ServedOptions
from helix_kit.workload.lengths import LengthPairs

WINDOW_S, WARMUP_S = 120.0, 60.0
"""Simulated seconds over which sets are compared, and before: the KV caches fill within seconds."""
MAX_TOKENS = 4e6
"""The window is shorter where a cluster serves more than this in it."""


def plan_replicas(
    problem: Problem,
    options: PlanOptions,
    served: ServedOptions,
    *,
    watch: Watch | None = None,
    lengths: LengthPairs = (),
) -> Plan:
    """The set of chains that serves the most, or answers soonest where requests arrive at a rate.

    Parameters
    ----------
    problem
        Cluster, model, and an engine of replicas.
    options
        `max_stages`, the time limit and the seed count.
    served
        Traffic, limits and window.
    watch
        The clock; None: one with the time limit of `options`.
    lengths
        Pairs (input tokens, output tokens) to simulate with; empty: the conversation trace's.

    Returns
    -------
    Plan
        Its `served` holds what was simulated.

    Raises
    ------
    InfeasibleError
        No chain of nodes holds the model.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.profiles.engines import load_engine
    >>> cluster = Cluster.model_validate({"name": "two", "nodes": [{"gpu": "H100-80G", "count": 2}]})
    >>> problem = Problem.of(cluster, Model.preset("llama-30b"), engine=load_engine("vllm-0.15"))
    >>> plan_replicas(problem, PlanOptions(), ServedOptions(window_s=10.0)).served.stages       # doctest: +SKIP
    1
    """
    watch = watch or Watch(options.time_limit_s)
    limits = LatencyLimits(served.latency_limit_s, served.prompt_latency_limit_s)
    candidates: dict[object, Candidate] = {}
    for stages in range(1, (options.max_stages or len(problem.cluster.nodes)) + 1):
        placed = best_replicas(problem, max_stages=stages)
        if placed is None:
            continue
        key = key_of(placed.placement)
        if key in candidates:
            if stages > max(c.depth for c in candidates.values()) + 2:
                break  # Two more stages have not helped.
            continue
        flow = problem.max_flow(placed.placement, links=placed.links, split=options.flow_split)
        candidates[key] = Candidate(placed.placement, flow, flow.tokens_per_s)
    if not candidates:
        raise InfeasibleError(
            f"no chain of nodes in cluster {problem.cluster.name} can hold {problem.model.name}",
            fix="more or larger GPUs, or a smaller model",
        )
    best_flow = max(c.flow.tokens_per_s for c in candidates.values())
    window_s = served.window_s or max(20.0, min(WINDOW_S, MAX_TOKENS / best_flow))
    trial = Trial(served.mode, "range", served.rate_per_s, duration_s=window_s, warmup_s=WARMUP_S, seed=options.seed)
    scored: list[tuple[float, Candidate]] = []
    for candidate in sorted(candidates.values(), key=lambda c: -c.flow.tokens_per_s)[: served.max_simulations]:
        if scored and watch.is_over():
            break
        score = simulated(problem, candidate, trial, lengths)
        value = value_of(score, limits, online=served.mode == "online")
        scored.append((value, replace(candidate, score=score, value=value)))
        watch.report(value=score.decode_tokens_per_s, message="simulated", placement=candidate.placement)
    _, chosen = max(scored, key=lambda entry: (entry[0], -entry[1].depth))
    assert chosen.score is not None, "it was simulated"
    measured: dict[str, Any] = chosen.score.to_dict()
    return Plan.from_placement(
        problem,
        dict(chosen.placement),
        flow=chosen.flow,
        method="replicas",
        objective="served",
        seconds=watch.seconds,
        seed=options.seed,
        flow_split=options.flow_split,
        served=Served(
            **measured,
            mode=trial.mode,
            execution=trial.execution,
            duration_s=trial.duration_s,
            warmup_s=trial.warmup_s,
            seeds=(trial.seed,),
            simulations=len(scored),
            stages=chosen.depth,
            max_flow_tokens_per_s=best_flow,
        ),
        notes=(
            f"{count_text(len(scored), 'set of replicas', 'sets of replicas')} "
            f"{agreeing(len(scored), 'was', 'were')} simulated by the rules of engine {_name(problem)}",
            *limit_notes(chosen, [c for _, c in scored], limits),
            *idle_notes(problem, chosen.flow, otherwise="no set of replicas with {them} was found that serves more"),
        ),
    )


def _name(problem: Problem) -> str:
    assert problem.engine is not None, "only problems with an engine come here"
    return problem.engine.name


__all__ = ["plan_replicas"]
