"""Why a model does not fit on a cluster, and the smallest change that makes it fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from helix_kit.catalogue import EMULATED_PREFIX
from helix_kit.cluster import Cluster
from helix_kit.model import Model
from helix_kit.profiles import Profile, gpus, profiles_for, shipped_profiles
from helix_kit.profiles.roofline import estimate


@dataclass(frozen=True)
class Shortfall:
    """How much a cluster lacks to hold a model."""

    layers_held: int
    layers_needed: int
    by_kind: dict[str, tuple[int, int]]
    """Kind -> (machines, most layers of each)."""
    remedies: tuple[tuple[str, int, float | None], ...]
    """(GPU, machines to add, dollars per hour for them), the fewest machines first, then the cheapest."""

    @property
    def smallest(self) -> str | None:
        """The remedy with the fewest machines, in words."""
        if not self.remedies:
            return None
        gpu, count, price = self.remedies[0]
        return f"{count} more {gpu}" + ("" if price is None else f" (about ${price:.2f} per hour)")

    @property
    def words(self) -> str:
        """The shortfall and its smallest remedy, one sentence a line."""
        held = ", ".join(
            f"{count} x {kind} with at most {most} layers each" for kind, (count, most) in self.by_kind.items()
        )
        if self.layers_held >= self.layers_needed:
            return f"All {self.layers_needed} layers fit: {held}."
        lines = [f"The model has {self.layers_needed} layers and the cluster holds at most {self.layers_held}: {held}."]
        if self.remedies:
            lines.append(f"Smallest change: {self.smallest}.")
        priced = [r for r in self.remedies if r[2] is not None]
        cheapest = min(priced, key=lambda r: (r[2], r[1]), default=None)
        if cheapest and cheapest != self.remedies[0]:
            lines.append(f"Cheapest: {cheapest[1]} more {cheapest[0]} (about ${cheapest[2]:.2f} per hour).")
        return "\n".join(lines)


def shortfall(cluster: Cluster, model: Model, profiles: Mapping[str, Profile] | None = None) -> Shortfall:
    """Whether the cluster's memory holds the model beside its KV caches; if not, what is missing.

    `profiles` by kind of machine go before the shipped tables.
    """
    profiles = profiles_for(cluster, model, profiles)
    by_kind = {kind: (count, profiles[kind].max_layers) for kind, count in cluster.kind_counts.items()}
    held = sum(count * min(most, model.num_layers) for count, most in by_kind.values())
    missing = model.num_layers - held
    remedies = []
    if missing > 0:
        node, shipped = cluster.nodes[0], shipped_profiles(model.name)
        for gpu in gpus().values():
            if gpu.name.startswith(EMULATED_PREFIX):
                continue  # emulated workers are nothing one can buy
            one = node.model_copy(update={"name": "new", "gpu": gpu.name, "gpus_per_node": 1})
            most = (shipped[gpu.name] if gpu.name in shipped else estimate(one, model)).max_layers
            if most > 0:
                count = -(-missing // most)
                price = gpu.price_usd_per_hour
                remedies.append((gpu.name, count, None if price is None else price * count))
        remedies.sort(key=lambda r: (r[1], r[2] is None, r[2] or 0.0))
    return Shortfall(held, model.num_layers, by_kind, tuple(remedies))
