"""The phases of a search where it is stopped, and problems without pinned nodes."""

import time

import pytest

import helix_kit as hk
from helix_kit.flow import Flow
from helix_kit.placement import Problem
from helix_kit.placement.baselines import petals_placement
from helix_kit.placement.watch import Watch
from helix_kit.search.candidate import Candidate, Requirements, Trial
from helix_kit.search.evaluate import Evaluator
from helix_kit.search.options import ServedOptions
from helix_kit.search.phases import Search
from helix_kit.search.pool import problem_without
from helix_kit.search.scorer import Scorer
from helix_kit.simulator.scoring import Score


def single24():
    return Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b"))


def test_stop_while_polishing_leaves_a_plan(monkeypatch):
    """Nothing has been simulated then, and the workers that polish are killed."""
    begun, polished = [], Search._polished

    def watched(*args):
        begun.append(time.monotonic())
        return polished(*args)

    monkeypatch.setattr(Search, "_polished", watched)
    plan = hk.plan(
        "single24", "llama2-70b", objective="served", flow_split="any", jobs=2, window_s=10.0, time_limit_s=20,
        stop=lambda: bool(begun) and time.monotonic() > begun[0] + 0.5,
    )  # fmt: skip
    assert plan.served["decode_tokens_per_s"] > 0
    assert plan.served["simulations"] == 0
    assert any("predicted" in note for note in plan.notes)


def fast_cluster():
    """Forty tokens/s a request and hundreds of requests at once: ten simulated minutes take far longer than a plan."""
    nodes = [{"gpu": "H100-80G", "count": 2}, {"gpu": "A100-40G", "count": 4}, {"gpu": "L4", "count": 4}]
    cluster = hk.Cluster.model_validate({"name": "fast", "nodes": nodes})
    model = hk.Model(
        name="small", num_layers=28, hidden_size=3584, num_heads=28, num_kv_heads=4, intermediate_size=18944,
        vocab_size=152064,
    )  # fmt: skip
    return cluster, model


def test_a_short_time_suffices_for_a_plan_where_simulations_are_dear():
    """That the limit is kept, and a stop heard within a second, is measured in `benchmarks/bench_clock.py`."""
    assert hk.plan(*fast_cluster(), objective="served", time_limit_s=3).served.decode_tokens_per_s > 0


def test_windows_are_cut_down_to_what_the_time_affords():
    """Simulations that cost a second for each simulated second: 16 of them must fit into the 100 s that are left."""
    evaluator = Evaluator(single24(), Requirements())
    search = Search(Scorer(evaluator, 1), Watch(100.0, counted=True), ServedOptions(), Trial(duration_s=600.0), "highs")
    candidate = evaluator.candidate(petals_placement(evaluator.problem))
    search.scorer = _Dear(search.watch)
    search._plan_windows(candidate)
    assert search.trial.duration_s < 600.0
    assert search.trial.warmup_s <= 60.0
    assert search.simulation_s == pytest.approx(search.trial.warmup_s + search.trial.duration_s, rel=0.02)


class _Dear:
    """A scorer whose runs take a second for each simulated second, on a counted clock."""

    jobs = 1

    def __init__(self, watch):
        self.watch = watch

    def run(self, tasks, stop):
        self.watch._clock.spend(tasks[0].trial.duration_s)
        return [tasks[0].candidate]


def test_a_stopped_search_decides_by_its_own_scores():
    evaluator = Evaluator(single24(), Requirements())
    watch = Watch(60, stop=lambda: True)
    search = Search(Scorer(evaluator, 1), watch, ServedOptions(), Trial(duration_s=40), "highs")

    def simulated(start, tokens_per_s, window_s):
        score = Score(decode_tokens_per_s=tokens_per_s, prompt_latency_s=30 / tokens_per_s, window_s=window_s)
        return Candidate({"L4-0": (start, start + 2)}, Flow(1.0, {}, {}, ()), 1.0, score, tokens_per_s)

    best = simulated(20, 101.0, 40.0)
    search.keep([simulated(0, 200.0, 10.0), simulated(22, 100.0, 40.0), best])
    decision = search.decide()
    assert decision.seeds == [search.trial.seed]
    assert decision.measured == [best], "the front without the run that ended early, by identity"
    assert [value for _, value in search.history] == [101.0]


def test_pinned_nodes_are_left_to_their_pins():
    problem = single24()
    rest = problem_without(problem, {"T4-0": (0, 4)})
    assert {n.name for n in problem.cluster.nodes} - {n.name for n in rest.cluster.nodes} == {"T4-0"}
    assert all("T4-0" not in link.ends for link in rest.cluster.network.links)
    # The T4 alone cannot hold 80 layers: nothing can be left out then.
    others = {n.name: (0, 4) for n in problem.cluster.nodes if not n.name.startswith("T4")}
    assert problem_without(problem, others) is problem
