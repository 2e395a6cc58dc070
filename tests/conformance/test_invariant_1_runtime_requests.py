"""Invariant 1, in the runtime: every request is finished, rejected, failed or cancelled, once, with a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("torch")

from helix_kit.runtime import serve
from helix_kit.runtime.handle import Handle
from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan


def test_every_request_ends_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: Counter[Handle] = Counter()
    original = Handle.finish

    def counted(self: Handle, *arguments: object) -> None:
        ends[self] += 1
        original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Handle, "finish", counted)
    folder = tiny_checkpoint(tmp_path / "model")
    plan = tiny_plan(folder, {"a": (0, 4), "b": (2, 6)}, step_ms=1.0)
    engine = serve(plan, folder, launcher="inproc", pace=True, kv_pages=40, max_queue=30)
    handles = [engine.submit([5 + n, 6], max_new_tokens=1 + n, ignore_eos=True) for n in range(20)]
    handles += [engine.submit([5] * 300, max_new_tokens=90) for _ in range(2)]
    handles += [engine.submit([7] * 20, max_new_tokens=60, queue_timeout_s=0.001) for _ in range(5)]
    for handle in handles[::4]:
        handle.cancel()
        handle.cancel()
    for handle in handles:
        assert handle.record.outcome != "in_flight"
    late = [engine.submit([9] * 30, max_new_tokens=400, ignore_eos=True) for _ in range(3)]
    engine.close()
    records = [handle.record for handle in handles + late]
    assert ends == Counter(dict.fromkeys(handles + late, 1))
    outcomes = Counter(record.outcome for record in records)
    assert sum(outcomes.values()) == 30
    assert outcomes["finished"] >= 10 and outcomes["rejected"] >= 2
    assert {r.outcome for r in records[-3:]} <= {"failed", "rejected"}
    assert all(r.reason for r in records if r.outcome in {"rejected", "failed"})
    assert len({r.request.id for r in records}) == 30
    for record in records:
        assert record.tokens_generated == len(record.token_times_s) <= record.request.output_tokens
