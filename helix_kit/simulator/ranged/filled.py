"""The start of a run in the middle of its life: KV caches are full of requests at random points of their decodes.

A run that starts empty fills the caches with prompts for minutes, and its first batch of requests ends together. A run
that starts here is close to its steady state at once.

Where prompts limit what is served, most requests wait for their prompt and few decode. A node takes S tokens a step, of
which decodes are the share O / (I + O) in the long run, with I tokens in and O out a request. A link carries the same
share of decodes. So of the requests that pass a node or a link, at most its decodes a second times the round trip of a
token decode; the others begin with their prompts.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from helix_kit.flow import Pipeline
from helix_kit.simulator import events
from helix_kit.simulator.compiled import compiled
from helix_kit.simulator.ranged import rules
from helix_kit.simulator.ranged.messages import START_STEP, append, take_chunk
from helix_kit.simulator.ranged.state import unpacked

if TYPE_CHECKING:
    from helix_kit.simulator.ranged.driver import RangedEngine


@compiled
def place_token(plain, number, hop, here, layer):
    """Let the next token of request `number` wait at node `here`, hop `hop` of its pipeline, before `layer`."""
    state = unpacked(plain)
    request = state.requests[number]
    request.sampled = request.done
    at = take_chunk(state.chunks, state.clock)
    chunk = state.chunks[at]
    chunk.request, chunk.epoch, chunk.tokens = number, request.epoch, 1
    chunk.decode, chunk.last, chunk.hop, chunk.layer = 1, 1, hop, layer
    chunk.sent_at = state.clock.now
    append(state.inboxes[2 * here], state.chunks, at)


@compiled
def start_all(plain):
    """Let every node look for work at this moment."""
    state = unpacked(plain)
    for here in range(len(state.nodes) - 2):
        events.push(state.heap, state.fifo, state.clock, state.clock.now, START_STEP, here)


def fill(engine: RangedEngine, done: Sequence[int], seed: int) -> int:
    """Admit the engine's first ``len(done)`` requests as if they had been decoding for a while, until one is refused.

    Parameters
    ----------
    engine
        A new engine in offline mode, not yet run. Of its requests the first ``len(done)`` are for the caches; those
        that are not admitted are left out, and the run goes on with the request after them.
    done
        Output tokens that each of them has generated already, from 1 to one less than its output.
    seed
        Of the stage at which each request's next token waits.

    Returns
    -------
    int
        Requests that were admitted.
    """
    rng = np.random.default_rng(seed)
    policy, setup = engine.policy, engine.setup
    loads = policy.token_loads()
    links = {edge: i for i, edge in enumerate(policy.topology.links)} if loads and policy.topology else {}
    limits = _Limits(engine, len(done))
    admitted = 0
    for at, tokens in enumerate(done):
        request = engine.requests[at]
        if request.input_tokens + request.output_tokens > engine.longest_context_tokens:
            continue
        request = engine.as_it_stands(at)
        pipeline, cached = engine.offer(at, request)
        if pipeline is None:
            break
        policy.on_admitted(request, pipeline)
        admitted += 1
        if not limits.may_decode(pipeline):
            engine.launch(at, request, pipeline, cached)
            continue
        engine.take_up(at, request, pipeline)
        # A stage holds a request's token for a time that grows with the layers it runs.
        layers = np.array([stage.end - stage.start for stage in pipeline])
        hop = int(rng.choice(len(layers), p=layers / layers.sum()))
        engine.state.requests[at]["done"] = tokens
        if loads:
            for edge in (setup.edges[i] for i in setup.route_of(pipeline)[:-1]):
                if edge in links:
                    loads[0][links[edge]] += tokens / loads[1][links[edge]]
        engine.need_chunks(1)
        place_token(engine.packed, at, hop, setup.number_of[pipeline[hop].node], pipeline[hop].start)
    engine.issued = len(done)
    rules.send_all(engine.packed)
    start_all(engine.packed)
    return admitted


class _Limits:
    """How many requests decode on each node and link at once."""

    def __init__(self, engine: RangedEngine, cached: int) -> None:
        self._setup = engine.setup
        new = engine.requests[cached:] or engine.requests
        prompt = sum(r.input_tokens for r in new) / len(new)
        output = sum(r.output_tokens for r in new) / len(new)
        self._decodes = output / (prompt + output)
        step = engine.batching.step_tokens
        # Beside decodes only whole chunks fit, and the rest of a prompt: so many whole chunks are run a step, and so
        # many requests finish their prompts.
        chunk = engine.batching.chunk_tokens
        whole = sum(r.input_tokens // chunk for r in new) / len(new)
        decodes = step * self._decodes
        if whole > 0:
            decodes = min(decodes, output * max(1.0, (step - decodes) // chunk) / whole)
        self._step_decodes = decodes
        prefill = decodes * prompt / output
        plan = self._setup.plan
        self._step_s = {}
        """Seconds of a full step for each layer."""
        for name in self._setup.names:
            profile = plan.profiles[plan.problem.kind_of[name]]
            self._step_s[name] = (profile.prefill_ms_per_layer(prefill) + profile.decode_ms_per_layer(decodes)) / 1e3
        self._decoding: dict[str | int, int] = {}
        self._of: dict[Pipeline, dict[str | int, float]] = {}

    def may_decode(self, pipeline: Pipeline) -> bool:
        """Whether another request of this pipeline decodes; it is then counted."""
        if pipeline not in self._of:
            self._of[pipeline] = self._limits_of(pipeline)
        limits = self._of[pipeline]
        if any(self._decoding.get(place, 0) >= limit for place, limit in limits.items()):
            return False
        for place in limits:
            self._decoding[place] = self._decoding.get(place, 0) + 1
        return True

    def _limits_of(self, pipeline: Pipeline) -> dict[str | int, float]:
        route = self._setup.route_of(pipeline)
        links = self._setup.links
        seconds = {s.node: (s.end - s.start) * self._step_s[s.node] for s in pipeline}
        # The only stage decodes on without the coordinator.
        trip_s = sum(seconds.values()) + (sum(links["latency"][route]) if len(pipeline) > 1 else 0.0)
        limits: dict[str | int, float] = {node: self._step_decodes * trip_s / s for node, s in seconds.items()}
        for link in route[:-1]:
            tokens_per_s = links["bandwidth"][link] / links["bytes_per_token"][link]
            limits[link] = max(1.0, tokens_per_s * self._decodes * trip_s)
        return limits
