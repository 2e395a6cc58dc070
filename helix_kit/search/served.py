"""Plans for objective ``served``: the plan that serves most in the simulator, found within a time limit."""

from __future__ import annotations

import os
from dataclasses import replace

from helix_kit.errors import InputError
from helix_kit.placement.baselines import petals_placement
from helix_kit.placement.idle import idle_notes
from helix_kit.placement.method import PlanOptions
from helix_kit.placement.pattern.pins import check_pins
from helix_kit.placement.plan import Plan
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem
from helix_kit.placement.served import Served
from helix_kit.placement.watch import Watch
from helix_kit.search import front
from helix_kit.search.candidate import Candidate, LatencyLimits, Requirements, Trial, excess
from helix_kit.search.capacity_shares import share_notes
from helix_kit.search.evaluate import Evaluator
from helix_kit.search.finals import FINAL_REQUESTS_FACTOR, Decision
from helix_kit.search.goodput_search import GoodputSearch, best_of, check_holds, goodput_notes, served_fields, under_slo
from helix_kit.search.limit_notes import limit_notes
from helix_kit.search.messages import Simulate
from helix_kit.search.moves import key_of
from helix_kit.search.options import ParetoPick, ServedOptions
from helix_kit.search.phases import POOL_SHARE, REQUESTS, WINDOW_S, Search
from helix_kit.search.scorer import Scorer
from helix_kit.search.steady_finals import STATED_SHARE, final_share, stated
from helix_kit.workload.lengths import LengthPairs

FLOW_SHARE, SCREEN_SHARE, FINAL_SHARE = 0.1, 0.25, 0.2
"""Shares of the time limit: for the proven maximum flow, for the first simulations, and for the last comparison."""

FLOW_PATIENCE_S = 3.0
"""The search for the maximum flow ends after this many seconds without a better one: simulations need the time more."""
WARMUP_S = {"layerwise": 60.0, "range": 120.0}
"""Simulated seconds before the window by the rules of the nodes. By the runtime's rules a backlog begins with a minute
of prompts, which would count against the plans whose KV caches hold most requests."""


def plan_served(
    problem: Problem,
    options: PlanOptions,
    served: ServedOptions,
    *,
    watch: Watch | None = None,
    lengths: LengthPairs = (),
) -> Plan:
    """The plan that serves most in the simulator, of those found within the time limit.

    Placements of many shapes, each with its balanced maximum flow, are ranked by a cheap prediction. The best are
    simulated, and local search goes on from them; the simulator decides which placements are kept. At the end the best
    are compared on request streams that the search has not used.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    options
        Options of every plan: solver, time limit, seed, flow split, partial inference, pins and depth cap.
    served
        Options of this objective: traffic, latency limits, and when the search ends.
    watch
        The clock, which also reports progress and stops the search; None: a clock with the time limit of `options`.
    lengths
        Pairs (input tokens, output tokens) of the requests to simulate with; empty: the conversation trace's.

    Returns
    -------
    Plan
        Its `served` holds what was simulated, the Pareto front, and the proven maximum flow. Its bound and gap are
        those of the flow: what is served has no proven bound.

    Raises
    ------
    InputError
        For pins of unknown nodes or ranges.
    InfeasibleError
        When no placement carries any flow under the pins and the depth cap.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> cluster = Cluster.model_validate({"name": "four", "nodes": [{"gpu": "A100-80G", "count": 4}]})
    >>> problem = Problem.of(cluster, Model.preset("llama-30b"))
    >>> options = PlanOptions(time_limit_s=20.0)
    >>> plan = plan_served(problem, options, ServedOptions(max_simulations=2, window_s=20.0))  # doctest: +SKIP
    >>> plan.served.decode_tokens_per_s > 0                                                    # doctest: +SKIP
    True
    """
    watch = watch or Watch(options.time_limit_s, counted=options.deterministic)
    limits = LatencyLimits(served.latency_limit_s, served.prompt_latency_limit_s)
    requirements = Requirements(
        options.flow_split,
        options.partial_inference,
        check_pins(problem, options.pins or {}),
        options.max_stages,
        limits,
        served.rate_per_s,
        lengths,
        served.slo,
    )
    trial = Trial(
        served.mode, served.execution, served.rate_per_s,
        duration_s=served.window_s or WINDOW_S, warmup_s=WARMUP_S[served.execution], seed=options.seed,
        requests=REQUESTS if served.is_steady else None, slo=served.slo,
    )  # fmt: skip
    limit_s = watch.time_limit_s
    jobs = served.jobs or max(1, min(2, os.cpu_count() or 1))
    if served.start is not None:
        _check_start(problem, served.start)
    with Scorer(Evaluator(problem, requirements), jobs) as scorer:
        scorer.begin(_first_runs(scorer, trial))
        # The maximum flow is proven within seconds, and its plan is among the placements that the search starts from.
        max_flow_plan = plan_problem(
            problem, solver=options.solver, seed=options.seed, time_limit_s=max(1.0, limit_s * FLOW_SHARE),
            stop=watch.stopped, partial_inference=options.partial_inference, pins=requirements.pins or None,
            patience_s=FLOW_PATIENCE_S,
            max_stages=options.max_stages, deterministic=watch.is_counted,
        )  # fmt: skip
        watch.spend(max_flow_plan.seconds)
        watch.report(
            value=max_flow_plan.flow_tokens_per_s, bound=max_flow_plan.bound_tokens_per_s, message="the maximum flow",
            placement=max_flow_plan.placement,
        )  # fmt: skip
        if served.slo is None:
            search = Search(scorer, watch, served, trial, options.solver)
        else:
            trial = under_slo(trial, served.window_s, scorer.evaluator, max_flow_plan)
            search = GoodputSearch(scorer, watch, served, trial, options.solver)
        search.screen([max_flow_plan.placement], limit_s * (FLOW_SHARE + POOL_SHARE + SCREEN_SHARE))
        end_share = FINAL_SHARE if not search.is_steady else STATED_SHARE + final_share(search, FINAL_SHARE)
        search.improve(limit_s * (1 - end_share))
        decision = search.decide()
        if served.slo is None:
            chosen, seeds = stated(search, _chosen(decision, served.pareto_pick, limits), decision)
        else:
            chosen, seeds = best_of(decision.measured), decision.seeds
            check_holds(chosen, problem, trial)
    return Plan.from_placement(
        problem,
        dict(chosen.placement),
        flow=chosen.flow,
        method="search",
        objective="served" if served.slo is None else "goodput",
        solver=options.solver,
        bound_tokens_per_s=max(max_flow_plan.bound_tokens_per_s, chosen.flow.tokens_per_s),
        bounds=max_flow_plan.bounds,
        seconds=watch.seconds,
        seed=options.seed,
        flow_split=options.flow_split,
        partial_inference=options.partial_inference,
        progress=tuple(watch.history),
        served=_record(search, decision, (chosen, seeds), max_flow_plan),
        notes=(*_notes(chosen, search, limits), *idle_notes(problem, chosen.flow, _judged_by(chosen, search, limits))),
    )


