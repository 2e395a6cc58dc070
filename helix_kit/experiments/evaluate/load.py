"""The requests that every method serves, and the window in which they are measured.

A run must be long beside a request's stay. In the first mean stay a cluster that starts empty fills; the warm-up is
half as long again, and two and a half further stays are measured. Workers on this machine have only so many minutes.
Where a run would take longer, all prompts and answers are made shorter by the same factor, and the rate of requests
grows by it, so that the load in tokens/s stays.

Offline, a machine with much memory would hold more requests than get through in the run: with N of them at once a
stay lasts N / X seconds at X requests/s (Little's law). So many are served at once that a stay is a quarter of the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from helix_kit.errors import InputError
from helix_kit.experiments.evaluate.options import EvaluationOptions
from helix_kit.placement.plan import Plan
from helix_kit.simulator import whole_run
from helix_kit.sweeps.load import SweepOptions, closed_loop_requests, requests_at
from helix_kit.workload.named import PAPER_LOAD, backlog_size
from helix_kit.workload.workload import Workload

WARMUP_STAYS, RUN_STAYS = 1.5, 4.0
SHORTEST_S = 20.0
PAPER_WARMUP_S, PAPER_DURATION_S = 60.0, 600.0
"""The window of a simulation, unless a request's stay asks for more."""
PROBE_S, PROBE_REQUESTS, PROBE_STAYS, PROBE_DOUBLINGS = 60.0, 30, 2.0, 8
"""A stay is estimated from at least this many finished requests, over this multiple of their mean stay."""
ROUNDS = 3
"""How often lengths are made shorter: a stay shrinks a little less than they do."""


@dataclass(frozen=True)
class Load:
    """What is served in one mode."""

    requests: Workload
    """In order of arrival."""
    window: tuple[float, float]
    """Start and end in s of what is measured; the run ends at its end."""
    max_in_flight: int | None = None
    """Requests served at once; None: as many as there is room for."""
    notes: tuple[str, ...] = ()
    """What a reader should know."""


def choose_loads(plans: Mapping[str, Plan], runs: int, options: EvaluationOptions) -> dict[str, Load]:
    """Mode -> load, for all of the plans; `runs` real or emulated runs share the minutes.

    Raises InputError for plans that finish no request.
    """
    fastest = max(plans.values(), key=lambda plan: plan.flow_tokens_per_s)
    limit_s = options.until_s(runs) if options.duration_s is None else None
    factor, notes = 1.0, []
    draft = _Draft(fastest, options)
    if options.duration_s is not None:
        warmup_s = options.warmup_s if options.warmup_s is not None else options.duration_s / 3
        window = (warmup_s, warmup_s + options.duration_s)
    else:
        stay_s = draft.stay_s(factor)
        if limit_s is not None:
            for _ in range(ROUNDS):
                if RUN_STAYS * stay_s <= limit_s * 1.02:
                    break
                factor *= limit_s / (RUN_STAYS * stay_s)
                stay_s = draft.stay_s(factor)
            until_s = min(max(RUN_STAYS * stay_s, SHORTEST_S), limit_s)
            warmup_s = until_s * WARMUP_STAYS / RUN_STAYS if options.warmup_s is None else options.warmup_s
            if warmup_s >= until_s:
                raise InputError(f"expected less than the {until_s:.0f} s of a run", field="warmup_s", value=warmup_s)
            window = (warmup_s, until_s)
        else:
            warmup_s = max(PAPER_WARMUP_S, WARMUP_STAYS * stay_s) if options.warmup_s is None else options.warmup_s
            window = (warmup_s, warmup_s + max(PAPER_DURATION_S, (RUN_STAYS - WARMUP_STAYS) * stay_s))
    if factor < 1:
        notes.append(
            f"prompts and answers are {factor:.2g} times as long as those of {draft.source}, so that requests stay a "
            "quarter of the run"
        )
    window = (round(window[0], 3), round(window[1], 3))
    loads: dict[str, Load] = {}
    for mode in options.modes:
        if mode == "online":
            rate = draft.rate_per_s(factor)
            loads[mode] = Load(draft.online(factor, window), window, None, (*notes, f"{rate:.3g} requests/s"))
            continue
        at_once, said = None, []
        if limit_s is not None:
            at_once = max(2, math.ceil(draft.most_per_s(factor) * window[1] / RUN_STAYS))
            said = [f"at most {at_once} requests are served at once, so that their stay is a quarter of the run"]
        loads[mode] = Load(draft.backlog(factor, window[1], plans), window, at_once, (*notes, *said))
    return loads


