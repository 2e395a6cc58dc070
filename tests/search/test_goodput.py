"""Goodput of a plan: counted again by hand on the records, at the rates and on the streams that the search names."""

from __future__ import annotations

import numpy as np
import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.watch import Watch
from helix_kit.search.candidate import Candidate, Trial
from helix_kit.search.evaluate import Evaluator, Requirements
from helix_kit.search.goodput import goodput_score, measure, predicted_goodput, window_s, windows_for
from helix_kit.search.predictor import Prediction
from helix_kit.search.starting import safe_placements

SLO = hk.SLO(ttft_s=3.0, tpot_s=0.3, at=0.9)
LENGTHS = (400, 30)
RATE = 0.8
OPTIONS = {"objective": "goodput", "slo": SLO, "workload": LENGTHS, "max_simulations": 8, "jobs": 1,
           "time_limit_s": 300}  # fmt: skip
CLUSTER = hk.Cluster.model_validate(
    {"name": "six", "nodes": [{"gpu": "A100-40G", "count": 2}, {"gpu": "L4", "count": 4}]}
)
MODEL = hk.Model.preset("llama-30b")


def counted(plan, rate_per_s, warmup_s, duration_s, seeds):
    """(requests/s that keep the limits, their share of the decided), request by request."""
    kept = decided = 0
    for seed in seeds:
        requests = hk.Workload.azure_conversation(
            rate_per_s=rate_per_s, duration_s=warmup_s + duration_s, seed=seed, like=(LENGTHS,)
        )
        run = hk.simulate(plan, requests, warmup_s=warmup_s, duration_s=duration_s, seed=seed)
        start_s, end_s = run.window
        for at, record in enumerate(run.records):
            times = np.array(run.token_times_s(at))
            arrival_s, asked = record.request.arrival_s, record.request.output_tokens
            first_s = times[0] - arrival_s if len(times) else np.inf
            if record.outcome == "finished":
                if start_s <= record.finished_s <= end_s:
                    decided += 1
                    mean_gap_s = (times[-1] - times[0]) / (len(times) - 1)
                    kept += first_s <= SLO.ttft_s and mean_gap_s <= SLO.tpot_s
            elif arrival_s <= end_s:
                waits = min(first_s, end_s - arrival_s) > SLO.ttft_s
                slow = len(times) and (end_s - times[0]) / (asked - 1) > SLO.tpot_s
                decided += bool(waits or slow)
    return kept / (len(seeds) * duration_s), kept / decided


@pytest.fixture(scope="module")
def at_a_rate():
    return hk.plan(CLUSTER, MODEL, rate_per_s=RATE, **OPTIONS)


@pytest.fixture(scope="module")
def highest():
    return hk.plan(CLUSTER, MODEL, **OPTIONS)


def test_goodput_is_what_the_records_say(at_a_rate):
    told = at_a_rate.served
    goodput, share = counted(at_a_rate, RATE, told.warmup_s, told.duration_s, told.seeds)
    assert told.goodput_per_s == pytest.approx(goodput) and told.attainment == pytest.approx(share)
    assert told.goodput_per_s > 0 and at_a_rate.objective == "goodput" and told.slo == str(SLO)
    assert told.rate_per_s == RATE and told.slo_rate_per_s == 0


def test_the_slo_holds_at_the_highest_rate(highest):
    told = highest.served
    goodput, share = counted(highest, told.slo_rate_per_s, told.warmup_s, told.window_s, told.seeds)
    assert share >= SLO.at and (told.goodput_per_s, told.attainment) == pytest.approx((goodput, share))
    assert told.rate_per_s is None and told.slo_rate_per_s > 0


@pytest.mark.parametrize("rate_per_s", [RATE, None])
def test_not_worse_than_flow_plan_baselines_and_replicas(at_a_rate, highest, rate_per_s):
    plan = at_a_rate if rate_per_s else highest
    problem = Problem.of(CLUSTER, MODEL, None, plan.lengths)
    evaluator = Evaluator(problem, Requirements(lengths=(LENGTHS,), slo=SLO, rate_per_s=rate_per_s))
    told = plan.served
    ours = told.goodput_per_s if rate_per_s else told.slo_rate_per_s
    flow = hk.plan(CLUSTER, MODEL, workload=LENGTHS)
    safe = list(safe_placements(problem, [flow.placement], 0, Watch(60.0)))
    assert len(safe) > 2
    for placement in safe:
        candidate = evaluator.candidate(placement)
        if candidate is None:
            continue
        rate = rate_per_s or 1.03 * ours
        trial = Trial("online", rate_per_s=rate, duration_s=told.duration_s or told.window_s, warmup_s=told.warmup_s,
                      slo=SLO, seed=told.seeds[0], streams=len(told.seeds))  # fmt: skip
        found = measure(
            hk.Plan.from_placement(problem, placement, method="x", flow=candidate.flow), rate, trial, (LENGTHS,)
        )
        if rate_per_s:
            assert found.score.goodput_per_s <= ours
        else:
            assert not found.holds


