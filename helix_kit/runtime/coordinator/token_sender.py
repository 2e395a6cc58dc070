"""Token ids on their way from the coordinator to the first stages.

They are collected during one round of the coordinator's loop, and sent at its end as one message to each worker.
"""

from __future__ import annotations

import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from helix_kit.runtime.coordinator.active_request import ActiveRequest
from helix_kit.runtime.coordinator.worker_manager import WorkerManager
from helix_kit.runtime.transport.messages import RouteStage, RunMessage, SamplingFields, WorkItem
from helix_kit.runtime.transport.shaping import Shaper
from helix_kit.runtime.worker.sampling_params import SamplingParams
from helix_kit.scheduling.windowed_blocks import NOTHING

MAX_SCORED_CHUNK = 2048
"""Longest chunk of a prompt whose log-probabilities are wanted: those of one step go into one message."""


def sampling_fields(params: SamplingParams) -> SamplingFields:
    """The parameters in the form in which they travel."""
    return SamplingFields(*(getattr(params, name) for name in SamplingFields.__struct_fields__))


def _int32(token_ids: Sequence[int]) -> bytes:
    return array.array("i", token_ids).tobytes()


@dataclass(slots=True)
class _Batch:
    """The items for one worker, and the token ids of all of them one after the other."""

    items: list[WorkItem] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)


class TokenSender:
    """Collects items by the endpoint of the first stage's worker.

    Parameters
    ----------
    workers
        The engine's workers.
    chunk_tokens
        A prompt is sent in chunks of this many tokens.
    shaper
        Sends over emulated links; None: over the real ones, at once.
    bytes_per_token
        Declared size of a token on emulated links.
    """

    def __init__(
        self,
        workers: WorkerManager,
        *,
        chunk_tokens: int,
        shaper: Shaper | None = None,
        bytes_per_token: float = 0.0,
    ) -> None:
        self._workers, self._chunk_tokens = workers, chunk_tokens
        self._shaper, self._bytes_per_token = shaper, bytes_per_token
        self.batches: dict[str, _Batch] = {}
        """Endpoint -> what is to be sent there; empty when there is nothing."""

    def _batch_of(self, active: ActiveRequest) -> _Batch:
        endpoint = self._workers.records[active.worker_pipeline[0].node].endpoint
        return self.batches.setdefault(endpoint, _Batch())

    def add_token(self, active: ActiveRequest, position: int, token: int) -> None:
        """Add the token that the next decode step of the request starts from, unless the first stage has it already."""
        if position < active.decode_until:
            return
        active.decode_until = self._decode_until(active)
        batch = self._batch_of(active)
        known = _int32([token]) if active.sampling.has_penalties else None
        batch.items.append(
            WorkItem(active.request.id, active.epoch, position, 1, True, None, None, known, active.decode_until)
        )
        batch.token_ids.append(token)

    def _decode_until(self, active: ActiveRequest) -> int:
        """Position up to which the workers go on by themselves: they have pages, and a further token is wanted."""
        if not self._goes_on(active):
            return 0
        # The last token that may be sampled is not computed any further.
        until = min(active.promised_tokens, active.max_context_tokens - 1)
        return until if active.end_of_attempt is None else min(until, active.end_of_attempt)

    def _goes_on(self, active: ActiveRequest) -> bool:
        """Whether the last stage gives the tokens that it samples to the first stage itself.

        It cannot where sampling has penalties, because the coordinator sends the tokens that they depend on, nor where
        several stages emulate links.
        """
        records, stages = self._workers.records, active.worker_pipeline
        if active.sampling.has_penalties:
            return False
        return len(stages) == 1 or all(records[stage.node].spec.goes_on for stage in stages)

    def add_prompt(self, active: ActiveRequest) -> None:
        """Add the whole context of the request, except what its workers share with other requests.

        The chunks are sent at once, one behind the other, so that the stages overlap. The first chunk carries the route
        and the sampling parameters. Every chunk carries its token ids where sampling depends on them.
        """
        batch = self._batch_of(active)
        records, sampling = self._workers.records, active.sampling
        if active.generated:
            # The tokens of the prompt were scored before the first token came.
            sampling = replace(sampling, prompt_logprobs=None)
        route: list[RouteStage] | None = [
            RouteStage(
                stage.node,
                stage.start,
                stage.end,
                records[stage.node].endpoint,
                active.shared.get(stage.node, []),
                *active.keeps.get(stage.node, NOTHING),
            )
            for stage in active.worker_pipeline
        ]
        fields: SamplingFields | None = sampling_fields(sampling)
        decode_until = active.decode_until = self._decode_until(active)
        tokens, prompt_tokens = active.context, len(active.prompt)
        size = self._chunk_tokens
        if sampling.prompt_logprobs is not None:
            size = min(size, MAX_SCORED_CHUNK)
        rotary_tokens = active.rotary_tokens
        for position in range(active.cached_tokens, len(tokens), size):
            chunk = tokens[position : position + size]
            end = position + len(chunk)
            known = None
            if sampling.needs_token_ids:
                # The next token of the prompt is what the chunk's last row is to predict.
                first = 0 if route is not None else position
                known = _int32(tokens[first : end + 1 if end < prompt_tokens else end])
            is_last = end == len(tokens)
            item = WorkItem(
                active.request.id, active.epoch, position, len(chunk), is_last, route, fields, known, decode_until,
                rotary_tokens,
            )  # fmt: skip
            batch.items.append(item)
            batch.token_ids.extend(chunk)
            route, fields, decode_until, rotary_tokens = None, None, 0, 0

    def discard(self, active: ActiveRequest) -> None:
        """Remove everything of the request that has not been sent."""
        for endpoint, batch in list(self.batches.items()):
            if not any(item.request == active.request.id for item in batch.items):
                continue
            kept = _Batch()
            at = 0
            for item in batch.items:
                if item.request != active.request.id:
                    kept.items.append(item)
                    kept.token_ids.extend(batch.token_ids[at : at + item.tokens])
                at += item.tokens
            self.batches[endpoint] = kept

    def flush(self, ready_s: float = 0.0) -> None:
        """Send everything; over emulated links from `ready_s` on, when it was due to be sent, if that is not now."""
        names = {worker.endpoint: name for name, worker in self._workers.records.items()} if self._shaper else {}
        for endpoint, batch in self.batches.items():
            if not batch.items:
                continue
            message = RunMessage.of_token_ids(batch.items, batch.token_ids)
            if self._shaper is not None:
                size = len(batch.token_ids) * self._bytes_per_token
                self._shaper.send(names[endpoint], size, endpoint, message, ready_s)
            else:
                self._workers.send(endpoint, message)
        self.batches.clear()
