"""The engine: a plan's workers running, and the calls that give them work.

>>> import helix_kit as hk
>>> plan = hk.plan(hk.Cluster.preset("laptop"), hk.Model.preset("SmolLM2-135M"))     # doctest: +SKIP
>>> with hk.serve(plan) as engine:                                                   # doctest: +SKIP
...     print(engine.generate("The capital of France is", max_new_tokens=12).text)
"""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from helix_kit import _files
from helix_kit.cluster import COORDINATOR
from helix_kit.errors import HelixKitError, InputError
from helix_kit.placement.plan import Plan
from helix_kit.runtime.checkpoint import Checkpoint
from helix_kit.runtime.coordinator import Coordinator
from helix_kit.runtime.crew import Timeouts
from helix_kit.runtime.jobs import Completion, Handle, Job
from helix_kit.runtime.kv_cache import PAGE_TOKENS
from helix_kit.runtime.launch import make_launcher
from helix_kit.runtime.members import Launcher
from helix_kit.runtime.sampling import SamplingParams
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.text import TextCodec, TextStream
from helix_kit.runtime.transport import CurveKeys
from helix_kit.runtime.weights import DEMO_MODEL, demo_weights
from helix_kit.scheduling import Policy, make_policy
from helix_kit.workload.request import Request, RequestRecord

if TYPE_CHECKING:
    from helix_kit.report import Run
    from helix_kit.workload.workload import Workload

EMULATED_PREFIX = "CPU-"
"""Kinds of the catalogue that stand for a paced process on this machine."""
STEP_TOKENS = 512
Prompt = str | Sequence[int]


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
        handle = Handle(self._coordinator.cancel)
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

    def status(self) -> dict[str, Any]:
        """Workers (state, pid, layers, counters), queue, pages promised, losses."""
        if self.closed:
            raise EngineError("the engine is closed")
        return self._coordinator.ask(self._coordinator.status)

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


