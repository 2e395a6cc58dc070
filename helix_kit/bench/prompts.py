"""Prompts of a given number of tokens for a server whose tokenizer is not known.

Texts are made of common words. Two short requests before the measurement tell how many tokens the server counts for how
many words; the records have the server's own counts. Requests that share contents (`Request.prefix`) share their
words, so that a prefix cache works as in the trace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from helix_kit.workload.prefixes import draw_content
from helix_kit.workload.request import Request

_TEXT = (
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but what all "
    "were when we there can an your which their said if do will each about how up out them then she many some so these "
    "would other into has more her two like him see time could no make than first been its who now people"
)
WORDS = tuple(_TEXT.split())
"""Words that are one token each in the usual vocabularies."""
CALIBRATION_WORDS = (16, 144)


@dataclass(frozen=True)
class Prompter:
    """Makes prompts: token ids, or texts by what the server counts a word as.

    >>> Prompter(seed=0).text(Request(0, 0.0, 5, 1)).count(" ")
    4
    """

    seed: int = 0
    tokens_per_word: float = 1.0
    tokens_around: float = 0.0
    """Tokens that the server adds to a prompt, such as a chat template's."""

    def text(self, request: Request) -> str:
        """The request's own text, or words that count as its input tokens."""
        if request.prompt is not None:
            return request.prompt
        wanted = max(1, round((request.input_tokens - self.tokens_around) / self.tokens_per_word))
        return " ".join(WORDS[i] for i in self._draws(request, wanted, len(WORDS)))

    def token_ids(self, request: Request, vocab_size: int) -> list[int]:
        """As many token ids as the request has input tokens; the first three, which are often special, are left out."""
        return [3 + i for i in self._draws(request, request.input_tokens, vocab_size - 3)]

    def _draws(self, request: Request, count: int, below: int) -> list[int]:
        share = 1.0 if count == request.input_tokens else 1 / self.tokens_per_word
        drawn: list[int] = []
        for content, tokens in request.prefix:
            # Equal contents have equally many words, whatever else the prompts have.
            drawn += draw_content(self.seed, content, math.ceil(tokens * share), below)
        if len(drawn) < count:
            rng = np.random.default_rng((self.seed, 0, request.id))
            drawn += [int(i) for i in rng.integers(0, below, count - len(drawn))]
        return drawn[:count]


def calibrated(seed: int, counts: list[int] | None) -> Prompter:
    """A prompter from the tokens that the server counts for each of `CALIBRATION_WORDS`; None: a word is a token."""
    if counts is None:
        return Prompter(seed)
    (few, many), (low, high) = counts, CALIBRATION_WORDS
    per_word = (many - few) / (high - low)
    if per_word <= 0:
        return Prompter(seed)
    return Prompter(seed, per_word, few - per_word * low)
