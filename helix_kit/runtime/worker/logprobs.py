"""Log-probabilities of tokens: of those that a step samples, and of those that a prompt already has.

They are those of the model: the logarithm of the softmax of its scores, before temperature, penalties and cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from helix_kit.runtime.transport.messages import LogprobFields
from helix_kit.runtime.worker.transfer import to_device, to_host

ROWS_AT_ONCE = 64
"""Rows of a prompt whose scores are computed at once: 64 rows of 150,000 scores take 40 MB."""


def packed_width(top: int) -> int:
    """Numbers in a row of `packed_logprobs`."""
    return 2 + 2 * top


def packed_logprobs(logits: torch.Tensor, tokens: torch.Tensor, top: int) -> torch.Tensor:
    """For each row of `logits` and its token, in float64: log-probability, rank, and `top` tokens and their values.

    The rank is 1 for the likeliest token. Token ids and float32 numbers are exact in float64.
    """
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    own = logprobs.gather(1, tokens.unsqueeze(1))
    rank = 1 + (logprobs > own).sum(-1, keepdim=True)
    best, ids = torch.topk(logprobs, min(top, logprobs.shape[-1]), dim=-1)
    if best.shape[-1] < top:
        missing = top - best.shape[-1]
        best = torch.nn.functional.pad(best, (0, missing))
        ids = torch.nn.functional.pad(ids, (0, missing), value=-1)
    return torch.cat([own.double(), rank.double(), ids.double(), best.double()], dim=-1)


def fields_of(packed: Sequence[float], count: int) -> LogprobFields:
    """A row of `packed_logprobs`, with the first `count` of its alternatives."""
    alternatives = (len(packed) - 2) // 2
    ids, values = packed[2 : 2 + alternatives], packed[2 + alternatives :]
    top = [(int(token), value) for token, value in zip(ids[:count], values[:count]) if token >= 0]
    return LogprobFields(packed[0], int(packed[1]), top)


def logprobs_of_known(
    score: Callable[[torch.Tensor], torch.Tensor],
    hidden: Sequence[torch.Tensor],
    targets: Sequence[Sequence[int]],
    top: Sequence[int],
) -> list[list[LogprobFields]]:
    """Log-probabilities of tokens that are known already.

    Parameters
    ----------
    score
        The model's scores (rows, vocabulary) of hidden states (rows, hidden size).
    hidden
        For each request its rows, on one device.
    targets
        For each request the token that follows each of the rows.
    top
        How many alternatives each request asks for.

    Returns
    -------
    For each request one record for each row.
    """
    packed = []
    for rows, tokens in zip(hidden, targets, strict=True):
        following = to_device(torch.tensor(tokens), rows.device)
        for chunk, chosen in zip(rows.split(ROWS_AT_ONCE), following.split(ROWS_AT_ONCE)):
            packed.append(packed_logprobs(score(chunk), chosen, max(top)))
    found = iter(to_host(torch.cat(packed)).tolist())
    return [[fields_of(next(found), count) for _ in tokens] for tokens, count in zip(targets, top, strict=True)]
