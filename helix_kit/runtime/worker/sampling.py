"""How the next tokens of a step are chosen: greedily, or at random with a generator keyed by (seed, position).

So a request with the same seed gets the same tokens whatever else is in the batch, whichever pipeline it takes, on any
device, and also after a restart in the middle.

All rows of a step are computed together, where the logits lie. The random numbers are made on the host. They go to the
device in one copy with the rows' parameters, and the chosen tokens come back in one.
"""

from __future__ import annotations

import functools
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

CANDIDATES = 1024
"""Best scores that are looked at first. In most contexts, 1024 tokens have more than 0.98 of the probability."""
MAX_SORTED_SCORES = 1 << 24
"""Scores that are sorted at once: sorting takes about 30 bytes for each of them, so half a gigabyte."""


NO_TOKEN = -1
"""Stands on the host for the token of a row whose scores are not numbers."""
_LOWEST = torch.finfo(torch.float32).min


class SampledRows(NamedTuple):
    """The next token of each row, and its log-probability where the row asks for it."""

    tokens: list[int]
    """`NO_TOKEN` for a row with a score that is not a number."""
    logprobs: list[LogprobFields | None]


@dataclass(frozen=True)
class PendingSample:
    """Tokens that a device is choosing, and their copy to the host, which is under way."""

    tokens: torch.Tensor
    """(rows,), on the device: the next step can start from them before the host knows them."""
    _host: torch.Tensor
    """The tokens, and behind them `packed_logprobs` of the rows that ask for log-probabilities."""
    _params: Sequence[SamplingParams]

    @functools.cached_property
    def on_host(self) -> SampledRows:
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
    return pending.on_host


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
        tokens, is_nan = _best(logits)
        return PendingSample(tokens, start_to_host(_without_nan(tokens, is_nan)), params)
    scores = adjusted_scores(logits, params, positions, counts or [None] * len(params))
    tokens, is_nan = _best(scores)
    drawn = [row for row, param in enumerate(params) if not param.is_greedy]
    rows_at_once = max(1, MAX_SORTED_SCORES // logits.shape[-1])
    for begin in range(0, len(drawn), rows_at_once):
        rows = drawn[begin : begin + rows_at_once]
        index = to_device(torch.tensor(rows), logits.device)
        numbers = _numbers(scores, [params[row] for row in rows], [positions[row] for row in rows])
        tokens.index_copy_(0, index, _draw(scores[index], numbers))
    asked = [row for row, param in enumerate(params) if param.logprobs is not None]
    known = _without_nan(tokens, is_nan)
    if not asked:
        return PendingSample(tokens, start_to_host(known), params)
    index = to_device(torch.tensor(asked), logits.device)
    packed = packed_logprobs(logits[index], tokens[index], max(params[row].logprobs or 0 for row in asked))
    # Token ids and float32 numbers are exact in float64.
    return PendingSample(tokens, start_to_host(torch.cat([known.double(), packed.flatten()])), params)


def _best(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The token with the highest score of each row, the first of equal ones, and whether a score is not a number.

    Such a score counts as the highest one.
    """
    highest, tokens = scores.max(dim=-1)
    return tokens, highest.isnan()


def _without_nan(tokens: torch.Tensor, is_nan: torch.Tensor) -> torch.Tensor:
    return tokens.masked_fill(is_nan, NO_TOKEN)


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


class _Numbers(NamedTuple):
    """The parameters of rows that are drawn, as columns on the device."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    floor: torch.Tensor
    """Logarithm of `min_p`: added to the best score, the lowest that is drawn."""
    draw: torch.Tensor


def _numbers(scores: torch.Tensor, params: Sequence[SamplingParams], positions: Sequence[int]) -> _Numbers:
    vocabulary = scores.shape[-1]
    by_row = [
        (
            param.temperature,
            min(param.top_k or vocabulary, vocabulary),
            param.top_p,
            math.log(param.min_p) if param.min_p else _LOWEST,
            uniform(param.seed, position),
        )
        for param, position in zip(params, positions, strict=True)
    ]
    numbers = to_device(torch.tensor(by_row, dtype=torch.float64), scores.device)
    return _Numbers(*numbers.unsqueeze(-1).unbind(1))


def _draw(scores: torch.Tensor, numbers: _Numbers) -> torch.Tensor:
    """A token for each row, drawn from what `top_k`, `top_p` and `min_p` leave of it.

    A CPU takes far longer to sort a vocabulary than to find its best scores, and nearly every draw falls among these.
    The other rows are sorted whole. The host would have to wait for a GPU to know which they are.
    """
    if scores.device.type != "cpu" or scores.shape[-1] < 4 * CANDIDATES:
        return _draw_from_all(scores, numbers)
    tokens, is_sure = _draw_from_best(scores, numbers, CANDIDATES)
    unsure = torch.nonzero(~is_sure).squeeze(1)
    if len(unsure):
        tokens[unsure] = _draw_from_all(scores[unsure], _Numbers(*(column[unsure] for column in numbers)))
    return tokens


def _draw_from_all(scores: torch.Tensor, numbers: _Numbers) -> torch.Tensor:
    """A token for each row, by sorting the whole vocabulary."""
    # A stable sort: equal scores keep the order of the vocabulary, so that each device has the same order.
    scaled = scores.float() / numbers.temperature.float()
    ordered, tokens = torch.sort(scaled, dim=-1, descending=True, stable=True)
    mass = torch.cumsum(torch.softmax(ordered, dim=-1, dtype=torch.float64), dim=-1)
    # Each of the three leaves the first tokens of this order, at least one; `kept` is how many all of them leave.
    kept = numbers.top_k.long()
    kept = torch.minimum(kept, 1 + torch.searchsorted(mass, numbers.top_p * mass.gather(1, kept - 1)))
    kept = torch.minimum(kept, _above_floor(ordered, numbers.floor)).clamp(min=1)
    place = torch.searchsorted(mass, numbers.draw * mass.gather(1, kept - 1), right=True)
    return tokens.gather(1, torch.minimum(place, kept - 1)).squeeze(1)


def _draw_from_best(scores: torch.Tensor, numbers: _Numbers, candidates: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The token that `_draw_from_all` finds, from the best scores alone, and whether it is sure that it is that one."""
    scaled = scores.float() / numbers.temperature.float()
    best, tokens = torch.topk(scaled, candidates, dim=-1)
    # `topk` leaves open how equal scores are ordered: they get the order of the vocabulary.
    tokens, order = torch.sort(tokens, dim=-1)
    ordered, order = torch.sort(best.gather(1, order), dim=-1, descending=True, stable=True)
    tokens = tokens.gather(1, order)
    highest = ordered[:, :1].double()
    total = torch.exp(scaled.double() - highest).sum(-1, keepdim=True)
    mass = torch.cumsum(torch.exp(ordered.double() - highest) / total, dim=-1)
    # How much probability `top_k` leaves is known if its last token is a candidate, or if it leaves all tokens.
    cuts_later = (numbers.top_k > candidates) & (numbers.top_k < scores.shape[-1])
    leaves_all = numbers.top_k == scores.shape[-1]
    last = numbers.top_k.long().clamp(max=candidates) - 1
    mass_of_top_k = torch.where(leaves_all, 1.0, mass.gather(1, last))
    kept = torch.minimum(numbers.top_k.long(), 1 + torch.searchsorted(mass, numbers.top_p * mass_of_top_k))
    above = _above_floor(ordered, numbers.floor)
    kept = torch.minimum(kept, above + (above == candidates)).clamp(min=1)  # all candidates: perhaps further ones, too
    ends_here = kept <= candidates
    kept_mass = torch.where(ends_here, mass.gather(1, kept.clamp(max=candidates) - 1), 1.0)
    is_known = torch.where(ends_here, ~cuts_later, leaves_all & (numbers.top_p == 1) & (numbers.floor == _LOWEST))
    place = torch.minimum(torch.searchsorted(mass, numbers.draw * kept_mass, right=True), kept - 1)
    within = place.clamp(max=candidates - 1)
    # Scores equal to the last candidate's may belong to tokens that are none.
    is_sure = is_known & (place < candidates) & (ordered.gather(1, within) > ordered[:, -1:])
    return tokens.gather(1, within).squeeze(1), is_sure.squeeze(1)


def _above_floor(ordered: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """How many of the scores `min_p` leaves. Without it, what is banned is left out: it has minus infinity."""
    return (ordered >= torch.clamp(ordered[:, :1] + floor.float(), min=_LOWEST)).sum(-1, True)
