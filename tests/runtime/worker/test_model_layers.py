"""A layer range computes what the whole model computes, however its requests are batched."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from layer_chain import TOLERANCE, Chain, run_mixed, whole_model  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_checkpoint  # noqa: E402
from helix_kit.runtime.worker import attention  # noqa: E402
from helix_kit.runtime.worker.kv_cache import BlockTable  # noqa: E402
from helix_kit.runtime.worker.model_layers import ModelLayers, RequestRows, layer_segments  # noqa: E402


def test_ragged_batches_of_partial_ranges(tiny_llama: Path) -> None:
    for ours, theirs in run_mixed(tiny_llama):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= TOLERANCE


def test_long_and_short_decodes_are_gathered_apart(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where one long request must not pad all others to its length."""
    by_length, groups = attention._by_length, []
    monkeypatch.setattr(attention, "_pages_at_once", lambda _: 3)
    monkeypatch.setattr(attention, "_by_length", lambda *a: groups.append(by_length(*a)) or groups[-1])
    for ours, theirs in run_mixed(tiny_llama):
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)
    assert max(len(found) for found in groups) > 1


def test_a_stored_head_wins_over_a_config_that_ties_it(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, seed=4, tie_word_embeddings=True)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn(256, 64, generator=torch.Generator().manual_seed(1))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    checkpoint = Checkpoint(folder)
    checkpoint.check_tensors()
    assert not checkpoint.ties_embeddings
    for ours, theirs in run_mixed(folder):
        assert (ours - theirs).abs().max() <= TOLERANCE


def test_holds_only_its_layers(tiny_llama: Path) -> None:
    checkpoint = Checkpoint(tiny_llama)
    read: list[str] = []
    original = checkpoint.read

    def spy(names, dtype, device):
        names = list(names)
        read.extend(names)
        return original(names, dtype, device)

    checkpoint.read = spy  # type: ignore[method-assign]
    stage = ModelLayers(checkpoint, 2, 4)
    assert {name.split(".")[2] for name in read} == {"2", "3"}
    assert len(stage._layers) == 2


def test_pages_are_exact_with_partial_ranges(tiny_llama: Path) -> None:
    chain = Chain(tiny_llama)
    chain.step([(0, 3, torch.arange(3, 20))])  # 17 tokens: two pages in each of 3 + 3 layers
    assert [pool.used for pool in chain.pools] == [6, 6]
    chain.step([(1, 2, torch.arange(3, 19))])  # 16 tokens: one page in 2 + 4 layers
    assert [pool.used for pool in chain.pools] == [8, 10]
    for low, high in chain.tables.values():
        low.release(chain.pools[0])
        high.release(chain.pools[1])
    assert [pool.used for pool in chain.pools] == [0, 0]


def test_bfloat16_is_close(tiny_llama: Path) -> None:
    stage = ModelLayers(Checkpoint(tiny_llama), 0, 6, dtype="bfloat16")
    pool, table, ids = stage.new_pool(20), BlockTable(6), torch.arange(3, 20)
    table.grow(pool, len(ids))
    [hidden] = stage.run(pool, [RequestRows(table, stage.embed(ids), 0, 0, 6)])
    theirs = whole_model(tiny_llama, ids)
    with torch.inference_mode():
        ours = stage.logits(hidden).float()
    # 8 bits of mantissa over six layers: a few percent of the logits' spread, and the same favourites.
    assert (ours - theirs).abs().mean() < 0.05 * theirs.std()


def test_a_broken_request_does_not_touch_its_neighbours(tiny_llama: Path) -> None:
    """NaN in one request's keys and values stays there: beside it, and in pages that are used again after it."""
    stage = ModelLayers(Checkpoint(tiny_llama), 0, 6)
    ids = torch.arange(3, 20)
    theirs = whole_model(tiny_llama, torch.cat([ids, ids[:1]]))

    def run_beside(broken_first: bool) -> torch.Tensor:
        pool = stage.new_pool(36)
        broken, sound = BlockTable(6), BlockTable(6)
        poison = torch.full((40, stage.hidden_size), float("nan"))
        if broken_first:
            broken.grow(pool, 40)
            stage.run(pool, [RequestRows(broken, poison, 0, 0, 6)])
            broken.release(pool)
        sound.grow(pool, 17)
        stage.run(pool, [RequestRows(sound, stage.embed(ids), 0, 0, 6)])
        sound.grow(pool, 1)
        batch = [RequestRows(sound, stage.embed(ids[:1]), 17, 0, 6)]
        if not broken_first:
            broken.grow(pool, 40)
            stage.run(pool, [RequestRows(broken, poison, 0, 0, 6)])
            broken.grow(pool, 1)
            batch.append(RequestRows(broken, poison[:1], 40, 0, 6))
        with torch.inference_mode():
            return stage.logits(stage.run(pool, batch)[0])

    for broken_first in (True, False):
        assert (run_beside(broken_first) - theirs[-1:]).abs().max() <= TOLERANCE


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=8))
def test_segments_cover_each_range_once(spans: list[tuple[int, int]]) -> None:
    ranges = [(start, start + length) for start, length in spans]
    seen: Counter[tuple[int, int]] = Counter()
    last = 0
    for first, end, active in layer_segments(ranges):
        assert last <= first < end
        last = end
        seen.update((i, layer) for i in active for layer in range(first, end))
    assert seen == Counter((i, layer) for i, (a, b) in enumerate(ranges) for layer in range(a, b))


def test_warming_up_leaves_nothing(tiny_llama: Path) -> None:
    """What workers on GPUs do before they report: all layers of the model, and layers in its middle."""
    for start, end in ((0, 6), (2, 4)):
        layers = ModelLayers(Checkpoint(tiny_llama), start, end)
        pool = layers.new_pool(6)
        layers.warm_up(pool)
        assert pool.used == 0


@pytest.mark.parametrize("changes", [{"hidden_act": "nope"}, {"rms_norm_eps": "small"}])
def test_a_config_that_transformers_cannot_build_is_named(tmp_path: Path, changes: dict) -> None:
    folder = tiny_checkpoint(tmp_path, "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InputError, match=r"config.json: transformers cannot build a model from it"):
        ModelLayers(Checkpoint(folder), 0, 1)
