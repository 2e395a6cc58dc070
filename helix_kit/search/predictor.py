"""A cheap estimate of what a plan serves. It ranks candidates in milliseconds each; the simulator chooses among them.

By Little's law a plan serves X = N O / (R_p + O R_d) decode tokens/s, with O output tokens a request, N requests in
flight, and R_p and R_d the round trips of a prefill and of a decode step.

- N is limited by the KV cache of the tightest layer and of the tightest node.
- R_p consists of latencies, of prefill work, and of waiting for other prefills.
- R_d consists of latencies, of the time of a batch on every stage, and of waiting behind prefills. A decode step cannot
  overtake a prefill where a stretch of the path has no second replica: there all requests move at the prefill's pace.

The seven constants from `KV_MEAN_SHARE` to `BLOCKING` were fitted once, on random plans of single24 under the published
simulator rules. `LINK_WAIT` and `FILL_HORIZON_S` were added later and set by hand. None is fitted again for another
cluster. A test holds the rank correlation with the simulator on single24 above 0.75 and above that of the maximum flow;
`helix_kit.search.held_out` measures it on other clusters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Flow, Placement
from helix_kit.placement.problem import Problem
from helix_kit.typical_request import PREDICTOR_PROMPTS, TRACE_OUTPUT_TOKENS
from helix_kit.workload.lengths import LengthPairs

KV_MEAN_SHARE, KV_WORST_SHARE = 0.712, 0.85
"""Shares of a layer's KV cache, and of the fullest node's, that are in use when the scheduler stops admitting."""
PREFILL_WORK, PREFILL_QUEUE = 1.3, 0.67
DECODE_WORK, DECODE_STUCK = 2.46, 1.78
"""A prefill or decode step takes its work times these, and waits in a queue of prefills, or behind prefills that it
cannot overtake, times these."""
BLOCKING = 0.35
"""How fast waiting behind prefills grows with their rate."""
LINK_WAIT = 0.9
"""Factor of the waiting time for a link of load rho: it waits this times rho / (1 - rho) times the mean time that a
prompt takes on the link.

Queueing theory alone (Pollaczek-Khinchine) gives 0.67 for the conversation trace: the mean square of the prompt lengths
over twice their squared mean. The value 0.9 was set by hand; neither a fit nor a derivation of it is on record."""
FILL_HORIZON_S = 400.0
"""A run of about ten minutes loses a fraction of its decode tokens to its beginning: the seconds that prompts take to
fill the KV caches, over this number.

It was set by hand, on geo24, and no arithmetic gives 400. Without it, plans whose prompts keep a narrow link busy until
the KV caches are full are ranked far too high."""
TYPICAL_DECODE_BATCH = 12
"""Batch whose time is used for a decode step: step times hardly depend on the batch. Not fitted."""
HOP_OVERHEAD_S = 2e-4
"""Added to each link's latency. Not fitted."""
TINY = 1e-9
"""Zeros count as this in logarithms."""


@dataclass(frozen=True)
class Lengths:
    """Prompt lengths over which prefill times are averaged, and the mean output of a request."""

    prompts: tuple[int, ...] = PREDICTOR_PROMPTS
    output_tokens: float = float(TRACE_OUTPUT_TOKENS)

    @property
    def input_tokens(self) -> float:
        """Mean prompt length."""
        return sum(self.prompts) / len(self.prompts)

    @property
    def tokens(self) -> float:
        """Mean KV tokens of a finished request."""
        return self.input_tokens + self.output_tokens


def lengths_of(pairs: LengthPairs) -> Lengths:
    """The lengths of a workload given as pairs (input tokens, output tokens).

    The prompts are the means of as many equal parts of the sorted prompts as the predictor usually takes.
    """
    prompts = np.sort([i for i, _ in pairs])
    parts = np.array_split(prompts, min(len(PREDICTOR_PROMPTS), len(prompts)))
    return Lengths(tuple(round(float(part.mean())) for part in parts), sum(o for _, o in pairs) / len(pairs))