def serve(
    plan: Plan,
    weights: str | Path | None = None,
    *,
    launcher: str | Launcher = "process",
    policy: str | Policy = "helix",
    dtype: str = "float32",
    seed: int = 0,
    devices: Mapping[str, str] | None = None,
    pace: bool | None = None,
    time_scale: float = 1.0,
    chunk_tokens: int = 256,
    threads: int | None = None,
    kv_pages: int | None = None,
    max_queue: int | None = None,
    restart_workers: bool = False,
    timeouts: Timeouts | None = None,
    encrypt: bool = False,
    host: str | None = None,
    emulated: bool = False,
) -> Engine:
    """Start a plan's workers and return the engine when all are up.

    Parameters
    ----------
    weights
        Local Hugging Face folder (config.json, *.safetensors, tokenizer.json); None: the demo's weights, which
        are SmolLM2-135M's and are fetched on first use.
    launcher
        ``process`` (one process a node on this machine), ``inproc`` (threads), ``ray`` (several machines).
    policy
        As in `helix_kit.scheduling.make_policy`, or a Policy object.
    dtype
        ``float32``, ``bfloat16`` or ``float16``.
    devices
        Node -> torch device; default: CPU for the CPU-* kinds, else the GPUs of this machine in turn, else CPU.
    pace
        Pad each step to the node's profile; None: for the CPU-* kinds, whose speeds are emulated.
    time_scale
        Stretches all padded times (2: half speed).
    kv_pages
        KV pages (16 tokens of one layer) of each worker at most; None: what the node's profile says.
    max_queue
        Requests that may wait; more are rejected. None: any number.
    restart_workers
        Start a new worker when one is lost.
    encrypt
        CURVE on all sockets; always on when `host` is not loopback.
    host
        Address to listen on; None: loopback, or with Ray this machine's address in the Ray cluster.
    emulated
        The weights are a stand-in, all nodes are paced on CPUs and links are shaped; see `emulation.emulate`.

    Raises
    ------
    InputError
        When the weights do not belong to the plan's model, or their family is not supported.
    EngineError
        When a worker does not come up.
    """
    checkpoint = Checkpoint(_weights_folder(plan, weights))
    if not emulated:
        checkpoint.check_matches(plan.model)
    if time_scale <= 0:
        raise InputError("expected more than 0", field="time_scale", value=time_scale)
    make_policy(policy, plan, seed=seed)  # an unknown name is refused before anything starts
    count = threads or max(1, (os.cpu_count() or 1) // len(plan.placement))
    pace = True if emulated else pace
    places = (
        dict.fromkeys(plan.placement, "cpu") if emulated else _devices(plan, devices, one_machine=launcher != "ray")
    )
    starter = make_launcher(launcher, plan, checkpoint.config["model_type"], threads=count)
    host = host or starter.host
    keys = CurveKeys.generate() if encrypt or host not in {"127.0.0.1", "localhost"} else None

    def make_spec(current: Plan, node: str, generation: int, endpoint: str, key_hex: str) -> WorkerSpec:
        start, end = current.placement[node]
        profile = current.profiles[current.cluster.node(node).kind]
        pages = profile.kv_capacity(end - start) // PAGE_TOKENS
        paced = pace if pace is not None else current.cluster.node(node).gpu.startswith(EMULATED_PREFIX)
        return WorkerSpec(
            node=node,
            generation=generation,
            weights=str(checkpoint.folder.resolve()),
            start=start,
            end=end,
            num_pages=max(1, min(pages, kv_pages or pages)),
            coordinator=endpoint,
            key_hex=key_hex,
            curve_public=keys.public.decode() if keys else None,
            curve_secret=keys.secret.decode() if keys else None,
            host=host,
            dtype=dtype,
            device=places[node],
            threads=count,
            step_tokens=max(STEP_TOKENS, 2 * chunk_tokens),
            step_decode_requests=profile.decode_limit(end - start),
            profile=profile if paced else None,
            time_scale=time_scale,
            links=_links(current, node) if emulated else None,
            bytes_per_token=current.model.link_bytes_per_token,
        )

    coordinator = Coordinator(
        plan,
        starter,
        make_spec,
        policy=policy,
        seed=seed,
        chunk_tokens=chunk_tokens,
        timeouts=timeouts,
        host=host,
        keys=keys,
        key=secrets.token_bytes(16),
        restart_workers=restart_workers,
        max_queue=max_queue,
        links=_links(plan, COORDINATOR) if emulated else None,
        time_scale=time_scale,
        token_bytes=plan.model.token_bytes,
    )
    coordinator.start()
    name = policy if isinstance(policy, str) else policy.name
    engine = Engine(
        plan,
        checkpoint,
        coordinator,
        seed=seed,
        policy_name=name,
        dtype=dtype,
        time_scale=time_scale,
        emulated=emulated,
    )
    try:
        coordinator.crew.ready.wait()
    except BaseException:  # Ctrl-C while the workers load
        engine.close()
        raise
    if coordinator.crew.failed_start:
        engine.close()
        raise EngineError(f"the engine could not be started: {coordinator.crew.failed_start}")
    return engine


def _links(plan: Plan, source: str) -> dict[str, tuple[float, float]]:
    """Bandwidth in bytes/s and latency in s of every link that starts at `source`."""
    ends = [node.name for node in plan.cluster.nodes] + [COORDINATOR]
    links = {end: plan.cluster.link(source, end) for end in ends if end != source}
    return {end: (link.bytes_per_s, link.latency_s) for end, link in links.items()}


def _weights_folder(plan: Plan, weights: str | Path | None) -> Path:
    if weights is not None:
        return Path(weights)
    if plan.model.name != DEMO_MODEL:
        raise InputError(
            f"expected a folder with the weights of {plan.model.name}: only {DEMO_MODEL} comes with the package",
            field="weights",
        )
    return demo_weights()


def _devices(plan: Plan, given: Mapping[str, str] | None, *, one_machine: bool) -> dict[str, str]:
    """Device of each node: given, else CPU for emulated kinds, else this machine's GPUs in turn.

    On several machines each worker sees only the GPU that it was given, as its first.
    """
    for node in given or {}:
        if node not in plan.placement:
            raise InputError(_files.unknown("node", node, plan.placement), field="devices")
    real = [n for n in plan.placement if not plan.cluster.node(n).gpu.startswith(EMULATED_PREFIX)]
    if not one_machine:
        return {node: "cuda:0" if node in real else "cpu" for node in plan.placement} | dict(given or {})
    gpus = _cuda_devices() if real and set(real) - set(given or {}) else 0
    chosen = dict.fromkeys(plan.placement, "cpu")
    if gpus:
        chosen.update({node: f"cuda:{index % gpus}" for index, node in enumerate(real)})
    return {**chosen, **(given or {})}


def _cuda_devices() -> int:
    """GPUs of this machine, counted in the user's process only when a node is not an emulated one."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _eos_ids(checkpoint: Checkpoint) -> list[int]:
    path = checkpoint.folder / "generation_config.json"
    found = _files.read_json(path).get("eos_token_id") if path.is_file() else None
    if found is None:
        found = checkpoint.config.get("eos_token_id")
    if found is None:
        return []
    return list(found) if isinstance(found, list) else [found]
