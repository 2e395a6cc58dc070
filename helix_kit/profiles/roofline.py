"""Roofline estimate of a profile from datasheet figures, for a GPU and a model without measurements.

A step of one layer takes the longer of two times, plus a fixed launch time: the time to read its weights and KV cache,
and the time of its arithmetic. Both use a share of the datasheet's peak that serving engines reach in practice. Every
plan labels estimates as such, and `tests/profiles/test_roofline.py` compares them with the measured tables.
"""

from __future__ import annotations

from helix_kit.catalogue import Gpu, gpus
from helix_kit.cluster import Node
from helix_kit.model import Model
from helix_kit.profiles.profile import Curve, Profile
from helix_kit.typical_request import ROUND_CONTEXT_TOKENS

COMPUTE_EFFICIENCY = 0.5
MEMORY_EFFICIENCY = 0.7
LAUNCH_MS_PER_LAYER = 0.1
ALL_REDUCE_MS_PER_LAYER = 0.3
ALL_REDUCE_BYTES_PER_S = 10e9
"""Where several GPUs share each layer, every layer needs two all-reduces over PCIe: a fixed time and a bandwidth."""
USABLE_MEMORY = 0.85
WEIGHT_SHARE = 0.8
"""Weights may take this share of the usable memory, so that the KV cache is large enough to serve from."""
PREFILL_TOKENS = (128, 256, 512, 1024, 2048, 4096, 8192)
DECODE_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def estimate(node: Node, model: Model, gpu: Gpu | None = None) -> Profile:
    """Roofline estimate of a node's profile.

    With W weight bytes of a layer, P parameters, t tokens, K bytes of KV cache read, and n GPUs:
    step time = max(2 P t / (n x flops/s), (W + K) / (n x bytes/s)) + all-reduce + launch.
    A ring all-reduce sends 2 (n - 1) / n of the activation from each GPU.

    Parameters
    ----------
    node
        The machine.
    model
        The model whose layers run.
    gpu
        Figures of the machine's GPU. None: those of the catalogue.

    Returns
    -------
    Profile
        `max_layers` is 0 when not even one layer fits.

    Examples
    --------
    >>> profile = estimate(Node(name="a", gpu="L4"), Model.preset("llama2-70b"))
    >>> profile.max_layers
    10
    """
    gpu, n = gpu or gpus()[node.gpu], node.gpus_per_node
    weight_bytes = model.layer_gb * 1e9
    flops_per_s = gpu.fp16_tflops * 1e12 * n * COMPUTE_EFFICIENCY
    bytes_per_s = gpu.memory_bandwidth_gb_per_s * 1e9 * n * MEMORY_EFFICIENCY
    fixed_ms = LAUNCH_MS_PER_LAYER + (ALL_REDUCE_MS_PER_LAYER if n > 1 else 0.0)
    reduce_s_per_token = 2 * 2 * (n - 1) / n * model.activation_bytes_per_token / ALL_REDUCE_BYTES_PER_S

    def step_ms(tokens: int, kv_bytes: float) -> float:
        arithmetic = 2 * model.layer_params * tokens / flops_per_s
        reading = (weight_bytes + kv_bytes) / bytes_per_s
        return 1e3 * (max(arithmetic, reading) + tokens * reduce_s_per_token) + fixed_ms

    kv_per_request = ROUND_CONTEXT_TOKENS * model.kv_bytes_per_token_layer
    prefill = [(float(t), step_ms(t, 0.0)) for t in PREFILL_TOKENS]
    decode = [(float(b), step_ms(b, b * kv_per_request)) for b in DECODE_REQUESTS]
    usable = gpu.memory_gb * 1e9 * n * USABLE_MEMORY
    max_layers = min(int(usable * WEIGHT_SHARE / weight_bytes), model.num_layers)
    kv = tuple(int((usable - k * weight_bytes) / model.kv_bytes_per_token_layer) for k in range(1, max_layers + 1))
    return Profile(
        kind=node.kind,
        model=model.name,
        source=f"roofline estimate ({gpu.name}: {gpu.source})",
        prefill_ms_per_layer=_curve(prefill),
        decode_ms_per_layer=_curve(decode),
        kv_capacity_layer_tokens=kv,
        prefill_max_requests=(2,) * max_layers,
        decode_max_requests=tuple(
            max(1, min(DECODE_REQUESTS[-1], tokens // (k * ROUND_CONTEXT_TOKENS))) for k, tokens in enumerate(kv, 1)
        ),
    )


def _curve(points: list[tuple[float, float]]) -> Curve:
    return Curve(x=(0.0, *(x for x, _ in points)), y=(0.0, *(y for _, y in points)))
