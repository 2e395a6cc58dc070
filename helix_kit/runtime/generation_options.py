"""The options of one request to an engine as one record: the keywords of `Engine.submit`."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

from helix_kit.errors import InputError
from helix_kit.runtime.worker.sampling_params import SamplingParams

MAX_STOP_TOKENS = 1024
PROMISE_TOKENS = 256
"""An answer of unknown length is promised KV pages for this many tokens at a time: a typical answer has as many."""


_INTEGERS = ("max_new_tokens", "top_k", "min_tokens", "seed", "logprobs", "prompt_logprobs", "promise_tokens")
_NUMBERS = (
    "temperature",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "queue_timeout_s",
)


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How an answer is generated, and what is returned with it.

    Raises
    ------
    InputError
        For a value out of its bounds.

    Examples
    --------
    >>> GenerationOptions(temperature=0.7, stop="END").stops
    ('END',)
    >>> GenerationOptions(min_tokens=9, max_new_tokens=8)
    Traceback (most recent call last):
    ...
    helix_kit.errors.InputError: min_tokens = 9: expected at most max_new_tokens = 8
    """

    max_new_tokens: int | None = 64
    """How many tokens to generate at most. None: as many as fit."""
    temperature: float = 0.0
    """0 takes the likeliest token; above, tokens are drawn, and 1 leaves the model's distribution as it is."""
    top_k: int = 0
    """Only the `top_k` likeliest tokens are drawn; 0: all."""
    top_p: float = 1.0
    """Only the fewest likeliest tokens with this probability together are drawn; 1: all."""
    min_p: float = 0.0
    """Only tokens with this share of the likeliest token's probability are drawn; 0: all."""
    presence_penalty: float = 0.0
    """Subtracted from the scores of tokens that the answer already has; -2 to 2."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's score as often as the answer already has it; -2 to 2."""
    repetition_penalty: float = 1.0
    """Divides positive scores of tokens in prompt or answer, and multiplies negative ones; 1: off."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Token -> number that is added to its score; -100 to 100."""
    min_tokens: int = 0
    """The answer ends neither with a stop string nor with an end token before it has this many tokens."""
    stop: str | Sequence[str] = ()
    """Strings that end the answer; they are not part of its text."""
    stop_token_ids: Sequence[int] = ()
    """Tokens that end the answer besides the model's own; they are not part of its text."""
    seed: int | None = None
    """Seed of the draws; None: the engine's. The same seed gives the same tokens."""
    ignore_eos: bool = False
    """Whether to go on after the model's end-of-text token."""
    logprobs: int | None = None
    """How many alternatives to return with each token of the answer, besides its log-probability; None: neither."""
    prompt_logprobs: int | None = None
    """The same for the prompt's tokens, the first one excepted: nothing comes before it."""
    queue_timeout_s: float | None = None
    """Seconds after which the request is rejected if it has not been started; None: it waits without limit."""
    promise_tokens: int | None = None
    """Tokens of the answer for which KV pages are promised at a time. A request that gets no further pages is started
    again later, with the tokens that it has. None: pages for the whole answer are promised at its start, or for
    `PROMISE_TOKENS` at a time where `max_new_tokens` is None."""

    def __post_init__(self) -> None:
        self._make_plain()
        least = 1 if self.prompt_logprobs is None else 0
        if self.max_new_tokens is not None and self.max_new_tokens < least:
            raise InputError(f"expected at least {least}", field="max_new_tokens", value=self.max_new_tokens)
        if not all(self.stops):
            raise InputError("expected strings that are not empty", field="stop", value=list(self.stops))
        if self.max_new_tokens is not None and self.min_tokens > self.max_new_tokens:
            expected = f"expected at most max_new_tokens = {self.max_new_tokens}"
            raise InputError(expected, field="min_tokens", value=self.min_tokens)
        if len(self.stop_token_ids) > MAX_STOP_TOKENS:
            expected = f"expected at most {MAX_STOP_TOKENS} tokens"
            raise InputError(expected, field="stop_token_ids", value=len(self.stop_token_ids))
        if self.promise_tokens is not None and self.promise_tokens < 1:
            raise InputError("expected at least 1", field="promise_tokens", value=self.promise_tokens)
        self.sampling(0, frozenset(), 0)

    def _make_plain(self) -> None:
        """Turn numbers of numpy and torch into Python's: they travel to the workers."""
        for names, convert, expected in (
            (_INTEGERS, operator.index, "expected a whole number"),
            (_NUMBERS, float, "expected a number"),
        ):
            for name in names:
                value = getattr(self, name)
                if value is None:
                    continue
                try:
                    object.__setattr__(self, name, convert(value))
                except (TypeError, ValueError):
                    raise InputError(expected, field=name, value=value) from None
        for name, token_ids in (("logit_bias", self.logit_bias), ("stop_token_ids", self.stop_token_ids)):
            if not all(isinstance(token, Integral) and not isinstance(token, bool) for token in token_ids):
                raise InputError("expected token ids", field=name, value=token_ids)
        object.__setattr__(self, "stop_token_ids", tuple(int(token) for token in self.stop_token_ids))
        biases = {int(token): float(bias) for token, bias in self.logit_bias.items()}
        object.__setattr__(self, "logit_bias", biases)

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple, which may be empty."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def tokens_at_a_time(self) -> int | None:
        """Tokens of the answer for which KV pages are promised at a time; None: for all of them at the start."""
        if self.promise_tokens is None and self.max_new_tokens is None:
            return PROMISE_TOKENS
        return self.promise_tokens

    def check_tokens(self, vocab_size: int) -> None:
        """Raise InputError for a token that is not in the vocabulary."""
        for name, tokens in (("logit_bias", self.logit_bias), ("stop_token_ids", self.stop_token_ids)):
            for token in tokens:
                if not 0 <= token < vocab_size:
                    raise InputError(f"expected token ids from 0 to {vocab_size - 1}", field=name, value=token)

    def sampling(self, seed: int, end_ids: frozenset[int], prompt_tokens: int) -> SamplingParams:
        """What the last stage needs to know of a request whose prompt has `prompt_tokens`.

        `seed` counts where the options have none. `end_ids` are the tokens that end the answer.
        """
        return SamplingParams(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=seed if self.seed is None else self.seed,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias=tuple(self.logit_bias.items()),
            min_tokens=self.min_tokens,
            end_ids=tuple(sorted(end_ids)) if self.min_tokens else (),
            logprobs=self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
            prompt_tokens=prompt_tokens,
        )
