"""Steps in the arguments of torch's `varlen_attn`. A stand-in in numpy computes what its documentation says.

The kernels themselves are tested on a GPU (test_gpu.py).
"""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from step_schedule import SCHEDULE, run_schedule  # noqa: E402
from varlen_stand_in import Varlen  # noqa: E402

from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.tiny import UNUSUAL, tiny_checkpoint  # noqa: E402
from helix_kit.runtime.worker import torch_kernels, varlen  # noqa: E402
from helix_kit.runtime.worker.kv_cache import BlockTable  # noqa: E402
from helix_kit.runtime.worker.model_layers import ModelLayers, RequestRows  # noqa: E402
from helix_kit.runtime.worker.static_batch import LayerCache, StaticBatch  # noqa: E402
from helix_kit.runtime.worker.static_step import StepOptions  # noqa: E402
from helix_kit.runtime.worker.step_kernels import StepKernels  # noqa: E402
from helix_kit.runtime.worker.varlen import VarlenAttention, why_wrong  # noqa: E402

CPU = torch.device("cpu")


def test_the_stand_in_has_the_signature_of_torch() -> None:
    """A torch that changes it is noticed here."""
    op = varlen.torch_op()
    assert op is not None, "torch has no varlen_attn with block tables any more"
    ours, theirs = inspect.signature(Varlen().op), inspect.signature(op)
    assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
        (p.name, p.kind, p.default) for p in theirs.parameters.values()
    ]


@pytest.mark.parametrize("is_decode", [True, False])
def test_torch_itself_takes_the_arguments(is_decode: bool) -> None:
    """torch's own function over tensors without data, which computes shapes and checks types."""

    def ints(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.int32, device="meta")

    keys = torch.empty(30, 16, 2, 64, dtype=torch.bfloat16, device="meta")
    batch = StaticBatch(
        positions=ints(8), table_rows=ints(8), rotary_tokens=ints(8), block_starts=ints(9), block_sizes=ints(9),
        block_rows=8, is_decode=is_decode, pool=None, tables=None, start=0, kernels=None,
    )  # fmt: skip
    cache = LayerCache(keys, keys, ints(5, 4), batch.table_rows, batch.positions)
    query = torch.empty(8, 6, 64, dtype=torch.bfloat16, device="meta")
    for flag in (False, True):
        attention = VarlenAttention(varlen.torch_op(), deterministic=flag, gives_lengths=flag)
        for window in (None, 12):
            assert attention.attend(query, cache, batch, 0.5, window).shape == (8, 6, 64)


@pytest.mark.parametrize(
    ("family", "special"),
    [
        ("llama", {}),
        ("llama", {"num_attention_heads": 4, "num_key_value_heads": 4}),
        ("llama", {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 96}),
        ("mistral", {"sliding_window": 12}),
        ("granite", UNUSUAL.get("granite", {})),
        ("olmo3", UNUSUAL.get("olmo3", {})),
    ],
)
def test_equal_to_sdpa(family: str, special: dict, tmp_path: Path) -> None:
    """Chunks beside decodes, requests that enter mid-range and leave early, windows, scales, heads that share keys."""
    checkpoint = Checkpoint(tiny_checkpoint(tmp_path / "model", family, seed=3, **special))
    expected = run_schedule(ModelLayers(checkpoint, 0, 6), SCHEDULE)
    wants_lengths = family == "llama"
    stand_in = Varlen(wants_lengths=wants_lengths)
    kernels = StepKernels(torch_kernels, VarlenAttention(stand_in.op, gives_lengths=wants_lengths))
    model = ModelLayers(checkpoint, 0, 6, options=StepOptions(32, kernels=kernels))
    assert model.attention == "varlen"
    found = run_schedule(model, SCHEDULE)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert {call["num_splits"] for call in stand_in.calls} == {None}
    # The model's contexts end at 512 tokens: 32 pages. A graph must not depend on the lengths of a step.
    assert {call["max_k"] for call in stand_in.calls} == {512}
    windows = {call["window_size"] for call in stand_in.calls}
    if family == "mistral":
        assert windows == {(11, 0)}  # eleven tokens before a row's own
    elif family == "llama":
        assert windows == {(-1, -1), (-1, 0)}  # a decode is the last row of its sequence: it needs no mask


def test_deterministic_runs_are_all_alike(tiny_llama: Path) -> None:
    """One size of all runs, contexts in one part, the same mask: nothing tells the kernel what else is in the batch."""
    stand_in = Varlen()
    kernels = StepKernels(torch_kernels, VarlenAttention(stand_in.op, deterministic=True))
    model = ModelLayers(Checkpoint(tiny_llama), 0, 6, options=StepOptions(32, kernels=kernels, deterministic=True))
    for ours, theirs in zip(
        run_schedule(model, SCHEDULE), run_schedule(ModelLayers(Checkpoint(tiny_llama), 0, 6), SCHEDULE), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert {tuple(call.items()) for call in stand_in.calls} == {
        (("max_q", 32), ("max_k", 512), ("window_size", (-1, 0)), ("num_splits", 1), ("scale", 0.25))
    }


def steps_of(model: ModelLayers, parts: list[int], beside: int) -> list[torch.Tensor]:
    """Hidden states and logits of one request in steps of `parts` rows, with `beside` other requests before it."""
    own, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    pool, table = model.new_pool(400), BlockTable(6)
    others, found = [BlockTable(6) for _ in range(beside)], []
    hidden = torch.randn(sum(parts), model.hidden_size, generator=own)
    for step, rows in enumerate(hidden.split(parts)):
        batch = []
        for index, before in enumerate(others):
            tokens = 1 if (step + index) % 2 else 5
            position = before.num_tokens
            before.grow(pool, tokens)
            batch.append(RequestRows(before, torch.randn(tokens, model.hidden_size, generator=other), position, 0, 6))
        position = table.num_tokens
        table.grow(pool, len(rows))
        result = model.run(pool, [*batch, RequestRows(table, rows, position, 0, 6)])
        found.append(result[-1].clone())
        last = torch.stack([rows[-1] for rows in result])
        found.append(model.logits(last)[-1:].clone())
    return found


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 9), st.lists(st.integers(1, 24), min_size=1, max_size=4))
def test_a_request_gets_the_same_bits_beside_any_others(tiny_llama: Path, beside: int, cuts: list[int]) -> None:
    """However many requests are in its steps, and however its prompt of 40 tokens is cut into chunks."""
    kernels = StepKernels(torch_kernels, VarlenAttention(Varlen().op, deterministic=True))
    model = ModelLayers(Checkpoint(tiny_llama), 0, 6, options=StepOptions(32, kernels=kernels, deterministic=True))
    chunks = [cut for index, cut in enumerate(cuts) if sum(cuts[: index + 1]) < 40]
    chunks.append(40 - sum(chunks))
    alone, among = steps_of(model, [40, 1, 1], 0), steps_of(model, [*chunks, 1, 1], beside)
    assert torch.equal(alone[0], torch.cat(among[0 : 2 * len(chunks) : 2]))
    assert all(torch.equal(a, b) for a, b in zip(alone[1:], among[2 * len(chunks) - 1 :], strict=True))


