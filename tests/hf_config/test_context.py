"""How many tokens a model's positions reach: the lengths that published configs and their model cards name."""

from __future__ import annotations

import pytest

from helix_kit.errors import InputError
from helix_kit.hf_config import read_context_tokens

# What each model card, or vLLM's log for the same file, says.
CARDS = {
    "plain": ({"max_position_embeddings": 4096}, 4096),
    "qwen2.5 with the yarn of its card": (
        {
            "max_position_embeddings": 32768,
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        },
        131072,
    ),
    "qwen3 has 40,960 positions, of which yarn counts 32,768": (
        {
            "max_position_embeddings": 40960,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        },
        131072,
    ),
    "gpt-oss counts its factor already": (
        {
            "max_position_embeddings": 131072,
            "rope_parameters": {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096},
        },
        131072,
    ),
    "llama-3.1 counts its factor already": (
        {
            "max_position_embeddings": 131072,
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
        },
        131072,
    ),
    "deepseek-coder: linear, the config's context unscaled": (
        {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}},
        16384,
    ),
    "gemma-3: linear, but scaled already": (
        {
            "model_type": "gemma3_text",
            "max_position_embeddings": 131072,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        131072,
    ),
    "tables by type of layer": (
        {
            "max_position_embeddings": 65536,
            "rope_parameters": {
                "full_attention": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192},
                "sliding_attention": {"rope_type": "default"},
            },
        },
        65536,
    ),
    "yarn without the original length": (
        {"max_position_embeddings": 128, "rope_scaling": {"rope_type": "yarn", "factor": 2.5}},
        320,
    ),
    "yarn without a factor": (
        {
            "max_position_embeddings": 512,
            "rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 128},
        },
        512,
    ),
    "null": ({"max_position_embeddings": 2048, "rope_scaling": None}, 2048),
    "nothing": ({}, None),
}


@pytest.mark.parametrize("card", CARDS)
def test_the_context_is_that_of_the_model_card(card: str) -> None:
    config, tokens = CARDS[card]
    assert read_context_tokens(config, "config.json") == tokens


def test_a_family_s_default_takes_part_in_the_scaling() -> None:
    config = {"rope_scaling": {"type": "linear", "factor": 2.0}}
    assert read_context_tokens(config, "config.json", default=2048) == 4096


@pytest.mark.parametrize("factor", ["4", True, 0.5, -1, float("nan"), float("inf"), [4]])
def test_a_factor_that_is_none_is_refused_by_name(factor) -> None:
    config = {"max_position_embeddings": 128, "rope_scaling": {"rope_type": "yarn", "factor": factor}}
    with pytest.raises(InputError, match=r"config.json: rope_scaling.factor = .*: expected a number of at least 1"):
        read_context_tokens(config, "config.json")


@pytest.mark.parametrize("length", ["128", 0, -1, 12.5])
def test_a_length_that_is_none_is_refused_by_name(length) -> None:
    with pytest.raises(InputError, match=r"max_position_embeddings = .*: expected a positive whole number"):
        read_context_tokens({"max_position_embeddings": length}, "config.json")
