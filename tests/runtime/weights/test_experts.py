"""Matrices of single experts find their places in the tensors of all experts, whatever the order of the file."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.weights.experts import is_expert, join_experts  # noqa: E402
from helix_kit.runtime.weights.families import LAYER_NAMES  # noqa: E402

NAMES = LAYER_NAMES["mixtral"].experts
CPU = torch.device("cpu")


def test_matrices_are_put_in_their_places() -> None:
    value_of = {"w1": 1.0, "w2": 2.0, "w3": 3.0}
    stored = {}
    for expert in reversed(range(11)):  # as words, 10 comes before 2
        for kind, value in value_of.items():
            shape = (4, 3) if kind == "w2" else (3, 4)
            weight = torch.full(shape, 100 * value + expert, dtype=torch.bfloat16)
            stored[f"block_sparse_moe.experts.{expert}.{kind}.weight"] = weight
    joined = join_experts(stored, NAMES, torch.float32, CPU)
    inputs, down = joined.pop("mlp.experts.gate_up_proj"), joined.pop("mlp.experts.down_proj")
    assert joined == {}
    assert (inputs.shape, down.shape, inputs.dtype) == ((11, 6, 4), (11, 4, 3), torch.float32)
    for expert in range(11):
        assert (inputs[expert, :3] == 100 + expert).all()
        # bfloat16 has 8 bits: 301 is 302 there, so the stored number counts.
        assert torch.equal(inputs[expert, 3:], stored[f"block_sparse_moe.experts.{expert}.w3.weight"].float())
        assert torch.equal(down[expert], stored[f"block_sparse_moe.experts.{expert}.w2.weight"].float())
    assert join_experts({}, NAMES, torch.float32, CPU) == {}


@pytest.mark.parametrize(
    ("name", "family", "is_one"),
    [
        ("block_sparse_moe.experts.7.w1.weight", "mixtral", True),
        ("block_sparse_moe.gate.weight", "mixtral", False),
        ("mlp.experts.7.up_proj.weight", "qwen2_moe", True),
        ("mlp.shared_expert.up_proj.weight", "qwen2_moe", False),
        ("mlp.experts.gate_up_proj", "gpt_oss", False),
    ],
)
def test_which_tensors_are_matrices_of_experts(name: str, family: str, is_one: bool) -> None:
    assert is_expert(name, LAYER_NAMES[family].experts) == is_one
