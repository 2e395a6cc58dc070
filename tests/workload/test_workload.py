"""Workloads: readers of real formats, samplers held against the traces, slices, CSV in and out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_kit.errors import InputError
from helix_kit.typical_request import TRACE_INPUT_TOKENS, TRACE_OUTPUT_TOKENS, TRACE_TOKENS
from helix_kit.workload import Workload


def lengths(workload: Workload) -> np.ndarray:
    return np.array([(r.input_tokens, r.output_tokens) for r in workload], dtype=float)


AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:16:01.0000000,879,0
"""
BURST = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,0,417,Conversation log
"""
MOONCAKE = """{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}
{"timestamp": 3052, "input_length": 2322, "output_length": 3, "hash_ids": [0]}
"""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("azure.csv", AZURE, [(0.0, 374, 44), (4.314579, 396, 109)]),
        ("burst.csv", BURST, [(0.0, 472, 18), (40.0, 1087, 230)]),
        ("mooncake.jsonl", MOONCAKE, [(0.0, 6758, 500), (3.052, 2322, 3)]),
    ],
)
def test_reads_each_format_and_leaves_out_failed_requests(tmp_path, name, text, expected):
    path = tmp_path / name
    path.write_text(text)
    rows = [(r.arrival_s, r.input_tokens, r.output_tokens) for r in Workload.from_trace(path)]
    assert [r[1:] for r in rows] == [e[1:] for e in expected]
    assert [r[0] for r in rows] == pytest.approx([e[0] for e in expected], abs=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no known trace format"),
        ("a,b,c\n1,2,3\n", "no known trace format"),
        ("arrival_s,input_tokens,output_tokens\n", "empty"),
        ("arrival_s,input_tokens,output_tokens\n1.0,many,3\n", "trace.csv:2: input_tokens = 'many'"),
        ("arrival_s,input_tokens,output_tokens\nnan,5,3\n", "trace.csv:2: arrival_s"),
        ("arrival_s,input_tokens,output_tokens\n1.0,5\n", "trace.csv:2"),
        ('{"timestamp": 1}\n', "trace.csv:1"),
    ],
)
def test_bad_traces_name_file_line_and_field(tmp_path, text, words):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        Workload.from_trace(path)
    assert words in str(error.value)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 10**6), st.integers(1, 10**6)), min_size=1, max_size=20))
def test_csv_gives_back_equal_requests(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "w.csv"
    workload = Workload.of(rows)
    workload.to_csv(path)
    assert Workload.from_csv(path).requests == workload.requests


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


def test_constant_and_offline():
    assert [r.arrival_s for r in Workload.constant(rate_per_s=2.0, duration_s=2.0)] == [0.0, 0.5, 1.0, 1.5]
    backlog = Workload.offline(50, seed=4)
    assert len(backlog) == 50 and {r.arrival_s for r in backlog} == {0.0}


def test_slices_keep_ids_and_scaling_keeps_lengths():
    workload = Workload.poisson(rate_per_s=1.0, duration_s=100, seed=0)
    part = workload[5:8]
    assert isinstance(part, Workload) and [r.id for r in part] == [5, 6, 7]
    faster = workload.scaled(4.0)
    assert faster.rate_per_s == pytest.approx(4.0)
    assert (lengths(faster) == lengths(workload)).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Workload.azure_conversation(rate_per_s=0, duration_s=10),
        lambda: Workload.poisson(rate_per_s=1, duration_s=float("inf")),
        Workload.offline,
        lambda: Workload.offline(0),
        lambda: Workload.of([(-1.0, 1, 1)]),
        lambda: Workload.of([(0.0, 0, 1)]),
    ],
)
def test_impossible_workloads_are_refused(make):
    with pytest.raises(InputError):
        make()
