"""SLOs: what a text means, which requests keep the limits, and goodput by hand and by counting."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_kit.errors import InputError
from helix_kit.metrics import SLO
from helix_kit.report import Run
from helix_kit.workload.request import Request, RequestRecord


def answered(number, arrival, ttft, gap, tokens):
    times = [arrival + ttft + gap * i for i in range(tokens)]
    return RequestRecord(
        Request(number, arrival, 10, tokens), outcome="finished", started_s=arrival, first_token_s=times[0],
        finished_s=times[-1], tokens_generated=tokens, token_times_s=times,
    )  # fmt: skip


@pytest.mark.parametrize(
    "text, slo",
    [
        ("ttft:0.5 tpot:0.05", SLO(ttft_s=0.5, tpot_s=0.05)),
        ("ttft:500ms,e2el:20s at:0.9", SLO(ttft_s=0.5, e2el_s=20.0, at=0.9)),
        ("TPOT_s=0.05  at:95%", SLO(tpot_s=0.05, at=0.95)),
    ],
)
def test_texts(text, slo):
    assert SLO.parse(text) == slo


@pytest.mark.parametrize("text", ["", "ttft", "itl:0.1", "ttft:fast", "ttft:0", "ttft:-1", "ttft:1 ttft:2", "at:0.9",
                                  "ttft:1 at:0", "ttft:1 at:1.5", "ttft:nan"])  # fmt: skip
def test_refusals(text):
    with pytest.raises(InputError, match="slo"):
        SLO.parse(text)


def test_by_hand():
    """In 10 s: one keeps both limits, one has a late first token, one decodes slowly, one is rejected, one is late and
    unfinished, one is in time and unfinished, one is cancelled."""
    late = RequestRecord(Request(4, 5.0, 10, 9))
    in_time = RequestRecord(Request(5, 9.5, 10, 9))
    gone = RequestRecord(Request(6, 1.0, 10, 9), outcome="cancelled", finished_s=2.0)
    rejected = RequestRecord(Request(3, 4.0, 10, 9), outcome="rejected", reason="full")
    run = Run(
        [answered(0, 0.0, 0.5, 0.1, 11), answered(1, 1.0, 2.0, 0.1, 5), answered(2, 2.0, 0.5, 0.5, 5), rejected, late,
         in_time, gone],
        window=(0.0, 10.0),
    )  # fmt: skip
    good = run.goodput(SLO(ttft_s=1.0, tpot_s=0.2, at=0.2))
    assert (good.kept, good.decided, good.holds) == (1, 5, True)
    assert good.kept_by_limit == {"ttft": 2, "tpot": 2}
    assert good.requests_per_s == pytest.approx(0.1) and good.output_tokens_per_s == pytest.approx(1.1)
    assert run.summary(SLO(ttft_s=1.0, tpot_s=0.2))["goodput"]["attainment"] == pytest.approx(0.2)


def test_an_unfinished_request_breaks_a_limit_only_when_it_must():
    """First token at 1 s, 11 tokens asked for: at 3 s the mean gap will be at least 0.2 s."""
    record = RequestRecord(Request(0, 0.0, 5, 11), started_s=0.0, first_token_s=1.0, tokens_generated=3,
                           token_times_s=[1.0, 1.5, 2.0])  # fmt: skip
    run = Run([record], window=(0.0, 3.0))
    assert run.goodput(SLO(tpot_s=0.19)).decided == 1 and run.goodput(SLO(tpot_s=0.21)).decided == 0
    assert run.goodput(SLO(e2el_s=2.9)).decided == 1 and run.goodput(SLO(e2el_s=3.1)).decided == 0


REQUESTS = st.lists(
    st.tuples(st.floats(0, 20), st.floats(0.01, 5), st.floats(0.01, 1), st.integers(1, 20)), min_size=1, max_size=30
)


@given(REQUESTS, st.floats(0.01, 5), st.floats(0.01, 1), st.floats(0.1, 25))
def test_goodput_is_at_most_throughput(rows, ttft_s, tpot_s, e2el_s):
    """Counted one by one in plain Python, and never more than what finished."""
    run = Run([answered(i, *row) for i, row in enumerate(rows)], window=(0.0, 25.0))
    slo = SLO(ttft_s=ttft_s, tpot_s=tpot_s, e2el_s=e2el_s)
    good, summary = run.goodput(slo), run.summary(slo)
    kept = 0
    for record in run.records:
        whole = record.finished_s - record.request.arrival_s
        first = record.first_token_s - record.request.arrival_s
        gap = (whole - first) / (record.tokens_generated - 1) if record.tokens_generated > 1 else 0.0
        kept += record.finished_s <= 25.0 and first <= ttft_s and gap <= tpot_s and whole <= e2el_s
    assert good.kept == kept
    assert good.requests_per_s <= summary["requests_per_s"] + 1e-12
    assert good.output_tokens_per_s <= summary["output_tokens_per_s"] + 1e-9
    assert good.attainment is None or 0 <= good.attainment <= 1
    assert math.isclose(good.requests_per_s * 25, kept)