def _check_start(problem: Problem, start: Plan) -> None:
    """Raise InputError for a plan of other machines or another model."""
    known = {n.name for n in problem.cluster.nodes}
    if start.model.num_layers != problem.num_layers or not known.issuperset(start.placement):
        expected = f"expected a plan for {problem.model.name} on {problem.cluster.name}"
        raise InputError(expected, field="start", value=f"{start.model.name} on {start.cluster.name}")


def _first_runs(scorer: Scorer, trial: Trial) -> list[Simulate]:
    """A short run for each worker, with which it loads the simulator."""
    evaluator = scorer.evaluator
    candidate = evaluator.candidate(petals_placement(evaluator.problem)) if scorer.jobs > 1 else None
    if candidate is None:
        return []
    short = replace(
        trial, requests=trial.requests and 1, warmup_lives=0.0, lives=0.0, warmup_s=0.0, duration_s=1.0,
        rate_per_s=1.0 if trial.slo else trial.rate_per_s,
    )  # fmt: skip
    return [Simulate(candidate, short)] * scorer.jobs


def _chosen(decision: Decision, pareto_pick: ParetoPick, limits: LatencyLimits) -> Candidate:
    """The candidate that becomes the plan: of those that meet the latency limits, if any does.

    A candidate that the last comparison dropped may look better on the few streams that it was simulated on. It counts
    only where none of those left meets the limits, and for the other picks, which ask for latency beside throughput.
    """
    measured, left = decision.measured, decision.measured[: decision.left]
    candidates = measured if pareto_pick != "throughput" else left
    for some in (candidates, measured):
        if meeting := [c for c in some if excess(c.measured, limits) <= 1]:
            candidates = meeting
            break
    if pareto_pick == "throughput":
        return max(candidates, key=lambda c: (c.value, key_of(c.placement)))
    return front.pick(candidates, pareto_pick)


def _record(search: Search, decision: Decision, result: tuple[Candidate, list[int]], max_flow_plan: Plan) -> Served:
    """What the plan says about the search; `result` is the chosen candidate with the seeds of its score."""
    trial, (chosen, seeds) = search.trial, result
    # The search may have met a plan of more flow than the one of which the flow was searched for.
    most_flow = max(max_flow_plan.flow_tokens_per_s, chosen.flow.tokens_per_s, search.most_flow_tokens_per_s)
    bound = max(max_flow_plan.bound_tokens_per_s, most_flow)
    return Served(
        **served_fields(chosen.measured, trial),
        mode=trial.mode,
        execution=trial.execution,
        duration_s=trial.whole_s,
        warmup_s=trial.warmup_s if trial.requests is None else 0.0,
        window_requests=(trial.requests or 0) * (FINAL_REQUESTS_FACTOR if decision.seeds != [trial.seed] else 1),
        seeds=tuple(seeds),
        simulations=search.simulations,
        compared=len(decision.measured) if decision.seeds != [trial.seed] else 0,
        stages=chosen.depth,
        max_flow_tokens_per_s=most_flow,
        max_flow_bound_tokens_per_s=bound,
        max_flow_gap=bound / most_flow - 1,
        max_flow_seconds=max_flow_plan.seconds,
        progress=tuple(search.history),
        pareto=tuple(front.rows_of(decision.measured, trial.slo is not None)),
        ease=chosen.shares,
    )


def _judged_by(chosen: Candidate, search: Search, limits: LatencyLimits) -> str:
    """How plans were compared, in words."""
    how = "by the simulations made" if chosen.measured.window_s > 0 else "by the prediction"
    if search.trial.slo is not None:
        return f"{how} and the SLO"
    return f"{how} and the latency limits" if limits != LatencyLimits() else how


def _notes(chosen: Candidate, search: Search, limits: LatencyLimits) -> list[str]:
    if search.trial.slo is not None:
        return goodput_notes(chosen, search.trial) + share_notes(chosen.shares)
    notes = ["bound and gap are of the flow; what is served has no proven bound"]
    if chosen.measured.window_s <= 0:
        notes.append("the time limit came before a simulation ended: what the plan serves is predicted")
    return notes + limit_notes(chosen, search.ranked(), limits) + share_notes(chosen.shares)
