"""A profile: how fast one kind of machine runs layers of one model, and how much KV cache it has beside them.

Times are tables of milliseconds per layer, over tokens for prefill and over requests for decode. Values between table
points are interpolated linearly. Limits are tables over k, the number of layers held.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from helix_kit._summary import Summarised

Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Curve(Summarised, BaseModel):
    """A piecewise linear function through points.

    Past the last point it continues with the last slope.

    Examples
    --------
    >>> Curve(x=(0, 100), y=(0, 5))(200)
    10.0
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: tuple[Time, ...]
    """At least two values, strictly increasing."""
    y: tuple[Time, ...]
    """The function's value at each `x`."""

    @model_validator(mode="after")
    def _increasing(self) -> Curve:
        if len(self.x) != len(self.y) or len(self.x) < 2:
            raise ValueError(f"expected two or more points, got {len(self.x)} x and {len(self.y)} y")
        if any(b <= a for a, b in zip(self.x, self.x[1:], strict=False)):
            raise ValueError("expected strictly increasing x")
        return self

    def _title(self) -> str:
        return ""

    def _facts(self) -> dict[str, str]:
        x, y = self.x, self.y
        return {"points": str(len(x)), "from": f"({x[0]:g}, {y[0]:g})", "to": f"({x[-1]:g}, {y[-1]:g})"}

    def __call__(self, at: float) -> float:
        """The function's value at `at`."""
        x, y = self.x, self.y
        right = min(max(bisect_right(x, at), 1), len(x) - 1)
        left = right - 1
        return y[left] + (y[right] - y[left]) * (at - x[left]) / (x[right] - x[left])


class KindTimes(BaseModel):
    """Times of one kind of layer.

    Examples
    --------
    >>> linear = Curve(x=(0, 100), y=(0, 5))
    >>> KindTimes(name="dense", prefill_ms_per_layer=linear, decode_ms_per_layer=linear).name
    'dense'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """As `helix_kit.layers.LayerKind.name`."""
    prefill_ms_per_layer: Curve
    """Over the tokens of the batch."""
    decode_ms_per_layer: Curve
    """Over the requests of the batch."""


class RangeLimits(BaseModel):
    """What a machine may hold beside a range with these layers.

    Examples
    --------
    >>> RangeLimits(layers=(3, 5), kv_capacity_layer_tokens=9000, prefill_max_requests=2, decode_max_requests=1).layers
    (3, 5)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[Annotated[int, Field(ge=0)], ...]
    """Layers of each kind."""
    kv_capacity_layer_tokens: Annotated[int, Field(ge=0)]
    """Tokens of KV cache, summed over the layers of the range."""
    prefill_max_requests: Annotated[int, Field(ge=1)]
    """Largest number of prefill requests in a batch."""
    decode_max_requests: Annotated[int, Field(ge=1)]
    """Largest number of decode requests in a batch."""


