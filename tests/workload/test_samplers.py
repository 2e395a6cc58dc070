"""Samplers: lengths and arrivals are those of the trace that they stand for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from helix_kit.errors import InputError
from helix_kit.typical_request import TRACE_INPUT_TOKENS, TRACE_OUTPUT_TOKENS, TRACE_TOKENS
from helix_kit.workload import Workload, samplers


def lengths(workload: Workload) -> np.ndarray:
    return np.array([(r.input_tokens, r.output_tokens) for r in workload], dtype=float)


@pytest.mark.parametrize(
    ("trace", "sampler", "limits"),
    [
        ("AzureLLMInferenceTrace_conv.csv", Workload.azure_conversation, (2048, 1024)),
        ("AzureLLMInferenceTrace_code.csv", Workload.azure_code, (None, None)),
    ],
)
def test_sampler_fits_its_trace(shared, trace, sampler, limits):
    """Quantiles, means and correlation of lengths, and the spread of arrival counts, as in the real trace."""
    real = Workload.from_trace(shared / "traces" / trace)
    drawn = sampler(rate_per_s=real.rate_per_s, duration_s=real.duration_s, seed=3)
    ours, theirs = lengths(drawn), lengths(real.limited(*limits))
    for column in range(2):
        for q in (5, 25, 50, 75, 95):
            assert np.percentile(ours[:, column], q) == pytest.approx(
                np.percentile(theirs[:, column], q), rel=0.06, abs=4
            )
    assert ours.mean(axis=0) == pytest.approx(theirs.mean(axis=0), rel=0.03)
    assert np.corrcoef(ours.T)[0, 1] == pytest.approx(np.corrcoef(theirs.T)[0, 1], abs=0.05)
    counts = [np.bincount((np.array([r.arrival_s for r in w]) / 3).astype(int)) for w in (drawn, real)]
    assert counts[0].std() / counts[0].mean() == pytest.approx(counts[1].std() / counts[1].mean(), rel=0.15)


def test_named_means_are_the_traces(shared):
    """What the predictor and the length of a backlog rest on, in whole tokens."""
    real = Workload.from_trace(shared / "traces" / "AzureLLMInferenceTrace_conv.csv").limited(2048, 1024)
    assert lengths(real).mean(axis=0) == pytest.approx((TRACE_INPUT_TOKENS, TRACE_OUTPUT_TOKENS), abs=0.6)
    assert pytest.approx(TRACE_TOKENS, abs=1) == TRACE_INPUT_TOKENS + TRACE_OUTPUT_TOKENS


def test_rates_and_seeds():
    workload = Workload.azure_conversation(rate_per_s=5.0, duration_s=1200, seed=1)
    assert len(workload) == pytest.approx(6000, rel=0.05)
    assert workload == Workload.azure_conversation(rate_per_s=5.0, duration_s=1200, seed=1)
    assert workload.requests != Workload.azure_conversation(rate_per_s=5.0, duration_s=1200, seed=2).requests
    assert all(a.arrival_s <= b.arrival_s for a, b in pairwise(workload))


def test_poisson_gaps_are_exponential():
    gaps = np.diff([r.arrival_s for r in Workload.poisson(rate_per_s=2.0, duration_s=5000, seed=0)])
    assert gaps.mean() == pytest.approx(0.5, rel=0.05)
    assert gaps.std() == pytest.approx(0.5, rel=0.05)
    assert (gaps > 1.0).mean() == pytest.approx(np.exp(-2), abs=0.01)


@pytest.mark.parametrize("name", ["azure_conversation", "azure_code"])
def test_mean_lengths_are_those_of_many_draws(name):
    drawn = samplers.draw_lengths(name, 200_000, np.random.default_rng(5))
    assert drawn.mean(axis=0) == pytest.approx(samplers.mean_lengths(name), rel=0.01)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0", None])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(InputError, match=r"seed.*: expected a whole number of at least 0"):
        Workload.poisson(1.0, 10.0, seed=seed)


@pytest.mark.parametrize("make", [Workload.azure_conversation, Workload.poisson, Workload.constant])
def test_a_typing_error_does_not_take_the_memory(make):
    with pytest.raises(InputError, match="expected at most 20,000,000 requests, not 6e\\+14"):
        make(1e12, 600.0)
