"""The records of a search: what plans must keep to, how they are simulated, and the result of each.

Everything here is frozen, so that it can be sent to worker processes and compared by identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

import numpy as np

from helix_kit.flow import Flow, Placement, longest_path
from helix_kit.metrics import SLO
from helix_kit.placement.method import FlowSplit
from helix_kit.search.capacity_shares import CapacityShares
from helix_kit.search.moves import key_of
from helix_kit.search.options import Execution, Mode
from helix_kit.simulator.scoring import Score
from helix_kit.workload.lengths import LengthPairs

PENALTY_POWER = 4
"""A plan whose latency is above its limit is marked down by this power of limit / latency."""
DECODES_A_PROMPT = 20
"""In online mode a prompt latency counts as much as a decode latency of one twentieth: it is paid once a request."""


@dataclass(frozen=True)
class LatencyLimits:
    """Mean latencies above which a plan is marked down; None: no limit."""

    decode_s: float | None = None
    prompt_s: float | None = None

    def widened(self, factor: float) -> LatencyLimits:
        """The same limits, each times `factor`."""
        return LatencyLimits(
            None if self.decode_s is None else factor * self.decode_s,
            None if self.prompt_s is None else factor * self.prompt_s,
        )


@dataclass(frozen=True)
class Requirements:
    """What every candidate must keep to."""

    flow_split: FlowSplit = "balanced"
    partial_inference: bool = True
    pins: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Node -> layer range that it must hold."""
    max_stages: int | None = None
    """The largest number of nodes that a request may pass."""
    limits: LatencyLimits = LatencyLimits()
    rate_per_s: float | None = None
    """Requests/s that arrive in online mode; None: offline mode."""
    lengths: LengthPairs = ()
    """Lengths of requests to simulate with; empty: the conversation trace's."""
    slo: SLO | None = None
    """Limits of a request; None: not objective ``goodput``."""


@dataclass(frozen=True)
class Trial:
    """The conditions of a simulation: traffic, rules, window and seed."""

    mode: Mode = "offline"
    execution: Execution = "range"
    rate_per_s: float | None = None
    """Requests/s that arrive in online mode."""
    duration_s: float = 600.0
    warmup_s: float = 60.0
    seed: int = 0
    at_least: tuple[float, float] | None = None
    """Tokens/s after a quarter and after half of the window below which the simulation ends early; see `score`."""
    requests: int | None = None
    """Requests in the window of a run that starts with full caches, see `steady_score`; None: the window is in seconds,
    and the run starts empty."""
    warmup_lives: float = 0.1
    lives: float = 0.1
    """Lengths of its warm-up, and of its window at least; see `helix_kit.simulator.Window`."""
    most_tokens: int | None = None
    """Tokens of warm-up and window at most; None: as many as they have."""
    floor_tokens_per_s: float = 0.0
    """Decode tokens/s below which such a run ends early, once it is surely below."""
    slo: SLO | None = None
    """Limits of a request: what keeps them is counted, see `helix_kit.search.goodput`."""
    streams: int = 1
    """Request streams that are simulated and counted together under an SLO."""
    floor_rate_per_s: float = 0.0
    """The rate at which the SLO must hold first, where the highest one is searched for; a plan that fails is behind."""
    guess_rate_per_s: float = 1.0
    """Where the search for the highest rate begins without such a floor."""
    is_rate_known: bool = False
    """Whether a candidate is known that holds about this rate."""

    @property
    def whole_s(self) -> float:
        """Simulated seconds of a run that was not ended early; 0 where they differ from plan to plan."""
        has_own_length = self.requests is not None or (self.slo is not None and self.rate_per_s is None)
        return 0.0 if has_own_length else self.duration_s


class Measured(Protocol):
    """Mean results of serving, predicted or simulated."""

    @property
    def decode_tokens_per_s(self) -> float:
        """Decode tokens/s."""

    @property
    def prompt_latency_s(self) -> float:
        """Mean seconds from a request's arrival to its first token."""

    @property
    def decode_latency_s(self) -> float:
        """Mean seconds between a request's tokens."""


def value_of(measured: Measured, limits: LatencyLimits, *, online: bool) -> float:
    """What the search maximises: decode tokens/s, less for each mean latency above its limit.

    Online all plans serve about what arrives, so throughput alone would not tell them apart. There the tokens/s are
    divided by 1 s + decode latency + prompt latency / 20.
    """
    value = measured.decode_tokens_per_s
    decode_s, prompt_s = measured.decode_latency_s, measured.prompt_latency_s
    for latency_s, limit_s in ((decode_s, limits.decode_s), (prompt_s, limits.prompt_s)):
        if limit_s is not None and latency_s > limit_s:
            value *= (limit_s / latency_s) ** PENALTY_POWER
    if online:
        value /= 1 + decode_s + prompt_s / DECODES_A_PROMPT
    return value


def excess(measured: Measured, limits: LatencyLimits) -> float:
    """The largest latency as a share of its limit: at most 1 where all limits are met, 0 where there are none."""
    pairs = ((measured.decode_latency_s, limits.decode_s), (measured.prompt_latency_s, limits.prompt_s))
    return max((latency_s / limit_s for latency_s, limit_s in pairs if limit_s is not None), default=0.0)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A placement with its flow, what the predictor expects, and what the simulator measured.

    Candidates compare by identity: two of equal contents are still different entries of the search.
    """

    placement: Placement
    flow: Flow
    predicted_value: float
    """`value_of` the prediction: decode tokens/s, marked down."""
    score: Score | None = None
    """What the simulator measured; None before it has."""
    value: float = 0.0
    """`value_of` the score: what the search maximises."""
    shares: CapacityShares = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """The largest number of nodes that a request passes."""
        return longest_path(self.flow, self.placement)

    @property
    def measured(self) -> Score:
        """The score of a candidate that has been simulated."""
        assert self.score is not None, "the candidate has not been simulated"
        return self.score


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of each number over several simulations of one plan."""
    return Score(**{f.name: float(np.mean([s.to_dict()[f.name] for s in scores])) for f in fields(Score)})


def is_whole(score: Score, trial_s: float) -> bool:
    """Whether a score is over the whole window: of `trial_s` seconds, or of a length of its own where that is 0."""
    return score.window_s > 0 and score.window_s >= trial_s and score.share_of_window >= 1


def by_prediction(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates with the largest predicted value first; ties are ordered by placement."""
    return sorted(candidates, key=lambda c: (-c.predicted_value, key_of(c.placement)))


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates in their order, each object once."""
    return list({id(c): c for c in candidates}.values())
