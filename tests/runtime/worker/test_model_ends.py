"""Factors and caps at the ends of a model. (Whole models: test_families.py.)"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.worker.model_ends import finish_logits, scale_embeddings  # noqa: E402


def config(family: str, **fields: Any) -> SimpleNamespace:
    return SimpleNamespace(model_type=family, hidden_size=3072, **fields)


def test_embeddings() -> None:
    rows = torch.ones(2, 3, dtype=torch.bfloat16)
    # The root of 3072 is 55.4256..., and the nearest bfloat16 is 55.5.
    assert (scale_embeddings(config("gemma2"), rows) == 55.5).all()
    assert (scale_embeddings(config("granite", embedding_multiplier=12.0), rows) == 12).all()
    assert scale_embeddings(config("llama"), rows) is rows


def test_logits() -> None:
    logits = torch.tensor([0.0, 1e6, -1e6, 2.0])
    assert finish_logits(config("cohere2", logit_scale=0.25), logits)[3] == 0.5
    assert finish_logits(config("granite", logits_scaling=8.0), logits)[3] == 0.25
    assert finish_logits(config("gemma2", final_logit_softcapping=30.0), logits)[:3].tolist() == [0, 30, -30]
    assert finish_logits(config("gemma3_text", final_logit_softcapping=None), logits) is logits
    assert finish_logits(config("llama"), logits) is logits
