"""Methods ``separate`` and ``separate-plus`` (Helix, section 6.2): one pipeline for each kind of GPU."""

from __future__ import annotations

from itertools import pairwise

from helix_kit.cluster import COORDINATOR
from helix_kit.errors import InfeasibleError
from helix_kit.flow import Edge, Placement
from helix_kit.placement.baselines.shared import even_sizes, in_a_row, usable_nodes
from helix_kit.placement.method import Placed, Task
from helix_kit.placement.problem import Problem
from helix_kit.profiles.roofline import is_estimate

MAX_OVERLOAD = 1.75
"""A node with a measured table may hold this many times its maximum of layers, as in the published separate pipelines:
the maximum of a table leaves room. That of an estimate is what the memory holds: more of them cannot be loaded."""


def place(task: Task) -> Placed:
    """Method ``separate`` as `helix_kit.placement.methods` lists it."""
    return Placed(*separate_pipelines(task.problem))


def place_plus(task: Task) -> Placed:
    """Method ``separate-plus`` as `helix_kit.placement.methods` lists it."""
    return Placed(*separate_pipelines(task.problem, plus=True))


def separate_pipelines(problem: Problem, *, plus: bool = False) -> tuple[Placement, set[Edge]]:
    """One pipeline for each kind of node, its layers split evenly.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    plus
        Whether the kinds that cannot hold the model alone form one more pipeline together (SP+).

    Returns
    -------
    placement : Placement
        Node name -> layer range [start, end). A node with a measured table may hold up to 1.75 times its maximum.
    links : set of Edge
        The links of the pipelines. Requests use no other links, so they never change pipelines.

    Raises
    ------
    InfeasibleError
        When no kind can hold the model alone.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> cluster = Cluster.model_validate({"name": "two", "nodes": [{"gpu": "A100-40G", "count": 3}, {"gpu": "T4"}]})
    >>> placement, links = separate_pipelines(Problem.of(cluster, Model.preset("llama-30b")))
    >>> placement
    {'A100-40G-0': (0, 20), 'A100-40G-1': (20, 40), 'A100-40G-2': (40, 60)}
    """
    nodes_of_kind: dict[str, list[str]] = {}
    for name in usable_nodes(problem):
        nodes_of_kind.setdefault(problem.kind_of[name], []).append(name)
    placement: dict[str, tuple[int, int]] = {}
    links: set[Edge] = set()
    left_over: list[str] = []

    def most(name: str) -> float:
        """Layers that a node may hold."""
        is_limit = problem.engine is not None or is_estimate(problem.profiles[problem.kind_of[name]])
        return problem.max_layers(name) * (1.0 if is_limit else MAX_OVERLOAD)

    def add_pipeline(names: list[str]) -> bool:
        """Add a pipeline of `names`; False when they cannot hold the model."""
        names = names[: problem.num_layers]
        sizes = even_sizes(problem.num_layers, len(names))
        # Sizes may differ by one: the larger ones go to the nodes that hold more.
        order = sorted(range(len(names)), key=lambda i: problem.max_layers(names[i]))
        size_of = {names[i]: size for i, size in zip(order, sizes)}
        if any(size > most(name) for name, size in size_of.items()):
            return False
        placement.update(in_a_row(names, [size_of[name] for name in names]))
        links.update(pairwise([COORDINATOR, *names, COORDINATOR]))
        return True

    for names in nodes_of_kind.values():
        if not add_pipeline(names):
            left_over += names
    if plus and left_over:
        add_pipeline(left_over)
    if not placement:
        raise InfeasibleError(
            f"no kind of GPU in cluster {problem.cluster.name} can hold {problem.model.name} by itself",
            fix="use method 'pattern', which mixes kinds in a pipeline",
        )
    return placement, links
