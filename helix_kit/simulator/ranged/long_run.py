"""What nodes and links do in the long run, under a backlog: decodes of a step, requests that decode, where others wait.

Where prompts limit what is served, most requests wait for their prompt and few decode. A node takes S tokens a step, of
which decodes are the share O / (I + O) in the long run, with I tokens in and O out a request. A link carries the same
share of decodes. So of the requests that pass a node or a link, at most its decodes a second times the round trip of a
token decode.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from helix_kit.flow import Pipeline

if TYPE_CHECKING:
    from helix_kit.simulator.ranged.driver import RangedEngine

HALVINGS = 30
"""Steps of the bisection for the decodes of a step."""
EVENNESS = 20
"""A place that is slower by a share x than another has (1 + x) to this power as many requests in front of it."""


def decodes_of_a_step(prompts: NDArray[np.int64], output: float, step_tokens: int, chunk_tokens: int) -> float:
    """Decodes of a full step in the long run, where prompts wait.

    Decodes go first. A prompt's whole chunks take places of `chunk_tokens` in what they leave. The rest of a prompt
    fits beside them, or takes a step that it shares only with others of its size. As many requests as finish their
    prompts finish their outputs.

    Parameters
    ----------
    prompts
        Input tokens of requests, shape (requests,).
    output
        Their mean output tokens.
    step_tokens, chunk_tokens
        Tokens of a step, and of a whole chunk.

    Returns
    -------
    float
        Decodes.

    Examples
    --------
    Prompts of two chunks, and a step with room for one chunk: a request is begun in every second step.

    >>> round(decodes_of_a_step(np.array([512]), 10.0, 300, 256), 3)
    5.0
    """
    whole, rests = prompts // chunk_tokens, np.sort(prompts % chunk_tokens)

    def finished(decodes: float) -> float:
        """Outputs that end in a step, in tokens, if it has so many decodes."""
        left = step_tokens - decodes
        places, beside = divmod(left, chunk_tokens)
        large = rests[np.searchsorted(rests, max(beside, 1.0) if places else 0.0, side="right") :]
        steps = float(whole.mean()) / max(1.0, places)
        if len(large):
            steps += len(large) / len(rests) / max(1.0, left // float(large.mean()))
        return output / steps if steps > 0 else math.inf

    low, high = 0.0, step_tokens * output / (float(prompts.mean()) + output)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if finished(middle) >= middle else (low, middle)
    return high


STEPS_PER_STAGE = 2.0
"""Steps that a token spends at one of several stages: the one that runs when it comes, and its own. Decodes travel in
bunches, so that a bunch mostly comes when a step has just begun. Measured on seven random clusters: with 1.5 as many
as 23 % fewer decode at the start than later, with 2 they are within 14 %."""


class LongRun:
    """How many requests decode on each node and link at once, and where the others wait.

    Parameters
    ----------
    engine
        An engine in offline mode, not yet run.
    cached
        Its first requests, which are for the caches; the mean lengths are those of the others.

    Examples
    --------
    >>> LongRun(engine, 400).may_decode(pipeline)                   # doctest: +SKIP
    True
    """

    def __init__(self, engine: RangedEngine, cached: int) -> None:
        self._setup = engine.setup
        new = engine.requests[cached:] or engine.requests
        prompt = sum(r.input_tokens for r in new) / len(new)
        output = sum(r.output_tokens for r in new) / len(new)
        self._decode_share = output / (prompt + output)
        decodes = decodes_of_a_step(
            np.array([r.input_tokens for r in new]), output, engine.batching.step_tokens, engine.batching.chunk_tokens
        )
        self._step_decodes = decodes
        places, beside = divmod(engine.batching.step_tokens - decodes, engine.batching.chunk_tokens)
        self.beside = int(beside) if places else 0
        """Tokens that a full step has room for beside its decodes and whole chunks: prompts of at most so many never
        wait, since they overtake those of whole chunks."""
        prefill = decodes * prompt / output
        plan = self._setup.plan
        self._step_s = {}
        """Seconds of a full step for each layer."""
        for name in self._setup.names:
            profile = plan.profiles[plan.problem.kind_of[name]]
            self._step_s[name] = (profile.prefill_ms_per_layer(prefill) + profile.decode_ms_per_layer(decodes)) / 1e3
        self._loads = self._load_by_place(prefill + decodes)
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
        # The only stage decodes on without the coordinator: its token takes part in every step.
        trip_s = sum(seconds.values())
        if len(pipeline) > 1:
            trip_s = STEPS_PER_STAGE * trip_s + sum(links["latency"][route])
        limits: dict[str | int, float] = {node: self._step_decodes * trip_s / s for node, s in seconds.items()}
        for link in route[:-1]:
            tokens_per_s = links["bandwidth"][link] / links["bytes_per_token"][link]
            limits[link] = max(1.0, tokens_per_s * self._decode_share * trip_s)
        return limits

    def _load_by_place(self, step_tokens: float) -> dict[str | int, float]:
        """Seconds of work a second, at the plan's flow, of each node and of each link between nodes."""
        setup = self._setup
        loads: dict[str | int, float] = {}
        flow_in = dict.fromkeys(setup.names, 0.0)
        for link, ((source, target), record) in enumerate(zip(setup.edges, setup.links, strict=True)):
            flow = setup.plan.flow_edges.get((source, target), 0.0)
            if target in flow_in:
                flow_in[target] += flow
            if source in flow_in and target in flow_in:
                loads[link] = flow * float(record["bytes_per_token"] / record["bandwidth"])
        for name, (start, end) in setup.plan.placement.items():
            if name in flow_in:
                loads[name] = flow_in[name] * (end - start) * self._step_s[name] / step_tokens
        return loads

    def waits_at(self, pipeline: Pipeline, rng: np.random.Generator) -> tuple[int, bool]:
        """The stage at which a request of this pipeline waits with its prompt, and whether for the link to that stage.

        Queues are in front of the slowest place of a pipeline. Of places that are about as slow, one is drawn.
        """
        route = self._setup.route_of(pipeline)
        nodes = [self._loads.get(stage.node, 0.0) for stage in pipeline]
        links = [0.0, *(self._loads.get(link, 0.0) for link in route[1:-1])]
        loads = np.array([*nodes, *links])
        if loads.max() <= 0:
            return 0, False
        chances = (loads / loads.max()) ** EVENNESS
        place = int(rng.choice(len(loads), p=chances / chances.sum()))
        return place % len(pipeline), place >= len(pipeline)
