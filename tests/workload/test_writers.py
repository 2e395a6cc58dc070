"""Files that are written read as equal requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from helix_kit.workload import Workload


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 10**6), st.integers(1, 10**6)), min_size=1, max_size=20))
def test_csv_gives_back_equal_requests(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "w.csv"
    workload = Workload.of(rows)
    workload.to_csv(path)
    assert Workload.from_csv(path).requests == workload.requests


def test_files_keep_what_is_shared(tmp_path):
    workload = Workload.conversations(1.0, 20.0, turns=3)
    workload.to_csv(tmp_path / "a.csv")
    assert Workload.from_csv(tmp_path / "a.csv").requests == workload.requests
    assert any(r.prefix for r in workload) and any(r.answer is not None for r in workload)


def test_columns_of_contents_are_written_only_where_there_are_contents(tmp_path):
    Workload.of([(0.0, 10, 5)]).to_csv(tmp_path / "plain.csv")
    Workload.of([(0.0, 10, 5), (1.0, 10, 5, "talk")]).to_csv(tmp_path / "sessions.csv")
    assert (tmp_path / "plain.csv").read_text() == "arrival_s,input_tokens,output_tokens\n0.0,10,5\n"
    header, first, second = (tmp_path / "sessions.csv").read_text().splitlines()
    assert header == "arrival_s,input_tokens,output_tokens,prefix,answer,session_id"
    assert (first, second) == ("0.0,10,5,,,", "1.0,10,5,,,talk")


def test_a_trace_in_mooncakes_format_shares_whole_blocks(tmp_path):
    """Two turns share 700 tokens before the second question: one block of 512 of them."""
    talk = Workload.of(
        [(0.0, 600, 100, None, None, ((1, 600),), 2), (3.0, 1300, 5, None, None, ((1, 600), (2, 100), (3, 600)))]
    )
    talk.to_mooncake(tmp_path / "trace.jsonl")
    again = Workload.from_trace(tmp_path / "trace.jsonl", time_unit="ms")
    assert [(r.arrival_s, r.input_tokens, r.output_tokens) for r in again] == [(0.0, 600, 100), (3.0, 1300, 5)]
    assert [[n for _, n in r.prefix] for r in again] == [[512, 88], [512, 512, 276]]
    first, second = ([key for key, _ in r.prefix] for r in again)
    assert first[0] == second[0] and not set(first[1:]) & set(second[1:])
