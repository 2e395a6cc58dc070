"""Which weights a config.json says are quantised, and how they are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_kit._files import unknown
from helix_kit.errors import InputError
from helix_kit.hf_config.module_rules import ModuleRules, Rule, rules_of
from helix_kit.layers import WeightFormat

FIELD = "quantization_config"
_EXCLUDED = ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules", "llm_int8_skip_modules")
"""Fields that list modules whose weights stay as they are."""
_OLD_FIELD = "compression_config"
_OTHER_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq", "hf_quant_config.json": "modelopt"}
"""Files that said how weights are quantised before config.json did, and the method of each."""
_CACHE_FIELDS = ("kv_cache_scheme", "kv_cache_quant_algo")
"""Fields of compressed-tensors and of ModelOpt that describe a KV cache of few bits."""
_EVERY_LINEAR = "Linear"
"""Target of a group that means every matrix."""


def with_old_names(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config with ``quantization_config`` where it has the name that compressed-tensors gave it at first.

    Parameters
    ----------
    config
        The content of a config.json.

    Returns
    -------
    mapping
        The same where it has no ``compression_config``.

    Examples
    --------
    >>> with_old_names({"compression_config": {"format": "int-quantized"}})["quantization_config"]
    {'format': 'int-quantized'}
    """
    if config.get(_OLD_FIELD) and not config.get(FIELD):
        return {**config, FIELD: config[_OLD_FIELD]}
    return config


