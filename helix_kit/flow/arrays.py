"""Maximum flows of many placements of the same nodes, from arrays: thousands a second for two dozen nodes.

The network and its capacities are those of `build_flow_graph`; the algorithm is scipy's (Dinic). Used where a search
asks for the value of the flow only, again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from helix_kit.cluster import COORDINATOR, Cluster
from helix_kit.flow.network import MILLI, Placement, card_capacity_tokens_per_s, link_capacity_tokens_per_s
from helix_kit.model import Model

MAX_CAPACITY = 2_000_000_000
"""Units of flow. scipy keeps capacities in 32 bits, so larger ones are cut down to this. Units are milli-tokens/s, and
larger where the nodes together could carry more than this many."""
Integers = NDArray[np.int64]


class Capacities(NamedTuple):
    """Capacities of some nodes and of the links between them, in units of flow."""

    throughput: Integers
    """By column, shape (nodes, columns): see `columns`."""
    links: Integers
    """From each node to each, shape (nodes, nodes)."""
    from_coordinator: Integers
    to_coordinator: Integers
    card: int
    """What a network card carries with activations."""
    card_of_token_ids: int
    columns: Integers
    """Column of `throughput` for a range [s, e), shape (L + 1, L + 1). Where layers are alike it is e - s."""


class ArrayFlows:
    """Values of maximum flows of placements of the same nodes.

    Parameters
    ----------
    cluster, model
        The descriptions.
    throughput
        Node name -> its table T(k) in tokens/s (index k - 1). The names and their order are those of the arrays.
    columns
        Where layers differ, index in the tables of each range [s, e), plus one, shape (L + 1, L + 1). None: e - s.
    partial_inference
        Whether a request may enter a node's range after its first layer.
    passes_per_token
        As for `helix_kit.flow.link_capacity_tokens_per_s`.

    Examples
    --------
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "T4", "count": 2}]})
    >>> model = Model.preset("llama2-70b").model_copy(update={"num_layers": 2})
    >>> flows = ArrayFlows(cluster, model, {"T4-0": [12.0, 6.0], "T4-1": [9.5, 5.0]}, partial_inference=True)
    >>> flows.tokens_per_s(np.array([0, 1]), np.array([0, 1]), np.array([1, 2]))
    9.5
    """

    def __init__(
        self,
        cluster: Cluster,
        model: Model,
        throughput: Mapping[str, Sequence[float]],
        *,
        partial_inference: bool,
        passes_per_token: float = 1.0,
        columns: Integers | None = None,
    ) -> None:
        self.names, self.num_layers = list(throughput), model.num_layers
        self.index = {name: i for i, name in enumerate(self.names)}
        """Node name -> its number in the arrays."""
        self.partial_inference = partial_inference
        # Whatever the placement, a flow is at most the sum of max_k k T(k) / L.
        layers = np.arange(model.num_layers + 1)
        lengths = np.maximum(0, layers[None, :] - layers[:, None])
        self.columns = lengths if columns is None else columns
        """Column of a node's throughput for a range [s, e), shape (L + 1, L + 1)."""
        length_of = dict(zip(self.columns.ravel().tolist(), lengths.ravel().tolist()))
        likely = sum(
            max((length_of.get(column, 0) * t for column, t in enumerate(table, 1)), default=0.0)
            for table in throughput.values()
        )
        self.units_per_token = min(float(MILLI), MAX_CAPACITY * model.num_layers / max(likely, 1e-9))
        """Units of flow in one token/s."""

        def units(tokens_per_s: float) -> int:
            return min(MAX_CAPACITY, int(tokens_per_s * self.units_per_token))

        def link(source: str, target: str) -> int:
            if source == target:
                return 0
            return units(link_capacity_tokens_per_s(cluster, model, source, target, passes_per_token))

        self._links = self._link_table(cluster, link)
        self._from_coordinator = np.array([link(COORDINATOR, a) for a in self.names], np.int32)
        self._to_coordinator = np.array([link(a, COORDINATOR) for a in self.names], np.int32)
        # _throughput[node, column]: units of flow, with k layers in column k where layers are alike.
        self._throughput = np.zeros((len(self.names), max(len(table) for table in throughput.values()) + 1), np.int32)
        for i, table in enumerate(throughput.values()):
            self._throughput[i, 1 : len(table) + 1] = [units(t) for t in table]
        card = card_capacity_tokens_per_s(cluster, model, passes_per_token)
        self._card, self._card_of_token_ids = units(card.activations), units(card.token_ids)
        self.throughput_tokens_per_s = self._throughput / self.units_per_token
        """Tokens/s of each node by column, shape (nodes, columns)."""

    def _link_table(self, cluster: Cluster, link: Callable[[str, str], int]) -> NDArray[np.int32]:
        """The capacity of the link from each node to each. Links without a rule of their own are equal by region."""
        special = {pair for rule in cluster.network.links for pair in (rule.ends, rule.ends[::-1])}
        regions = [cluster.region_of(name) for name in self.names]
        usual: dict[tuple[str, str], int] = {}
        table = np.zeros((len(self.names), len(self.names)), np.int32)
        for i, a in enumerate(self.names):
            for j, b in enumerate(self.names):
                key = regions[i], regions[j]
                if i == j:
                    continue
                if (a, b) in special:
                    table[i, j] = link(a, b)
                    continue
                if key not in usual:
                    usual[key] = link(a, b)
                table[i, j] = usual[key]
        return table

    def capacities(self, nodes: Integers) -> Capacities:
        """The capacities of some nodes, for compiled searches.

        Parameters
        ----------
        nodes
            Their numbers, shape (n,).

        Returns
        -------
        Capacities
            Arrays in the order of `nodes`.
        """

        def wide(array: NDArray[np.int32]) -> Integers:
            return np.ascontiguousarray(array, np.int64)

        return Capacities(
            wide(self._throughput[nodes]),
            wide(self._links[np.ix_(nodes, nodes)]),
            wide(self._from_coordinator[nodes]),
            wide(self._to_coordinator[nodes]),
            self._card,
            self._card_of_token_ids,
            self.columns,
        )

    def of_placement(self, placement: Placement) -> float:
        """The maximum flow of a placement of these nodes.

        Parameters
        ----------
        placement
            Node name -> layer range [start, end).

        Returns
        -------
        float
            Tokens/s; 0 for an empty placement.
        """
        if not placement:
            return 0.0
        table = np.array([(self.index[n], s, e) for n, (s, e) in placement.items()], np.int64)
        return self.tokens_per_s(table[:, 0], table[:, 1], table[:, 2])

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
            Tokens/s, exact to the milli-token (for flows of millions of tokens/s, to the unit).
        """
        count = len(nodes)
        follows = (starts <= ends[:, None]) & (ends[:, None] < ends)
        if not self.partial_inference:
            follows = starts == ends[:, None]
        tails, heads = np.nonzero(follows)
        every = np.arange(count)
        first, last = every[starts == 0], every[ends == self.num_layers]
        # The rule of `card_capacity_tokens_per_s`: a node that another one feeds gets activations, and a node whose
        # range ends with the last layer sends to the coordinator only.
        is_fed = np.bincount(heads, minlength=count) > 0
        card_in = np.where((starts == 0) & ~is_fed, self._card_of_token_ids, self._card)
        card_out = np.where(ends == self.num_layers, self._card_of_token_ids, self._card)
        throughput = self._throughput[nodes, self.columns[starts, ends]]
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
        return float(maximum_flow(graph, source, sink).flow_value) / self.units_per_token


__all__ = ["ArrayFlows"]
