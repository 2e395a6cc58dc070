"""Driver of engines that serve replicas: requests are routed as they arrive, and each replica runs by its own clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from helix_kit.cluster import COORDINATOR
from helix_kit.errors import InputError
from helix_kit.flow import Pipeline
from helix_kit.placement.plan import Plan
from helix_kit.profiles.step import ModelWork
from helix_kit.simulator.backlog import BacklogView
from helix_kit.simulator.log import KVSample, RunLog
from helix_kit.simulator.options import SimulationOptions
from helix_kit.simulator.replicas.chains import blocks_of, chains_of, engine_of, stages_of
from helix_kit.simulator.replicas.replica import Queue, Replica
from helix_kit.simulator.replicas.routing import make_router
from helix_kit.simulator.setup import build_setup, new_clock
from helix_kit.simulator.state import LogArrays
from helix_kit.workload.request import Request

MANY_WAITING = 10
"""A report says how many requests wait at the end where more do: fewer may have arrived just then."""


def replicas_engine(plan: Plan, workload: Sequence[Request], options: SimulationOptions) -> ReplicasEngine:
    """A simulation of an engine's replicas, ready to run."""
    if options.faults:
        raise InputError(
            "expected none: this engine's rules for faults are not known", where="simulate", field="faults"
        )
    if not isinstance(options.policy, str):
        raise InputError("expected a name with this engine", where="simulate", field="policy", value=options.policy)
    return ReplicasEngine(plan, list(workload), options)


