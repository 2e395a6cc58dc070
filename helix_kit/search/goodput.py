"""What a plan serves under an SLO, for objective ``goodput``: at one rate, or the highest rate at which the SLO holds.

A candidate is simulated as `helix_kit.simulate` does it, and its requests' records say which requests kept the limits.
A rate holds when the SLO's share of the requests kept them and the number of requests in the system did not grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from helix_kit.flow import Flow, Placement
from helix_kit.metrics import SLO, Goodput, RequestTimes
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.report import Run
from helix_kit.search.candidate import Candidate, Trial
from helix_kit.search.predictor import Lengths, Prediction, Predictor
from helix_kit.simulator.api import whole_run
from helix_kit.simulator.scoring import Score
from helix_kit.sweeps.regime import backlog_of, regime_of
from helix_kit.workload import Workload
from helix_kit.workload.lengths import LengthPairs

WARMUP_STAYS, MEASURED_STAYS, FEWEST_STAYS = 1.5, 4.0, 2.0
"""Warm-up, window, and shortest window, in mean stays of a request that just keeps the SLO."""
MIN_REQUESTS, ENOUGH_REQUESTS = 300, 1000
"""Requests of a window at least, and requests from which a window need not last for more than `FEWEST_STAYS`."""
LEAST_BUSY = 0.5
"""Requests in the system on average, below which no lower rate is tried: the plan is all but idle there."""
MOST_STAYS = 100.0
"""The longest window, in mean stays of a request."""
KNOWN_STEP, FIRST_STEP, MOST_STEP = 1.08, 2.0, 4.0
"""Factors from the first rate to the next: where a rate like it is known, and where it is a guess. Each further factor
is the square of the last one, up to the third number."""
PRECISION = 0.02
"""Relative precision of the highest rate."""
MAX_RATES = 40
"""Rates that are tried for a candidate at most."""
FLOOR_SHARE = 0.97
"""A plan is simulated further when the SLO holds at this share of the fourth best rate."""
NEARNESS_WEIGHT = 0.02
"""Weight of how far requests stay below their limits: it orders plans that keep equally many."""
PENALTY_POWER, SLACK = 4, 1.15
"""A plan whose predicted mean latency is above SLACK * limit counts less: by this power of SLACK * limit / latency."""
RATE_SHARES = tuple(np.linspace(0.1, 1.0, 10))
"""Shares of the predicted capacity at which the highest rate is looked for."""


@dataclass(frozen=True)
class RateResult:
    """What was measured at one rate, over all request streams together."""

    score: Score
    holds: bool
    """Whether the SLO holds."""


def goodput_score(problem: Problem, candidate: Candidate, trial: Trial, lengths: LengthPairs = ()) -> Score:
    """The score of a candidate under the trial's SLO: at the trial's rate, or at the highest rate that holds.

    Where a trial has a floor and the SLO does not hold there, the run counts as one that ended early.
    """
    plan = Plan.from_placement(problem, dict(candidate.placement), method="score", flow=candidate.flow)
    if trial.rate_per_s is not None:
        return measure(plan, trial.rate_per_s, trial, lengths).score
    return _score_at_highest_rate(lambda rate: measure(plan, rate, trial, lengths), trial)


def measure(plan: Plan, rate_per_s: float, trial: Trial, lengths: LengthPairs) -> RateResult:
    """Simulate a plan at a rate, once for each request stream."""
    assert trial.slo is not None
    runs = []
    duration_s = window_s(rate_per_s, trial)
    for seed in range(trial.seed, trial.seed + trial.streams):
        requests = Workload.azure_conversation(
            rate_per_s=rate_per_s, duration_s=trial.warmup_s + duration_s, seed=seed, like=lengths or None
        )
        if len(requests) == 0:
            requests = Workload.constant(rate_per_s, trial.warmup_s + duration_s)
        run = whole_run(
            plan, requests, execution=trial.execution, warmup_s=trial.warmup_s, duration_s=duration_s, seed=seed
        )
        runs.append(run)
    return pooled(runs, rate_per_s, trial.slo)


def window_s(rate_per_s: float, trial: Trial) -> float:
    """Seconds that are measured: the trial's at its own rate, and long enough for `MIN_REQUESTS` at others."""
    if trial.rate_per_s is not None:
        return trial.duration_s
    stay_s = trial.duration_s / MEASURED_STAYS
    return _enough_s(rate_per_s, stay_s, most_s=MOST_STAYS * stay_s)


def _enough_s(rate_per_s: float, stay_s: float, *, most_s: float = math.inf) -> float:
    """Seconds with `MIN_REQUESTS`, but no more than `most_s` for them, and with some mean stays of a request."""
    stays_s = max(min(MEASURED_STAYS * stay_s, ENOUGH_REQUESTS / rate_per_s), FEWEST_STAYS * stay_s)
    return max(min(MIN_REQUESTS / rate_per_s, most_s), stays_s)


