"""Names and shapes of tensors, against the parameters of transformers' own models on the meta device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from helix_kit.model import Model  # noqa: E402
from helix_kit.runtime.weights.checkpoint import FAMILIES  # noqa: E402
from helix_kit.runtime.weights.expected_tensors import expected_tensors  # noqa: E402
from helix_kit.runtime.weights.tiny import SIZES  # noqa: E402

VARIANTS: list[dict[str, Any]] = [
    {},
    {"tie_word_embeddings": True},
    {"attention_bias": True},
    {"mlp_bias": True},
    {"head_dim": 24},
    {"num_key_value_heads": 4, "vocab_size": 300},
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_tensors_are_the_parameters_of_transformers(tmp_path: Path, family: str, variant: dict[str, Any]) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    if family in {"olmo2", "phi3"} and "head_dim" in variant:
        pytest.skip("the family has no head size of its own")
    settings = {**SIZES, "num_hidden_layers": 2, "pad_token_id": 0, **variant}
    config = AutoConfig.for_model(family, **settings)
    (tmp_path / "config.json").write_text(json.dumps({**config.to_dict(), "model_type": family}))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    written = json.loads((tmp_path / "config.json").read_text())
    tied = bool(variant.get("tie_word_embeddings"))
    found = expected_tensors(written, Model.from_hf(tmp_path), with_head=not tied)
    assert found == {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
