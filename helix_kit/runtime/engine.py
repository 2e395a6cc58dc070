"""The engine: a plan's workers running, and the calls that give them work.

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
from typing import TYPE_CHECKING, Any, overload

from helix_kit import _files
from helix_kit.errors import HelixKitError, InputError
from helix_kit.placement.plan import Plan
from helix_kit.runtime.coordinator.jobs import Completion, Handle, Job
from helix_kit.runtime.coordinator.loop import Coordinator
from helix_kit.runtime.text import TextCodec, TextStream
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.worker.sampling import SamplingParams
from helix_kit.workload.request import Request, RequestRecord

if TYPE_CHECKING:
    from helix_kit.report import Run
    from helix_kit.workload.workload import Workload

Prompt = str | Sequence[int]
FRESH_POLL_S = 0.02
UNDERWAY_S = 0.05
"""A report that came this soon may have been written before it was asked for."""


class EngineError(HelixKitError):
    """The engine could not be started, or has been closed."""


class Engine:
    """A running plan; made by `serve`. Close it, or use it as a context manager."""

    def __init__(
        self,
        plan: Plan,
        checkpoint: Checkpoint,
        coordinator: Coordinator,
        *,
        seed: int = 0,
        policy_name: str = "helix",
        dtype: str = "float32",
        time_scale: float = 1.0,
        emulated: bool = False,
    ) -> None:
        self.plan, self.checkpoint = plan, checkpoint
        self.time_scale, self.emulated = time_scale, emulated
        self.policy_name, self.dtype = policy_name, dtype
        self.codec = TextCodec(checkpoint.folder)
        self._coordinator, self._seed = coordinator, seed
        self._next_id = 0
        self._lock = threading.Lock()
        self._eos = frozenset(_eos_ids(checkpoint))
        # Also when the engine is forgotten without being closed, its processes end.
        self._finalizer = weakref.finalize(self, coordinator.close)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Fail what is unfinished and end all workers; safe to call twice. No process is left behind."""
        self._finalizer()

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return not self._finalizer.alive

    def submit(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        ignore_eos: bool = False,
        queue_timeout_s: float | None = None,
    ) -> Handle:
        """Hand in a prompt (text, or token ids) and return at once.

        Parameters
        ----------
        temperature, top_k, top_p
            0 is greedy; `top_k` 0 and `top_p` 1 leave the distribution whole.
        stop
            Strings that end the answer; they are not part of it.
        seed
            Of the sampling; None: the engine's seed. The same seed gives the same tokens.
        ignore_eos
            Always generate `max_new_tokens`, as replays do.
        queue_timeout_s
            Give up when the request has not been started after this time.

        Raises
        ------
        InputError
            For an empty prompt, a token outside the vocabulary, more tokens than the model's context.
        EngineError
            When the engine is closed.
        """
        ids = self._prompt_ids(prompt)
        if max_new_tokens < 1:
            raise InputError("expected at least 1", field="max_new_tokens", value=max_new_tokens)
        limit = self.max_context_tokens
        if len(ids) + max_new_tokens > limit:
            raise InputError(
                f"the model's context is {limit} tokens, and the prompt has {len(ids)}: expected at most "
                f"{max(0, limit - len(ids))}",
                field="max_new_tokens",
                value=max_new_tokens,
            )
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if not all(stops):
            raise InputError("expected strings that are not empty", field="stop", value=list(stops))
        sampling = SamplingParams(temperature, top_k, top_p, self._seed if seed is None else seed)
        return self._start(
            ids,
            max_new_tokens,
            sampling,
            stop_ids=frozenset() if ignore_eos else self._eos,
            text=TextStream(self.codec, stops),
            queue_timeout_s=queue_timeout_s,
        )

    def _start(
        self,
        ids: list[int],
        max_new_tokens: int,
        sampling: SamplingParams,
        *,
        stop_ids: frozenset[int] = frozenset(),
        text: TextStream | None = None,
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
            Job(
                request=request,
                prompt=ids,
                sampling=sampling,
                stop_ids=stop_ids,
                record=RequestRecord(request),
                handle=handle,
                text=text,
                deadline_s=None if queue_timeout_s is None else now + queue_timeout_s,
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
        """The answer to a prompt, or the answers to a list of prompts (which run together); options as `submit`.

        Raises RequestFailedError when a request was rejected or failed.
        """
        if isinstance(prompt, str) or (len(prompt) > 0 and isinstance(prompt[0], int)):
            return self.submit(prompt, **options).result()
        handles = [self.submit(p, **options) for p in prompt]
        return [handle.result() for handle in handles]

    def chat(self, messages: Sequence[Mapping[str, str]], **options: Any) -> Completion:
        """The assistant's next message, for `messages` of {"role": ..., "content": ...}; options as `submit`."""
        return self.submit(self.chat_ids(messages), **options).result()

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a conversation in the model's chat format."""
        return self.codec.encode(self.codec.render_chat(messages), special=False)

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""
        return int(self.checkpoint.config["vocab_size"])

    @property
    def max_context_tokens(self) -> int:
        """Most tokens of prompt and answer together."""
        return int(self.checkpoint.config.get("max_position_embeddings") or 1 << 20)

    def replay(
        self,
        workload: Workload,
        *,
        seed: int | None = None,
        max_seconds: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Run:
        """Serve a workload's requests at their arrival times and report it like a simulation.

        Prompts are random tokens of each request's length, and exactly its output tokens are generated. After
        `max_seconds` what is unfinished is reported as in flight. `progress` is told (done, all) requests. With a
        `time_scale`, all times are those of the emulated machines; an emulated cluster whose steps were late too
        often raises OverrunError.
        """
        from helix_kit.runtime.replay import replay

        seed = self._seed if seed is None else seed
        return replay(self, workload, seed=seed, max_seconds=max_seconds, progress=progress)

    def status(self, *, fresh: bool = False) -> dict[str, Any]:
        """Workers (state, pid, layers, counters), queue, pages promised, losses.

        A worker's counters are those of its last heartbeat, `report_age_s` ago; before the first they are zeros, and
        `report_age_s` is None. With `fresh`, waits (about a second) until all workers that are up have reported anew.
        """
        asked_s = time.monotonic()
        while True:
            if self.closed:
                raise EngineError("the engine is closed")
            most_s = time.monotonic() - asked_s - UNDERWAY_S
            status = self._coordinator.ask(self._coordinator.status)
            ages_s = [worker["report_age_s"] for worker in status["workers"].values() if worker["state"] == "up"]
            if not fresh or all(age_s is not None and age_s < most_s for age_s in ages_s):
                return status
            time.sleep(FRESH_POLL_S)

    def restart(self, node: str) -> None:
        """Start a new worker for a node whose worker was lost; requests are routed to it when it is up."""
        if node not in self.plan.placement:
            raise InputError(_files.unknown("node", node, self.plan.placement), field="node")
        self._coordinator.ask(lambda: self._coordinator.crew.restart(node))

    def swap(self, plan: Plan, *, timeout_s: float = 300.0) -> None:
        """Put another plan of the same cluster and model in place, without dropping a request.

        Workers whose layers stay the same go on. The others are started beside the old ones; when they are up, the
        new plan takes over, and requests on workers that leave are prefilled again on the new pipelines. A node whose
        layers change holds both ranges for that time.

        Raises InputError for a plan of another cluster or model, SwapError when a new worker does not come up: the old
        plan then goes on.
        """
        if plan.model != self.plan.model or plan.cluster != self.plan.cluster:
            raise InputError("expected a plan of the same cluster and model", field="plan", value=plan.cluster.name)
        self._coordinator.swap(plan, timeout_s)
        self.plan = plan

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        ids = self.codec.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if not ids:
            raise InputError("expected at least one token", field="prompt", value=prompt)
        vocabulary = self.vocab_size
        for token in ids:
            if type(token) is not int or not 0 <= token < vocabulary:
                raise InputError(f"expected token ids from 0 to {vocabulary - 1}", field="prompt", value=token)
        return ids


def _eos_ids(checkpoint: Checkpoint) -> list[int]:
    path = checkpoint.folder / "generation_config.json"
    found = _files.read_json(path).get("eos_token_id") if path.is_file() else None
    if found is None:
        found = checkpoint.config.get("eos_token_id")
    if found is None:
        return []
    return list(found) if isinstance(found, list) else [found]
