"""Every format of quantised matrices is read as the numbers that were packed, and what is not read is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from low_bit_checkpoints import CONFIGS, low_bit_checkpoint, packed_matrix  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.low_bit_files import low_bit_format  # noqa: E402

GOLDEN_AWQ = [[0x75316420], [0xFDB9ECA8]]
"""Two inputs of eight outputs."""
GOLDEN_PACKED = [[0x76543210, 0xFEDCBA98]]
"""One output of sixteen inputs."""
KINDS = {"gptq_v2": "int8", "int8": "int8", "e4m3": "fp8", "fp8": "fp8"}


@pytest.mark.parametrize("form", CONFIGS)
def test_a_matrix_is_what_was_packed(form: str) -> None:
    read_as = low_bit_format({"model_type": "llama", "quantization_config": CONFIGS[form]}, "config.json")
    assert read_as is not None
    for shape in ((64, 96), (32, 64)):
        stored, weights = packed_matrix(form, shape, np.random.default_rng(1))
        assert read_as.refuses(*shape) is None
        described = read_as.tensors(*shape)
        assert {end: tuple(tensor.shape) for end, tensor in stored.items()} == {
            end: tensor.shape for end, tensor in described.items()
        }
        kept = read_as.read(stored, "X", "a file")
        assert (kept.kind, kept.shape) == (KINDS.get(form, "int4"), shape)
        np.testing.assert_allclose(kept.expand(torch.float32).double().numpy(), weights, rtol=1e-6, atol=1e-9)
        # Each weight is rounded once: to the nearest number in bfloat16.
        halves = torch.from_numpy(weights).float().bfloat16().float()
        close = (kept.expand(torch.bfloat16).float() - halves).abs() <= halves.abs() / 128
        assert bool(close.all())


def test_words_of_other_programs() -> None:
    """Packed once by GPTQModel 7.7 (AWQ) and compressed-tensors 0.20, from the codes 0, 1, ..., 15."""
    awq = low_bit_format({"model_type": "llama", "quantization_config": {**CONFIGS["awq"], "group_size": 2}}, "")
    packed = low_bit_format({"model_type": "llama", "quantization_config": CONFIGS["packed"]}, "")
    assert awq is not None and packed is not None
    words = torch.tensor(GOLDEN_AWQ, dtype=torch.int64).to(torch.int32)
    zeros, ones = torch.zeros(1, 1, dtype=torch.int32), torch.ones(1, 8)
    kept = awq.read({"qweight": words, "qzeros": zeros, "scales": ones}, "X", "")
    assert kept.expand(torch.float32).t().flatten().tolist() == list(range(16))
    words = torch.tensor(GOLDEN_PACKED, dtype=torch.int64).to(torch.int32)
    kept = packed.read({"weight_packed": words, "weight_scale": torch.ones(1, 1)}, "X", "")
    assert kept.expand(torch.float32).flatten().tolist() == [code - 8 for code in range(16)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "quantization_config = 'bitsandbytes'"),
        ({**CONFIGS["gptq"], "bits": 3}, r"quantization_config.bits = 3: only 4 or 8"),
        ({**CONFIGS["gptq"], "checkpoint_format": "marlin"}, "checkpoint_format = 'marlin'"),
        ({**CONFIGS["awq"], "version": "gemv"}, "version = 'gemv'"),
        ({**CONFIGS["awq"], "zero_point": False}, "zero_point = False"),
        ({**CONFIGS["fp8"], "weight_block_size": None}, "weight_block_size"),
        ({**CONFIGS["fp8"], "activation_scheme": "static"}, "activation_scheme = 'static'"),
        ({**CONFIGS["int8"], "format": "nvfp4-pack-quantized"}, "format = 'nvfp4-pack-quantized'"),
        ({**CONFIGS["int8"], "format": "pack-quantized", "config_groups": {}}, "config_groups"),
    ],
)
def test_other_formats_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        low_bit_format({"model_type": "llama", "quantization_config": change}, "config.json")


def edited(folder: Path, name: str, tensor: torch.Tensor | None) -> Checkpoint:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(name, None)
    save_file(tensors | ({} if tensor is None else {name: tensor}), folder / "model.safetensors", {"format": "pt"})
    return Checkpoint(folder)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    folder, _ = low_bit_checkpoint(tmp_path, "gptq", num_hidden_layers=1)
    Checkpoint(folder).check_tensors()
    prefix = "model.layers.0.self_attn.q_proj"
    zeros = load_file(folder / "model.safetensors")[f"{prefix}.qzeros"]
    cpu = torch.device("cpu")
    with pytest.raises(InputError, match="act-order"):
        edited(folder, f"{prefix}.g_idx", torch.arange(64, dtype=torch.int32) % 2).read_layer(0, torch.float32, cpu)
    edited(folder, f"{prefix}.g_idx", None).check_tensors()
    with pytest.raises(InputError, match="expected the checkpoint in gptq_v2"):
        edited(folder, f"{prefix}.qzeros", torch.full_like(zeros, -1)).read_layer(0, torch.float32, cpu)
    with pytest.raises(InputError, match=r"q_proj.qzeros' is missing"):
        edited(folder, f"{prefix}.qzeros", None).check_tensors()
    with pytest.raises(InputError, match=r"q_proj.qzeros' holds F32: expected I32"):
        edited(folder, f"{prefix}.qzeros", zeros.float()).check_tensors()
    with pytest.raises(InputError, match=r"q_proj.qzeros' is 1 x 8: expected 2 x 8"):
        edited(folder, f"{prefix}.qzeros", zeros[:1].clone()).check_tensors()
    edited(folder, f"{prefix}.qzeros", zeros)
    with pytest.raises(InputError, match=r"lm_head.weight' is quantised"):
        edited(folder, "lm_head.qweight", zeros).check_tensors()


def test_a_group_that_divides_no_matrix(tmp_path: Path) -> None:
    folder, _ = low_bit_checkpoint(tmp_path, "gptq", num_hidden_layers=1)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["group_size"] = 128
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="no multiple of the group of 128"):
        Checkpoint(folder).check_tensors()
