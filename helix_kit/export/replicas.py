"""A plan as replicas: pipelines that share no node, since no other engine lets two pipelines share one.

A plan whose pipelines share no node is expressed as it is. Otherwise nodes are shared, or requests enter a node in the
middle of its range. Then the widest pipeline of the placement is taken, its nodes are removed, and so on. A node of a
replica holds only the layers that it runs there. What the replicas carry together is compared with the plan's flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from helix_kit.cluster import COORDINATOR
from helix_kit.errors import InputError
from helix_kit.flow import Pipeline, Stage
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem


class Replica(NamedTuple):
    """A pipeline that is started as one server.

    Examples
    --------
    >>> Replica((Stage("a", 0, 10), Stage("b", 10, 32)), 120.0).partition
    (10, 22)
    """

    stages: Pipeline
    """Nodes in order, with their layers."""
    flow_tokens_per_s: float
    """What it carries: the least of its nodes and links."""

    @property
    def partition(self) -> tuple[int, ...]:
        """Layers of each stage."""
        return tuple(stage.end - stage.start for stage in self.stages)


@dataclass(frozen=True)
class Replicas:
    """The replicas of a plan, and what is lost by them.

    Examples
    --------
    >>> Replicas((), 100.0, is_exact=False, unused=("a",)).loss
    1.0
    """

    replicas: tuple[Replica, ...]
    """The most flow first."""
    plan_flow_tokens_per_s: float
    """Flow of the plan."""
    is_exact: bool
    """Whether they are the plan's own pipelines."""
    unused: tuple[str, ...]
    """Nodes of the plan that are in no replica."""

    @property
    def flow_tokens_per_s(self) -> float:
        """What the replicas carry together."""
        return sum(replica.flow_tokens_per_s for replica in self.replicas)

    @property
    def loss(self) -> float:
        """Share of the plan's flow that the replicas do not carry."""
        return max(0.0, 1 - self.flow_tokens_per_s / self.plan_flow_tokens_per_s)

    @property
    def weights(self) -> tuple[int, ...]:
        """Requests for each replica, in proportion to its flow; the largest is 100."""
        most = max(replica.flow_tokens_per_s for replica in self.replicas)
        return tuple(max(1, round(100 * replica.flow_tokens_per_s / most)) for replica in self.replicas)


def replicas_of(plan: Plan) -> Replicas:
    """The replicas of a plan.

    Parameters
    ----------
    plan
        A plan that carries flow.

    Returns
    -------
    Replicas
        At least one.

    Raises
    ------
    InputError
        A plan without flow.

    Examples
    --------
    >>> from helix_kit import Cluster, Model
    >>> problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    >>> names = [node.name for node in problem.cluster.nodes][:2]
    >>> plan = Plan.from_placement(problem, {names[0]: (0, 15), names[1]: (15, 30)}, method="hand")
    >>> found = replicas_of(plan)
    >>> found.is_exact, found.replicas[0].partition
    (True, (15, 15))
    """
    if plan.flow_tokens_per_s <= 0 or not plan.pipelines:
        raise InputError("expected a plan that carries flow", where="export", field="plan", value=plan.cluster.name)
    used = [stage.node for pipeline, _ in plan.pipelines for stage in pipeline]
    if len(used) == len(set(used)):
        own = [Replica(pipeline, flow) for pipeline, flow in plan.pipelines]
        return _sorted(plan, own, is_exact=True)
    widest: list[Replica] = []
    free = set(plan.placement)
    while (found := _widest(plan, free)) is not None:
        widest.append(found)
        free -= {stage.node for stage in found.stages}
    first_come: list[Replica] = []
    taken: set[str] = set()
    for pipeline, _ in sorted(plan.pipelines, key=lambda p: -p[1]):
        nodes = {stage.node for stage in pipeline}
        if not nodes & taken:
            first_come.append(Replica(pipeline, _capacity(plan.problem, pipeline)))
            taken |= nodes
    best = max((widest, first_come), key=lambda replicas: sum(r.flow_tokens_per_s for r in replicas))
    return _sorted(plan, best, is_exact=False)