class ReplicasEngine(BacklogView):
    """One simulation; requests are known by their place in the workload."""

    kv_unit = "blocks"
    start_s = 0.0

    def __init__(self, plan: Plan, requests: Sequence[Request], options: SimulationOptions) -> None:
        engine = options.engine
        assert engine is not None and isinstance(options.policy, str), "checked before"
        self.engine, self.requests = engine, requests
        self.chains = chains_of(plan)
        work = ModelWork.of(plan.model, sorts_samples=options.sorts_samples, penalises=options.penalises)
        self._queue = Queue.of(requests, engine.rules.block_tokens, engine.receive_s)
        if options.is_offline:
            self._queue.records["arrival"] = 0.0
        self.replicas = []
        self._rules = []
        for chain in self.chains:
            local = engine_of(plan, chain, engine)
            self._rules.append(local.rules)
            blocks = _given_blocks(chain, options) or blocks_of(plan, chain, local, work)
            if blocks < 1:
                raise InputError(
                    f"expected GPUs that hold {plan.model.name} and a block of KV cache at a memory share of "
                    f"{local.rules.memory_share:g}",
                    where="simulate", field="engine", value=", ".join(stage.node for stage in chain),
                )  # fmt: skip
            replica = Replica(local, stages_of(plan, chain, local, work), blocks, self._queue)
            replica.measure(options.window_s, record_batches=options.record_batches)
            self.replicas.append(replica)
        hops = [[COORDINATOR, *(stage.node for stage in chain), COORDINATOR] for chain in self.chains]
        self.setup = build_setup(plan, [(a, b) for path in hops for a, b in pairwise(path)])
        self.clock = new_clock()
        self.log = RunLog.for_requests(len(requests), record_batches=options.record_batches)
        self.issued = 0
        self.replica_of: dict[int, int] = {}
        self._is_offline = options.is_offline
        flow = plan.flow_edges
        weights = [flow.get((COORDINATOR, chain[0].node), 0.0) for chain in self.chains]
        self._route = make_router(options.policy, self.replicas, weights, options.seed)

    def run(self, duration_s: float, watch: Callable[[float], None], every_s: float) -> None:
        """Simulate `duration_s` seconds, calling `watch(seconds)` every `every_s` of them."""
        mark = 0.0
        while mark < duration_s:
            watch(mark)
            mark = min(mark + every_s, duration_s)
            self._issue_until(mark)
            for replica in self.replicas:
                replica.advance(mark)
            self.clock["now"] = mark
            names = [stage.node for chain in self.chains for stage in chain]
            used = [
                r.blocks - int(r.record["free"]) for r, c in zip(self.replicas, self.chains, strict=True) for _ in c
            ]
            self.log.kv_samples.append(KVSample(mark, names, np.array(used)))
        self._write_down(duration_s)

    def _issue_until(self, until_s: float) -> None:
        """Send the requests that arrive by then to a replica, one after another where there is a choice."""
        while self.issued < len(self.requests):
            at = self.issued
            request = self.requests[at]
            if request.arrival_s > until_s and not self._is_offline:
                return
            self.issued += 1
            tokens, longest = request.input_tokens + request.output_tokens, self._longest(request)
            if tokens > longest:
                self.log.rejected[at] = f"needs KV cache for {tokens} tokens; the largest replica serves {longest}"
                continue
            if len(self.replicas) > 1:
                for replica in self.replicas:
                    replica.advance(float(self._queue.records[at]["arrival"]))
            chosen = self._route(at) if len(self.replicas) > 1 else 0
            self.replica_of[at] = chosen
            self.replicas[chosen].send(at)

    def _longest(self, request: Request) -> int:
        """Tokens of the longest context that can be served."""
        rules = self._rules[0]
        longest = min(r.blocks for r in self.replicas) * rules.block_tokens
        if not rules.chunked_prefill and request.input_tokens > min(r.token_budget for r in self._rules):
            return 0
        return min(longest, rules.max_model_len or longest)

    def _write_down(self, end_s: float) -> None:
        """Put what the replicas have counted where the report looks for it."""
        requests, times = (np.concatenate(parts) for parts in zip(*(r.tokens for r in self.replicas), strict=True))
        kept = times <= end_s
        order = np.argsort(times[kept], kind="stable")
        self.log.arrays = LogArrays(requests[kept][order], times[kept][order], self._batches())
        self.clock["tokens"], self.clock["batches"] = len(order), sum(int(r.record["batches"]) for r in self.replicas)
        for at, record in enumerate(self._queue.records[: self.issued]):
            if record["started"] >= 0:
                self.log.started_s[at] = float(record["started"])
            if 0 <= record["finished"] <= end_s:
                self.log.finished_s[at] = float(record["finished"])
            if record["hit_tokens"]:
                self.log.cached_tokens[at] = int(record["hit_tokens"])
            if record["restarts"]:
                self.log.restarts[at] = int(record["restarts"])
        for replica, chain in zip(self.replicas, self.chains, strict=True):
            for record, stage in zip(replica.state.stages, chain, strict=True):
                node = self.setup.nodes[self.setup.number_of[stage.node]]
                node["busy_s"], node["steps"] = record["busy"], replica.record["steps"]
                node["prefill_tokens"], node["decode_tokens"] = record["prefill_tokens"], record["decode_tokens"]
                node["kv_capacity"], node["kv_peak"] = replica.blocks, replica.record["kv_peak"]

    def _batches(self) -> np.ndarray:
        """Batches of all replicas, with the numbers of their nodes."""
        rows = []
        for replica, chain in zip(self.replicas, self.chains, strict=True):
            batches = replica.state.batches[: int(replica.record["batches"])].copy()
            batches["node"] = np.array([self.setup.number_of[s.node] for s in chain])[batches["node"]]
            rows.append(batches)
        return np.concatenate(rows)

    @property
    def all_admitted(self) -> bool:
        """Whether every request of the workload was admitted or rejected, so that none waits."""
        return self.issued == len(self.requests) and not any(int(r.record["waiting"]) for r in self.replicas)

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens that the prefix caches held."""
        asked = sum(int(r.record["asked_tokens"]) for r in self.replicas)
        return sum(int(r.record["hit_tokens"]) for r in self.replicas) / asked if asked else 0.0

    def facts(self) -> dict[str, object]:
        """What the summary says of the engine."""
        return {
            "engine": self.engine.name,
            "prefix_hit_rate": self.hit_rate,
            "preemptions": sum(int(r.record["preemptions"]) for r in self.replicas),
        }

    def pipeline_of(self, at: int) -> Pipeline | None:
        """The chain that the request was sent to."""
        return self.chains[self.replica_of[at]] if at in self.replica_of else None

    def now_s(self) -> float:
        """Seconds since the start."""
        return float(self.clock[0]["now"])

    def notes(self) -> list[str]:
        """What a reader of the report should know."""
        notes = [f"engine {self.engine.name}: docs/engine-fidelity.md says how close its predictions come"]
        waiting = sum(int(r.record["waiting"]) for r in self.replicas)
        if waiting > MANY_WAITING:
            notes.append(f"{waiting} requests wait at {self.now_s():.0f} s")
        return notes


def _given_blocks(chain: Pipeline, options: SimulationOptions) -> int | None:
    """Blocks from `kv_capacity`, which counts layer-tokens; the stage with the least room decides."""
    given = options.kv_capacity or {}
    assert options.engine is not None
    rooms = [given[s.node] // (s.end - s.start) // options.engine.rules.block_tokens for s in chain if s.node in given]
    return min(rooms) if rooms else None
