"""Workers as Ray actors on several machines. Ray starts the processes; the runtime's own sockets carry the data.

Each machine of the Ray cluster declares a custom resource whose name is the kind of the machine's node in the plan:

    ray start --head --resources='{"A100-40G": 1}'
    ray start --address=HEAD:6379 --resources='{"T4": 2}'

A node takes one unit of its kind's resource. It has one actor per GPU, to which Ray gives that GPU; a node of kind
``L4x2`` has two actors, each with half a unit. The weights must be at the same path on every machine. If no Ray cluster
is running, one is started on this machine, with the resources that the plan needs.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from typing import Any

import ray

from helix_kit.errors import InputError
from helix_kit.placement.plan import Plan
from helix_kit.runtime.node_workers import node_of
from helix_kit.runtime.spec import WorkerSpec

STOP_GRACE_S = 2.0


class _Actor:
    """Runs in a process that Ray starts on a machine with the resource."""

    def run(self, spec: dict[str, Any]) -> None:
        """Serve until told to stop. The worker counts as ended when this call returns or raises."""
        import os

        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        from helix_kit.runtime.worker.worker import run_worker

        worker_spec = WorkerSpec.model_validate(spec)
        run_worker(worker_spec.model_copy(update={"host": ray.util.get_node_ip_address()}))


class RayWorker:
    """A worker in an actor."""

    def __init__(self, actor: Any, spec: WorkerSpec) -> None:
        self._actor = actor
        self._running = actor.run.remote(spec.model_dump(mode="json"))
        self._ended = False

    def is_alive(self) -> bool:
        """Whether the actor's `run` has not returned."""
        if not self._ended:
            done, _ = ray.wait([self._running], timeout=0, fetch_local=False)
            self._ended = bool(done)
        return not self._ended

    def is_stopped(self) -> None:
        """Not known: the actor may be on another machine."""
        return

    def kill(self) -> None:
        """End the actor's process."""
        self._ended = True
        with contextlib.suppress(Exception):  # Ray raises when the machine is gone; the worker has ended then, too
            ray.kill(self._actor, no_restart=True)


class RayLauncher:
    """Starts one actor per worker of the plan; `threads` is the number of Torch threads of each."""

    def __init__(self, plan: Plan, *, threads: int = 1) -> None:
        self._threads = threads
        self._kind = {node.name: node.kind for node in plan.cluster.nodes}
        needed = Counter(self._kind[name] for name in plan.placement)
        self._connected_here = not ray.is_initialized()
        if self._connected_here:
            self._connect(needed)
        self._check_resources(needed)
        self.host: str = ray.util.get_node_ip_address()
        self._workers: list[RayWorker] = []

    def _connect(self, needed: Counter[str]) -> None:
        try:
            ray.init(address="auto", log_to_driver=True, logging_level=logging.WARNING)
        except ConnectionError:
            resources = {kind: float(count) for kind, count in needed.items()}
            ray.init(resources=resources, include_dashboard=False, log_to_driver=True, logging_level=logging.WARNING)

    def _check_resources(self, needed: Counter[str]) -> None:
        there = ray.cluster_resources()
        for kind, count in needed.items():
            if there.get(kind, 0) < count:
                self._disconnect()
                raise InputError(
                    f"the plan needs {count}, the Ray cluster has {there.get(kind, 0):g}: start its machines with "
                    f"`ray start ... --resources='{{\"{kind}\": 1}}'`",
                    field=f"Ray resource {kind}",
                )

    def start(self, spec: WorkerSpec) -> RayWorker:
        """Ask Ray for an actor of the node's kind; it is placed when the resource is free."""
        kind = self._kind[node_of(spec.name)]
        remote = ray.remote(_Actor).options(
            # The workers of a node with several GPUs share its one unit; Ray counts in ten-thousandths.
            resources={kind: int(1e4 / spec.workers_in_node) / 1e4},
            num_cpus=0,
            num_gpus=1 if spec.device != "cpu" else 0,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(self._threads)}},
        )
        self._workers.append(RayWorker(remote.remote(), spec))
        return self._workers[-1]

    def close(self) -> None:
        """End all actors; disconnect from Ray if this launcher connected to it."""
        end = time.monotonic() + STOP_GRACE_S
        for worker in self._workers:
            while worker.is_alive() and time.monotonic() < end:
                time.sleep(0.05)
            worker.kill()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connected_here:
            ray.shutdown()
