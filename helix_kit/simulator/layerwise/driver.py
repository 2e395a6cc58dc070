"""Driver of `execution="layerwise"`: feeds requests to the compiled engine and asks the policy for pipelines."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from helix_kit.flow import Pipeline, Stage
from helix_kit.report import Batch
from helix_kit.scheduling import Helix, Policy
from helix_kit.simulator import mersenne, setup
from helix_kit.simulator.layerwise import network
from helix_kit.simulator.layerwise import rules as layerwise
from helix_kit.simulator.setup import Setup
from helix_kit.simulator.state import BATCH, QUERY, filled
from helix_kit.workload.request import Request

FEED_GAP_S = 0.1
HOP_BY_HOP = {"random": network.RANDOM, "shortest_queue": network.SHORTEST, "swarm": network.SWARM}


@dataclass(frozen=True)
class Feed:
    """How offline requests are issued: `initial` ones 0.1 s apart, then more.

    With a `kv_mark`, one more whenever a prompt or a request finishes and the expected KV use of the tightest layer
    is at most the mark; without, one for each that finishes. `shared_draws`: the policy's generator also draws a
    number below this for each request, as the published sampler of lengths does.
    """

    initial: int = 20
    kv_mark: float | None = 0.8
    shared_draws: int | None = None


class Layerwise:
    """One simulation under the published rules."""

    def __init__(
        self,
        made: Setup,
        requests: Sequence[Request],
        policy: Policy | str,
        *,
        feed: Feed | None,
        start_s: float,
        window: tuple[float, float],
        seed: int,
        record_batches: bool,
    ) -> None:
        self.setup, self.requests, self.feed, self.start_s = made, requests, feed, start_s
        self.policy = policy if isinstance(policy, Policy) else None
        self.rejected: dict[int, str] = {}
        self.started: dict[int, float] = {}
        self.restarts: dict[int, int] = {}
        self.finished: dict[int, float] = {}
        self._waiting: deque[int] = deque()
        self._issued = 0
        self.kv_samples: list[tuple[float, list[str], np.ndarray]] = []
        self.batches_before: list[Batch] = []
        count = len(requests)
        self.queries = filled(QUERY, count, ("next", "out_next", "out_previous"))
        self.queries["input"] = [r.input_tokens for r in requests]
        self.queries["output"] = [r.output_tokens for r in requests]
        longest = longest_path(made)
        self.routes = np.zeros((count, longest + 1), dtype=np.int32)
        self.clock = setup.new_clock()
        clock = self.clock[0]
        clock["window_start"], clock["window_end"] = (start_s + w for w in window)
        clock["copy_bytes"] = made.plan.model.activation_bytes_per_token
        clock["record_batches"] = record_batches
        if self.policy is None:
            clock["policy"] = HOP_BY_HOP[str(policy)]
        else:
            clock["policy"] = network.GRANTED if isinstance(self.policy, Helix) else network.ROUTED
        self._random = random.Random(seed)
        self.state = (
            made.nodes, made.links, self.queries, self.routes, made.queues, clock,
            *setup.new_heap(count + len(made.nodes) + 16), np.zeros(mersenne.SIZE + 1, dtype=np.int64),
            np.zeros(len(made.links) + 1, dtype=np.int64),
        )  # fmt: skip
        made.links["priority"] = made.links["average"] = 0.05
        room = 1 << 14
        self.token_request = np.zeros(room + count, dtype=np.int32)
        self.token_time = np.zeros(room + count)
        self.batches = np.zeros(room if record_batches else 2, dtype=BATCH)
        self._loads = token_loads(self.policy, made)

    def run(self, duration_s: float, watch: Callable[[float], None], every_s: float) -> None:
        """Simulate `duration_s` seconds, calling `watch(seconds)` every `every_s` of them."""
        end = self.start_s + duration_s
        if self.feed is not None:
            for i in range(min(self.feed.initial, len(self.requests))):
                self._issue(self.start_s + FEED_GAP_S * i)
        mark = self.start_s
        if self.policy is None:
            self.state[8][:] = mersenne.state_of(self._random)
        while True:
            arrival = self._next_arrival() if self.feed is None else np.inf
            until = min(end, arrival, mark)
            self._advance(until)
            if until == mark and mark < end:
                watch(mark - self.start_s)
                used = self.setup.nodes["kv_used"][:-2].copy()
                self.kv_samples.append((mark - self.start_s, self.setup.names, used))
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
        if self._issued >= len(self.requests):
            return
        if self.feed is not None and self.feed.shared_draws and self.policy is None:
            if self.clock[0]["events"] == 0:
                self._random.randrange(self.feed.shared_draws)
            else:
                mersenne.below(self.state[8], self.feed.shared_draws)
        at = self._issued
        self._issued += 1
        self.started[at] = time - self.start_s
        too_long = self._why_too_long(self.requests[at])
        if too_long:
            self.rejected[at] = too_long
            return
        layerwise.announce(self.state, at, time)

    def _why_too_long(self, request: Request) -> str | None:
        nodes = self.setup.nodes[:-2]
        if request.input_tokens > nodes["prefill_tokens_max"].max():
            return "prompt longer than any node batches"
        if (request.input_tokens + request.output_tokens) > (nodes["kv_capacity"] // nodes["layers"]).max():
            return "longer than any node's KV cache"
        return None

    def _advance(self, until: float) -> None:
        while True:
            why, at = layerwise.advance(
                self.state, self.setup.curves, self.token_request, self.token_time, self.batches, *self._loads, until
            )
            if why == layerwise.REACHED:
                return
            if why == layerwise.ROUTE:
                self._route(at)
            elif why == layerwise.FULL:
                self._grow()
            else:
                self._settle(at, why == layerwise.REQUEST_DONE)

    def _route(self, at: int) -> None:
        if self.policy is None:
            layerwise.set_out(self.state, at)
            return
        pipeline = self.policy.route(self.requests[at], self)
        if pipeline is None:
            if self.feed is not None:
                self.rejected[at] = "no route with room (offline requests are dropped, as published)"
            else:
                self._waiting.append(at)
            return
        self.policy.on_admitted(self.requests[at], pipeline)
        route = self.setup.route_of(pipeline)
        self.routes[at, : len(route)] = route
        self.queries[at]["hops"] = len(route)
        layerwise.set_out(self.state, at)

    def _settle(self, at: int, over: bool) -> None:
        now = self.clock[0]["now"]
        if over:
            self.finished[at] = now - self.start_s
            if self.policy is not None:
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
            more = over
        else:
            more = self.policy.expected.bottleneck_use() <= self.feed.kv_mark
        if more:
            self._issue(now + FEED_GAP_S)

    def _grow(self) -> None:
        for name in ("token_request", "token_time"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros_like(old)]))
        if len(self.batches) > 2:
            self.batches = np.concatenate([self.batches, np.zeros_like(self.batches)])

    kv_unit = "layer-tokens"

    @property
    def issued(self) -> int:
        """Requests of the workload that have been issued."""
        return self._issued

    @property
    def all_let_in(self) -> bool:
        """Whether every request of the workload was let in or turned away, so that none waits."""
        return self._issued == len(self.requests) and not self._waiting

    def arrived_s(self, at: int) -> float:
        """When the request was issued: its arrival, or when the offline feed took it up."""
        return self.started[at]

    def generated(self, tokens: int) -> int:
        """A published request takes its prompt and then as many decode steps as it has output tokens."""
        return max(0, tokens - 1)

    def notes(self) -> list[str]:
        """What a reader of the report should know."""
        over = [n for i, n in enumerate(self.setup.names) if self._over(i)]
        return (
            [f"KV cache overflowed on {', '.join(over)} (the published simulator would have stopped)"] if over else []
        )

    def _over(self, index: int) -> bool:
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

    def pipeline_of(self, at: int) -> Pipeline | None:
        """The stages that a request was given, as far as they are known."""
        stages: list[Stage] = []
        done = 0
        for link in self.routes[at, : self.queries[at]["hops"]]:
            target = self.setup.links[link]["target"]
            if target >= self.setup.num_nodes:
                return tuple(stages)
            node = self.setup.nodes[target]
            end = int(node["start"] + node["layers"])
            stages.append(Stage(self.setup.names[target], done, end))
            done = end
        return None


def finished_batches(engine: Any) -> list[Batch]:
    """The batches recorded so far, for the report."""
    names, start_s = engine.setup.names, engine.start_s
    return [
        Batch(
            names[b["node"]],
            float(b["start"]) - start_s,
            float(b["end"]) - start_s,
            int(b["prefill"]),
            int(b["decodes"]),
        )
        for b in engine.batches[: engine.clock[0]["batches"]]
    ]


def longest_path(made: Setup) -> int:
    """Most hops that a request can take: nodes in order of their last layer, each one more than what leads to it."""
    ends = made.nodes["start"] + made.nodes["layers"]
    n = made.num_nodes
    longest = np.zeros(n + 2, dtype=int)
    order = [n, *sorted(range(n), key=lambda i: ends[i]), n + 1]
    rank = {endpoint: r for r, endpoint in enumerate(order)}
    for link in sorted(made.links, key=lambda link: rank[link["source"]]):
        longest[link["target"]] = max(longest[link["target"]], longest[link["source"]] + 1)
    return int(longest[n + 1])


def token_loads(policy: Policy | None, made: Setup, always: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The policy's loads and flows, and which of the policy's links each link is (-1: none of them)."""
    given = policy.token_loads() if policy is not None else None
    topology = getattr(policy, "topology", None)
    if topology is None or (given is None and not always):
        return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
    index = {edge: i for i, edge in enumerate(topology.links)}
    loads, flows = given or (np.zeros(0), np.zeros(0))
    return loads, flows, np.array([index.get(edge, -1) for edge in made.edges], dtype=np.int64)
