"""One step of a worker: rows of several requests, side by side, through the layers that each of them needs.

`StepEntry` holds everything that a step knows of one request. `start_step` brings the rows to the device, takes them
through the layers and lets tokens be sampled, without waiting for the device: its `RunningStep` says what comes out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from helix_kit.runtime.transport.messages import RunMessage, SampledToken, WorkItem
from helix_kit.runtime.worker.kv_cache import PagePool
from helix_kit.runtime.worker.logprobs import logprobs_of_known
from helix_kit.runtime.worker.model_layers import ModelLayers, RequestRows, layer_segments
from helix_kit.runtime.worker.pacing import SegmentLoad
from helix_kit.runtime.worker.requests import WaitingRows, WorkerRequest, known_tokens
from helix_kit.runtime.worker.row_copies import RowCopies
from helix_kit.runtime.worker.sampling import NO_TOKEN, PendingSample, start_sampling
from helix_kit.runtime.worker.stand_in import StandInLayers
from helix_kit.runtime.worker.transfer import joined_on_device, mark, start_to_host
from helix_kit.runtime.worker.wire_tensors import to_wire

Layers = ModelLayers | StandInLayers


@dataclass(slots=True)
class StepEntry(RequestRows):
    """One request in a step. `hidden` holds its rows: as they entered the layers, then as they left them."""

    request: WorkerRequest
    item: WorkItem
    arrived_s: float

    @property
    def next_position(self) -> int:
        """Position of the token that follows the rows."""
        return self.item.position + self.item.tokens


@dataclass(frozen=True, slots=True)
class NextStageMessage:
    """Rows of a step for the worker of a next stage."""

    worker: str
    endpoint: str
    message: RunMessage


@torch.inference_mode()
def load_entries(model: Layers, chosen: Iterable[tuple[WorkerRequest, WaitingRows]]) -> list[StepEntry]:
    """Bring the chosen rows to the device, token ids embedded: one copy for all ids, one for all hidden states."""
    entries = [
        StepEntry(request.table, chunk.rows, chunk.item.position, request.start, request.end, request, chunk.item,
                  chunk.arrived_s, rotary_tokens=request.rotary_tokens)
        for request, chunk in chosen
    ]  # fmt: skip
    for are_ids in (True, False):
        alike = [entry for entry in entries if entry.request.takes_token_ids == are_ids]
        if not alike:
            continue
        joined = _joined(alike, model.device)
        joined = (model.embed(joined) if are_ids else joined).to(model.dtype)
        for entry, rows in zip(alike, joined.split([entry.item.tokens for entry in alike])):
            entry.hidden = rows
    return entries


def _joined(entries: list[StepEntry], device: torch.device) -> torch.Tensor:
    """The rows of `entries` on `device`, in order: those on the host in one copy for each run of them."""
    parts = []
    for on_host, run in itertools.groupby(entries, key=lambda entry: entry.hidden.device.type == "cpu"):
        rows = [entry.hidden for entry in run]
        parts.append(joined_on_device(rows, device) if on_host else _joined_rows(rows))
    return _joined_rows(parts)


def _joined_rows(rows: list[torch.Tensor]) -> torch.Tensor:
    """Rows of several tensors on one device as one tensor; a single one as it is."""
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def run_entries(model: Layers, pool: PagePool, entries: list[StepEntry]) -> list[SegmentLoad]:
    """Take the rows through their layers; each `hidden` is then the result. Returns the load of each layer segment."""
    for entry in entries:
        entry.table.grow(pool, entry.item.tokens)
    segments = layer_segments([(entry.start, entry.end) for entry in entries])
    for entry, hidden in zip(entries, model.run(pool, entries, segments)):
        entry.hidden = hidden
        # The pages are free at once. A device computes steps in order, so the next owner writes them after this step.
        entry.table.trim(pool)
    loads = []
    for segment in segments:
        tokens = [entries[index].item.tokens for index in segment.requests]
        decodes = tokens.count(1)
        loads.append(SegmentLoad(segment.end - segment.start, sum(tokens) - decodes, decodes))
    return loads


@dataclass(slots=True)
class RunningStep:
    """A step that a device has been given. `wait` for it before its results are taken."""

    entries: list[StepEntry]
    loads: list[SegmentLoad]
    _scored: list[SampledToken]
    """Tokens of prompts whose log-probabilities are wanted."""
    ends: list[StepEntry]
    """Requests whose last stage is here and whose rows so far are complete: each gets a token."""
    _sampled: PendingSample | None
    _outgoing: list[tuple[list[StepEntry], torch.Tensor]]
    """Rows for each next worker, on their way to the host."""
    _done: torch.cuda.Event | None

    def wait(self) -> None:
        """Return when the device has finished the step."""
        if self._done is not None:
            self._done.synchronize()

    def tokens(self) -> list[SampledToken]:
        """The next token of each request whose last stage is here and whose rows so far are complete.

        Tokens of prompts whose log-probabilities are wanted come first, so that they reach the coordinator before the
        request's first token.
        """
        if self._sampled is None:
            return self._scored
        return self._scored + [
            SampledToken(entry.request.id, entry.request.epoch, entry.next_position, token, logprobs)
            for entry, token, logprobs in zip(self.ends, *self._sampled.on_host)
        ]

    def messages(self) -> list[NextStageMessage]:
        """One message for each next worker, with all rows that go there in one tensor, or all new tokens.

        Items travel on unchanged, so the first item of an attempt brings its route and sampling to every stage.
        """
        outgoing = []
        for alike, rows in self._outgoing:
            tensor, dtype = to_wire(rows)
            message = RunMessage([entry.item for entry in alike], dtype, tuple(rows.shape), tensor)
            following = alike[0].request.next_stage
            assert following is not None
            outgoing.append(NextStageMessage(following.node, following.endpoint, message))
        return outgoing + self._tokens_to_first_stages()

    def _tokens_to_first_stages(self) -> list[NextStageMessage]:
        """New tokens for the next decode steps, for workers that are the first stages of their requests."""
        if self._sampled is None or all(entry.request.first_stage is None for entry in self.ends):
            return []
        rows: dict[tuple[str, str], list[tuple[WorkItem, int]]] = {}
        for entry, token in zip(self.ends, self._sampled.on_host.tokens):
            request, position, first = entry.request, entry.next_position, entry.request.first_stage
            if position < request.decode_until and first is not None and token != NO_TOKEN:
                item = WorkItem(request.id, request.epoch, position, 1, True)
                rows.setdefault((first.node, first.endpoint), []).append((item, token))
        return [
            NextStageMessage(worker, endpoint, RunMessage.of_token_ids([i for i, _ in pairs], [t for _, t in pairs]))
            for (worker, endpoint), pairs in rows.items()
        ]

    def go_on(self, now_s: float) -> None:
        """Let requests of which this worker is the only stage decode their new tokens in the next step.

        The tokens are taken where they were sampled, so that the next step can start before they reach the host.
        """
        if self._sampled is None:
            return
        rows = self._sampled.tokens.split(1)
        for entry, row in zip(self.ends, rows):
            request, position = entry.request, entry.next_position
            if position < request.decode_until and request.first_stage is None:
                request.received += 1
                request.waiting.append(WaitingRows(WorkItem(request.id, request.epoch, position, 1, True), row, now_s))


@torch.inference_mode()
def start_step(
    model: Layers,
    pool: PagePool,
    chosen: Iterable[tuple[WorkerRequest, WaitingRows]],
    copies: RowCopies | None = None,
) -> RunningStep:
    """Give the device a step with the chosen rows: through the layers, and to a token where the last stage is here.

    `copies` bring rows for other workers from a GPU to the host; None: the stream of the steps does.
    """
    entries = load_entries(model, chosen)
    loads = run_entries(model, pool, entries)
    last = [entry for entry in entries if entry.request.next_stage is None]
    scored = _score_prompts(model, [entry for entry in last if entry.request.sampling.prompt_logprobs is not None])
    ends = [entry for entry in last if entry.item.wants_token]
    sampled = None
    if ends:
        sampled = start_sampling(
            model.logits(_joined_rows([entry.hidden[-1:] for entry in ends])),
            [entry.request.sampling for entry in ends],
            [entry.next_position for entry in ends],
            [entry.request.counts for entry in ends],
        )
    by_endpoint: dict[str, list[StepEntry]] = {}
    for entry in entries:
        if entry.request.next_stage is not None:
            by_endpoint.setdefault(entry.request.next_stage.endpoint, []).append(entry)
    begin = start_to_host if copies is None else copies.start
    outgoing = [(alike, begin(_joined_rows([entry.hidden for entry in alike]))) for alike in by_endpoint.values()]
    done = copies.mark() if copies is not None and outgoing else mark(model.device)
    return RunningStep(entries, loads, scored, ends, sampled, outgoing, done)


def _score_prompts(model: Layers, entries: list[StepEntry]) -> list[SampledToken]:
    """The tokens after the rows, as far as they came with them, with their log-probabilities."""
    following = [known_tokens(entry.item)[1:] for entry in entries]
    asking = [(entry, tokens) for entry, tokens in zip(entries, following) if tokens]
    if not asking:
        return []
    found = logprobs_of_known(
        model.logits,
        [entry.hidden[: len(tokens)] for entry, tokens in asking],
        [tokens for _, tokens in asking],
        [entry.request.sampling.prompt_logprobs or 0 for entry, _ in asking],
    )
    return [
        SampledToken(entry.request.id, entry.request.epoch, position, token, logprobs)
        for (entry, tokens), fields in zip(asking, found)
        for position, (token, logprobs) in enumerate(zip(tokens, fields), entry.item.position + 1)
    ]
