"""T(k) of a machine by itself: tokens/s (input and output together) from machine, model, layer range and mean lengths.

A request of I tokens in and O out holds KV cache for E = I + O tokens in each layer while it lives: our engine reserves
its whole context when it is admitted. A machine with k of L layers has a KV cache of kv layer-tokens, so kv / (E k)
requests fit at once. A share f of them is there on average (`KV_IN_USE`). While they live, they compute here for about
k / L of the time, since each token passes all L layers. The machine therefore works on a batch of

    b = f kv / (E k) x k / L = f kv / (E L)

requests, within the limits of the engine. A request costs a machine k (P + (O - 1) D(b) / b) seconds, with P the time
of its prompt in chunks and D(b) that of a decode step of b requests, for one layer; the first token of the answer comes
with the prompt. So T(k) = (I + O) / (k (P + (O - 1) D(b) / b)). A batch below 1 means that the machine waits for
requests most of the time: it then serves b requests a time D(1).

Nothing here depends on the cluster's other machines: a placement keeps its value when machines, links or memory are
added, and a larger cluster has no lower bound. Two things are left out on purpose, since both depend on the rest of the
cluster: time on links (it lowers b) and how much slower the other machines are (it changes the share k / L).

T(k) is no ceiling: a simulation may serve more (`docs/concepts/flow.md` says how often, and why). P and D are added, as
in a simulated step, so a step with prompts and decodes reads the weights twice. Where steps of prompts alternate with
steps of decodes, a simulated step reads them once. ``benchmarks/bench_speed_rule.py`` says how well the rule ranks
placements, ``benchmarks/bench_flow_and_served.py`` how far single machines and pipelines are from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

from helix_kit.model import Model
from helix_kit.profiles.profile import Curve, Profile
from helix_kit.typical_request import TRACE_LENGTHS, MeanLengths

KV_IN_USE = 0.5
"""Share of a machine's KV cache that requests take on average when some always wait.

