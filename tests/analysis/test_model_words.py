"""What is said about a model's layers, held against sizes that are worked out here."""

from __future__ import annotations

import random

import pytest

from helix_kit.analysis.model_words import STEP_REQUESTS, model_words
from helix_kit.hf_config import read_sizes
from helix_kit.model import Model

LINEAR = {
    "model_type": "qwen3_next", "num_hidden_layers": 8, "hidden_size": 2048, "num_attention_heads": 16,
    "num_key_value_heads": 2, "head_dim": 256, "intermediate_size": 5120, "vocab_size": 151936, "num_experts": 512,
    "num_experts_per_tok": 10, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
    "linear_num_value_heads": 32, "linear_num_key_heads": 16, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "torch_dtype": "bfloat16",
}  # fmt: skip


def test_plain_models_need_no_words():
    assert model_words(Model.preset("llama2-70b")) == model_words(Model.preset("qwen3-8b")) == []


def test_the_experts_of_a_step_are_those_that_random_routing_meets():
    """1,000 steps of 32 tokens, each of which draws 8 of 128 experts."""
    rng = random.Random(0)
    met = [
        len({expert for _ in range(STEP_REQUESTS) for expert in rng.sample(range(128), 8)}) for _ in range(1000)
    ]  # fmt: skip
    words = " ".join(model_words(Model.preset("qwen3-30b-a3b")))
    assert f"is expected to read {sum(met) / len(met):.0f} of the 128 experts" in words
    assert "Weights" not in words


def test_windows_and_few_bits_are_named():
    gemma = " ".join(model_words(Model.preset("gemma-3-27b")))
    assert "The last 1,024 tokens alone are kept in 52 of 62 layers." in gemma and "Experts" not in gemma
    rounded = " ".join(model_words(Model.preset("qwen3-32b").quantized("int4")))
    # 4 bits a weight, and 32 + 8 bits for each 128 of them; norms stay in 16 bits.
    assert "Weights: 4.31 bits on average" in rounded
    assert "since projections are rounded to int4 when they are loaded" in rounded


@pytest.mark.parametrize(("shared", "expected"), [(512, "10 of 512 and 1 shared by all tokens"), (0, "10 of 512 in")])
def test_a_state_in_the_place_of_keys_and_values_is_named(shared, expected):
    sizes = read_sizes({**LINEAR, "shared_expert_intermediate_size": shared}, "config.json")
    words = " ".join(model_words(Model(name="next", **sizes)))
    state = 6 * 4 * (32 * 128 * 128 + 4 * (2 * 16 * 128 + 32 * 128)) / 1e6
    assert f"A state of {state:.3g} MB for each request takes the place of keys and values in 6 of 8 layers." in words
    # Two layers, keys and values of 2 heads of 256, 2 bytes each.
    assert f"keys and values take {2 * 2 * 2 * 256 * 2 / 1e3:.3g} KB in all layers together" in words
    assert expected in words
