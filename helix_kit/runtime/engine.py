"""The engine: the running workers of a plan, and the calls that give them work.

>>> import helix_kit as hk
>>> plan = hk.plan(hk.Cluster.preset("laptop"), hk.Model.preset("SmolLM2-135M"))     # doctest: +SKIP
>>> with hk.serve(plan) as engine:                                                   # doctest: +SKIP
...     print(engine.generate("The capital of France is", max_new_tokens=12).text)
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from helix_kit import _files
from helix_kit._summary import Summarised
from helix_kit.errors import InputError
from helix_kit.placement.plan import Plan
from helix_kit.runtime.coordinator.coordinator import Coordinator
from helix_kit.runtime.generation import Generation
from helix_kit.runtime.options import ServeOptions
from helix_kit.runtime.replay import ReplayOptions, check_fit, replay
from helix_kit.runtime.status import EngineStatus
from helix_kit.runtime.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from helix_kit.report import Run
    from helix_kit.workload.workload import Workload

FRESH_POLL_S = 0.02
REPORT_TRAVEL_S = 0.05
"""A report that arrives this soon after it was asked for may have been written before."""


class Engine(Generation, Summarised):
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
        super().__init__(checkpoint, coordinator, options)
        self.plan = plan
        self.time_scale, self.emulated = options.time_scale, options.emulated
        self.policy_name, self.dtype = options.policy_name, options.dtype

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

    def reset_prefix_cache(self) -> None:
        """Forget what the prefix caches hold, except what running requests use, as after a start.

        Raises
        ------
        EngineError
            When the engine is closed.

        Examples
        --------
        >>> engine.reset_prefix_cache()                                                  # doctest: +SKIP
        """
        self._check_open()
        self._coordinator.call(self._coordinator.requests.reset_prefix_cache)

    def limit_running(self, count: int | None) -> None:
        """Let at most `count` requests run at once; the others wait. None: as many as the KV pages hold.

        Raises
        ------
        EngineError
            When the engine is closed.

        Examples
        --------
        >>> engine.limit_running(16)                                                     # doctest: +SKIP
        """
        self._check_open()
        self._coordinator.call(functools.partial(setattr, self._coordinator.requests, "max_running", count))

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
        stop: threading.Event | None = None,
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
            Requests of an offline replay that may run at once. None: as many as the KV pages hold.
        progress
            Called with (requests done, all requests).
        stop
            Once it is set, the replay ends as after `max_seconds`.

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
            progress=progress, stop=stop.is_set if stop is not None else None,
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
            self._check_open()
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
