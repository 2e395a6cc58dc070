"""A cheap estimate of what a plan serves, milliseconds a plan: it ranks candidates, the simulator chooses.

Little's law: X = N O / (R_p + O R_d), with O output tokens a request, N requests in flight, R_p and R_d the round
trips of a prefill and of a decode step.

- N is capped by the keys and values of the tightest layer and node.
- R_p is latency, and work that queues behind other prefills.
- R_d is latency, the time of a batch through every stage, and waiting behind prefills that cannot be overtaken:
  where a stretch of the path has no second replica, everything behind a prefill moves at its pace.

The seven constants from `KV_MEAN_SHARE` to `BLOCKING` were fitted once, on random plans of single24 in the published
execution model. `LINK_WAIT` and `FILL_HORIZON_S` came later and were set by hand. None is set anew for
other clusters: a test holds the rank correlation with the simulator on single24 above 0.75, and above that of
the maximum flow; `helix_kit.search.held_out` measures it elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Flow, Placement
from helix_kit.placement.problem import Problem
from helix_kit.typical_request import PREDICTOR_PROMPTS, TRACE_OUTPUT_TOKENS

KV_MEAN_SHARE, KV_WORST_SHARE = 0.712, 0.85
"""Share of a layer's KV, and of the fullest node's, in use when the scheduler stops admitting."""
PREFILL_WORK, PREFILL_QUEUE = 1.3, 0.67
DECODE_WORK, DECODE_STUCK = 2.46, 1.78
BLOCKING = 0.35
LINK_WAIT = 0.9
"""Waiting for a link with load rho, in times that a mean prompt takes on it: this times rho / (1 - rho).

By queueing alone it is the mean square of prompt lengths over twice their squared mean, 0.67 in the conversation trace.
0.9 was set by hand; no fit is on record, and nothing derives the third above."""
FILL_HORIZON_S = 400.0
"""Of a run of about ten minutes, how much is lost to its beginning: the time to fill the KV caches, over this.

Set by hand, on geo24. No arithmetic gives 400: it brings down plans whose prompts keep a narrow link busy until the KV
caches are full, which are ranked far too high without it."""
TYPICAL_DECODE_BATCH = 12
"""Requests of the batch whose time stands for a decode step: step times are nearly flat in it. Not fitted."""
HOP_OVERHEAD_S = 2e-4
"""Added to each link's latency. Not fitted."""


@dataclass(frozen=True)
class Lengths:
    """What requests look like on average, and the prompt lengths to average prefill times over."""

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


@dataclass(frozen=True)
class Prediction:
    """What a plan is expected to serve when as many requests are in flight as its KV admits."""

    decode_tokens_per_s: float
    prompt_latency_s: float
    decode_latency_s: float
    in_flight: float


class Predictor:
    """Predictions for placements of one problem; times a layer are looked up once a kind."""

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
        """Prediction for a placement whose requests follow `flow`, at full load, or at a rate that is less."""
        if flow.tokens_per_s <= 0:
            return Prediction(0.0, math.inf, math.inf, 0.0)
        path = _Path(self, placement, flow)
        output = self.lengths.output_tokens
        low, high = 0.0, path.in_flight / (path.latency_s + path.decode_work_s)
        for _ in range(40):
            rate = (low + high) / 2
            prefill, decode = path.round_trips(rate / output)
            if rate * (prefill / output + decode) <= path.in_flight:
                low = rate
            else:
                high = rate
        served = low
        if requests_per_s is None:
            # From an empty cluster prompts come as fast as the narrowest place lets them through, and decodes wait.
            fill_s = path.in_flight * float(path.rho.max())
            served = low * max(0.1, 1 - fill_s / FILL_HORIZON_S)
        else:
            served = low = min(low, output * requests_per_s)
        prefill, decode = path.round_trips(low / output)
        return Prediction(served, prefill, decode, path.in_flight)


class _Path:
    """A placement and its flow as seen by one mean request."""

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
        run = {n: layers[n] / into[n] for n in used}  # layers that a request runs here, on average
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
        # V: work that a prefill leaves on the way from a node on, on stretches that all requests share.
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

    def round_trips(self, prefills_per_s: float) -> tuple[float, float]:
        """(R_p, R_d) in seconds at a rate of new requests; infinite where something is more than full."""
        rho = prefills_per_s * self.rho
        if (rho >= 0.999).any():
            return math.inf, math.inf
        prefill = self.latency_s + float((self.rho * (PREFILL_WORK + PREFILL_QUEUE * rho / (1 - rho))).sum())
        delta = max(1e-9, prefill - self.decode_work_s - self.latency_s)
        x = BLOCKING * prefills_per_s * self.second_moment / delta
        stuck = delta * (1 - (1 - math.exp(-x)) / x) if x > 1e-9 else 0.0
        # On a link decodes wait for the prompts before them (Pollaczek-Khinchine), however wide the stages beside it.
        on_links = LINK_WAIT * float((self.rho * rho / (1 - rho))[self.links].sum())
        return prefill + on_links, DECODE_WORK * self.decode_work_s + DECODE_STUCK * stuck + on_links + self.latency_s


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