def test_the_front_names_the_plan_and_none_that_another_beats(highest):
    front = highest.served.pareto
    assert any(row.slo_rate_per_s == highest.served.slo_rate_per_s for row in front)
    for a in front:
        assert not any(
            b.slo_rate_per_s > a.slo_rate_per_s and b.decode_tokens_per_s > a.decode_tokens_per_s
            and b.prompt_latency_s < a.prompt_latency_s and b.decode_latency_s < a.decode_latency_s
            and b.stages < a.stages for b in front
        )  # fmt: skip


def test_the_same_call_gives_the_same_plan(at_a_rate):
    again = hk.plan(CLUSTER, MODEL, rate_per_s=RATE, **OPTIONS)
    assert again.placement == at_a_rate.placement and again.served.goodput_per_s == at_a_rate.served.goodput_per_s


def test_a_plan_file_keeps_what_was_found(highest, tmp_path):
    highest.save(tmp_path / "plan.json")
    assert hk.Plan.load(tmp_path / "plan.json").served.slo_rate_per_s == highest.served.slo_rate_per_s


def test_an_slo_that_no_plan_keeps_is_refused_with_the_nearest():
    with pytest.raises(hk.InfeasibleError, match="nearest keeps it for 0"):
        hk.plan(CLUSTER, MODEL, **{**OPTIONS, "slo": "tpot:1ms", "max_simulations": 2})


@pytest.mark.parametrize(
    ("more", "field"),
    [({"slo": None}, "slo"), ({"rate_per_s": -1.0}, "rate_per_s"), ({"mode": "offline"}, "mode"),
     ({"latency_limit_s": 1.0}, "latency_limit_s"), ({"pareto_pick": "decode"}, "pareto_pick"),
     ({"objective": "served"}, "slo")],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(more, field):
    with pytest.raises(hk.InputError, match=field):
        hk.plan(CLUSTER, MODEL, **{**OPTIONS, **more})


def test_a_plan_that_fails_at_the_floor_is_not_simulated_further(highest):
    problem = Problem.of(CLUSTER, MODEL, None, highest.lengths)
    placed = Candidate(highest.placement, highest.max_flow, 0.0)
    trial = Trial("online", slo=SLO, duration_s=20.0, warmup_s=5.0, floor_rate_per_s=100.0)
    score = goodput_score(problem, placed, trial, (LENGTHS,))
    assert score.share_of_window < 1 and score.slo_rate_per_s == 0 and score.goodput_value < 100


def test_windows_hold_enough_requests_and_stays():
    expected = Prediction(100.0, 0.5, 0.05, 10.0)
    lengths = Evaluator(Problem.of(CLUSTER, MODEL), Requirements(lengths=(LENGTHS,))).predictor.lengths
    warmup_s, duration_s = windows_for(hk.SLO(ttft_s=1.0), None, expected, lengths)
    assert (warmup_s, duration_s) == pytest.approx((1.5 * 2.0, 4 * 2.0))  # 0.5 s + 30 x 0.05 s = 2 s in the system
    assert windows_for(SLO, 2.0, expected, lengths)[1] == 150.0  # 300 requests
    trial = Trial("online", slo=SLO, duration_s=8.0)
    assert window_s(3.0, trial) == 100.0 and window_s(1e6, trial) == 4.0 and window_s(1e-6, trial) == 200.0


def test_predictions_fall_with_the_limits(highest):
    evaluator = Evaluator(Problem.of(CLUSTER, MODEL), Requirements(lengths=(LENGTHS,)))
    placed = (evaluator.predictor, highest.placement, highest.max_flow)
    for rate in (None, 1.0):
        values = [predicted_goodput(*placed, hk.SLO(tpot_s=limit), rate) for limit in (10.0, 0.1, 0.01)]
        assert values[0] >= values[1] > values[2] > 0
    assert predicted_goodput(*placed, hk.SLO(ttft_s=100.0), 1.0) <= 1.0 + 1e-9