@dataclass(frozen=True)
class Prediction:
    """What a plan is expected to serve when as many requests are in flight as its KV caches admit."""

    decode_tokens_per_s: float
    prompt_latency_s: float
    decode_latency_s: float
    in_flight: float


class RoundTrips(NamedTuple):
    """R_p and R_d: seconds of a prefill and of a decode step through the whole model."""

    prefill_s: float
    decode_s: float


class Predictor:
    """Predicts placements of one problem; the times of a layer are looked up once for each kind of machine."""

    def __init__(self, problem: Problem, lengths: Lengths | None = None) -> None:
        self.problem, self.lengths = problem, lengths or Lengths()
        self.prefill_s: dict[str, float] = {}
        self.decode_s: dict[str, float] = {}
        for kind, profile in problem.profiles.items():
            if profile.max_layers:
                times = [profile.prefill_ms_per_layer(p) for p in self.lengths.prompts]
                self.prefill_s[kind] = sum(times) / len(times) / 1e3
                self.decode_s[kind] = profile.decode_ms_per_layer(TYPICAL_DECODE_BATCH) / 1e3

    def __call__(self, placement: Placement, flow: Flow, requests_per_s: float | None = None) -> Prediction:
        """The prediction for a placement whose requests follow `flow`.

        Without `requests_per_s` the plan is at full load. With it, at this rate or at full load, whichever is less.
        """
        if flow.tokens_per_s <= 0:
            return Prediction(0.0, math.inf, math.inf, 0.0)
        path = _Path(self, placement, flow)
        output = self.lengths.output_tokens
        served = low = path.capacity_tokens_per_s(output)
        if requests_per_s is None:
            # A run starts with an empty cluster: the busiest node or link lets prompts in, and decodes wait for them.
            fill_s = path.in_flight * float(path.rho.max())
            served = low * max(0.1, 1 - fill_s / FILL_HORIZON_S)
        else:
            served = low = min(low, output * requests_per_s)
        prefill, decode = path.round_trips(low / output)
        return Prediction(served, prefill, decode, path.in_flight)

    def at_shares(self, placement: Placement, flow: Flow, shares: Sequence[float]) -> list[Prediction]:
        """Predictions at these shares of the rate at which the plan is at full load."""
        if flow.tokens_per_s <= 0:
            return []
        path, output = _Path(self, placement, flow), self.lengths.output_tokens
        most = path.capacity_tokens_per_s(output)
        return [Prediction(s * most, *path.round_trips(s * most / output), path.in_flight) for s in shares]

    def features(self, placement: Placement, flow: Flow) -> tuple[float, ...]:
        """Logarithms of what a mean request meets, from which `helix_kit.search.correction` learns.

        They are: requests in flight, latencies, the work of a decode step and of a prefill, the largest load of a node
        or link, and the work that decode steps find in front of them.
        """
        path = _Path(self, placement, flow)
        met = (
            path.in_flight, path.latency_s, path.decode_work_s, float(path.rho.sum()), float(path.rho.max()),
            path.second_moment,
        )  # fmt: skip
        return tuple(math.log(max(value, TINY)) for value in met)


