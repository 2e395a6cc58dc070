"""One point of a sweep: a plan simulated at one rate or concurrency with one seed, as a row of numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from helix_kit import __version__
from helix_kit.cluster import COORDINATOR
from helix_kit.placement.plan import Plan
from helix_kit.report import Run
from helix_kit.scheduling import policy_name
from helix_kit.scheduling.policies import fresh_policy
from helix_kit.simulator import BatchingOptions, whole_run
from helix_kit.sweeps.load import SweepOptions, closed_loop_requests, requests_at
from helix_kit.sweeps.regime import backlog_of
from helix_kit.workload.workload import Workload

MEASURES = ("ttft_s", "tpot_s", "itl_s", "e2el_s", "queue_s")
SHOWN = ("mean", "p50", "p90", "p95", "p99")
RATES = ("requests_per_s", "input_tokens_per_s", "output_tokens_per_s", "decode_tokens_per_s", "peak_concurrency")


@dataclass(frozen=True)
class Point:
    """What is simulated: a plan by its name, and a rate (open loop) or a concurrency (closed loop)."""

    plan: str
    rate_per_s: float | None
    concurrency: int | None
    seed: int

    def key(self, plan: Plan, options: SweepOptions) -> str:
        """A digest of everything that decides the row, to recognise a point that was computed before."""
        workload = options.workload
        # A digest of the requests, since two workloads may have one name.
        requests = repr(tuple(workload)) if isinstance(workload, Workload) else workload
        slo = options.slo.limits if options.slo else None
        parts = [
            plan.to_json(), requests, repr(slo), policy_name(options.policy), options.execution, options.warmup_s,
            options.duration_s, self.rate_per_s, self.concurrency, self.seed, __version__,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def measure(plan: Plan, point: Point, options: SweepOptions) -> dict[str, Any]:
    """Simulate a point: its row, in plain data."""
    run = _open_run(plan, point, options) if point.concurrency is None else _closed_run(plan, point, options)
    summary = run.summary(options.slo)
    row: dict[str, Any] = {"plan": point.plan, "rate_per_s": point.rate_per_s, "concurrency": point.concurrency,
                           "seed": point.seed}  # fmt: skip
    row |= {name: summary[name] for name in RATES}
    for name in MEASURES:
        row |= {f"{name.removesuffix('_s')}_{q}_s": summary[name][q] for q in SHOWN}
    row |= {"requests": summary["requests"], "rejected": summary["rejected"]}
    if options.slo is not None:
        goodput = summary["goodput"]
        row |= {"goodput_per_s": goodput["requests_per_s"], "goodput_tokens_per_s": goodput["output_tokens_per_s"],
                "attainment": goodput["attainment"]}  # fmt: skip
    return {**row, "backlog": list(backlog_of(run.times, run.window))}


def _open_run(plan: Plan, point: Point, options: SweepOptions) -> Run:
    assert point.rate_per_s is not None
    return whole_run(
        plan, requests_at(options, point.rate_per_s, point.seed), policy=fresh_policy(options.policy), seed=point.seed,
        execution=options.execution, warmup_s=options.warmup_s, duration_s=options.duration_s,
    )  # fmt: skip


def _closed_run(plan: Plan, point: Point, options: SweepOptions) -> Run:
    for requests in closed_loop_requests(options, point.seed):
        run = whole_run(
            plan, requests, mode="offline", policy=fresh_policy(options.policy), seed=point.seed,
            warmup_s=options.warmup_s, duration_s=options.duration_s, **at_most(plan, point.concurrency),
        )  # fmt: skip
        # A backlog that ran dry is made twice as long, unless all of its requests are rejected.
        waiting = sum(r.outcome == "in_flight" and r.started_s is None for r in run.records)
        if waiting or all(r.outcome == "rejected" for r in run.records):
            break
    return run


def at_most(plan: Plan, requests: int | None) -> dict[str, Any]:
    """Options of `simulate` with which at most `requests` are served at once, divided among the replicas."""
    engine = plan.engine
    if engine is None or engine.execution == "range":
        return {"options": BatchingOptions(max_in_flight=requests)}
    replicas = sum(source == COORDINATOR for source, _ in plan.flow_edges)
    return {"engine": engine.with_rules(max_num_seqs=-(-(requests or 1) // replicas))}
