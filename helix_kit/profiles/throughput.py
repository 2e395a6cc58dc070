"""The published T(k): tokens/s (input and output together) of a node that holds k layers, in the mix of its cluster.

The estimate is the published one (Helix artifact, the helper of the model manager). A node with k layers has room for
A tokens of context in each layer. A request spends the share rho of its time in flight on this node; rho depends on
the speed of the rest of the cluster. Room and share give a typical batch, and the step time of that batch gives the
throughput.

Because rho depends on the cluster's other machines, so does T(k): adding a machine can lower the value of a placement.
Clusters with ``throughput: published`` use this definition, so that the paper's values stay comparable. All others use
`helix_kit.profiles.machine_speed`.
"""

from __future__ import annotations

from collections.abc import Mapping

from helix_kit.model import Model
from helix_kit.profiles.profile import Profile
from helix_kit.typical_request import PUBLISHED_LENGTHS, MeanLengths

KV_FILL = 0.3
"""Share of the KV cache that the estimate of the typical batch assumes to be in use."""
ITERATIONS = 10


def throughput_tables(
    kind_counts: Mapping[str, int],
    model: Model,
    profiles: Mapping[str, Profile],
    lengths: MeanLengths = PUBLISHED_LENGTHS,
) -> dict[str, tuple[float, ...]]:
    """T(k) of each kind of machine.

    Parameters
    ----------
    kind_counts
        Number of machines of each kind, as `Cluster.kind_counts`.
    model
        The model whose layers run.
    profiles
        Profile of each kind.
    lengths
        Mean lengths of requests.

    Returns
    -------
    dict of str to tuple of float
        By kind: T(1), T(2), ... T(max_layers) in tokens/s. The tuple is empty for kinds that cannot hold a layer.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.profiles import profiles_for
    >>> cluster, model = Cluster.preset("single24"), Model.preset("llama2-70b")
    >>> table = throughput_tables(cluster.kind_counts, model, profiles_for(cluster, model))
    >>> len(table["T4"]), round(table["T4"][0], 1)
    (4, 5709.2)
    """
    counts = {kind: n for kind, n in kind_counts.items() if profiles[kind].max_layers > 0}
    usual = {kind: profiles[kind].usual_layers for kind in counts}
    if sum(n * usual[kind] for kind, n in counts.items()) < 1.2 * model.num_layers:
        usual = {kind: profiles[kind].max_layers for kind in counts}
    seconds_per_layer_token = {kind: 1 / profiles[kind].initial_layer_tokens_per_s for kind in counts}
    # A kind without room for the context of one typical request is left out of the mean speed.
    roomy = [kind for kind in counts if _room_tokens(profiles[kind], usual[kind]) >= lengths.tokens]
    total = sum(counts[kind] * usual[kind] for kind in roomy)

    def mean_seconds() -> float:
        return sum(counts[kind] * usual[kind] * seconds_per_layer_token[kind] for kind in roomy) / total

    def throughput(kind: str, k: int, mean: float) -> float:
        return node_throughput(profiles[kind], k, model.num_layers, (seconds_per_layer_token[kind], mean), lengths)

    if not roomy:
        return {kind: (0.0,) * profiles[kind].max_layers for kind in kind_counts}
    for _ in range(ITERATIONS):
        mean = mean_seconds()
        layer_tokens_per_s = {kind: throughput(kind, usual[kind], mean) * usual[kind] for kind in roomy}
        seconds_per_layer_token |= {kind: 1 / speed for kind, speed in layer_tokens_per_s.items() if speed > 0}
    mean = mean_seconds()
    return {
        kind: tuple(throughput(kind, k, mean) for k in range(1, profiles[kind].max_layers + 1))
        if kind in counts
        else ()
        for kind in kind_counts
    }


def node_throughput(
    profile: Profile, k: int, num_layers: int, speeds_s: tuple[float, float], lengths: MeanLengths
) -> float:
    """Tokens/s of a node with `k` layers.

    `speeds_s` are seconds per layer and token, of its own kind and on average over the cluster.
    """
    own_s, mean_s = speeds_s
    input_tokens, output_tokens, tokens = lengths.input_tokens, lengths.output_tokens, lengths.tokens
    share = k * own_s / ((num_layers - k) * mean_s + k * own_s)
    room_tokens = _room_tokens(profile, k)
    prefills = room_tokens / tokens * share / output_tokens
    if prefills > 1:
        step_ms = profile.step_ms(input_tokens, output_tokens)
        return tokens / (k * step_ms / 1e3)
    prefill_tokens = round(input_tokens * prefills)
    decode_requests = round(room_tokens / tokens * share)
    if room_tokens < tokens and prefill_tokens + decode_requests == 0:
        return 0.0  # There is no room for the context of one request.
    # A request that has room is at times on the node, however small the node's share of the time is.
    decode_requests = decode_requests if prefill_tokens + decode_requests else 1
    # A step holds a fraction of a prefill: so count `steps` decode steps for each whole prefill.
    steps = 1 / prefills
    time_ms = profile.prefill_ms_per_layer(int(prefill_tokens * steps))
    time_ms += steps * profile.decode_ms_per_layer(decode_requests)
    return steps * (prefill_tokens + decode_requests) / (k * time_ms / 1e3)


def _room_tokens(profile: Profile, k: int) -> int:
    """Tokens of context in each of `k` layers that are assumed to be in use."""
    return int(KV_FILL * profile.kv_capacity(k) / k)
