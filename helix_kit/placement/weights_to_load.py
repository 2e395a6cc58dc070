"""The weights that a node has to load when its layer range changes.

A node loads the layers of its new range that its old one lacks. The node with the first layer also holds the embedding,
the one with the last layer the output projection. A node is the same machine in both plans if its name, GPU, number of
GPUs and region are the same; another machine of that name holds nothing yet.
"""

from __future__ import annotations

from helix_kit.cluster import Node
from helix_kit.flow import Placement
from helix_kit.model import Model
from helix_kit.placement.problem import Problem

Span = tuple[int, int]
"""A layer range [start, end)."""


def layers_to_load(before: Span | None, after: Span | None) -> int:
    """Layers of a node's new range that its old one lacks.

    Parameters
    ----------
    before, after
        Layer ranges [start, end); None where it holds none.

    Returns
    -------
    int
        Number of layers.

    Examples
    --------
    >>> layers_to_load((0, 6), (2, 7)), layers_to_load(None, (2, 7)), layers_to_load((2, 7), None)
    (1, 5, 0)
    """
    if after is None:
        return 0
    kept = 0 if before is None else max(0, min(before[1], after[1]) - max(before[0], after[0]))
    return after[1] - after[0] - kept


def gb_to_load(model: Model, before: Span | None, after: Span | None) -> float:
    """Weights of the layers of a node's new range that its old one lacks, in 10^9 bytes.

    Parameters
    ----------
    model
        Its layers may differ.
    before, after
        Layer ranges [start, end); None where it holds none.

    Returns
    -------
    float
        GB without embedding and output projection.

    Examples
    --------
    >>> round(gb_to_load(Model.preset("deepseek-v3"), None, (0, 4)), 1)
    13.3
    """
    if model.is_uniform or after is None:
        return layers_to_load(before, after) * model.layer_gb
    start, end = after if before is None else (max(before[0], after[0]), min(before[1], after[1]))
    kept_gb = model.layers_gb(start, end) if before is not None and start < end else 0.0
    return model.layers_gb(*after) - kept_gb


def tables_to_load(model: Model, before: Span | None, after: Span | None) -> int:
    """How many of embedding and output projection a node's new range needs that its old one does not hold.

    Parameters
    ----------
    model
        Tied embeddings are one table.
    before, after
        Layer ranges [start, end); None where it holds none.

    Returns
    -------
    int
        0, 1 or 2, each of the size `Model.embedding_gb`.

    Examples
    --------
    >>> model = Model.preset("llama-30b")
    >>> tables_to_load(model, None, (0, 60)), tables_to_load(model, (0, 6), (0, 8))
    (2, 0)
    """
    return len(_tables(after, model) - _tables(before, model))


def same_machines(before: Problem, old: Placement, after: Problem) -> dict[str, Span]:
    """What nodes of another cluster hold already: the ranges of those that are the same machines in both.

    Parameters
    ----------
    before, old
        The problem in which a placement is in use, and that placement.
    after
        The problem of the other cluster.

    Returns
    -------
    dict
        Node name -> layer range [start, end).

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> model = Model.preset("SmolLM2-135M")
    >>> here, there = (Problem.of(Cluster.model_validate({"name": "c", "nodes": [{"name": "a", "gpu": gpu}]}), model)
    ...                for gpu in ("L4", "T4"))
    >>> same_machines(here, {"a": (0, 30)}, here), same_machines(here, {"a": (0, 30)}, there)
    ({'a': (0, 30)}, {})
    """
    gone = {node.name for node in other_machines(before, after)}
    names = {node.name for node in after.cluster.nodes} - gone
    return {name: span for name, span in old.items() if name in names}


def other_machines(before: Problem, after: Problem) -> list[Node]:
    """Nodes of the new cluster that have the name of an old node but are another machine."""
    old = {n.name: (n.gpu, n.gpus_per_node, n.region) for n in before.cluster.nodes}
    return [n for n in after.cluster.nodes if n.name in old and old[n.name] != (n.gpu, n.gpus_per_node, n.region)]


def _tables(span: Span | None, model: Model) -> set[str]:
    """The embedding and the output projection, as far as a node with this range holds them."""
    if span is None:
        return set()
    output = "embedding" if model.tied_embeddings else "output projection"  # tied embeddings are one table
    return ({"embedding"} if span[0] == 0 else set()) | ({output} if span[1] == model.num_layers else set())


__all__ = ["gb_to_load", "layers_to_load", "same_machines", "tables_to_load"]
