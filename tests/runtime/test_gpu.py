"""What only a CUDA device can show; run by `make test-gpu` where there is one.

A worker on a GPU is a fresh process that takes 10 to 15 s to load its libraries. So tests that serve share one engine,
the CPU's answers come from threads of this process, and everything else runs in this process.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime import Engine, devices, serve  # noqa: E402
from helix_kit.runtime.device_memory import GPU_SHARE  # noqa: E402
from helix_kit.runtime.profile import measure  # noqa: E402
from helix_kit.runtime.spec import ATTENTION  # noqa: E402
from helix_kit.runtime.transport.messages import RunMessage, WorkItem  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan  # noqa: E402
from helix_kit.runtime.worker import varlen  # noqa: E402
from helix_kit.runtime.worker.attention_choice import DETERMINISTIC  # noqa: E402
from helix_kit.runtime.worker.flashinfer import why_unavailable  # noqa: E402
from helix_kit.runtime.worker.kv_cache import BlockTable  # noqa: E402
from helix_kit.runtime.worker.model_layers import ModelLayers, RequestRows  # noqa: E402
from helix_kit.runtime.worker.row_copies import RowCopies  # noqa: E402
from helix_kit.runtime.worker.static_step import StepOptions  # noqa: E402
from helix_kit.runtime.worker.transfer import joined_on_device, to_device, to_host  # noqa: E402
from helix_kit.runtime.worker.wire_tensors import from_wire, to_wire  # noqa: E402

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPUS, reason="no CUDA device on this machine"),
]
two_gpus = pytest.mark.skipif(GPUS < 2, reason=f"needs two CUDA devices, this machine has {GPUS}")
needs_flashinfer = pytest.mark.skipif(
    importlib.util.find_spec("flashinfer") is None, reason="FlashInfer is not installed"
)
PROMPTS = [[5, 6, 7], [9] * 40, [11, 12], [30] * 17]
PLACEMENT = {"a": (0, 4), "b": (2, 6)}
OPTIONS = {"max_new_tokens": 12, "ignore_eos": True}


@pytest.fixture(scope="module", autouse=True)
def exact_float32():
    """TensorFloat-32 would round products to ten bits; greedy equality is a test of float32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="session")
def wide_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose heads FlashInfer has kernels for: 64 values, three query heads a key head."""
    sizes = {"hidden_size": 384, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64}
    return tiny_checkpoint(tmp_path_factory.mktemp("wide") / "llama", **sizes)


@pytest.fixture(scope="module")
def on_cpu(tiny_llama: Path) -> list[list[int]]:
    """The answers of two workers on the CPU; they are threads, which start at once."""
    plan = tiny_plan(tiny_llama, PLACEMENT)
    with serve(plan, tiny_llama, launcher="inproc", pace=False, devices="cpu") as engine:
        return [a.token_ids for a in engine.generate(PROMPTS, **OPTIONS)]


@pytest.fixture(scope="module")
def shared_gpu(tiny_llama: Path) -> Iterator[Engine]:
    """Two workers on one GPU, each promised more KV pages than the GPU has memory for."""
    plan = tiny_plan(tiny_llama, PLACEMENT, kv_tokens_per_layer=1 << 26)
    where = {"a": "cuda:0", "b": "cuda:0"}
    with serve(plan, tiny_llama, pace=False, chunk_tokens=8, devices=where) as engine:
        yield engine


def run_steps(stage: ModelLayers) -> list[torch.Tensor]:
    """Two requests over different parts of the range: chunks, decodes, both together; hidden states on the host."""
    generator = torch.Generator().manual_seed(2)
    pool, tables, found = stage.new_pool(200), {}, []
    for step in ([(0, 19)], [(0, 14), (1, 16)], [(1, 5), (0, 1)], [(0, 1), (1, 1)], [(1, 3), (0, 1)]):
        batch = []
        for request, tokens in step:
            table = tables.setdefault(request, BlockTable(6 - 2 * request))
            position = table.num_tokens
            table.grow(pool, tokens)
            hidden = torch.randn(tokens, stage.hidden_size, generator=generator).to(stage.device, stage.dtype)
            batch.append(RequestRows(table, hidden, position, 2 * request, 6))
        found += [rows.float().cpu() for rows in stage.run(pool, batch)]
    return found


def worst_error(got: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Largest mean difference of a step's rows, in parts of their spread."""
    return max(float((a - b).abs().mean() / b.std()) for a, b in zip(got, expected, strict=True))


def test_greedy_tokens_are_those_of_the_cpu(shared_gpu: Engine, on_cpu: list[list[int]]) -> None:
    """Two workers that share the GPU, chunked prefill, a request that enters a range in the middle."""
    assert [a.token_ids for a in shared_gpu.generate(PROMPTS, **OPTIONS)] == on_cpu


