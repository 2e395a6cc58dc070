"""Models whose weights are rounded at load weigh what the runtime keeps of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from helix_kit.errors import InputError
from helix_kit.layers import Experts, LayerKind
from helix_kit.model import Model
from helix_kit.quantized import group_size, rounded_format, rounded_kind


def test_the_smallest_groups_count() -> None:
    assert group_size("int4", [4096, 96]) == 32
    with pytest.raises(InputError, match=r"quantize = 'int4'.*multiple of 32; this model's have 40, 64"):
        group_size("int4", [64, 40])
    with pytest.raises(InputError, match="quantize = 'int5': expected one of int4, int8"):
        rounded_format("int5", [64])


def test_experts_are_rounded_and_what_is_no_projection_stays() -> None:
    experts = Experts(count=4, active=2, width=64, params=110, projection_params=100, weight_bytes=220)
    kind = LayerKind(
        name="x", kv_bytes_per_token=1, params=1200, projection_params=1000, weight_bytes=2400, experts=experts
    )
    rounded = rounded_kind(kind, rounded_format("int8", [64]), 2)
    bytes_a_weight = 1 + 5 / 64  # a code, and a part of a scale of 4 bytes and a zero of one
    assert rounded.weight_bytes == pytest.approx(200 * 2 + 1000 * bytes_a_weight)
    assert rounded.experts and rounded.experts.weight_bytes == pytest.approx(10 * 2 + 100 * bytes_a_weight)
    assert (rounded.params, rounded.experts.params) == (1200, 110)


def bytes_held(folder: Path, quantize: str, layer: int) -> float:
    """What the runtime holds of a layer, counted tensor by tensor, with 2 bytes for each weight that is not rounded."""
    torch = pytest.importorskip("torch")
    from helix_kit.runtime.weights.checkpoint import Checkpoint
    from helix_kit.runtime.weights.low_bit import LowBitWeight

    total = 0
    for held in Checkpoint(folder, quantize).read_layer(layer, torch.bfloat16, torch.device("cpu")).values():
        for part in held if isinstance(held, tuple) else (held,):
            total += part.num_bytes if isinstance(part, LowBitWeight) else part.numel() * part.itemsize
    return total


@pytest.mark.parametrize("method", ["int4", "int8"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2_moe", "phi3"])
def test_layers_weigh_what_the_runtime_holds(family: str, method: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from helix_kit.runtime.weights.tiny import UNUSUAL, tiny_checkpoint

    # Matrices whose inputs are all divided into groups of 32.
    widths = {"num_attention_heads": 4, "head_dim": 24, "hidden_size": 96, "intermediate_size": 160,
              "moe_intermediate_size": 32, "shared_expert_intermediate_size": 96}  # fmt: skip
    settings = {**UNUSUAL.get(family, {}), **widths, "num_hidden_layers": 2, "sliding_window": 12}
    folder = tiny_checkpoint(tmp_path, family, **settings)
    plain = Model.from_hf(folder, dtype_bytes=2)
    model = plain.quantized(method)
    for layer in (0, 1):
        assert model.layers_gb(layer, layer + 1) * 1e9 == pytest.approx(bytes_held(folder, method, layer), rel=1e-9)
    assert model.layers_params == pytest.approx(plain.layers_params)
    assert model.embedding_gb == plain.embedding_gb


def test_a_quantised_model_is_not_rounded_again(tmp_path: Path) -> None:
    for name in ("qwen3-30b-a3b-int4", "deepseek-v3", "gpt-oss-20b"):
        with pytest.raises(
            InputError, match=f"model {name}: quantize = 'int4': expected weights that are not quantise"
        ):
            Model.preset(name).quantized("int4")
    model = Model.preset("qwen3-8b").quantized("int8")
    with pytest.raises(InputError, match="this model's are int8"):
        model.quantized("int4")
    assert model.is_quantised and not Model.preset("qwen3-8b").is_quantised
    assert (model.name, model.stored_name, model.quantize) == ("qwen3-8b-int8", "qwen3-8b", "int8")
    assert "int8" in model._facts()["rounded at load"]


def test_a_mixture_from_an_old_plan_must_be_described_anew() -> None:
    model = Model.preset("qwen3-30b-a3b")
    kinds = [kind.model_copy(update={"projection_params": None}) for kind in model.layer_kinds]
    old = model.model_copy(update={"layer_kinds": tuple(kinds)})
    with pytest.raises(InputError, match=r"projection_params.*describe the model anew"):
        old.quantized("int4")
