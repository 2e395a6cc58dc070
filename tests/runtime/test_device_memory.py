"""What a worker may take of a GPU, worked out without a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from helix_kit.errors import HelixKitError
from helix_kit.runtime import EngineError, serve
from helix_kit.runtime.device_memory import GPU_SHARE, pages_within, room_bytes
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


def test_a_gpu_that_is_not_there_ends_the_start_with_words(tiny_llama: Path) -> None:
    """Also the way of a worker that is started afresh, as those on GPUs are."""
    import torch

    if torch.cuda.device_count() > 63:
        pytest.skip("this machine has every GPU that there is")
    plan = tiny_plan(tiny_llama, {"a": (0, 6)})
    with pytest.raises(EngineError, match=r"worker a: HelixKitError: cuda:63 is not here: torch .* sees \d+ GPUs"):
        serve(plan, tiny_llama, devices={"a": "cuda:63"})
