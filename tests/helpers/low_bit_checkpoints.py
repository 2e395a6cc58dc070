"""Tiny checkpoints with random matrices of few bits, in the formats of other programs, and the same in float32.

The codes are packed here word by word, as the formats are described, and the weights in float32 are worked out from the
numbers that were packed: neither uses the package's code.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from helix_kit.runtime.weights.tiny import UNUSUAL, tiny_checkpoint

GROUP = 32
WIDTHS = {"qwen3_moe": {"moe_intermediate_size": 64}, "qwen2_moe": {"moe_intermediate_size": 64,
          "shared_expert_intermediate_size": 96}}  # fmt: skip
"""Sizes of experts that are multiples of the group."""
_PROJECTIONS = ("_proj.weight", "w1.weight", "w2.weight", "w3.weight")


def _compressed(name: str, **weights: Any) -> dict[str, Any]:
    settings = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", **weights}
    group = {"targets": ["Linear"], "weights": settings, "input_activations": None}
    return {"quant_method": "compressed-tensors", "format": name, "config_groups": {"group_0": group}}


CONFIGS: dict[str, dict[str, Any]] = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": False},
    "gptq rows": {"quant_method": "gptq", "bits": 4, "group_size": -1, "desc_act": False},
    "gptq_v2": {"quant_method": "gptq", "bits": 8, "group_size": GROUP, "checkpoint_format": "gptq_v2"},
    "packed": _compressed("pack-quantized", num_bits=4, strategy="group", group_size=GROUP),
    "packed with zeros": _compressed("pack-quantized", num_bits=4, strategy="group", group_size=GROUP, symmetric=False),
    "int8": _compressed("int-quantized"),
    "e4m3": _compressed("float-quantized", type="float"),
    "fp8": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [48, 32]},
}


def low_bit_checkpoint(folder: Path, form: str, family: str = "llama", **settings: Any) -> tuple[Path, Path]:
    """Write both checkpoints; returns the folder of the quantised one and that of the one in float32."""
    plain, packed = folder / "plain", folder / "packed"
    tiny_checkpoint(plain, family, seed=3, **{**UNUSUAL.get(family, {}), **WIDTHS.get(family, {}), **settings})
    shutil.copytree(plain, packed)
    tensors = load_file(plain / "model.safetensors")
    rng = np.random.default_rng(5)
    stored: dict[str, Any] = {}
    for name in list(tensors):
        if name.endswith(_PROJECTIONS):
            ends, weights = packed_matrix(form, tuple(tensors[name].shape), rng)
            stored |= {f"{name.removesuffix('weight')}{end}": tensor for end, tensor in ends.items()}
            tensors[name] = torch.from_numpy(weights.astype(np.float32))
        else:
            stored[name] = tensors[name]
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    save_file(stored, packed / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps(config | {"quantization_config": CONFIGS[form]}))
    return packed, plain


def packed_matrix(form: str, shape: tuple[int, int], rng: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """A random matrix: its tensors by the ends of their names, and its weights in float64."""
    outputs, inputs = shape
    if form in ("e4m3", "fp8"):
        values = torch.from_numpy(rng.normal(0, 100, shape)).to(torch.float8_e4m3fn)
        blocks = (outputs, 1) if form == "e4m3" else (-(-outputs // 48), inputs // 32)
        scales = rng.uniform(0.0008, 0.0016, blocks).astype(np.float32)
        whole = scales if form == "e4m3" else np.kron(scales, np.ones((48, 32)))[:outputs]
        end = "weight_scale" if form == "e4m3" else "weight_scale_inv"
        return {"weight": values, end: torch.from_numpy(scales)}, values.double().numpy() * whole
    bits = 8 if form in ("int8", "gptq_v2") else 4
    groups = 1 if form in ("int8", "gptq rows") else inputs // GROUP
    codes = rng.integers(0, 1 << bits, shape)
    zeros = rng.integers(1, 1 << bits, (outputs, groups))
    if form in ("packed", "int8"):
        zeros[:] = 1 << (bits - 1)
    scales = torch.from_numpy(rng.uniform(0.2, 0.4, (outputs, groups)) / (1 << (bits - 1))).half()
    weights = (codes - np.repeat(zeros, inputs // groups, 1)) * np.repeat(scales.double().numpy(), inputs // groups, 1)
    if form == "int8":
        return {"weight": torch.from_numpy(codes - 128).to(torch.int8), "weight_scale": scales}, weights
    if form.startswith("gptq"):
        less = 0 if form == "gptq_v2" else 1
        return {
            "qweight": _words(codes.T, bits, axis=0),
            "qzeros": _words(zeros.T - less, bits, axis=1),
            "scales": scales.T.contiguous(),
            "g_idx": torch.arange(inputs, dtype=torch.int32) // (inputs // groups),
        }, weights
    if form == "awq":
        order = np.array([0, 2, 4, 6, 1, 3, 5, 7])
        mixed = [matrix.T.reshape(matrix.shape[1], -1, 8)[..., order].reshape(matrix.shape[1], -1)
                 for matrix in (codes, zeros)]  # fmt: skip
        return {
            "qweight": _words(mixed[0], 4, axis=1),
            "qzeros": _words(mixed[1], 4, axis=1),
            "scales": scales.T.contiguous(),
        }, weights
    ends = {
        "weight_packed": _words(codes, bits, axis=1),
        "weight_scale": scales,
        "weight_shape": torch.tensor(shape, dtype=torch.int64),
    }
    if form == "packed with zeros":
        ends["weight_zero_point"] = _words(zeros, bits, axis=0)
    return ends, weights


def _words(codes: Any, bits: int, axis: int) -> torch.Tensor:
    """Codes in words of 32 bits along an axis, the first in the lowest bits."""
    rows = np.moveaxis(codes, axis, -1).astype(np.uint32)
    words = np.zeros((*rows.shape[:-1], rows.shape[-1] * bits // 32), np.uint32)
    for place in range(rows.shape[-1]):
        words[..., place * bits // 32] |= rows[..., place] << np.uint32(place * bits % 32)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(words, -1, axis)).view(np.int32))
