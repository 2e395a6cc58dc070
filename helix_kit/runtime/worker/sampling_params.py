"""How the tokens of one request are chosen: the record that travels with the request to its last stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from helix_kit.errors import InputError

GREEDY_BELOW = 1e-5
"""Temperatures below this one take the likeliest token: scores divided by less would overflow."""
MAX_LOGPROBS = 20
"""Most alternatives whose log-probabilities are returned for one token, as in OpenAI's API."""
MAX_BIASES = 1024


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the tokens of a request are chosen, and what is returned with them.

    The scores of the model are changed in this order: `logit_bias`, the penalties, the ban of `end_ids`. Temperature 0
    then takes the highest score. Otherwise the scores are divided by the temperature, `top_k`, `top_p` and `min_p` cut
    the tail off, one after the other, and a token is drawn from the rest.

    Parameters
    ----------
    temperature
        0 takes the most likely token. Higher values, up to 100, flatten the distribution.
    top_k
        Only the `top_k` most likely tokens are drawn; 0: all of them.
    top_p
        Only the fewest most likely tokens whose probabilities add up to `top_p` are drawn; 1: all of them.
    seed
        Of the draws; 0 to 2^63 - 1.
    min_p
        Only tokens with at least `min_p` times the probability of the likeliest one are drawn; 0: all of them.
    presence_penalty
        Subtracted from the score of each token that the answer already has; -2 to 2.
    frequency_penalty
        Subtracted from a token's score as often as the answer already has it; -2 to 2.
    repetition_penalty
        Positive scores of tokens in prompt or answer are divided by it, negative ones multiplied; 1: off.
    logit_bias
        Pairs of a token and a number that is added to its score; -100 to 100, each token once.
    min_tokens
        The answer does not end with a token of `end_ids` before it has this many tokens.
    end_ids
        The tokens that end the answer; the engine fills them in.
    logprobs
        How many alternatives are returned with each token of the answer, besides its log-probability; 0 to 20. None:
        no log-probabilities.
    prompt_logprobs
        The same for the tokens of the prompt.
    prompt_tokens
        Length of the prompt, after which the answer begins; the engine fills it in.

    Raises
    ------
    InputError
        A value is out of these bounds.

    Examples
    --------
    >>> params = SamplingParams(temperature=0.7, top_p=0.9)
    >>> params.is_greedy, params.needs_token_ids
    (False, False)
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    min_tokens: int = 0
    end_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    prompt_tokens: int = 0
    is_plain_greedy: bool = field(init=False, repr=False, compare=False, default=True)
    """Whether the next token is the one with the model's highest score, and nothing is returned with it."""

    def __post_init__(self) -> None:
        biases = [bias for _, bias in self.logit_bias]
        tokens = [token for token, _ in self.logit_bias]
        for name, value, ok, expected in (
            ("temperature", self.temperature, 0 <= self.temperature <= 100, "expected 0 to 100"),
            ("top_k", self.top_k, self.top_k >= 0, "expected 0 (off) or more"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "expected more than 0, at most 1"),
            ("seed", self.seed, 0 <= self.seed < 2**63, "expected 0 <= seed < 2^63"),
            ("min_p", self.min_p, 0 <= self.min_p <= 1, "expected 0 to 1"),
            ("presence_penalty", self.presence_penalty, -2 <= self.presence_penalty <= 2, "expected -2 to 2"),
            ("frequency_penalty", self.frequency_penalty, -2 <= self.frequency_penalty <= 2, "expected -2 to 2"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                0.01 <= self.repetition_penalty <= 100,
                "expected 0.01 to 100",
            ),
            (
                "logit_bias",
                self.logit_bias,
                len(biases) <= MAX_BIASES and all(-100 <= bias <= 100 for bias in biases),
                f"expected numbers from -100 to 100 for at most {MAX_BIASES} tokens",
            ),
            ("logit_bias", self.logit_bias, len(set(tokens)) == len(tokens), "expected each token once"),
            ("min_tokens", self.min_tokens, self.min_tokens >= 0, "expected 0 or more"),
            ("logprobs", self.logprobs, 0 <= (self.logprobs or 0) <= MAX_LOGPROBS, f"expected 0 to {MAX_LOGPROBS}"),
            (
                "prompt_logprobs",
                self.prompt_logprobs,
                0 <= (self.prompt_logprobs or 0) <= MAX_LOGPROBS,
                f"expected 0 to {MAX_LOGPROBS}",
            ),
        ):
            if not ok:
                raise InputError(expected, field=name, value=value)
        is_plain = (
            self.is_greedy
            and self.logprobs is None
            and not (self.has_penalties or self.logit_bias or (self.min_tokens and self.end_ids))
        )
        object.__setattr__(self, "is_plain_greedy", is_plain)

    @property
    def is_greedy(self) -> bool:
        """Whether the token with the highest score is taken, so that nothing is drawn."""
        return self.temperature < GREEDY_BELOW

    @property
    def has_penalties(self) -> bool:
        """Whether scores depend on the tokens before."""
        return self.presence_penalty != 0 or self.frequency_penalty != 0 or self.repetition_penalty != 1

    @property
    def needs_token_ids(self) -> bool:
        """Whether the last stage must know the request's token ids, not only their hidden states."""
        return self.has_penalties or self.prompt_logprobs is not None
