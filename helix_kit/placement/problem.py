"""The placement problem: one cluster and one model turned into the numbers that every method reads.

>>> from helix_kit.cluster import Cluster
>>> from helix_kit.model import Model
>>> problem = Problem.of(Cluster.preset("single24"), Model.preset("llama2-70b"))
>>> problem.num_layers, problem.max_layers("A100-40G-0"), round(problem.throughput("A100-40G-0", 12), 1)
(80, 12, 952.1)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from helix_kit._summary import Summarised, number
from helix_kit.cluster import Cluster
from helix_kit.errors import InfeasibleError, InputError
from helix_kit.flow import Edge, Flow, Placement, build_flow_graph, link_capacity_tokens_per_s, max_flow
from helix_kit.model import Model
from helix_kit.placement.feasibility import layers_held, shortfall
from helix_kit.profiles import Profile, profiles_for, speed_tables
from helix_kit.typical_request import PUBLISHED_LENGTHS, TRACE_LENGTHS, MeanLengths


@dataclass(frozen=True, repr=False)
class Problem(Summarised):
    """What to place where. Build it with `Problem.of`.

    Attributes
    ----------
    cluster, model
        The descriptions.
    profiles
        Profile of each kind of node.

    Examples
    --------
    >>> from helix_kit.model import Model
    >>> problem = Problem.of(Cluster.preset("single24"), Model.preset("llama2-70b"))
    >>> problem.holds({"A100-40G-0": (0, 12)}), problem.holds({"T4-0": (0, 12)})
    (True, False)
    """

    cluster: Cluster
    model: Model
    profiles: dict[str, Profile]
    throughput_by_kind: dict[str, tuple[float, ...]]
    """T(k) in tokens/s for k = 1.. of each kind (index k - 1)."""
    lengths: MeanLengths = TRACE_LENGTHS
    """Mean lengths of the requests that T(k) and link capacities are for."""

    @classmethod
    def of(
        cls,
        cluster: Cluster,
        model: Model,
        profiles: Mapping[str, Profile] | None = None,
        lengths: MeanLengths | None = None,
    ) -> Problem:
        """The problem of placing a model on a cluster.

        Parameters
        ----------
        cluster, model
            The descriptions.
        profiles
            Measured profiles by kind of node, which are used in place of the shipped tables.
        lengths
            Mean lengths of requests. None: those of the conversation trace, and the published ones where the cluster
            has ``throughput: published``.

        Raises
        ------
        InfeasibleError
            When the cluster cannot hold the model, whatever the placement.
        """
        found = profiles_for(cluster, model, profiles)
        lengths = lengths or default_lengths(cluster)
        problem = cls(cluster, model, found, speed_tables(cluster, model, found, lengths), lengths)
        problem._check_fits()
        return problem

    def _check_fits(self) -> None:
        if layers_held(self.cluster, self.model, self.profiles) >= self.num_layers:
            self._check_requests_fit()
            return
        lack = shortfall(self.cluster, self.model, self.profiles)
        detail = ", ".join(f"{count} x {kind}: {most}" for kind, (count, most) in lack.by_kind.items())
        raise InfeasibleError(
            f"cluster {self.cluster.name}: {self.model.name} cannot fit: its {self.num_layers} layers of "
            f"{self.model.layer_gb:.3g} GB each need more memory than the cluster has, which holds at most "
            f"{lack.layers_held} layers (per node: {detail}). {'; '.join(lack.sums)}",
            fix=lack.smallest or "more or larger GPUs, or a smaller model",
        )

    def _check_requests_fit(self) -> None:
        """Raise InfeasibleError when no placement has room for the context of one request in every layer."""
        most = sum(self.max_layers(node.name) for node in self.cluster.nodes)
        if most < self.num_layers:
            raise InfeasibleError(
                f"cluster {self.cluster.name}: its machines have room for the KV cache of one request of "
                f"{self.lengths} in at most {most} layers together; {self.model.name} has {self.num_layers}",
                fix="shorter requests, or more or larger GPUs",
            )

    def _title(self) -> str:
        return f"{self.model.name} on {self.cluster.name}"

    def _facts(self) -> dict[str, str]:
        return {
            "layers": str(self.num_layers),
            "nodes": str(len(self.cluster.nodes)),
            "compute bound": f"{number(self.compute_bound)} tokens/s",
        }

    @property
    def num_layers(self) -> int:
        """L, the layers of the model."""
        return self.model.num_layers

    @cached_property
    def kind_of(self) -> dict[str, str]:
        """Node name -> kind of machine."""
        return {n.name: n.kind for n in self.cluster.nodes}

    def max_layers(self, node: str) -> int:
        """K_i: the largest number of layers that `node` can hold beside the KV cache of a request."""
        kind = self.kind_of[node]
        return min(self.profiles[kind].max_layers, len(self.throughput_by_kind[kind]), self.num_layers)

    @cached_property
    def fewest_nodes(self) -> int:
        """The smallest number of nodes that together can hold the model."""
        sizes = sorted((self.max_layers(n.name) for n in self.cluster.nodes), reverse=True)
        return next(n for n in range(1, len(sizes) + 1) if sum(sizes[:n]) >= self.num_layers)

    def throughput(self, node: str, k: int) -> float:
        """T_i(k): tokens/s of `node` with k layers.

        Beyond the node's maximum K, tokens/s are T(K) K / k.
        """
        table = self.throughput_by_kind[self.kind_of[node]]
        if not table:
            return 0.0
        return table[k - 1] if k <= len(table) else table[-1] * len(table) / k

    def node_throughput(self, placement: Placement) -> dict[str, float]:
        """T_i of each placed node with the layers it holds, in cluster order."""
        return {
            n.name: self.throughput(n.name, placement[n.name][1] - placement[n.name][0])
            for n in self.cluster.nodes
            if n.name in placement
        }

    @property
    def passes_per_token(self) -> float:
        """How often a token crosses a link: the published definition counts every token, the last of an answer too."""
        return 1.0 if self.cluster.throughput == "published" else self.lengths.passes_per_token

    @property
    def link_bytes_per_token(self) -> float:
        """Bytes on a link between two nodes for each token that is counted."""
        return self.model.link_bytes_per_token * self.passes_per_token

    def link_capacity(self, source: str, target: str) -> float:
        """Tokens/s that fit on the link between two ends."""
        return link_capacity_tokens_per_s(self.cluster, self.model, source, target, self.passes_per_token)

    @cached_property
    def compute_bound(self) -> float:
        """The published upper bound in tokens/s: sum over nodes of max_k k T(k) / L (Helix, section 4.4)."""
        best = {
            kind: max((k * t for k, t in enumerate(ts, 1)), default=0.0) for kind, ts in self.throughput_by_kind.items()
        }
        return sum(best[n.kind] for n in self.cluster.nodes) / self.num_layers

    def max_flow(
        self,
        placement: Placement,
        *,
        partial_inference: bool = True,
        links: Iterable[Edge] | None = None,
        split: Literal["any", "balanced"] = "any",
        capacity_tokens_per_s: Mapping[str, float] | None = None,
    ) -> Flow:
        """A maximum flow of a placement.

        Parameters
        ----------
        placement
            Node name -> layer range [start, end).
        partial_inference
            Whether a request may enter a node's range after its first layer.
        links
            Links that may be used. None: every link between ranges that follow each other.
        split
            ``balanced`` is the maximum flow that loads nodes evenly, ``any`` the first found.
        capacity_tokens_per_s
            Tokens/s of each placed node, in place of `node_throughput`.

        Returns
        -------
        Flow
            In tokens/s, exact to the milli-token.
        """
        graph = build_flow_graph(
            self.cluster,
            self.model,
            placement,
            self.node_throughput(placement) if capacity_tokens_per_s is None else capacity_tokens_per_s,
            partial_inference=partial_inference,
            links=links,
            passes_per_token=self.passes_per_token,
        )
        if split == "balanced":
            from helix_kit.flow.balanced import balanced_flow

            return balanced_flow(graph)
        return max_flow(graph)

    def holds(self, placement: Placement) -> bool:
        """Whether every range lies within the model and no node holds more layers than its memory allows.

        Plans of separate pipelines may hold more, as published ones do.
        """
        return all(
            0 <= start < end <= self.num_layers and end - start <= self.max_layers(name)
            for name, (start, end) in placement.items()
        )

    def check_placement(self, placement: Placement, where: str = "placement") -> None:
        """Raise InputError when `placement` names an unknown node or a range outside [0, L).

        A node may hold more layers than its memory allows, as in published plans: see `holds`.
        """
        for name, (start, end) in placement.items():
            self.cluster.node(name)
            if not 0 <= start < end <= self.num_layers:
                expected = f"expected 0 <= start < end <= {self.num_layers}"
                raise InputError(expected, where=where, field=name, value=[start, end])


def default_lengths(cluster: Cluster) -> MeanLengths:
    """The mean lengths that a cluster is planned for when no workload is given."""
    return PUBLISHED_LENGTHS if cluster.throughput == "published" else TRACE_LENGTHS
