"""How checkpoints store matrices of few bits, by the `quant_method` of their config, and how these are read.

A matrix ``X.weight`` (outputs, inputs) is stored as several tensors. Sources: the files that GPTQModel, AutoAWQ and
compressed-tensors write. Which matrices a checkpoint has quantised is seen from the tensors that it holds.

| format | tensors in the place of X.weight |
|---|---|
| gptq | qweight and qzeros (codes in words of 32 bits, along the inputs and the outputs), scales, perhaps g_idx |
| awq | the same without g_idx, all codes along the outputs, eight of them in the order 0 2 4 6 1 3 5 7 |
| pack-quantized | weight_packed (along the inputs), weight_scale, weight_shape, perhaps weight_zero_point |
| int-quantized, float-quantized | weight of 8 bits, weight_scale |
| fp8 | weight of 8 bits, weight_scale_inv for each block |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from helix_kit.errors import InputError
from helix_kit.runtime.weights.low_bit import LowBitWeight, pack

if TYPE_CHECKING:
    import torch

FIELD = "quantization_config"
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_REAL = ("F32", "BF16", "F16")


class StoredTensor(NamedTuple):
    """What a file must hold under one name."""

    dtypes: tuple[str, ...]
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class LowBitFormat:
    """A format of matrices of few bits, as a config describes it."""

    name: str
    marker: str
    """End of the tensor's name that shows that a matrix is stored in this format."""
    bits: int = 8
    group: int = 0
    """Inputs that share a scale; 0: all of them."""
    block: tuple[int, int] | None = None
    """Outputs and inputs that share a scale (``fp8``)."""
    stores_next_zero: bool = False
    """Whether the zeros are stored less one, as the first version of ``gptq`` does."""
    symmetric: bool = False
    """Whether no zeros are stored."""

    def tensors(self, outputs: int, inputs: int) -> dict[str, StoredTensor]:
        """The tensors in the place of a matrix, by the ends of their names."""
        group, per_word = self.group or inputs, 32 // self.bits
        groups = inputs // group
        if self.name == "gptq":
            return {
                "qweight": StoredTensor(("I32",), (inputs // per_word, outputs)),
                "qzeros": StoredTensor(("I32",), (groups, outputs // per_word)),
                "scales": StoredTensor(_REAL, (groups, outputs)),
                "g_idx": StoredTensor(("I32", "I64"), (inputs,), optional=True),
            }
        if self.name == "awq":
            return {
                "qweight": StoredTensor(("I32",), (inputs, outputs // per_word)),
                "qzeros": StoredTensor(("I32",), (groups, outputs // per_word)),
                "scales": StoredTensor(_REAL, (groups, outputs)),
            }
        if self.name == "pack-quantized":
            stored = {
                "weight_packed": StoredTensor(("I32",), (outputs, inputs // per_word)),
                "weight_scale": StoredTensor(_REAL, (outputs, groups)),
                "weight_shape": StoredTensor(("I64", "I32"), (2,), optional=True),
            }
            if not self.symmetric:
                stored["weight_zero_point"] = StoredTensor(("I32",), (outputs // per_word, groups))
            return stored
        if self.name == "fp8":
            assert self.block is not None
            blocks = (-(-outputs // self.block[0]), -(-inputs // self.block[1]))
            return {
                "weight": StoredTensor(("F8_E4M3",), (outputs, inputs)),
                "weight_scale_inv": StoredTensor(_REAL, blocks),
            }
        return {
            "weight": StoredTensor(("I8" if self.name == "int-quantized" else "F8_E4M3",), (outputs, inputs)),
            "weight_scale": StoredTensor(_REAL, (outputs, groups)),
        }

    def refuses(self, outputs: int, inputs: int) -> str | None:
        """Why a matrix of this shape cannot be in the format; None where it can."""
        if self.block is not None:
            return None if inputs % self.block[1] == 0 else f"its inputs are no multiple of {self.block[1]}"
        if self.group and inputs % self.group:
            return f"its inputs are no multiple of the group of {self.group}"
        per_word = 32 // self.bits
        if self.marker != "weight_scale" and (inputs % per_word or outputs % per_word):
            return f"its sides are no multiples of {per_word}"
        return None

    def read(self, stored: Mapping[str, torch.Tensor], name: str, where: object) -> LowBitWeight:
        """The matrix `name` from its stored tensors, by the ends of their names."""
        return _READERS[self.name](self, stored, name, where)


def low_bit_format(config: Mapping[str, Any], where: object) -> LowBitFormat | None:
    """The format of a config's quantised matrices; None where they are not quantised, or in mxfp4.

    Raises
    ------
    InputError
        For a method, or a variant of it, that the runtime does not read. The message names the field.
    """
    given = config.get(FIELD)
    if not given:
        return None
    method = given.get("quant_method") if isinstance(given, dict) else given
    if (config.get("model_type"), method) == ("gpt_oss", "mxfp4"):
        return None
    make = _FORMATS.get(str(method))
    if make is None or config.get("model_type") == "gpt_oss":
        expected = (
            "these quantised weights can be planned and simulated, but not served yet: expected one of "
            f"{', '.join(sorted(_FORMATS))}"
        )
        raise InputError(expected, where=where, field=FIELD, value=method)
    return make(given, where)


def _need(given: Mapping[str, Any], field: str, allowed: tuple[Any, ...], default: Any, where: object) -> Any:
    value = given.get(field, default)
    if isinstance(value, list) or value not in allowed or (isinstance(value, bool) and True not in allowed):
        words = " or ".join(str(one).lower() if isinstance(one, bool) else str(one) for one in allowed)
        raise InputError(f"only {words} can be served", where=where, field=f"{FIELD}.{field}", value=value)
    return value


def _group(given: Mapping[str, Any], where: object, field: str = "group_size") -> int:
    value = given.get(field, 128)
    if value is None or value == -1:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 2 or value % 2:
        raise InputError("expected an even number, or -1", where=where, field=f"{FIELD}.{field}", value=value)
    return value


def _gptq(given: Mapping[str, Any], where: object) -> LowBitFormat:
    bits = _need(given, "bits", (4, 8), 4, where)
    version = _need(given, "checkpoint_format", ("gptq", "gptq_v2"), "gptq", where)
    return LowBitFormat("gptq", "qweight", bits, _group(given, where), stores_next_zero=version == "gptq")


def _awq(given: Mapping[str, Any], where: object) -> LowBitFormat:
    _need(given, "bits", (4,), given.get("w_bit", 4), where)
    _need(given, "zero_point", (True,), True, where)
    if str(given.get("version", "gemm")).lower() != "gemm":
        raise InputError("only gemm can be served", where=where, field=f"{FIELD}.version", value=given["version"])
    return LowBitFormat("awq", "qweight", 4, _group({"group_size": given.get("q_group_size", 128), **given}, where))


def _fp8(given: Mapping[str, Any], where: object) -> LowBitFormat:
    _need(given, "fmt", ("e4m3",), "e4m3", where)
    _need(given, "activation_scheme", ("dynamic",), "dynamic", where)
    block = given.get("weight_block_size")
    if not (isinstance(block, list) and len(block) == 2 and all(type(side) is int and side > 0 for side in block)):
        field = f"{FIELD}.weight_block_size"
        raise InputError("only blocks of two sizes can be served", where=where, field=field, value=block)
    return LowBitFormat("fp8", "weight_scale_inv", block=(block[0], block[1]))


def _compressed(given: Mapping[str, Any], where: object) -> LowBitFormat:
    """One group of modules, as `helix_kit.hf_config` has checked: its weights are whole numbers or E4M3."""
    groups = given.get("config_groups")
    group = next(iter(groups.values())) if isinstance(groups, dict) and len(groups) == 1 else None
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(group, dict) or not isinstance(weights, dict):
        field = f"{FIELD}.config_groups"
        raise InputError("expected one group of modules, with weights", where=where, field=field)
    name = given.get("format") or group.get("format")
    kinds = {("pack-quantized", "int"): (4, 8), ("int-quantized", "int"): (8,), ("float-quantized", "float"): (8,)}
    bits = kinds.get((str(name), weights.get("type", "int")))
    if bits is None:
        expected = f"expected one of {', '.join(kind for kind, _ in kinds)}, with weights of its type"
        raise InputError(expected, where=where, field=f"{FIELD}.format", value=name)
    inside = f"{where}: {FIELD}.config_groups.weights"
    symmetric = weights.get("symmetric", True)
    allowed = ("group", "channel") if name == "pack-quantized" else ("channel",)
    checks = {
        "num_bits": bits,
        "strategy": allowed,
        "actorder": (None, False, "weight", "static"),
        "symmetric": (True, False) if name == "pack-quantized" else (True,),
    }
    for field, values in checks.items():
        value = weights.get(field, symmetric if field == "symmetric" else None)
        if value not in values:
            words = " or ".join(str(one).lower() for one in values if one is not None)
            raise InputError(f"only {words} can be served", where=inside, field=field, value=value)
    size = _group(weights, inside) if weights["strategy"] == "group" else 0
    marker = "weight_packed" if name == "pack-quantized" else "weight_scale"
    return LowBitFormat(str(name), marker, weights["num_bits"], size, symmetric=symmetric)


_FORMATS: Mapping[str, Callable[[Mapping[str, Any], object], LowBitFormat]] = {
    "awq": _awq,
    "compressed-tensors": _compressed,
    "fp8": _fp8,
    "gptq": _gptq,
}


def _unpack(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes from words of 32 bits, in a new last dimension, the lowest bits first."""
    import torch

    shifts = torch.arange(0, 32, bits, dtype=torch.int32, device=words.device)
    return ((words[..., None] >> shifts) & ((1 << bits) - 1)).to(torch.uint8)


def _read_gptq(form: LowBitFormat, stored: Mapping[str, torch.Tensor], name: str, where: object) -> LowBitWeight:
    import torch

    codes = _unpack(stored["qweight"], form.bits).transpose(1, 2).flatten(0, 1).t()
    zeros = _unpack(stored["qzeros"], form.bits).flatten(1).t()
    groups = stored["scales"].shape[0]
    if "g_idx" in stored:
        in_turn = torch.arange(codes.shape[1], device=codes.device) // (codes.shape[1] // groups)
        if not torch.equal(stored["g_idx"].long(), in_turn):
            expected = "has inputs in another order than its groups (act-order): this is not served yet"
            raise InputError(f"tensor {name}.g_idx {expected}", where=where, field=f"{FIELD}.desc_act", value=True)
    if form.stores_next_zero:
        if bool((zeros == (1 << form.bits) - 1).any()):
            expected = "has a zero point that programs read differently: expected the checkpoint in gptq_v2"
            raise InputError(f"tensor {name}.qzeros {expected}", where=where)
        zeros = zeros + 1
    return pack(codes, stored["scales"].t(), zeros.contiguous(), form.bits)


def _read_awq(form: LowBitFormat, stored: Mapping[str, torch.Tensor], name: str, where: object) -> LowBitWeight:
    import torch

    places = torch.tensor(_AWQ_ORDER).argsort()
    codes, zeros = (_unpack(stored[part], 4)[..., places].flatten(1).t() for part in ("qweight", "qzeros"))
    return pack(codes, stored["scales"].t(), zeros.contiguous(), 4)


def _read_packed(form: LowBitFormat, stored: Mapping[str, torch.Tensor], name: str, where: object) -> LowBitWeight:
    import torch

    codes, scales = _unpack(stored["weight_packed"], form.bits).flatten(1), stored["weight_scale"]
    if "weight_shape" in stored and tuple(stored["weight_shape"].tolist()) != tuple(codes.shape):
        raise InputError(f"tensor {name}.weight_shape differs from that of weight_packed", where=where)
    if form.symmetric:
        zeros = torch.full(scales.shape, 1 << (form.bits - 1), dtype=torch.uint8, device=scales.device)
    else:
        zeros = _unpack(stored["weight_zero_point"], form.bits).transpose(1, 2).flatten(0, 1).contiguous()
    return pack(codes, scales, zeros, form.bits)


def _read_int8(form: LowBitFormat, stored: Mapping[str, torch.Tensor], name: str, where: object) -> LowBitWeight:
    import torch

    codes = stored["weight"].view(torch.uint8) ^ 0x80  # from -128 to 127, stored from 0 to 255
    scales = stored["weight_scale"].float()
    return LowBitWeight("int8", codes, scales, torch.full(scales.shape, 128, dtype=torch.uint8, device=scales.device))


def _read_fp8(form: LowBitFormat, stored: Mapping[str, torch.Tensor], name: str, where: object) -> LowBitWeight:
    import torch

    codes = stored["weight"].view(torch.uint8)
    if bool(((codes & 0x7F) == 0x7F).any()):
        raise InputError(f"tensor {name}.weight holds codes that are no numbers", where=where)
    if form.block is None:
        return LowBitWeight("fp8", codes, stored["weight_scale"].float(), None)
    scales = stored["weight_scale_inv"].float().repeat_interleave(form.block[0], dim=0)[: len(codes)]
    return LowBitWeight("fp8", codes, scales.contiguous(), None)


_READERS: Mapping[str, Callable[[LowBitFormat, Mapping[str, torch.Tensor], str, object], LowBitWeight]] = {
    "awq": _read_awq,
    "float-quantized": _read_fp8,
    "fp8": _read_fp8,
    "gptq": _read_gptq,
    "int-quantized": _read_int8,
    "pack-quantized": _read_packed,
}