def test_workers_that_share_a_gpu_share_its_memory(shared_gpu: Engine) -> None:
    """KV pages that do not fit beside the other worker's are not promised."""
    pages = {name: worker.pages for name, worker in shared_gpu.status().workers.items()}
    page_bytes = 2 * 16 * 2 * 16 * 4  # keys and values, tokens, kv heads, head dim, float32
    total = torch.cuda.get_device_properties(0).total_memory
    assert 0.2 * total < sum(pages.values()) * page_bytes < GPU_SHARE * total
    assert max(pages.values()) < 1.2 * min(pages.values())


@pytest.mark.parametrize("attention", [name for name in ATTENTION if name != "flashinfer"])
def test_float32_layers_equal_those_of_the_cpu(tiny_llama: Path, attention: str) -> None:
    checkpoint = Checkpoint(tiny_llama)
    here = run_steps(ModelLayers(checkpoint, 0, 6))
    try:
        on_gpu = ModelLayers(checkpoint, 0, 6, device="cuda:0", attention_backend=attention)
    except InputError as error:
        pytest.skip(str(error))
    assert all((a - b).abs().max() <= 1e-3 for a, b in zip(run_steps(on_gpu), here, strict=True))


@pytest.mark.parametrize("dtype, bits", [("float16", 11), ("bfloat16", 8)])
def test_half_precision_is_close(wide_llama: Path, dtype: str, bits: int) -> None:
    checkpoint = Checkpoint(wide_llama)
    exact = run_steps(ModelLayers(checkpoint, 0, 6))
    assert (
        worst_error(run_steps(ModelLayers(checkpoint, 0, 6, dtype=dtype, device="cuda:0")), exact) < 32 * 2.0**-bits
    )  # on a CPU: about 21


def test_copies_are_pinned() -> None:
    device = torch.device("cuda:0")
    rows = torch.randn(6, 4, device=device, dtype=torch.bfloat16)
    host = to_host(rows[:, ::2])
    assert host.is_pinned() and host.is_contiguous() and torch.equal(host, rows[:, ::2].cpu())
    data, name = to_wire(rows)
    back = to_device(from_wire(RunMessage([WorkItem(1, 0, 0, 6, False)], name, (6, 4), data)), device)
    assert back.device == device and torch.equal(back, rows)
    parts = [torch.randn(n, 3) for n in (1, 5, 2)]
    for _ in range(50):  # pinned blocks are used again, but not before they have been read
        joined = joined_on_device(parts, device)
        joined_on_device([-p for p in parts], device)
        assert torch.equal(joined.cpu(), torch.cat(parts))


@needs_flashinfer
@pytest.mark.parametrize("family, special", [("llama", {}), ("mistral", {"sliding_window": 12})])
@pytest.mark.parametrize("dtype, heads", [("bfloat16", 6), ("bfloat16", 8), ("float16", 8)])
def test_flashinfer_equals_sdpa(dtype: str, family: str, special: dict, heads: int, tmp_path: Path) -> None:
    """With three and with four query heads a key head: with and without tensor cores in decoding."""
    sizes = {"hidden_size": 384, "num_attention_heads": heads, "num_key_value_heads": 2, "head_dim": 64, **special}
    checkpoint = Checkpoint(tiny_checkpoint(tmp_path / family, family, seed=3, **sizes))
    if reason := why_unavailable(getattr(torch, dtype), torch.device("cuda:0"), 64):
        pytest.skip(reason)
    exact = run_steps(ModelLayers(checkpoint, 0, 6))
    errors = []
    for attention in ("sdpa", "flashinfer"):
        stage = ModelLayers(checkpoint, 0, 6, dtype=dtype, device="cuda:0", attention_backend=attention)
        assert stage.attention == attention and stage.uses_graphs == (attention == "flashinfer")
        errors.append(worst_error(run_steps(stage), exact))
    assert errors[1] < 1.5 * errors[0] + 1e-3
    # Decodes were replays of graphs, planned before each. Eagerly they give the same.
    options = StepOptions(graphs=False)
    eager = ModelLayers(checkpoint, 0, 6, dtype=dtype, device="cuda:0", attention_backend="flashinfer", options=options)
    assert worst_error(run_steps(stage), run_steps(eager)) < 0.1 * errors[0] + 1e-3


@pytest.mark.parametrize("family, special", [("llama", {}), ("mistral", {"sliding_window": 12})])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_varlen_equals_sdpa(dtype: str, family: str, special: dict, tmp_path: Path) -> None:
    """torch's own attention over pages, where this torch and this card take pages of 16 tokens."""
    sizes = {"hidden_size": 384, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64, **special}
    checkpoint = Checkpoint(tiny_checkpoint(tmp_path / family, family, seed=3, **sizes))
    if reason := varlen.why_unavailable(getattr(torch, dtype), torch.device("cuda:0"), 64):
        pytest.skip(reason)
    exact = run_steps(ModelLayers(checkpoint, 0, 6))
    errors = []
    for attention in ("sdpa", "varlen"):
        stage = ModelLayers(checkpoint, 0, 6, dtype=dtype, device="cuda:0", attention_backend=attention)
        assert stage.attention == attention and stage.uses_graphs == (attention == "varlen")
        errors.append(worst_error(run_steps(stage), exact))
    assert errors[1] < 1.5 * errors[0] + 1e-3


