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
from helix_kit.profiles import Profile, profiles_for, range_speed, speed_tables
from helix_kit.profiles.engine_speed import check_engine, engine_profiles, engine_tables
from helix_kit.profiles.engines import EngineRecord
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
    engine: EngineRecord | None = None
    """The serving engine whose steps T(k) is for; None: our runtime."""

    @classmethod
    def of(
        cls,
        cluster: Cluster,
        model: Model,
        profiles: Mapping[str, Profile] | None = None,
        lengths: MeanLengths | None = None,
        engine: EngineRecord | None = None,
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
        engine
            A serving engine. If its record has constants, profiles and T(k) are those of its steps. None: our runtime.

        Raises
        ------
        InfeasibleError
            When the cluster cannot hold the model, whatever the placement.
        """
        lengths = lengths or default_lengths(cluster)
        if engine is not None and check_engine(engine, profiles):
            found = engine_profiles(cluster, model, engine)
            tables = engine_tables(cluster, model, engine, lengths)
        else:
            found = profiles_for(cluster, model, profiles, lengths)
            tables = speed_tables(cluster, model, found, lengths)
        problem = cls(cluster, model, found, tables, lengths, engine)
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
            fix=(lack.smallest or "more or larger GPUs, or a smaller model") + self._rounded_words(),
        )

    def _rounded_words(self) -> str:
        """That the model would fit with weights rounded to few bits at load, where it would."""
        for method in () if self.engine else ("int8", "int4"):
            try:
                model = self.model.quantized(method)
            except InputError:
                continue
            if (
                layers_held(self.cluster, model, profiles_for(self.cluster, model, None, self.lengths))
                >= self.num_layers
            ):
                return f"; or weights rounded when they are loaded (--quantize {method}), with which it fits"
        return ""

    def _check_requests_fit(self) -> None:
        """Raise InfeasibleError when no placement has room for the context of one request in every layer.

        Where speeds are the published ones, this is asked once no placement has been found that carries flow.
        """
        if self.cluster.throughput != "published":
            self.check_carries()

    def check_carries(self) -> None:
        """Raise InfeasibleError when the layers with which the machines carry flow are fewer than the model's."""
        tables = self.throughput_by_kind
        most = {kind: max((k for k, t in enumerate(ts, 1) if t > 0), default=0) for kind, ts in tables.items()}
        together = sum(min(most[node.kind], self.max_layers(node.name)) for node in self.cluster.nodes)
        if together < self.num_layers:
            raise InfeasibleError(
                f"cluster {self.cluster.name}: its machines have room for the KV cache of one request of "
                f"{self.lengths} in at most {together} layers together; {self.model.name} has {self.num_layers}",
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
        """T_i(k): tokens/s of `node` with k layers, of the least favourable range if layers differ.

        Beyond the node's maximum K, tokens/s are T(K) K / k.
        """
        table = self.throughput_by_kind[self.kind_of[node]]
        if not table:
            return 0.0
        return table[k - 1] if k <= len(table) else table[-1] * len(table) / k

    @property
    def is_uniform(self) -> bool:
        """Whether a range's speed depends on its length alone, on every node."""
        return self.cluster.throughput == "published" or all(p.is_uniform for p in self.profiles.values())

    @cached_property
    def _range_speeds(self) -> dict[tuple[str, tuple[int, ...]], float]:
        return {}

    def range_throughput(self, node: str, start: int, end: int) -> float:
        """T_i(s, e): tokens/s of `node` with the layers [start, end).

        T_i(k) is the least over the ranges of k layers.
        """
        kind = self.kind_of[node]
        profile = self.profiles[kind]
        if self.is_uniform or profile.is_uniform:
            return self.throughput(node, end - start)
        key = kind, profile.count_kinds(start, end)
        if key not in self._range_speeds:
            found = range_speed(self.cluster, profile, (start, end), self.num_layers, self.lengths)
            self._range_speeds[key] = self.throughput(node, end - start) if found is None else found
        return self._range_speeds[key]

    def fits(self, node: str, start: int, end: int) -> bool:
        """Whether the layers [start, end) fit into the memory of `node` beside the KV cache of a request."""
        if self.is_uniform or self.profiles[self.kind_of[node]].is_uniform:
            return end - start <= self.max_layers(node)
        return self.profiles[self.kind_of[node]].fits(start, end) and self.range_throughput(node, start, end) > 0

    def longest_range(self, node: str) -> int:
        """The largest number of layers that `node` can hold somewhere in the model; at least `max_layers`."""
        k = self.max_layers(node)
        if self.is_uniform:
            return k
        while k < self.num_layers and any(self.fits(node, s, s + k + 1) for s in range(self.num_layers - k)):
            k += 1
        return k

    def profile_of(self, node: str, start: int, end: int) -> Profile:
        """The profile of `node` with the layers [start, end)."""
        return self.profiles[self.kind_of[node]].of_range(start, end)

    def node_throughput(self, placement: Placement) -> dict[str, float]:
        """T_i of each placed node with the layers it holds, in cluster order."""
        return {
            n.name: self.range_throughput(n.name, *placement[n.name]) for n in self.cluster.nodes if n.name in placement
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
        """The published upper bound in tokens/s: sum over nodes of max_k k T(k) / L (Helix, section 4.4).

        If layers differ, T(k) is that of the best range of k layers, and the least of the bounds over all layers and
        over those of each kind holds.
        """
        return min(self._compute_bound(weights) for weights in self.kind_weights)

    def _compute_bound(self, weights: tuple[int, ...]) -> float:
        tables = {kind: self.best_table(kind, weights) for kind in self.throughput_by_kind}
        best = {kind: max((k * t for k, t in enumerate(ts, 1)), default=0.0) for kind, ts in tables.items()}
        return sum(best[n.kind] for n in self.cluster.nodes) / self.weigh_layers(weights)

    @property
    def kind_weights(self) -> list[tuple[int, ...]]:
        """Weights of the kinds of layers that bounds count with. Empty: every layer counts 1."""
        kinds = range(0 if self.is_uniform else len(self.model.layer_kinds))
        return [(), *(tuple(int(i == kind) for i in kinds) for kind in kinds)]

    def weigh_layers(self, weights: tuple[int, ...], start: int = 0, end: int | None = None) -> int:
        """The layers [start, end) by the weights of their kinds; their number for empty weights."""
        end = self.num_layers if end is None else end
        if not weights:
            return end - start
        return sum(w * n for w, n in zip(weights, self.model.count_kinds(start, end), strict=True))

    def best_table(self, kind: str, weights: tuple[int, ...] = ()) -> tuple[float, ...]:
        """T of the best range whose layers weigh k, for k = 1.. (index k - 1), in tokens/s; 0 where there is none.

        Every layer is covered by nodes whose T add up to the flow. So a node whose range weighs k stands for k of the
        weight of all layers, and carries no more than this: bounds hold with these tables and `weigh_layers` in place
        of T(k) and L, whatever the weights.
        """
        if self.is_uniform or (not weights and self.profiles[kind].is_uniform):
            return self.throughput_by_kind[kind]
        if (kind, weights) not in self._best_tables:
            node = next(n.name for n in self.cluster.nodes if n.kind == kind)
            best: dict[int, float] = {}
            for k in range(1, self.longest_range(node) + 1):
                for start in range(self.num_layers - k + 1):
                    weight = self.weigh_layers(weights, start, start + k)
                    if weight and self.fits(node, start, start + k):
                        best[weight] = max(best.get(weight, 0.0), self.range_throughput(node, start, start + k))
            self._best_tables[kind, weights] = tuple(best.get(k, 0.0) for k in range(1, max(best, default=0) + 1))
        return self._best_tables[kind, weights]

    @cached_property
    def weights_found(self) -> dict[tuple[tuple[str, str, int], ...], tuple[int, ...]]:
        """Weights of kinds of layers that gave good bounds, by the nodes that they are for."""
        return {}

    @cached_property
    def _best_tables(self) -> dict[tuple[str, tuple[int, ...]], tuple[float, ...]]:
        return {}

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
            0 <= start < end <= self.num_layers and self.fits(name, start, end)
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
