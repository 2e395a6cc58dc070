"""config.json: every supported family counts as transformers does, everything else is refused by name."""

from __future__ import annotations

import json
import sys

import pytest

from helix_kit.errors import InputError
from helix_kit.hf_config import FAMILIES, TEXT_MODELS
from helix_kit.model import Model

SHAPES = [
    {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 160},
    {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 6, "intermediate_size": 208, "head_dim": 16},
    {"hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 1, "intermediate_size": 96, "head_dim": 24},
]
NARROW = {"bloom", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "opt", "phi", "stablelm", "falcon", "starcoder2"}
"""Families without a head_dim of their own: heads always share the hidden size evenly."""
NEEDS_PAD = {"phi3", "glm", "glm4", "smollm3", "ernie4_5", "nemotron", "hunyuan_v1_dense"}
FALCON = [
    {"new_decoder_architecture": True, "num_kv_heads": 2},
    {"multi_query": True, "parallel_attn": True},
    {"multi_query": False, "parallel_attn": False, "bias": True, "alibi": True},
]


def small_config(family, shape):
    """A config of transformers' own class with these sizes, under the names that the class uses."""
    from transformers import AutoConfig

    fields = {**shape, "num_hidden_layers": 2, "vocab_size": 300, "max_position_embeddings": 64}
    if family in {"hunyuan_v1_dense", "ministral"}:  # transformers' classes have no default of their own
        fields.setdefault("head_dim", 16)
    if family in NARROW:
        fields.pop("head_dim", None)
    if family in NEEDS_PAD:
        fields |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if family == "opt":
        fields |= {"ffn_dim": fields.pop("intermediate_size"), "word_embed_proj_dim": fields["hidden_size"]}
    if family in {"gpt2", "gpt_bigcode", "gptj"}:
        fields["n_inner"] = fields.pop("intermediate_size")
        fields |= {"n_positions": 64, "rotary_dim": 8}
    return AutoConfig.for_model(family, **fields)


def layer_params(config):
    """Parameters of each decoder layer of transformers' model, on the meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    layers = next(
        m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == config.num_hidden_layers
    )
    return [sum(p.numel() for p in layer.parameters()) for layer in layers]


def check(config, folder):
    folder.mkdir(parents=True, exist_ok=True)
    # Every field, also those that equal the class's defaults: as published files have them.
    (folder / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    counted = Model.from_hf(folder)
    real = layer_params(config)
    assert len(set(real)) == 1
    assert round(counted.layer_gb * 1e9 / counted.dtype_bytes) == real[0]
    return counted


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_layer_counts_as_in_transformers(family, shape, tmp_path):
    config = small_config(family, SHAPES[shape])
    check(config, tmp_path / "as-is")
    for switch, value in [*FAMILIES[family].defaults, *((s, False) for s in FAMILIES[family].refused)]:
        if switch in FAMILIES[family].refused or not hasattr(config, switch):
            continue
        flipped = small_config(family, SHAPES[shape])
        setattr(flipped, switch, not value)
        check(flipped, tmp_path / switch)


@pytest.mark.parametrize("variant", FALCON, ids=["grouped", "multi-query", "sequential"])
def test_the_three_falcons_count_as_in_transformers(variant, tmp_path):
    config = small_config("falcon", {"hidden_size": 64, "num_attention_heads": 4} | variant)
    model = check(config, tmp_path)
    assert model.num_kv_heads == (2 if "num_kv_heads" in variant else 1 if variant["multi_query"] else 4)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma2", "olmo2", "starcoder2"])
def test_keys_and_values_are_as_wide_as_their_projections(family, tmp_path):
    """The KV cache of a token: what the real k and v projections put out."""
    import torch
    from transformers import AutoModelForCausalLM

    config = small_config(family, SHAPES[0])
    model = check(config, tmp_path)
    with torch.device("meta"):
        attention = AutoModelForCausalLM.from_config(config).model.layers[0].self_attn
    width = attention.k_proj.out_features + attention.v_proj.out_features
    assert model.kv_bytes_per_token_layer == width * model.dtype_bytes


def qwen3(**changes):
    fields = {
        "model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 128, "vocab_size": 100,
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    return {k: v for k, v in {**fields, **changes}.items() if v is not None}


REFUSED = {
    "experts of a dense family": ({"model_type": "llama", "num_local_experts": 8}, "num_local_experts = 8"),
    "experts, another family": ({"model_type": "jetmoe", "num_local_experts": 8}, "num_local_experts = 8"),
    "experts, by name alone": ({"model_type": "hunyuan_v1_moe"}, "model_type = 'hunyuan_v1_moe'"),
    "experts, none active": ({"model_type": "mixtral", "num_local_experts": 8}, "expected num_experts_per_tok"),
    "experts, too many active": (
        {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 9},
        "num_experts_per_tok = 9",
    ),
    "latent attention": ({"model_type": "minicpm3", "kv_lora_rank": 256}, "kv_lora_rank = 256"),
    "hybrid, linear": ({"layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
    "a type for each layer": ({"layer_types": ["full_attention"]}, "layer_types = 1"),
    "an unknown type": ({"layer_types": ["full_attention", "mamba"]}, "layer_types = ['mamba']"),
    "hybrid, mamba": ({"model_type": "jamba", "mamba_d_state": 16}, "mamba_d_state = 16"),
    "encoder and decoder": ({"model_type": "t5", "is_encoder_decoder": True}, "is_encoder_decoder"),
    "encoder": ({"model_type": "bert"}, "unknown model family 'bert'"),
    "quantisation of another kind": (
        {"quantization_config": {"quant_method": "hqq"}},
        "unknown quantisation method 'hqq'",
    ),
    "AWQ of five bits": ({"quantization_config": {"quant_method": "awq", "bits": 5}}, "quantization_config.bits = 5"),
    "no family": ({"model_type": None}, "expected model_type"),
    "near miss": ({"model_type": "qwen-3"}, "did you mean qwen3"),
    "no layers": ({"num_hidden_layers": None}, "num_hidden_layers"),
    "layers as text": ({"num_hidden_layers": "2"}, "num_hidden_layers = '2'"),
    "no key-value heads": ({"num_key_value_heads": None}, "num_key_value_heads"),
    "fraction": ({"intermediate_size": 1.5}, "intermediate_size = 1.5"),
    "true": ({"hidden_size": True}, "hidden_size = True"),
    "unknown dtype": ({"torch_dtype": "float12"}, "torch_dtype = 'float12'"),
    "text_config is no object": ({"text_config": "llama"}, "text_config = 'llama'"),
    "text_config without a family": ({"text_config": {"hidden_size": 64}}, "text_config: missing field"),
    "norms that are not described": ({"model_type": "stablelm", "qk_layernorm": True}, "qk_layernorm = True"),
    "a switch that is a number": ({"attention_bias": 1}, "attention_bias = 1: expected true or false"),
    "a switch that is text": ({"attention_bias": "false"}, "attention_bias = 'false': expected true or false"),
    "key-value heads that divide no heads": ({"num_key_value_heads": 3}, "num_key_value_heads = 3: expected a divisor"),
    "more key-value heads than heads": ({"num_key_value_heads": 8}, "num_key_value_heads = 8: expected a divisor"),
    "a number of layers that no model has": ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000"),
    "layer types that are no list": ({"layer_types": 5}, "layer_types = 5"),
    "layer types that are lists": ({"layer_types": [["full_attention"], {}]}, "layer_types = "),
    "experts' fields that are a number": ({"model_type": "dbrx_like", "ffn_config": 5}, "ffn_config = 5"),
    "eight bits and four": (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": True}},
        "one of load_in_4bit and load_in_8bit",
    ),
    "a group size that is text": (
        {
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "g": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": "128"}}
                },
            }
        },
        "weights.group_size = '128'",
    ),
    "uneven heads": (
        {"model_type": "llama", "head_dim": None, "num_attention_heads": 5, "num_key_value_heads": 5},
        "hidden_size = 64",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_described_is_refused_by_field_and_value(case, tmp_path):
    changes, expected = REFUSED[case]
    (tmp_path / "config.json").write_text(json.dumps(qwen3(**changes)))
    with pytest.raises(InputError) as caught:
        Model.from_hf(tmp_path)
    assert expected in str(caught.value) and "config.json" in str(caught.value)


@pytest.mark.parametrize("name", ["gemma3_text", "qwen3", *TEXT_MODELS])
def test_a_multimodal_models_decoder_is_read_from_text_config(name, tmp_path):
    sizes = qwen3(model_type=name)
    if name == "ministral3":  # left out, Mistral has a window
        sizes["sliding_window"] = 32
    dtype = sizes.pop("torch_dtype")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "some_vl", "torch_dtype": dtype, "text_config": sizes, "vision_config": {"x": 1}})
    )
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "config.json").write_text(json.dumps({**sizes, "model_type": TEXT_MODELS.get(name, name)}))
    assert Model.from_hf(tmp_path, name="m") == Model.from_hf(alone, name="m")


def test_token_ids_of_large_vocabularies_take_four_bytes(tmp_path):
    for size, expected in [(65_536, 2), (65_537, 4), (151_936, 4)]:
        (tmp_path / "config.json").write_text(json.dumps(qwen3(vocab_size=size)))
        assert Model.from_hf(tmp_path).token_bytes == expected


@pytest.mark.parametrize(("dtype", "expected"), [("float32", 4), ("float16", 2), ("bfloat16", 2), (None, 2)])
def test_a_weight_has_the_bytes_of_its_dtype(dtype, expected, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(qwen3(torch_dtype=dtype)))
    assert Model.from_hf(tmp_path).dtype_bytes == expected
    assert Model.from_hf(tmp_path, dtype_bytes=1).dtype_bytes == 1


@pytest.mark.parametrize("family", sorted({*FAMILIES, "falcon"}))
def test_embedding_and_output_projection_count_as_in_transformers(family, tmp_path):
    """The two tables of the real model, tied and not, and the family's own choice where the config is silent."""
    import torch
    from transformers import AutoModelForCausalLM

    for tied in (True, False, None):
        config = small_config(
            family, SHAPES[0] if family != "falcon" else {"hidden_size": 64, "num_attention_heads": 4, **FALCON[0]}
        )
        fields = config.to_dict()
        if tied is None:
            fields.pop("tie_word_embeddings", None)
        else:
            config.tie_word_embeddings = fields["tie_word_embeddings"] = tied
        (tmp_path / "config.json").write_text(json.dumps(fields, default=str))
        counted = Model.from_hf(tmp_path)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        tables = {id(m.weight): m.weight.numel() for m in (model.get_input_embeddings(), model.get_output_embeddings())}
        assert round(counted.embedding_gb * 1e9 / counted.dtype_bytes) * (2 - counted.tied_embeddings) == sum(
            tables.values()
        )


def test_a_multimodal_model_ties_where_either_level_says_so(tmp_path):
    text = qwen3(model_type="qwen3_vl_text")
    for outer, inner, expected in ((True, None, True), (None, True, True), (True, False, False), (None, None, False)):
        nested = {**text, **({} if inner is None else {"tie_word_embeddings": inner})}
        whole = {"model_type": "qwen3_vl", "text_config": nested}
        whole |= {} if outer is None else {"tie_word_embeddings": outer}
        (tmp_path / "config.json").write_text(json.dumps(whole))
        assert Model.from_hf(tmp_path).tied_embeddings is expected
    (tmp_path / "config.json").write_text(json.dumps(qwen3(tie_word_embeddings="no")))
    with pytest.raises(InputError, match=r"tie_word_embeddings = 'no': expected true or false"):
        Model.from_hf(tmp_path)


# text_config as published: Gemma-3-4B leaves out vocabulary and heads, LLaVA-1.5-7B whatever equals Llama-2-7B's.
SAVED_AS_DIFFERENCES = {
    "gemma-3-4b": (
        {
            "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
        },
        (34, 2560, 8, 4, 256, 262_208), 3.88e9,
    ),
    "llava-1.5-7b": (
        {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "vocab_size": 32064},
        (32, 4096, 32, 32, 128, 32_064), 6.74e9,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAVED_AS_DIFFERENCES)
def test_sizes_that_a_text_config_leaves_out_are_transformers_defaults(name, tmp_path):
    """The parameters are those of the decoder on the model's card: 3.88 B of Gemma-3-4B, Llama-2-7B's 6.74 B."""
    nested, sizes, parameters = SAVED_AS_DIFFERENCES[name]
    whole = {
        "model_type": "vl",
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": "gemma" in name,
        "text_config": nested,
    }
    (tmp_path / "config.json").write_text(json.dumps(whole))
    model = Model.from_hf(tmp_path)
    found = (model.num_layers, model.hidden_size, model.num_heads, model.num_kv_heads, model.head_dim, model.vocab_size)
    assert found == sizes
    tables = (2 - model.tied_embeddings) * model.vocab_size * model.hidden_size
    assert model.num_layers * model.layer_params + tables == pytest.approx(parameters, rel=0.002)


def test_without_transformers_a_text_config_without_sizes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    nested = SAVED_AS_DIFFERENCES["gemma-3-4b"][0]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": nested}))
    with pytest.raises(InputError, match=r"text_config: leaves out num_attention_heads, vocab_size, .* pip install"):
        Model.from_hf(tmp_path)
