"""Log-probabilities of a token as a caller gets them."""

from __future__ import annotations

from typing import NamedTuple


class TokenLogprobs(NamedTuple):
    """How likely a token was, and what was likelier or nearly as likely.

    The numbers are the model's: the natural logarithm of the softmax of its scores, before temperature, penalties and
    cuts.

    Examples
    --------
    >>> TokenLogprobs(token_id=7, logprob=-0.25, rank=1, top=((7, -0.25), (9, -1.5))).top[1]
    (9, -1.5)
    """

    token_id: int
    """The token of the answer or of the prompt."""
    logprob: float
    """Its log-probability."""
    rank: int
    """1 for the likeliest token, 2 for the next one."""
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens and their log-probabilities, as many as were asked for."""
