"""A request as the coordinator sees it, from its submission to its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from helix_kit.flow import Pipeline
from helix_kit.runtime.coordinator.block_numbers import block_hashes
from helix_kit.runtime.handle import Handle
from helix_kit.runtime.logprobs import TokenLogprobs
from helix_kit.runtime.text import TextStream
from helix_kit.runtime.transport.messages import BlockRun
from helix_kit.runtime.weights.rotary_lengths import RotaryLengths
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS
from helix_kit.runtime.worker.sampling_params import SamplingParams
from helix_kit.scheduling.windowed_blocks import Keep
from helix_kit.workload.request import Request, RequestRecord


@dataclass(slots=True, eq=False)
class ActiveRequest:
    """A request that waits for a pipeline or runs on one."""

    request: Request
    prompt: list[int]
    """Token ids."""
    sampling: SamplingParams
    stop_ids: frozenset[int]
    """Tokens that end the answer; empty when exactly `request.output_tokens` are to be generated."""
    record: RequestRecord
    handle: Handle
    text: TextStream | None = None
    """The handle's; None: no text is made (replays)."""
    may_end_by_text: bool = field(init=False)
    """Whether there are stop strings, for which the coordinator has to make the text itself."""
    shares_prefix: bool = False
    """Whether it may begin with what the prefix caches hold, and leaves its own blocks there."""
    promise_tokens: int | None = None
    """Tokens of the answer for which KV pages are promised at a time; None: for all of them at the start."""
    deadline_s: float | None = None
    """When it is rejected if it still waits, on the engine's clock."""
    rotary: RotaryLengths | None = None
    """How the model's rotary frequencies depend on the length of a sequence; None: they do not."""
    epoch: int = 0
    """How often it has been started again; messages of earlier epochs are ignored."""
    losses: int = 0
    """How many workers were lost while it ran on them."""
    pipeline: Pipeline | None = None
    """The nodes that compute it; None while it waits."""
    worker_pipeline: Pipeline = ()
    """The workers that carry `pipeline` out: more stages than nodes where a node has several GPUs."""
    generated: list[int] = field(default_factory=list)
    """Token ids of the answer so far."""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    """Those of `generated`; empty where the request does not ask for them."""
    prompt_logprobs: list[TokenLogprobs | None] = field(init=False)
    """Those of `prompt`, as far as they have come; empty where the request does not ask for them."""

    routed: Request = field(init=False)
    """The request as the policy sees it: with the tokens that pages are promised for, until they are promised for
    more."""
    _hashes: list[bytes] = field(init=False)
    """Of the full blocks of the prompt, and of the answer as far as they were asked for."""
    promised_tokens: int = field(init=False)
    """Tokens of the context for which pages are promised on `worker_pipeline`, or will be when it starts."""
    shared: dict[str, list[BlockRun]] = field(default_factory=dict)
    """Worker -> blocks there with which it begins."""
    keeps: dict[str, Keep] = field(default_factory=dict)
    """Worker -> blocks of its own whose pages in layers with windows stay there for others."""
    cached_tokens: int = 0
    """Tokens of the context in these blocks; its first rows come after them."""
    has_token: bool = False
    """Whether a token has come since it was started, so that its prompt has been computed."""
    rotary_tokens: int = 0
    """Tokens of its sequence that rotary frequencies are for in this attempt, at least; 0: they do not depend on it."""
    end_of_attempt: int | None = field(init=False)
    """Position of the first token for which it has to start again; None if there is none."""
    decode_until: int = 0
    """Position up to which the workers go on with the tokens that they sample, without being sent them."""

    def __post_init__(self) -> None:
        self.may_end_by_text = self.text is not None and self.text.has_stops
        self.routed = self.request
        self.promised_tokens = self.next_promise
        self._hashes = []
        self.prepare_attempt()
        self.hashes(len(self.prompt))  # here, so that it is not the coordinator's thread that computes them
        self.prompt_logprobs = [] if self.sampling.prompt_logprobs is None else [None] * len(self.prompt)

    @property
    def context(self) -> list[int]:
        """Prompt and answer so far: the tokens that a new pipeline must prefill."""
        return self.prompt + self.generated

    def prepare_attempt(self) -> None:
        """Choose what depends on the length with which the next attempt begins."""
        before = self._root
        if self.rotary is not None:
            self.rotary_tokens = self.rotary.attempt_tokens(len(self.prompt), len(self.prompt) + len(self.generated))
        self.end_of_attempt = None if self.rotary is None else self.rotary.end_of_attempt(self.rotary_tokens)
        if self._root != before:
            self._hashes = []

    @property
    def _root(self) -> bytes:
        """Stands before its first block: equal tokens with another root have other keys."""
        return b"" if self.rotary is None else self.rotary.root(self.rotary_tokens)

    def hashes(self, tokens: int) -> list[bytes]:
        """Hashes of the full blocks of the first `tokens` tokens of the context; none where no prefix is shared."""
        if not self.shares_prefix:
            return []
        known = len(self._hashes)
        if known < tokens // PAGE_TOKENS:
            more = self.context[known * PAGE_TOKENS : tokens]
            self._hashes += block_hashes(more, self._hashes[-1] if known else self._root)
        return self._hashes[: tokens // PAGE_TOKENS]

    @property
    def wanted_hashes(self) -> list[bytes]:
        """Hashes of the blocks with which it may begin: its last token is computed, as its output is needed.

        Log-probabilities of the prompt need the outputs of all of its tokens.
        """
        if self.sampling.prompt_logprobs is not None and not self.generated:
            return []
        return self.hashes(len(self.prompt) + len(self.generated) - 1)

    @property
    def keepable_blocks(self) -> int:
        """Full blocks of its context that others can use once they have been computed."""
        return len(self.context) // PAGE_TOKENS if self.shares_prefix else 0

    @property
    def max_context_tokens(self) -> int:
        """Tokens of prompt and whole answer."""
        return self.request.input_tokens + self.request.output_tokens

    @property
    def next_promise(self) -> int:
        """Tokens of the context for which the request needs pages to start, or to go on."""
        if self.promise_tokens is None:
            return self.max_context_tokens
        return min(self.max_context_tokens, len(self.prompt) + len(self.generated) + self.promise_tokens)
