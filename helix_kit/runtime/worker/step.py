"""One step of a worker: rows of several requests, side by side, through the layers that each of them needs.

`StepEntry` holds everything that a step knows of one request. The functions here take the list of a step's entries:
`load_entries` brings the rows to the device, `run_entries` takes them through the layers, `sample_tokens` and
`messages_to_next_stages` say what comes out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from helix_kit.runtime.transport.messages import RunMessage, SampledToken, WorkItem
from helix_kit.runtime.worker.kv_cache import PagePool
from helix_kit.runtime.worker.logprobs import logprobs_of_known
from helix_kit.runtime.worker.model_layers import ModelLayers, RequestRows, layer_segments
from helix_kit.runtime.worker.pacing import SegmentLoad
from helix_kit.runtime.worker.requests import WaitingRows, WorkerRequest, known_tokens
from helix_kit.runtime.worker.sampling import sample
from helix_kit.runtime.worker.transfer import joined_on_device
from helix_kit.runtime.worker.wire_tensors import to_wire


@dataclass(slots=True)
class StepEntry(RequestRows):
    """One request in a step. `hidden` holds its rows: as they entered the layers, then as they left them."""

    request: WorkerRequest
    item: WorkItem
    arrived_s: float


@dataclass(frozen=True, slots=True)
class NextStageMessage:
    """Rows of a step for the worker of a next stage."""

    worker: str
    endpoint: str
    message: RunMessage


@torch.inference_mode()
def load_entries(model: ModelLayers, chosen: Iterable[tuple[WorkerRequest, WaitingRows]]) -> list[StepEntry]:
    """Bring the chosen rows to the device, token ids embedded: one copy for all ids, one for all hidden states."""
    entries = [
        StepEntry(request.table, chunk.rows, chunk.item.position, request.start, request.end, request, chunk.item,
                  chunk.arrived_s)
        for request, chunk in chosen
    ]  # fmt: skip
    for are_ids in (True, False):
        alike = [entry for entry in entries if entry.request.takes_token_ids == are_ids]
        if not alike:
            continue
        joined = joined_on_device([entry.hidden for entry in alike], model.device)
        joined = (model.embed(joined) if are_ids else joined).to(model.dtype)
        for entry, rows in zip(alike, joined.split([entry.item.tokens for entry in alike])):
            entry.hidden = rows
    return entries


def run_entries(model: ModelLayers, pool: PagePool, entries: list[StepEntry]) -> list[SegmentLoad]:
    """Take the rows through their layers; each `hidden` is then the result. Returns the load of each layer segment."""
    for entry in entries:
        entry.table.grow(pool, entry.item.tokens)
    segments = layer_segments([(entry.start, entry.end) for entry in entries])
    for entry, hidden in zip(entries, model.run(pool, entries, segments)):
        entry.hidden = hidden
    loads = []
    for segment in segments:
        tokens = [entries[index].item.tokens for index in segment.requests]
        decodes = tokens.count(1)
        loads.append(SegmentLoad(segment.end - segment.start, sum(tokens) - decodes, decodes))
    return loads


@torch.inference_mode()
def sample_tokens(model: ModelLayers, entries: list[StepEntry]) -> list[SampledToken]:
    """The next token of each request whose last stage is here and whose rows so far are complete.

    Tokens of prompts whose log-probabilities are wanted come first, so that they reach the coordinator before the
    request's first token.
    """
    last = [entry for entry in entries if entry.request.next_endpoint is None]
    scored = _score_prompts(model, [entry for entry in last if entry.request.sampling.prompt_logprobs is not None])
    ends = [entry for entry in last if entry.item.wants_token]
    if not ends:
        return scored
    logits = model.logits(torch.stack([entry.hidden[-1] for entry in ends]))
    positions = [entry.item.position + entry.item.tokens for entry in ends]
    counts = [entry.request.counts for entry in ends]
    sampled = sample(logits, [entry.request.sampling for entry in ends], positions, counts)
    return scored + [
        SampledToken(entry.request.id, entry.request.epoch, position, token, logprobs)
        for entry, position, token, logprobs in zip(ends, positions, *sampled)
    ]


def _score_prompts(model: ModelLayers, entries: list[StepEntry]) -> list[SampledToken]:
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


def messages_to_next_stages(entries: list[StepEntry]) -> list[NextStageMessage]:
    """One message for each next worker, with all rows that go there in one tensor.

    Items travel on unchanged, so the first item of an attempt brings its route and sampling to every stage.
    """
    by_endpoint: dict[str, list[StepEntry]] = {}
    for entry in entries:
        if entry.request.next_endpoint is not None:
            by_endpoint.setdefault(entry.request.next_endpoint, []).append(entry)
    outgoing = []
    for endpoint, alike in by_endpoint.items():
        hidden = torch.cat([entry.hidden for entry in alike])
        tensor, dtype = to_wire(hidden)
        message = RunMessage([entry.item for entry in alike], dtype, tuple(hidden.shape), tensor)
        outgoing.append(NextStageMessage(alike[0].request.next_worker, endpoint, message))
    return outgoing
