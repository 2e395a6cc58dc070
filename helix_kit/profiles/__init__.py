"""How fast a machine runs layers of a model: measured tables where there are any, else a roofline estimate."""

from __future__ import annotations

from collections.abc import Mapping

from helix_kit.catalogue import Gpu, gpus
from helix_kit.cluster import Cluster
from helix_kit.model import Model
from helix_kit.profiles.profile import Curve, Profile
from helix_kit.profiles.roofline import estimate
from helix_kit.profiles.tables import load_profiles, shipped_profiles
from helix_kit.profiles.throughput import throughput_tables


def profiles_for(cluster: Cluster, model: Model, measured: Mapping[str, Profile] | None = None) -> dict[str, Profile]:
    """The profile of each kind of machine of a cluster.

    `measured` profiles take precedence over the tables that ship for the model's name. A kind in neither of them gets
    a roofline estimate.

    Parameters
    ----------
    cluster
        Its kinds of machine.
    model
        The model whose layers run.
    measured
        Profiles by kind, for example those of `load_profiles`.

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
    # Whoever gives a profile says that it holds for this model, such as one with other weights of the same sizes.
    given = {kind: profile.model_copy(update={"model": model.name}) for kind, profile in (measured or {}).items()}
    known = {**shipped_profiles(model.name), **given}
    return {
        node.kind: known[node.kind] if node.kind in known else estimate(node, model, cluster.gpu(node.gpu))
        for node in {n.kind: n for n in cluster.nodes}.values()
    }


__all__ = [
    "Curve",
    "Gpu",
    "Profile",
    "estimate",
    "gpus",
    "load_profiles",
    "profiles_for",
    "shipped_profiles",
    "throughput_tables",
]
