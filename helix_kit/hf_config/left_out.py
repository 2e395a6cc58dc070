"""What transformers' classes assume of fields that a config.json leaves out.

Files that transformers writes have every field of the model itself, but of a nested ``text_config`` only those that
differ from the class's defaults, and files written by hand have what their author thought of. Here are the fields that
decide how layers differ. Sizes are not: a file without them is refused. The tests compare the table with transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WINDOW = {"sliding_window": 4096}
_LATE = {**_WINDOW, "max_window_layers": 28}
_LATE_VL = {**_WINDOW, "max_window_layers": 80}
_DEEPSEEK_V3 = {"first_k_dense_replace": 3, "n_shared_experts": 1, "q_lora_rank": 1536}
_GLM4_MOE = {"first_k_dense_replace": 1, "n_shared_experts": 1}

LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "cohere2": _WINDOW,
    "deepseek_v2": {"n_shared_experts": 2, "q_lora_rank": 1536},
    "deepseek_v3": _DEEPSEEK_V3,
    "dots1": {**_WINDOW, "max_window_layers": 62},
    "ernie4_5_moe": {"moe_num_shared_experts": 2},
    "exaone4": _WINDOW,
    "exaone_moe": {**_WINDOW, "first_k_dense_replace": 1, "num_shared_experts": 1},
    "gemma2": _WINDOW,
    "gemma3_text": _WINDOW,
    "gemma4_text": {"global_head_dim": 512, "hidden_size_per_layer_input": 256, "sliding_window": 512},
    "glm4_moe": _GLM4_MOE,
    "glm4_moe_lite": {**_GLM4_MOE, "q_lora_rank": 768},
    "glm4v_moe_text": {**_GLM4_MOE, "attention_bias": True},
    "glm4v_text": {"attention_bias": True, "head_dim": None},
    "gpt_oss": {"sliding_window": 128},
    "hy_v3": {"first_k_dense_replace": 1, "num_shared_experts": 1},
    "llama4_text": {"attention_chunk_size": 8192, "interleave_moe_layer_step": 1},
    "ministral": _WINDOW,
    "ministral3": {"head_dim": 128},
    "mistral": _WINDOW,
    "mistral4": {"n_shared_experts": 1, "q_lora_rank": 1024},
    "olmo3": _WINDOW,
    "qwen2": _LATE,
    "qwen2_5_vl": _LATE_VL,
    "qwen2_5_vl_text": _LATE_VL,
    "qwen2_moe": {**_LATE, "shared_expert_intermediate_size": 5632},
    "qwen2_vl": _LATE_VL,
    "qwen2_vl_text": _LATE_VL,
    "qwen3": _LATE,
    "qwen3_5_moe_text": {"shared_expert_intermediate_size": 512},
    "qwen3_moe": _WINDOW,
    "qwen3_next": {"shared_expert_intermediate_size": 512},
    "qwen3_omni_moe_text": {},
    "qwen3_vl_moe_text": {},
    "qwen3_vl_text": {},
    "solar_open": {"n_shared_experts": 1},
}
"""By ``model_type``. One that is not listed has what is listed for the family with the same layers, if anything."""


def with_left_out(config: Mapping[str, Any], family: str) -> dict[str, Any]:
    """The config with the fields that it leaves out.

    Parameters
    ----------
    config
        A decoder's config. A field that is null is not left out.
    family
        The family with the same layers, for a ``model_type`` without a row of its own.

    Returns
    -------
    dict
        Never fewer fields.

    Examples
    --------
    >>> with_left_out({"model_type": "gpt_oss"}, "gpt_oss")["sliding_window"]
    128
    >>> with_left_out({"model_type": "mistral", "sliding_window": None}, "mistral")["sliding_window"] is None
    True
    """
    kind = str(config.get("model_type", ""))
    return {**LEFT_OUT.get(kind, LEFT_OUT.get(family, {})), **config}
