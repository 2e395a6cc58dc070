"""`serve`: a plan turned into running workers."""

from __future__ import annotations

import os
import secrets
from functools import cache
from pathlib import Path

from helix_kit.catalogue import EMULATED_PREFIX
from helix_kit.cluster import COORDINATOR
from helix_kit.errors import InputError
from helix_kit.placement.plan import Plan
from helix_kit.runtime.coordinator.crew import Timeouts
from helix_kit.runtime.coordinator.loop import Coordinator
from helix_kit.runtime.coordinator.members import Launcher
from helix_kit.runtime.devices import Devices, check_devices, find_gpus, memory_share, place
from helix_kit.runtime.engine import Engine, EngineError
from helix_kit.runtime.launch import make_launcher
from helix_kit.runtime.parts import Part, pages_of_parts, parts_of
from helix_kit.runtime.spec import WorkerSpec, check_attention, check_dtype
from helix_kit.runtime.transport.sockets import CurveKeys
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.weights.demo import DEMO_MODEL, demo_weights
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS
from helix_kit.scheduling import Policy, make_policy

STEP_TOKENS = 512
COMPILE_S = 900.0
"""Time for a worker's start where kernels may have to be compiled."""


def serve(
    plan: Plan,
    weights: str | Path | None = None,
    *,
    launcher: str | Launcher = "process",
    policy: str | Policy = "helix",
    dtype: str = "float32",
    attention: str = "sdpa",
    seed: int = 0,
    devices: str | Devices | None = None,
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
    attention
        ``sdpa``: torch's own, everywhere. ``flashinfer``: its kernels on GPUs (an extra; float16 and bfloat16).
        ``auto``: those where they can be used. FlashInfer compiles its kernels at the first start, which takes minutes.
    devices
        ``plan`` (default): CPU for the CPU-* kinds, else this machine's GPUs of the kinds that the plan names (on a
        machine without GPUs, its CPU). ``any``: its GPUs, whatever they are. ``cpu``. Or node -> torch device,
        several for a node with several GPUs. Workers that share a GPU get equal shares of its memory.
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
    check_dtype(dtype)
    check_attention(attention)
    check_devices(devices)
    if time_scale <= 0:
        raise InputError("expected more than 0", field="time_scale", value=time_scale)
    checkpoint = Checkpoint(_weights_folder(plan, weights))
    if not emulated:
        checkpoint.check_matches(plan.model)
    make_policy(policy, plan, seed=seed)  # an unknown name is refused before anything starts
    pace = True if emulated else pace
    places = Places("cpu" if emulated else devices, one_machine=launcher != "ray")
    card_bytes_per_s = plan.cluster.network.nic_gbps * 1e9 / 8
    used = [device for devices in places.of(plan).values() for device in devices]
    count = threads or max(1, (os.cpu_count() or 1) // len(used))
    starter = make_launcher(launcher, plan, checkpoint.config["model_type"], threads=count, on_cpu="cpu" in used)
    host = host or starter.host
    keys = CurveKeys.generate() if encrypt or host not in {"127.0.0.1", "localhost"} else None

    def divide(current: Plan) -> dict[str, tuple[Part, ...]]:
        devices_of = places.of(current)
        return {node: parts_of(node, *span, len(devices_of[node])) for node, span in current.placement.items()}

    def make_spec(current: Plan, part: Part, generation: int, endpoint: str, key_hex: str) -> WorkerSpec:
        node = part.node
        start, end = current.placement[node]
        profile = current.profiles[current.cluster.node(node).kind]
        pages = profile.kv_capacity(end - start) // PAGE_TOKENS
        devices_of = places.of(current)
        if part.count > 1:
            # Workers on CPUs share the machine's memory: only GPUs have to keep to their own.
            layer_pages = current.model.layer_gb * 1e9 / current.model.kv_bytes_per_token_layer / PAGE_TOKENS
            pages = pages_of_parts(
                divide(current)[node],
                pages,
                pages_per_layer=None if "cpu" in devices_of[node] else layer_pages,
                devices=len(devices_of[node]),
            )[part.index]
        paced = pace if pace is not None else current.cluster.node(node).gpu.startswith(EMULATED_PREFIX)
        return WorkerSpec(
            node=part.worker,
            generation=generation,
            weights=str(checkpoint.folder.resolve()),
            start=part.start,
            end=part.end,
            num_pages=max(1, min(pages, kv_pages or pages)),
            coordinator=endpoint,
            key_hex=key_hex,
            curve_public=keys.public.decode() if keys else None,
            curve_secret=keys.secret.decode() if keys else None,
            host=host,
            dtype=dtype,
            attention=attention,
            device=devices_of[node][part.index],
            # With Ray each worker's "cuda:0" is another GPU.
            memory_share=None if launcher == "ray" else memory_share(devices_of, devices_of[node][part.index]),
            parts=part.count,
            threads=count,
            step_tokens=max(STEP_TOKENS, 2 * chunk_tokens),
            step_decode_requests=profile.decode_limit(end - start),
            profile=profile if paced else None,
            time_scale=time_scale,
            links=_links(current, node) if emulated else None,
            card_bytes_per_s=card_bytes_per_s,
            bytes_per_token=current.model.link_bytes_per_token,
        )

    coordinator = Coordinator(
        plan,
        starter,
        make_spec,
        divide=divide,
        policy=policy,
        seed=seed,
        chunk_tokens=chunk_tokens,
        timeouts=timeouts or (Timeouts() if attention == "sdpa" else Timeouts(start_s=COMPILE_S)),
        host=host,
        keys=keys,
        key=secrets.token_bytes(16),
        restart_workers=restart_workers,
        max_queue=max_queue,
        links=_links(plan, COORDINATOR) if emulated else None,
        time_scale=time_scale,
        card_bytes_per_s=card_bytes_per_s,
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


class Places:
    """The devices of each node, chosen once: a node that a later plan keeps stays where it is."""

    def __init__(self, wanted: str | Devices | None, *, one_machine: bool) -> None:
        self._wanted, self._one_machine = wanted, one_machine
        self._chosen: dict[str, tuple[str, ...]] = {}
        # Listing takes seconds, which the engine does not have when a plan is exchanged.
        self._find = cache(find_gpus)

    def of(self, plan: Plan) -> dict[str, tuple[str, ...]]:
        """Node -> torch devices, for the nodes of `plan`."""
        if not set(plan.placement) <= set(self._chosen):
            wanted = self._wanted
            if self._chosen and wanted is not None and not isinstance(wanted, str):
                # What was said of nodes that a later plan does without is no mistake.
                wanted = {node: devices for node, devices in wanted.items() if node in plan.placement}
            self._chosen |= place(plan, wanted, one_machine=self._one_machine, taken=self._chosen, find=self._find)
        return {node: self._chosen[node] for node in plan.placement}
