"""What is particular about a plan's model, as sentences: experts, weights of few bits, and what a token caches."""

from __future__ import annotations

from collections.abc import Iterable

from helix_kit._summary import number
from helix_kit.layers import LayerKind
from helix_kit.model import Model

STEP_REQUESTS = 32
"""Requests of the decode step for which the experts that it reads are counted."""


def model_words(model: Model) -> list[str]:
    """Sentences about the layers of a model that are more than dense layers with full attention.

    Parameters
    ----------
    model
        The plan's model.

    Returns
    -------
    list of str
        Empty for a model of plain layers.

    Examples
    --------
    >>> for sentence in model_words(Model.preset("qwen3-30b-a3b-int4")):
    ...     print(sentence)
    Experts: a token takes 8 of 128 in each layer, 2.73 of 29.9 billion parameters.
    A decode step of 32 requests is expected to read 112 of the 128 experts of a layer; memory holds all.
    Weights: 4.16 bits on average, 15.6 GB in all layers.
    A token's keys and values take 98.3 KB in all layers together.
    >>> model_words(Model.preset("llama2-70b"))
    []
    """
    if not model.layer_kinds:
        return []
    layers = list(zip(model.count_kinds(0, model.num_layers), model.layer_kinds, strict=True))
    return [*_expert_words(model, layers), *_weight_words(model), *_cache_words(model, layers)]


_Layers = list[tuple[int, LayerKind]]
"""Numbers of layers with their kind."""


def _expert_words(model: Model, layers: _Layers) -> list[str]:
    with_experts = [(count, kind.experts) for count, kind in layers if kind.experts is not None]
    if not with_experts:
        return []
    experts = with_experts[0][1]
    total, active = model.layers_params / 1e9, model.active_params / 1e9
    shared = f" and {experts.shared} shared by all tokens" if experts.shared else ""
    read = experts.distinct(STEP_REQUESTS, model.expert_skew)
    return [
        f"Experts: a token takes {experts.active} of {experts.count}{shared} in "
        f"{_which(model, (count for count, _ in with_experts))}, {active:.3g} of {total:.3g} billion parameters.",
        f"A decode step of {STEP_REQUESTS} requests is expected to read {read:.0f} of the {experts.count} experts of a "
        "layer; memory holds all.",
    ]


def _weight_words(model: Model) -> list[str]:
    if not model.is_quantised:
        return []
    gb = model.layers_gb(0, model.num_layers)
    rounded = f", since projections are rounded to {model.quantize} when they are loaded" if model.quantize else ""
    return [f"Weights: {model.bits_per_weight:.3g} bits on average, {number(gb)} GB in all layers{rounded}."]


def _cache_words(model: Model, layers: _Layers) -> list[str]:
    each = sum(count * kind.kv_bytes_per_token for count, kind in layers)
    words = [f"A token's keys and values take {number(each / 1e3)} KB in all layers together."]
    if any(kind.attention == "latent" for _, kind in layers):
        caches = f"A token takes {number(each / 1e3)} KB of KV cache in all layers together"
        words = [f"{caches}: a layer keeps one compressed vector for all heads."]
    for window in dict.fromkeys(kind.window_tokens for _, kind in layers if kind.window_tokens):
        which = _which(model, (count for count, kind in layers if kind.window_tokens == window))
        words.append(f"The last {window:,} tokens alone are kept in {which}.")
    with_state = [(count, kind.state_bytes) for count, kind in layers if kind.state_bytes]
    if with_state:
        megabytes = number(sum(count * size for count, size in with_state) / 1e6)
        which = _which(model, (count for count, _ in with_state))
        words.append(f"A state of {megabytes} MB for each request takes the place of keys and values in {which}.")
    return words


def _which(model: Model, counts: Iterable[int]) -> str:
    """``each layer``, or how many of the layers."""
    some = sum(counts)
    return "each layer" if some == model.num_layers else f"{some} of {model.num_layers} layers"


__all__ = ["model_words"]