def _sorted(plan: Plan, replicas: list[Replica], *, is_exact: bool) -> Replicas:
    ordered = tuple(sorted(replicas, key=lambda r: (-r.flow_tokens_per_s, r.stages)))
    held = {stage.node for replica in ordered for stage in replica.stages}
    return Replicas(ordered, plan.flow_tokens_per_s, is_exact, tuple(sorted(set(plan.placement) - held)))


def _capacity(problem: Problem, pipeline: Pipeline) -> float:
    """Tokens/s of a pipeline of its own: the least of its nodes, which hold only these layers, and its links."""
    nodes = [problem.throughput(stage.node, stage.end - stage.start) for stage in pipeline]
    hops = [COORDINATOR, *(stage.node for stage in pipeline), COORDINATOR]
    links = [problem.link_capacity(a, b) for a, b in pairwise(hops)]
    return min([*nodes, *links])


def _widest(plan: Plan, free: set[str]) -> Replica | None:
    """The pipeline of free nodes with the largest capacity; None when they cover the layers no more.

    A pipeline is extended by its last layer: of all that end at one node with one layer, only the widest can be part of
    the widest whole.
    """
    problem, last = plan.problem, plan.problem.num_layers
    best: dict[tuple[str, int], tuple[float, Pipeline]] = {}
    for node in sorted(free, key=lambda n: (plan.placement[n][1], n)):
        start, end = plan.placement[node]
        for (earlier, done), (capacity, pipeline) in [((COORDINATOR, 0), (float("inf"), ())), *best.items()]:
            if not start <= done < end:
                continue
            wider = min(capacity, problem.throughput(node, end - done), problem.link_capacity(earlier, node))
            if wider > best.get((node, end), (0.0, ()))[0]:
                best[node, end] = (wider, (*pipeline, Stage(node, done, end)))
    wholes = [
        Replica(pipeline, min(capacity, problem.link_capacity(node, COORDINATOR)))
        for (node, end), (capacity, pipeline) in best.items()
        if end == last
    ]
    return max(wholes, key=lambda r: (r.flow_tokens_per_s, r.stages), default=None)


class Rank(NamedTuple):
    """One rank of pipeline parallelism.

    Examples
    --------
    >>> Rank("a", (0, 1), 16).gpus
    (0, 1)
    """

    node: str
    """Where it runs."""
    gpus: tuple[int, ...]
    """Its GPUs on the node; several are tensor parallel."""
    layers: int
    """Layers that it holds."""


def ranks_of(replica: Replica, plan: Plan, *, may_join_gpus: bool = True) -> tuple[Rank, ...]:
    """The ranks of a replica, in order.

    Engines have one tensor parallel size for all ranks. Where all nodes have as many GPUs, a node is a rank, or several
    if its `tensor_parallel` says so. Otherwise, or where GPUs may not be joined, each GPU is a rank. The node's layers
    are divided among its ranks.

    Parameters
    ----------
    replica
        One of `replicas_of`.
    plan
        Its plan.
    may_join_gpus
        Whether the engine has tensor parallelism.

    Returns
    -------
    tuple of Rank
        Together they hold all layers.

    Examples
    --------
    >>> from helix_kit import Cluster, Model
    >>> problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    >>> names = [node.name for node in problem.cluster.nodes][:2]
    >>> plan = Plan.from_placement(problem, {names[0]: (0, 12), names[1]: (12, 30)}, method="hand")
    >>> [rank.layers for rank in ranks_of(replicas_of(plan).replicas[0], plan)]
    [12, 18]
    """
    nodes = [plan.cluster.node(stage.node) for stage in replica.stages]
    sizes = {node.tensor_parallel or node.gpus_per_node for node in nodes}
    joined = max(sizes) if len(sizes) == 1 and may_join_gpus else 1
    ranks = []
    for stage, node in zip(replica.stages, nodes, strict=True):
        layers = stage.end - stage.start
        used = min(node.gpus_per_node // joined, layers)
        shares = [layers // used + (i < layers % used) for i in range(used)]
        gpus = [tuple(range(i * joined, (i + 1) * joined)) for i in range(used)]
        ranks += [Rank(stage.node, own, share) for own, share in zip(gpus, shares, strict=True)]
    return tuple(ranks)


__all__ = ["Rank", "Replica", "Replicas", "ranks_of", "replicas_of"]