def test_a_small_step_shows_what_torch_takes() -> None:
    """Without an implementation that was activated, the arguments are those that FlashAttention 2 wants."""
    assert why_wrong(Varlen(wants_lengths=True).op, torch.float32, CPU, 16) is None
    refusal = "torch says: Paged KV cache block size must be divisible by 256"
    assert why_wrong(Varlen(256, wants_lengths=True).op, torch.float32, CPU, 16) == refusal

    right = Varlen(wants_lengths=True).op

    def without_window(*args, window_size, **options):
        return right(*args, window_size=(-1, window_size[1]), **options)

    reason = why_wrong(without_window, torch.float32, CPU, 16)
    assert reason is not None and reason.startswith("torch's results over pages of 16 tokens are wrong by")

    def broken(*args, **options):
        return right(*args, **options) * float("nan")

    assert why_wrong(broken, torch.float32, CPU, 16) == "torch's results over pages of 16 tokens are wrong by nan"


def pretend(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], stand_in: Varlen, packages: set[str]
) -> list[str]:
    """A GPU of a capability, a torch with this op, and the implementations whose packages are installed.

    Returns those that are active.
    """
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    op = stand_in.op
    monkeypatch.setattr(varlen, "torch_op", lambda: op)
    real = varlen.why_wrong
    monkeypatch.setattr(varlen, "why_wrong", lambda op, dtype, device, dim: real(op, torch.float32, CPU, dim))

    active: list[str] = []

    def activate(name: str) -> None:
        if name not in packages:
            raise ModuleNotFoundError(name)
        active.append(name)
        stand_in.wants_lengths = False
        if name == "FA3":  # takes pages of any size
            stand_in.page_tokens = None

    monkeypatch.setattr(torch.nn.attention, "activate_flash_attention_impl", activate)
    monkeypatch.setattr(torch.nn.attention, "restore_flash_attention_impl", active.clear)
    monkeypatch.setattr(torch.nn.attention, "current_flash_attention_impl", lambda: active[-1] if active else None)
    return active


@pytest.mark.parametrize(
    ("capability", "page_tokens", "packages", "reason"),
    [
        ((8, 0), None, set(), None),
        ((9, 0), 256, {"FA3"}, None),
        ((8, 0), 256, {"FA3"}, "torch says: Paged KV cache block size must be divisible by 256"),
        ((9, 0), 256, set(), "must be divisible by 256 (FA3, an own package, is not installed)"),
        ((10, 0), 256, {"FA4"}, "with FA4 torch says: Paged KV cache block size must be divisible by 256"),
        ((7, 5), None, set(), "it needs compute capability 8.0, and a GPU has 7.5"),
    ],
)
def test_what_a_card_and_its_torch_allow(capability, page_tokens, packages, reason, monkeypatch) -> None:
    active = pretend(monkeypatch, capability, Varlen(page_tokens, wants_lengths=True), packages)
    found = varlen.why_unavailable(torch.bfloat16, torch.device("cuda"), 64)
    assert found == reason or (reason is not None and str(found).endswith(reason))
    # What does not help is not left active: it would change other attention of this process.
    assert active == (["FA3"] if found is None and packages else [])


def test_what_its_kernels_lack_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (9, 0), Varlen(), set())
    cuda = torch.device("cuda")
    assert "needs a CUDA device" in varlen.why_unavailable(torch.bfloat16, CPU, 64)
    assert "compute in float16 and bfloat16, not float32" in varlen.why_unavailable(torch.float32, cuda, 64)
    assert "a multiple of 8 and at most 256 values, the model's have 20" in varlen.why_unavailable(
        torch.float16, cuda, 20
    )
    assert "the model's have 512" in varlen.why_unavailable(torch.float16, cuda, 512)
    monkeypatch.setattr(varlen, "torch_op", lambda: None)
    assert "no varlen_attn with block tables, which torch 2.13 has" in varlen.why_unavailable(torch.float16, cuda, 64)


def test_an_older_torch_has_no_block_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.nn.attention.varlen as module

    def older(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None, scale=None):
        raise AssertionError("not called")

    monkeypatch.setattr(module, "varlen_attn", older)
    assert varlen.torch_op() is None
    monkeypatch.delattr(module, "varlen_attn")
    assert varlen.torch_op() is None
