"""Decoder layers of the Llama-like families with fewer and larger operations than Hugging Face's own code.

Query, key and value are one product, and so are gate and up projection. Norms, rotary embedding and gate are one kernel
each, and the rotary kernel also writes keys and values to their pages. The kernels come from
`helix_kit.runtime.worker.triton_kernels` or `helix_kit.runtime.worker.torch_kernels`. Hugging Face's layer stays the
reference, and it runs the families that are not listed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from helix_kit.runtime.weights.low_bit import LowBitWeight, join
from helix_kit.runtime.worker.attention import AttentionSettings
from helix_kit.runtime.worker.low_bit_linear import LowBitLinear, Tensors
from helix_kit.runtime.worker.static_batch import HeadShape, StaticBatch

FUSED_FAMILIES = ("llama", "mistral", "phi3", "qwen2", "qwen3")
"""`model_type`s whose layers are: norm, attention, sum, norm, gated SiLU, sum."""
JOINED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
"""Joined matrix -> the matrices that it is made of. Phi-3's checkpoints have them joined."""


class Linear(NamedTuple):
    """Weight (out, in) and bias (out,) of a product ``x @ weight.T + bias``."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    add_up: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Adds up the results of several ranks, each of which holds a part of the weight."""

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """The product for rows (..., in)."""
        result = F.linear(x, self.weight, self.bias)
        return result if self.add_up is None else self.add_up(result)


@dataclass(frozen=True)
class FusedLayer:
    """One decoder layer."""

    index: int
    """Its index in the model."""
    input_norm: torch.Tensor
    qkv: Linear | LowBitLinear
    head_norms: tuple[torch.Tensor, torch.Tensor] | None
    """Weights of the norms of query and key heads (Qwen3)."""
    output: Linear | LowBitLinear
    post_norm: torch.Tensor
    gate_up: Linear | LowBitLinear
    down: Linear | LowBitLinear
    attention: AttentionSettings
    eps: float


def can_fuse(config: Any) -> bool:
    """Whether the layers of a model with this config are of the form that `FusedLayer` computes."""
    return config.model_type in FUSED_FAMILIES and config.hidden_act in ("silu", "swish")


def fused_layer(
    index: int,
    tensors: Tensors,
    attention: AttentionSettings,
    eps: float,
    add_up: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> FusedLayer:
    """A layer from the tensors of its checkpoint, by their names in the layer. All of them must be used.

    `add_up` adds up the results of several ranks, if `tensors` are a rank's part of them.
    """
    left: dict[str, Any] = dict(tensors)

    def linear(name: str) -> Linear | LowBitLinear:
        parts = [name] if f"{name}.weight" in left else list(JOINED.get(name, (name,)))
        weights = [left.pop(f"{part}.weight") for part in parts]
        biases = [left.pop(f"{part}.bias", None) for part in parts]
        zeros = left["input_layernorm.weight"].new_zeros
        given = [zeros(w.shape[0]) if b is None else b for w, b in zip(weights, biases)]
        bias = None if all(b is None for b in biases) else torch.cat(given)
        if all(isinstance(weight, LowBitWeight) for weight in weights):
            joined = join(weights)
            if joined is not None:
                return LowBitLinear(joined, bias, zeros(0).dtype)
        dense = [w.expand(zeros(0).dtype) if isinstance(w, LowBitWeight) else w for w in weights]
        return Linear(dense[0] if len(dense) == 1 else torch.cat(dense), bias)

    def summed(name: str) -> Linear | LowBitLinear:
        own = linear(name)
        if add_up is None:
            return own
        assert isinstance(own, Linear), "weights of few bits are not divided among ranks"
        return own._replace(add_up=add_up)

    q_norm, k_norm = (left.pop(f"self_attn.{name}_norm.weight", None) for name in "qk")
    layer = FusedLayer(
        index=index,
        qkv=linear("self_attn.qkv_proj"),
        head_norms=None if q_norm is None or k_norm is None else (q_norm, k_norm),
        output=summed("self_attn.o_proj"),
        post_norm=left.pop("post_attention_layernorm.weight"),
        gate_up=linear("mlp.gate_up_proj"),
        down=summed("mlp.down_proj"),
        input_norm=left.pop("input_layernorm.weight"),  # last: its dtype is the layer's
        attention=attention,
        eps=eps,
    )
    if left:
        raise ValueError(f"layer {index} has tensors that no part of it uses: {', '.join(sorted(left))}")
    return layer


def run_fused_layers(
    layers: Sequence[FusedLayer],
    heads: HeadShape,
    hidden: torch.Tensor,
    rotary: tuple[torch.Tensor, torch.Tensor],
    batch: StaticBatch,
) -> torch.Tensor:
    """Hidden states (rows, hidden size) after `layers`. `hidden` is written over.

    `rotary` are cosines and sines (rows, rotary dim) of the rows' positions, in float32.
    """
    kernels = batch.kernels
    first = layers[0]
    normed = kernels.rms_norm(hidden, first.input_norm, first.eps)
    for place, layer in enumerate(layers):
        cache = batch.cache(layer.index)
        query = kernels.rotary_and_write(layer.qkv.of(normed), heads, rotary, layer.head_norms, layer.eps, cache)
        attended = kernels.attend(query, cache, batch, layer.attention.scaling, layer.attention.window)
        normed = kernels.add_rms_norm(hidden, layer.output.of(attended.flatten(1)), layer.post_norm, layer.eps)
        delta = layer.down.of(kernels.silu_and_mul(layer.gate_up.of(normed)))
        if place + 1 < len(layers):
            following = layers[place + 1]
            normed = kernels.add_rms_norm(hidden, delta, following.input_norm, following.eps)
        else:
            hidden += delta
    return hidden
