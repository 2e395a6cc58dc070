"""A record of a request shows what has happened to it, and nothing that has not."""

import pytest

from helix_kit.errors import InputError
from helix_kit.flow import Stage
from helix_kit.workload import Workload
from helix_kit.workload.request import Request, RequestRecord, shortened


def test_a_request_that_waits_has_no_times():
    record = RequestRecord(Request(7, 1.5, 1200, 30))
    shown = repr(record)
    assert "in_flight" in shown and "1,200 in and 0 of 30 out" in shown and "1.5 s" in shown
    assert "first token" not in shown and "finished" not in shown and "stages" not in shown


def test_a_finished_request_shows_its_times_and_stages():
    record = RequestRecord(
        Request(7, 1.5, 1200, 2), outcome="finished", first_token_s=3.0, finished_s=4.25, tokens_generated=2,
        pipeline=(Stage("a", 0, 3), Stage("b", 3, 6)),
    )  # fmt: skip
    shown = repr(record)
    assert "2 of 2 out" in shown and "first token 3 s" in shown and "finished 4.25 s" in shown and "stages 2" in shown


def test_a_reason_stands_beside_the_outcome():
    assert "rejected (queue is full)" in repr(
        RequestRecord(Request(0, 0.0, 1, 1), outcome="rejected", reason="queue is full")
    )


def test_records_do_not_share_their_token_times():
    one, other = (RequestRecord(Request(i, 0.0, 1, 1)) for i in range(2))
    one.token_times_s.append(1.0)
    assert other.token_times_s == []


def test_a_shortened_request_keeps_the_beginning_of_its_content() -> None:
    request = Request(3, 1.0, 100, 40, "s", "text", ((1, 30), (2, 40), (3, 30)), 5)
    short = shortened(request, 50, 100)
    assert (short.id, short.arrival_s, short.input_tokens, short.output_tokens) == (3, 1.0, 50, 40)
    assert short.prefix == ((1, 30), (2, 20)) and short.prompt is None
    assert short.answer is None and short.session == "s"
    answer_only = shortened(request, None, 10)
    assert answer_only.prefix == request.prefix and answer_only.prompt == "text" and answer_only.answer is None
    assert shortened(request, 100, 40) is request


def test_a_row_has_an_arrival_and_two_numbers_of_tokens():
    with pytest.raises(
        InputError, match=r"row = '\(0, 1\)': expected rows of arrival in s, input tokens and output tokens"
    ):
        Workload.of([(0.0, 5, 5), (0, 1)])