class Profile(Summarised, BaseModel):
    """Speed and limits of one kind of machine for one model.

    The tuples are indexed by k - 1 for k = 1..`max_layers`. A machine that is made to hold more layers keeps the batch
    limits and the KV memory of `max_layers` and shares the latter among more layers.

    If the model's layers differ, speed and limits depend on which layers a machine holds: `of_range` gives the profile
    of a range. The curves are then means over all layers, and the tables hold for the least favourable range of each
    length, so `max_layers` layers fit wherever they begin.

    Examples
    --------
    >>> linear = Curve(x=(0, 100), y=(0, 5))
    >>> profile = Profile(kind="X", model="tiny", source="by hand", prefill_ms_per_layer=linear,
    ...                   decode_ms_per_layer=linear, kv_capacity_layer_tokens=(900, 800),
    ...                   prefill_max_requests=(2, 2), decode_max_requests=(64, 32))
    >>> profile.max_layers, profile.step_ms(prefill_tokens=20, decode_requests=20)
    (2, 2.0)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    """Kind of machine, as `Node.kind`."""
    model: str
    """Name of the model."""
    source: str
    """Where the figures come from."""
    prefill_ms_per_layer: Curve
    """Over the tokens of the batch."""
    decode_ms_per_layer: Curve
    """Over the requests of the batch."""
    kv_capacity_layer_tokens: tuple[int, ...]
    """Tokens of KV cache, summed over the k layers held."""
    prefill_max_requests: tuple[int, ...]
    """Largest number of prefill requests in a batch."""
    decode_max_requests: tuple[int, ...]
    """Largest number of decode requests in a batch."""
    typical_layers: int | None = None
    """Layers a machine of this kind usually holds; None: two thirds of `max_layers`."""
    initial_layer_tokens_per_s: float = 30.0
    """First value of the iteration for T(k). The published tables stop the iteration before it has converged."""
    layer_kinds: tuple[KindTimes, ...] = ()
    """Times of each kind of layer. Empty: all layers are alike."""
    layer_pattern: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Index in `layer_kinds` of each layer's kind."""
    range_limits: tuple[RangeLimits, ...] = ()
    """Limits of every range that fits, by how many layers of each kind it has."""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """GPUs of a machine that compute each layer together. Estimates say it; a measured table counts as 1."""
    groups_in_turn: Annotated[int, Field(ge=1)] = 1
    """Groups of such GPUs that hold layers of their own, and work on different requests at a time.

    A round of b requests through all groups is b / groups requests in each of them. So the curves of groups in turn are
    those of one group at that part of the batch. Layers that the groups cannot share evenly make a round longer:
    `of_range` counts that."""

    @model_validator(mode="after")
    def _same_length(self) -> Profile:
        lengths = {len(self.kv_capacity_layer_tokens), len(self.prefill_max_requests), len(self.decode_max_requests)}
        if len(lengths) != 1:
            raise ValueError(f"expected limits of equal length, got lengths {sorted(lengths)}")
        if any(v < 1 for v in (*self.prefill_max_requests, *self.decode_max_requests)):
            raise ValueError("expected batch limits of at least 1")
        if any(v < 0 for v in self.kv_capacity_layer_tokens):
            raise ValueError("expected KV capacities of at least 0")
        if any(index >= len(self.layer_kinds) for index in self.layer_pattern):
            raise ValueError(f"layer_pattern: expected indices below the {len(self.layer_kinds)} layer_kinds")
        if any(len(limits.layers) != len(self.layer_kinds) for limits in self.range_limits):
            raise ValueError(f"range_limits: expected layers of {len(self.layer_kinds)} kinds")
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields of unequal layers are left out where there are none, so profiles of other models stay as they were."""
        fields: dict[str, Any] = handler(self)
        for name in ("layer_kinds", "layer_pattern", "range_limits"):
            if not fields.get(name):
                fields.pop(name, None)
        for name in ("tensor_parallel", "groups_in_turn"):
            if fields.get(name) == 1:
                fields.pop(name)
        return fields

    def _title(self) -> str:
        return f"{self.kind} with {self.model}"

    def _facts(self) -> dict[str, str]:
        return {"holds": f"up to {self.max_layers} layers", "source": self.source}

    @property
    def max_layers(self) -> int:
        """Largest number of layers that leave memory for a useful KV cache; 0 when not even one layer fits."""
        return len(self.kv_capacity_layer_tokens)

    @property
    def is_uniform(self) -> bool:
        """Whether all layers are alike, so that speed and limits depend on the length of a range alone."""
        return not self.layer_pattern

    def count_kinds(self, start: int, end: int) -> tuple[int, ...]:
        """How many layers of each of `layer_kinds` lie in [start, end)."""
        within = self.layer_pattern[start:end]
        return tuple(within.count(index) for index in range(len(self.layer_kinds)))

    @cached_property
    def _limits_by_layers(self) -> dict[tuple[int, ...], RangeLimits]:
        return {limits.layers: limits for limits in self.range_limits}

    @cached_property
    def _by_range(self) -> dict[tuple[str, str, tuple[int, ...]], Profile]:
        return {}

    def fits(self, start: int, end: int) -> bool:
        """Whether the layers [start, end) leave memory for a useful KV cache."""
        if self.is_uniform:
            return end - start <= self.max_layers
        return self.count_kinds(start, end) in self._limits_by_layers

    def of_range(self, start: int, end: int) -> Profile:
        """The profile of a machine that holds the layers [start, end).

        Its times per layer are means over the range, so that a request that passes all of it takes the time of its
        layers. A range that does not fit has the KV memory and batch limits of the longest part from `start` that
        does, as in `max_layers`. Where groups of GPUs take the layers in turn, the times hold for the group with the
        most layers.
        """
        if self.is_uniform:
            return self._shared_by_groups(end - start)
        counts = self.count_kinds(start, end)
        key = (self.kind, self.model, counts)
        if key not in self._by_range:
            stop = next((e for e in range(end, start, -1) if self.fits(start, e)), None)
            held = None if stop is None else self._limits_by_layers[self.count_kinds(start, stop)]
            k = 0 if held is None else end - start
            self._by_range[key] = self.model_copy(
                update={
                    "prefill_ms_per_layer": mean_curve([c.prefill_ms_per_layer for c in self.layer_kinds], counts),
                    "decode_ms_per_layer": mean_curve([c.decode_ms_per_layer for c in self.layer_kinds], counts),
                    "kv_capacity_layer_tokens": (held.kv_capacity_layer_tokens,) * k if held else (),
                    "prefill_max_requests": (held.prefill_max_requests,) * k if held else (),
                    "decode_max_requests": (held.decode_max_requests,) * k if held else (),
                    "layer_kinds": (),
                    "layer_pattern": (),
                    "range_limits": (),
                }
            )
        return self._by_range[key]._shared_by_groups(end - start)

    def _shared_by_groups(self, k: int) -> Profile:
        """This profile for a machine whose groups share `k` layers: the group with the most layers sets the pace."""
        groups = self.groups_in_turn
        slower = -(-k // groups) * groups / k
        if slower == 1:
            return self
        key = (self.kind, self.model, (k,))
        if key not in self._by_groups:
            curves = {
                name: Curve(x=curve.x, y=tuple(slower * y for y in curve.y))
                for name, curve in (
                    ("prefill_ms_per_layer", self.prefill_ms_per_layer),
                    ("decode_ms_per_layer", self.decode_ms_per_layer),
                )
            }
            self._by_groups[key] = self.model_copy(update={**curves, "groups_in_turn": 1})
        return self._by_groups[key]

    @cached_property
    def _by_groups(self) -> dict[tuple[str, str, tuple[int, ...]], Profile]:
        return {}

    @property
    def usual_layers(self) -> int:
        """`typical_layers`, or two thirds of `max_layers`."""
        return self.typical_layers or max(1, int(self.max_layers * 2 / 3 + 0.5))

    def _limit(self, table: tuple[int, ...], k: int) -> int:
        return table[min(k, len(table)) - 1]

    def kv_capacity(self, k: int) -> int:
        """KV capacity in layer-tokens of a machine with `k` layers."""
        return self._limit(self.kv_capacity_layer_tokens, k)

    def prefill_limit(self, k: int) -> int:
        """Largest number of prefill requests in a batch of a machine with `k` layers."""
        return self._limit(self.prefill_max_requests, k)

    def decode_limit(self, k: int) -> int:
        """Largest number of decode requests in a batch of a machine with `k` layers."""
        return self._limit(self.decode_max_requests, k)

    def step_ms(self, prefill_tokens: float, decode_requests: float) -> float:
        """Milliseconds for one layer of a batch that mixes prefill tokens and decode requests."""
        return self.prefill_ms_per_layer(prefill_tokens) + self.decode_ms_per_layer(decode_requests)


def mean_curve(curves: list[Curve], counts: tuple[int, ...]) -> Curve:
    """The mean of curves with these weights, at the points of the first: all kinds of layers are timed at the same."""
    x, total = curves[0].x, sum(counts)
    return Curve(x=x, y=tuple(sum(n * curve(at) for n, curve in zip(counts, curves, strict=True)) / total for at in x))
