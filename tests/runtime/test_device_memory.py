"""What a worker may take of a GPU, worked out without a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from helix_kit.errors import HelixKitError
from helix_kit.runtime import EngineError, device_memory, serve
from helix_kit.runtime.device_memory import CPU_SHARE, GPU_SHARE, num_pages, pages_within, room_bytes
from helix_kit.runtime.weights.tiny import tiny_plan


def test_pages_are_those_that_fit() -> None:
    spec = SimpleNamespace(device="cuda:0", start=0, end=10, num_pages=1000, dtype="float16", name="a")
    assert pages_within(spec, 5e9, 1 << 20) == 1000
    assert pages_within(spec, 500 * 2.0**20, 1 << 20) == 500
    with pytest.raises(HelixKitError, match=r"cuda:0 has 0.01 GB left .* weights of 10 layers in float16.*0.01 GB"):
        pages_within(spec, 9.5 * 2**20, 1 << 20)
    # Two workers on a GPU of 16 GB: neither counts on what the other has not taken yet.
    alone, shared = (room_bytes(15e9, 16e9, 1e9, share) for share in (None, GPU_SHARE / 2))
    assert alone == pytest.approx(13.4e9)  # 15.2 of 16 GB are allowed; 1.0 is taken, 0.8 are for a step
    assert shared == pytest.approx(5.72e9)  # 7.6 GB are its half; 0.5 CUDA's, 1.0 taken, 0.38 for a step
    assert room_bytes(1e9, 16e9, 1e9, GPU_SHARE / 2) < 1e9  # what others have taken is gone
    assert room_bytes(15e9, 16e9, 1e9, None, 0.55) == pytest.approx(7e9)  # half of 16 GB, 1.0 of it taken


def test_a_gpu_that_is_not_there_ends_the_start_with_words(tiny_llama: Path) -> None:
    """Also the way of a worker that is started afresh, as those on GPUs are."""
    import torch

    if torch.cuda.device_count() > 63:
        pytest.skip("this machine has every GPU that there is")
    plan = tiny_plan(tiny_llama, {"a": (0, 6)})
    with pytest.raises(EngineError, match=r"worker a: HelixKitError: cuda:63 is not here: torch .* sees \d+ GPUs"):
        serve(plan, tiny_llama, devices={"a": "cuda:63"})


def test_a_cpu_takes_the_pages_that_fit(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A plan for GPUs asks for pages of their memory, which this machine may not have."""
    stage = SimpleNamespace(device=SimpleNamespace(type="cpu"), page_bytes=1 << 20)

    def pages(wanted: int, **fields: object) -> int:
        fields = {"device": "cpu", "start": 0, "end": 10, "dtype": "float32", "name": "a", "links": None} | fields
        return num_pages(SimpleNamespace(num_pages=wanted, **fields), stage)  # type: ignore[arg-type]

    monkeypatch.setattr(device_memory, "available_bytes", lambda: 1000 * 2.0**20)
    assert pages(300, memory_share=None) == 300 and not caplog.records
    assert pages(31_000, memory_share=None) == 1000 * CPU_SHARE
    assert pages(31_000, memory_share=CPU_SHARE / 4) == 200
    assert "a: 200 of the plan's 31000 KV pages fit on cpu" in caplog.text and "--kv-pages" in caplog.text
    # The pages of an emulated machine stand for its memory; hardly any of them is ever written.
    assert pages(800, memory_share=CPU_SHARE / 4, links={}) == 800
    with pytest.raises(
        HelixKitError, match=r"cpu has 0.01 GB left for keys and values beside the weights of 100 layers"
    ):
        pages(31_000, memory_share=0.01, end=100)
    monkeypatch.setattr(device_memory, "available_bytes", lambda: None)
    assert pages(31_000, memory_share=None) == 31_000


def test_a_plan_with_far_more_pages_than_this_machine_holds_is_served(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 6), "b": (0, 6)}, kv_tokens_per_layer=10**12)
    with serve(plan, tiny_llama, launcher="inproc", pace=False) as engine:
        assert engine.generate("w5 w6", max_new_tokens=3).finish_reason == "length"
        assert all(0 < worker.pages < 10**11 for worker in engine.status(fresh=True).workers.values())
