"""One rotary table for all layers, or one for each type of attention."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.worker.rotary import Rotary  # noqa: E402

CPU = torch.device("cpu")


def test_tables_follow_the_types_of_layers() -> None:
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding, Gemma3TextConfig

    config = Gemma3TextConfig(num_hidden_layers=4, head_dim=4, sliding_window_pattern=2)
    rotary = Rotary(config, Gemma3RotaryEmbedding, CPU)
    assert rotary.types == ["sliding_attention", "full_attention"] * 2
    tables = rotary.of(torch.zeros(1, 1, 8), torch.tensor([[3]]), 0, 2)
    # The second pair of four values turns by position x theta^(-1/2): theta is 10,000 in windows, 1,000,000 elsewhere.
    for kind, angle in (("sliding_attention", 0.03), ("full_attention", 0.003)):
        assert tables[kind][1][0, 0, 1] == pytest.approx(angle, rel=1e-3)
    assert list(rotary.of(torch.zeros(1, 1, 8), torch.tensor([[3]]), 1, 2)) == ["full_attention"]


def test_one_table_for_all() -> None:
    from transformers.models.llama.modeling_llama import LlamaConfig, LlamaRotaryEmbedding

    rotary = Rotary(LlamaConfig(num_hidden_layers=2, hidden_size=16, num_attention_heads=4), LlamaRotaryEmbedding, CPU)
    assert list(rotary.of(torch.zeros(1, 1, 16), torch.tensor([[3]]), 0, 2)) == [None]
