"""How far workers are from the simulation, with bootstrap intervals.

Tokens that come soon after each other share queues and batches, so they are no independent samples. The window is cut
into blocks of time; blocks are drawn, the same ones of both runs, since the same requests arrive in them.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from helix_kit.experiments.figures.common.metrics import PHASES, SPEED, latency_name
from helix_kit.report import Run

RESAMPLES, CONFIDENCE = 999, 0.95
BLOCKS, FEWEST_BLOCKS = 30, 5
TOKENS_IN_BLOCK = 10
"""Decode tokens that a block has at least, on average; where there are fewer, neighbours become one."""
MIDDLE_PERCENTILES, MIDDLE_SPREAD = (45, 55), 0.15
"""A median is settled if the tokens between these percentiles differ by at most this share of it."""
COMPARED = (SPEED, latency_name("prompt", "p50"), latency_name("decode", "p50"))
"""Metrics in which workers are compared with the simulation."""


class Block(NamedTuple):
    """The latencies of the tokens that came in one part of a window, in s."""

    prompt: np.ndarray
    decode: np.ndarray


@dataclass(frozen=True)
class Samples:
    """The latencies of a run's tokens, by the part of the window in which they came.

    Examples
    --------
    >>> found = Samples((Block(np.array([0.5]), np.array([0.25, 0.25])), Block(np.array([]), np.array([1.0]))))
    >>> [block.decode.tolist() for block in Samples.read(found.to_bytes()).blocks]
    [[0.25, 0.25], [1.0]]
    """

    blocks: tuple[Block, ...]
    """Parts of equal length, in order of time."""

    @classmethod
    def of(cls, run: Run) -> Samples:
        """Those of a run."""
        edges = np.linspace(*run.window, BLOCKS + 1)
        parts = [Run(run.records, window=(a, b), tokens=run.tokens) for a, b in itertools.pairwise(edges)]
        return cls(tuple(Block(*(part.latencies(phase) for phase in PHASES)) for part in parts))

    def to_bytes(self) -> bytes:
        """The samples as a compressed file, which `read` reads."""
        file = io.BytesIO()
        parts = [latencies.astype(np.float32) for block in self.blocks for latencies in block]
        np.savez_compressed(file, lengths=np.array([len(p) for p in parts]), latency_s=np.concatenate(parts))
        return file.getvalue()

    @classmethod
    def read(cls, data: bytes) -> Samples:
        """From what `to_bytes` gave."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            parts = np.split(file["latency_s"].astype(float), np.cumsum(file["lengths"])[:-1])
        return cls(tuple(Block(*parts[i : i + 2]) for i in range(0, len(parts), 2)))

    @property
    def decode_tokens(self) -> int:
        """Decode tokens within the window."""
        return sum(len(block.decode) for block in self.blocks)

    def joined(self, count: int) -> list[Block]:
        """The window in `count` parts."""
        bounds = np.linspace(0, len(self.blocks), count + 1).round().astype(int)
        groups = [self.blocks[a:b] for a, b in itertools.pairwise(bounds)]
        return [Block(*(np.concatenate(parts) for parts in zip(*group, strict=True))) for group in groups]


class Difference(NamedTuple):
    """How far workers are from the simulation in a metric, as a share of it, and the interval of that share.

    Examples
    --------
    >>> Difference("decode_tokens_per_s", 0.01, -0.02, 0.03).low
    -0.02
    """

    metric: str
    share: float
    low: float
    high: float
    is_settled: bool = True
    """Whether a few tokens more on one side would leave the metric where it is; see `unsettled_medians`."""


def differences(simulated: Samples, served: Samples, *, seed: int = 0) -> list[Difference]:
    """The differences in throughput and median latencies, with intervals of 95 % confidence.

    A metric that one of the runs lacks is left out. Where so few tokens came that a draw may hold none, an interval is
    not a number.
    """
    from scipy.stats import bootstrap

    decoded = min(simulated.decode_tokens, served.decode_tokens)
    count = max(FEWEST_BLOCKS, min(BLOCKS, decoded // TOKENS_IN_BLOCK))
    pairs = list(zip(simulated.joined(count), served.joined(count), strict=True))
    found = []
    for metric in COMPARED:

        def share(index: np.ndarray, metric: str = metric) -> float:
            values = [_value(metric, [pairs[i][which] for i in index]) for which in (0, 1)]
            return values[1] / values[0] - 1 if values[0] else np.nan

        whole = share(np.arange(count))
        if np.isnan(whole):
            continue
        result = bootstrap(
            (np.arange(count),), share, vectorized=False, n_resamples=RESAMPLES, confidence_level=CONFIDENCE,
            method="percentile", rng=np.random.default_rng(seed),
        )  # fmt: skip
        low, high = result.confidence_interval
        is_settled = metric == SPEED or _middle(_phase_of(metric), simulated, served)[2] <= MIDDLE_SPREAD
        found.append(Difference(metric, float(whole), float(low), float(high), is_settled))
    return found


def unsettled_medians(simulated: Samples, served: Samples) -> list[str]:
    """A sentence for each median latency that a few tokens more on one side would move far.

    Where tokens come from a fast and a slow pipeline in equal parts, the median lies in the gap between them. Their
    means say then whether simulation and workers agree.

    Examples
    --------
    >>> gap, none = np.array([0.5, 0.5, 2.0, 2.0]), np.array([])
    >>> unsettled_medians(Samples((Block(none, gap),)), Samples((Block(none, gap * 1.01),)))[0][:38]
    'the median decode latency is not settl'
    """
    found = []
    for phase in PHASES:
        both = [_latencies(phase, run.blocks) for run in (simulated, served)]
        if not all(len(latencies) for latencies in both):
            continue
        low, high, spread = _middle(phase, simulated, served)
        if spread > MIDDLE_SPREAD:
            simulated_s, served_s = (float(latencies.mean()) for latencies in both)
            share = served_s / simulated_s - 1
            found.append(
                f"the median {phase} latency is not settled: the tenth of the tokens around it took {low:.3g} to "
                f"{high:.3g} s. The mean is {served_s:.3g} s, simulated {simulated_s:.3g} s ({share:+.1%})"
            )
    return found


def _middle(phase: str, simulated: Samples, served: Samples) -> tuple[float, float, float]:
    """The tenth of the latencies around the median, of the run in which it is wider; and that width over the median."""
    found = []
    for run in (simulated, served):
        latencies = _latencies(phase, run.blocks)
        low, high = np.percentile(latencies, MIDDLE_PERCENTILES)
        found.append((float(low), float(high), float((high - low) / np.median(latencies))))
    return max(found, key=lambda middle: middle[2])


def _phase_of(metric: str) -> str:
    return next(phase for phase in PHASES if metric.startswith(phase))


def _value(metric: str, blocks: list[Block]) -> float:
    if metric == SPEED:
        return float(sum(len(block.decode) for block in blocks))
    latencies = _latencies(_phase_of(metric), blocks)
    return float(np.median(latencies)) if len(latencies) else float("nan")


def _latencies(phase: str, blocks: Iterable[Block]) -> np.ndarray:
    """The latencies of prompts or of decodes in all blocks."""
    return np.concatenate([getattr(block, phase) for block in blocks])
