"""Steps in the arrays of FlashInfer. A stand-in in numpy computes what FlashInfer's documentation says.

The kernels themselves are tested on a GPU (test_gpu.py).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_checkpoint  # noqa: E402
from helix_kit.runtime.worker.flashinfer import FlashInfer, about_compiling, page_arrays  # noqa: E402
from helix_kit.runtime.worker.kv_cache import BlockTable, PagedRows, PagePool  # noqa: E402
from helix_kit.runtime.worker.model_layers import ModelLayers, RequestRows  # noqa: E402


class Wrapper:
    """Both wrappers in numpy: `plan` keeps its arguments, `run` follows the page table of each request."""

    prefill = False
    keeps = True
    """Whether `run` reads the very tensor of indices that `plan` was given, as the library does today."""

    def __init__(
        self, workspace, kv_layout: str = "NHD", use_tensor_cores: bool = False, backend: str = "auto"
    ) -> None:
        assert kv_layout == "NHD" and backend == "fa2" and workspace.dtype == torch.uint8
        self.plans = 0

    def _plan(self, qo_indptr, indptr, indices, last_page_len, heads, kv_heads, head_dim, page_size, causal, options):
        for given in (qo_indptr, indptr, indices, last_page_len):
            assert given.dtype == torch.int32 and given.dim() == 1
        assert len(indptr) == len(last_page_len) + 1 == len(qo_indptr) and len(indices) == indptr[-1]
        assert page_size == 16 and last_page_len.min() >= 1 and last_page_len.max() <= 16
        self._paged_kv_indices_buf = indices if self.keeps else indices.clone()
        self._given = qo_indptr.numpy(), indptr.numpy(), last_page_len.numpy()
        self._sizes = heads, kv_heads, head_dim, page_size
        self._causal, self._options = causal, options
        self.plans += 1

    def run(self, query, cache):
        keys, values = (store.numpy() for store in cache)
        qo, indptr, last = self._given
        heads, kv_heads, dim, page_size = self._sizes
        assert keys.shape[1:] == (page_size, kv_heads, dim) and query.shape == (qo[-1], heads, dim)
        scale = self._options["sm_scale"] or dim**-0.5
        window_left = self._options["window_left"]
        pages, out = self._paged_kv_indices_buf.numpy(), np.empty(query.shape, np.float32)
        for r in range(len(last)):
            mine = pages[indptr[r] : indptr[r + 1]]
            seen = (len(mine) - 1) * page_size + last[r]
            k, v = (store[mine].reshape(-1, kv_heads, dim)[:seen] for store in (keys, values))
            rows = range(qo[r], qo[r + 1])
            for row in rows:
                at = seen - (qo[r + 1] - row)  # causal masks are aligned to the end
                low = max(0, at - window_left) if window_left >= 0 else 0
                high = at + 1 if self._causal else seen
                for head in range(heads):
                    kv_head = head // (heads // kv_heads)
                    scores = k[low:high, kv_head] @ query[row, head].numpy() * scale
                    weights = np.exp(scores - scores.max())
                    out[row, head] = weights / weights.sum() @ v[low:high, kv_head]
        return torch.from_numpy(out)


class Decode(Wrapper):
    def plan(self, indptr, indices, last_page_len, heads, kv_heads, head_dim, page_size, **options):
        rows = torch.arange(len(indptr), dtype=torch.int32)
        # One query a request, at its last token: all that it has is visible.
        self._plan(rows, indptr, indices, last_page_len, heads, kv_heads, head_dim, page_size, False, options)


class Prefill(Wrapper):
    def plan(self, qo_indptr, indptr, indices, last, heads, kv_heads, head_dim, page_size, causal=False, **options):
        self._plan(qo_indptr, indptr, indices, last, heads, kv_heads, head_dim, page_size, causal, options)


LIBRARY = SimpleNamespace(BatchDecodeWithPagedKVCacheWrapper=Decode, BatchPrefillWithPagedKVCacheWrapper=Prefill)


def backend_for(stage: ModelLayers, heads: int) -> FlashInfer:
    sizes = {"num_heads": heads, "num_kv_heads": stage.num_kv_heads, "head_dim": stage.head_dim}
    return FlashInfer(LIBRARY, torch.float32, torch.device("cpu"), **sizes)


def run_steps(stage: ModelLayers) -> list[torch.Tensor]:
    """Three requests over different parts of the range, prefill chunks beside decodes; all hidden states."""
    generator = torch.Generator().manual_seed(2)
    pool, tables, found = stage.new_pool(200), {}, []
    starts = {0: 0, 1: 2, 2: 0}
    schedule = [[(0, 19)], [(0, 14), (1, 16)], [(1, 5), (0, 1), (2, 17)], [(0, 1), (1, 1), (2, 1)], [(2, 3), (0, 1)]]
    for step in schedule:
        batch = []
        for request, tokens in step:
            table = tables.setdefault(request, BlockTable(6 - starts[request]))
            position = table.num_tokens
            table.grow(pool, tokens)
            hidden = torch.randn(tokens, stage.hidden_size, generator=generator)
            batch.append(RequestRows(table, hidden, position, starts[request], 6))
        found += stage.run(pool, batch)
    return found


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("family, special", [("llama", {}), ("mistral", {"sliding_window": 12})])
def test_equal_to_sdpa(family: str, special: dict, keeps: bool, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Wrapper, "keeps", keeps)
    stage = ModelLayers(Checkpoint(tiny_checkpoint(tmp_path / family, family, seed=3, **special)), 0, 6)
    expected = run_steps(stage)
    stage.backend = backend_for(stage, heads=4)
    got = run_steps(stage)
    assert all((a - b).abs().max() <= 1e-4 for a, b in zip(got, expected, strict=True))
    plans = {key[0]: wrapper.plans for key, wrapper in stage.backend._wrappers.items()}
    # By hand. Steps 2 to 4 have two segments (layers 0-1, 2-5), and the last one has one. Prefill chunks are in the one
    # segment of step 1, in both of 2 and 3 and in 5: 6 plans. Decodes are in both of 3 and 4 and in 5: 5 plans.
    assert not keeps or plans == {True: 5, False: 6}


def test_where_compiled_kernels_are_kept_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASHINFER_WORKSPACE_BASE", "/scratch")
    assert about_compiling().endswith("takes minutes at the first start, and /scratch/.cache/flashinfer keeps them")
    monkeypatch.delenv("FLASHINFER_WORKSPACE_BASE")
    assert f"{Path.home()}/.cache/flashinfer" in about_compiling()


def test_arrays_by_hand() -> None:
    pool = PagePool(100, 1, 2, torch.float32, torch.device("cpu"))
    a, b, c = BlockTable(2), BlockTable(3), BlockTable(2)
    a.grow(pool, 16)  # pages 0, 1: one in each layer
    b.grow(pool, 17)  # pages 2 to 7: two in each layer
    c.grow(pool, 1)  # pages 8, 9
    # Layers 1 and 2 of b's three; b has 16 tokens from before, c and a bring chunks.
    rows = [PagedRows(a, 0, 13, 3), PagedRows(b, 1, 16, 1), PagedRows(c, 0, 0, 1)]
    decode = page_arrays(2, rows, decode=True)
    assert decode.rows.tolist() == [3, 4] and decode.kv_indptr.tolist() == [0, 2, 3]
    assert decode.indices.tolist() == [[4, 5, 8], [6, 7, 9]] and decode.last_page_len.tolist() == [1, 1]
    prefill = page_arrays(2, rows, decode=False)
    assert prefill.rows.tolist() == [0, 1, 2] and prefill.qo_indptr.tolist() == [0, 3]
    assert prefill.indices.tolist() == [[0], [1]] and prefill.last_page_len.tolist() == [16]
    assert page_arrays(2, rows[:1], decode=True) is None
