"""The same checks with workers on a CUDA device; run by `make test-gpu` where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime import serve  # noqa: E402
from helix_kit.runtime.profile import measure  # noqa: E402
from helix_kit.runtime.tiny import tiny_plan  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
PROMPTS = [[5, 6, 7], [9] * 40, [11, 12], [30] * 17]
PLACEMENT = {"a": (0, 4), "b": (2, 6)}


def test_greedy_tokens_are_those_of_the_cpu(tiny_llama: Path) -> None:
    """Workers that share a GPU, chunked prefill, a request that enters a range in the middle."""
    answers = []
    for gpu in ("CPU-fast", "T4"):  # the catalogue's T4 is placed on whatever GPU is there
        plan = tiny_plan(tiny_llama, PLACEMENT, gpu=gpu)
        with serve(plan, tiny_llama, pace=False, chunk_tokens=8) as engine:
            answers.append([a.token_ids for a in engine.generate(PROMPTS, max_new_tokens=12, ignore_eos=True)])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_measures_the_device(tiny_llama: Path, dtype: str) -> None:
    found = measure(tiny_llama, kind="gpu", device="cuda:0", dtype=dtype, repeats=3)
    assert found.facts["device"] == torch.cuda.get_device_name(0)
    assert all(0 < point.low_ms <= point.ms_per_layer <= point.high_ms for point in found.points)
