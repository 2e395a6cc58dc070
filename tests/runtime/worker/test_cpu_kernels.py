"""The loops of a step on a CPU compute what the operations of torch compute, for small steps and for large ones."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from helix_kit.runtime.worker import cpu_kernels, torch_kernels  # noqa: E402
from helix_kit.runtime.worker.attention import StepLayout  # noqa: E402
from helix_kit.runtime.worker.cpu_kernels import GatheredBatch  # noqa: E402
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS, PagePool  # noqa: E402
from helix_kit.runtime.worker.static_batch import HeadShape  # noqa: E402

EPS = 1e-5
WIDTH = 64


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("rows", [1, 3, cpu_kernels.MAX_NUMBERS // WIDTH + 1])
def test_norms_are_those_of_torch(rows: int) -> None:
    hidden, delta, weight = numbers(rows, WIDTH), numbers(rows, WIDTH).flip(0), numbers(WIDTH)
    expected = torch_kernels.rms_norm(hidden, weight, EPS)
    torch.testing.assert_close(cpu_kernels.rms_norm(hidden, weight, EPS), expected, atol=1e-5, rtol=0)
    summed = hidden.clone()
    normed = cpu_kernels.add_rms_norm(summed, delta, weight, EPS)
    assert torch.equal(summed, hidden + delta)
    torch.testing.assert_close(normed, torch_kernels.rms_norm(hidden + delta, weight, EPS), atol=1e-5, rtol=0)


def test_what_is_not_a_number_stays_so() -> None:
    """The worker finds out by its scores that a request has gone wrong, and others must not be affected."""
    hidden = numbers(3, WIDTH)
    hidden[1, 7] = float("nan")
    normed = cpu_kernels.rms_norm(hidden, torch.ones(WIDTH), EPS)
    assert normed[1].isnan().all() and normed[[0, 2]].isfinite().all()


@given(
    rows=st.integers(1, 5), heads=st.sampled_from([(1, 1), (4, 2), (9, 3)]), rotary=st.sampled_from([8, 16]),
    with_norms=st.booleans(), layer=st.integers(0, 1),
)  # fmt: skip
def test_queries_and_pages_are_those_of_single_operations(
    rows: int, heads: tuple[int, int], rotary: int, with_norms: bool, layer: int
) -> None:
    shape = HeadShape(*heads, 16)
    pool = PagePool(2, heads[1], 16, torch.float32, torch.device("cpu"))
    slots = torch.stack(
        [torch.randperm(2 * PAGE_TOKENS, generator=torch.Generator().manual_seed(i))[:rows] for i in (0, 1)]
    )
    layout = StepLayout(pool, 5, slots, decodes=[], chunks=[])
    qkv = numbers(rows, (heads[0] + 2 * heads[1]) * 16)
    angles = numbers(rows, rotary // 2)
    tables = tuple(torch.cat([part, part], dim=-1) for part in (angles.cos(), angles.sin()))
    norms = (numbers(16), numbers(16).flip(0)) if with_norms else None
    query, key, value = qkv.clone().view(rows, -1, 16).split([heads[0], heads[1], heads[1]], dim=1)
    if norms is not None:
        query, key = (torch_kernels.rms_norm(part, norm, EPS) for part, norm in zip((query, key), norms, strict=True))
    query, key = (torch_kernels._turned(part, *tables) for part in (query, key))
    cache = GatheredBatch(layout).cache(5 + layer)
    found = cpu_kernels.rotary_and_write(qkv, shape, tables, norms, EPS, cache)
    torch.testing.assert_close(found, query, atol=1e-5, rtol=0)
    for store, expected in ((pool.keys, key), (pool.values, value)):
        written = store.view(-1, heads[1], 16)
        torch.testing.assert_close(written[slots[layer]], expected, atol=1e-5, rtol=0)
        others = [slot for slot in range(2 * PAGE_TOKENS) if slot not in slots[layer].tolist()]
        assert not written[others].any()


def test_the_loops_of_a_step_are_compiled_beforehand() -> None:
    """A step of any size takes what `load` has compiled: nothing is compiled while requests wait."""
    cpu_kernels.load()
    loops = (cpu_kernels._norm, cpu_kernels._add_and_norm, cpu_kernels._turn_and_write)
    before = [len(loop.signatures) for loop in loops]
    test_queries_and_pages_are_those_of_single_operations()
    test_norms_are_those_of_torch(3)
    assert [len(loop.signatures) for loop in loops] == before
