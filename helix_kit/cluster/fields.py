"""What the records of a cluster share: names, types of numbers with their limits, and a frozen base class."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

COORDINATOR = "coordinator"
"""Name of the paper's source and sink: requests start and end at it."""

MEMORY_SHARE = 0.9
"""Share of a GPU's memory for weights, embeddings and KV cache. The rest is for CUDA and a step's values."""

UNCONNECTED_GBPS = 1e-15
"""Stands for the bandwidth 0 of a link: the link carries less than 0.001 tokens/s, and no division by 0 occurs."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, StringConstraints(min_length=1, pattern=NAME_PATTERN)]


def _no_truth_value(value: Any) -> Any:
    """The value; ValueError for true and false, which would count as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def _not_tiny(given: float) -> float:
    """The value, unless it is so small that speeds come out as 0. That of a link without connection may stay."""
    if given < 1e-9 and given != UNCONNECTED_GBPS:
        raise ValueError("expected at least 1e-9")
    return given


_NUMBER = BeforeValidator(_no_truth_value)
Positive = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False), _NUMBER, AfterValidator(_not_tiny)]
"""The limits are far from any machine's, and such that nothing overflows."""
Bandwidth = Annotated[float, Field(gt=0, le=1e18, allow_inf_nan=False), _NUMBER, AfterValidator(_not_tiny)]
"""In Gbit/s, from 1 bit/s. The largest value is far above any machine's, and no tokens/s overflow."""
NonNegative = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False), _NUMBER]
Latency = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), _NUMBER]
"""In ms. The largest value is eleven days."""
Share = Annotated[float, Field(gt=0, le=1), _NUMBER]


class Frozen(BaseModel):
    """A record that does not change and takes no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
