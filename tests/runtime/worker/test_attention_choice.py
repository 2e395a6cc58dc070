"""The attention of a worker follows from its device, dtype, head size and what is installed; a refusal says why."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime import EngineError, serve  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_plan  # noqa: E402
from helix_kit.runtime.worker import attention_choice, flashinfer  # noqa: E402
from helix_kit.runtime.worker.attention_choice import choose_attention  # noqa: E402
from helix_kit.runtime.worker.changed_scores import ChangedScores  # noqa: E402

CUDA = torch.device("cuda")


def pretend(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], installed: set[str]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    for module in (attention_choice, flashinfer):
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name if name in installed else None)


@pytest.mark.parametrize(
    "dtype, head_dim, capability, installed, chosen",
    [
        (torch.bfloat16, 128, (9, 0), {"triton", "flashinfer"}, "triton"),
        (torch.float32, 80, (8, 6), {"triton"}, "triton"),
        (torch.float16, 128, (8, 0), {"flashinfer"}, "flashinfer"),
        (torch.bfloat16, 128, (7, 5), {"triton", "flashinfer"}, "sdpa"),
        (torch.float16, 80, (8, 0), {"flashinfer"}, "sdpa"),
        (torch.float16, 512, (9, 0), {"triton", "flashinfer"}, "sdpa"),
        (torch.float16, 64, (9, 0), set(), "sdpa"),
    ],
)
def test_auto_takes_the_first_that_can_be_used(dtype, head_dim, capability, installed, chosen, monkeypatch) -> None:
    pretend(monkeypatch, capability, installed)
    assert choose_attention("auto", dtype, CUDA, head_dim=head_dim) == chosen
    assert choose_attention("sdpa", dtype, CUDA, head_dim=head_dim) == "sdpa"


@pytest.mark.parametrize(
    "attention, dtype, head_dim, capability, words",
    [
        ("flashinfer", torch.float32, 64, (8, 0), "compute in float16 and bfloat16, not float32"),
        ("flashinfer", torch.float16, 80, (8, 0), "heads of 64, 128, 256 values, the model's have 80"),
        ("flashinfer", torch.float16, 64, (7, 0), "in float16 it needs compute capability 7.5, and a GPU has 7.0"),
        ("flashinfer", torch.bfloat16, 64, (7, 5), "in bfloat16 it needs compute capability 8.0, and a GPU has 7.5"),
        ("flashinfer", torch.float16, 64, (7, 5), r"not installed: pip install 'helix-kit\[flashinfer\]'"),
        ("triton", torch.float16, 512, (8, 0), "heads of at most 256 values, the model's have 512"),
        ("triton", torch.bfloat16, 64, (7, 5), "in bfloat16 it needs compute capability 8.0, and a GPU has 7.5"),
        ("triton", torch.float32, 64, (7, 0), "in float32 it needs compute capability 7.5, and a GPU has 7.0"),
        ("triton", torch.float16, 64, (9, 0), "not installed: pip install triton"),
    ],
)
def test_what_is_in_the_way_is_said(attention, dtype, head_dim, capability, words, monkeypatch) -> None:
    pretend(monkeypatch, capability, set())
    with pytest.raises(InputError, match=words):
        choose_attention(attention, dtype, CUDA, head_dim=head_dim)


@pytest.mark.parametrize("changed", [ChangedScores(softcap=5.0), ChangedScores(sinks=torch.zeros(4))])
def test_changed_scores_are_left_to_torch(changed: ChangedScores, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (9, 0), {"triton", "flashinfer"})
    assert choose_attention("auto", torch.bfloat16, CUDA, head_dim=64, changed=changed) == "sdpa"
    for name in ("triton", "flashinfer"):
        with pytest.raises(InputError, match=f"its kernels compute no {changed.words}"):
            choose_attention(name, torch.bfloat16, CUDA, head_dim=64, changed=changed)


def test_choices(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 6)})
    with pytest.raises(InputError, match="attention = 'flash': expected one of auto, triton, flashinfer, sdpa"):
        serve(plan, tiny_llama, attention="flash")
    with pytest.raises(EngineError, match="it needs a CUDA device, and this worker computes on cpu"):
        serve(plan, tiny_llama, attention="flashinfer", launcher="inproc")
    with serve(plan, tiny_llama, attention="auto", launcher="inproc", pace=False) as engine:
        assert len(engine.generate([5, 6], max_new_tokens=3, ignore_eos=True).token_ids) == 3
