"""Steps over static buffers compute, row by row, what the layers of transformers compute over gathered pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from step_schedule import SCHEDULE, run_schedule  # noqa: E402

from helix_kit.errors import HelixKitError  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.tiny import UNUSUAL, tiny_checkpoint  # noqa: E402
from helix_kit.runtime.worker import static_step, torch_kernels  # noqa: E402
from helix_kit.runtime.worker.fused_layers import FUSED_FAMILIES  # noqa: E402
from helix_kit.runtime.worker.kv_cache import BlockTable  # noqa: E402
from helix_kit.runtime.worker.model_layers import ModelLayers, RequestRows  # noqa: E402
from helix_kit.runtime.worker.static_step import StaticStep, StepOptions  # noqa: E402
from helix_kit.runtime.worker.step_kernels import StepKernels  # noqa: E402

TOLERANCE = 1e-4
LONGROPE = {
    "rope_type": "longrope",
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "short_factor": [1.0] * 8,
    "long_factor": [1.0 + 0.5 * pair for pair in range(8)],
}


@pytest.mark.parametrize("family", [*FUSED_FAMILIES, "olmo2", "olmo3", "qwen3_moe", "cohere2"])
def test_families(family: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny_checkpoint(tmp_path / family, family, seed=3, **UNUSUAL.get(family, {})))
    expected = run_schedule(ModelLayers(checkpoint, 0, 6), SCHEDULE)
    model = ModelLayers(checkpoint, 0, 6, options=StepOptions(32, kernels=StepKernels(torch_kernels)))
    assert ("fused layers" in model.description) == (family in FUSED_FAMILIES)
    found = run_schedule(model, SCHEDULE)
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 8.0}, "max_position_embeddings": 16}),
        ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 16, "tie_word_embeddings": False}),
        ("olmo3", {"rope_parameters": {"full_attention": LONGROPE, "sliding_attention": {"rope_type": "default"}}}),
    ],
)
def test_frequencies_by_length(family: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """Rows of one step have frequencies of several lengths, below and beyond the original context of 16 tokens."""
    checkpoint = Checkpoint(tiny_checkpoint(tmp_path, family, seed=3, **settings))
    lengths = (40, 0, 41, 21, 10)
    expected = run_schedule(ModelLayers(checkpoint, 0, 6), SCHEDULE, rotary_tokens=lengths)
    model = ModelLayers(checkpoint, 0, 6, options=StepOptions(32, kernels=StepKernels(torch_kernels)))
    for ours, theirs in zip(run_schedule(model, SCHEDULE, rotary_tokens=lengths), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)
    alike = run_schedule(ModelLayers(checkpoint, 0, 6), SCHEDULE)
    assert max(float((one - other).abs().max()) for one, other in zip(alike, expected)) > 100 * TOLERANCE


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelLayers, ModelLayers]:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("biased"), "llama", seed=5, attention_bias=True, mlp_bias=True)
    checkpoint = Checkpoint(folder)
    return ModelLayers(checkpoint, 0, 6), ModelLayers(
        checkpoint, 0, 6, options=StepOptions(48, kernels=StepKernels(torch_kernels))
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(st.integers(0, 4), st.sampled_from([0, 1, 1, 1, 2, 16, 17, 60]), min_size=1),
        min_size=1,
        max_size=6,
    )
)
def test_any_schedule(models: tuple[ModelLayers, ModelLayers], steps: list[dict[int, int]]) -> None:
    """Chunks longer than the buffers, requests that start again on other pages, steps of any mix."""
    reference, static = models
    schedule = [list(step.items()) for step in steps]
    for ours, theirs in zip(run_schedule(static, schedule), run_schedule(reference, schedule), strict=True):
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


class Replay:
    """Stands for a captured graph: it runs what was captured."""

    def __init__(self, step: StaticStep, key: tuple[int, int, int, bool]) -> None:
        self._step, self._key = step, key

    def replay(self) -> None:
        self._step._run(*self._key)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int, bool]]:
    """What is captured: segment, rows, and whether all of them decode. Steps on a CPU then take the way of graphs."""
    keys: list[tuple[int, int, int, bool]] = []

    def capture(step: StaticStep, *key: Any) -> Replay:
        keys.append(key)
        return Replay(step, key)

    monkeypatch.setattr(StaticStep, "_capture", capture)
    return keys


def test_each_segment_and_size_is_captured_once(tiny_llama: Path, captured: list[tuple[int, int, int, bool]]) -> None:
    model = ModelLayers(Checkpoint(tiny_llama), 0, 6, options=StepOptions(32, kernels=StepKernels(torch_kernels)))
    pool = model.new_pool(40)
    step = model._static_step(pool)
    step.captures = True
    said: list[tuple[int, int]] = []
    step.warm_up(4, lambda done, total: said.append((done, total)))
    # The largest first: prefill chunks of up to 32 rows, and up to 4 requests that decode.
    assert captured == [(0, 6, 32, False), (0, 6, 16, False), (0, 6, 4, True), (0, 6, 2, True), (0, 6, 1, True)]
    assert said == [(done, 5) for done in range(6)]
    captured.clear()
    whole, late = BlockTable(6), BlockTable(4)
    eager = ModelLayers(Checkpoint(tiny_llama), 0, 6, options=StepOptions(32, kernels=StepKernels(torch_kernels)))
    other_pool, other_tables = eager.new_pool(40), (BlockTable(6), BlockTable(4))
    for tokens in ((5, 3), (1, 1), (1, 1), (7, 1)):  # both requests; the second one enters at layer 2
        hidden = [torch.randn(count, 64, generator=torch.Generator().manual_seed(count)) for count in tokens]
        results = []
        for layers, where, tables in ((model, pool, (whole, late)), (eager, other_pool, other_tables)):
            positions = [table.num_tokens for table in tables]
            for table, count in zip(tables, tokens):
                table.grow(where, count)
            batch = [
                RequestRows(tables[0], hidden[0], positions[0], 0, 6),
                RequestRows(tables[1], hidden[1], positions[1], 2, 6),
            ]
            results.append([rows.clone() for rows in layers.run(where, batch)])
        for ours, theirs in zip(*results, strict=True):
            assert torch.equal(ours, theirs)
    assert captured == [(0, 2, 16, False), (2, 6, 16, False), (0, 2, 1, True), (2, 6, 2, True)]


def test_graphs_that_were_not_used_for_longest_are_dropped(
    tiny_llama: Path, captured: list[tuple[int, int, int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_step, "MAX_GRAPHS", 2)
    model = ModelLayers(Checkpoint(tiny_llama), 0, 6, options=StepOptions(32, kernels=StepKernels(torch_kernels)))
    pool = model.new_pool(40)
    model._static_step(pool).captures = True
    for start in (0, 1, 0, 2, 0, 1):
        table = BlockTable(6 - start)
        table.grow(pool, 1)
        model.run(pool, [RequestRows(table, torch.ones(1, 64), 0, start, 6)])
        table.release(pool)
    assert captured == [(start, 6, 1, True) for start in (0, 1, 2, 1)]


def test_more_requests_than_table_rows(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that were left out for a while have lost their row on the device, and get another one."""
    monkeypatch.setattr(static_step, "MAX_REQUESTS", 2)
    monkeypatch.setattr(static_step, "SPARE_TABLE_ROWS", 0)
    checkpoint = Checkpoint(tiny_llama)
    for ours, theirs in zip(
        run_schedule(
            ModelLayers(checkpoint, 0, 6, options=StepOptions(16, kernels=StepKernels(torch_kernels))), SCHEDULE
        ),
        run_schedule(ModelLayers(checkpoint, 0, 6), SCHEDULE),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


def test_a_broken_request_does_not_touch_its_neighbours(tiny_llama: Path) -> None:
    """Also not through pages that it has held before, or through padding."""
    model = ModelLayers(Checkpoint(tiny_llama), 0, 6, options=StepOptions(32, kernels=StepKernels(torch_kernels)))

    def run(broken: bool) -> torch.Tensor:
        pool = model.new_pool(60)
        first, second, third = (BlockTable(6) for _ in range(3))
        hidden = torch.full((5, 64), float("nan") if broken else 1.0)
        other = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
        first.grow(pool, 5)
        second.grow(pool, 3)
        model.run(pool, [RequestRows(first, hidden, 0, 0, 6), RequestRows(second, other, 0, 0, 6)])
        first.release(pool)
        third.grow(pool, 3)
        second.grow(pool, 1)
        batch = [RequestRows(third, other, 0, 0, 6), RequestRows(second, other[:1], 3, 0, 6)]
        return torch.cat(model.run(pool, batch)).clone()

    assert torch.equal(run(True), run(False))
    assert run(True).isfinite().all()


def test_a_request_of_few_layers_may_have_most_of_the_pool(tiny_llama: Path) -> None:
    """One layer of six with all pages but one; a context longer than the model's is refused, not written elsewhere."""
    checkpoint = Checkpoint(tiny_llama)
    results = []
    for model in (
        ModelLayers(checkpoint, 0, 6, options=StepOptions(64, kernels=StepKernels(torch_kernels))),
        ModelLayers(checkpoint, 0, 6),
    ):
        pool, table = model.new_pool(20), BlockTable(1)
        table.grow(pool, 300)
        hidden = torch.randn(300, 64, generator=torch.Generator().manual_seed(2))
        results.append(model.run(pool, [RequestRows(table, hidden, 0, 5, 6)])[0].clone())
    torch.testing.assert_close(*results, atol=TOLERANCE, rtol=0)
    model = ModelLayers(checkpoint, 0, 6, options=StepOptions(1024, kernels=StepKernels(torch_kernels)))
    pool, table = model.new_pool(600), BlockTable(6)
    table.grow(pool, 513)  # the model's contexts end at 512
    with pytest.raises(HelixKitError, match="33 pages in each layer: expected at most 32"):
        model.run(pool, [RequestRows(table, torch.zeros(513, 64), 0, 0, 6)])