class _Draft:
    """Requests of any length factor for a plan."""

    def __init__(self, plan: Plan, options: EvaluationOptions) -> None:
        self.plan, self.options = plan, options
        given = options.workload
        self.source = given.source if isinstance(given, Workload) else given
        sample = given if isinstance(given, Workload) else next(closed_loop_requests(self._sweep(1.0), options.seed))
        self._pairs = [(r.input_tokens, r.output_tokens) for r in sample]

    def _sweep(self, until_s: float) -> SweepOptions:
        return SweepOptions(workload=self.options.workload, warmup_s=0.0, duration_s=until_s)

    def _mean_tokens(self, factor: float) -> float:
        return sum(_short(a, factor) + _short(b, factor) for a, b in self._pairs) / len(self._pairs)

    def most_per_s(self, factor: float) -> float:
        """Requests/s that the plan's flow serves at most."""
        return self.plan.flow_tokens_per_s / self._mean_tokens(factor)

    def rate_per_s(self, factor: float) -> float:
        """Requests/s online: those asked for, those of the given requests, or the paper's share of the flow."""
        given = self.options.workload
        own = given.rate_per_s if isinstance(given, Workload) else 0.0
        asked = self.options.rate_per_s or own
        if asked:
            return asked * self._mean_tokens(1.0) / self._mean_tokens(factor)
        return PAPER_LOAD * self.most_per_s(factor)

    def online(self, factor: float, window: tuple[float, float]) -> Workload:
        """Requests that arrive until the end of the window."""
        found = requests_at(self._sweep(window[1]), self.rate_per_s(factor), self.options.seed)
        return _shorter(found, factor)

    def backlog(self, factor: float, until_s: float, plans: Mapping[str, Plan]) -> Workload:
        """Requests that last until then with every plan, all arriving at time 0."""
        tokens = self._mean_tokens(factor)
        wanted = max(backlog_size(plan, until_s, tokens) for plan in plans.values())
        found = next(
            w for w in closed_loop_requests(self._sweep(until_s), self.options.seed) if len(w) >= wanted
        )  # fmt: skip
        return _shorter(found[:wanted], factor)

    def stay_s(self, factor: float) -> float:
        """Mean seconds from arrival to last token, simulated at the online rate."""
        window_s = PROBE_S
        for _ in range(PROBE_DOUBLINGS):
            load = self.online(factor, (0.0, window_s))
            if len(load) >= PROBE_REQUESTS:
                run = whole_run(self.plan, load, warmup_s=window_s / 3, duration_s=window_s, seed=self.options.seed)
                stays = run.measures()["e2el_s"]
                if len(stays) >= PROBE_REQUESTS / 2 and window_s >= PROBE_STAYS * stays.mean():
                    return float(stays.mean())
            window_s *= 2
        raise InputError(
            f"expected a load under which requests finish: a plan of {self.plan.flow_tokens_per_s:.3g} tokens/s "
            f"finishes too few in {window_s / 2:.0f} s",
            where=self.source, field="workload",
        )  # fmt: skip


def _short(tokens: int, factor: float) -> int:
    return max(1, round(tokens * factor))


def _shorter(workload: Workload, factor: float) -> Workload:
    rows = ((r.arrival_s, _short(r.input_tokens, factor), _short(r.output_tokens, factor)) for r in workload)
    return Workload.of(rows, workload.source if factor == 1 else f"{workload.source}, {factor:.3g} times as long")
