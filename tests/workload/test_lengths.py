"""For which requests a plan is: means and pairs of workloads, names, files and numbers."""

from __future__ import annotations

import pytest

from helix_kit.errors import InputError
from helix_kit.typical_request import TRACE_INPUT_TOKENS, TRACE_OUTPUT_TOKENS, MeanLengths
from helix_kit.workload import Workload
from helix_kit.workload.lengths import SAMPLE_SIZE, length_pairs, mean_lengths, workload_for


def test_a_trace_file_is_planned_for_by_its_means(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text("arrival_s,input_tokens,output_tokens\n0,100,10\n5,500,30\n6,600,20\n")
    means = mean_lengths(workload_for(file))
    assert (means.input_tokens, means.output_tokens, means.source) == (400.0, 20.0, "log.csv")


def test_the_sampled_conversation_trace_has_its_means():
    means = mean_lengths(workload_for("azure-conversation"))
    assert means.input_tokens == pytest.approx(TRACE_INPUT_TOKENS, rel=0.02)
    assert means.output_tokens == pytest.approx(TRACE_OUTPUT_TOKENS, rel=0.02)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [((0.5, 3), "at least 1 token"), ((3,), "two lengths"), ("azure-cod", "azure-code"), ("no.csv", "no.csv")],
)
def test_what_is_no_workload_is_refused(wrong, text):
    with pytest.raises(InputError, match=text):
        workload_for(wrong)


def test_an_empty_workload_has_no_means():
    with pytest.raises(InputError, match="at least one request"):
        mean_lengths(Workload(()))


def test_pairs_are_a_sample_over_all_of_a_long_workload():
    workload = Workload.of([(float(i), i + 1, 2 * i + 1) for i in range(10 * SAMPLE_SIZE)])
    pairs = length_pairs(workload)
    assert len(pairs) == SAMPLE_SIZE and pairs[0] == (1, 1) and pairs[-1] == (10 * SAMPLE_SIZE, 20 * SAMPLE_SIZE - 1)
    assert all(o == 2 * i - 1 for i, o in pairs), "pairs stay together"
    assert length_pairs(MeanLengths(7.4, 2.6)) == ((7, 3),)


def test_a_backlog_like_pairs_has_only_these():
    pairs = ((10, 1), (20, 2))
    backlog = Workload.offline(200, like=pairs)
    assert {(r.input_tokens, r.output_tokens) for r in backlog} == set(pairs)
    online = Workload.azure_conversation(rate_per_s=2.0, duration_s=60, like=pairs)
    assert {(r.input_tokens, r.output_tokens) for r in online} == set(pairs)
    assert [r.arrival_s for r in online] == [r.arrival_s for r in Workload.azure_conversation(2.0, 60)]
