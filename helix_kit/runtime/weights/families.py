"""The families that the runtime serves, and what their checkpoints call the tensors of a layer.

How a layer is built (biases, norms of heads, experts) is read by `helix_kit.hf_config`, for plans and for the runtime
alike; only the names are here. A family is listed when its logits are tested against transformers
(tests/runtime/worker/test_families.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ExpertNames:
    """What a family calls the tensors of its experts, as they are stored."""

    block: str = "mlp"
    """The part of the layer that holds router and experts. Transformers calls it ``mlp`` in every family."""
    router: str = "gate"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    shared: str = ""
    """The experts that every token takes, if the family has any."""
    shared_gate: str = ""
    """What scales their result."""
    stacked: bool = False
    """Whether a tensor holds all experts of a layer, inputs first, gate and up interleaved (GPT-OSS)."""


@dataclass(frozen=True)
class LayerNames:
    """What a family calls the tensors of a layer, where families differ."""

    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    joined: bool = False
    """Whether query, key and value are one matrix, and gate and up another one."""
    experts: ExpertNames | None = None


_AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
_AROUND = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")

LAYER_NAMES: Mapping[str, LayerNames] = {
    "cohere2": LayerNames(norms=("input_layernorm",)),
    "gemma": LayerNames(),
    "gemma2": LayerNames(norms=_AROUND),
    "gemma3_text": LayerNames(norms=_AROUND),
    "gpt_oss": LayerNames(experts=ExpertNames(router="router", stacked=True)),
    "granite": LayerNames(),
    "llama": LayerNames(),
    "mistral": LayerNames(),
    "mixtral": LayerNames(experts=ExpertNames(block="block_sparse_moe", gate="w1", up="w3", down="w2")),
    "olmo2": LayerNames(norms=_AFTER),
    "olmo3": LayerNames(norms=_AFTER),
    "olmoe": LayerNames(experts=ExpertNames()),
    "phi3": LayerNames(joined=True),
    "qwen2": LayerNames(),
    "qwen2_moe": LayerNames(experts=ExpertNames(shared="shared_expert", shared_gate="shared_expert_gate")),
    "qwen3": LayerNames(),
    "qwen3_moe": LayerNames(experts=ExpertNames()),
    "seed_oss": LayerNames(),
    "smollm3": LayerNames(),
}
"""By ``model_type``."""
FAMILIES = tuple(LAYER_NAMES)
"""The ``model_type``s that are served."""
