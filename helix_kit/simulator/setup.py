"""From a plan to the arrays that compiled code runs over."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from helix_kit.cluster import COORDINATOR
from helix_kit.errors import InputError
from helix_kit.flow import Edge, Pipeline
from helix_kit.placement.plan import Plan
from helix_kit.profiles import Profile
from helix_kit.simulator.events import EVENT, FIFO_ROOM
from helix_kit.simulator.state import CLOCK, LINK, NODE, NONE, QUEUE, REQUEST, STARVED, Curves, filled
from helix_kit.typical_request import ROUND_CONTEXT_TOKENS
from helix_kit.workload.request import Request

PROMPT_TOKENS_A_REQUEST = 2048
"""Published batch limits count these for each prompt, and `ROUND_CONTEXT_TOKENS` for each decode, that a node may
batch."""
DISK_GB_PER_S = 1.0
"""Speed at which a node reads its layers (published rule)."""


@dataclass
class Setup:
    """A plan as arrays; records are described in `helix_kit.simulator.state`."""

    plan: Plan
    names: list[str]
    """Nodes, in the order of their numbers."""
    edges: list[Edge]
    """Links by their ends, in the order of their numbers."""
    link_index: dict[Edge, int]
    """Ends of a link -> its number."""
    nodes: np.ndarray
    """`NODE` records: the nodes, then the coordinator's two endpoints."""
    links: np.ndarray
    queues: np.ndarray
    """An empty queue for each layer of each node."""
    into: np.ndarray
    """Link numbers ordered by receiver; a node's are the `intos` from `first_into` on."""
    curves: Curves

    @property
    def num_nodes(self) -> int:
        """Compute nodes, without the coordinator's two endpoints."""
        return len(self.names)

    @property
    def compute_nodes(self) -> np.ndarray:
        """Records of the nodes, without the coordinator's two endpoints."""
        return self.nodes[: self.num_nodes]

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Node name -> its number."""
        return {name: i for i, name in enumerate(self.names)}

    def route_of(self, pipeline: Pipeline) -> list[int]:
        """Link numbers from the coordinator through the pipeline's nodes and back."""
        path = [COORDINATOR, *(stage.node for stage in pipeline), COORDINATOR]
        return [self.link_index[a, b] for a, b in pairwise(path)]


def load_seconds(plan: Plan) -> float:
    """When the published simulator starts to serve: after the fullest node has read its layers from disk."""
    fullest_gb = max(plan.model.layers_gb(start, end) for start, end in plan.placement.values())
    return math.ceil(fullest_gb / DISK_GB_PER_S) + 1.0


def build_setup(plan: Plan, links: Iterable[Edge], *, kv_capacity: Mapping[str, int] | None = None) -> Setup:
    """The arrays for a plan and the links that may be used, in the order that decides ties."""
    names = list(plan.placement)
    ids = {name: i for i, name in enumerate(names)}
    n = len(names)
    nic = plan.cluster.network.nic_bytes_per_s
    nodes = filled(NODE, n + 2, ("out_head", "out_tail", "new_head", "batch_head", "batch_tail"))
    nodes["nic"], nodes["send_free"], nodes["receive_free"] = nic, nic, nic
    nodes["state"], nodes["alive"], nodes["slowdown"] = STARVED, 1, 1.0
    kind_of = plan.problem.kind_of
    profiles = {name: plan.profiles[kind_of[name]].of_range(*plan.placement[name]) for name in names}
    keys = {name: _curve_key(plan, name) for name in names}
    kinds = sorted(set(keys.values()))
    first_queue = 0
    for i, name in enumerate(names):
        start, end = plan.placement[name]
        k, profile, node = end - start, profiles[name], nodes[i]
        node["start"], node["layers"], node["first_queue"] = start, k, first_queue
        node["curve"] = kinds.index(keys[name])
        node["prefill_max"] = profile.prefill_limit(k)
        node["prefill_tokens_max"] = PROMPT_TOKENS_A_REQUEST * profile.prefill_limit(k)
        node["decode_max"] = profile.decode_limit(k)
        node["context_max"] = ROUND_CONTEXT_TOKENS * profile.decode_limit(k)
        node["kv_capacity"] = (kv_capacity or {}).get(name, profile.kv_capacity(k))
        first_queue += k
    edges, link_array = _links(plan, list(links), ids, nodes)
    into = np.argsort(link_array["target"], kind="stable")
    targets = np.arange(n + 2)
    nodes["first_into"] = np.searchsorted(link_array["target"][into], targets)
    nodes["intos"] = np.searchsorted(link_array["target"][into], targets, side="right") - nodes["first_into"]
    return Setup(
        plan=plan,
        names=names,
        edges=edges,
        link_index={edge: i for i, edge in enumerate(edges)},
        nodes=nodes,
        links=link_array,
        queues=filled(QUEUE, first_queue, ("head", "tail")),
        into=into,
        curves=_curves([profiles[next(n for n in names if keys[n] == key)] for key in kinds]),
    )


