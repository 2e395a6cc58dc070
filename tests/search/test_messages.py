"""Lines between the search and its workers carry everything that the work depends on."""

import dataclasses

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.search.candidate import LatencyLimits, Requirements, Trial
from helix_kit.search.evaluate import Evaluator, Exploration
from helix_kit.search.messages import (
    Explore,
    Polish,
    Simulate,
    answer_line,
    answer_of,
    evaluator_of,
    header_line,
    task_of,
)
from helix_kit.search.worker import answers

PROBLEM = Problem.of(
    hk.Cluster.model_validate({"name": "six", "nodes": [{"gpu": "A100-40G", "count": 2}, {"gpu": "L4", "count": 4}]}),
    hk.Model.preset("llama-30b"),
)
PLACEMENT = hk.plan(PROBLEM.cluster, PROBLEM.model).placement
TRIAL = Trial(duration_s=5.0, warmup_s=5.0, seed=3, at_least=None)


def test_the_header_carries_problem_and_requirements():
    required = Requirements("any", False, {"L4-0": (0, 4)}, 5, LatencyLimits(0.1, 2.0), 1.5)
    evaluator = evaluator_of(header_line(PROBLEM, required))
    assert evaluator.requirements == required
    assert evaluator.problem.throughput_by_kind == PROBLEM.throughput_by_kind


def test_tasks_are_read_as_they_were_written():
    explore = Explore(Exploration(PLACEMENT, 7, 2, {"L4": 0.3}), TRIAL, frozenset({"a", "b"}))
    polish = Polish(PLACEMENT, 7, 3, 12.5)
    assert task_of(explore.to_json()) == explore
    assert task_of(polish.to_json()) == polish


def test_candidates_keep_every_float():
    evaluator = Evaluator(PROBLEM, Requirements())
    sent = dataclasses.replace(evaluator.candidate(PLACEMENT), value=1 / 3, shares={"L4": 0.1})
    (back,) = answer_of(answer_line([sent]))
    assert (back.placement, back.predicted_value, back.value) == (sent.placement, sent.predicted_value, 1 / 3)
    assert (back.flow.edges, back.shares, back.score) == (sent.flow.edges, {"L4": 0.1}, None)
    assert task_of(Simulate(sent, TRIAL).to_json()).trial == TRIAL


def test_a_worker_answers_each_task_with_a_line():
    candidate = Evaluator(PROBLEM, Requirements()).candidate(PLACEMENT)
    lines = [header_line(PROBLEM, Requirements()), Simulate(candidate, TRIAL).to_json()]
    (line,) = answers(iter(lines))
    (answer,) = answer_of(line)
    assert answer.placement == PLACEMENT and answer.value == answer.score.decode_tokens_per_s > 0