Admission stops at the first machine of a pipeline that is full, so the others are not. The value was chosen on 80
placements of 13 random and published clusters under our runtime's rules: with it the median of predicted over served
tokens/s is 1.2, with full caches 1.8. Values from 0.35 to 1 rank placements about alike (Spearman 0.67 to 0.73)."""


@dataclass(frozen=True)
class EngineLimits:
    """Limits of the engine that runs the layers; the defaults are those of our runtime.

    Examples
    --------
    >>> EngineLimits(max_sequences=64).chunk_tokens
    256
    """

    step_tokens: int = 512
    """Tokens that a step may take, prefill and decode together."""
    chunk_tokens: int = 256
    """Tokens of a prefill chunk."""
    max_sequences: int | None = None
    """Requests that a decode step may take; None: as many as the profile of the machine says."""


RUNTIME_LIMITS = EngineLimits()
USUAL_BATCH = 32
"""Requests of a decode step by which layers of different kinds are compared."""


def machine_tables(
    model: Model,
    profiles: Mapping[str, Profile],
    lengths: MeanLengths = TRACE_LENGTHS,
    limits: EngineLimits = RUNTIME_LIMITS,
) -> dict[str, tuple[float, ...]]:
    """T(k) of each kind of machine, each by itself.

    Parameters
    ----------
    model
        The model whose layers run.
    profiles
        Profile of each kind.
    lengths
        Mean lengths of requests.
    limits
        Limits of the engine.

    Returns
    -------
    dict of str to tuple of float
        By kind: T(1), T(2), ... T(K) in tokens/s, where K is the largest number of layers that leave room for the KV
        cache of one request. The tuple is empty for kinds that cannot hold a layer. If layers differ, T(k) is that of
        the least favourable range, and K holds wherever a range begins.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.profiles import profiles_for
    >>> cluster, model = Cluster.preset("laptop"), Model.preset("SmolLM2-135M")
    >>> tables = machine_tables(model, profiles_for(cluster, model))
    >>> all(a >= b for table in tables.values() for a, b in zip(table, table[1:]))
    True
    """

    def slowest(profile: Profile, k: int) -> float:
        ranges = different_ranges(profile, k, model.num_layers)
        return min(machine_tokens_per_s(profile, span, model.num_layers, lengths, limits) for span in ranges)

    def table(profile: Profile) -> tuple[float, ...]:
        sizes = range(1, min(profile.max_layers, model.num_layers) + 1)
        speeds = (slowest(profile, k) for k in sizes)
        return tuple(takewhile(lambda tokens_per_s: tokens_per_s > 0, speeds))

    return {kind: table(profile) for kind, profile in profiles.items()}


def machine_tokens_per_s(
    profile: Profile,
    layers: tuple[int, int],
    num_layers: int,
    lengths: MeanLengths = TRACE_LENGTHS,
    limits: EngineLimits = RUNTIME_LIMITS,
) -> float:
    """Tokens/s of a machine that holds a range of layers.

    If all layers are alike, only their number counts. Otherwise a request spends time here in proportion to the time
    that these layers take, of the time of all layers.

    Parameters
    ----------
    profile
        Step times, KV cache and batch limits of the machine.
    layers
        Range [start, end) that it holds.
    num_layers
        L, all layers of the model.
    lengths
        Mean lengths of requests.
    limits
        Limits of the engine.

    Returns
    -------
    float
        Tokens in and out together; 0 where the KV cache is too small for one request of these lengths.

    Examples
    --------
    >>> curve = Curve(x=(0, 1, 100), y=(0, 1.0, 1.0))
    >>> profile = Profile(kind="X", model="tiny", source="by hand", prefill_ms_per_layer=curve,
    ...                   decode_ms_per_layer=curve, kv_capacity_layer_tokens=(4000, 4000),
    ...                   prefill_max_requests=(2, 2), decode_max_requests=(64, 64))

    Of two layers, one is held. 4000 layer-tokens have room for 40 requests of 100 tokens. Half of them are there, of
    which half compute here at a time. A prompt of 50 tokens takes 1 ms, and 49 steps for 10 requests take 49 / 10 ms.

    >>> round(machine_tokens_per_s(profile, (0, 1), 2, MeanLengths(50, 50))) == round(100 / (1e-3 * (1 + 49 / 10)))
    True
    """
    held, whole, profile = layers[1] - layers[0], profile, profile.of_range(*layers)
    if not profile.max_layers:
        return 0.0
    kv_layer_tokens = profile.kv_capacity(held)
    if kv_layer_tokens < lengths.tokens * held:
        return 0.0
    batch = KV_IN_USE * kv_layer_tokens / (lengths.tokens * num_layers)
    if profile is not whole:
        batch *= _usual_ms(profile, lengths) / _usual_ms(whole, lengths)
    batch = min(batch, profile.decode_limit(held), limits.max_sequences or math.inf, limits.step_tokens)
    chunks = math.ceil(lengths.input_tokens / limits.chunk_tokens)
    prompt_ms = chunks * profile.prefill_ms_per_layer(lengths.input_tokens / chunks)
    answer_ms = (lengths.output_tokens - 1) * ms_per_request(profile.decode_ms_per_layer, batch)
    return lengths.tokens / (held * (prompt_ms + answer_ms) / 1e3)


def _usual_ms(profile: Profile, lengths: MeanLengths) -> float:
    """Milliseconds of a layer for a request among `USUAL_BATCH` others, to compare layers with each other."""
    decode_ms = profile.decode_ms_per_layer(USUAL_BATCH) / USUAL_BATCH
    return profile.prefill_ms_per_layer(lengths.input_tokens) + lengths.output_tokens * decode_ms


def different_ranges(profile: Profile, k: int, num_layers: int) -> list[tuple[int, int]]:
    """Ranges [start, end) of k layers, one of each mix of kinds. Layers that are alike give one range.

    Parameters
    ----------
    profile
        Knows the kind of each layer.
    k
        Layers of a range.
    num_layers
        L, all layers of the model.

    Returns
    -------
    list of (int, int)
        In order of their starts.

    Examples
    --------
    >>> curve = Curve(x=(0, 1, 100), y=(0, 1.0, 1.0))
    >>> profile = Profile(kind="X", model="tiny", source="by hand", prefill_ms_per_layer=curve,
    ...                   decode_ms_per_layer=curve, kv_capacity_layer_tokens=(4000, 4000),
    ...                   prefill_max_requests=(2, 2), decode_max_requests=(64, 64))
    >>> different_ranges(profile, 2, 8)
    [(0, 2)]
    """
    if profile.is_uniform:
        return [(0, k)]
    mixes = {profile.count_kinds(s, s + k): (s, s + k) for s in range(num_layers - k, -1, -1)}
    return sorted(mixes.values())


def ms_per_request(step_ms: Curve, batch: float) -> float:
    """Least milliseconds of a step for each of its requests, over all batches up to `batch`.

    An engine may take smaller batches than its memory allows. So more memory never makes a machine slower, even where a
    measured table has a dent. Within a segment of the table the time for each request has no least value but at the
    ends.

    Parameters
    ----------
    step_ms
        Time of a step over its requests.
    batch
        The largest batch, above 0; below 1 it is the share of time in which a single request is there.

    Returns
    -------
    float
        Milliseconds.

    Examples
    --------
    >>> step_ms = Curve(x=(0, 1, 4, 8), y=(0, 2.0, 3.2, 8.0))
    >>> ms_per_request(step_ms, 0.5), ms_per_request(step_ms, 4), ms_per_request(step_ms, 8)
    (4.0, 0.8, 0.8)
    """
    if batch < 1:
        return step_ms(1) / batch
    return min(step_ms(size) / size for size in (1, batch, *(x for x in step_ms.x if 1 < x < batch)))


__all__ = [
    "RUNTIME_LIMITS",
    "EngineLimits",
    "different_ranges",
    "machine_tables",
    "machine_tokens_per_s",
    "ms_per_request",
]
