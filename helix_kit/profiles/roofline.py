"""Roofline estimate of a profile from datasheet figures, for a GPU and a model without measurements.

A step of one layer takes the longer of two times, plus a fixed launch time: the time to read its weights and KV cache,
and the time of its arithmetic. Both use a share of the datasheet's peak that serving engines reach in practice. A layer
with experts reads those that the tokens of the step are expected to take, and computes with those that each token
takes. Quantised weights take fewer bytes, and are computed at the card's rate for their type. Several
GPUs of a node share each layer, and add up their parts of its result over the link between them, unless the node says
that they take its layers in turn (`helix_kit.profiles.node_splits`). Every plan labels estimates as such, and
`tests/profiles/test_roofline.py` compares them with the measured tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from helix_kit.catalogue import Gpu, GpuLink, gpu_links, gpus
from helix_kit.cluster import MEMORY_SHARE, Link, Node
from helix_kit.errors import InputError
from helix_kit.layers import LayerKind
from helix_kit.model import Model
from helix_kit.profiles.memory import NodeMemory
from helix_kit.profiles.profile import Curve, KindTimes, Profile, RangeLimits, mean_curve
from helix_kit.typical_request import ROUND_CONTEXT_TOKENS

COMPUTE_EFFICIENCY = 0.5
MEMORY_EFFICIENCY = 0.7
LAUNCH_MS_PER_LAYER = 0.1
SOURCE = "roofline estimate"
"""First words of an estimate's `source`."""
ALL_REDUCES_PER_LAYER = 2
"""One after the attention, one after the MLP."""
PREFILL_TOKENS = (128, 256, 512, 1024, 2048, 4096, 8192)
DECODE_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def all_reduce_ms(message_bytes: float, gpus: int, link: GpuLink) -> float:
    """Time for the GPUs of a node to add up their parts of one result.

    A ring all-reduce takes 2 (n - 1) steps, and each GPU sends 2 (n - 1) / n of the result (Patarasuk and Yuan, 2009).
    Where each pair of GPUs has a link of its own, there are several rings, which together use all of them.

    Parameters
    ----------
    message_bytes
        Bytes of the result.
    gpus
        How many GPUs there are.
    link
        The link between them.

    Returns
    -------
    float
        Milliseconds; 0 for one GPU.

    Examples
    --------
    >>> link = GpuLink("given", bandwidth_gbps=80.0, latency_ms=0.01, source="by hand")
    >>> all_reduce_ms(1e6, 1, link), all_reduce_ms(1e6, 4, link)
    (0.0, 0.21)
    """
    steps = 2 * (gpus - 1)
    return steps * link.latency_ms + 1e3 * steps / gpus * message_bytes / link.bytes_per_s_among(gpus)


