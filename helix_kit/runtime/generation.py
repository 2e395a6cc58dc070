"""Prompts in, answers out: what callers of a model ask of the engine."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

from helix_kit.runtime.coordinator.active_request import ActiveRequest
from helix_kit.runtime.coordinator.coordinator import Coordinator
from helix_kit.runtime.errors import ContextLengthError, EngineError
from helix_kit.runtime.generation_options import GenerationOptions
from helix_kit.runtime.handle import Completion, Handle
from helix_kit.runtime.options import ServeOptions
from helix_kit.runtime.prompts import Prompt, is_batch, prompts_of, read_prompt
from helix_kit.runtime.text import TextCodec, TextStream
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.worker.sampling_params import SamplingParams
from helix_kit.workload.request import Request, RequestRecord


class Generation:
    """The half of `Engine` that answers prompts; the other half runs the workers."""

    def __init__(self, checkpoint: Checkpoint, coordinator: Coordinator, options: ServeOptions) -> None:
        self.checkpoint, self.codec = checkpoint, TextCodec(checkpoint.folder)
        self.prefix_cache = options.prefix_cache
        self._coordinator, self._seed = coordinator, options.seed
        self._max_context_tokens = options.context_tokens(checkpoint.context_tokens)
        self._rotary, self._eos_ids = checkpoint.rotary_lengths, checkpoint.eos_ids
        self._next_id = 0
        self._lock = threading.Lock()
        """Guards `_next_id`."""
        # Ends the processes also when the engine is garbage-collected without having been closed.
        self._finalizer = weakref.finalize(self, coordinator.close)

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return not self._finalizer.alive

    def _check_open(self) -> None:
        if self.closed:
            raise EngineError("the engine is closed")

    def now_s(self) -> float:
        """Seconds on the engine's clock, on which the times of all records are."""
        return self._coordinator.now_s()

    def submit(self, prompt: Prompt, options: GenerationOptions | None = None, **keywords: Any) -> Handle:
        """Hand in a prompt and return at once.

        Parameters
        ----------
        prompt
            Text, or token ids: a list, or an array of numpy or a tensor of torch with one dimension.
        options
            How the answer is generated.
        keywords
            Fields of `GenerationOptions`, in place of `options` or as changes to it: ``max_new_tokens``,
            ``temperature``, ``top_k``, ``top_p``, ``min_p``, ``presence_penalty``, ``frequency_penalty``,
            ``repetition_penalty``, ``logit_bias``, ``min_tokens``, ``stop``, ``stop_token_ids``, ``seed``,
            ``ignore_eos``, ``logprobs``, ``prompt_logprobs``, ``queue_timeout_s``, ``promise_tokens``.

        Returns
        -------
        Handle
            To read the answer from, as it comes or whole.

        Raises
        ------
        InputError
            For an empty prompt, a token outside the vocabulary, or more tokens than the model's context.
        EngineError
            When the engine is closed.

        Examples
        --------
        >>> handle = engine.submit("The capital of France is", max_new_tokens=12)        # doctest: +SKIP
        >>> for piece in handle:                                                         # doctest: +SKIP
        ...     print(piece.text, end="", flush=True)
        """
        options = replace(options or GenerationOptions(), **keywords)
        ids = self.prompt_ids(prompt)
        options.check_tokens(self.vocab_size)
        max_new_tokens = options.max_new_tokens
        if max_new_tokens is None:
            max_new_tokens = max(1, self.max_request_tokens() - len(ids))
        limit = self.max_context_tokens
        if len(ids) + max_new_tokens > limit:
            raise ContextLengthError(limit=limit, prompt_tokens=len(ids), new_tokens=max_new_tokens)
        stop_ids = frozenset(options.stop_token_ids) | (frozenset() if options.ignore_eos else self._eos_ids)
        end_ids = frozenset(token for token in stop_ids if token < self.vocab_size)
        return self._submit(
            ids,
            max_new_tokens,
            options.sampling(self._seed, end_ids, len(ids)),
            stop_ids=stop_ids,
            text=TextStream(self.codec, options.stops, ids, min_tokens=options.min_tokens),
            promise_tokens=options.tokens_at_a_time,
            queue_timeout_s=options.queue_timeout_s,
        )

    def submit_tokens(self, token_ids: list[int], new_tokens: int, *, arrival_s: float) -> Handle:
        """Hand in a prompt that is answered with exactly `new_tokens` greedy tokens and no text, as replays do.

        Parameters
        ----------
        token_ids
            The prompt: at least one token, all below `vocab_size`.
        new_tokens
            How many tokens to generate.
        arrival_s
            When the request counts as having arrived, on the engine's clock (`now_s`).

        Returns
        -------
        Handle
            To wait for the answer with; its pieces have no text.

        Raises
        ------
        EngineError
            When the engine is closed.

        Examples
        --------
        >>> handle = engine.submit_tokens([5, 6, 7], 4, arrival_s=engine.now_s())       # doctest: +SKIP
        >>> len(handle.result().token_ids)                                              # doctest: +SKIP
        4
        """
        return self._submit(token_ids, new_tokens, SamplingParams(), arrival_s=arrival_s)

    def _submit(
        self,
        ids: list[int],
        max_new_tokens: int,
        sampling: SamplingParams,
        *,
        stop_ids: frozenset[int] = frozenset(),
        text: TextStream | None = None,
        promise_tokens: int | None = None,
        queue_timeout_s: float | None = None,
        arrival_s: float | None = None,
    ) -> Handle:
        self._check_open()
        now = self._coordinator.now_s()
        with self._lock:
            number = self._next_id
            self._next_id += 1
        request = Request(number, now if arrival_s is None else arrival_s, len(ids), max_new_tokens)
        handle = Handle(self._coordinator.cancel, text)
        self._coordinator.submit(
            ActiveRequest(
                request=request,
                prompt=ids,
                sampling=sampling,
                stop_ids=stop_ids,
                record=RequestRecord(request),
                handle=handle,
                text=text,
                shares_prefix=self.prefix_cache,
                promise_tokens=promise_tokens,
                deadline_s=None if queue_timeout_s is None else now + queue_timeout_s,
                rotary=self._rotary,
            )
        )
        return handle

    @overload
    def generate(self, prompt: str, **options: Any) -> Completion: ...
    @overload
    def generate(self, prompt: Sequence[int], **options: Any) -> Completion: ...
    @overload
    def generate(self, prompt: Sequence[str], **options: Any) -> list[Completion]: ...
    def generate(self, prompt: Any, **options: Any) -> Completion | list[Completion]:
        """The answer to a prompt, or the answers to a list of prompts, which run together.

        Parameters
        ----------
        prompt
            Text or token ids (as `submit`), or a list of them. An array or tensor of two dimensions is a list of
            prompts.
        options
            As `submit`.

        Returns
        -------
        Completion or list of Completion
            One for each prompt.

        Raises
        ------
        RequestFailedError
            When a request was rejected or failed.
        InputError, EngineError
            As `submit`.

        Examples
        --------
        >>> engine.generate("The capital of France is", max_new_tokens=3).text           # doctest: +SKIP
        ' Paris. The'
        """
        if not is_batch(prompt):
            return self.submit(prompt, **options).result()
        handles = [self.submit(one, **options) for one in prompts_of(prompt)]
        return [handle.result() for handle in handles]

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> Completion:
        """The assistant's next message.

        Parameters
        ----------
        messages
            The conversation so far: ``{"role": "user", "content": "..."}`` and so on.
        tools
            Functions that the model may call, as JSON schemas, for templates that read them. A call is part of the
            answer's text.
        documents
            Texts to answer from, for templates that read them: mappings with ``title`` and ``text``.
        options
            As `submit`.

        Returns
        -------
        Completion
            The message.

        Raises
        ------
        InputError
            When the model has no chat template, or its template refuses the messages.
        RequestFailedError
            When the request was rejected or failed.

        Examples
        --------
        >>> engine.chat([{"role": "user", "content": "Name a prime."}]).text             # doctest: +SKIP
        """
        return self.submit(self.chat_ids(messages, tools=tools, documents=documents), **options).result()

    def chat_ids(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Token ids of a conversation in the model's chat format.

        Parameters
        ----------
        messages, tools, documents
            As `chat`.
        variables
            Further names that the template may read, such as ``enable_thinking``.

        Returns
        -------
        list of int
            The prompt for `submit`.

        Raises
        ------
        InputError
            When the model has no chat template, or its template refuses the messages.

        Examples
        --------
        >>> engine.chat_ids([{"role": "user", "content": "Name a prime."}])              # doctest: +SKIP
        """
        text = self.codec.render_chat(messages, tools=tools, documents=documents, variables=variables)
        return self.codec.encode(text, special=False)

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary: all token ids are below it."""
        return int(self.checkpoint.config["vocab_size"])

    @property
    def max_context_tokens(self) -> int:
        """How many tokens prompt and answer may have together."""
        return self._max_context_tokens

    def max_request_tokens(self) -> int:
        """Tokens that prompt and answer of one request can have: the context, or fewer if KV pages limit it."""
        self._check_open()
        limit = self.max_context_tokens
        return int(self._coordinator.call(lambda: self._coordinator.requests.max_request_tokens(limit)))

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt; raises InputError for one that is empty, or that the model cannot read."""
        return read_prompt(prompt, self.codec.encode, self.vocab_size)
