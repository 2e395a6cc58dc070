"""How the nodes of a plan become workers: their devices, layers, KV pages, and whatever else a worker is told."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from helix_kit.catalogue import EMULATED_PREFIX
from helix_kit.cluster import COORDINATOR
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.profiles.memory import kv_bytes_per_token
from helix_kit.profiles.roofline import is_estimate
from helix_kit.runtime.connection import Connection
from helix_kit.runtime.device_memory import STEP_SHARE, memory_share
from helix_kit.runtime.devices import DeviceAssignment, ranks_per_worker
from helix_kit.runtime.launch import make_launcher
from helix_kit.runtime.launch.launcher import Launcher
from helix_kit.runtime.node_workers import NodeWorker, divide_node, pages_per_worker
from helix_kit.runtime.options import ServeOptions
from helix_kit.runtime.spec import LinkQuality, WorkerSpec
from helix_kit.runtime.weights.shares import TENSOR_PARALLEL_FAMILIES
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS

log = logging.getLogger(__name__)

STEP_TOKENS = 512
"""Tokens of a worker's step at most, where chunks are short."""


class WorkerFactory:
    """Turns nodes of the served plan, or of a later plan for the same cluster, into specs of workers.

    It is made in the thread that calls `serve`. From then on only the coordinator's thread uses it. The one thing that
    changes is `devices`: nodes of a later plan that the first one does without get theirs when that plan comes.
    """

    def __init__(
        self,
        plan: Plan,
        options: ServeOptions,
        weights: str | Path,
        model_type: str,
        *,
        is_quantised: bool = False,
    ) -> None:
        """`weights` is the checkpoint's folder or id, `model_type` the family of its model. Starts the launcher.

        `is_quantised` says that the files hold weights of few bits, which several GPUs cannot share.
        """
        self._options = options
        self._weights = str(weights)
        self._in_turn: set[str] = set()
        """Nodes that do not divide layers as the plan has chosen; each is warned of once."""
        self._may_divide = (
            model_type in TENSOR_PARALLEL_FAMILIES
            and options.uses_one_machine
            and not is_quantised
            and options.quantize is None
        )
        self.devices = DeviceAssignment(
            "cpu" if options.emulated else options.devices, one_machine=options.uses_one_machine
        )
        used = [device for devices in self.devices.of(plan).values() for device in devices]
        self._threads = options.threads or max(1, _processors() // len(used))
        self.launcher: Launcher = make_launcher(
            options.launcher, plan, "" if options.emulated else model_type, threads=self._threads, on_cpu="cpu" in used
        )
        self.connection = Connection.fresh(options.host or self.launcher.host, encrypt=options.encrypt)

    def divide(self, plan: Plan) -> dict[str, tuple[NodeWorker, ...]]:
        """The workers of each node of the plan."""
        return {
            node: divide_node(node, *span, len(devices) // self._ranks(plan, node))
            for (node, span), devices in zip(plan.placement.items(), self.devices.of(plan).values(), strict=True)
        }

    def _ranks(self, plan: Plan, node: str) -> int:
        """Devices of a node that compute each layer together."""
        devices = self.devices.of(plan)[node]
        ranks = ranks_per_worker(plan, node, len(devices))
        if ranks > 1 and not self._may_divide and plan.cluster.node(node).tensor_parallel is None:
            if node not in self._in_turn:
                log.warning(
                    "node %s: its GPUs take the layers in turn. The plan reckons with tensor parallelism, which is "
                    "served for %s, not quantised, by workers of one machine",
                    *(node, ", ".join(TENSOR_PARALLEL_FAMILIES)),
                )
            self._in_turn.add(node)
            return 1
        return ranks

    def make_spec(
        self, plan: Plan, worker: NodeWorker, generation: int, coordinator: str, heartbeats: str | None = None
    ) -> WorkerSpec:
        """What a worker of the plan is told.

        Parameters
        ----------
        plan
            The plan that the worker is started for.
        worker
            Which worker of which node.
        generation
            Number of this start among all starts of workers.
        coordinator, heartbeats
            Endpoints of the coordinator: for heartbeats (None: the same one), and for all other messages.
        """
        options, connection = self._options, self.connection
        start, end = plan.placement[worker.node]
        node = plan.cluster.node(worker.node)
        profile = plan.profiles[node.kind].of_range(start, end)
        ranks = self._devices_of(plan, worker)
        # With Ray, each worker's "cuda:0" is another GPU.
        on_devices = self._workers_on(plan, ranks) if options.uses_one_machine else [[worker.name]]
        paced = node.gpu.startswith(EMULATED_PREFIX) if options.pace is None else options.pace
        wanted = plan.cluster.memory_share if options.memory_share is None else options.memory_share
        gpu_share = min(1.0, wanted + STEP_SHARE)
        return WorkerSpec(
            name=worker.name,
            generation=generation,
            weights=self._weights,
            start=worker.start,
            end=worker.end,
            num_pages=self._num_pages(plan, worker),
            coordinator=coordinator,
            heartbeats=heartbeats,
            key_hex=connection.key.hex(),
            curve_public=connection.curve.public.decode() if connection.curve else None,
            curve_secret=connection.curve.secret.decode() if connection.curve else None,
            host=connection.host,
            dtype=options.dtype,
            quantize=options.quantize,
            attention=options.attention,
            graphs=options.graphs,
            deterministic=options.deterministic,
            device=ranks[0],
            # An emulated node takes the time of its profile, however many processes compute: one does.
            ranks=() if len(ranks) == 1 or options.emulated else ranks,
            gpu_share=gpu_share,
            memory_share=memory_share(ranks[0], max(map(len, on_devices)), gpu_share),
            # Several processors serve a worker each.
            shares_device_with=() if ranks[0] == "cpu" and _processors() > 1 else _others(worker.name, on_devices),
            workers_in_node=worker.count,
            threads=self._threads,
            stand_in=options.emulated,
            step_tokens=max(STEP_TOKENS, 2 * options.chunk_tokens),
            step_decode_requests=profile.decode_limit(end - start),
            profile=profile if paced or options.emulated else None,
            time_scale=options.time_scale,
            links=emulated_links(plan, worker.node) if options.emulated else None,
            card_bytes_per_s=plan.cluster.network.nic_bytes_per_s,
            bytes_per_token=plan.model.link_bytes_per_token,
        )

    def _workers_on(self, plan: Plan, devices: Sequence[str]) -> list[list[str]]:
        """For each device the workers on it, a name for each of their processes there."""
        used = [
            (device, worker.name)
            for workers in self.divide(plan).values()
            for worker in workers
            for device in self._devices_of(plan, worker)
        ]
        return [[name for other, name in used if other == device] for device in devices]

    def _devices_of(self, plan: Plan, worker: NodeWorker) -> tuple[str, ...]:
        """The devices of a worker: one for each of its ranks."""
        count = self._ranks(plan, worker.node)
        return self.devices.of(plan)[worker.node][worker.index * count : (worker.index + 1) * count]

    def _num_pages(self, plan: Plan, worker: NodeWorker) -> int:
        """KV pages of one worker: what the node's profile says, or less where `kv_pages` says so; at least one."""
        start, end = plan.placement[worker.node]
        profile = plan.profiles[plan.cluster.node(worker.node).kind]
        pages = profile.of_range(start, end).kv_capacity(end - start) // PAGE_TOKENS
        if is_estimate(profile) and not self._options.emulated:
            pages = int(pages * _share_within_windows(plan.model, start, end))
        if worker.count > 1:
            devices = self.devices.of(plan)[worker.node]
            pages_per_layer = plan.model.layer_gb * 1e9 / plan.model.kv_bytes_per_token_layer / PAGE_TOKENS
            pages = pages_per_worker(
                self.divide(plan)[worker.node],
                pages,
                # Workers on CPUs share the machine's memory; only a GPU limits its own worker.
                pages_per_layer=None if "cpu" in devices else pages_per_layer,
                devices=len(devices) // self._ranks(plan, worker.node),
            )[worker.index]
        return max(1, pages if self._options.kv_pages is None else min(pages, self._options.kv_pages))


def _others(worker: str, on_devices: list[list[str]]) -> tuple[str, ...]:
    """The names in `on_devices` other than the worker's own, each once."""
    return tuple(dict.fromkeys(name for names in on_devices for name in names if name != worker))


def _processors() -> int:
    """Processors that this program may use; not every system says so."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _share_within_windows(model: Model, start: int, end: int) -> float:
    """Bytes that an estimate counts for a token in these layers, as a share of those that a page has for it.

    Layers with windows keep a part of a request's tokens. An estimate counts that part for each token, whereas a worker
    has fewer pages, and its requests need fewer.
    """
    counts = model.count_kinds(start, end)
    whole = sum(n * kind.kv_bytes_per_token for n, kind in zip(counts, model.layer_kinds, strict=True))
    return kv_bytes_per_token(model, counts) * (end - start) / whole if whole else 1.0


def emulated_links(plan: Plan, source: str) -> dict[str, LinkQuality]:
    """Bandwidth in bytes/s and latency in s of every link of the plan's cluster that starts at `source`."""
    ends = [node.name for node in plan.cluster.nodes] + [COORDINATOR]
    links = {end: plan.cluster.link(source, end) for end in ends if end != source}
    return {end: LinkQuality(link.bytes_per_s, link.latency_s) for end, link in links.items()}
