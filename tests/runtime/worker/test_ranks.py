"""Layers that several ranks compute together equal transformers' own: every family, over mixed batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from layer_chain import TOLERANCE, reference, run_mixed  # noqa: E402
from thread_ranks import thread_ranks  # noqa: E402

from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.shares import TENSOR_PARALLEL_FAMILIES, LayerShare  # noqa: E402
from helix_kit.runtime.weights.tiny import UNUSUAL, tiny_checkpoint  # noqa: E402
from helix_kit.runtime.worker import torch_kernels  # noqa: E402
from helix_kit.runtime.worker.kv_cache import BlockTable  # noqa: E402
from helix_kit.runtime.worker.model_layers import RequestRows  # noqa: E402
from helix_kit.runtime.worker.static_step import StepOptions  # noqa: E402
from helix_kit.runtime.worker.step_kernels import StepKernels  # noqa: E402

# Four ranks of four query heads and two key heads: two ranks hold each key head.
CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("llama", 2, {"attention_bias": True, "mlp_bias": True}),
    ("llama", 4, {}),
    ("mistral", 2, UNUSUAL["mistral"]),
    ("granite", 2, {**UNUSUAL["granite"], "attention_bias": True, "mlp_bias": True}),
    ("qwen2", 2, {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 3}),
    ("qwen3", 4, {**UNUSUAL["qwen3"], "attention_bias": True}),
    # Frequencies that depend on the length of each request, beyond 16 tokens.
    ("qwen3", 2, {"rope_parameters": {"rope_type": "dynamic", "factor": 8.0}, "max_position_embeddings": 16}),
]
# Layers that are never fused, as Granite's: the static step takes them as they are.
BY_LAYERS: list[tuple[str, int, dict[str, Any]]] = [
    ("cohere2", 2, UNUSUAL["cohere2"]),
    ("gemma", 2, UNUSUAL["gemma"]),
    ("gemma2", 2, UNUSUAL["gemma2"]),
    ("gemma3_text", 4, UNUSUAL["gemma3_text"]),
    ("seed_oss", 2, {**UNUSUAL["seed_oss"], "attention_out_bias": True, "mlp_bias": True}),
    ("smollm3", 2, {"use_sliding_window": True, "sliding_window": 12}),
]
BOTH_STEPS = [(*case, kernels) for case in CASES for kernels in (None, StepKernels(torch_kernels))]


@pytest.mark.parametrize(
    ("family", "ranks", "settings", "kernels"),
    [*BOTH_STEPS, *((*case, None) for case in BY_LAYERS)],
    ids=lambda value: str(value)[:12],
)
def test_logits_equal_those_of_transformers(
    family: str, ranks: int, settings: dict[str, Any], kernels: Any, tmp_path: Path
) -> None:
    """Partial ranges, chunked prefill beside decode; by transformers' layers, and by the static step of GPUs."""
    folder = tiny_checkpoint(tmp_path / "model", family, seed=3, random_vectors=True, **settings)
    reference.cache_clear()
    with thread_ranks(tmp_path, ranks, StepOptions(max_rows=32, kernels=kernels)) as load:
        pairs = run_mixed(folder, load=load)
    for ours, theirs in pairs:
        assert theirs.std() > 0.1
        assert float((ours - theirs).abs().max()) <= TOLERANCE


def test_every_family_is_tested() -> None:
    assert {family for family, _, _ in CASES + BY_LAYERS} == set(TENSOR_PARALLEL_FAMILIES)


def test_pages_that_are_used_again_are_cleared_on_every_rank(tmp_path: Path) -> None:
    """An earlier request left NaN in its pages: masked values are multiplied by 0, which leaves NaN."""
    folder = tiny_checkpoint(tmp_path / "model")
    with thread_ranks(tmp_path, 2) as load:
        layers = load(Checkpoint(folder), 0, 6)
        pool = layers.new_pool(6)
        results = []
        for factor in (1.0, float("nan"), 1.0):
            table = BlockTable(6)
            table.grow(pool, 3)
            rows = factor * torch.ones(3, 64)
            results += layers.run(pool, [RequestRows(table, rows, 0, 0, 6)])
            table.release(pool)
    assert torch.isnan(results[1]).all()
    assert torch.equal(results[0], results[2]) and not torch.isnan(results[0]).any()


def test_a_rank_holds_its_part_alone(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, mlp_bias=True)
    checkpoint = Checkpoint(folder)
    config = json.loads((folder / "config.json").read_text())
    whole = checkpoint.read_layer(2, torch.float32, torch.device("cpu"))
    for rank in range(2):
        share = LayerShare(rank, 2, 4, 2, config["head_dim"], config["intermediate_size"])
        part = checkpoint.read_share(2, share, torch.float32, torch.device("cpu"))
        assert set(part) == set(whole)
        for name, tensor in part.items():
            expected = whole[name][share.place(name)] if share.place(name) else whole[name]
            if rank and name == "mlp.down_proj.bias":
                expected = torch.zeros_like(expected)
            assert torch.equal(tensor, expected), name
        matrices = [name for name in part if part[name].dim() == 2]
        assert all(2 * part[name].numel() == whole[name].numel() for name in matrices)
