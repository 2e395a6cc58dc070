"""Maximum flows of many placements of the same nodes, from arrays: thousands a second for two dozen nodes.

The network and its capacities are those of `build_flow_graph`; the algorithm is scipy's (Dinic). Used where a search
asks for the value of the flow only, again and again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from helix_kit.cluster import COORDINATOR, Cluster
from helix_kit.flow.network import MILLI, card_capacity_tokens_per_s, link_capacity_tokens_per_s
from helix_kit.model import Model

MAX_CAPACITY = 2_000_000_000
"""Milli-tokens/s. scipy keeps capacities in 32 bits, so larger ones are cut down to this; no flow comes near."""


class ArrayFlows:
    """Values of maximum flows of placements of the same nodes.

    Parameters
    ----------
    cluster, model
        The descriptions.
    throughput
        Node name -> its table T(k) in tokens/s (index k - 1). The names and their order are those of the arrays.
    partial_inference
        Whether a request may enter a node's range after its first layer.

    Examples
    --------
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "T4", "count": 2}]})
    >>> model = Model.preset("llama2-70b").model_copy(update={"num_layers": 2})
    >>> flows = ArrayFlows(cluster, model, {"T4-0": [12.0, 6.0], "T4-1": [9.5, 5.0]}, partial_inference=True)
    >>> flows.tokens_per_s(np.array([0, 1]), np.array([0, 1]), np.array([1, 2]))
    9.5
    """

    def __init__(
        self, cluster: Cluster, model: Model, throughput: Mapping[str, Sequence[float]], *, partial_inference: bool
    ) -> None:
        self.names, self.num_layers = list(throughput), model.num_layers
        self.index = {name: i for i, name in enumerate(self.names)}
        """Node name -> its number in the arrays."""
        self._partial_inference = partial_inference

        def link(source: str, target: str) -> int:
            return 0 if source == target else _milli(link_capacity_tokens_per_s(cluster, model, source, target))

        self._links = np.array([[link(a, b) for b in self.names] for a in self.names], np.int32)
        self._from_coordinator = np.array([link(COORDINATOR, a) for a in self.names], np.int32)
        self._to_coordinator = np.array([link(a, COORDINATOR) for a in self.names], np.int32)
        # _throughput[node, k]: milli-tokens/s with k layers.
        self._throughput = np.zeros((len(self.names), max(len(table) for table in throughput.values()) + 1), np.int32)
        for i, table in enumerate(throughput.values()):
            self._throughput[i, 1 : len(table) + 1] = [_milli(t) for t in table]
        card = card_capacity_tokens_per_s(cluster, model)
        self._card, self._card_of_token_ids = _milli(card.activations), _milli(card.token_ids)

    def tokens_per_s(self, nodes: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> float:
        """The maximum flow of one placement.

        Parameters
        ----------
        nodes
            Numbers of the placed nodes, shape (n,), each at most once.
        starts, ends
            Their layer ranges [start, end), shape (n,) each.

        Returns
        -------
        float
            Tokens/s, exact to the milli-token.
        """
        count = len(nodes)
        follows = (starts <= ends[:, None]) & (ends[:, None] < ends)
        if not self._partial_inference:
            follows = starts == ends[:, None]
        tails, heads = np.nonzero(follows)
        every = np.arange(count)
        first, last = every[starts == 0], every[ends == self.num_layers]
        # The rule of `card_capacity_tokens_per_s`: a node that another one feeds gets activations, and a node whose
        # range ends with the last layer sends to the coordinator only.
        is_fed = np.bincount(heads, minlength=count) > 0
        card_in = np.where((starts == 0) & ~is_fed, self._card_of_token_ids, self._card)
        card_out = np.where(ends == self.num_layers, self._card_of_token_ids, self._card)
        throughput = self._throughput[nodes, ends - starts]
        node_capacity = np.minimum(throughput, np.minimum(card_in, card_out)).astype(np.int32)
        # Vertices: entries 0..n-1, exits n..2n-1, then source and sink.
        source, sink = 2 * count, 2 * count + 1
        rows = np.concatenate([every, tails + count, np.full(len(first), source), last + count])
        columns = np.concatenate([every + count, heads, first, np.full(len(last), sink)])
        capacity = np.concatenate(
            [
                node_capacity,
                self._links[nodes[tails], nodes[heads]],
                self._from_coordinator[nodes[first]],
                self._to_coordinator[nodes[last]],
            ]
        )
        graph = csr_array((capacity, (rows, columns)), shape=(sink + 1, sink + 1))
        return float(maximum_flow(graph, source, sink).flow_value) / MILLI


def _milli(tokens_per_s: float) -> int:
    return min(MAX_CAPACITY, int(tokens_per_s * MILLI))


__all__ = ["ArrayFlows"]
