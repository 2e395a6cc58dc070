"""How fast a machine runs layers of a model: measured tables where there are any, else a roofline estimate."""

from __future__ import annotations

from collections.abc import Mapping

from helix_kit.catalogue import Gpu, GpuLink, gpu_links, gpus
from helix_kit.cluster import Cluster, Node
from helix_kit.model import Model
from helix_kit.profiles.machine_speed import EngineLimits, machine_tables, machine_tokens_per_s
from helix_kit.profiles.node_splits import NodeSplit, how_divided, node_splits
from helix_kit.profiles.profile import Curve, Profile
from helix_kit.profiles.roofline import estimate
from helix_kit.profiles.tables import load_profiles, measured_for, shipped_profiles
from helix_kit.profiles.throughput import throughput_tables
from helix_kit.typical_request import TRACE_LENGTHS, MeanLengths


def profiles_for(
    cluster: Cluster,
    model: Model,
    measured: Mapping[str, Profile] | None = None,
    lengths: MeanLengths = TRACE_LENGTHS,
) -> dict[str, Profile]:
    """The profile of each kind of machine of a cluster.

    `measured` profiles come first. The next choice is a shipped table, if it was measured with the model's layer
    (`measured_for`; the model's name decides nothing) and on a GPU of the catalogue: a GPU that the cluster describes
    itself is another one, whatever its name. A kind without either gets a roofline estimate. Where a node has several
    GPUs and does not say how they divide its layers, that is of the way that serves most (`node_splits`).

    Parameters
    ----------
    cluster
        Its kinds of machine.
    model
        The model whose layers run.
    measured
        Profiles by kind, for example those of `load_profiles`.
    lengths
        Mean lengths of requests, for which nodes with several GPUs divide their layers.

    Returns
    -------
    dict of str to Profile
        By kind of machine, in order of appearance in the cluster.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> profiles_for(Cluster.preset("single24"), Model.preset("llama2-70b"))["T4"].source
    'measured table llama2-70b'
    """
    # Whoever gives a profile says that it holds for this model, such as one with other weights of the same sizes. A
    # shipped table holds for every model with its layer.
    known, shipped = dict(measured or {}), measured_for(model)
    found = {
        kind: known.get(kind) or _profile(cluster, node, model, shipped, lengths)
        for kind, node in _by_kind(cluster).items()
    }
    return {kind: p.model_copy(update={"model": model.name, "kind": kind}) for kind, p in found.items()}


def speed_tables(
    cluster: Cluster, model: Model, profiles: Mapping[str, Profile], lengths: MeanLengths
) -> dict[str, tuple[float, ...]]:
    """T(k) of each kind of machine of a cluster, by the definition that the cluster names.

    Parameters
    ----------
    cluster
        Its `throughput` names the definition.
    model
        The model whose layers run.
    profiles
        Profile of each kind.
    lengths
        Mean lengths of requests.

    Returns
    -------
    dict of str to tuple of float
        By kind: T(1), T(2), ... T(max_layers) in tokens/s.

    Examples
    --------
    >>> from helix_kit.typical_request import TRACE_LENGTHS
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "L4"}, {"gpu": "T4", "count": 2}]})
    >>> model = Model.preset("llama-30b")
    >>> table = speed_tables(cluster, model, profiles_for(cluster, model), TRACE_LENGTHS)
    >>> sorted(table)
    ['L4', 'T4']
    """
    if cluster.throughput == "published":
        return throughput_tables(cluster.kind_counts, model, profiles, lengths)
    return machine_tables(model, {kind: profiles[kind] for kind in cluster.kind_counts}, lengths)


def range_speed(
    cluster: Cluster, profile: Profile, layers: tuple[int, int], num_layers: int, lengths: MeanLengths
) -> float | None:
    """Tokens/s of a machine with a layer range, where the range matters beyond its length.

    Parameters
    ----------
    cluster
        Its `throughput` names the definition. The published one knows the number of layers alone.
    profile
        Of the machine's kind.
    layers
        Range [start, end).
    num_layers
        L, all layers of the model.
    lengths
        Mean lengths of requests.

    Returns
    -------
    float or None
        None where T(k) says it: the layers are alike, or the definition is the published one.

    Examples
    --------
    >>> from helix_kit.typical_request import TRACE_LENGTHS
    >>> cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "H100-80G"}]})
    >>> model = Model.preset("deepseek-v3")
    >>> profile = profiles_for(cluster, model)["H100-80G"]
    >>> dense, experts = (range_speed(cluster, profile, r, 61, TRACE_LENGTHS) for r in ((0, 3), (3, 6)))
    >>> dense > 2 * experts
    True
    """
    if profile.is_uniform or cluster.throughput == "published":
        return None
    return machine_tokens_per_s(profile, layers, num_layers, lengths)


def _by_kind(cluster: Cluster) -> dict[str, Node]:
    return {node.kind: node for node in cluster.nodes}


def _profile(
    cluster: Cluster, node: Node, model: Model, shipped: Mapping[str, Profile], lengths: MeanLengths
) -> Profile:
    link = cluster.gpu_link(node)
    is_usual = node.gpus_per_node == 1 or link == next(iter(gpu_links(node.gpu).values()))
    given = node.tensor_parallel
    # The tables of nodes with several GPUs were measured with all of them sharing each layer.
    if node.base_kind in shipped and node.gpu not in cluster.gpus and is_usual and given in (None, node.gpus_per_node):
        table = shipped[node.base_kind]
        return table if given is None else table.model_copy(update={"tensor_parallel": given})
    if node.gpus_per_node > 1 and given is None:
        return splits_of(cluster, node, model, lengths)[0].profile.model_copy(update={"kind": node.kind})
    return estimate(node, model, cluster.gpu(node.gpu), link=link, memory_share=cluster.memory_share)


def splits_of(cluster: Cluster, node: Node, model: Model, lengths: MeanLengths = TRACE_LENGTHS) -> list[NodeSplit]:
    """All ways to divide the layers of a cluster's node with several GPUs, the one that serves most first.

    Parameters
    ----------
    cluster
        Describes the node's GPUs, the link between them, and the share of their memory.
    node
        One of its machines.
    model
        The model whose layers run.
    lengths
        Mean lengths of requests.

    Returns
    -------
    list of NodeSplit
        At least one.

    Examples
    --------
    >>> cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "H100-80G", "gpus_per_node": 4}]})
    >>> [s.tensor_parallel for s in splits_of(cluster, cluster.nodes[0], Model.preset("llama3.1-70b"))]
    [4, 2, 1]
    """
    gpu, link = cluster.gpu(node.gpu), cluster.gpu_link(node)
    return node_splits(node, model, gpu, link, memory_share=cluster.memory_share, lengths=lengths)


__all__ = [
    "Curve",
    "EngineLimits",
    "Gpu",
    "GpuLink",
    "NodeSplit",
    "Profile",
    "estimate",
    "gpu_links",
    "gpus",
    "how_divided",
    "load_profiles",
    "machine_tables",
    "machine_tokens_per_s",
    "measured_for",
    "profiles_for",
    "range_speed",
    "shipped_profiles",
    "speed_tables",
    "splits_of",
    "throughput_tables",
]
