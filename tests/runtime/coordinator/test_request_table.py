"""Requests that wait, are rejected, or are cancelled."""

from __future__ import annotations

from pathlib import Path

import pytest
from idling import wait_until_idle

torch = pytest.importorskip("torch")

from helix_kit.runtime import RequestFailedError, serve  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_plan  # noqa: E402


def test_waits_for_pages_and_rejects_what_can_never_fit(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 3), "b": (3, 6)})
    with serve(plan, tiny_llama, launcher="inproc", pace=False, kv_pages=12) as engine:
        fits = [engine.submit([3 + n] * 20, max_new_tokens=20, ignore_eos=True) for n in range(6)]
        never = engine.submit([9] * 40, max_new_tokens=40)
        assert all(len(h.result(30).token_ids) == 20 for h in fits)
        with pytest.raises(RequestFailedError, match="80 tokens of context fit into the KV pages of no pipeline"):
            never.result(30)
        assert never.record.outcome == "rejected"
        starts = sorted(h.record.started_s for h in fits)
        ends = sorted(h.record.finished_s for h in fits)
        # Twelve pages hold one request of 40 tokens (three pages in each of three layers): one after another.
        assert all(start >= end for start, end in zip(starts[1:], ends))
        wait_until_idle(engine)


def test_a_full_queue_rejects(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 6)})
    with serve(plan, tiny_llama, launcher="inproc", pace=False, kv_pages=24, max_queue=1) as engine:
        handles = [engine.submit([5] * 20, max_new_tokens=30, ignore_eos=True) for _ in range(8)]
        records = [handle.record for handle in handles]
    outcomes = [record.outcome for record in records]
    assert "finished" in outcomes
    assert {r.reason for r in records if r.outcome == "rejected"} == {"the queue is full (1 requests wait)"}


def test_cancel_keeps_what_there_is(tiny_llama: Path) -> None:
    slow = tiny_plan(tiny_llama, {"a": (0, 6)}, step_ms=5.0)
    with serve(slow, tiny_llama, launcher="inproc", pace=True) as engine:
        handle = engine.submit([5, 6, 7], max_new_tokens=400, ignore_eos=True)
        for count, _ in enumerate(handle):
            if count == 3:
                handle.cancel()
        answer = handle.result(timeout_s=10)
        assert answer.finish_reason == "cancelled"
        assert 4 <= len(answer.token_ids) < 400
        assert handle.record.outcome == "cancelled"
        wait_until_idle(engine)