def steps_among(stage: ModelLayers, others: int) -> list[torch.Tensor]:
    """Rows and logits of one request of 43 tokens among others, whose prompt is cut elsewhere if there are any."""
    own, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    pool, tables, rows, logits = stage.new_pool(2000), [BlockTable(6) for _ in range(others + 1)], [], []
    hidden = torch.randn(43, stage.hidden_size, generator=own)
    for step, part in enumerate(hidden.split([9, 31, 1, 1, 1] if others else [40, 1, 1, 1])):
        batch = []
        for index, table in enumerate(tables):
            tokens = 1 + 4 * ((step + index) % 2)
            new = part if index == others else torch.randn(tokens, stage.hidden_size, generator=other)
            position = table.num_tokens
            table.grow(pool, len(new))
            batch.append(RequestRows(table, new.to(stage.device, stage.dtype), position, 0, 6))
        results = stage.run(pool, batch)
        rows.append(results[-1].cpu().clone())
        logits.append(stage.logits(torch.stack([result[-1] for result in results]))[-1].cpu())
    return [torch.cat(rows), *logits[-4:]]


@pytest.mark.parametrize("attention", DETERMINISTIC)
def test_deterministic_steps_have_the_same_bits(wide_llama: Path, attention: str) -> None:
    """In two runs, and whatever else is in the batch."""
    if attention == "varlen" and (reason := varlen.why_unavailable(torch.bfloat16, torch.device("cuda:0"), 64)):
        pytest.skip(reason)
    options = StepOptions(deterministic=True)
    stage = ModelLayers(
        Checkpoint(wide_llama), 0, 6, dtype="bfloat16", device="cuda:0", attention_backend=attention, options=options
    )
    for first, second in ((run_steps(stage), run_steps(stage)), (steps_among(stage, 0), steps_among(stage, 33))):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_rows_leave_while_the_next_step_writes_over_them() -> None:
    """The copies run on a stream of their own; the buffer that they come from is written again at once."""
    device = torch.device("cuda:0")
    copies, buffer = RowCopies(device), torch.zeros(512, 4096, dtype=torch.bfloat16, device=device)
    started = []
    for step in range(50):
        buffer.fill_(step)
        started.append((step, copies.start(buffer), copies.start(buffer[:3]), copies.mark()))
        if step >= 2:
            number, *rows, copied = started.pop(0)
            copied.synchronize()
            assert all(host.is_pinned() and (host == number).all() for host in rows)


@needs_flashinfer
def test_flashinfer_serves(wide_llama: Path) -> None:
    plan = tiny_plan(wide_llama, PLACEMENT)
    where = {"a": "cuda:0", "b": "cuda:0"}
    with serve(plan, wide_llama, pace=False, devices=where, dtype="float16", attention="flashinfer") as engine:
        answers = engine.generate(PROMPTS, **OPTIONS)
        assert all(len(a.token_ids) == 12 for a in answers)


@two_gpus
def test_two_gpus_in_one_node(tiny_llama: Path, on_cpu: list[list[int]]) -> None:
    plan = tiny_plan(tiny_llama, PLACEMENT)
    with serve(plan, tiny_llama, pace=False, devices={"a": ["cuda:0", "cuda:1"], "b": ["cuda:1", "cuda:0"]}) as engine:
        assert set(engine.status().workers) == {"a/0", "a/1", "b/0", "b/1"}
        assert [a.token_ids for a in engine.generate(PROMPTS, **OPTIONS)] == on_cpu


def test_the_machine_is_listed(tiny_llama: Path) -> None:
    found = devices.find_gpus()
    assert [gpu.name for gpu in found] == [torch.cuda.get_device_name(i) for i in range(GPUS)]
    plan = tiny_plan(tiny_llama, PLACEMENT, gpu="T4")
    assigned = devices.assign_devices(plan, "any", find_gpus=lambda: found)
    assert assigned == {"a": ("cuda:0",), "b": (f"cuda:{min(1, GPUS - 1)}",)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_measures_the_device(tiny_llama: Path, dtype: str) -> None:
    found = measure(tiny_llama, kind="gpu", device="cuda:0", dtype=dtype, repeats=3)
    assert found.facts["device"] == torch.cuda.get_device_name(0)
    assert all(0 < point.low_ms <= point.ms_per_layer <= point.high_ms for point in found.points)
