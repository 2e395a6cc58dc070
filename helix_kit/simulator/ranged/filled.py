"""The start of a run in the middle of its life: KV caches are full of requests at random points of their decodes.

A run that starts empty fills the caches with prompts for minutes, and its first batch of requests ends together. A run
that starts here is close to its steady state at once.

Where prompts limit what is served, most requests wait for their prompt and few decode (see `long_run`). Those that wait
have the lengths of requests that arrive, while a request that decodes is met in proportion to its output. They wait in
front of the slowest place of their pipeline: the stages before have run their prompts.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from helix_kit.simulator import events
from helix_kit.simulator.compiled import compiled
from helix_kit.simulator.ranged import rules
from helix_kit.simulator.ranged.long_run import LongRun
from helix_kit.simulator.ranged.messages import START_STEP, append, close_all_messages, post, take_chunk
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
def place_prompt(plain, number, hop, here, layer, chunk_tokens):
    """Let the prompt of request `number` wait at node `here` before `layer`; `here` -1: for the link to hop `hop`."""
    state = unpacked(plain)
    request, left = state.requests[number], state.requests[number].input
    request.sampled = request.resumed = request.done
    while left > 0:
        at = take_chunk(state.chunks, state.clock)
        chunk = state.chunks[at]
        chunk.request, chunk.epoch, chunk.tokens = number, request.epoch, min(chunk_tokens, left)
        left -= chunk.tokens
        chunk.decode, chunk.last, chunk.hop, chunk.layer = 0, 1 if left == 0 else 0, hop, layer
        chunk.sent_at = state.clock.now
        if here < 0:
            post(state, state.routes[number, hop], at)
        else:
            append(state.inboxes[2 * here + 1], state.chunks, at)
    if here < 0:
        # A message for each prompt: all of them as one would arrive together, at the end.
        close_all_messages(state)


@compiled
def start_all(plain):
    """Let every node look for work at this moment."""
    state = unpacked(plain)
    for here in range(len(state.nodes) - 2):
        events.push(state.heap, state.fifo, state.clock, state.clock.now, START_STEP, here)


def fill(engine: RangedEngine, done: Sequence[int], seed: int, arriving: Sequence[tuple[int, int]] = ()) -> int:
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
    arriving
        Lengths (input tokens, output tokens) that replace those of requests which begin with their prompts, as many as
        `done`; empty: they keep their own.

    Returns
    -------
    int
        Requests that were admitted.
    """
    rng = np.random.default_rng(seed)
    policy, setup = engine.policy, engine.setup
    loads = policy.token_loads()
    links = {edge: i for i, edge in enumerate(policy.topology.links)} if loads and policy.topology else {}
    long_run = LongRun(engine, len(done))
    waiting = [pair for pair in arriving if pair[0] > long_run.beside] or arriving
    admitted = 0
    for at, tokens in enumerate(done):
        request = engine.requests[at]
        if request.input_tokens + request.output_tokens > engine.longest_context_tokens:
            continue
        request = engine.as_it_stands(at)
        pipeline, cached = engine.offer(at, request)
        if pipeline is None:
            break
        decodes = long_run.may_decode(pipeline)
        if not decodes and len(arriving):
            engine.withdraw(request, pipeline)
            request = engine.exchange(at, *waiting[at % len(waiting)])
            if request.input_tokens + request.output_tokens > engine.longest_context_tokens:
                continue
            pipeline, cached = engine.offer(at, request)
            if pipeline is None:
                break
        policy.on_admitted(request, pipeline)
        admitted += 1
        if not decodes:
            hop, by_link = long_run.waits_at(pipeline, rng)
            if hop == 0 or cached:
                engine.launch(at, request, pipeline, cached)
                continue
            engine.take_up(at, request, pipeline)
            engine.need_chunks(request.input_tokens // engine.batching.chunk_tokens + 2)
            engine.need_messages(2 * len(setup.links))
            here = -1 if by_link else setup.number_of[pipeline[hop].node]
            place_prompt(engine.packed, at, hop, here, pipeline[hop].start, engine.batching.chunk_tokens)
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
