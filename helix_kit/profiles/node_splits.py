"""How the GPUs of a node divide its layers: together, in turn, or in groups; and which of these serves more.

With tensor parallelism the GPUs compute each layer together, and add up their parts over the link between them: a step
reads each weight once, but waits for two all-reduces a layer. In turn, each GPU has layers of its own and works on
other requests than its neighbour: nothing is added up, but each GPU reads its weights for a part of the requests alone.
A node with 4 GPUs and ``tensor_parallel: 2`` is two groups in turn, of two GPUs that share each layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from helix_kit.catalogue import Gpu, GpuLink
from helix_kit.cluster import Node
from helix_kit.model import Model
from helix_kit.profiles.machine_speed import machine_tables
from helix_kit.profiles.profile import Profile
from helix_kit.profiles.roofline import estimate
from helix_kit.typical_request import TRACE_LENGTHS, MeanLengths


def undivided(model: Model, ranks: int) -> tuple[str, int, str] | None:
    """The size of a model that `ranks` GPUs cannot share evenly: its name, its value, and what is expected.

    Parameters
    ----------
    model
        Its heads and its MLP are divided.
    ranks
        GPUs that compute each layer together.

    Returns
    -------
    tuple or None
        None where all sizes divide. Fewer key and value heads than GPUs do if several GPUs can hold the same one.

    Examples
    --------
    >>> undivided(Model.preset("llama3.1-70b"), 8), undivided(Model.preset("llama3.1-70b"), 16)
    (None, None)
    >>> undivided(Model.preset("SmolLM2-135M"), 2)
    ('num_heads', 9, 'a multiple of 2')
    """
    for field in ("num_heads", "intermediate_size"):
        if getattr(model, field) % ranks:
            return field, getattr(model, field), f"a multiple of {ranks}"
    if model.num_kv_heads % ranks and ranks % model.num_kv_heads:
        return "num_kv_heads", model.num_kv_heads, f"a multiple or a divisor of {ranks}"
    return None


def how_divided(tensor_parallel: int, groups: int) -> str:
    """How the GPUs of a node divide its layers, in words.

    Parameters
    ----------
    tensor_parallel
        GPUs that compute each layer together.
    groups
        Groups of them, which take the layers in turn.

    Returns
    -------
    str
        A clause.

    Examples
    --------
    >>> how_divided(4, 1), how_divided(1, 4)
    ('4 GPUs share each layer (tensor parallel 4)', '4 GPUs take the layers in turn')
    >>> how_divided(2, 2)
    '2 groups of 2 GPUs take the layers in turn (tensor parallel 2 in each)'
    """
    if groups == 1:
        return f"{tensor_parallel} GPUs share each layer (tensor parallel {tensor_parallel})"
    if tensor_parallel == 1:
        return f"{groups} GPUs take the layers in turn"
    return (
        f"{groups} groups of {tensor_parallel} GPUs take the layers in turn (tensor parallel {tensor_parallel} in each)"
    )


@dataclass(frozen=True)
class NodeSplit:
    """One way to divide a node's layers, and the speed that it is estimated to have.

    Examples
    --------
    >>> model = Model.preset("llama3.1-70b")
    >>> from helix_kit.catalogue import gpu_links, gpus
    >>> node = Node(name="a", gpu="H100-80G", gpus_per_node=2)
    >>> splits = node_splits(node, model, gpus()["H100-80G"], gpu_links("H100-80G")["nvlink"], memory_share=0.9)
    >>> [(split.tensor_parallel, split.groups) for split in splits]
    [(2, 1), (1, 2)]
    """

    profile: Profile
    """Its estimate."""
    work: float
    """The most that the node does with it: layers times tokens/s, for any number of layers."""

    @property
    def tensor_parallel(self) -> int:
        """GPUs that compute each layer together."""
        return self.profile.tensor_parallel

    @property
    def groups(self) -> int:
        """Groups of them, which take the layers in turn."""
        return self.profile.groups_in_turn


def node_splits(
    node: Node,
    model: Model,
    gpu: Gpu,
    link: GpuLink,
    *,
    memory_share: float,
    lengths: MeanLengths = TRACE_LENGTHS,
) -> list[NodeSplit]:
    """All ways to divide the layers of a node with several GPUs, the one that serves most first.

    Parameters
    ----------
    node
        The machine; its own `tensor_parallel` is not looked at.
    model
        The model whose layers run. Numbers of GPUs that cannot share its heads evenly are left out.
    gpu, link
        Figures of its GPUs and of the link between them.
    memory_share
        Share of each GPU's memory for weights, embeddings and KV cache.
    lengths
        Mean lengths of requests.

    Returns
    -------
    list of NodeSplit
        At least one: layers in turn are always possible.

    Examples
    --------
    A slow link makes layers in turn the better way:

    >>> from helix_kit.catalogue import gpus
    >>> slow = GpuLink("given", bandwidth_gbps=1.0, latency_ms=0.1, source="by hand")
    >>> node = Node(name="a", gpu="H100-80G", gpus_per_node=2)
    >>> splits = node_splits(node, Model.preset("llama3.1-70b"), gpus()["H100-80G"], slow, memory_share=0.9)
    >>> splits[0].tensor_parallel
    1
    """
    n = node.gpus_per_node
    found = []
    for ranks in range(n, 0, -1):
        if n % ranks or undivided(model, ranks):
            continue
        divided = node.model_copy(update={"tensor_parallel": ranks})
        profile = estimate(divided, model, gpu, link=link, memory_share=memory_share)
        [table] = machine_tables(model, {node.kind: profile}, lengths).values()
        found.append(NodeSplit(profile, max((k * speed for k, speed in enumerate(table, 1)), default=0.0)))
    return sorted(found, key=lambda split: -split.work)


__all__ = ["NodeSplit", "how_divided", "node_splits", "undivided"]
