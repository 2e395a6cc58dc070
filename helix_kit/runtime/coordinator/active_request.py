"""A request as the coordinator sees it, from its submission to its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from helix_kit.flow import Pipeline
from helix_kit.runtime.handle import Handle
from helix_kit.runtime.logprobs import TokenLogprobs
from helix_kit.runtime.text import TextStream
from helix_kit.runtime.worker.sampling_params import SamplingParams
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
    promise_tokens: int | None = None
    """Tokens of the answer for which KV pages are promised at a time; None: for all of them at the start."""
    deadline_s: float | None = None
    """When it is rejected if it still waits, on the engine's clock."""
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
    promised_tokens: int = field(init=False)
    """Tokens of the context for which pages are promised on `worker_pipeline`, or will be when it starts."""
    decode_until: int = 0
    """Position up to which the workers go on with the tokens that they sample, without being sent them."""

    def __post_init__(self) -> None:
        self.routed = self.request
        self.promised_tokens = self.next_promise
        self.prompt_logprobs = [] if self.sampling.prompt_logprobs is None else [None] * len(self.prompt)

    @property
    def context(self) -> list[int]:
        """Prompt and answer so far: the tokens that a new pipeline must prefill."""
        return self.prompt + self.generated

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
