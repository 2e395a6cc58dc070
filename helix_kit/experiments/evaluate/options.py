"""Options of an evaluation as one record, which is passed whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from helix_kit.errors import InputError
from helix_kit.metrics import SLO
from helix_kit.search.options import Mode
from helix_kit.sweeps.load import check_name
from helix_kit.workload.workload import Workload

Workers = Literal["simulated", "emulated", "real"]
MODES = ("offline", "online")
SIMULATED = "simulated"
SOURCES = {"simulated": None, "emulated": "emulated workers", "real": "real workers"}
"""Kind of workers -> source of what they serve in tables; None: nothing but the simulation."""
MINUTES = {"real": 3.0, "emulated": 60.0}
"""Default minutes in which real or emulated workers serve, all runs together."""
FIRST_TIME_SCALE = {"real": 1.0, "emulated": 2.0}


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How methods are evaluated; the fields are keywords of `helix_kit.evaluate`, which describes them.

    Raises
    ------
    InputError
        For an unknown kind of workers, mode or workload, or a number that is not positive.

    Examples
    --------
    >>> EvaluationOptions(workers="emulated").source
    'emulated workers'
    >>> EvaluationOptions(modes=("offline", "batch"))
    Traceback (most recent call last):
    ...
    helix_kit.errors.InputError: modes = 'batch': expected offline or online
    """

    modes: tuple[Mode, ...] = ("offline", "online")
    """How requests come."""
    workers: Workers = "simulated"
    """What serves beside the simulation."""
    workload: str | Workload = "azure-conversation"
    """Requests, or the name of a sampled workload."""
    rate_per_s: float | None = None
    """Requests/s online; None: three quarters of what the plan of the largest flow could serve."""
    warmup_s: float | None = None
    """Seconds before measuring; None: chosen, as `duration_s`."""
    duration_s: float | None = None
    """Seconds that are measured."""
    minutes: float | None = None
    """Minutes in which workers serve, all runs together."""
    time_limit_s: float = 60.0
    """Of each plan."""
    time_scale: float | None = None
    """Factor on the times of paced workers; doubled where this machine is too slow."""
    seed: int = 0
    """Of plans, requests and policies."""
    slo: SLO | None = None
    """Limits of a request, for goodput and attainment of each run."""
    serve: Mapping[str, Any] = field(default_factory=dict)
    """Further keywords of `helix_kit.serve`."""

    def __post_init__(self) -> None:
        if self.workers not in SOURCES:
            raise InputError(f"expected one of {', '.join(SOURCES)}", field="workers", value=self.workers)
        if not self.modes:
            raise InputError("expected offline, online or both", field="modes", value=self.modes)
        for mode in self.modes:
            if mode not in MODES:
                raise InputError("expected offline or online", field="modes", value=mode)
        if isinstance(self.workload, str):
            check_name(self.workload)
        elif not len(self.workload):
            raise InputError("expected at least one request, the workload is empty", field="workload")
        numbers = {
            "rate_per_s": self.rate_per_s, "duration_s": self.duration_s, "minutes": self.minutes,
            "time_limit_s": self.time_limit_s, "time_scale": self.time_scale,
        }  # fmt: skip
        for name, value in numbers.items():
            if value is not None and not 0 < value < float("inf"):
                raise InputError("expected a number above 0", field=name, value=value)
        if self.warmup_s is not None and not 0 <= self.warmup_s < float("inf"):
            raise InputError("expected a number of seconds, 0 or more", field="warmup_s", value=self.warmup_s)

    @property
    def source(self) -> str | None:
        """What tables call the workers; None where only the simulation runs."""
        return SOURCES[self.workers]

    @property
    def first_time_scale(self) -> float:
        """The time scale to begin with."""
        return self.time_scale or FIRST_TIME_SCALE.get(self.workers, 1.0)

    def until_s(self, runs: int) -> float | None:
        """Seconds, on the clock of the served machines, that each of `runs` may take; None: any time."""
        minutes = self.minutes or MINUTES.get(self.workers)
        return None if minutes is None else 60 * minutes / runs / self.first_time_scale


__all__ = ["EvaluationOptions"]
