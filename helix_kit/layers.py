"""Kinds of decoder layers: what one layer weighs, reads, computes and caches.

Most models repeat one layer. Others mix kinds: dense layers before layers with experts, or sliding windows between full
attention. A `LayerKind` holds what speed and memory depend on, so that no other part of the package needs to know how a
layer is built.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(gt=0)]
Size = Annotated[int, Field(ge=0)]
Bytes = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Arithmetic = Literal["fp16", "fp8", "int8"]
"""The type of a layer's products. Weights of four bits are expanded to 16 bits first."""


class WeightFormat(BaseModel):
    """How quantised weights are stored.

    Examples
    --------
    Four bits a weight, and a scale of 16 bits and a zero point of 4 bits for each 128 weights:

    >>> WeightFormat(name="awq", bits=4, group_size=128, group_bits=20).bits_per_weight
    4.15625
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The method's name, as in the model's config.json."""
    bits: Annotated[int, Field(gt=0, le=32)]
    """Bits of a stored weight."""
    group_size: Size = 0
    """Weights that share a scale. 0: a whole row or more, whose scales are too few to count."""
    group_bits: Size = 0
    """Bits of the scale and zero point of a group."""
    arithmetic: Arithmetic = "fp16"
    """The type of the products."""

    @property
    def bits_per_weight(self) -> float:
        """Bits of a weight with its part of the scales."""
        return self.bits + (self.group_bits / self.group_size if self.group_size else 0.0)


class Experts(BaseModel):
    """The routed experts of a layer.

    Examples
    --------
    >>> experts = Experts(count=8, active=2, width=14336, params=176160768, weight_bytes=352321536)
    >>> round(experts.distinct(1), 6), round(experts.distinct(4), 3)
    (2.0, 5.469)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: Count
    """Experts of the layer."""
    active: Count
    """Experts that each token takes."""
    shared: Size = 0
    """Experts that every token takes besides; they are part of the layer's `params`."""
    width: Count
    """Width of one expert's MLP."""
    params: Count
    """Parameters of one expert."""
    projection_params: Size | None = None
    """Of these, those of its matrices, which can be quantised. None: not known."""
    weight_bytes: Bytes
    """Bytes of one expert as stored."""

    def distinct(self, tokens: float, skew: float = 0.0) -> float:
        """Expected number of different experts that `tokens` tokens take together.

        A token takes expert e with probability p_e, so e is taken with probability 1 - (1 - p_e)^tokens. Uniform
        routing has p_e = active / count. With a skew s, p_e is proportional to e^-s, at most 1.
        """
        return min(float(self.count), _distinct(self.count, self.active, float(tokens), skew))


@cache
def _distinct(count: int, active: int, tokens: float, skew: float) -> float:
    if active >= count:
        return float(count)
    if skew == 0:
        return float(count * (1 - (1 - active / count) ** tokens))
    return float(sum(1 - (1 - p) ** tokens for p in expert_shares(count, active, skew)))


@cache
def expert_shares(count: int, active: int, skew: float) -> tuple[float, ...]:
    """Probability that a token takes each expert of a layer.

    Parameters
    ----------
    count, active
        Experts of the layer, and those that a token takes.
    skew
        Popularity of the experts falls as e^-skew; 0: all are equally popular.

    Returns
    -------
    tuple of float
        They fall, add up to `active`, and none is above 1.

    Examples
    --------
    >>> expert_shares(4, 1, 0.0)
    (0.25, 0.25, 0.25, 0.25)
    """
    weights = [rank**-skew for rank in range(1, count + 1)]
    certain = 0
    # The most popular experts cannot be taken more than once by a token: what is left is shared by the others.
    while weights[certain] * (active - certain) > sum(weights[certain:]):
        certain += 1
    factor = (active - certain) / sum(weights[certain:])
    return (1.0,) * certain + tuple(min(1.0, w * factor) for w in weights[certain:])


class LayerKind(BaseModel):
    """One kind of layer.

    Examples
    --------
    >>> kind = LayerKind(name="sliding", attention="sliding", window_tokens=128, kv_bytes_per_token=2048,
    ...                  params=1000, weight_bytes=2000)
    >>> kind.kv_bytes(64), kv_tokens_of(kind, 1000)
    (131072, 128)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Shown in messages."""
    attention: Literal["full", "sliding", "chunked", "latent", "linear"] = "full"
    """What a token attends to; "latent" caches one compressed vector for all heads, "linear" keeps a fixed state."""
    window_tokens: Count | None = None
    """Most tokens of a request in the cache. None: all."""
    kv_bytes_per_token: Size
    """Bytes that a token adds to the cache."""
    state_bytes: Size = 0
    """Bytes that a request takes whatever its length."""
    params: Count
    """Parameters that every token uses: all but those of the routed experts."""
    projection_params: Size | None = None
    """Of these, those of the projections of attention, MLP and shared experts, which can be quantised. None: not known,
    as in plans of before."""
    weight_bytes: Bytes
    """Bytes of these parameters as stored."""
    experts: Experts | None = None
    """The routed experts, if the layer has any."""
    arithmetic: Arithmetic = "fp16"
    """The type in which most of the layer's products are computed."""

    @property
    def all_params(self) -> int:
        """Parameters of the layer."""
        return self.params + (self.experts.count * self.experts.params if self.experts else 0)

    @property
    def active_params(self) -> int:
        """Parameters that one token uses."""
        return self.params + (self.experts.active * self.experts.params if self.experts else 0)

    @property
    def all_bytes(self) -> float:
        """Bytes of the layer's weights."""
        return self.weight_bytes + (self.experts.count * self.experts.weight_bytes if self.experts else 0.0)

    def read_bytes(self, tokens: float, skew: float = 0.0) -> float:
        """Bytes of weights that a step of `tokens` tokens is expected to read."""
        if self.experts is None:
            return self.weight_bytes
        return self.weight_bytes + self.experts.distinct(tokens, skew) * self.experts.weight_bytes

    def kv_bytes(self, context_tokens: int) -> int:
        """Bytes of the cache of one request of this length."""
        return kv_tokens_of(self, context_tokens) * self.kv_bytes_per_token + self.state_bytes


def kv_tokens_of(kind: LayerKind, context_tokens: int) -> int:
    """Tokens of a request that stay in the cache of a layer.

    Parameters
    ----------
    kind
        Its window decides.
    context_tokens
        Length of the request so far.

    Returns
    -------
    int
        At most the window.

    Examples
    --------
    >>> kv_tokens_of(LayerKind(name="full", kv_bytes_per_token=1, params=1, weight_bytes=2), 1000)
    1000
    """
    return context_tokens if kind.window_tokens is None else min(context_tokens, kind.window_tokens)


__all__ = ["Experts", "LayerKind", "WeightFormat", "expert_shares", "kv_tokens_of"]
