"""The step model against bounds that follow from the datasheet and from counting."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from helix_kit.catalogue import gpus
from helix_kit.model import Model
from helix_kit.profiles.engines import load_engine
from helix_kit.profiles.step import Machine, ModelWork, distinct_experts, kv_blocks, step_costs

ENGINE = load_engine("vllm-0.15").on("H100-80G")
H100 = gpus()["H100-80G"]
WORK = ModelWork.of(Model.preset("llama3.1-70b"))


def test_no_step_is_faster_than_the_datasheet():
    """141 GB of weights over four GPUs of 3,350 GB/s take 10.5 ms, and most of a step of one token is that."""
    step_s = step_costs(ENGINE, WORK, Machine(H100, 4)).seconds(decodes=1, context=100)
    read_s = (WORK.dense_bytes + WORK.head_bytes) / (4 * 3350e9)
    assert read_s < step_s < 2 * read_s


def test_a_long_prompt_is_bound_by_arithmetic():
    step_s = step_costs(ENGINE, WORK, Machine(H100, 4)).seconds(prefill=8000, context=8000)
    assert step_s > 2 * WORK.dense_params * 8000 / (4 * 989e12)


def test_stages_add_up_to_the_model():
    """Two halves take as long as the whole and one more step constant."""
    machine = Machine(H100, 4)
    whole = step_costs(ENGINE, WORK, machine).seconds(decodes=7, context=5000)
    halves = [step_costs(ENGINE, WORK, machine, layers=40, is_last=last) for last in (False, True)]
    total = sum(half.seconds(decodes=7, context=5000) for half in halves)
    assert total - whole == pytest.approx(ENGINE.constants.step_ms.value * 1e-3)


def test_experts_that_tokens_hit_are_counted_right():
    """Every way in which three tokens choose one of four experts, weighted by its probability."""
    work = ModelWork(**{**WORK.__dict__, "experts": 4, "active_experts": 1})
    share = np.array([1.0, 2.0**-1.5, 3.0**-1.5, 4.0**-1.5])
    share /= share.sum()
    expected = sum(len(set(ways)) * share[list(ways)].prod() for ways in itertools.product(range(4), repeat=3))
    assert distinct_experts(work, 3, 1.5)[3] == pytest.approx(expected)
    crowded = ModelWork(**{**WORK.__dict__, "experts": 4, "active_experts": 3})
    assert distinct_experts(crowded, 1, 3.0)[1] == pytest.approx(3.0)


def test_weights_that_do_not_fit_leave_no_block():
    assert kv_blocks(ENGINE, WORK, Machine(H100, 1)) == 0
    assert kv_blocks(ENGINE, WORK, Machine(H100, 4)) > 20_000


def test_blocks_are_those_that_vllm_reports_on_an_h100():
    # vLLM 0.15 on one H100 of 79.1 GiB, 90 % of it used: Qwen2.5 7B (15.2 GB) has 65,352 blocks of 16 tokens of 2 KB in
    # each of 28 layers.
    work = ModelWork(layers=28, hidden=3584, heads=28, kv_heads=4, head_dim=128, vocab=152064,
                     dense_bytes=28 * 2 * (2 * 3584 * 128 * 32 + 3 * 3584 * 18944), dense_params=6.5e9,
                     head_bytes=2 * 152064 * 3584)  # fmt: skip
    assert kv_blocks(ENGINE, work, Machine(gpus()["H100-80G"])) == pytest.approx(65352, rel=0.01)


def test_sorted_logits_take_a_row_a_step_and_the_rest_for_each_request():
    """Rows lie in thread blocks side by side, so that a step with eight requests takes one row's time, not eight."""
    constants = {name: constant.of("H100-80G") for name, constant in ENGINE.constants.by_name().items()}
    plain, sorts, both = (
        step_costs(ENGINE, ModelWork.of(Model.preset("llama3.1-70b"), **how), Machine(H100, 4))
        for how in ({}, {"sorts_samples": True}, {"sorts_samples": True, "penalises": True})
    )
    apart_s = [sorts.seconds(decodes=b, context=1000) - plain.seconds(decodes=b, context=1000) for b in (1, 8)]
    each_s = WORK.vocab * 1e-9 * (constants["sorted_sampling_ns_per_logit"] - constants["sampling_ns_per_logit"])
    row_s = WORK.vocab * 1e-9 * constants["sorted_row_ns_per_logit"]
    assert apart_s == pytest.approx([row_s + each_s, row_s + 8 * each_s])
    penalty_s = both.seconds(decodes=8, context=1000) - sorts.seconds(decodes=8, context=1000)
    assert penalty_s == pytest.approx(8 * WORK.vocab * 1e-9 * constants["penalty_ns_per_logit"])
    first = step_costs(ENGINE, ModelWork.of(Model.preset("llama3.1-70b"), sorts_samples=True), Machine(H100, 4),
                       layers=40, is_last=False)  # fmt: skip
    assert first.fixed_s < plain.fixed_s