def check_no_other_file(config: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError where a file beside config.json says that weights are quantised, and config.json does not.

    Plans would reckon with weights of 16 bits. Old files of AutoGPTQ, AutoAWQ and ModelOpt are like that.

    Parameters
    ----------
    config
        The content of config.json.
    folder
        Where it lies.

    Raises
    ------
    InputError
        Names the other file.

    Examples
    --------
    >>> check_no_other_file({"quantization_config": {"quant_method": "awq"}}, Path("weights"))
    """
    nested = config.get("text_config")
    levels = [config, nested] if isinstance(nested, Mapping) else [config]
    if any(level.get(FIELD) or level.get(_OLD_FIELD) for level in levels):
        return
    for name, method in _OTHER_FILES.items():
        if (folder / name).is_file():
            expected = f"describes quantised weights, but config.json has no {FIELD}: expected its fields there, with "
            raise InputError(f"{expected}quant_method = {method!r}", where=folder / name)


def low_bit_cache(config: Mapping[str, Any], where: object) -> str | None:
    """What to tell a user whose config.json asks for a KV cache of few bits; None where it does not.

    Parameters
    ----------
    config
        The content of the file; a multimodal model's decoder may be nested in it.
    where
        Named in the message.

    Returns
    -------
    str or None
        One sentence or two. The cache is planned, simulated and kept in the bytes of an activation.

    Examples
    --------
    >>> scheme = {"num_bits": 8, "type": "float"}
    >>> config = {"quantization_config": {"quant_method": "compressed-tensors", "kv_cache_scheme": scheme}}
    >>> low_bit_cache(config, "config.json").partition(". ")[0]
    'config.json: quantization_config.kv_cache_scheme asks for a KV cache of 8 bits'
    """
    config, nested = with_old_names(config), config.get("text_config")
    given = config.get(FIELD) or (nested.get(FIELD) if isinstance(nested, Mapping) else None)
    if not isinstance(given, Mapping):
        return None
    field = next((name for name in _CACHE_FIELDS if given.get(name)), None)
    if field is None:
        return None
    scheme = given[field]
    asked = f"{scheme['num_bits']} bits" if isinstance(scheme, Mapping) and "num_bits" in scheme else f"{scheme!r}"
    return (
        f"{where}: {FIELD}.{field} asks for a KV cache of {asked}. Plans and our runtime keep it in the type of the "
        "activations: it takes that type's memory, and answers are those of the exact cache"
    )


@dataclass(frozen=True)
class _Given:
    """A config's ``quantization_config``."""

    fields: Mapping[str, Any]
    where: str
    num_experts: int

    def rules(self, patterns: list[str], form: WeightFormat | None, field: str) -> list[Rule]:
        """A rule for each of these names or patterns."""
        return rules_of(patterns, form, self.where, f"{FIELD}.{field}", self.num_experts)

    def names(self, field: str) -> list[str]:
        """A list of modules, empty where the field is missing or null."""
        listed = self.fields.get(field) or []
        if not isinstance(listed, list) or any(not isinstance(name, str) for name in listed):
            raise InputError("expected a list of modules", where=self.where, field=f"{FIELD}.{field}", value=listed)
        return listed

    def changes(self, field: str) -> dict[str, Mapping[str, Any]]:
        """Other fields for modules by name or pattern, empty where the field is missing or null."""
        given = self.fields.get(field) or {}
        if not isinstance(given, dict) or any(not isinstance(changed, dict) for changed in given.values()):
            raise InputError("expected fields by module", where=self.where, field=f"{FIELD}.{field}", value=given)
        return given


_Formats = tuple[list[Rule], WeightFormat | None]
"""Rules for some modules, and the format of all others."""


def read_quantization(
    config: Mapping[str, Any], where: str, num_experts: int, *, is_nested: bool = False
) -> ModuleRules | None:
    """How the matrices of a config's layers are stored; None where it quantises nothing.

    Parameters
    ----------
    config
        A decoder's config.
    where
        Named in errors.
    num_experts
        Experts of a layer that has any.
    is_nested
        Whether the decoder is a part of a multimodal model.

    Returns
    -------
    ModuleRules or None
        The format of each matrix. Routers, norms and biases are never quantised.

    Raises
    ------
    InputError
        A method, a number of bits or a kind of weights that is not described. The message names the field.

    Examples
    --------
    >>> config = {"quantization_config": {"quant_method": "awq", "bits": 4, "modules_to_not_convert": ["self_attn"]}}
    >>> formats = read_quantization(config, "config.json", 0).formats(3, ["self_attn.q_proj", "mlp.up_proj"])
    >>> [form and form.bits for form in formats]
    [None, 4]
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
    read = _Given(given, where, num_experts)
    excluded = [rule for field in _EXCLUDED for rule in read.rules(read.names(field), None, field)]
    rules, others = _METHODS[method](read)
    return ModuleRules((*excluded, *rules), others, is_nested)


def _fp8(given: _Given) -> _Formats:
    block = given.fields.get("weight_block_size")
    if block is None:
        return [], WeightFormat(name="fp8", bits=8, arithmetic="fp8")
    if not isinstance(block, list) or len(block) != 2 or any(not isinstance(n, int) or n < 1 for n in block):
        raise InputError("expected two sizes", where=given.where, field=f"{FIELD}.weight_block_size", value=block)
    size = block[0] * block[1]
    return [], WeightFormat(name="fp8", bits=8, group_size=size, group_bits=32, arithmetic="fp8")


def _in_groups(name: str, fields: Mapping[str, Any], where: str) -> WeightFormat:
    bits = fields.get("bits", fields.get("w_bit", 4))
    if bits not in (2, 3, 4, 8) or isinstance(bits, bool):
        raise InputError("expected 2, 3, 4 or 8", where=where, field=f"{FIELD}.bits", value=bits)
    group = fields.get("group_size", fields.get("q_group_size", 128))
    if not isinstance(group, int) or isinstance(group, bool) or group < -1 or group == 0:
        expected = "expected a positive whole number, or -1 for whole rows"
        raise InputError(expected, where=where, field=f"{FIELD}.group_size", value=group)
    # A scale of 16 bits and a zero point as wide as a weight, also where it is the same for all groups.
    return WeightFormat(name=name, bits=bits, group_size=max(group, 0), group_bits=16 + bits)


def _awq(given: _Given) -> _Formats:
    return [], _in_groups("awq", given.fields, given.where)


def _gptq(given: _Given) -> _Formats:
    """``dynamic`` holds other bits by regular expression, or ``-:`` for modules that stay as they are."""
    rules: list[Rule] = []
    for pattern, changed in given.changes("dynamic").items():
        stays = pattern.startswith("-:")
        form = None if stays else _in_groups("gptq", {**given.fields, **changed}, given.where)
        rules += given.rules([f"re:{pattern.removeprefix('-:').removeprefix('+:')}"], form, "dynamic")
    others = _in_groups("gptq", given.fields, given.where)
    field = "modules_in_block_to_quantize"
    listed = given.fields.get(field)
    if not listed:
        return rules, others
    if not isinstance(listed, list):
        raise InputError("expected lists of modules", where=given.where, field=f"{FIELD}.{field}", value=listed)
    names = [name for one in listed for name in (one if isinstance(one, list) else [one])]
    if any(not isinstance(name, str) for name in names):
        raise InputError("expected lists of modules", where=given.where, field=f"{FIELD}.{field}", value=listed)
    return [*rules, *given.rules(names, others, field)], None


def _auto_round(given: _Given) -> _Formats:
    """``extra_config`` holds other bits by module; with 16 bits a module stays as it is."""
    kind = given.fields.get("data_type", "int")
    if kind != "int":
        raise InputError("expected int", where=given.where, field=f"{FIELD}.data_type", value=kind)
    patterns: dict[WeightFormat | None, list[str]] = {}
    for pattern, changed in given.changes("extra_config").items():
        fields = {**given.fields, **changed}
        stays = isinstance(fields.get("bits"), int) and fields["bits"] >= 16
        form = None if stays else _in_groups("auto-round", fields, given.where)
        patterns.setdefault(form, []).append(pattern)
    rules = [rule for form, names in patterns.items() for rule in given.rules(names, form, "extra_config")]
    return rules, _in_groups("auto-round", given.fields, given.where)


def _bitsandbytes(given: _Given) -> _Formats:
    fields, where = given.fields, given.where
    if fields.get("load_in_8bit") and fields.get("load_in_4bit"):
        raise InputError("expected one of load_in_4bit and load_in_8bit", where=where, field=FIELD)
    if fields.get("load_in_8bit"):
        return [], WeightFormat(name="bitsandbytes", bits=8, arithmetic="int8")
    if not fields.get("load_in_4bit"):
        raise InputError("expected load_in_4bit or load_in_8bit", where=where, field=FIELD)
    if fields.get("bnb_4bit_use_double_quant"):  # Scales of 8 bits, and one of 32 bits for each 256 of them.
        return [], WeightFormat(name="bitsandbytes", bits=4, group_size=64 * 256, group_bits=8 * 256 + 32)
    return [], WeightFormat(name="bitsandbytes", bits=4, group_size=64, group_bits=32)


def _mxfp4(given: _Given) -> _Formats:
    """Of experts alone, whatever else is listed."""
    form = WeightFormat(name="mxfp4", bits=4, group_size=32, group_bits=8)
    return given.rules(["experts"], form, "quant_method"), None


def _compressed(given: _Given) -> _Formats:
    """The format of the library compressed-tensors: groups of modules, each with a description of its weights."""
    field = "config_groups"
    groups = given.fields.get(field)
    if not isinstance(groups, dict) or not groups:
        raise InputError("expected groups of modules", where=given.where, field=f"{FIELD}.{field}", value=groups)
    sparsity = given.fields.get("sparsity_config")
    if isinstance(sparsity, dict) and sparsity.get("format", "dense") != "dense":
        found = sparsity["format"]
        raise InputError("expected dense", where=given.where, field=f"{FIELD}.sparsity_config.format", value=found)
    rules: list[Rule] = []
    others: list[WeightFormat] = []
    for name, group in groups.items():
        place = f"{field}.{name}"
        targets = group.get("targets") if isinstance(group, dict) else None
        if not isinstance(targets, list) or any(not isinstance(target, str) for target in targets):
            raise InputError("expected targets", where=given.where, field=f"{FIELD}.{place}", value=targets)
        form = _compressed_group(group, given.where)
        names = [target for target in targets if target != _EVERY_LINEAR]
        if classes := [target for target in names if "." not in target and not target.startswith("re:")]:
            expected = f"expected {_EVERY_LINEAR}, or names of modules"
            raise InputError(expected, where=given.where, field=f"{FIELD}.{place}.targets", value=classes)
        others += [form] * targets.count(_EVERY_LINEAR)
        rules += given.rules(names, form, f"{place}.targets")
    if len(others) > 1:
        expected = f"expected one group of the target {_EVERY_LINEAR}"
        raise InputError(expected, where=given.where, field=f"{FIELD}.{field}", value=sorted(groups))
    return rules, others[0] if others else None


def _compressed_group(group: Mapping[str, Any], where: str) -> WeightFormat:
    field = f"{FIELD}.config_groups.weights"
    weights = group.get("weights")
    if not isinstance(weights, dict):
        raise InputError("expected an object with num_bits", where=where, field=field, value=weights)
    bits, kind = weights.get("num_bits"), weights.get("type", "int")
    if bits not in (4, 8) or kind not in ("int", "float"):
        raise InputError("expected 4 or 8 bits, int or float", where=where, field=f"{field}.num_bits", value=bits)
    if group.get("format") == "marlin-24":
        raise InputError(
            "expected dense weights", where=where, field=f"{FIELD}.config_groups.format", value="marlin-24"
        )
    has_low_bit_inputs = group.get("input_activations") is not None
    arithmetic = {("int", True): "int8", ("float", True): "fp8"}.get((kind, has_low_bit_inputs and bits == 8), "fp16")
    size = weights.get("group_size") or 0
    if not isinstance(size, int) or isinstance(size, bool):
        raise InputError("expected a whole number", where=where, field=f"{field}.group_size", value=size)
    # The scales of four-bit floats (NVFP4, MXFP4) have 8 bits. A zero point is as wide as a weight.
    scale = 8 if (kind, bits) == ("float", 4) else 16
    zero = bits if kind == "int" and weights.get("symmetric", True) is False else 0
    return WeightFormat.model_validate(
        {"name": "compressed-tensors", "bits": bits, "group_size": max(size, 0),
         "group_bits": scale + zero if size > 0 else 0, "arithmetic": arithmetic}
    )  # fmt: skip


def _modelopt(given: _Given) -> _Formats:
    """NVIDIA's files: groups as in compressed-tensors, or the name of an algorithm."""
    if given.fields.get("config_groups"):
        return _compressed(given)
    algorithm = given.fields.get("quant_algo")
    known = {
        "FP8": WeightFormat(name="modelopt", bits=8, arithmetic="fp8"),
        "NVFP4": WeightFormat(name="modelopt", bits=4, group_size=16, group_bits=8),
    }
    if algorithm not in known:
        expected = f"expected config_groups, or one of {', '.join(known)}"
        raise InputError(expected, where=given.where, field=f"{FIELD}.quant_algo", value=algorithm)
    return [], known[algorithm]


_METHODS: Mapping[str, Callable[[_Given], _Formats]] = {
    "auto-round": _auto_round,
    "awq": _awq,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed,
    "fbgemm_fp8": _fp8,
    "fp8": _fp8,
    "gptq": _gptq,
    "modelopt": _modelopt,
    "mxfp4": _mxfp4,
}
"""Methods whose storage is described."""
