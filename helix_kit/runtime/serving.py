"""`serve`: a plan turned into running workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from helix_kit.errors import InputError
from helix_kit.hf_hub import id_and_revision
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.runtime.coordinator.coordinator import Coordinator
from helix_kit.runtime.devices import Devices
from helix_kit.runtime.engine import Engine
from helix_kit.runtime.errors import EngineError
from helix_kit.runtime.launch.launcher import Launcher
from helix_kit.runtime.options import ServeOptions, Timeouts
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.weights.demo import DEMO_MODEL, demo_weights
from helix_kit.runtime.weights.shares import check_tensor_parallel
from helix_kit.runtime.worker_factory import WorkerFactory
from helix_kit.scheduling import PolicyChoice, make_policy

PROGRESS_PERIOD_S = 0.5


def serve(
    plan: Plan,
    weights: str | Path | None = None,
    *,
    launcher: str | Launcher = "process",
    policy: PolicyChoice = "helix",
    dtype: str = "float32",
    quantize: str | None = None,
    attention: str = "auto",
    graphs: bool = True,
    deterministic: bool = False,
    seed: int = 0,
    devices: str | Devices | None = None,
    pace: bool | None = None,
    time_scale: float = 1.0,
    chunk_tokens: int = 256,
    threads: int | None = None,
    memory_share: float | None = None,
    kv_pages: int | None = None,
    max_context_tokens: int | None = None,
    prefix_cache: bool = True,
    max_queue: int | None = None,
    restart_workers: bool = False,
    timeouts: Timeouts | None = None,
    encrypt: bool = False,
    host: str | None = None,
    progress: Callable[[str], None] | None = None,
    emulated: bool = False,
) -> Engine:
    """Start a plan's workers and return the engine when all of them are up.

    Parameters
    ----------
    plan
        Which node holds which layers.
    weights
        Local Hugging Face folder (config.json, safetensors, tokenizer.json), or a model's id on a hub, perhaps with
        ``@`` and a revision: each worker then fetches the tensors of its own layers. None: the model on a hub that the
        plan was made for, or for a plan of SmolLM2-135M its weights, which are fetched on first use.
    launcher
        ``process`` (one process for each GPU or CPU node of this machine), ``inproc`` (threads) or ``ray`` (several
        machines).
    policy
        A name, a class or an object, as in `helix_kit.scheduling.make_policy`.
    dtype
        ``float32``, ``bfloat16`` or ``float16``.
    quantize
        ``int4`` or ``int8``: the projections of attention, MLP and experts are rounded to the nearest of these when
        they are loaded, in groups of 128 weights, and kept so. A checkpoint that was quantised with data answers
        better. None: as the plan's model says (`Model.quantized`), else as they are stored.
    attention
        Attention kernels on GPUs. ``triton``: our own, which read keys and values from their pages; with them whole
        steps are captured as CUDA graphs. ``flashinfer``: FlashInfer's (an extra; float16 and bfloat16), which are
        compiled at the first start; that takes minutes. ``varlen``: torch's `varlen_attn` (float16 and bfloat16), where
        this torch's FlashAttention takes pages of 16 tokens. ``sdpa``: torch's own, over copies of the pages; it runs
        everywhere. ``auto``: the first of these that can be used. CPUs always use ``sdpa``.
    graphs
        Whether the steps of a GPU are captured as CUDA graphs when its worker starts. Without them (vLLM's
        ``--enforce-eager``) a start takes a few seconds less, and a step several times as long.
    deterministic
        Whether a request gets the same bits whatever else is served beside it (vLLM's ``VLLM_BATCH_INVARIANT``). GPUs
        only, with ``attention`` ``triton`` or ``varlen``: every run then has 256 rows, and no context is split into
        parts, so that small batches are slower. Refused for mixtures of experts and GPUs that share each layer.
    seed
        Of the policy, and of the sampling of requests that name none.
    devices
        ``plan`` (default): CPU for nodes of the CPU-* kinds, else this machine's GPUs of the kinds that the plan names
        (its CPU if it has no GPU). ``any``: this machine's GPUs of whatever kind. ``cpu``: its CPU. Or node -> torch
        device, several for a node with several GPUs. Workers that share a GPU get equal shares of its memory.
    pace
        Whether each step is padded to the time of the node's profile. None: for the CPU-* kinds, whose speeds are
        emulated.
    time_scale
        Factor on all padded times (2: half speed).
    chunk_tokens
        Prompts are prefilled in chunks of this many tokens.
    threads
        Torch threads of each worker on a CPU. None: the machine's cores, divided among the workers.
    memory_share
        Share of each GPU's memory for weights and KV cache (vLLM's ``gpu_memory_utilization``). None: the
        `memory_share` of the plan's cluster, 0.9 unless the cluster file says otherwise.
    kv_pages
        Limit to the KV pages (16 tokens of one layer each) of a worker. None: as many as the node's profile says, or
        fewer where the device has no memory for them.
    max_context_tokens
        Tokens of prompt and answer together (vLLM's ``max_model_len``). None: as many as the model's positions reach,
        which is also the most: ``max_position_embeddings`` of config.json, lengthened by its ``rope_scaling``.
    prefix_cache
        Whether the KV pages of prompts and answers are kept, so that a request that begins alike is not computed again
        from its first token. Answers are the same; see the guide on prefix caching.
    max_queue
        How many requests may wait; further ones are rejected. None: any number.
    restart_workers
        Whether a new worker is started when one is lost.
    timeouts
        When a worker is given up. None: `Timeouts()`, with more time to start where kernels may have to be compiled.
    encrypt
        Whether the sockets are encrypted (CURVE). They always are when `host` is not loopback.
    host
        Address to listen on. None: loopback; with Ray, this machine's address in the Ray cluster.
    progress
        Called every half second while the workers start, with a line that says how far they are.
    emulated
        The weights are a stand-in, all nodes are paced on CPUs, and links are as slow as the cluster's; see
        `helix_kit.runtime.emulation.emulate`.

    Returns
    -------
    Engine
        Close it, or use it as a context manager.

    Raises
    ------
    InputError
        When an option is unknown, the weights do not belong to the plan's model, their family is not supported, or
        this machine lacks the GPUs that the plan names.
    EngineError
        When a worker does not come up.

    Examples
    --------
    >>> import helix_kit as hk
    >>> plan = hk.plan(hk.Cluster.preset("laptop"), hk.Model.preset("SmolLM2-135M"))     # doctest: +SKIP
    >>> with hk.serve(plan) as engine:                                                   # doctest: +SKIP
    ...     print(engine.generate("The capital of France is", max_new_tokens=12).text)
    """
    options = ServeOptions(
        launcher=launcher,
        policy=policy,
        dtype=dtype,
        quantize=quantize,
        attention=attention,
        graphs=graphs,
        deterministic=deterministic,
        seed=seed,
        devices=devices,
        pace=pace,
        time_scale=time_scale,
        chunk_tokens=chunk_tokens,
        threads=threads,
        memory_share=memory_share,
        kv_pages=kv_pages,
        max_context_tokens=max_context_tokens,
        prefix_cache=prefix_cache,
        max_queue=max_queue,
        restart_workers=restart_workers,
        timeouts=timeouts,
        encrypt=encrypt,
        host=host,
        progress=progress,
        emulated=emulated,
    )
    return start_engine(plan, weights, options)


def start_engine(plan: Plan, weights: str | Path | None, options: ServeOptions) -> Engine:
    """As `serve`, with its options as one record."""
    if not options.emulated:
        options = replace(options, quantize=_rounded_to(plan.model, options.quantize))
    checkpoint = Checkpoint(_weights_folder(plan, weights), options.quantize)
    if not options.emulated:
        checkpoint.check_matches(plan.model)
    checkpoint.check_tensors()
    options.context_tokens(checkpoint.context_tokens)  # refuses more than the model has before any process starts
    _ = checkpoint.rotary_lengths  # the same for rotary embeddings
    if not options.emulated:
        check_ranks(plan, checkpoint, options)
    make_policy(options.policy, plan, seed=options.seed)  # refuses an unknown name before any process starts
    factory = WorkerFactory(
        plan,
        options,
        checkpoint.source,
        checkpoint.config["model_type"],
        is_quantised=checkpoint.low_bit is not None,
    )
    coordinator = Coordinator(plan, factory, options)
    coordinator.start()
    engine = Engine(plan, checkpoint, coordinator, options)
    try:
        is_ready = False
        while not is_ready:
            if options.progress is not None:
                options.progress(coordinator.workers.start_progress)
            is_ready = coordinator.workers.ready.wait(PROGRESS_PERIOD_S)
    except BaseException:  # Ctrl-C while the workers load
        engine.close()
        raise
    if coordinator.workers.failed_start:
        engine.close()
        raise EngineError(f"the engine could not be started: {coordinator.workers.failed_start}")
    return engine


def check_ranks(plan: Plan, checkpoint: Checkpoint, options: ServeOptions) -> None:
    """Raise InputError for nodes whose `tensor_parallel` these weights, or the launcher, do not allow."""
    for name in plan.placement:
        ranks = plan.cluster.node(name).tensor_parallel or 1
        if ranks == 1:
            continue
        where = f"node {name}"
        if options.launcher == "ray":
            expected = "expected 1 with launcher ray, which starts one process a GPU: use launcher process"
            raise InputError(expected, where=where, field="tensor_parallel", value=ranks)
        if options.quantize is not None:
            expected = f"expected 1 with quantize = {options.quantize!r}: rounded weights are not divided"
            raise InputError(expected, where=where, field="tensor_parallel", value=ranks)
        check_tensor_parallel(checkpoint.config, checkpoint.model(), ranks, where)


def _rounded_to(model: Model, quantize: str | None) -> str | None:
    """What weights are rounded to when they are loaded: as asked for, or else as the plan's model says."""
    if model.quantize is not None and quantize not in (None, model.quantize):
        expected = f"expected {model.quantize}, which the plan's model {model.name} is rounded to, or nothing"
        raise InputError(expected, field="quantize", value=quantize)
    return quantize or model.quantize


def _weights_folder(plan: Plan, weights: str | Path | None) -> str | Path:
    if weights is not None:
        return weights
    if id_and_revision(plan.model.stored_name) is not None:
        return plan.model.stored_name
    if plan.model.stored_name != DEMO_MODEL:
        raise InputError(
            f"expected a folder with the weights of {plan.model.stored_name}: only {DEMO_MODEL} comes with the package",
            field="weights",
        )
    return demo_weights()
