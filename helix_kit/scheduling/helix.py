"""The Helix scheduler (Helix, section 5): follow the plan's flow by interleaved weighted round robin.

Hop by hop from the coordinator, a request goes to the candidate with the smallest load. The load of a link is the
number of tokens sent over it, divided by its flow. Dead nodes and nodes without memory for the request's KV cache are
left out. So are links with a small share of a node's outgoing flow, unless they carry most of it together, as in
clusters of hundreds of nodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Pipeline, Stage
from helix_kit.scheduling.kv_budget import ExpectedKV
from helix_kit.scheduling.policy import Policy, Topology, View
from helix_kit.workload.request import Request

MIN_FLOW_SHARE = 0.005
"""Links with a smaller share of a node's outgoing flow get no requests. A slow machine beside fast ones may carry a few
percent of the flow, and several of them a tenth, so the share is small."""
PUBLISHED_MIN_FLOW_SHARE = 0.05
"""The same in the published scheduler."""


class Helix(Policy):
    """Interleaved weighted round robin over the flow; nodes short of KV cache are left out.

    Parameters
    ----------
    topology
        Nodes and links of the plan.
    kv
        ``pages``: the view is asked for free pages, as in the runtime and with `execution="range"`. ``expectation``:
        the published scheduler, with its estimate (Helix, section 5.2), see `ExpectedKV`, and its least share of flow.
    high_water
        Share of a node's KV cache that expected use may fill. Published: 0.9 online, 0.85 offline.
    output_ratio
        Expected output, as a share of 240 tokens. Published: 0.6 online, 1 offline.
    max_prompt_tokens
        Node -> longest prompt that it batches. None: any, since prefill is chunked.

    Examples
    --------
    >>> from helix_kit.scheduling import Topology
    >>> topology = Topology(2, {"a": (0, 2), "b": (0, 2)},
    ...                     {"coordinator": (("a", 3.0), ("b", 1.0)), "a": (("coordinator", 3.0),),
    ...                      "b": (("coordinator", 1.0),)}, {"a": 4000, "b": 4000})
    >>> Helix(topology).name
    'helix'
    """

    name = "helix"
    topology: Topology

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
        self._load_of_token: list[float] = [1 / f if f > 0 else 0.0 for f in self._flow.tolist()]
        self._hops: dict[str, list[tuple[int, str, float]]] = {}
        """Node -> its links: index, next node and flow."""
        self._stages: dict[tuple[str, int], Stage] = {}
        """(node, layers that a request has passed before) -> its stage there: there are few."""
        least = MIN_FLOW_SHARE if self._by_pages else PUBLISHED_MIN_FLOW_SHARE
        index = 0
        for source, hops in topology.next_hops.items():
            total = sum(f for _, f in hops)
            wide = [i for i, (_, f) in enumerate(hops) if f > 0 and not f < least * total]
            if sum(hops[i][1] for i in wide) < 0.5 * total:
                # Many narrow links carry the flow together: without them the node would be cut off.
                wide = [i for i, (_, f) in enumerate(hops) if f > 0]
            self._hops[source] = [(index + i, hops[i][0], float(hops[i][1])) for i in wide]
            index += len(hops)
        self._links_of: dict[int, tuple[list[int], Pipeline]] = {}

    def route(self, request: Request, view: View) -> Pipeline | None:
        """The pipeline with the smallest loads. None, with all loads unchanged, when a hop has no candidate."""
        taken: list[int] = []
        stages: list[Stage] = []
        # Items of an array's own memory take a fifth of numpy's time.
        loads: Any = self._loads.data
        here, done, tokens = COORDINATOR, 0, request.input_tokens
        while True:
            # The choice of `helix_kit.scheduling.iwrr.choose`; whether a node has room is asked last, as it takes long.
            best, link, following = math.inf, -1, ""
            for index, target, flow in self._hops[here]:
                after = loads[index] + tokens / flow
                if after < best and self._may_take(target, request, view, done):
                    best, link, following = after, index, target
            if link < 0:
                self._add(taken, -tokens)
                return None
            loads[link] = best
            taken.append(link)
            if following == COORDINATOR:
                break
            here = following
            stage = self._stages.get((here, done))
            if stage is None:
                stage = self._stages[here, done] = Stage(here, done, self.topology.placement[here][1])
            stages.append(stage)
            done = stage.end
        pipeline = tuple(stages)
        self._links_of[request.id] = (taken, pipeline)
        if not self._by_pages:
            self.expected.reserve(request, pipeline)
        return pipeline

    def _may_take(self, node: str, request: Request, view: View, done: int) -> bool:
        if node == COORDINATOR:
            return True
        if not view.is_alive(node):
            return False
        if self.max_prompt_tokens and request.input_tokens > self.max_prompt_tokens.get(node, request.input_tokens):
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
        """Release the request's share of the expected KV use."""
        self._links_of.pop(request.id, None)
        self.expected.release(request)

    def on_token(self, request: Request) -> None:
        """Count one token on each link of the request's pipeline."""
        if request.id in self._links_of:
            # The runtime asks this for every token. Items of an array's own memory take a fifth of numpy's time.
            loads: Any = self._loads.data
            for link in self._links_of[request.id][0]:
                loads[link] += self._load_of_token[link]

    def token_loads(self) -> tuple[np.ndarray, np.ndarray]:
        """The arrays of loads and flows: the simulator counts decode tokens in compiled code."""
        return self._loads, self._flow
