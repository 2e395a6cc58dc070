"""Model descriptions: presets, Hugging Face configs, mistakes."""

from __future__ import annotations

import json

import pytest

from helix_kit.errors import InputError
from helix_kit.model import Model, load_model

QWEN3 = {
    "model_type": "qwen3",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 128,
    "vocab_size": 100,
    "torch_dtype": "bfloat16",
}


def write(tmp_path, **changes):
    config = {key: value for key, value in {**QWEN3, **changes}.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_published_sizes():
    model = Model.preset("llama2-70b")
    assert (model.num_layers, model.layer_gb, model.activation_bytes_per_token) == (80, 1.53, 16384)
    assert Model.preset("smollm2-135m").name == "SmolLM2-135M"


def test_head_dim_need_not_be_hidden_over_heads(tmp_path):
    model = Model.from_hf(write(tmp_path))
    assert model.head_dim == 32
    assert model.kv_bytes_per_token_layer == 2 * 2 * 32 * 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"hidden_size": -1}, "hidden_size = -1"),
        ({"torch_dtype": "float12"}, "torch_dtype = 'float12'"),
        ({"num_experts": 8}, "num_experts = 8"),
    ],
)
def test_bad_configs(tmp_path, changes, expected):
    with pytest.raises(InputError) as caught:
        load_model(write(tmp_path, **changes))
    assert expected in str(caught.value) and "config.json" in str(caught.value)


def test_unknown_preset():
    with pytest.raises(InputError, match=r"unknown model preset 'llama2-7b'.*llama2-70b"):
        load_model("llama2-7b")


@pytest.mark.parametrize(
    ("name", "bytes_"), [("llama2-70b", 2), ("llama-30b", 2), ("llama3.1-70b", 4), ("qwen3-32b", 4)]
)
def test_a_token_id_of_a_preset_takes_the_bytes_that_its_vocabulary_needs(name, bytes_):
    model = Model.preset(name)
    assert model.token_bytes == bytes_ and model.vocab_size <= 256**bytes_
