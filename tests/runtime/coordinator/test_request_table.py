"""Requests that wait, are rejected, or are cancelled."""

from __future__ import annotations

from pathlib import Path

import pytest
from idling import wait_until_idle

torch = pytest.importorskip("torch")

from helix_kit.runtime import RequestFailedError, serve  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_plan  # noqa: E402
from helix_kit.scheduling import Policy  # noqa: E402


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


def test_long_answers_are_promised_pages_as_they_grow(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 3), "b": (3, 6)})
    prompts = [[3 + n] * 20 for n in range(4)]
    sampled = {"temperature": 0.9, "seed": 5, "frequency_penalty": 0.4, "ignore_eos": True}
    with serve(plan, tiny_llama, launcher="inproc", pace=False) as engine:
        expected = [engine.generate(prompt, max_new_tokens=140, **sampled).token_ids for prompt in prompts]
    # 60 pages in 3 layers hold 320 tokens: two answers of 160, or four for their first 32.
    with serve(plan, tiny_llama, launcher="inproc", pace=False, kv_pages=60) as engine:
        growing = {"max_new_tokens": 140, "promise_tokens": 32, **sampled}
        handles = [engine.submit(prompt, **growing) for prompt in prompts]
        answers = [handle.result(60) for handle in handles]
        assert [answer.token_ids for answer in answers] == expected
        assert [answer.finish_reason for answer in answers] == ["length"] * 4
        starts = [answer.record.started_s for answer in answers]
        assert max(starts) < min(answer.record.finished_s for answer in answers)
        wait_until_idle(engine)
        assert engine.status().pages_promised == 0
        # Without a limit, an answer has all that fits, also beside another one.
        both = [engine.submit(prompt, max_new_tokens=None, ignore_eos=True) for prompt in prompts[:2]]
        lengths = [len(handle.result(60).token_ids) for handle in both]
        assert lengths == [engine.max_request_tokens() - 20] * 2 == [300] * 2
        assert all(handle.record.restarts == 0 for handle in both)
        wait_until_idle(engine)


@pytest.mark.parametrize("placement", [{"a": (0, 6)}, {"a": (0, 4), "b": (2, 6), "c": (0, 3), "d": (3, 6)}], ids=len)
def test_workers_that_go_on_by_themselves_stay_within_their_promise(tiny_llama: Path, placement: dict) -> None:
    plan = tiny_plan(tiny_llama, placement)
    prompts = [[3 + n] * 20 for n in range(8)]
    with serve(plan, tiny_llama, launcher="inproc", pace=False, kv_pages=60) as engine:
        expected = [engine.generate(prompt, max_new_tokens=100, ignore_eos=True).token_ids for prompt in prompts]
        options = {"max_new_tokens": 100, "promise_tokens": 8, "ignore_eos": True}
        handles = [engine.submit(prompt, **options) for prompt in prompts]
        assert [handle.result(60).token_ids for handle in handles] == expected
        wait_until_idle(engine)
        status = engine.status(fresh=True)
        assert status.pages_promised == 0 and not status.losses
        assert all(worker.pages_used == 0 and worker.pages_peak <= worker.pages for worker in status.workers.values())


def test_an_answer_of_unknown_length_leaves_room_for_others(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 6)})
    with serve(plan, tiny_llama, launcher="inproc", pace=False, kv_pages=320) as engine:
        # 853 tokens fit: one answer of 512 with another one of 256, or the first 256 tokens of three.
        handles = [engine.submit([5, 6, n], max_new_tokens=None, ignore_eos=True) for n in range(3, 6)]
        records = [handle.result(60).record for handle in handles]
    assert [record.tokens_generated for record in records] == [509] * 3
    starts = max(record.started_s for record in records)
    assert starts < min(record.token_times_s[255] for record in records)


class FailsAtTimes(Policy):
    """Raises in `route` at prompts of 4 tokens, and in `on_admitted` at prompts of 5."""

    def __init__(self, pipelines) -> None:
        self.pipeline = pipelines[0][0]

    def route(self, request, view):
        if request.input_tokens == 4:
            raise ZeroDivisionError("no prompt of four")
        return self.pipeline

    def on_admitted(self, request, pipeline):
        if request.input_tokens == 5:
            raise LookupError("no prompt of five")


def test_requests_at_which_the_policy_raises_fail_and_the_others_are_served(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 3), "b": (3, 6)})
    with serve(plan, tiny_llama, launcher="inproc", pace=False, policy=FailsAtTimes) as engine:
        handles = [engine.submit([7] * length, max_new_tokens=3, ignore_eos=True) for length in (3, 4, 5, 6)]
        failed = {}
        for handle in handles[1:3]:
            with pytest.raises(RequestFailedError) as caught:
                handle.result(30)
            failed[handle.record.outcome] = caught.value.code
            assert "policy 'FailsAtTimes': " in str(caught.value) and "no prompt of f" in str(caught.value)
        assert failed == {"failed": "policy_failed"}
        assert [len(handle.result(30).token_ids) for handle in (handles[0], handles[3])] == [3, 3]
        wait_until_idle(engine)  # the pages that were promised to the failed requests are free again
