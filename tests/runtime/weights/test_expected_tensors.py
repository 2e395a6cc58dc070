"""Names and shapes of tensors, against the parameters of transformers' own models on the meta device."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from helix_kit.model import Model  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.expected_tensors import expected_tensors  # noqa: E402
from helix_kit.runtime.weights.families import FAMILIES, LAYER_NAMES  # noqa: E402
from helix_kit.runtime.weights.tensor_files import read_header  # noqa: E402
from helix_kit.runtime.weights.tiny import SIZES, UNUSUAL, tiny_checkpoint  # noqa: E402

VARIANTS: list[dict[str, Any]] = [
    {"tie_word_embeddings": False},
    {"tie_word_embeddings": True, "num_key_value_heads": 4, "vocab_size": 300},
    {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    {"head_dim": 24, "tie_word_embeddings": False},
]
EXPERTS = [family for family in FAMILIES if LAYER_NAMES[family].experts]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in EXPERTS])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_tensors_are_the_parameters_of_transformers(tmp_path: Path, family: str, variant: dict[str, Any]) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    if family in {"olmo2", "olmo3", "phi3"} and "head_dim" in variant:
        pytest.skip("the family has no head size of its own")
    settings = {**SIZES, "num_hidden_layers": 2, "pad_token_id": 0, **variant}
    config = AutoConfig.for_model(family, **settings)
    (tmp_path / "config.json").write_text(json.dumps({**config.to_dict(), "model_type": family}))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    written = json.loads((tmp_path / "config.json").read_text())
    found = expected_tensors(written, Model.from_hf(tmp_path), with_head=not variant["tie_word_embeddings"])
    assert found == {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}


@pytest.mark.parametrize("family", EXPERTS)
def test_experts_are_those_that_transformers_writes_and_has(tmp_path: Path, family: str) -> None:
    """A file has a tensor for each matrix of an expert, a model one for all experts: both have the same elements."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tiny_checkpoint(tmp_path, family, **{**UNUSUAL[family], "num_hidden_layers": 2})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    config = json.loads((folder / "config.json").read_text())
    expected = expected_tensors(config, Model.from_hf(folder), with_head=not config["tie_word_embeddings"])
    stored = read_header(folder / "model.safetensors")
    assert expected == {name: header.shape for name, header in stored.items()}
    sizes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    layer = Checkpoint(folder).read_layer(1, torch.float32, torch.device("cpu"))
    prefix = "model.layers.1."
    assert {name: tuple(tensor.shape) for name, tensor in layer.items()} == {
        name.removeprefix(prefix): shape for name, shape in sizes.items() if name.startswith(prefix)
    }
    assert sum(map(math.prod, expected.values())) == sum(map(math.prod, sizes.values()))
