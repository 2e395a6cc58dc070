"""The engine: the running workers of a plan, and the calls that give them work.

>>> import helix_kit as hk
>>> plan = hk.plan(hk.Cluster.preset("laptop"), hk.Model.preset("SmolLM2-135M"))     # doctest: +SKIP
>>> with hk.serve(plan) as engine:                                                   # doctest: +SKIP
...     print(engine.generate("The capital of France is", max_new_tokens=12).text)
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

from helix_kit import _files
from helix_kit._summary import Summarised
from helix_kit.errors import InputError
from helix_kit.placement.plan import Plan
from helix_kit.runtime.coordinator.active_request import ActiveRequest
from helix_kit.runtime.coordinator.coordinator import Coordinator
from helix_kit.runtime.errors import ContextLengthError, EngineError
from helix_kit.runtime.generation_options import GenerationOptions
from helix_kit.runtime.handle import Completion, Handle
from helix_kit.runtime.options import ServeOptions
from helix_kit.runtime.prompts import Prompt, is_batch, prompts_of, read_prompt
from helix_kit.runtime.replay import ReplayOptions, check_fit, replay
from helix_kit.runtime.status import EngineStatus
from helix_kit.runtime.text import TextCodec, TextStream
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.worker.sampling_params import SamplingParams
from helix_kit.workload.request import Request, RequestRecord

if TYPE_CHECKING:
    from helix_kit.report import Run
    from helix_kit.workload.workload import Workload

FRESH_POLL_S = 0.02
REPORT_TRAVEL_S = 0.05
"""A report that arrives this soon after it was asked for may have been written before."""


class Engine(Summarised):
    """A running plan; made by `serve`. Close it, or use it as a context manager.

    Its methods may be called from any thread.

    Parameters
    ----------
    plan, checkpoint
        What is served.
    coordinator
        Has been started.
    options
        The options of `serve`.

    Attributes
    ----------
    plan
        The plan that is served; another one after `swap`.
    checkpoint
        The model's folder: config and weights.
    codec
        Tokenizer and chat template.
    policy_name, dtype, time_scale, emulated, prefix_cache
        As given to `serve`.

    Examples
    --------
    >>> with hk.serve(plan) as engine:                                                   # doctest: +SKIP
    ...     print(engine.generate("The capital of France is", max_new_tokens=12).text)
    """

    def __init__(self, plan: Plan, checkpoint: Checkpoint, coordinator: Coordinator, options: ServeOptions) -> None:
        self.plan, self.checkpoint = plan, checkpoint
        self.time_scale, self.emulated = options.time_scale, options.emulated
        self.policy_name, self.dtype = options.policy_name, options.dtype
        self.codec = TextCodec(checkpoint.folder)
        self._coordinator, self._seed = coordinator, options.seed
        self._max_context_tokens = options.context_tokens(checkpoint.context_tokens)
        self._rotary = checkpoint.rotary_lengths
        self.prefix_cache = options.prefix_cache
        self._next_id = 0
        self._lock = threading.Lock()
        """Guards `_next_id`."""
        self._eos_ids = checkpoint.eos_ids
        # Ends the processes also when the engine is garbage-collected without having been closed.
        self._finalizer = weakref.finalize(self, coordinator.close)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _title(self) -> str:
        return f"{self.plan.model.name} on {self.plan.cluster.name}"

    def _facts(self) -> dict[str, str]:
        return {
            "state": "closed" if self.closed else "running",
            "nodes": str(len(self.plan.placement)),
            "policy": self.policy_name,
            "dtype": self.dtype,
        }

    def close(self) -> None:
        """Fail what is unfinished and end all workers; no process is left behind. May be called twice."""
        self._finalizer()

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return not self._finalizer.alive

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

    def reset_prefix_cache(self) -> None:
        """Forget what the prefix caches hold, but for what running requests use, as after a start.

        Raises
        ------
        EngineError
            When the engine is closed.

        Examples
        --------
        >>> engine.reset_prefix_cache()                                                  # doctest: +SKIP
        """
        if self.closed:
            raise EngineError("the engine is closed")
        self._coordinator.call(self._coordinator.requests.reset_prefix_cache)

    def now_s(self) -> float:
        """Seconds on the engine's clock, on which the times of all records are."""
        return self._coordinator.now_s()

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
        if self.closed:
            raise EngineError("the engine is closed")
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
        if self.closed:
            raise EngineError("the engine is closed")
        limit = self.max_context_tokens
        return int(self._coordinator.call(lambda: self._coordinator.requests.max_request_tokens(limit)))

    def replay(
        self,
        workload: Workload,
        *,
        seed: int | None = None,
        mode: Literal["online", "offline"] = "online",
        max_seconds: float | None = None,
        window: tuple[float, float] | None = None,
        max_in_flight: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Run:
        """Serve a workload's requests and report them as a simulation does.

        Prompts are random tokens, as many as each request has, and exactly its output tokens are generated. With a
        `time_scale`, all times are those of the emulated machines.

        Parameters
        ----------
        workload
            The requests.
        seed
            Of the prompts; None: the engine's.
        mode
            ``online``: requests come at their arrival times. ``offline``: they wait from the start, and the workers are
            kept full until the end; a window or `max_seconds` must say when that is.
        max_seconds
            After this time, requests that are unfinished are cancelled and reported as in flight. None: wait for all.
        window
            Start and end in s of what is measured; the replay ends at its end. None: from the start until the last
            request has ended, or for `max_seconds`.
        max_in_flight
            Requests of an offline replay that may be served at once. None: as many as the KV pages hold.
        progress
            Called with (requests done, all requests).

        Returns
        -------
        Run
            As from `helix_kit.simulate`.

        Raises
        ------
        InputError
            For an unknown mode, a window that ends before it begins, an offline replay without an end, or requests with
            more tokens than the model's context.
        OverrunError
            When the steps of an emulated cluster were late too often (`helix_kit.runtime.replay`).
        EngineError
            When the engine is closed.

        Examples
        --------
        >>> run = engine.replay(hk.Workload.azure_conversation(rate=1.0, duration=60))   # doctest: +SKIP
        >>> run.summary()["finished"]                                                    # doctest: +SKIP
        """
        check_fit(workload, self.max_context_tokens)
        seed = self._seed if seed is None else seed
        options = ReplayOptions(
            seed=seed, mode=mode, max_seconds=max_seconds, window=window, max_in_flight=max_in_flight,
            progress=progress,
        )  # fmt: skip
        return replay(self, workload, options)

    def status(self, *, fresh: bool = False) -> EngineStatus:
        """Workers (state, process, layers, counters), queue, promised pages, losses.

        Parameters
        ----------
        fresh
            Wait, about a second, until every worker that is up has reported its counters anew. Otherwise they are
            those of its last heartbeat, `report_age_s` ago; before the first they are zeros, and `report_age_s` is
            None.

        Returns
        -------
        EngineStatus
            Of this moment; it does not change afterwards.

        Raises
        ------
        EngineError
            When the engine is closed.

        Examples
        --------
        >>> {name: worker.state for name, worker in engine.status().workers.items()}     # doctest: +SKIP
        {'a': 'up', 'b': 'up'}
        """
        asked_s = time.monotonic()
        while True:
            if self.closed:
                raise EngineError("the engine is closed")
            max_age_s = time.monotonic() - asked_s - REPORT_TRAVEL_S
            status: EngineStatus = self._coordinator.call(self._coordinator.status)
            ages_s = [worker.report_age_s for worker in status.workers.values() if worker.state == "up"]
            if not fresh or all(age_s is not None and age_s < max_age_s for age_s in ages_s):
                return status
            time.sleep(FRESH_POLL_S)

    def restart(self, node: str) -> None:
        """Start new workers for a node that has lost some; requests are routed to it when they are up.

        Parameters
        ----------
        node
            Its name in the plan. Nothing happens if all its workers are up.

        Raises
        ------
        InputError
            When the plan has no such node.

        Examples
        --------
        >>> engine.restart("L4-0")                                                       # doctest: +SKIP
        """
        if node not in self.plan.placement:
            raise InputError(_files.unknown("node", node, self.plan.placement), field="node")
        self._coordinator.call(lambda: self._coordinator.workers.restart(node))

    def swap(self, plan: Plan, *, timeout_s: float = 300.0) -> None:
        """Put another plan of the same cluster and model in place, without dropping a request.

        Workers whose layers stay the same go on. The others are started beside the old ones. When they are up, the new
        plan is served, and requests whose workers leave are prefilled again on new pipelines. Until then, a node whose
        layers change holds both ranges.

        Parameters
        ----------
        plan
            The new plan.
        timeout_s
            Seconds to wait until it is in place.

        Raises
        ------
        InputError
            When the plan is for another cluster or model.
        SwapError
            When a new worker does not come up; the old plan is then still served.

        Examples
        --------
        >>> engine.swap(hk.plan(cluster, model, time_limit=60))                          # doctest: +SKIP
        """
        if plan.model != self.plan.model or plan.cluster != self.plan.cluster:
            raise InputError("expected a plan of the same cluster and model", field="plan", value=plan.cluster.name)
        self._coordinator.swap(plan, timeout_s)
        self.plan = plan

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt; raises InputError for one that is empty, or that the model cannot read."""
        return read_prompt(prompt, self.codec.encode, self.vocab_size)
