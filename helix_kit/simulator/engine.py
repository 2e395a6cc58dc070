"""What all rule sets offer to reporting and scoring, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from helix_kit.flow import Pipeline
from helix_kit.placement.plan import Plan
from helix_kit.simulator.layerwise.driver import layerwise_engine
from helix_kit.simulator.log import RunLog
from helix_kit.simulator.options import SimulationOptions
from helix_kit.simulator.ranged.driver import ranged_engine
from helix_kit.simulator.replicas.driver import replicas_engine
from helix_kit.simulator.setup import Setup
from helix_kit.workload.request import Request


class Engine(Protocol):
    """A simulation that can be run and then reported on."""

    setup: Setup
    requests: Sequence[Request]
    clock: np.ndarray
    """Time and counters, shape (1,)."""
    log: RunLog

    @property
    def kv_unit(self) -> str:
        """Unit of KV use: pages or layer-tokens."""
        ...

    @property
    def start_s(self) -> float:
        """When serving starts on the engine's clock."""
        ...

    @property
    def issued(self) -> int:
        """Requests of the workload that have been issued."""
        ...

    @property
    def all_admitted(self) -> bool:
        """Whether every request of the workload was admitted or rejected, so that none waits."""
        ...

    @property
    def ran_dry_s(self) -> float | None:
        """Offline: when no further request waited, in seconds since the start; None while requests wait."""
        ...

    def run(self, duration_s: float, watch: Callable[[float], None], every_s: float) -> None:
        """Simulate `duration_s` seconds, calling `watch(seconds)` every `every_s` of them."""
        ...

    def now_s(self) -> float:
        """Seconds since serving started."""
        ...

    def arrived_s(self, at: int) -> float:
        """From when the latency of a request counts; `at` is its place in the workload."""
        ...

    def generated(self, tokens: int) -> int:
        """Output tokens of a request to which the coordinator has returned `tokens` times."""
        ...

    def pipeline_of(self, at: int) -> Pipeline | None:
        """The pipeline that a request was given last; None where it is not known yet."""
        ...

    def notes(self) -> list[str]:
        """What a reader of the report should know."""
        ...


def make_engine(plan: Plan, workload: Sequence[Request], options: SimulationOptions) -> Engine:
    """An engine that is ready to run, under the rules of `options.execution`.

    Parameters
    ----------
    plan
        The plan; it must carry flow.
    workload
        Requests in order of arrival.
    options
        How they are simulated.

    Returns
    -------
    Engine
        Not yet run: call its `run`.

    Raises
    ------
    InputError
        Links or faults that do not fit the plan, or an unknown policy.

    Examples
    --------
    >>> engine = make_engine(plan, workload, SimulationOptions(duration_s=60.0))    # doctest: +SKIP
    >>> engine.run(60.0, print, 1.0)                                                # doctest: +SKIP
    """
    options = options.with_window(workload)
    if options.engine is not None and options.engine.execution == "replicas":
        return replicas_engine(plan, workload, options)
    if options.execution == "range":
        return ranged_engine(plan, workload, options)
    return layerwise_engine(plan, workload, options)
