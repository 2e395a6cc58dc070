"""How the next token is chosen: greedily, or at random with a generator keyed by (seed, position).

So a request with the same seed gets the same tokens whatever else is in the batch, whichever pipeline it takes, and
also after a restart in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from helix_kit.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the tokens of a request are chosen.

    Parameters
    ----------
    temperature
        0 takes the most likely token. Higher values, up to 100, flatten the distribution.
    top_k
        Only the `top_k` most likely tokens are drawn; 0: all of them.
    top_p
        Only the fewest most likely tokens whose probabilities add up to `top_p` are drawn; 1: all of them.
    seed
        Of the draws; 0 to 2^63 - 1.

    Raises
    ------
    InputError
        A value is out of these bounds.

    Examples
    --------
    >>> SamplingParams(temperature=0.7, top_p=0.9)
    SamplingParams(temperature=0.7, top_k=0, top_p=0.9, seed=0)
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for field, value, ok, expected in (
            ("temperature", self.temperature, 0 <= self.temperature <= 100, "expected 0 to 100"),
            ("top_k", self.top_k, self.top_k >= 0, "expected 0 (off) or more"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "expected more than 0, at most 1"),
            ("seed", self.seed, 0 <= self.seed < 2**63, "expected 0 <= seed < 2^63"),
        ):
            if not ok:
                raise InputError(expected, field=field, value=value)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on seed and position alone (Philox, a counter-based generator)."""
    return float(np.random.Generator(np.random.Philox(key=np.array([seed, position], dtype=np.uint64))).random())


def sample(logits: torch.Tensor, params: list[SamplingParams], positions: list[int]) -> list[int]:
    """The next token of each row of `logits` (rows, vocabulary). `positions`: the tokens' places in their requests."""
    import torch

    chosen = torch.argmax(logits, dim=-1).tolist()
    for row, (param, position) in enumerate(zip(params, positions, strict=True)):
        if param.temperature == 0:
            continue
        scores, tokens = torch.sort(logits[row].float() / param.temperature, descending=True, stable=True)
        if param.top_k:
            scores, tokens = scores[: param.top_k], tokens[: param.top_k]
        mass = torch.cumsum(torch.softmax(scores, dim=-1, dtype=torch.float64), dim=-1)
        # The fewest tokens whose probabilities reach top_p. The first one is always kept.
        kept = 1 + int((mass[:-1] < param.top_p).sum())
        draw = uniform(param.seed, position) * float(mass[kept - 1])
        index = int(torch.searchsorted(mass[:kept], draw, right=True))
        chosen[row] = int(tokens[min(index, kept - 1)])
    return chosen
