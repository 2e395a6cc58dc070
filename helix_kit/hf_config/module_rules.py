"""Which modules of a layer a quantisation means: the names and patterns in lists of a config.json.

Programs write these lists in several ways: a whole name (``model.layers.3.self_attn.q_proj``), a part of it (``mlp``,
``gate``), a name with ``*``, or a regular expression, perhaps marked ``re:``. They call a module as the program that
quantised the model did, so a matrix has several names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

from helix_kit.errors import InputError
from helix_kit.hf_config.layer_parts import ANY_EXPERT
from helix_kit.layers import WeightFormat

_BLOCKS: Mapping[str, tuple[str, ...]] = {
    "self_attn": ("self_attn", "self_attention", "attention", "attn"),
    "mlp": ("mlp", "block_sparse_moe", "feed_forward", "ffn"),
}
"""Part of a layer -> what families call it."""
_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "q_proj": ("qkv_proj", "query_key_value", "c_attn"),
    "k_proj": ("qkv_proj", "query_key_value", "c_attn"),
    "v_proj": ("qkv_proj", "query_key_value", "c_attn"),
    "o_proj": ("out_proj", "dense", "c_proj"),
    "gate_proj": ("gate_up_proj", "w1", "input_linear"),
    "up_proj": ("gate_up_proj", "w3", "input_linear", "fc1", "fc_in", "c_fc", "dense_h_to_4h"),
    "down_proj": ("w2", "output_linear", "fc2", "fc_out", "c_proj", "dense_4h_to_h"),
    "in_proj_qkv": ("in_proj_qkvz",),
    "in_proj_z": ("in_proj_qkvz",),
    "in_proj_b": ("in_proj_ba",),
    "in_proj_a": ("in_proj_ba",),
}
"""Matrix -> other names of it, or of one that it is a part of."""
_ROOTS = ("model.layers", "model.decoder.layers", "gpt_neox.layers", "transformer.h")
"""Where the layers of a decoder by itself are."""
_NESTED_ROOTS = ("model.language_model.layers", "language_model.model.layers")
"""Where they are in a multimodal model."""
_EXPERT_NUMBER = re.compile(r"(?<=experts\.)\d+(?=\.|$)")
_LAYER_NUMBER = re.compile(r"(?:layers|\bh)\.(\d+)(?=\.|$)")
_REGULAR = set("\\()[]^$+?|{}")
"""Characters that no name and no pattern with ``*`` has."""


class Rule(NamedTuple):
    """How modules are stored whose names match."""

    expression: str
    """A regular expression that is searched for in the names, one a line."""
    format: WeightFormat | None
    """None: as they are."""
    layer: int | None = None
    """The only layer that the expression can match. None: any."""


@dataclass(frozen=True)
class ModuleRules:
    """The formats of a model's matrices: of the first rule that matches, else `others`."""

    rules: tuple[Rule, ...]
    others: WeightFormat | None
    is_nested: bool = False
    """Whether the decoder is a part of a multimodal model, whose modules have a further prefix."""

    def formats(self, layer: int, modules: Iterable[str]) -> tuple[WeightFormat | None, ...]:
        """Format of each of these matrices of a layer; None: stored as it is."""
        rules = [*self._by_layer.get(None, ()), *self._by_layer.get(layer, ())]
        found = groupby((rule for _, rule in sorted(rules)), key=lambda rule: rule.format)
        tests = [("|".join(f"(?:{rule.expression})" for rule in group), form) for form, group in found]
        compiled = [(re.compile(expression, re.MULTILINE), form) for expression, form in tests]
        names = [self._names(layer, module) for module in modules]
        return tuple(next((form for test, form in compiled if test.search(named)), self.others) for named in names)

    @cached_property
    def _by_layer(self) -> dict[int | None, list[tuple[int, Rule]]]:
        """Rules with their places, by the layer that they are for."""
        grouped: dict[int | None, list[tuple[int, Rule]]] = {}
        for place, rule in enumerate(self.rules):
            grouped.setdefault(rule.layer, []).append((place, rule))
        return grouped

    def _names(self, layer: int, module: str) -> str:
        """The names that a matrix may have, one a line."""
        block, _, rest = module.partition(".")
        within, _, last = rest.rpartition(".")
        endings = {rest, *(f"{within}.{name}".lstrip(".") for name in _OTHER_NAMES.get(last, ()))}
        endings |= {ending.replace("shared_experts.", "shared_expert.") for ending in endings}
        endings |= {ending.replace(f"{ANY_EXPERT}.", "experts.") for ending in endings}
        blocks = _BLOCKS.get(block, (block,))
        paths = {f"{name}.{ending}" for name in blocks for ending in endings}
        paths |= {ending for ending in endings if ending.startswith("experts.")}  # Gemma-4 has them beside its MLP
        roots = _NESTED_ROOTS if self.is_nested else _ROOTS
        return "\n".join(f"{root}.{layer}.{path}" for root in roots for path in sorted(paths))


def rules_of(
    patterns: Iterable[str], form: WeightFormat | None, where: str, field: str, num_experts: int
) -> list[Rule]:
    """A rule for each name or pattern of a list.

    Parameters
    ----------
    patterns
        As in the file.
    form
        How the modules are stored; None: as they are.
    where, field
        Named in errors.
    num_experts
        Experts of a layer.

    Returns
    -------
    list of Rule
        In the order of the list.

    Raises
    ------
    InputError
        A pattern is no regular expression, or names some experts of a layer but not all of them.

    Examples
    --------
    >>> rules = ModuleRules(tuple(rules_of(["re:.*self_attn.*", "mlp.down_proj"], None, "config.json", "ignore", 0)),
    ...                     WeightFormat(name="awq", bits=4))
    >>> [form is None for form in rules.formats(7, ["self_attn.q_proj", "mlp.up_proj", "mlp.down_proj"])]
    [True, False, True]
    """
    expressions: dict[tuple[str, int | None], None] = {}
    experts: dict[str, set[str]] = {}
    for given in patterns:
        is_regular = given.startswith("re:") or bool(_REGULAR & set(given))
        number = None if is_regular else _EXPERT_NUMBER.search(given)
        pattern = _EXPERT_NUMBER.sub("*", given) if number else given
        if number:
            experts.setdefault(pattern, set()).add(number[0])
        expression = _expression(pattern, is_regular)
        try:
            re.compile(expression)
        except re.error as error:
            raise InputError(
                f"expected a regular expression ({error})", where=where, field=field, value=pattern
            ) from None
        layers = [] if is_regular else _LAYER_NUMBER.findall(pattern)
        expressions[expression, int(layers[0]) if layers else None] = None
    for pattern, numbers in experts.items():
        if len(numbers) != num_experts:
            expected = f"names {len(numbers)} of {num_experts} experts: expected all of a layer or none"
            raise InputError(expected, where=where, field=field, value=pattern)
    return [Rule(expression, form, layer) for expression, layer in expressions]


def _expression(pattern: str, is_regular: bool) -> str:
    """What finds a pattern in lines of names. A name or a part of it begins and ends at dots."""
    if pattern.startswith("re:"):
        return f"^(?:{pattern.removeprefix('re:')})"
    if is_regular:
        return pattern
    name = re.escape(pattern.replace(".*", "*")).replace(r"\*", ".*")
    return rf"(?:^|\.){name}(?:\.|$)"
