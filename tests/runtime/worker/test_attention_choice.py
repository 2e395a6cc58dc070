"""The attention of a worker follows from its device, dtype, head size and what is installed; a refusal says why."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from varlen_stand_in import Varlen  # noqa: E402

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime import EngineError, serve  # noqa: E402
from helix_kit.runtime.spec import ATTENTION  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan  # noqa: E402
from helix_kit.runtime.worker import attention_choice, flashinfer, torch_kernels, varlen  # noqa: E402
from helix_kit.runtime.worker.attention_choice import (  # noqa: E402
    check_deterministic,
    choose_attention,
    kernels_for,
)
from helix_kit.runtime.worker.changed_scores import ChangedScores  # noqa: E402
from helix_kit.runtime.worker.model_layers import ModelLayers  # noqa: E402
from helix_kit.runtime.worker.static_batch import HeadShape  # noqa: E402
from helix_kit.runtime.worker.static_step import StepOptions  # noqa: E402
from helix_kit.runtime.worker.step_kernels import StepKernels  # noqa: E402

CUDA = torch.device("cuda")


def pretend(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], installed: set[str]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    for module in (attention_choice, flashinfer):
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(varlen, "torch_op", lambda: Varlen().op if "varlen" in installed else None)
    monkeypatch.setattr(varlen, "_tried", lambda op, dtype, device, head_dim, major: None)


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
        (torch.float16, 64, (9, 0), {"varlen"}, "varlen"),
        (torch.float32, 64, (9, 0), {"varlen"}, "sdpa"),
        (torch.float16, 64, (7, 5), {"varlen"}, "sdpa"),
        (torch.bfloat16, 64, (8, 0), {"flashinfer", "varlen"}, "flashinfer"),
    ],
)
def test_auto_takes_the_first_that_can_be_used(dtype, head_dim, capability, installed, chosen, monkeypatch) -> None:
    pretend(monkeypatch, capability, installed)
    found = choose_attention("auto", dtype, CUDA, head_dim=head_dim)
    assert found.name == chosen
    # Whatever stands before it in the order is named with a reason.
    passed = ATTENTION[1 : ATTENTION.index(chosen)]
    assert found.why.startswith("auto") and [part.split(":")[0] for part in found.why.split("; ")[1:]] == [
        f"no {name}" for name in passed
    ]
    assert choose_attention("sdpa", dtype, CUDA, head_dim=head_dim) == ("sdpa", "")


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
    pretend(monkeypatch, (9, 0), {"triton", "flashinfer", "varlen"})
    found = choose_attention("auto", torch.bfloat16, CUDA, head_dim=64, changed=changed)
    assert found == ("sdpa", f"auto; the kernels for GPUs compute no {changed.words}")
    for name in ("triton", "flashinfer", "varlen"):
        with pytest.raises(InputError, match=f"its kernels compute no {changed.words}"):
            choose_attention(name, torch.bfloat16, CUDA, head_dim=64, changed=changed)


@pytest.mark.parametrize(
    ("attention", "installed", "chosen"),
    [
        ("auto", {"triton", "flashinfer", "varlen"}, "triton"),
        ("auto", {"flashinfer", "varlen"}, "varlen"),
        ("varlen", {"triton", "varlen"}, "varlen"),
    ],
)
def test_what_is_deterministic_is_chosen(attention, installed, chosen, monkeypatch) -> None:
    pretend(monkeypatch, (9, 0), installed)
    found = choose_attention(attention, torch.bfloat16, CUDA, head_dim=64, deterministic=True)
    assert found.name == chosen
    heads = HeadShape(4, 2, 64)
    if "triton" not in installed:  # else Triton's module would be loaded, which this machine lacks
        kernels = kernels_for(found, CUDA, torch.bfloat16, heads, deterministic=True)
        assert kernels is not None and kernels.rms_norm is torch_kernels.rms_norm


@pytest.mark.parametrize(
    ("attention", "installed", "device", "words"),
    [
        ("flashinfer", {"flashinfer"}, "cuda", "when others are in the batch; expected triton, varlen or auto"),
        (
            "sdpa",
            {"triton"},
            "cuda",
            "sdpa computes a request differently when others are in the batch: expected a GPU",
        ),
        ("auto", {"flashinfer"}, "cuda", "no triton: it is not installed"),
        ("auto", {"triton"}, "cpu", "this worker computes on a CPU: expected a GPU on which"),
        ("triton", {"triton"}, "cpu", "this worker computes on a CPU: expected a GPU on which"),
    ],
)
def test_what_is_not_deterministic_is_refused(attention, installed, device, words, monkeypatch) -> None:
    pretend(monkeypatch, (9, 0), installed)
    with pytest.raises(InputError, match=words):
        choose_attention(attention, torch.bfloat16, torch.device(device), head_dim=64, deterministic=True)


def test_determinism_is_refused_where_rows_are_added_up_with_others(tmp_path: Path) -> None:
    moe = Checkpoint(tiny_checkpoint(tmp_path / "moe", "qwen3_moe"))
    options = StepOptions(32, kernels=StepKernels(torch_kernels), deterministic=True)
    with pytest.raises(InputError, match="take the same expert are one product"):
        ModelLayers(moe, 0, 6, options=options)
    with pytest.raises(InputError, match="GPUs that share each layer add up"):
        check_deterministic(has_experts=False, has_ranks=True)


def test_the_description_says_what_was_chosen_and_why(tiny_llama: Path) -> None:
    plain = ModelLayers(Checkpoint(tiny_llama), 0, 6, attention_backend="auto")
    assert plain.description == "attention sdpa, layers of transformers, float32"
    options = StepOptions(32, kernels=StepKernels(torch_kernels), deterministic=True)
    ours = ModelLayers(Checkpoint(tiny_llama), 0, 6, options=options)
    assert ours.description == "attention torch, fused layers, deterministic, float32"


def test_choices(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 6)})
    with pytest.raises(InputError, match="attention = 'flash': expected one of auto, triton, flashinfer, varlen, sdpa"):
        serve(plan, tiny_llama, attention="flash")
    with pytest.raises(EngineError, match="it needs a CUDA device, and this worker computes on cpu"):
        serve(plan, tiny_llama, attention="flashinfer", launcher="inproc")
    with pytest.raises(EngineError, match="deterministic = True: this worker computes on a CPU"):
        serve(plan, tiny_llama, deterministic=True, launcher="inproc")
    with serve(plan, tiny_llama, attention="auto", launcher="inproc", pace=False) as engine:
        assert len(engine.generate([5, 6], max_new_tokens=3, ignore_eos=True).token_ids) == 3
