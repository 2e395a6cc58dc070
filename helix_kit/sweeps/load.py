"""What is simulated at one point of a sweep: options, and the requests at a rate or at a concurrency."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np

from helix_kit import _files
from helix_kit.errors import InputError
from helix_kit.metrics import SLO
from helix_kit.scheduling import PolicyChoice
from helix_kit.workload.named import SAMPLED, SYNTHETIC
from helix_kit.workload.workload import Workload

CLOSED_BACKLOG = 2000
"""Requests that wait at first in a closed loop; twice as many, and again, where they do not last for the run."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How each point of a sweep is simulated; the fields are keywords of `helix_kit.sweep`, which describes them.

    Examples
    --------
    >>> SweepOptions(warmup_s=10, duration_s=60).until_s
    70
    """

    workload: str | Workload = "azure-conversation"
    """A sampled workload by name, or requests, which are repeated and scaled to each rate."""
    slo: SLO | None = None
    """Limits of a request."""
    policy: PolicyChoice = "helix"
    """How pipelines are chosen."""
    execution: Literal["range", "layerwise"] = "range"
    """Our runtime's rules, or the published simulator's."""
    warmup_s: float
    """Simulated seconds before measuring."""
    duration_s: float
    """Simulated seconds that are measured."""

    @property
    def until_s(self) -> float:
        """End of the simulation."""
        return self.warmup_s + self.duration_s


def requests_at(options: SweepOptions, rate_per_s: float, seed: int) -> Workload:
    """Requests that arrive at `rate_per_s` until the end of the simulation; another seed gives other requests.

    Given requests keep their lengths and bursts. They are repeated for as long as needed, and a seed says where in them
    the first round begins.
    """
    if isinstance(options.workload, Workload):
        return _repeated(options.workload, rate_per_s, options.until_s, seed)
    if options.workload == "constant":
        return Workload.constant(rate_per_s, options.until_s)
    make = {**SAMPLED, "poisson": Workload.poisson}[check_name(options.workload)]
    return make(rate_per_s, options.until_s, seed=seed)


def closed_loop_requests(options: SweepOptions, seed: int) -> Iterator[Workload]:
    """Backlogs of growing length, from which a closed loop takes its next request whenever one has finished."""
    for doublings in count():
        number = CLOSED_BACKLOG << doublings
        if isinstance(options.workload, Workload):
            rng = np.random.default_rng(seed)
            chosen = rng.integers(len(options.workload), size=number)
            rows = [(0.0, r.input_tokens, r.output_tokens) for r in (options.workload[int(i)] for i in chosen)]
            yield Workload.of(rows, f"{options.workload.source}, closed loop")
        else:
            name = check_name(options.workload)
            if name == "constant":
                one = Workload.constant(1.0, 1.0)[0]
                yield Workload.of([(0.0, one.input_tokens, one.output_tokens)] * number, "constant, closed loop")
            else:
                like = name if name in SAMPLED else "azure-conversation"
                yield Workload.offline(number, seed=seed, like=like)


def check_name(name: str) -> str:
    """The name of a workload that can be drawn at any rate; InputError for others."""
    if name not in SAMPLED and name not in SYNTHETIC:
        known = [*SAMPLED, *SYNTHETIC]
        raise InputError(_files.unknown("workload", name, known) + ", or a Workload", field="workload")
    return name


def _repeated(workload: Workload, rate_per_s: float, until_s: float, seed: int) -> Workload:
    """The given requests again and again at a mean rate, from a place in them that the seed decides."""
    if len(workload) == 0:
        raise InputError("expected at least one request, the workload is empty", where="sweep", field="workload")
    if workload.rate_per_s == 0:
        arrivals = np.arange(len(workload)) / rate_per_s
    else:
        arrivals = np.array([r.arrival_s for r in workload]) * (workload.rate_per_s / rate_per_s)
        arrivals -= arrivals[0]
    round_s = len(workload) / rate_per_s
    # The first request follows the last one of a round after the mean gap.
    start = seed % len(workload)
    order = np.roll(np.arange(len(workload)), -start)
    offsets = np.mod(arrivals[order] - arrivals[start], round_s)
    rounds = int(np.ceil(until_s / round_s))
    times = (offsets[None, :] + round_s * np.arange(rounds)[:, None]).ravel()
    rows = [
        (float(t), workload[int(i)].input_tokens, workload[int(i)].output_tokens)
        for t, i in zip(times, np.tile(order, rounds), strict=True)
        if t < until_s
    ]
    return Workload.of(rows, f"{workload.source} at {rate_per_s:g}/s", workload.notes)


__all__ = ["SweepOptions"]
