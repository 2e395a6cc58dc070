"""A profile: how fast one kind of machine runs layers of one model, and how much KV cache it has beside them.

Times are tables of milliseconds per layer, over tokens for prefill and over requests for decode. Values between table
points are interpolated linearly. Limits are tables over k, the number of layers held.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


class Profile(Summarised, BaseModel):
    """Speed and limits of one kind of machine for one model.

    The tuples are indexed by k - 1 for k = 1..`max_layers`. A machine that is made to hold more layers keeps the batch
    limits and the KV memory of `max_layers` and shares the latter among more layers.

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

    @model_validator(mode="after")
    def _same_length(self) -> Profile:
        lengths = {len(self.kv_capacity_layer_tokens), len(self.prefill_max_requests), len(self.decode_max_requests)}
        if len(lengths) != 1:
            raise ValueError(f"expected limits of equal length, got lengths {sorted(lengths)}")
        if any(v < 1 for v in (*self.prefill_max_requests, *self.decode_max_requests)):
            raise ValueError("expected batch limits of at least 1")
        if any(v < 0 for v in self.kv_capacity_layer_tokens):
            raise ValueError("expected KV capacities of at least 0")
        return self

    def _title(self) -> str:
        return f"{self.kind} with {self.model}"

    def _facts(self) -> dict[str, str]:
        return {"holds": f"up to {self.max_layers} layers", "source": self.source}

    @property
    def max_layers(self) -> int:
        """Largest number of layers that leave memory for a useful KV cache; 0 when not even one layer fits."""
        return len(self.kv_capacity_layer_tokens)

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