class _Path:
    """The loads and times that a mean request meets on a placement with its flow."""

    def __init__(self, predictor: Predictor, placement: Placement, flow: Flow) -> None:
        problem, total = predictor.problem, flow.tokens_per_s
        cluster, kinds = problem.cluster, problem.kind_of
        into: dict[str, float] = {}
        layers: dict[str, float] = {}
        for (a, b), f in flow.edges.items():
            if b != COORDINATOR:
                done = 0 if a == COORDINATOR else placement[a][1]
                into[b] = into.get(b, 0.0) + f
                layers[b] = layers.get(b, 0.0) + f * (placement[b][1] - done)
        used = sorted(into, key=lambda n: (-placement[n][1], n))
        share = {n: into[n] / total for n in used}
        run = {n: layers[n] / into[n] for n in used}  # mean layers that a request runs on the node
        prefill = {n: run[n] * predictor.prefill_s[kinds[n]] for n in used}
        decode = {n: run[n] * predictor.decode_s[kinds[n]] for n in used}
        size = problem.model.link_bytes_per_token * predictor.lengths.input_tokens
        bare = problem.model.token_bytes * predictor.lengths.input_tokens
        send: dict[tuple[str, str], float] = {}
        self.latency_s = 0.0
        for (a, b), f in flow.edges.items():
            link = cluster.link(a, b)
            send[a, b] = (bare if COORDINATOR in (a, b) else size) / link.bytes_per_s
            self.latency_s += f / total * (link.latency_s + HOP_OVERHEAD_S)
        self.in_flight = _in_flight(problem, placement, share, predictor.lengths.tokens)
        self.decode_work_s = sum(share[n] * decode[n] for n in used)
        self.rho = np.array(
            [share[n] * prefill[n] for n in used] + [f / total * send[e] for e, f in flow.edges.items()]
        )
        self.links = slice(len(used), None)
        # V of a node: the work that a prefill leaves there and further on, weighted by the chance (the squared share of
        # the flow) that a following request takes the same way.
        own = {n: max(0.0, prefill[n] - decode[n]) for n in used}
        ahead: dict[str, float] = {}
        leaving: dict[str, list[tuple[str, float]]] = {n: [] for n in used}
        for (a, b), f in flow.edges.items():
            if a != COORDINATOR:
                leaving[a].append((b, f))
        for n in used:
            ahead[n] = own[n] + sum((f / into[n]) ** 2 * (send[n, b] + ahead.get(b, 0.0)) for b, f in leaving[n])
        self.second_moment = sum(share[n] ** 2 * own[n] * (2 * ahead[n] - own[n]) for n in used)
        for (a, b), f in flow.edges.items():
            t = send[a, b]
            self.second_moment += (f / total) ** 2 * t * (2 * ahead.get(b, 0.0) + t)

    def capacity_tokens_per_s(self, output_tokens: float) -> float:
        """Decode tokens/s at full load: more mean longer round trips, and these must not need more than N requests."""
        low, high = 0.0, self.in_flight / (self.latency_s + self.decode_work_s)
        for _ in range(40):
            rate = (low + high) / 2
            prefill, decode = self.round_trips(rate / output_tokens)
            if rate * (prefill / output_tokens + decode) <= self.in_flight:
                low = rate
            else:
                high = rate
        return low

    def round_trips(self, prefills_per_s: float) -> RoundTrips:
        """Round trips at a rate of new requests; infinite where a node or link cannot carry the rate."""
        rho = prefills_per_s * self.rho
        if (rho >= 0.999).any():
            return RoundTrips(math.inf, math.inf)
        prefill = self.latency_s + float((self.rho * (PREFILL_WORK + PREFILL_QUEUE * rho / (1 - rho))).sum())
        delta = max(1e-9, prefill - self.decode_work_s - self.latency_s)
        x = BLOCKING * prefills_per_s * self.second_moment / delta
        stuck = delta * (1 - (1 - math.exp(-x)) / x) if x > 1e-9 else 0.0
        # On a link decodes wait for the prompts before them (Pollaczek-Khinchine), also between stages with replicas.
        on_links = LINK_WAIT * float((self.rho * rho / (1 - rho))[self.links].sum())
        decode = DECODE_WORK * self.decode_work_s + DECODE_STUCK * stuck + on_links + self.latency_s
        return RoundTrips(prefill + on_links, decode)


def _in_flight(problem: Problem, placement: Placement, share: dict[str, float], tokens: float) -> float:
    """Requests that the KV caches admit at once."""
    room = {n: _kv_tokens(problem, n, placement[n][1] - placement[n][0]) for n in share}
    per_layer = np.zeros(problem.num_layers)
    for n, tokens_of_room in room.items():
        per_layer[placement[n][0] : placement[n][1]] += tokens_of_room
    worst = min(room[n] / share[n] for n in share)
    return min(KV_MEAN_SHARE * float(per_layer.min()), KV_WORST_SHARE * worst) / tokens


def _kv_tokens(problem: Problem, node: str, k: int) -> float:
    """Tokens of context that a node has room for in each of its k layers."""
    return problem.profiles[problem.kind_of[node]].kv_capacity(k) / k
