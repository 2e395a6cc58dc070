"""Typical lengths of a request, in tokens: every number of the package that stands for "a usual request".

The numbers come from different sources and are used for different purposes, so they differ. A change of any of them
changes results: throughput tables, plans, schedules, predictions or the text of `explain`.
"""

from __future__ import annotations

from dataclasses import dataclass

TRACE_INPUT_TOKENS = 763
"""Mean prompt of Azure's conversation trace of 2023, over the requests that the paper keeps (at most 2048 in)."""
TRACE_OUTPUT_TOKENS = 232
"""Mean answer in the same trace, over the same requests (at most 1024 out)."""
TRACE_TOKENS = 995.5
"""Mean prompt and answer together in the same trace, not rounded: 763 + 232 = 995 loses half a token.

An online load in tokens/s is divided by it to give requests/s."""
KV_TOKENS = TRACE_INPUT_TOKENS + TRACE_OUTPUT_TOKENS
"""Context of a finished request of the trace, in whole tokens: how many requests fit in a KV cache is counted by it."""

PUBLISHED_INPUT_TOKENS = 750
"""Prompt that the published estimate of T(k) assumes (Helix artifact, the model manager's helper)."""
PUBLISHED_OUTPUT_TOKENS = 240
"""Answer that the same estimate assumes; the published scheduler expects this many too (section 5.2 of the paper).

Both are the published program's own round numbers, kept so that T(k) and schedules equal the published ones."""

ROUND_CONTEXT_TOKENS = 1000
"""Context of a request as a round number, in three places: the published batch limits count this many tokens a decode
(Helix artifact), the roofline estimate gives each request of a batch this much to read, and the simulator divides KV
caches by it where a baseline that cannot refuse requests needs a fixed number in flight."""

MAX_REQUEST_TOKENS = 10**9
"""Longer prompts or answers are taken for faults."""

PREDICTOR_PROMPTS = (91, 250, 420, 620, 800, 1020, 1310, 1530)
"""Prompts over which the predictor averages prefill times (mean 755 tokens).

One prompt of the mean length would not do, since prefill times are not proportional to the length. The predictor's
constants were fitted with these."""


@dataclass(frozen=True)
class MeanLengths:
    """Mean lengths of the requests that a plan is for.

    Raises
    ------
    ValueError
        A length is below 1 or above 10^9.

    Examples
    --------
    >>> MeanLengths(1000.0, 20.0).tokens
    1020.0
    """

    input_tokens: float
    """Tokens of a prompt."""
    output_tokens: float
    """Tokens of an answer."""
    source: str = "given"
    """Where the numbers come from, for the reader of a plan."""

    def __post_init__(self) -> None:
        for name in ("input_tokens", "output_tokens"):
            value = getattr(self, name)
            if not 1 <= value <= MAX_REQUEST_TOKENS:
                raise ValueError(f"{name} = {value}: expected a number from 1 to {MAX_REQUEST_TOKENS:,}")
            object.__setattr__(self, name, float(value))

    @property
    def tokens(self) -> float:
        """Prompt and answer together."""
        return self.input_tokens + self.output_tokens

    @property
    def passes_per_token(self) -> float:
        """Passes through the model for each token counted.

        Prompt and answer are counted, and all of them but the last token of the answer are fed into the model. It is
        the share of a request's tokens that cross a link.
        """
        return (self.tokens - 1) / self.tokens

    def __str__(self) -> str:
        def text(tokens: float) -> str:
            return f"{tokens:,.1f}" if tokens < 1000 and tokens % 1 else f"{tokens:,.0f}"

        return f"{text(self.input_tokens)} tokens in and {text(self.output_tokens)} out ({self.source})"


PUBLISHED_LENGTHS = MeanLengths(PUBLISHED_INPUT_TOKENS, PUBLISHED_OUTPUT_TOKENS, "the published estimate")
"""What clusters with ``throughput: published`` are planned for unless a workload is given."""
TRACE_LENGTHS = MeanLengths(TRACE_INPUT_TOKENS, TRACE_OUTPUT_TOKENS, "azure-conversation")
"""What all other clusters are planned for unless a workload is given."""
