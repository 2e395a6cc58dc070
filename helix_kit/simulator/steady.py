"""What a plan serves in its steady state, estimated from a short run that starts with full KV caches.

A run of ten minutes from an empty cluster spends most of its time on filling the caches, and the faster the cluster is,
the longer it takes to simulate. Here the caches are full at the start, with requests at random points of their decodes,
and the window is counted in tokens. So a run takes about as long to simulate on any cluster.

The requests in the caches are chosen as follows. A request of O output tokens decodes O - 1 times, so its chance to be
in a cache is in proportion to O - 1, and the number of tokens that it has generated is uniform. Lengths are drawn
systematically: from a sorted sample at equal steps of its weight, from a random first place. Means over few requests
then differ less from the trace's own than those of free draws.

>>> from helix_kit.simulator import steady_score
>>> steady_score(plan).decode_tokens_per_s                      # doctest: +SKIP
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np

from helix_kit.flow import Flow, Placement
from helix_kit.metrics.intervals import half_interval
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.report import NodeUse
from helix_kit.simulator.options import SimulationOptions
from helix_kit.simulator.ranged.driver import RangedEngine, ranged_engine
from helix_kit.simulator.ranged.filled import fill
from helix_kit.simulator.scoring import Score, measured
from helix_kit.simulator.state import BLOCKED, BUSY
from helix_kit.typical_request import PUBLISHED_LENGTHS, TRACE_LENGTHS, MeanLengths
from helix_kit.workload.lengths import LengthPairs
from helix_kit.workload.request import Request
from helix_kit.workload.workload import Workload

BATCHES = 10
"""Batches of the window: few enough that each holds many requests, and enough for an interval. Half as many tell more
where neighbours are alike, so the interval at the end is the wider one of the two."""
SAMPLE = 20_000
"""Requests from which lengths are drawn, where no workload gives them."""
STRATUM = 40
"""New requests that are drawn systematically together."""
LOOKS = 40
"""Checks of a run that serves as much as its flow. A run that serves an eighth of its flow is checked eight times as
often."""
MAX_LOOKS = 4000
"""A run that has not ended after this many checks is stopped: it serves next to nothing."""
WARMUP_SHARE = 0.6
"""Share of its tokens that the warm-up of a shortened run may take, see `Window.most_tokens`."""
FIRST_LOOK = 0.25
"""Share of the window after which a run may end early."""
GROWTH = 2
"""Factor by which the stream of requests is lengthened where it ran dry."""


@dataclass(frozen=True)
class Window:
    """How long a steady run is.

    Examples
    --------
    >>> Window(requests=100).requests
    100
    """

    requests: int = 400
    """Requests whose tokens are measured, on average: the window ends after this many times their mean output."""
    warmup_lives: float = 0.25
    """Tokens before the window, in lives: 1 is as many tokens as the requests in the caches generate in all. At first
    no prompts are under way; after the warm-up there are as many as there will be later."""
    lives: float = 0.5
    """Tokens of the window at least, in lives."""
    most_tokens: int | None = None
    """Tokens of warm-up and window together at most. The window is shortened first: the warm-up keeps its length up to
    `WARMUP_SHARE` of them, since a start that is not yet settled misleads more than a short window."""


def steady_score(
    plan: Plan | tuple[Problem, Placement, Flow | None],
    lengths: LengthPairs = (),
    *,
    window: Window = Window(),
    seed: int = 0,
    at_least: float = 0.0,
) -> Score:
    """Estimate what a plan serves from a backlog, by the rules of our runtime, once its KV caches are full.

    Parameters
    ----------
    plan
        A plan, or (problem, placement, flow); flow None for the maximum flow.
    lengths
        Pairs (input tokens, output tokens) that lengths are drawn from; empty: as in the conversation trace, stretched
        to the mean lengths that the plan is for.
    window
        How long the run is.
    seed
        Of the lengths drawn. Runs of different plans with the same seed meet the same requests.
    at_least
        Decode tokens/s. The run ends early once it serves less for sure: once the upper end of its interval, over the
        batches so far, is below.

    Returns
    -------
    Score
        Means over the window, with the half width of a 95 % interval over its batches; all zero where the plan carries
        no flow.

    Examples
    --------
    >>> steady_score(plan, seed=1).half_width_tokens_per_s          # doctest: +SKIP
    """
    if not isinstance(plan, Plan):
        problem, placement, flow = plan
        plan = Plan.from_placement(problem, dict(placement), method="score", flow=flow)
    if plan.flow_tokens_per_s <= 0:
        return Score()
    return _watched(plan, lengths, window, seed, at_least).score()


def steady_use(
    plan: Plan, lengths: LengthPairs = (), *, window: Window = Window(), seed: int = 0
) -> dict[str, NodeUse]:
    """How busy each node is and how full its KV cache, by the rules of our runtime, once the caches are full.

    Parameters
    ----------
    plan
        The plan; it must carry flow.
    lengths, window, seed
        As for `steady_score`.

    Returns
    -------
    dict[str, NodeUse]
        Node -> its use within the window; without the largest use of the cache, which is full from the start.

    Examples
    --------
    >>> steady_use(plan)["A100-40G-0"].busy                         # doctest: +SKIP
    """
    return _watched(plan, lengths, window, seed).use()


def _watched(plan: Plan, lengths: LengthPairs, window: Window, seed: int, at_least: float = 0.0) -> _Monitor:
    """A run until its window has ended."""
    sample = lengths_of(lengths, None if lengths else plan.lengths)
    options = SimulationOptions(mode="offline", execution="range", duration_s=1.0, warmup_s=0.0, seed=seed)
    for growth in (GROWTH**i for i in count()):
        cached = _in_caches(plan, sample)
        held, done = in_progress(sample, cached, np.random.default_rng([seed, 1]))
        new = stream(sample, growth * (cached + 2 * window.requests), np.random.default_rng([seed, 2]))
        requests = [Request(i, 0.0, a, b) for i, (a, b) in enumerate(np.concatenate([held, new]).tolist())]
        engine = ranged_engine(plan, requests, options)
        arriving = stream(sample, cached, np.random.default_rng([seed, 3]))
        fill(engine, done.tolist(), seed, arriving.tolist())
        life_tokens = float(sum(r.output_tokens for r in engine.live.values())) or 1.0
        mean_output = float(sample[:, 1].mean())
        warmup_tokens = window.warmup_lives * life_tokens
        window_tokens = max(window.requests * mean_output, window.lives * life_tokens)
        if window.most_tokens and window.most_tokens < warmup_tokens + window_tokens:
            warmup_tokens = min(warmup_tokens, WARMUP_SHARE * window.most_tokens)
            window_tokens = window.most_tokens - warmup_tokens
        monitor = _Monitor(engine, warmup_tokens=warmup_tokens, window_tokens=window_tokens, at_least=at_least)
        with suppress(_EndError):
            engine.run(math.inf, monitor, monitor.window_tokens / plan.flow_tokens_per_s / LOOKS)
        if not engine.all_admitted or len(engine.log.rejected) >= len(new):
            return monitor
    raise AssertionError("unreachable")


def lengths_of(given: LengthPairs = (), means: MeanLengths | None = None) -> np.ndarray:
    """Pairs (input tokens, output tokens) to draw from, ordered by output and then by input, shape (requests, 2).

    With `means` they are stretched to these, unless it is the conversation trace's own or the published estimate of it.
    """
    return _lengths_of(tuple((i, o) for i, o in given), means)


@lru_cache(maxsize=8)
def _lengths_of(given: LengthPairs, means: MeanLengths | None) -> np.ndarray:
    """As `lengths_of`. Drawing the trace takes a fifth of a run's time, so all runs of a search share the pairs."""
    pairs = np.array(
        given or [(r.input_tokens, r.output_tokens) for r in Workload.offline(SAMPLE, seed=0)], dtype=np.int64
    )
    if means is not None and means not in (TRACE_LENGTHS, PUBLISHED_LENGTHS):
        factors = np.array([means.input_tokens, means.output_tokens]) / pairs.mean(axis=0)
        pairs = np.maximum(1, np.rint(pairs * factors)).astype(np.int64)
    ordered = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
    ordered.setflags(write=False)
    return ordered


