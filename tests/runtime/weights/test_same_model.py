"""A plan for another model is refused, whatever the two differ in, by the field of the checkpoint's config.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from low_bit_checkpoints import CONFIGS, low_bit_checkpoint  # noqa: E402

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.model import Model  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.tiny import UNUSUAL, tiny_checkpoint  # noqa: E402

FAMILIES = {
    "llama": {},
    "mistral": UNUSUAL["mistral"],
    "mixtral": UNUSUAL["mixtral"],
    "qwen2_moe": UNUSUAL["qwen2_moe"],
    "qwen3_moe": UNUSUAL["qwen3_moe"],
    "gemma2": UNUSUAL["gemma2"],
}
# Family, a field of config.json, the planned model's value of it, and what the error says.
DIFFERENCES: list[tuple[str, str, Any, str]] = [
    ("llama", "num_hidden_layers", 4, "num_hidden_layers = 6: expected 4"),
    ("llama", "hidden_size", 128, "hidden_size = 64: expected 128"),
    ("llama", "num_attention_heads", 2, "num_attention_heads = 4: expected 2"),
    ("llama", "num_key_value_heads", 1, "num_key_value_heads = 2: expected 1"),
    ("llama", "head_dim", 32, "head_dim = 16: expected 32"),
    ("llama", "vocab_size", 512, "vocab_size = 256: expected 512"),
    ("llama", "intermediate_size", 192, "intermediate_size = 96: expected 192"),
    ("llama", "tie_word_embeddings", True, "tie_word_embeddings = False: expected true"),
    ("llama", "model_type", "arcee", "model_type = 'llama': expected a family whose MLP has 2 matrices"),
    ("mistral", "sliding_window", None, "sliding_window = 12: expected no such window"),
    ("mistral", "sliding_window", 24, "sliding_window = 12: expected 24"),
    ("gemma2", "layer_types", ["sliding_attention"] * 6, "layer_types = 'full': expected sliding attention in layer 1"),
    ("mixtral", "num_local_experts", 8, "num_local_experts = 5: expected 8"),
    ("mixtral", "num_experts_per_tok", 1, "num_experts_per_tok = 2: expected 1"),
    ("mixtral", "intermediate_size", 64, "intermediate_size = 96: expected 64"),
    ("qwen2_moe", "shared_expert_intermediate_size", 96, "parameters of layer 0 = 83648: expected 86720"),
    ("qwen2_moe", "shared_expert_intermediate_size", 0, "shared_expert_intermediate_size = 80: expected no shared"),
    ("qwen2_moe", "mlp_only_layers", [1, 2], "num_experts = 6: expected no experts in layer 2"),
    ("qwen2_moe", "mlp_only_layers", [], "num_experts = 0: expected 6 experts in layer 1"),
    ("qwen3_moe", "moe_intermediate_size", 24, "moe_intermediate_size = 48: expected 24"),
    ("qwen3_moe", "attention_bias", True, "parameters of layer 0 = 43200: expected 43520"),
]  # fmt: skip


@pytest.fixture(scope="module", params=["one folder for each family"])
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("families")
    return {family: tiny_checkpoint(base / family, family, **fields) for family, fields in FAMILIES.items()}


def planned_for(folder: Path, beside: Path, **changes: Any) -> Model:
    """The model of a checkpoint's config.json with other values of some fields."""
    beside.mkdir()
    config = json.loads((folder / "config.json").read_text()) | changes
    (beside / "config.json").write_text(json.dumps(config))
    return Model.from_hf(beside, name="planned")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_for_the_same_model_is_served(family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    Checkpoint(folders[family]).check_matches(planned_for(folders[family], tmp_path / "planned"))
    assert Checkpoint(folders[family]).check_matches(Model.from_hf(folders[family], dtype_bytes=2)) is None


@pytest.mark.parametrize(("family", "field", "value", "message"), DIFFERENCES)
def test_every_difference_is_named(family, field, value, message, folders, tmp_path) -> None:
    model = planned_for(folders[family], tmp_path / "planned", **{field: value})
    with pytest.raises(InputError, match=rf"config\.json: {message}.* as the plan's model planned has") as caught:
        Checkpoint(folders[family]).check_matches(model)
    assert "plan anew with this config.json" in str(caught.value)


def test_a_hand_written_model_without_kinds_of_layers_is_compared_too(folders: dict[str, Path]) -> None:
    sizes = {
        "name": "by hand", "num_layers": 6, "hidden_size": 64, "num_heads": 4, "num_kv_heads": 2,
        "vocab_size": 256, "dtype_bytes": 4,
    }  # fmt: skip
    Checkpoint(folders["llama"]).check_matches(Model(**sizes, intermediate_size=96))
    # A published size of a layer may differ from the sum of its parts.
    Checkpoint(folders["llama"]).check_matches(Model(**sizes, intermediate_size=96, layer_gb=1e-5))
    with pytest.raises(InputError, match="num_local_experts = 5: expected no experts in layer 0"):
        Checkpoint(tiny_checkpoint(folders["mixtral"].parent / "full", "mixtral", num_local_experts=5)).check_matches(
            Model(**sizes, intermediate_size=96)
        )


def test_other_bits_are_refused(tmp_path: Path) -> None:
    packed, plain = low_bit_checkpoint(tmp_path, "gptq", num_hidden_layers=2)
    own = Model.from_hf(packed)
    Checkpoint(packed).check_matches(own)
    with pytest.raises(InputError, match=r"quantization_config = '4\.\d+ bits a weight in layer 0': expected 32, as"):
        Checkpoint(packed).check_matches(Model.from_hf(plain))
    for form, expected in (("gptq_v2", r"8\.\d+"), ("gptq rows", r"4\.\d+")):
        model = planned_for(packed, tmp_path / f"{form} planned", quantization_config=CONFIGS[form])
        with pytest.raises(InputError, match=rf"quantization_config = '4\.\d+ bits .*: expected {expected}, as"):
            Checkpoint(packed).check_matches(model)
    # The same bits in another format are the same to a worker.
    Checkpoint(packed).check_matches(planned_for(packed, tmp_path / "awq", quantization_config=CONFIGS["awq"]))


def test_a_plan_whose_products_are_in_another_type_is_refused(tmp_path: Path) -> None:
    packed, _ = low_bit_checkpoint(tmp_path, "int8", num_hidden_layers=2)
    model = planned_for(packed, tmp_path / "planned", quantization_config=CONFIGS["fp8"])
    with pytest.raises(InputError, match=r"quantization_config = 'products in fp16 in layer 0': expected fp8, as"):
        Checkpoint(packed).check_matches(model)


def test_rounded_weights_match_a_plan_for_the_same_bits(tmp_path: Path) -> None:
    """A plan for a quantised checkpoint may be served with plain weights that are rounded at load."""
    packed, plain = low_bit_checkpoint(tmp_path, "packed", num_hidden_layers=2, hidden_size=128, intermediate_size=128)
    config = json.loads((packed / "config.json").read_text())
    config["quantization_config"] = {**CONFIGS["awq"], "group_size": 128}
    shutil.copytree(packed, tmp_path / "awq")
    (tmp_path / "awq" / "config.json").write_text(json.dumps(config))
    model = Model.from_hf(tmp_path / "awq")
    Checkpoint(plain, "int4").check_matches(model)
    with pytest.raises(InputError, match=r"'8\.\d+ bits a weight in layer 0': expected 4\."):
        Checkpoint(plain, "int8").check_matches(model)
    with pytest.raises(InputError, match="missing field: the plan's model awq has weights of"):
        Checkpoint(plain).check_matches(model)
    rounded = Model.from_hf(plain).quantized("int4")
    Checkpoint(plain, "int4").check_matches(rounded)


def test_gpt_oss_may_be_planned_expanded(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny", "gpt_oss", **UNUSUAL["gpt_oss"])
    Checkpoint(folder).check_matches(planned_for(folder, tmp_path / "p", quantization_config={"quant_method": "mxfp4"}))
    with pytest.raises(InputError, match="num_local_experts = 6: expected 8"):
        Checkpoint(folder).check_matches(planned_for(folder, tmp_path / "q", num_local_experts=8))
