"""Method ``replicas``: pipelines that share no node, each with the whole model, as engines such as vLLM run them.

Nodes of one kind in one region are a group. A pattern says how many nodes of each group form a chain with all L
layers. Its flow is the largest f with

    sum_g n_g K_g(f) >= L, where K_g(f) = max { k : T_g(k) >= f },

and at most what the usual link between two of its groups carries. An integer program then takes as many chains of each
pattern as the nodes allow, for the most flow: max sum_p f_p x_p, with sum_p n_pg x_p <= N_g for every group g. Nodes of
a group are given to chains so that slower links than the usual ones are not used where that is possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from statistics import median_low

import numpy as np

from helix_kit.cluster import COORDINATOR
from helix_kit.errors import InfeasibleError
from helix_kit.flow import Edge
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.method import Placed, Task
from helix_kit.placement.problem import Problem

MAX_PATTERNS = 4000
"""Patterns that are considered; chains of few nodes come first."""
MAX_GAP, MAX_NODES = 2e-3, 2000
"""Where the integer program ends: its relative gap, and nodes of its tree."""
EXTRA_STAGES = 3
"""Nodes of a chain beyond the fewest that hold the model: each adds KV cache and shortens the others' ranges."""


@dataclass(frozen=True)
class Pattern:
    """How many nodes of each group form a chain, and what it carries.

    Examples
    --------
    >>> Pattern((2, 0), 100.0).size
    2
    """

    counts: tuple[int, ...]
    """Of each group."""
    flow: float
    """Tokens/s."""

    @property
    def size(self) -> int:
        """Nodes of the chain."""
        return sum(self.counts)


def place(task: Task) -> Placed:
    """Method ``replicas`` as `helix_kit.placement.methods` lists it."""
    found = best_replicas(task.problem, max_stages=task.options.max_stages)
    if found is None:
        raise InfeasibleError(
            f"no chain of nodes in cluster {task.problem.cluster.name} can hold {task.problem.model.name}",
            fix="more or larger GPUs, or a smaller model",
        )
    return found


def best_replicas(problem: Problem, *, max_stages: int | None = None) -> Placed | None:
    """The set of chains with the most flow.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    max_stages
        The largest number of nodes in a chain; None: as many as help.

    Returns
    -------
    Placed or None
        Placement and links of the chains; None where no chain holds the model.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> cluster = Cluster.model_validate({"name": "four", "nodes": [{"gpu": "A100-40G", "count": 4}]})
    >>> best_replicas(Problem.of(cluster, Model.preset("llama-30b"))).placement
    {'A100-40G-0': (0, 15), 'A100-40G-1': (15, 30), 'A100-40G-2': (30, 45), 'A100-40G-3': (45, 60)}
    """
    groups = groups_of(problem)
    patterns = _useful(list(patterns_of(problem, groups, max_stages)))
    if not patterns:
        return None
    used = _chosen(patterns, groups)
    named = _with_own_links(problem)
    # Those with links of their own come first, while there are many nodes to go round a slow link by.
    free = [sorted(group.nodes, key=lambda node: node not in named) for group in groups]
    placement: dict[str, tuple[int, int]] = {}
    links: set[Edge] = set()
    for pattern, times in zip(patterns, used, strict=True):
        for _ in range(times):
            start, chain = 0, [COORDINATOR]
            for index, layers in _ranges(groups, pattern, problem.num_layers):
                node = _next_node(problem, chain[-1], free[index], pattern.flow)
                free[index].remove(node)
                placement[node] = (start, start + layers)
                start += layers
                chain.append(node)
            links.update(pairwise([*chain, COORDINATOR]))
    return Placed(placement, links)