def longest_path(setup: Setup) -> int:
    """The largest number of hops that a request can take.

    Nodes are visited in the order of their last layers; each is one hop further than the furthest node before it.
    """
    ends = setup.nodes["start"] + setup.nodes["layers"]
    n = setup.num_nodes
    longest = np.zeros(n + 2, dtype=int)
    order = [n, *sorted(range(n), key=lambda i: ends[i]), n + 1]
    rank = {endpoint: r for r, endpoint in enumerate(order)}
    for link in sorted(setup.links, key=lambda link: rank[link["source"]]):
        longest[link["target"]] = max(longest[link["target"]], longest[link["source"]] + 1)
    return int(longest[n + 1])


def carry_statistics(before: Setup, after: Setup) -> None:
    """Nodes and links that both plans use keep their statistics."""
    for i, name in enumerate(after.names):
        if name in before.number_of:
            old = before.nodes[before.number_of[name]]
            for field in ("busy_s", "blocked_s", "steps", "prefill_tokens", "decode_tokens"):
                after.nodes[i][field] = old[field]
    for i, edge in enumerate(after.edges):
        if edge in before.link_index:
            for field in ("busy", "bytes", "messages"):
                after.links[i][field] = before.links[before.link_index[edge]][field]


def request_records(requests: Sequence[Request], chains: tuple[str, ...]) -> np.ndarray:
    """A `REQUEST` record for each request, with its lengths."""
    records = filled(REQUEST, len(requests), chains)
    records["input"] = [r.input_tokens for r in requests]
    records["output"] = [r.output_tokens for r in requests]
    return records


def _links(plan: Plan, wanted: list[Edge], ids: dict[str, int], nodes: np.ndarray) -> tuple[list[Edge], np.ndarray]:
    n = len(ids)
    by_source: dict[str, list[Edge]] = {}
    for source, target in dict.fromkeys(wanted):
        if not {source, target} <= {*ids, COORDINATOR}:
            raise InputError(
                "expected links between nodes of the plan", where="links", field="link", value=[source, target]
            )
        by_source.setdefault(source, []).append((source, target))
    edges = [edge for name in [*ids, COORDINATOR] for edge in by_source.get(name, [])]
    links = filled(LINK, len(edges), ("head", "tail", "draft_head", "draft_tail"))
    for i, (source, target) in enumerate(edges):
        link, quality = links[i], plan.cluster.link(source, target)
        link["source"] = n if source == COORDINATOR else ids[source]
        link["target"] = n + 1 if target == COORDINATOR else ids[target]
        # A link that is wider than the network cards carries as much as they do.
        bandwidth = min(quality.bytes_per_s, plan.cluster.network.nic_bytes_per_s)
        link["bandwidth"] = link["free"] = _round_off(bandwidth)
        link["latency"] = quality.latency_ms * 0.001
        bare = COORDINATOR in (source, target)
        link["bytes_per_token"] = plan.model.token_bytes if bare else plan.model.link_bytes_per_token
        sender = nodes[link["source"]]
        if sender["links"] == 0:
            sender["first_link"] = i
        sender["links"] += 1
    return edges, links


def _round_off(bytes_per_s: float) -> float:
    """Bandwidths are kept in Gbit/s; a conversion error of 1e-7 bytes/s would show in the order of events.

    Next to no bandwidth stays as it is: rounded to zero, no message would ever end.
    """
    return round(bytes_per_s, 3) or bytes_per_s


def _curve_key(plan: Plan, name: str) -> tuple[str, tuple[int, ...]]:
    """What a node's step times depend on: its kind and, where layers differ, the mix of its layers."""
    kind = plan.problem.kind_of[name]
    return kind, plan.profiles[kind].count_kinds(*plan.placement[name])


def _curves(profiles: list[Profile]) -> Curves:
    """The step times of each kind of node, end to end."""
    x: list[float] = []
    y: list[float] = []
    first = np.zeros((len(profiles), 2), dtype=np.int64)
    count = np.zeros((len(profiles), 2), dtype=np.int64)
    for i, profile in enumerate(profiles):
        for phase, curve in enumerate((profile.prefill_ms_per_layer, profile.decode_ms_per_layer)):
            first[i, phase], count[i, phase] = len(x), len(curve.x)
            x += curve.x
            y += [ms * 0.001 for ms in curve.y]
    return Curves(np.array(x), np.array(y), first, count)


def new_clock() -> np.ndarray:
    """The record of time and counters, shape (1,)."""
    clock = np.zeros(1, dtype=CLOCK)
    clock["sink_head"] = clock["sink_tail"] = clock["drafts"] = NONE
    return clock


def new_heap(room: int) -> tuple[np.ndarray, np.ndarray]:
    """An empty event queue: the heap, and the ring of events of the present moment."""
    return np.zeros(room + 1, dtype=EVENT), np.zeros(FIFO_ROOM, dtype=np.int64)
