"""The options that objective ``served`` takes beside those of every plan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from helix_kit.errors import InputError
from helix_kit.metrics import SLO
from helix_kit.placement.plan import Plan

Mode = Literal["offline", "online"]
Execution = Literal["layerwise", "range"]
ParetoPick = Literal["throughput", "prompt", "decode", "balanced"]


@dataclass(frozen=True)
class ServedOptions:
    """What the search for a served plan maximises, how it simulates, and when it ends.

    Parameters
    ----------
    mode
        Traffic that plans are judged by: ``offline`` (a backlog; decode tokens/s count) or ``online`` (requests arrive
        over time; latency counts).
    rate_per_s
        Requests/s, for mode ``online`` and objective ``goodput``, which finds the highest rate where none is given.
    execution
        Rules that plans are judged by: ``range`` (as our runtime works) or ``layerwise`` (as published).
    latency_limit_s
        Mean decode latency in s that a plan must keep to, if any of those found does.
    prompt_latency_limit_s
        Mean prompt latency in s that a plan must keep to, if any of those found does.
    pareto_pick
        Plan of the Pareto front that is returned: ``throughput``, ``prompt``, ``decode`` or ``balanced``.
    window_s
        Simulated seconds over which plans are compared, from an empty start. None: with mode ``offline`` and execution
        ``range`` windows are counted in tokens and start with full KV caches; otherwise 600 s, and fewer (down to 200)
        where the plans serve more than 1000 tokens/s, so that about as many tokens are counted.
    max_simulations
        Simulations after which the search ends. With it results do not depend on the speed of the machine; the last
        comparison of the finalists is not counted.
    jobs
        Worker processes that simulate. None: two, or as many as there are cores.
    start
        A plan of the same cluster and model that the search also starts from, such as one of an earlier search.
    slo
        Limits of a request, which make the objective ``goodput``: the requests/s that keep them count.

    Raises
    ------
    InputError
        For a value that is not among those above.

    Examples
    --------
    >>> ServedOptions(mode="online", rate_per_s=2.0).execution
    'range'
    >>> ServedOptions(rate_per_s=2.0)
    Traceback (most recent call last):
    ...
    helix_kit.errors.InputError: rate_per_s = 2.0: expected only with mode online
    """

    mode: Mode = "offline"
    rate_per_s: float | None = None
    execution: Execution = "range"
    latency_limit_s: float | None = None
    prompt_latency_limit_s: float | None = None
    pareto_pick: ParetoPick = "throughput"
    window_s: float | None = None
    max_simulations: int | None = None
    jobs: int | None = None
    start: Plan | None = None
    slo: SLO | None = None

    @property
    def is_steady(self) -> bool:
        """Whether plans are judged by their steady state (`helix_kit.simulator.steady_score`)."""
        return self.mode == "offline" and self.execution == "range" and self.window_s is None

    def __post_init__(self) -> None:
        choices = {
            "mode": (self.mode, get_args(Mode)),
            "execution": (self.execution, get_args(Execution)),
            "pareto_pick": (self.pareto_pick, get_args(ParetoPick)),
        }
        for name, (value, known) in choices.items():
            if value not in known:
                expected = " or ".join(known) if len(known) == 2 else f"one of {', '.join(known)}"
                raise InputError(f"expected {expected}", field=name, value=value)
        if self.slo is not None:
            self._check_goodput()
        elif self.mode == "online" and not (self.rate_per_s and self.rate_per_s > 0):
            expected = "online mode needs the requests/s it is planned for"
            raise InputError(expected, field="rate_per_s", value=self.rate_per_s)
        if self.mode == "offline" and self.rate_per_s is not None:
            raise InputError("expected only with mode online", field="rate_per_s", value=self.rate_per_s)
        seconds = {
            "latency_limit_s": self.latency_limit_s,
            "prompt_latency_limit_s": self.prompt_latency_limit_s,
            "window_s": self.window_s,
        }
        for name, given_s in seconds.items():
            if given_s is not None and not given_s > 0:
                raise InputError("expected a number of seconds above 0", field=name, value=given_s)
        for name, count in {"max_simulations": self.max_simulations, "jobs": self.jobs}.items():
            if count is not None and count < 1:
                raise InputError("expected at least 1", field=name, value=count)

    def _check_goodput(self) -> None:
        """Raise InputError for options that objective ``goodput`` does not take."""
        if self.mode != "online":
            raise InputError("expected mode online with an SLO", field="mode", value=self.mode)
        if self.rate_per_s is not None and not 0 < self.rate_per_s < math.inf:
            raise InputError("expected a positive number of requests/s", field="rate_per_s", value=self.rate_per_s)
        defaults = {"latency_limit_s": None, "prompt_latency_limit_s": None, "pareto_pick": "throughput"}
        for name, default in defaults.items():
            if getattr(self, name) != default:
                expected = "expected only with objective 'served': the SLO has the limits"
                raise InputError(expected, field=name, value=getattr(self, name))