def patterns_of(problem: Problem, groups: Sequence[Group], max_stages: int | None = None) -> Iterator[Pattern]:
    """Patterns of chains, the shortest first; every other node of a chain is needed, or one of `EXTRA_STAGES`."""
    longest = sorted((group.max_layers for group in groups for _ in group.nodes), reverse=True)
    fewest = next((n for n in range(1, len(longest) + 1) if sum(longest[:n]) >= problem.num_layers), None)
    if fewest is None:
        return
    by_group = [-(-problem.num_layers // max(1, group.max_layers)) for group in groups]
    top = min(max_stages or problem.num_layers, problem.num_layers, len(longest), max(fewest, *by_group) + EXTRA_STAGES)
    links = _usual_links(problem, groups)
    count = 0
    for size in range(fewest, top + 1):
        for counts in _compositions(size, [len(group.nodes) for group in groups]):
            used = [i for i, n in enumerate(counts) if n]
            if sum(counts[i] * groups[i].max_layers for i in used) < problem.num_layers:
                continue
            # A node that holds the whole model is a chain by itself; its speed says nothing of shorter ranges.
            flow = _flow(
                groups, counts, problem.num_layers, problem.num_layers if size == 1 else problem.num_layers - 1
            )
            if size > 1:
                flow = min([flow, *(links[i, j] for i in used for j in used if i != j or counts[i] > 1)])
            if flow > 0:
                yield Pattern(counts, flow)
                count += 1
                if count >= MAX_PATTERNS:
                    return


def _longest(group: Group, flow: float, limit: int | None = None) -> int:
    """K(f): the largest number of layers, at most `limit`, with which a node of the group carries the flow.

    >>> _longest(Group("T4", "us", ("T4-0", "T4-1"), (90.0, 40.0)), 50.0)
    1
    """
    return max((k for k, speed in enumerate(group.throughput[:limit], 1) if speed >= flow), default=0)


def _useful(patterns: list[Pattern]) -> list[Pattern]:
    """Patterns that carry more than any that takes no node more of any group."""
    if not patterns:
        return []
    counts = np.array([pattern.counts for pattern in patterns])
    flows = np.array([pattern.flow for pattern in patterns])
    order = sorted(range(len(patterns)), key=lambda i: (patterns[i].size, -flows[i]))
    kept: list[int] = []
    for i in order:
        smaller = (counts[kept] <= counts[i]).all(axis=1)
        if not (smaller & (flows[kept] >= flows[i])).any():
            kept.append(i)
    return [patterns[i] for i in kept]


def _compositions(total: int, limits: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All ways to take `total` nodes from groups of these sizes."""
    if not limits:
        if total == 0:
            yield ()
        return
    for first in range(min(total, limits[0]), -1, -1):
        if total - first <= sum(limits[1:]):
            for rest in _compositions(total - first, limits[1:]):
                yield (first, *rest)


def _flow(groups: Sequence[Group], counts: Sequence[int], layers: int, limit: int) -> float:
    """The largest flow with which nodes of at most `limit` layers hold all of them: one of the nodes' own speeds."""
    speeds = sorted({speed for group, n in zip(groups, counts, strict=True) if n for speed in group.throughput[:limit]})
    low, high = -1, len(speeds) - 1
    while low < high:  # speeds[low] is enough, or low is -1; flows above speeds[high] are too much.
        middle = (low + high + 1) // 2
        held = sum(n * _longest(group, speeds[middle], limit) for group, n in zip(groups, counts, strict=True) if n)
        low, high = (middle, high) if held >= layers else (low, middle - 1)
    return speeds[low] if low >= 0 else 0.0


def _with_own_links(problem: Problem) -> set[str]:
    """Nodes that the cluster names in a link that differs; regions may be among the names."""
    return {end for link in problem.cluster.network.links for end in link.ends}


def _usual_links(problem: Problem, groups: Sequence[Group]) -> dict[tuple[int, int], float]:
    """Tokens/s of the median link between nodes of two groups; `_next_node` goes round those that are slower."""
    named = _with_own_links(problem)
    found = {}
    for i, a in enumerate(groups):
        for j, b in enumerate(groups):
            pairs = ((x, y) for x in a.nodes for y in b.nodes if x != y)
            most = 1 if named.isdisjoint((*a.nodes, *b.nodes)) else None  # the others are alike
            speeds = [problem.link_capacity(x, y) for x, y in islice(pairs, most)]
            found[i, j] = median_low(speeds) if speeds else 0.0
    return found


def _next_node(problem: Problem, before: str, free: Sequence[str], flow: float) -> str:
    """The first free node whose link from the one before carries the flow; without one, that with the widest link."""
    if before == COORDINATOR:
        return free[0]
    speeds = {node: problem.link_capacity(before, node) for node in free}
    return next((node for node, speed in speeds.items() if speed >= flow), max(speeds, key=speeds.__getitem__))


def _chosen(patterns: Sequence[Pattern], groups: Sequence[Group]) -> list[int]:
    """How many chains of each pattern carry the most together."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    uses = np.array([pattern.counts for pattern in patterns], dtype=float).T
    sizes = [float(len(group.nodes)) for group in groups]
    # Of equal flows the one with fewer nodes: shorter chains answer sooner.
    value = np.array([pattern.flow * (1 - 1e-6 * pattern.size) for pattern in patterns])
    found = milp(-value, constraints=LinearConstraint(uses, ub=sizes), integrality=np.ones(len(patterns)),
                 bounds=Bounds(0, np.inf), options={"mip_rel_gap": MAX_GAP, "node_limit": MAX_NODES})  # fmt: skip
    return [round(x) for x in found.x]


def _ranges(groups: Sequence[Group], pattern: Pattern, layers: int) -> list[tuple[int, int]]:
    """(group, layers) of each node of a chain, regions one after another; no node is slower than the flow."""
    order = sorted((i for i, n in enumerate(pattern.counts) if n), key=lambda i: (groups[i].region, -pattern.counts[i]))
    chain = [i for i in order for _ in range(pattern.counts[i])]
    limit = layers if len(chain) == 1 else layers - 1
    # A link may carry less than the nodes do.
    sizes = [_longest(groups[i], pattern.flow, limit) for i in chain]
    for _ in range(sum(sizes) - layers):
        # The slowest node gives a layer up; of equally slow ones the one with the most layers.
        at = min(
            (n for n, k in enumerate(sizes) if k > 1),
            key=lambda n: (groups[chain[n]].throughput[sizes[n] - 1], -sizes[n]),
        )
        sizes[at] -= 1
    return list(zip(chain, sizes, strict=True))


__all__ = ["best_replicas"]
