"""Which weights a config.json says are quantised, and how they are stored."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from helix_kit._files import unknown
from helix_kit.errors import InputError
from helix_kit.layers import WeightFormat

FIELD = "quantization_config"
PARTS = {
    "attention": ("self_attn", "attention", "linear_attn", "attn"),
    "experts": ("experts",),
    "mlp": ("mlp", "feed_forward", "ffn", "shared_expert"),
}
"""Part of a layer -> names that its modules bear in the weights' files."""
_EXCLUDED = ("modules_to_not_convert", "ignored_layers", "ignore", "llm_int8_skip_modules")
"""Fields that list modules whose weights stay as they are."""


@dataclass(frozen=True)
class Quantization:
    """The quantisation of a model."""

    format: WeightFormat
    excluded: tuple[str, ...] = ()
    """Patterns of the modules whose weights stay as they are."""

    def holds_for(self, part: str, layer: int) -> bool:
        """Whether the matrices of this part of a layer are quantised. Routers, norms and biases never are."""
        return not any(_names(pattern, part, layer) for pattern in self.excluded)


def _names(pattern: str, part: str, layer: int) -> bool:
    """Whether a pattern names all of a part. It may be a module's path, a part of it, or a regular expression."""
    text = pattern.removeprefix("re:").replace("\\", "").replace(".*", "*")
    numbers = re.findall(r"layers\.(\d+)(?=\.|$)", text)
    if numbers and int(numbers[0]) != layer:
        return False
    names = [n for n in re.split(r"[.*]+", text.strip("^$")) if n and not n.isdigit() and n not in ("model", "layers")]
    if not names:
        return bool(numbers)
    # A name below a part, such as mlp.gate or self_attn.q_norm, does not name the part.
    return names[-1] in PARTS[part] or (part == "experts" and names[-1] in PARTS["mlp"] and "shared" not in names[-1])


def read_quantization(config: Mapping[str, Any], where: str) -> Quantization | None:
    """The quantisation in a config; None where it has none.

    A method, a number of bits or a kind of weights that is not described is an InputError that names the field.
    """
    given = config.get(FIELD)
    if not given:
        return None
    if not isinstance(given, dict):
        raise InputError("expected an object with quant_method", where=where, field=FIELD, value=given)
    method = given.get("quant_method")
    if method is None and (given.get("load_in_4bit") or given.get("load_in_8bit")):
        method = "bitsandbytes"
    if not isinstance(method, str) or method not in _METHODS:
        message = unknown("quantisation method", str(method), sorted(_METHODS))
        raise InputError(f"{message}; its weights are not described", where=where, field=f"{FIELD}.quant_method")
    excluded: list[str] = []
    for field in _EXCLUDED:
        listed = given.get(field) or []
        if not isinstance(listed, list) or any(not isinstance(name, str) for name in listed):
            raise InputError("expected a list of modules", where=where, field=f"{FIELD}.{field}", value=listed)
        excluded += listed
    return Quantization(_METHODS[method](given, where), tuple(excluded))


def _fp8(given: Mapping[str, Any], where: str) -> WeightFormat:
    block = given.get("weight_block_size")
    if block is None:
        return WeightFormat(name="fp8", bits=8, arithmetic="fp8")
    if not isinstance(block, list) or len(block) != 2 or any(not isinstance(n, int) or n < 1 for n in block):
        raise InputError("expected two sizes", where=where, field=f"{FIELD}.weight_block_size", value=block)
    return WeightFormat(name="fp8", bits=8, group_size=block[0] * block[1], group_bits=32, arithmetic="fp8")


def _grouped(name: str, default_group: int) -> Callable[[Mapping[str, Any], str], WeightFormat]:
    def read(given: Mapping[str, Any], where: str) -> WeightFormat:
        bits = given.get("bits", given.get("w_bit", 4))
        if bits not in (2, 3, 4, 8) or isinstance(bits, bool):
            raise InputError("expected 2, 3, 4 or 8", where=where, field=f"{FIELD}.bits", value=bits)
        group = given.get("group_size", given.get("q_group_size", default_group))
        if not isinstance(group, int) or isinstance(group, bool) or group < -1 or group == 0:
            expected = "expected a positive whole number, or -1 for whole rows"
            raise InputError(expected, where=where, field=f"{FIELD}.group_size", value=group)
        # A scale of 16 bits and a zero point as wide as a weight, also where it is the same for all groups.
        return WeightFormat(name=name, bits=bits, group_size=max(group, 0), group_bits=16 + bits)

    return read


def _bitsandbytes(given: Mapping[str, Any], where: str) -> WeightFormat:
    if given.get("load_in_8bit") and given.get("load_in_4bit"):
        raise InputError("expected one of load_in_4bit and load_in_8bit", where=where, field=FIELD)
    if given.get("load_in_8bit"):
        return WeightFormat(name="bitsandbytes", bits=8, arithmetic="int8")
    if not given.get("load_in_4bit"):
        raise InputError("expected load_in_4bit or load_in_8bit", where=where, field=FIELD)
    if given.get("bnb_4bit_use_double_quant"):  # Scales of 8 bits, and one of 32 bits for each 256 of them.
        return WeightFormat(name="bitsandbytes", bits=4, group_size=64 * 256, group_bits=8 * 256 + 32)
    return WeightFormat(name="bitsandbytes", bits=4, group_size=64, group_bits=32)


def _mxfp4(given: Mapping[str, Any], where: str) -> WeightFormat:
    return WeightFormat(name="mxfp4", bits=4, group_size=32, group_bits=8)


def _compressed(given: Mapping[str, Any], where: str) -> WeightFormat:
    """The format of the library compressed-tensors: groups of modules, each with a description of its weights."""
    field = f"{FIELD}.config_groups"
    groups = given.get("config_groups")
    if not isinstance(groups, dict) or len(groups) != 1:
        raise InputError("expected one group of modules", where=where, field=field, value=_names_of(groups))
    (group,) = groups.values()
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict) or group.get("targets") != ["Linear"]:
        raise InputError('expected weights of the targets ["Linear"]', where=where, field=field)
    bits, kind = weights.get("num_bits"), weights.get("type", "int")
    if bits not in (4, 8) or kind not in ("int", "float"):
        raise InputError("expected 4 or 8 bits", where=where, field=f"{field}.weights.num_bits", value=bits)
    has_low_bit_inputs = group.get("input_activations") is not None
    arithmetic = {("int", True): "int8", ("float", True): "fp8"}.get((kind, has_low_bit_inputs and bits == 8), "fp16")
    size = weights.get("group_size") or 0
    if not isinstance(size, int) or isinstance(size, bool):
        raise InputError("expected a whole number", where=where, field=f"{field}.weights.group_size", value=size)
    return WeightFormat.model_validate(
        {"name": "compressed-tensors", "bits": bits, "group_size": max(size, 0), "group_bits": 16 if size > 0 else 0,
         "arithmetic": arithmetic}
    )  # fmt: skip


def _names_of(groups: Any) -> Any:
    return sorted(groups) if isinstance(groups, dict) else groups


_METHODS: Mapping[str, Callable[[Mapping[str, Any], str], WeightFormat]] = {
    "awq": _grouped("awq", 128),
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed,
    "fbgemm_fp8": _fp8,
    "fp8": _fp8,
    "gptq": _grouped("gptq", 128),
    "mxfp4": _mxfp4,
}
"""Methods whose storage is described."""
