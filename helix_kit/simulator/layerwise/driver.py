"""Driver of `execution="layerwise"`: feeds requests to the compiled engine and asks the policy for pipelines."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from helix_kit.errors import InputError
from helix_kit.flow import Pipeline, Stage
from helix_kit.placement.plan import Plan
from helix_kit.scheduling import Helix, Policy, checked_pipeline, make_policy, named_failures
from helix_kit.scheduling.policy import valid_links
from helix_kit.scheduling.swarm import FIRST_HOP_TIME_S
from helix_kit.simulator import mersenne
from helix_kit.simulator.layerwise import network, published, rules
from helix_kit.simulator.layerwise.state import State
from helix_kit.simulator.link_loads import link_loads
from helix_kit.simulator.log import KVSample, RunLog
from helix_kit.simulator.options import Feed, SimulationOptions
from helix_kit.simulator.setup import (
    Setup,
    build_setup,
    load_seconds,
    longest_path,
    new_clock,
    new_heap,
    request_records,
)
from helix_kit.simulator.state import StateOwner
from helix_kit.workload.request import Request

FEED_GAP_S = 0.1
HOP_BY_HOP = {"random": network.RANDOM, "shortest_queue": network.SHORTEST, "swarm": network.SWARM}
"""Policies that choose the next link in compiled code when a request leaves a node."""


def layerwise_engine(plan: Plan, workload: Sequence[Request], options: SimulationOptions) -> LayerwiseEngine:
    """An engine under the published rules, ready to run."""
    if options.faults:
        raise InputError("faults need execution='range': the published rules have none", where="simulate")
    name, links = options.policy_name, options.links
    if links is None:
        links = list(plan.flow_edges) if name in {"helix", "fixed"} else valid_links(plan)
    setup = build_setup(plan, list(links), kv_capacity=options.kv_capacity)
    constants: dict[str, Any] = {}
    if options.is_published("helix"):
        published.grant_bandwidth(setup)
        constants = published.helix_options(setup, options)
    policy: Policy | str = name
    if not any(options.is_published(n) for n in HOP_BY_HOP):
        policy = make_policy(options.policy, plan, seed=options.seed, kv_capacity=options.kv_capacity, **constants)
    feed = None
    if options.is_offline:
        feed = options.feed or published.offline_feed(setup, name)
    return LayerwiseEngine(setup, list(workload), policy, options, feed)


class LayerwiseEngine(StateOwner[State]):
    """One simulation under the published rules; requests are known by their place in the workload.

    `policy` is the name of a policy in `HOP_BY_HOP`, or a policy that gives each request a pipeline. With a `feed` all
    requests wait and are issued by it.
    """

    kv_unit = "layer-tokens"

    def __init__(
        self,
        setup: Setup,
        requests: Sequence[Request],
        policy: Policy | str,
        options: SimulationOptions,
        feed: Feed | None,
    ) -> None:
        self.setup, self.requests, self.feed = setup, requests, feed
        self.policy = policy if isinstance(policy, Policy) else None
        self.start_s = load_seconds(setup.plan)
        self.log = RunLog.for_requests(len(requests), record_batches=options.record_batches)
        self._waiting: deque[int] = deque()
        self._issued = 0
        self._dry_s = np.inf
        self._random = random.Random(options.seed)
        self.clock = new_clock()
        clock = self.clock[0]
        clock["window_start"], clock["window_end"] = (self.start_s + w for w in options.window_s)
        clock["copy_bytes"] = setup.plan.model.activation_bytes_per_token
        clock["record_batches"] = options.record_batches
        if self.policy is None:
            clock["policy"] = HOP_BY_HOP[str(policy)]
        else:
            clock["policy"] = network.GRANTED if isinstance(self.policy, Helix) else network.ROUTED
        setup.links["priority"] = setup.links["average"] = FIRST_HOP_TIME_S
        heap, fifo = new_heap(len(requests) + len(setup.nodes) + 16)
        self.state = State(
            nodes=setup.nodes,
            links=setup.links,
            requests=request_records(requests, ("next", "out_next", "out_previous")),
            routes=np.zeros((len(requests), longest_path(setup) + 1), dtype=np.int32),
            queues=setup.queues,
            clock=clock,
            heap=heap,
            fifo=fifo,
            curves=setup.curves,
            loads=link_loads(self.policy, setup),
            log=self.log.arrays,
            generator=np.zeros(mersenne.SIZE + 1, dtype=np.int64),
            scratch=np.zeros(max(len(setup.links), len(setup.nodes)) + 1, dtype=np.int64),
        )

    def run(self, duration_s: float, watch: Callable[[float], None], every_s: float) -> None:
        """Simulate `duration_s` seconds, calling `watch(seconds)` every `every_s` of them."""
        end = self.start_s + duration_s
        if self.feed is not None:
            for i in range(self.feed.initial):
                self._issue(self.start_s + FEED_GAP_S * i)
        mark = self.start_s
        if self.policy is None:
            self.state.generator[:] = mersenne.state_of(self._random)
        while True:
            arrival = self._next_arrival() if self.feed is None else np.inf
            until = min(end, arrival, mark)
            self._advance(until)
            if until == mark and mark < end:
                watch(mark - self.start_s)
                used = self.setup.compute_nodes["kv_used"].copy()
                self.log.kv_samples.append(KVSample(mark - self.start_s, self.setup.names, used))
                mark += every_s
            elif until >= end:
                break
            else:
                self._issue(arrival)
        self.clock["now"] = end

    def _next_arrival(self) -> float:
        if self._issued >= len(self.requests):
            return np.inf
        return self.start_s + self.requests[self._issued].arrival_s

    def _issue(self, time: float) -> None:
        """Issue the next request of the workload, if there is one, at `time` on the engine's clock."""
        if self._issued >= len(self.requests):
            self._dry_s = min(self._dry_s, time - self.start_s)
            return
        if self.feed is not None and self.feed.shared_draws and self.policy is None:
            if self.clock[0]["events"] == 0:
                self._random.randrange(self.feed.shared_draws)
            else:
                mersenne.below(self.state.generator, self.feed.shared_draws)
        at = self._issued
        self._issued += 1
        self.log.started_s[at] = time - self.start_s
        too_long = self._why_too_long(self.requests[at])
        if too_long:
            self.log.rejected[at] = too_long
            return
        rules.announce(self._packed, at, time)

    def _why_too_long(self, request: Request) -> str | None:
        nodes = self.setup.compute_nodes
        if request.input_tokens > nodes["prefill_tokens_max"].max():
            return "prompt longer than any node batches"
        if (request.input_tokens + request.output_tokens) > (nodes["kv_capacity"] // nodes["layers"]).max():
            return "longer than any node's KV cache"
        return None

    def _advance(self, until: float) -> None:
        while True:
            why, at = rules.advance(self._packed, until)
            if why == rules.REACHED:
                return
            if why == rules.ROUTE:
                self._route(at)
            elif why == rules.FULL:
                self.log.grow()
                self.state = self.state._replace(log=self.log.arrays)
            else:
                self._settle(at, why == rules.REQUEST_DONE)

    def _route(self, at: int) -> None:
        """Give a request a pipeline and send it out; without one it waits (online) or is dropped (offline)."""
        if self.policy is None:
            rules.send_prompt(self._packed, at)
            return
        with named_failures(self.policy, "route", self.requests[at]):
            answer = self.policy.route(self.requests[at], self)
        pipeline = checked_pipeline(self.policy, answer, self.setup.plan)
        if pipeline is None:
            if self.feed is not None:
                self.log.rejected[at] = "no route with room (offline requests are dropped, as published)"
            else:
                self._waiting.append(at)
            return
        with named_failures(self.policy, "on_admitted", self.requests[at]):
            self.policy.on_admitted(self.requests[at], pipeline)
        route = self.setup.route_of(pipeline)
        self.state.routes[at, : len(route)] = route
        self.state.requests[at]["hops"] = len(route)
        rules.send_prompt(self._packed, at)

    def _settle(self, at: int, is_finished: bool) -> None:
        """A prompt or a whole request has come back: waiting requests are tried again, and the feed may issue one."""
        now = self.clock[0]["now"]
        if is_finished:
            self.log.finished_s[at] = now - self.start_s
            if self.policy is not None:
                with named_failures(self.policy, "on_finished", self.requests[at]):
                    self.policy.on_finished(self.requests[at])
            while self._waiting:
                waiting = self._waiting.popleft()
                before = len(self._waiting)
                self._route(waiting)
                if len(self._waiting) > before:
                    self._waiting.rotate(1)
                    break
        if self.feed is None:
            return
        if self.feed.kv_mark is None or not isinstance(self.policy, Helix):
            issues_more = is_finished
        else:
            issues_more = self.policy.expected.bottleneck_use() <= self.feed.kv_mark
        if issues_more:
            self._issue(now + FEED_GAP_S)

    @property
    def issued(self) -> int:
        """Requests of the workload that have been issued."""
        return self._issued

    @property
    def all_admitted(self) -> bool:
        """Whether every request of the workload was admitted or rejected, so that none waits."""
        return self._issued == len(self.requests) and not self._waiting

    @property
    def ran_dry_s(self) -> float | None:
        """Offline: when the feed first asked for a request that the workload does not have; None if it never did."""
        return self._dry_s if self._dry_s < self.now_s() else None

    def arrived_s(self, at: int) -> float:
        """When the request was issued: its arrival, or when the offline feed issued it."""
        return self.log.started_s[at]

    def generated(self, tokens: int) -> int:
        """A published request takes its prompt and then as many decode steps as it has output tokens."""
        return max(0, tokens - 1)

    def notes(self) -> list[str]:
        """What a reader of the report should know."""
        overfull = [name for i, name in enumerate(self.setup.names) if self._is_overfull(i)]
        if not overfull:
            return []
        return [f"KV cache overflowed on {', '.join(overfull)} (the published simulator would have stopped)"]

    def _is_overfull(self, index: int) -> bool:
        node = self.setup.nodes[index]
        return bool(node["kv_peak"] > node["kv_capacity"])

    def is_alive(self, node: str) -> bool:
        """Nothing fails under the published rules."""
        return True

    def queue_length(self, node: str) -> int:
        """Requests in front of the node's first layer."""
        index = self.setup.number_of[node]
        return int(self.setup.queues[self.setup.nodes[index]["first_queue"]]["count"])

    def now_s(self) -> float:
        """Seconds since serving started."""
        return float(self.clock[0]["now"]) - self.start_s

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        """Whether the KV cache in use now leaves room."""
        record = self.setup.nodes[self.setup.number_of[node]]
        return bool(record["kv_used"] + tokens * num_layers <= record["kv_capacity"])

    def cached_tokens(self, request: Request, pipeline: Pipeline) -> int:
        """The published rules have no prefix cache."""
        return 0

    def pipeline_of(self, at: int) -> Pipeline | None:
        """The stages that a request was given, None until its last one is known."""
        stages: list[Stage] = []
        done = 0
        for link in self.state.routes[at, : self.state.requests[at]["hops"]]:
            target = self.setup.links[link]["target"]
            if target >= self.setup.num_nodes:
                return tuple(stages)
            node = self.setup.nodes[target]
            end = int(node["start"] + node["layers"])
            stages.append(Stage(self.setup.names[target], done, end))
            done = end
        return None
