"""How the next tokens of a step are chosen: greedily, or at random with a generator keyed by (seed, position).

So a request with the same seed gets the same tokens whatever else is in the batch, whichever pipeline it takes, on any
device, and also after a restart in the middle.

All rows of a step are computed together, where the logits lie. The random numbers are made on the host. They go to the
device in one copy with the rows' parameters, and the chosen tokens come back in one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from helix_kit.runtime.transport.messages import LogprobFields
from helix_kit.runtime.worker.logprobs import fields_of, packed_logprobs, packed_width
from helix_kit.runtime.worker.sampling_params import SamplingParams
from helix_kit.runtime.worker.token_counts import TokenCounts
from helix_kit.runtime.worker.transfer import mark, start_to_host, to_device

MAX_SORTED_SCORES = 1 << 24
"""Scores that are sorted at once: sorting takes about 30 bytes for each of them, so half a gigabyte."""


class SampledRows(NamedTuple):
    """The next token of each row, and its log-probability where the row asks for it."""

    tokens: list[int]
    logprobs: list[LogprobFields | None]


@dataclass(frozen=True)
class PendingSample:
    """Tokens that a device is choosing, and their copy to the host, which is under way."""

    tokens: torch.Tensor
    """(rows,), on the device: the next step can start from them before the host knows them."""
    _host: torch.Tensor
    """The tokens, and behind them `packed_logprobs` of the rows that ask for log-probabilities."""
    _params: Sequence[SamplingParams]

    def read(self) -> SampledRows:
        """The tokens on the host. The device must have come so far."""
        fields: list[LogprobFields | None] = [None] * len(self._params)
        asked = [(row, param.logprobs) for row, param in enumerate(self._params) if param.logprobs is not None]
        if asked:
            width = packed_width(max(count for _, count in asked))
            packed = self._host[len(fields) :].view(-1, width).tolist()
            for (row, count), values in zip(asked, packed):
                fields[row] = fields_of(values, count)
        return SampledRows(self._host[: len(fields)].long().tolist(), fields)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on seed and position alone (Philox, a counter-based generator)."""
    return float(np.random.Generator(np.random.Philox(key=np.array([seed, position], dtype=np.uint64))).random())


def sample(
    logits: torch.Tensor,
    params: Sequence[SamplingParams],
    positions: Sequence[int],
    counts: Sequence[TokenCounts | None] | None = None,
) -> SampledRows:
    """The next token of each row; waits for the device. Arguments as in `start_sampling`."""
    pending = start_sampling(logits, params, positions, counts)
    if (event := mark(logits.device)) is not None:
        event.synchronize()
    return pending.read()


