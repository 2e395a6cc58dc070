"""Windows: which layers slide is what transformers' own config class makes of a file that does not list them."""

from __future__ import annotations

import json

import pytest

from helix_kit.model import Model

SIZES = {
    "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
    "num_hidden_layers": 9, "vocab_size": 300, "max_position_embeddings": 1024, "head_dim": 16, "sliding_window": 32,
}  # fmt: skip
FAMILIES = {
    "cohere2": {}, "exaone4": {"sliding_window_pattern": 4}, "gemma2": {}, "gemma3_text": {},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2}, "olmo3": {},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 5},
    "qwen3": {"use_sliding_window": False, "max_window_layers": 5},
    "llama4_text": {"num_local_experts": 4, "num_experts_per_tok": 1, "attention_chunk_size": 32,
                    "intermediate_size_mlp": 96, "interleave_moe_layer_step": 1},
    "qwen3_next": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
                   "shared_expert_intermediate_size": 24, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
                   "linear_key_head_dim": 8, "linear_value_head_dim": 8},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_have_the_windows_that_transformers_gives_them(family, tmp_path):
    from transformers import AutoConfig

    config = AutoConfig.for_model(family, **SIZES, **FAMILIES[family])
    fields = {"model_type": family, **SIZES, **FAMILIES[family]}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    model = Model.from_hf(tmp_path)
    found = [model.kind_of(i).attention if model.layer_kinds else "full" for i in range(9)]
    assert found == [name.removesuffix("_attention") for name in config.layer_types]
    windows = [kind.window_tokens for kind in model.layer_kinds if kind.attention in ("sliding", "chunked")]
    assert set(windows) <= {32}


def test_a_window_longer_than_any_context_is_full_attention(tmp_path):
    fields = {"model_type": "mistral", **SIZES}
    for window, kinds in ((32, ["sliding"]), (1024, []), (None, [])):
        (tmp_path / "config.json").write_text(json.dumps({**fields, "sliding_window": window}))
        assert [kind.attention for kind in Model.from_hf(tmp_path).layer_kinds] == kinds
