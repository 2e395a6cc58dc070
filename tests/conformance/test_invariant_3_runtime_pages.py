"""Invariant 3, in the runtime: KV pages used = pages of live requests, after every step; zero when idle.

A page that several requests share counts once.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from idling import wait_until_idle

pytest.importorskip("torch")

from helix_kit.runtime import RequestFailedError, serve
from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan
from helix_kit.runtime.worker.worker import Worker

PAGE = 16


@pytest.mark.parametrize("seed", range(3))
def test_pages_used_are_those_of_live_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    seen: list[int] = []
    shared: list[int] = []
    original = Worker._start

    def checked(self: Worker, *arguments: object, **options: object) -> object:
        started = original(self, *arguments, **options)  # type: ignore[arg-type]
        live = self._requests.in_order_of_arrival()
        for request in live:
            assert request.table.pages.shape == (request.end - request.start, -(-request.table.num_tokens // PAGE))
        pages = [page for request in live for page in request.table.pages.ravel().tolist()]
        pool = self._pool
        seen.append(pool.used)
        shared.append(len(pages) - len(set(pages)))
        assert pool.used == len(set(pages))
        assert pool.used + pool.idle + pool.free == pool.num_pages
        return started

    monkeypatch.setattr(Worker, "_start", checked)
    rng = random.Random(seed)
    folder = tiny_checkpoint(tmp_path / "model")
    plan = tiny_plan(folder, {"a": (0, 4), "b": (2, 6), "c": (0, 3), "d": (3, 6)})
    with serve(plan, folder, launcher="inproc", policy="random", seed=seed, pace=False, kv_pages=60) as engine:
        handles = []
        for _ in range(40):
            prompt = [7] * rng.choice([0, 16, 33]) + [rng.randrange(3, 250) for _ in range(rng.randrange(1, 50))]
            handles.append(engine.submit(prompt, max_new_tokens=rng.randrange(1, 30), ignore_eos=True))
            if rng.random() < 0.3:
                rng.choice(handles).cancel()
        handles.append(engine.submit([5] * 400, max_new_tokens=100))
        with pytest.raises(RequestFailedError, match="fit into the KV pages of no pipeline"):
            handles[-1].result(60)
        for handle in handles[:-1]:
            handle.result(60)
        status = wait_until_idle(engine)
        assert all(worker.state == "up" for worker in status.workers.values())
    assert max(seen) > 0
    # Admission lets in more than one request at a time, and never more than there are pages.
    assert max(seen) <= 60
    assert max(shared) > 0
