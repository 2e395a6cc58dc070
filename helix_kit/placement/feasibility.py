"""Why a model does not fit on a cluster, and the smallest change that makes it fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from helix_kit.catalogue import EMULATED_PREFIX
from helix_kit.cluster import Cluster
from helix_kit.model import Model
from helix_kit.profiles import Profile, gpus, profiles_for
from helix_kit.profiles.memory import NodeMemory
from helix_kit.profiles.roofline import is_estimate


@dataclass(frozen=True)
class Shortfall:
    """How much a cluster lacks to hold a model.

    Attributes
    ----------
    layers_held, layers_needed
        Layers that all nodes hold together, and layers of the model.
    by_kind
        Kind -> (nodes, largest number of layers of each).
    remedies
        (GPU, nodes to add, USD per hour for them or None): the fewest nodes first, then the cheapest.
    sums
        For each kind with an estimated profile: what one layer more than it holds would need, and its memory.

    Examples
    --------
    >>> Shortfall(60, 80, {"T4": (15, 4)}, (("L4", 3, 2.1),)).smallest
    '3 more L4 (about $2.10 per hour)'
    """

    layers_held: int
    layers_needed: int
    by_kind: dict[str, tuple[int, int]]
    remedies: tuple[tuple[str, int, float | None], ...]
    sums: tuple[str, ...] = ()

    @property
    def smallest(self) -> str | None:
        """The remedy with the fewest nodes as text; None when there is none."""
        if not self.remedies:
            return None
        gpu, count, price = self.remedies[0]
        return f"{count} more {gpu}" + ("" if price is None else f" (about ${price:.2f} per hour)")

    @property
    def words(self) -> str:
        """The shortfall, its smallest remedy and its cheapest one, a sentence a line."""
        held = ", ".join(
            f"{count} x {kind} with at most {max_layers} layers each"
            for kind, (count, max_layers) in self.by_kind.items()
        )
        if self.layers_held >= self.layers_needed:
            return f"All {self.layers_needed} layers fit: {held}."
        lines = [f"The model has {self.layers_needed} layers and the cluster holds at most {self.layers_held}: {held}."]
        lines += [f"{line}." for line in self.sums]
        if self.remedies:
            lines.append(f"Smallest change: {self.smallest}.")
        priced = [r for r in self.remedies if r[2] is not None]
        cheapest = min(priced, key=lambda r: (r[2], r[1]), default=None)
        if cheapest and cheapest != self.remedies[0]:
            lines.append(f"Cheapest: {cheapest[1]} more {cheapest[0]} (about ${cheapest[2]:.2f} per hour).")
        return "\n".join(lines)


def layers_held(cluster: Cluster, model: Model, profiles: Mapping[str, Profile]) -> int:
    """Layers that all nodes hold together, none more than the model has; `profiles` has every kind of node."""
    return sum(count * min(profiles[kind].max_layers, model.num_layers) for kind, count in cluster.kind_counts.items())


def shortfall(cluster: Cluster, model: Model, profiles: Mapping[str, Profile] | None = None) -> Shortfall:
    """Whether the cluster's memory holds the model beside its KV caches; if not, what is missing.

    Parameters
    ----------
    cluster, model
        The descriptions.
    profiles
        Measured profiles by kind of node, which are used in place of the shipped tables.

    Returns
    -------
    Shortfall
        Layers held and needed, and remedies: none where the model fits.

    Examples
    --------
    >>> found = shortfall(Cluster.preset("single24"), Model.preset("llama2-70b"))
    >>> found.layers_held, found.layers_needed, found.remedies
    (152, 80, ())
    """
    profiles = profiles_for(cluster, model, profiles)
    by_kind = {kind: (count, profiles[kind].max_layers) for kind, count in cluster.kind_counts.items()}
    held = layers_held(cluster, model, profiles)
    missing = model.num_layers - held
    if missing <= 0:
        return Shortfall(held, model.num_layers, by_kind, ())
    remedies = []
    for gpu in {**gpus(), **cluster.gpus}:
        if gpu.startswith(EMULATED_PREFIX):
            continue  # an emulated GPU cannot be bought
        one = {"name": "new", "gpu": gpu, "region": cluster.coordinator.region}
        offered = Cluster.model_validate({"name": cluster.name, "nodes": [one], "gpus": cluster.gpus,
                                          "memory_share": cluster.memory_share})  # fmt: skip
        max_layers = profiles_for(offered, model, profiles)[gpu].max_layers
        if max_layers > 0:
            count = -(-missing // max_layers)
            price = cluster.gpu(gpu).price_usd_per_hour
            remedies.append((gpu, count, None if price is None else price * count))
    remedies.sort(key=lambda r: (r[1], r[2] is None, r[2] or 0.0))
    return Shortfall(held, model.num_layers, by_kind, tuple(remedies), tuple(_sums(cluster, model, profiles)))


def _sums(cluster: Cluster, model: Model, profiles: Mapping[str, Profile]) -> Iterator[str]:
    """A line for each kind: one layer more than it holds, and why the memory does not hold it."""
    for node in {n.kind: n for n in cluster.nodes}.values():
        held = profiles[node.kind].max_layers
        if held >= model.num_layers:
            continue
        if not is_estimate(profiles[node.kind]):
            yield f"{node.kind} holds {held} layers ({profiles[node.kind].source})"
            continue
        memory = NodeMemory(node.gpus_per_node, cluster.gpu(node.gpu).memory_gb, cluster.memory_share)
        yield f"{node.kind} holds {held} layers; {held + 1} would need {memory.sum_for(model, held + 1)}"
