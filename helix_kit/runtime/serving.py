"""`serve`: a plan turned into running workers."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from helix_kit import _files
from helix_kit.cluster import COORDINATOR
from helix_kit.errors import InputError
from helix_kit.placement.plan import Plan
from helix_kit.runtime.checkpoint import Checkpoint
from helix_kit.runtime.coordinator import Coordinator
from helix_kit.runtime.crew import Timeouts
from helix_kit.runtime.engine import Engine, EngineError
from helix_kit.runtime.kv_cache import PAGE_TOKENS
from helix_kit.runtime.launch import make_launcher
from helix_kit.runtime.members import Launcher
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.transport import CurveKeys
from helix_kit.runtime.weights import DEMO_MODEL, demo_weights
from helix_kit.scheduling import Policy, make_policy

EMULATED_PREFIX = "CPU-"
"""Kinds of the catalogue that stand for a paced process on this machine."""
STEP_TOKENS = 512
GPU_SHARE = 0.95
"""Of a GPU's memory, for all workers that share it together."""


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
            memory_share=_memory_share(places, node),
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
    several = [n for n in real if plan.cluster.node(n).gpus_per_node > 1]

    def check() -> None:
        # Tensor parallelism within a node is not there: half of such a machine would be idle, unnoticed.
        if several:
            raise InputError(
                f"a worker uses one GPU, and {several[0]} has {plan.cluster.node(several[0]).gpus_per_node}: "
                "expected nodes of one GPU each",
                field="plan",
            )

    if not one_machine:
        check()
        return {node: "cuda:0" if node in real else "cpu" for node in plan.placement} | dict(given or {})
    gpus = _cuda_devices() if real and set(real) - set(given or {}) else 0
    chosen = dict.fromkeys(plan.placement, "cpu")
    if gpus:
        check()
        chosen.update({node: f"cuda:{index % gpus}" for index, node in enumerate(real)})
    return {**chosen, **(given or {})}


def _memory_share(places: Mapping[str, str], node: str) -> float | None:
    """Share of its GPU that a worker may take when several share it; None when it is alone, or on a CPU."""
    sharing = sum(place == places[node] for place in places.values())
    return None if places[node] == "cpu" or sharing == 1 else GPU_SHARE / sharing


def _cuda_devices() -> int:
    """GPUs of this machine, counted in the user's process only when a node is not an emulated one."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
