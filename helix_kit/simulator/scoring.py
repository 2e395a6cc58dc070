"""Mean throughput and latencies of a plan in the simulator, for planners that ask often.

>>> from helix_kit.simulator import score
>>> score(plan).decode_tokens_per_s                             # doctest: +SKIP
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from itertools import count
from typing import Literal

import numpy as np

from helix_kit._deprecation import renamed_keywords
from helix_kit._summary import Summarised, number
from helix_kit.errors import InputError
from helix_kit.flow import Edge, Flow, Placement
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.scheduling import PolicyChoice
from helix_kit.simulator.engine import Engine, make_engine
from helix_kit.simulator.options import SimulationOptions
from helix_kit.typical_request import TRACE_OUTPUT_TOKENS
from helix_kit.workload.lengths import LengthPairs
from helix_kit.workload.request import Request
from helix_kit.workload.workload import Workload

BACKLOG = 4000
"""Requests that wait at first; twice as many, and again, where they do not last for the run."""
CHECKS = ("quarter_tokens_per_s", "half_tokens_per_s")


@dataclass(frozen=True, repr=False)
class Score(Summarised):
    """What `score` measured; all zero where the plan carries no flow.

    Examples
    --------
    >>> Score().to_dict()["window_s"]
    0.0
    """

    decode_tokens_per_s: float = 0.0
    """Tokens/s after a request's first, within the window."""
    prompt_latency_s: float = 0.0
    """Mean seconds from a request's arrival to its first token."""
    decode_latency_s: float = 0.0
    """Mean seconds from a token of a request to its next."""
    prompts: float = 0.0
    """First tokens within the window."""
    decode_steps: float = 0.0
    """Further tokens within the window."""
    window_s: float = 0.0
    """Seconds over which the means are taken: `duration_s`, or less where the run was stopped early."""
    quarter_tokens_per_s: float = 0.0
    """All tokens/s until about a quarter of the window, in the later half of that time."""
    half_tokens_per_s: float = 0.0
    """All tokens/s until about half of the window, in the later half of that time."""

    half_width_tokens_per_s: float = 0.0
    """Half width of a 95 % interval of the tokens/s; 0 where none was estimated."""
    share_of_window: float = 1.0
    """Less than 1 where the run ended early."""
    goodput_per_s: float = 0.0
    """Requests/s that kept an SLO; 0 where none was given, as the next three."""
    attainment: float = 0.0
    """Share of the decided requests that kept it."""
    slo_rate_per_s: float = 0.0
    """The highest rate at which it held, where one was searched for."""
    goodput_value: float = 0.0
    """What plans are ranked by under an SLO, see `helix_kit.search.goodput`."""

    def _title(self) -> str:
        return ""

    def _facts(self) -> dict[str, str]:
        return {
            "decodes": f"{number(self.decode_tokens_per_s)} tokens/s",
            "prompt latency": f"{number(self.prompt_latency_s)} s",
            "decode latency": f"{number(self.decode_latency_s)} s",
            "window": f"{number(self.window_s)} s",
        }

    def to_dict(self) -> dict[str, float]:
        """The fields by name, for JSON."""
        return asdict(self)

    def keys(self) -> Iterable[str]:
        """Names of the fields: with `score[name]` the old form of a score, a dict, still works for a release."""
        return [f.name for f in fields(self)]

    def __getitem__(self, name: str) -> float:
        warnings.warn(f"a score is a record now: read score.{name}", DeprecationWarning, stacklevel=2)
        return self.to_dict()[name]