def estimate(
    node: Node,
    model: Model,
    gpu: Gpu | None = None,
    *,
    link: GpuLink | None = None,
    memory_share: float = MEMORY_SHARE,
) -> Profile:
    """Roofline estimate of a node's profile.

    With W weight bytes of a layer that the step reads, P parameters that a token uses, t tokens, K bytes of KV cache
    read, and n GPUs:
    step time = max(2 P t / (n x flops/s), (W + K) / (n x bytes/s)) + 2 all-reduces of t activations + launch.

    Parameters
    ----------
    node
        The machine. Its `tensor_parallel` says how many of its GPUs share each layer; None: all of them.
    model
        The model whose layers run.
    gpu
        Figures of the machine's GPU. None: those of the catalogue.
    link
        The link between the machine's GPUs. None: as the node says, else the usual one of the catalogue.
    memory_share
        Share of each GPU's memory for weights, embeddings and KV cache.

    Returns
    -------
    Profile
        `max_layers` is 0 when not even one layer fits: see `helix_kit.profiles.memory`.

    Raises
    ------
    InputError
        `memory_share` is not above 0 and at most 1.

    Examples
    --------
    >>> profile = estimate(Node(name="a", gpu="L4"), Model.preset("llama2-70b"))
    >>> profile.max_layers
    13
    """
    if not 0 < memory_share <= 1:
        raise InputError("expected a number above 0, at most 1", field="memory_share", value=memory_share)
    gpu, link = gpu or gpus()[node.gpu], link or _link_of(node)
    n = node.gpus_per_node
    ranks = node.tensor_parallel or n
    machine = _Machine(gpu, ranks, link, model, groups=n // ranks)
    memory = NodeMemory(gpus=n, gpu_gb=gpu.memory_gb, share=memory_share)
    between = "" if n == 1 else f"; {link.name} between {n} GPUs: {link.source}"
    fields = {
        "kind": node.kind,
        "model": model.name,
        "source": f"{SOURCE} ({gpu.name}: {gpu.source}{between})",
        "tensor_parallel": ranks,
        "groups_in_turn": n // ranks,
    }
    if not model.is_uniform:
        return Profile.model_validate({**fields, **_unequal_layers(model, machine, memory)})
    prefill, decode = machine.curves(model.layer_kinds[0] if model.layer_kinds else None)
    # Several GPUs hold the same key and value head where there are fewer of these than GPUs that share a layer.
    copies = max(1, ranks // model.num_kv_heads)
    kv = tuple(memory.kv_tokens(model, k) // copies for k in range(1, memory.max_layers(model) + 1))
    return Profile.model_validate(
        {
            **fields,
            "prefill_ms_per_layer": prefill,
            "decode_ms_per_layer": decode,
            "kv_capacity_layer_tokens": kv,
            "prefill_max_requests": (2,) * len(kv),
            "decode_max_requests": tuple(_decode_limit(k, tokens) for k, tokens in enumerate(kv, 1)),
        }
    )


@dataclass(frozen=True)
class _Machine:
    """GPUs that compute each layer of a model together, and how many such groups take the layers in turn."""

    gpu: Gpu
    gpus: int
    link: GpuLink
    model: Model
    groups: int = 1

    def curves(self, kind: LayerKind | None) -> tuple[Curve, Curve]:
        """Prefill over tokens and decode over requests, for a layer of this kind; None: a dense layer."""
        if kind is None:
            kv_bytes: float = ROUND_CONTEXT_TOKENS * self.model.kv_bytes_per_token_layer
        else:
            kv_bytes = kind.kv_bytes(ROUND_CONTEXT_TOKENS)
        prefill = [(float(t), self._step_ms(kind, self._part(t), 0.0)) for t in PREFILL_TOKENS]
        decode = [(float(b), self._step_ms(kind, self._part(b), self._part(b) * kv_bytes)) for b in DECODE_REQUESTS]
        return _curve(prefill), _curve(decode)

    def _part(self, batch: int) -> float:
        """What one group has of a batch at a time: each of them works on another part."""
        return batch if self.groups == 1 else max(1.0, batch / self.groups)

    def _step_ms(self, kind: LayerKind | None, tokens: float, kv_bytes: float) -> float:
        model, n = self.model, self.gpus
        params = model.layer_params if kind is None else kind.active_params
        weight_bytes = model.layer_gb * 1e9 if kind is None else kind.read_bytes(tokens, model.expert_skew)
        tflops = self.gpu.fp16_tflops if kind is None else self.gpu.tflops(kind.arithmetic)
        flops_per_s = tflops * 1e12 * n * COMPUTE_EFFICIENCY
        bytes_per_s = self.gpu.memory_bandwidth_gb_per_s * 1e9 * n * MEMORY_EFFICIENCY
        arithmetic_s = 2 * params * tokens / flops_per_s
        reading_s = (weight_bytes + kv_bytes) / bytes_per_s
        exchange_ms = ALL_REDUCES_PER_LAYER * all_reduce_ms(tokens * model.activation_bytes_per_token, n, self.link)
        return 1e3 * max(arithmetic_s, reading_s) + exchange_ms + LAUNCH_MS_PER_LAYER


def _decode_limit(k: int, kv_tokens: int) -> int:
    return max(1, min(DECODE_REQUESTS[-1], kv_tokens // (k * ROUND_CONTEXT_TOKENS)))


def _unequal_layers(model: Model, machine: _Machine, memory: NodeMemory) -> dict[str, Any]:
    """Fields of the profile of a model whose layers differ: times of each kind, and limits of each range that fits."""
    kinds = []
    for kind in model.layer_kinds:
        prefill, decode = machine.curves(kind)
        kinds.append(KindTimes(name=kind.name, prefill_ms_per_layer=prefill, decode_ms_per_layer=decode))
    limits: dict[tuple[int, ...], RangeLimits | None] = {}
    least: list[RangeLimits] = []
    for k in range(1, model.num_layers + 1):
        of_length = set()
        for start in range(model.num_layers - k + 1):
            counts = model.count_kinds(start, start + k)
            if counts not in limits:
                tokens = memory.kv_tokens_of(model, counts)
                limits[counts] = (
                    RangeLimits(
                        layers=counts,
                        kv_capacity_layer_tokens=tokens,
                        prefill_max_requests=2,
                        decode_max_requests=_decode_limit(k, tokens),
                    )
                    if tokens >= 0
                    else None
                )
            of_length.add(counts)
        fitting = [limits[counts] for counts in of_length]
        if len(least) == k - 1 and None not in fitting:
            least.append(min((f for f in fitting if f), key=lambda f: f.kv_capacity_layer_tokens))
        if not any(fitting):
            break
    whole = model.count_kinds(0, model.num_layers)
    return {
        "prefill_ms_per_layer": mean_curve([kind.prefill_ms_per_layer for kind in kinds], whole),
        "decode_ms_per_layer": mean_curve([kind.decode_ms_per_layer for kind in kinds], whole),
        "kv_capacity_layer_tokens": tuple(limit.kv_capacity_layer_tokens for limit in least),
        "prefill_max_requests": tuple(limit.prefill_max_requests for limit in least),
        "decode_max_requests": tuple(limit.decode_max_requests for limit in least),
        "layer_kinds": tuple(kinds),
        "layer_pattern": model.layer_pattern,
        "range_limits": tuple(limit for limit in limits.values() if limit),
    }


def is_estimate(profile: Profile) -> bool:
    """Whether a profile is an estimate rather than a measured table.

    Parameters
    ----------
    profile
        Of any kind of machine.

    Returns
    -------
    bool
        As its `source` says.

    Examples
    --------
    >>> is_estimate(estimate(Node(name="a", gpu="L4"), Model.preset("llama2-70b")))
    True
    """
    return profile.source.startswith(SOURCE)


def _link_of(node: Node) -> GpuLink:
    """The link that a node gives, by name or in figures, else the usual one of its GPU in the catalogue."""
    if isinstance(node.gpu_link, Link):
        return GpuLink("given", node.gpu_link.bandwidth_gbps, node.gpu_link.latency_ms, f"node {node.name}")
    links = gpu_links(node.gpu)
    return links[node.gpu_link or next(iter(links))]


def _curve(points: list[tuple[float, float]]) -> Curve:
    return Curve(x=(0.0, *(x for x, _ in points)), y=(0.0, *(y for _, y in points)))
