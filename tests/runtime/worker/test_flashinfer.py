"""Steps in the arrays of FlashInfer. A stand-in in numpy computes what FlashInfer's documentation says.

The kernels themselves are tested on a GPU (test_gpu.py).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from step_schedule import SCHEDULE, run_schedule  # noqa: E402

from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.tiny import UNUSUAL, tiny_checkpoint  # noqa: E402
from helix_kit.runtime.worker import torch_kernels  # noqa: E402
from helix_kit.runtime.worker.flashinfer import FlashInferAttention, about_compiling, page_arrays  # noqa: E402
from helix_kit.runtime.worker.kv_cache import BlockTable, PagedRows, PagePool  # noqa: E402
from helix_kit.runtime.worker.model_layers import ModelLayers, RequestRows  # noqa: E402
from helix_kit.runtime.worker.static_batch import DeviceTables, HeadShape  # noqa: E402
from helix_kit.runtime.worker.static_step import StaticStep, StepOptions  # noqa: E402
from helix_kit.runtime.worker.step_kernels import StepKernels  # noqa: E402


class Wrapper:
    """Both wrappers in numpy: `plan` keeps its arguments, `run` follows the page table of each request."""

    keeps = True
    """Whether `run` reads the very tensor of indices that `plan` was given, as the library does today."""
    in_graph = False
    """Whether a graph is being captured or replayed: nothing is planned then, and no wrapper is made."""
    made: ClassVar[list[Wrapper]] = []

    def __init__(self, workspace, kv_layout: str, backend: str) -> None:
        assert kv_layout == "NHD" and backend == "fa2" and workspace.dtype == torch.uint8
        assert not self.in_graph
        self.plans = 0
        self.made.append(self)

    def _plan(self, qo_indptr, indptr, indices, last_page_len, shape, options):
        assert not self.in_graph, "plan cannot be captured"
        for given in (qo_indptr, indptr, indices, last_page_len):
            assert given.dtype == torch.int32 and given.dim() == 1
        assert len(indptr) == len(last_page_len) + 1 == len(qo_indptr) and len(indices) == indptr[-1]
        assert last_page_len.min() >= 1 and last_page_len.max() <= 16 and shape[-1] == 16
        self._qo_indptr, self._shape, self._options = qo_indptr.numpy().copy(), shape, options
        self.plans += 1

    def run(self, query, cache):
        keys, values = (store.numpy() for store in cache)
        qo, indptr, last = self._qo_indptr, self._paged_kv_indptr_buf.numpy(), self._paged_kv_last_page_len_buf.numpy()
        heads, kv_heads, dim, page_size = self._shape
        assert keys.shape[1:] == (page_size, kv_heads, dim) and query.shape == (qo[-1], heads, dim)
        scale = self._options["sm_scale"] or dim**-0.5
        window_left = self._options["window_left"]
        pages, out = self._paged_kv_indices_buf.numpy(), np.empty(query.shape, np.float32)
        for r in range(len(last)):
            mine = pages[indptr[r] : indptr[r + 1]]
            seen = (len(mine) - 1) * page_size + last[r]
            k, v = (store[mine].reshape(-1, kv_heads, dim)[:seen] for store in (keys, values))
            for row in range(qo[r], qo[r + 1]):
                at = seen - (qo[r + 1] - row)  # causal masks are aligned to the end
                low = max(0, at - window_left) if window_left >= 0 else 0
                for head in range(heads):
                    kv_head = head // (heads // kv_heads)
                    scores = k[low : at + 1, kv_head] @ query[row, head].numpy() * scale
                    weights = np.exp(scores - scores.max())
                    out[row, head] = weights / weights.sum() @ v[low : at + 1, kv_head]
        return torch.from_numpy(out)


class Decode(Wrapper):
    """With ``use_cuda_graph``: the batch size is that of the buffers, and `run` reads them alone."""

    def __init__(
        self, workspace, kv_layout="NHD", use_cuda_graph=False, use_tensor_cores=False, paged_kv_indptr_buffer=None,
        paged_kv_indices_buffer=None, paged_kv_last_page_len_buffer=None, backend="auto",
    ) -> None:  # fmt: skip
        super().__init__(workspace, kv_layout, backend)
        assert use_cuda_graph and len(paged_kv_indptr_buffer) == len(paged_kv_last_page_len_buffer) + 1
        self._paged_kv_indptr_buf, self._paged_kv_indices_buf = paged_kv_indptr_buffer, paged_kv_indices_buffer
        self._paged_kv_last_page_len_buf = paged_kv_last_page_len_buffer
        self.rows, self.tensor_cores = len(paged_kv_last_page_len_buffer), use_tensor_cores

    def plan(self, indptr, indices, last_page_len, heads, kv_heads, head_dim, page_size, **options):
        assert len(last_page_len) == self.rows and len(indices) <= len(self._paged_kv_indices_buf)
        self._paged_kv_indptr_buf.copy_(indptr)
        self._paged_kv_last_page_len_buf.copy_(last_page_len)
        self._paged_kv_indices_buf[: len(indices)].copy_(indices)
        # One query a request, at its last token: all that it has is visible.
        rows = torch.arange(len(indptr), dtype=torch.int32)
        self._plan(rows, indptr, indices, last_page_len, (heads, kv_heads, head_dim, page_size), options)


class Prefill(Wrapper):
    def __init__(self, workspace, kv_layout="NHD", use_cuda_graph=False, backend="auto") -> None:
        assert not use_cuda_graph
        super().__init__(workspace, kv_layout, backend)

    def plan(self, qo_indptr, indptr, indices, last, heads, kv_heads, head_dim, page_size, causal=False, **options):
        assert causal
        self._paged_kv_indptr_buf, self._paged_kv_last_page_len_buf = indptr.clone(), last.clone()
        self._paged_kv_indices_buf = indices if self.keeps else indices.clone()
        self._plan(qo_indptr, indptr, indices, last, (heads, kv_heads, head_dim, page_size), options)


LIBRARY = SimpleNamespace(BatchDecodeWithPagedKVCacheWrapper=Decode, BatchPrefillWithPagedKVCacheWrapper=Prefill)


class Replay:
    """Stands for a captured graph: it runs what was captured, and refuses what a graph cannot hold."""

    def __init__(self, step: StaticStep, key: tuple[int, int, int, bool]) -> None:
        self._step, self._key = step, key

    def replay(self) -> None:
        Wrapper.in_graph = True
        try:
            self._step._run(*self._key)
        finally:
            Wrapper.in_graph = False


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int, bool]]:
    """What is captured: segment, rows, and whether all of them decode. Steps on a CPU then take the way of graphs."""
    keys: list[tuple[int, int, int, bool]] = []

    def capture(step: StaticStep, *key: Any) -> Replay:
        keys.append(key)
        step._run(*key)  # as before a real capture
        return Replay(step, key)

    monkeypatch.setattr(StaticStep, "_capture", capture)
    monkeypatch.setattr(Wrapper, "made", [])
    return keys


def layers_of(checkpoint: Checkpoint, heads: HeadShape) -> ModelLayers:
    attention = FlashInferAttention(LIBRARY, torch.float32, torch.device("cpu"), heads)
    return ModelLayers(checkpoint, 0, 6, options=StepOptions(32, kernels=StepKernels(torch_kernels, attention)))


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("family, special", [("llama", {}), ("mistral", {"sliding_window": 12}), ("olmo3", None)])
def test_equal_to_sdpa(family, special, graphs, keeps, tmp_path: Path, monkeypatch, captured) -> None:
    """OLMo-3 has layers with a window and layers without, which are planned apart."""
    monkeypatch.setattr(Wrapper, "keeps", keeps)
    special = UNUSUAL[family] if special is None else special
    checkpoint = Checkpoint(tiny_checkpoint(tmp_path / family, family, seed=3, **special))
    expected = run_schedule(ModelLayers(checkpoint, 0, 6), SCHEDULE)
    model = layers_of(checkpoint, HeadShape(4, 2, 16))
    make = model.new_pool

    def new_pool(pages: int) -> PagePool:
        pool = make(pages)
        model._static_step(pool).captures = graphs
        return pool

    monkeypatch.setattr(model, "new_pool", new_pool)
    found = run_schedule(model, SCHEDULE)
    assert all((a - b).abs().max() <= 1e-4 for a, b in zip(found, expected, strict=True))
    # Chunks run eagerly: of the schedule only steps of decodes are captured, once for each segment and size.
    assert all(decode for *_, decode in captured) and len(captured) == len(set(captured))
    assert bool(captured) == graphs


def test_each_step_is_planned_once(tiny_llama: Path, captured, monkeypatch: pytest.MonkeyPatch) -> None:
    model = layers_of(Checkpoint(tiny_llama), HeadShape(4, 2, 16))
    pool = model.new_pool(100)
    step = model._static_step(pool)
    step.captures = True
    step.warm_up(4, lambda done, total: None)
    assert captured == [(0, 6, 4, True), (0, 6, 2, True), (0, 6, 1, True)]
    four = Wrapper.made[0]
    assert [(w.rows, w.plans, w.tensor_cores) for w in Wrapper.made] == [(rows, 1, False) for rows in (4, 2, 1)]
    buffers = [b.data_ptr() for b in (four._paged_kv_indptr_buf, four._paged_kv_indices_buf)]
    tables = [BlockTable(6) for _ in range(3)]
    for tokens in (15, 1, 1, 1):
        for table in tables:
            table.grow(pool, tokens)
        hidden = torch.randn(3, tokens, 64)
        model.run(pool, [RequestRows(t, rows, t.num_tokens - tokens, 0, 6) for t, rows in zip(tables, hidden)])
    assert four.plans == 4 and len(captured) == 3  # three steps of three decodes, padded to four
    assert buffers == [b.data_ptr() for b in (four._paged_kv_indptr_buf, four._paged_kv_indices_buf)]
    [prefill] = [wrapper for wrapper in Wrapper.made if isinstance(wrapper, Prefill)]
    # 45 rows in buffers of 32: two runs, each of which is planned once for all six layers.
    assert prefill.plans == 2


def test_tensor_cores_decode_where_many_query_heads_share_a_key_head(tmp_path: Path, captured) -> None:
    checkpoint = Checkpoint(tiny_checkpoint(tmp_path / "m", num_attention_heads=8, num_key_value_heads=2, head_dim=16))
    model = layers_of(checkpoint, HeadShape(8, 2, 16))
    model._static_step(model.new_pool(40)).warm_up(1, lambda done, total: None)
    assert [wrapper.tensor_cores for wrapper in Wrapper.made] == [True]


def test_where_compiled_kernels_are_kept_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASHINFER_WORKSPACE_BASE", "/scratch")
    assert about_compiling().endswith("takes minutes at the first start, and /scratch/.cache/flashinfer keeps them")
    monkeypatch.delenv("FLASHINFER_WORKSPACE_BASE")
    assert f"{Path.home()}/.cache/flashinfer" in about_compiling()


def test_arrays_by_hand() -> None:
    pool = PagePool(100, 1, 2, torch.float32, torch.device("cpu"))
    a, b, c = BlockTable(2), BlockTable(3), BlockTable(2)
    a.grow(pool, 16)  # one page in each layer
    b.grow(pool, 17)  # two pages in each layer
    c.grow(pool, 1)
    # Layers 4 to 6; a and c have layers 5 and 6. A row of the tables has three layers of eight pages: 24 numbers.
    tables = DeviceTables(pool, (4, 7), 5, 8)
    rows = tables.rows_of([(a, 5), (b, 4), (c, 5)])
    requests = [PagedRows(a, 0, 13, 3), PagedRows(b, 1, 16, 1), PagedRows(c, 0, 0, 1)]
    arrays = page_arrays(tables, rows, requests, padding=1)
    assert arrays.qo_indptr.tolist() == [0, 3, 4, 5, 6]
    assert arrays.kv_indptr.tolist() == [0, 1, 3, 4, 5]
    assert arrays.last_page_len.tolist() == [16, 1, 1, 1]
    of_a, of_b, of_c = (24 * row for row in rows)
    assert arrays.places.tolist() == [of_a, of_b, of_b + 1, of_c, 24 * 5]
    layer_6 = tables.pages.flatten()[2 * 8 :][torch.from_numpy(arrays.places).long()]
    assert layer_6.tolist() == [a.pages[1, 0], *b.pages[2], c.pages[1, 0], pool.padding_page]
