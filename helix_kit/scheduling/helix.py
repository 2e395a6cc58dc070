"""The Helix scheduler (paper section 5): follow the plan's flow by weighted round robin, skip nodes that are full.

Hop by hop from the coordinator, a request goes to the candidate with the least load, where a link's load is the
tokens sent over it divided by its flow. Left out are links with under 5 % of the node's outgoing flow (unless most
of it goes over such links, as in clusters of hundreds of nodes), dead nodes, and nodes without room for the
request's keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Pipeline, pipeline_of
from helix_kit.scheduling.iwrr import choose
from helix_kit.scheduling.kv_budget import ExpectedKV
from helix_kit.scheduling.policy import Policy, Topology, View
from helix_kit.workload.request import Request

LEAST_FLOW_SHARE = 0.05


class Helix(Policy):
    """IWRR over the flow with KV masking.

    Parameters
    ----------
    kv
        ``pages``: ask the view for free pages (the runtime, and `execution="range"`); ``expectation``: the
        published estimate, with `high_water` and `output_ratio` (0.9, 0.6 online; 0.85, 1 offline).
    max_prompt_tokens
        Longest prompt that each node batches; None: any, since prefill is chunked.
    """

    name = "helix"

    def __init__(
        self,
        topology: Topology,
        *,
        kv: Literal["pages", "expectation"] = "pages",
        high_water: float = 0.9,
        output_ratio: float = 0.6,
        max_prompt_tokens: Mapping[str, int] | None = None,
    ) -> None:
        self.topology = topology
        self.max_prompt_tokens = max_prompt_tokens or {}
        self.expected = ExpectedKV(topology, high_water=high_water, output_ratio=output_ratio)
        self._by_pages = kv == "pages"
        self._flow = np.array([f for hops in topology.next_hops.values() for _, f in hops], dtype=float)
        self._loads = np.zeros_like(self._flow)
        self._hops: dict[str, list[tuple[int, str]]] = {}
        index = 0
        for source, hops in topology.next_hops.items():
            total = sum(f for _, f in hops)
            wide = [i for i, (_, f) in enumerate(hops) if f > 0 and not f < LEAST_FLOW_SHARE * total]
            if sum(hops[i][1] for i in wide) < 0.5 * total:
                # Many narrow links that carry the flow together: leaving them out would cut the node off.
                wide = [i for i, (_, f) in enumerate(hops) if f > 0]
            self._hops[source] = [(index + i, hops[i][0]) for i in wide]
            index += len(hops)
        self._links_of: dict[int, tuple[list[int], Pipeline]] = {}

    def route(self, request: Request, view: View) -> Pipeline | None:
        """The pipeline by least load; None, with all loads as before, when a hop has no candidate left."""
        taken: list[int] = []
        path: list[str] = []
        here, done = COORDINATOR, 0
        while True:
            allowed = {i: t for i, t in self._hops[here] if self._may_take(t, request, view, done)}
            link = choose(self._loads, self._flow, request.input_tokens, list(allowed))
            if link < 0:
                self._add(taken, -request.input_tokens)
                return None
            self._loads[link] += request.input_tokens / self._flow[link]
            taken.append(link)
            here = allowed[link]
            if here == COORDINATOR:
                break
            path.append(here)
            done = self.topology.placement[here][1]
        pipeline = pipeline_of(path, self.topology.placement)
        self._links_of[request.id] = (taken, pipeline)
        if not self._by_pages:
            self.expected.reserve(request, pipeline)
        return pipeline

    def _may_take(self, node: str, request: Request, view: View, done: int) -> bool:
        if node == COORDINATOR:
            return True
        if not view.is_alive(node) or request.input_tokens > self.max_prompt_tokens.get(node, request.input_tokens):
            return False
        if not self._by_pages:
            return self.expected.has_room(node, request)
        layers = self.topology.placement[node][1] - done
        return view.has_room(node, request.input_tokens + request.output_tokens, layers)

    def _add(self, links: list[int], tokens: int) -> None:
        for link in links:
            self._loads[link] += tokens / self._flow[link]

    def on_refused(self, request: Request, pipeline: Pipeline) -> None:
        """Take back the loads that `route` added."""
        links, _ = self._links_of.pop(request.id, ([], ()))
        self._add(links, -request.input_tokens)
        self.expected.release(request)

    def on_finished(self, request: Request) -> None:
        """Return the request's share of the expected KV use."""
        self._links_of.pop(request.id, None)
        self.expected.release(request)

    def on_token(self, request: Request) -> None:
        """Count one token on each link of the request's pipeline."""
        if request.id in self._links_of:
            self._add(self._links_of[request.id][0], 1)

    def token_loads(self) -> tuple[np.ndarray, np.ndarray]:
        """The loads and flows themselves, so that the simulator counts decode tokens in compiled code."""
        return self._loads, self._flow