@renamed_keywords(duration="duration_s", warmup="warmup_s")
def score(
    plan: Plan | tuple[Problem, Placement, Flow | None],
    workload: Sequence[Request] | None = None,
    *,
    execution: Literal["range", "layerwise"] = "range",
    mode: Literal["online", "offline"] = "offline",
    policy: PolicyChoice = "helix",
    duration_s: float = 300.0,
    warmup_s: float = 60.0,
    seed: int = 0,
    links: Iterable[Edge] | None = None,
    kv_capacity: Mapping[str, int] | None = None,
    at_least: tuple[float, float] | None = None,
    lengths: LengthPairs = (),
) -> Score:
    """Simulate a plan only for its mean throughput and latencies: no records, samples or report.

    Parameters
    ----------
    plan
        A plan, or (problem, placement, flow); flow None for the maximum flow.
    workload
        Requests; None (offline only): a backlog that does not end, with lengths as in the conversation trace. An
        offline workload must last for the run.
    execution, mode, policy, links, kv_capacity
        As in `helix_kit.simulate`.
    duration_s, warmup_s
        Seconds that are measured, and seconds before.
    seed
        Seed of the policy, and of the backlog's lengths.
    at_least
        All tokens/s after a quarter and after half of the window, each counted over the later half of that time, since
        a run begins with prompts. A run below the first or second number ends there.
    lengths
        Pairs (input tokens, output tokens): each request of the backlog has one of them. Empty: the conversation
        trace's.

    Returns
    -------
    Score
        Means over the `window_s` seconds that the run lasted; all zero where the plan carries no flow.

    Raises
    ------
    InputError
        Online mode without a workload, or an offline workload that runs dry within the run.

    Examples
    --------
    >>> score(plan, duration_s=60.0).decode_tokens_per_s            # doctest: +SKIP
    """
    if not isinstance(plan, Plan):
        problem, placement, flow = plan
        plan = Plan.from_placement(problem, dict(placement), method="score", flow=flow)
    if plan.flow_tokens_per_s <= 0:
        return Score()
    if workload is None and mode == "online":
        raise InputError("online mode needs a workload, which says when requests arrive", field="workload", value=None)
    options = SimulationOptions(
        mode=mode, policy=policy, execution=execution, duration_s=duration_s, warmup_s=warmup_s, seed=seed,
        links=links, kv_capacity=kv_capacity, engine=plan.engine if execution == "range" else None,
    )  # fmt: skip
    # No plan has served more tokens than its flow; many serve an eighth.
    output_tokens = sum(o for _, o in lengths) / len(lengths) if lengths else TRACE_OUTPUT_TOKENS
    likely = plan.flow_tokens_per_s / 8 * (warmup_s + duration_s) / output_tokens
    least = max(0, math.ceil(math.log2(likely / BACKLOG)))
    for backlog in (BACKLOG << i for i in count(least)):
        requests = workload if workload is not None else _backlog(seed, backlog, lengths)
        engine = make_engine(plan, requests, options)
        monitor = _Monitor(engine, warmup_s, duration_s, at_least)
        # Called every eighth of the window, so that windows of every length are checked at the same shares.
        with suppress(_BehindError):
            engine.run(warmup_s + duration_s, monitor, duration_s / 8)
        # A backlog that ran dry is made twice as long, unless all of its requests are rejected.
        if workload is not None or not engine.all_admitted or len(engine.log.rejected) == backlog:
            break
    if workload is not None and engine.ran_dry_s is not None:
        raise InputError(
            f"expected requests that last for the {warmup_s + monitor.window_s:g} s of the run; they ran dry at "
            f"{engine.ran_dry_s:.0f} s",
            where="score", field="workload", value=f"{len(workload)} requests",
        )  # fmt: skip
    return measured(engine, warmup_s, monitor.window_s, share_of_window=monitor.window_s / duration_s, **monitor.rates)


def measured(engine: Engine, from_s: float, duration_s: float, **more: float) -> Score:
    """The score of an engine's run over `duration_s` seconds from `from_s` on; `more` are other fields of it."""
    tokens = int(engine.clock[0]["tokens"])
    request, time = engine.log.arrays.token_request[:tokens], engine.log.arrays.token_time[:tokens] - engine.start_s
    order = np.argsort(request, kind="stable")
    request, time = request[order], time[order]
    first = np.ones(tokens, dtype=bool)
    first[1:] = request[1:] != request[:-1]
    before = np.concatenate([[0.0], time[:-1]])[:tokens]
    before[first] = [engine.arrived_s(at) for at in request[first]]
    within = (time >= from_s) & (time <= from_s + duration_s)
    prompt, decode = (time - before)[within & first], (time - before)[within & ~first]
    return Score(
        decode_tokens_per_s=len(decode) / duration_s,
        prompt_latency_s=float(prompt.mean()) if len(prompt) else 0.0,
        decode_latency_s=float(decode.mean()) if len(decode) else 0.0,
        prompts=float(len(prompt)),
        decode_steps=float(len(decode)),
        window_s=duration_s,
        **more,
    )


class _BehindError(Exception):
    """A run serves too little to go on."""


class _Monitor:
    """Stops a running engine that serves too little after a quarter or half of its window."""

    def __init__(
        self, engine: Engine, warmup_s: float, duration_s: float, at_least: tuple[float, float] | None
    ) -> None:
        self._engine, self._warmup_s = engine, warmup_s
        self._marks = [
            (duration_s * share, name, least)
            for share, name, least in zip((0.25, 0.5), CHECKS, at_least or (0.0, 0.0), strict=True)
        ]
        self.window_s = duration_s
        self.rates = dict.fromkeys(CHECKS, 0.0)

    def __call__(self, now_s: float) -> None:
        elapsed = now_s - self._warmup_s
        while self._marks and elapsed >= self._marks[0][0]:
            _, name, least = self._marks.pop(0)
            times = self._engine.log.arrays.token_time[: self._engine.clock[0]["tokens"]]
            before = np.searchsorted(times, self._engine.start_s + now_s - elapsed / 2)
            self.rates[name] = float(len(times) - before) / (elapsed / 2)
            if self.rates[name] < least:
                self.window_s = elapsed
                raise _BehindError


@lru_cache(maxsize=4)
def _backlog(seed: int, requests: int, lengths: LengthPairs) -> Workload:
    return Workload.offline(requests, seed=seed, like=lengths or "azure-conversation")