def _systematic(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` places of `weights`, at equal steps of their sum from a random first one, in random order."""
    cumulated = np.cumsum(weights, dtype=float)
    marks = (np.arange(count) + rng.random()) / count * cumulated[-1]
    return rng.permutation(np.minimum(np.searchsorted(cumulated, marks, side="right"), len(weights) - 1))


def in_progress(sample: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Requests in progress when caches are full, shape (count, 2), and the output tokens that each has generated.

    There is none where every output is one token, since no request decodes.
    """
    weights = np.maximum(sample[:, 1] - 1, 0)
    if not weights.any():
        return sample[:0], np.zeros(0, dtype=np.int64)
    chosen = sample[_systematic(weights, count, rng)]
    share = rng.permutation((np.arange(count) + rng.random(count)) / count)
    return chosen, 1 + (share * (chosen[:, 1] - 1)).astype(np.int64)


def stream(sample: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The lengths of `count` requests or a few more, in the order in which they come."""
    even = np.ones(len(sample))
    size = min(STRATUM, len(sample))
    return np.concatenate([sample[_systematic(even, size, rng)] for _ in range(-(-count // size))])


def _in_caches(plan: Plan, sample: np.ndarray) -> int:
    """Requests that surely do not all fit into the KV caches: half more than the tightest layer holds of short ones.

    The mean of those that wait for their prompts is mostly less than that of those that decode.
    """
    room = np.zeros(plan.model.num_layers)
    for node, (start, end) in plan.placement.items():
        room[start:end] += plan.profiles[plan.problem.kind_of[node]].kv_capacity(end - start) / (end - start)
    weights = np.maximum(sample[:, 1] - 1, 1)
    tokens = sample.sum(axis=1)
    mean = min(float(np.average(tokens, weights=weights)), float(tokens.mean()))
    return int(1.5 * room.min() / mean) + 8


class _EndError(Exception):
    """The run has ended."""


class _Monitor:
    """Watches a running engine: when its window begins and ends, and whether it surely serves less than `at_least`."""

    def __init__(self, engine: RangedEngine, *, warmup_tokens: float, window_tokens: float, at_least: float) -> None:
        self._engine, self._at_least = engine, at_least
        self._warmup_tokens, self.window_tokens = warmup_tokens, window_tokens
        self._looks = 0
        self._start_s: float | None = None
        self._first = 0
        self._end_s = 0.0
        self._share = 0.0
        """Of the window, simulated so far."""
        engine.clock["window_start"] = engine.clock["window_end"] = math.inf

    def __call__(self, now_s: float) -> None:
        tokens = int(self._engine.clock[0]["tokens"])
        self._looks += 1
        self._end_s = now_s
        if self._looks > MAX_LOOKS:
            raise _EndError
        if self._start_s is None:
            if tokens >= self._warmup_tokens and now_s > 0:
                self._start_s, self._first = now_s, tokens
                self._engine.clock["window_start"] = now_s
            return
        self._share = min(1.0, (tokens - self._first) / self.window_tokens)
        if self._share >= 1:
            raise _EndError
        if self._at_least and self._share >= FIRST_LOOK:
            mean, half = self.interval()
            if mean + half < self._at_least:
                raise _EndError

    def interval(self) -> tuple[float, float]:
        """Mean tokens/s of the window so far, and the half width of its interval from batch means."""
        start_s = self._start_s if self._start_s is not None else 0.0
        tokens = int(self._engine.clock[0]["tokens"])
        times = self._engine.log.arrays.token_time[self._first : tokens]
        edges = np.linspace(start_s, self._end_s, BATCHES + 1)
        length = (self._end_s - start_s) / BATCHES
        if length <= 0:
            return 0.0, 0.0
        rates = np.diff(np.searchsorted(times, edges)) / length
        half = half_interval(rates)
        if self._share >= 1:
            half = max(half, half_interval(rates.reshape(-1, 2).mean(axis=1)))
        return float(rates.mean()), half

    def score(self) -> Score:
        """The score of the window."""
        start_s = self._start_s if self._start_s is not None else 0.0
        if self._end_s <= start_s:
            return Score(share_of_window=0.0)
        _, half = self.interval()
        return measured(
            self._engine, start_s, self._end_s - start_s, half_width_tokens_per_s=half, share_of_window=self._share
        )

    def use(self) -> dict[str, NodeUse]:
        """The use of each node within the window; nothing where the run ended before it."""
        start_s, found = self._start_s, dict[str, NodeUse]()
        if start_s is None or self._end_s <= start_s:
            return found
        setup, kv = self._engine.setup, self._engine.kv
        used = np.array([sample.used for sample in self._engine.log.kv_samples if sample.time_s >= start_s])
        for i, (name, node) in enumerate(zip(setup.names, setup.compute_nodes, strict=True)):
            # The time since a node's last change is not yet counted.
            open_s = self._end_s - max(float(node["since"]), start_s)
            busy_s = float(node["busy_s"]) + (open_s if node["state"] == BUSY else 0.0)
            blocked_s = float(node["blocked_s"]) + (open_s if node["state"] == BLOCKED else 0.0)
            busy, blocked = (min(1.0, seconds / (self._end_s - start_s)) for seconds in (busy_s, blocked_s))
            found[name] = NodeUse(
                busy=busy, blocked=blocked, starved=1 - busy - blocked, steps=int(node["steps"]),
                prefill_tokens=int(node["prefill_tokens"]), decode_tokens=int(node["decode_tokens"]),
                kv_capacity=kv.capacity[name], kv_mean=float(used[:, i].mean()),
            )  # fmt: skip
        return found


__all__ = ["Window", "steady_score", "steady_use"]
