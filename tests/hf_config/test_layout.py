"""Windows: which layers slide is what transformers' own config class makes of a file that does not list them."""

from __future__ import annotations

import json

import pytest

from helix_kit.errors import InputError
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
    "qwen2_moe": {"use_sliding_window": True, "max_window_layers": 6, "num_experts": 4, "num_experts_per_tok": 2,
                  "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24},
    "dots1": {"max_window_layers": 5, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "smollm3": {"use_sliding_window": True, "max_window_layers": 2},
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


def test_qwen3_moe_slides_in_all_layers_or_in_none(tmp_path):
    """transformers' model has one mask for all layers, whatever max_window_layers says."""
    fields = {"model_type": "qwen3_moe", **SIZES, "num_experts": 4, "num_experts_per_tok": 2, "max_window_layers": 5}
    for is_on, expected in ((True, ["sliding"]), (False, ["full"])):
        settings = {"use_sliding_window": is_on, "moe_intermediate_size": 24}
        (tmp_path / "config.json").write_text(json.dumps({**fields, **settings}))
        assert [kind.attention for kind in Model.from_hf(tmp_path).layer_kinds] == expected


def test_listed_windows_that_are_switched_off_are_none(tmp_path):
    listed = ["sliding_attention"] * 4 + ["full_attention"] * 5
    fields = {"model_type": "qwen3", **SIZES, "layer_types": listed}
    for is_on, expected in ((True, ["sliding", "full"]), (False, [])):
        (tmp_path / "config.json").write_text(json.dumps({**fields, "use_sliding_window": is_on}))
        assert [kind.attention for kind in Model.from_hf(tmp_path).layer_kinds] == expected


MIXED = ["sliding_attention"] * 4 + ["full_attention"] * 5
REFUSED = {
    "types that transformers does not look at": ({"model_type": "mistral", "layer_types": MIXED}, "layer_types = "),
    "the same of a family without windows": ({"model_type": "llama", "layer_types": MIXED}, "layer_types = "),
    "chunks in another family": (
        {"model_type": "qwen3", "layer_types": ["chunked_attention"] * 9}, "layer_types = ['chunked_attention']",
    ),
    "no type for each layer": ({"model_type": "smollm3", "use_sliding_window": True, "no_rope_layers": [1]},
                               "no_rope_layers = '[1]'"),
    "lightning attention": (
        {"model_type": "minimax_m2", "attn_type_list": [0] * 8 + [1]}, "attn_type_list = ['0', '1']",
    ),
    "sparse attention": ({"model_type": "deepseek_v3", "index_topk": 2048}, "index_topk = 2048"),
    "an encoder": ({"model_type": "qwen2", "is_causal": False}, "is_causal = False"),
    "attention to both sides": (
        {"model_type": "gemma3_text", "use_bidirectional_attention": True}, "use_bidirectional_attention = True",
    ),
    "embeddings of another width": ({"model_type": "opt", "word_embed_proj_dim": 32}, "word_embed_proj_dim = 32"),
    "attention shared by layers": ({"model_type": "hunyuan_v1_dense", "use_cla": True}, "use_cla = True"),
    "dense layers by number": (
        {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
         "mlp_only_layers": 3}, "mlp_only_layers = 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_layers_that_are_not_described_are_refused(case, tmp_path):
    fields, expected = REFUSED[case]
    (tmp_path / "config.json").write_text(json.dumps({**SIZES, **fields}))
    with pytest.raises(InputError) as caught:
        Model.from_hf(tmp_path)
    assert expected in str(caught.value)


def test_dense_layers_of_a_mixture_need_a_width_of_their_own(tmp_path):
    fields = {
        **SIZES, "model_type": "dots1", "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "n_shared_experts": 1, "first_k_dense_replace": 1,
    }  # fmt: skip
    del fields["intermediate_size"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match="expected intermediate_size"):
        Model.from_hf(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**fields, "first_k_dense_replace": 0}))
    assert Model.from_hf(tmp_path).kind_of(0).experts.width == 24