def start_sampling(
    logits: torch.Tensor,
    params: Sequence[SamplingParams],
    positions: Sequence[int],
    counts: Sequence[TokenCounts | None] | None = None,
) -> PendingSample:
    """Let the device choose the next token of each row.

    Parameters
    ----------
    logits
        The model's scores (rows, vocabulary), on any device.
    params
        How each row's token is chosen.
    positions
        The places of the new tokens in their requests.
    counts
        The tokens of each row's request so far; rows with penalties need them.
    """
    if all(param.is_plain_greedy for param in params):
        tokens = torch.argmax(logits, dim=-1)
        return PendingSample(tokens, start_to_host(tokens), params)
    scores = adjusted_scores(logits, params, positions, counts or [None] * len(params))
    tokens = torch.argmax(scores, dim=-1)
    drawn = [row for row, param in enumerate(params) if not param.is_greedy]
    rows_at_once = max(1, MAX_SORTED_SCORES // logits.shape[-1])
    for begin in range(0, len(drawn), rows_at_once):
        rows = drawn[begin : begin + rows_at_once]
        index = to_device(torch.tensor(rows), logits.device)
        chosen = _draw(scores[index], [params[row] for row in rows], [positions[row] for row in rows])
        tokens.index_copy_(0, index, chosen)
    asked = [row for row, param in enumerate(params) if param.logprobs is not None]
    if not asked:
        return PendingSample(tokens, start_to_host(tokens), params)
    index = to_device(torch.tensor(asked), logits.device)
    packed = packed_logprobs(logits[index], tokens[index], max(params[row].logprobs or 0 for row in asked))
    # Token ids and float32 numbers are exact in float64.
    return PendingSample(tokens, start_to_host(torch.cat([tokens.double(), packed.flatten()])), params)


def adjusted_scores(
    logits: torch.Tensor,
    params: Sequence[SamplingParams],
    positions: Sequence[int],
    counts: Sequence[TokenCounts | None],
) -> torch.Tensor:
    """The scores after biases, penalties and bans: `logits` itself where no row asks for any, else a float32 copy."""
    added = [(row, token, bias) for row, param in enumerate(params) for token, bias in param.logit_bias]
    banned = [
        (row, token, -math.inf)
        for row, (param, position) in enumerate(zip(params, positions, strict=True))
        if position - param.prompt_tokens < param.min_tokens
        for token in param.end_ids
    ]
    penalised = [(row, counts[row]) for row, param in enumerate(params) if param.has_penalties]
    if not (added or banned or penalised):
        return logits
    scores = logits.to(torch.float32, copy=True)
    if added:
        _add(scores, added)
    if penalised:
        _penalise(scores, params, penalised)
    if banned:
        _add(scores, banned)
    return scores


def _add(scores: torch.Tensor, entries: Sequence[tuple[int, int, float]]) -> None:
    """Add the number of each (row, token, number) to its score; no entry comes twice."""
    where = to_device(torch.tensor([entry[:2] for entry in entries]).T.contiguous(), scores.device)
    values = to_device(torch.tensor([entry[2] for entry in entries], dtype=torch.float32), scores.device)
    rows, tokens = where.unbind()
    scores[rows, tokens] = scores[rows, tokens] + values


def _penalise(
    scores: torch.Tensor, params: Sequence[SamplingParams], rows: Sequence[tuple[int, TokenCounts | None]]
) -> None:
    """Lower the scores of tokens that came before.

    Repetition: CTRL (Keskar et al. 2019, section 4.1), over prompt and answer. Presence and frequency: OpenAI's API,
    over the answer.
    """
    columns: list[np.ndarray] = []
    numbers = []
    for row, known in rows:
        assert known is not None, "rows with penalties come with the tokens of their requests"
        columns.append(np.stack([np.full(len(known.ids), row), known.ids, known.generated]))
        param = params[row]
        number = [param.repetition_penalty, param.presence_penalty, param.frequency_penalty]
        numbers.append(np.repeat([number], len(known.ids), axis=0))
    where = to_device(torch.from_numpy(np.concatenate(columns, axis=1)), scores.device)
    by_entry = to_device(torch.from_numpy(np.concatenate(numbers).T.astype(np.float32)), scores.device)
    index, tokens, generated = where.unbind()
    repetition, presence, frequency = by_entry.unbind()
    before = scores[index, tokens]
    after = torch.where(before > 0, before / repetition, before * repetition)
    scores[index, tokens] = after - presence * (generated > 0) - frequency * generated


def _draw(scores: torch.Tensor, params: Sequence[SamplingParams], positions: Sequence[int]) -> torch.Tensor:
    """A token for each row, drawn from what `top_k`, `top_p` and `min_p` leave of it."""
    vocabulary = scores.shape[-1]
    lowest = torch.finfo(torch.float32).min
    by_row = [
        (
            param.temperature,
            min(param.top_k or vocabulary, vocabulary),
            param.top_p,
            math.log(param.min_p) if param.min_p else lowest,
            uniform(param.seed, position),
        )
        for param, position in zip(params, positions, strict=True)
    ]
    numbers = to_device(torch.tensor(by_row, dtype=torch.float64), scores.device)
    temperature, top_k, top_p, floor, draw = numbers.unsqueeze(-1).unbind(1)
    # A stable sort: equal scores keep the order of the vocabulary, so that each device has the same order.
    ordered, tokens = torch.sort(scores.float() / temperature.float(), dim=-1, descending=True, stable=True)
    mass = torch.cumsum(torch.softmax(ordered, dim=-1, dtype=torch.float64), dim=-1)
    # Each of the three leaves the first tokens of this order, at least one; `kept` is how many all of them leave.
    kept = top_k.long()
    kept = torch.minimum(kept, 1 + torch.searchsorted(mass, top_p * mass.gather(1, kept - 1)))
    # Without min_p, the floor leaves out what is banned: its score is minus infinity.
    kept = torch.minimum(kept, (ordered >= torch.clamp(ordered[:, :1] + floor.float(), min=lowest)).sum(-1, True))
    kept = kept.clamp(min=1)
    place = torch.searchsorted(mass, draw * mass.gather(1, kept - 1), right=True)
    return tokens.gather(1, torch.minimum(place, kept - 1)).squeeze(1)
