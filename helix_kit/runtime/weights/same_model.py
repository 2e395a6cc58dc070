"""Compares a checkpoint's config.json with the model that a plan was made for.

Two models may have the same hidden size and heads, and other experts, windows or bits. A plan for one of them would
then serve the other with the wrong memory and speed, without any error. So everything that a plan's model states is
compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from helix_kit.errors import InputError
from helix_kit.hf_config import EXPERT_FAMILIES
from helix_kit.hf_config.fields import ALIASES
from helix_kit.hf_config.layer_parts import EXPERT_COUNTS
from helix_kit.layers import Experts, LayerKind
from helix_kit.model import Model

_SIZES: Mapping[str, tuple[str, ...]] = {
    "num_layers": ALIASES["num_layers"],
    "hidden_size": ALIASES["hidden_size"],
    "num_heads": ALIASES["num_heads"],
    "num_kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "vocab_size": ALIASES["vocab_size"],
}
"""Sizes that any model states -> their fields in config.json."""
_DIFFERENCE = 0.05
"""Bits of a weight may differ by so much: formats of four bits with groups of 128 have between 4.13 and 4.31."""


def check_same(found: Model, planned: Model, config: Mapping[str, Any], where: object, *, with_bits: bool) -> None:
    """Raise InputError unless a checkpoint's model is the one that a plan was made for.

    Parameters
    ----------
    found
        The checkpoint's model, in the bytes of a weight that the plan's model has.
    planned
        The plan's model.
    config
        The checkpoint's config.json, which says what its fields are called.
    where
        That file, for errors.
    with_bits
        Whether the bits of the weights are compared too.

    Raises
    ------
    InputError
        Names the first field that differs, its value and the plan's value.
    """
    for field, value, expected in _differences(found, planned, config, with_bits):
        raise InputError(
            f"expected {expected}, as the plan's model {planned.name} has. Name the weights that the plan is for, or "
            "plan anew with this config.json",
            where=where,
            field=field,
            value=value,
        )


def _differences(
    found: Model, planned: Model, config: Mapping[str, Any], with_bits: bool
) -> Iterator[tuple[str, Any, str]]:
    """Field, value and expected value of everything that differs, the plainest first."""
    for size, names in _SIZES.items():
        value, size_planned = getattr(found, size), getattr(planned, size)
        if value != size_planned:
            yield _field(config, names), value, str(size_planned)
    layers = [(found.kind_of(i), planned.kind_of(i)) for i in range(planned.num_layers)]
    yield from _attention_differences(layers)
    for layer, kinds in enumerate(layers):
        routed, wanted_experts = (None if kind is None else kind.experts for kind in kinds)
        yield from _expert_differences(layer, routed, wanted_experts, config)
    has_dense = any(kind is None or kind.experts is None for kind, _ in layers)
    if has_dense and found.intermediate_size != planned.intermediate_size:
        yield _field(config, ALIASES["intermediate_size"]), found.intermediate_size, str(planned.intermediate_size)
    if has_dense and found.mlp_matrices != planned.mlp_matrices:
        yield "model_type", config.get("model_type"), f"a family whose MLP has {planned.mlp_matrices} matrices"
    if found.tied_embeddings != planned.tied_embeddings:
        yield "tie_word_embeddings", found.tied_embeddings, str(planned.tied_embeddings).lower()
    for layer, (own, wanted) in enumerate(layers):
        # A model without kinds may have a published size in place of the sum of its parts.
        if own is not None and wanted is not None and own.all_params != wanted.all_params:
            yield f"parameters of layer {layer}", own.all_params, str(wanted.all_params)
    if with_bits:
        for layer, (own, wanted) in enumerate(layers):
            yield from _bit_differences(layer, own, wanted, 8.0 * planned.dtype_bytes)


def _attention_differences(
    layers: Sequence[tuple[LayerKind | None, LayerKind | None]],
) -> Iterator[tuple[str, Any, str]]:
    own, planned = (_windows(kind for kind in kinds) for kinds in zip(*layers, strict=True))
    for attention, field in {"sliding": "sliding_window", "chunked": "attention_chunk_size"}.items():
        if own.get(attention) != planned.get(attention):
            yield field, own.get(attention), str(planned.get(attention, "no such window"))
    for layer, kinds in enumerate(layers):
        value, expected = ("full" if kind is None else kind.attention for kind in kinds)
        if value != expected:
            yield "layer_types", value, f"{expected} attention in layer {layer}"


def _windows(kinds: Iterable[LayerKind | None]) -> dict[str, int | None]:
    """The window of the layers of each kind of attention. A model has one."""
    return {kind.attention: kind.window_tokens for kind in kinds if kind is not None}


def _expert_differences(
    layer: int, own: Experts | None, wanted: Experts | None, config: Mapping[str, Any]
) -> Iterator[tuple[str, Any, str]]:
    family = EXPERT_FAMILIES.get(str(config.get("model_type")))
    fields = family.experts if family is not None else None
    count = _field(config, (*((fields.count,) if fields else ()), *EXPERT_COUNTS))
    if own is None or wanted is None:
        if own is not wanted:
            value, expected = (0 if experts is None else experts.count for experts in (own, wanted))
            yield count, value, f"{expected or 'no'} experts in layer {layer}"
        return
    assert fields is not None
    names = {"count": count, "active": fields.active, "width": fields.width}
    for size, name in names.items():
        value, expected = getattr(own, size), getattr(wanted, size)
        if value != expected:
            yield name, value, str(expected)
    if own.shared != wanted.shared:
        # Some families state the width of one shared expert in the place of their number.
        given = config.get(fields.shared_field)
        yield fields.shared_field or "shared experts", given, f"{wanted.shared or 'no'} shared experts in layer {layer}"


def _bit_differences(
    layer: int, own: LayerKind | None, wanted: LayerKind | None, plain: float
) -> Iterator[tuple[str, Any, str]]:
    bits, expected = (plain if kind is None else _bits(kind) for kind in (own, wanted))
    if abs(bits - expected) > _DIFFERENCE * expected:
        yield "quantization_config", f"{bits:.3g} bits a weight in layer {layer}", f"{expected:.3g}"
    arithmetic, planned = ("fp16" if kind is None else kind.arithmetic for kind in (own, wanted))
    if arithmetic != planned:
        yield "quantization_config", f"products in {arithmetic} in layer {layer}", planned


def _bits(kind: LayerKind) -> float:
    return 8 * kind.all_bytes / kind.all_params


def _field(config: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The name that the config has for a size."""
    return next((name for name in names if config.get(name) is not None), names[0])
