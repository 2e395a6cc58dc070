"""A profile: how fast one kind of machine runs layers of one model, and how much KV cache it has beside them.

Times are tables of milliseconds per layer against tokens (prefill) or requests (decode), read by linear
interpolation; limits are tables against k, the number of layers held.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Curve(BaseModel):
    """A piecewise linear function through (x, y) points with x increasing from 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: tuple[Time, ...]
    y: tuple[Time, ...]

    @model_validator(mode="after")
    def _increasing(self) -> Curve:
        if len(self.x) != len(self.y) or len(self.x) < 2:
            raise ValueError(f"expected two or more points, got {len(self.x)} x and {len(self.y)} y")
        if any(b <= a for a, b in zip(self.x, self.x[1:], strict=False)):
            raise ValueError("expected strictly increasing x")
        return self

    def __call__(self, at: float) -> float:
        """Value at `at`; past the last point the last slope goes on."""
        x, y = self.x, self.y
        right = min(max(bisect_right(x, at), 1), len(x) - 1)
        left = right - 1
        return y[left] + (y[right] - y[left]) * (at - x[left]) / (x[right] - x[left])


class Profile(BaseModel):
    """Speed and limits of one kind of machine for one model.

    The tuples are indexed by k - 1, k = 1..`max_layers`. A machine made to hold more layers than that keeps
    the batch limits of `max_layers` and shares the same KV memory among more layers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    model: str
    source: str
    prefill_ms_per_layer: Curve
    """Against tokens in the batch."""
    decode_ms_per_layer: Curve
    """Against requests in the batch."""
    kv_capacity_layer_tokens: tuple[int, ...]
    """Tokens of KV cache summed over the k layers held."""
    prefill_max_requests: tuple[int, ...]
    decode_max_requests: tuple[int, ...]
    typical_layers: int | None = None
    """Layers a machine of this kind usually holds; None: two thirds of `max_layers`."""
    initial_layer_tokens_per_s: float = 30.0
    """Where the iteration for T(k) starts; the published tables stop it before it has converged."""

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

    @property
    def max_layers(self) -> int:
        """Most layers that leave room for a useful KV cache; 0 when not even one fits."""
        return len(self.kv_capacity_layer_tokens)

    @property
    def usual_layers(self) -> int:
        """`typical_layers`, or two thirds of `max_layers`."""
        return self.typical_layers or max(1, int(self.max_layers * 2 / 3 + 0.5))

    def _limit(self, table: tuple[int, ...], k: int) -> int:
        return table[min(k, len(table)) - 1]

    def kv_capacity(self, k: int) -> int:
        """KV capacity in layer-tokens beside `k` layers."""
        return self._limit(self.kv_capacity_layer_tokens, k)

    def prefill_limit(self, k: int) -> int:
        """Most prefill requests in one batch."""
        return self._limit(self.prefill_max_requests, k)

    def decode_limit(self, k: int) -> int:
        """Most decode requests in one batch."""
        return self._limit(self.decode_max_requests, k)

    def step_ms(self, prefill_tokens: float, decode_requests: float) -> float:
        """Milliseconds for one layer of a batch that mixes prefill tokens and decode requests."""
        return self.prefill_ms_per_layer(prefill_tokens) + self.decode_ms_per_layer(decode_requests)