def pooled(runs: Sequence[Run], rate_per_s: float, slo: SLO) -> RateResult:
    """The result of all runs at one rate."""
    goods = [run.goodput(slo) for run in runs]
    kept, decided = sum(g.kept for g in goods), sum(g.decided for g in goods)
    length_s = sum(run.window_s for run in runs)
    prompt, decode = (np.concatenate([run.latencies(phase) for run in runs]) for phase in ("prompt", "decode"))
    attainment = kept / decided if decided else 0.0
    goodput_per_s = kept / length_s
    grows = regime_of([backlog_of(run.times, run.window) for run in runs]) == "overloaded"
    near = float(np.mean([nearness(run, good, slo) for run, good in zip(runs, goods, strict=True)]))
    score = Score(
        decode_tokens_per_s=len(decode) / length_s,
        prompt_latency_s=float(prompt.mean()) if len(prompt) else 0.0,
        decode_latency_s=float(decode.mean()) if len(decode) else 0.0,
        prompts=float(len(prompt)),
        decode_steps=float(len(decode)),
        window_s=length_s / len(runs),
        goodput_per_s=goodput_per_s,
        attainment=attainment,
        goodput_value=goodput_per_s + NEARNESS_WEIGHT * rate_per_s * near,
    )
    return RateResult(score, attainment >= slo.at and not grows)


def nearness(run: Run, good: Goodput, slo: SLO) -> float:
    """How far the requests of a run stay below their limits: 0 (far above) to 1 (far below), and 0.5 at a limit."""
    times: RequestTimes = run.times
    ended = times.finished & (times.ended_s >= run.window[0]) & (times.ended_s <= run.window[1])
    if not ended.any() or not good.decided:
        return 0.0
    ratio = np.zeros(int(ended.sum()))
    for name, limit_s in slo.limits.items():
        values = np.nan_to_num(getattr(times, f"{name}_s")[ended])  # an answer of one token has no TPOT
        ratio = np.maximum(ratio, values / limit_s)
    return float((1 / (1 + ratio)).mean() * min(1.0, ended.sum() / good.decided))


def _score_at_highest_rate(measure_at: Callable[[float], RateResult], trial: Trial) -> Score:
    """The score at the highest rate that holds: up from the floor or the guess, then halving what is left."""
    assert trial.slo is not None
    rate, step = trial.guess_rate_per_s, FIRST_STEP
    if trial.floor_rate_per_s > 0 or trial.is_rate_known:
        rate, step = trial.floor_rate_per_s or rate, KNOWN_STEP
    least = min(rate, LEAST_BUSY * MEASURED_STAYS / trial.duration_s)
    best: Score | None = None
    low, high, missed = 0.0, math.inf, 0.0
    for _ in range(MAX_RATES):
        result = measure_at(rate)
        if result.holds:
            low, best = rate, result.score
        else:
            high, missed = rate, result.score.attainment
            if trial.floor_rate_per_s > 0 and best is None:
                value = FLOOR_SHARE * rate * missed
                return replace(result.score, slo_rate_per_s=0.0, goodput_value=value, share_of_window=0.5)
        if high <= low * (1 + PRECISION) or high <= least:
            break
        rate = low * step if high == math.inf else math.sqrt(low * high) if low else max(least, high / step)
        step = min(step * step, MOST_STEP)
    if best is None:
        # The SLO holds nowhere: plans are ordered by how many requests keep it at the lowest rate.
        return replace(result.score, slo_rate_per_s=0.0, goodput_value=0.5 * least * result.score.goodput_value / high)
    # Between the two rates the share that keeps the SLO is taken to fall in a line.
    reach = low
    if high < math.inf and missed < trial.slo.at:
        reach += (high - low) * (best.attainment - trial.slo.at) / max(best.attainment - missed, 1e-9)
    return replace(best, slo_rate_per_s=low, goodput_value=reach)


def windows_for(slo: SLO, rate_per_s: float | None, expected: Prediction, lengths: Lengths) -> tuple[float, float]:
    """(warm-up, window) in s: some mean stays of a request that just keeps the SLO.

    At a given rate the window holds enough requests; otherwise `window_s` chooses it for each rate.
    """
    stay_s = expected.prompt_latency_s + lengths.output_tokens * expected.decode_latency_s
    if slo.tpot_s is not None:
        stay_s = min(stay_s, (slo.ttft_s or 0.0) + lengths.output_tokens * slo.tpot_s)
    if slo.e2el_s is not None:
        stay_s = min(stay_s, slo.e2el_s)
    duration_s = MEASURED_STAYS * stay_s if rate_per_s is None else _enough_s(rate_per_s, stay_s)
    return WARMUP_STAYS * stay_s, duration_s


def predicted_goodput(
    predictor: Predictor, placement: Placement, flow: Flow, slo: SLO, rate_per_s: float | None
) -> float:
    """Requests/s that are expected to keep the SLO, by the means that the predictor knows.

    Without a rate the best of several shares of the predicted capacity counts.
    """
    output = predictor.lengths.output_tokens
    if rate_per_s is not None:
        expected = predictor(placement, flow, rate_per_s)
        return expected.decode_tokens_per_s / output * _kept_share(expected, slo, output)
    predicted = predictor.at_shares(placement, flow, RATE_SHARES)
    return max(p.decode_tokens_per_s / output * _kept_share(p, slo, output) for p in predicted)


def _kept_share(expected: Prediction, slo: SLO, output_tokens: float) -> float:
    """A factor up to 1 that falls with each mean latency above its limit."""
    prompt_s, decode_s = expected.prompt_latency_s, expected.decode_latency_s
    means = {"ttft": prompt_s, "tpot": decode_s, "e2el": prompt_s + output_tokens * decode_s}
    share = 1.0
    for name, limit_s in slo.limits.items():
        if means[name] > SLACK * limit_s:
            share *= (SLACK * limit_s / means[name]) ** PENALTY_POWER
    return share
