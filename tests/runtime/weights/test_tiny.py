"""Tiny random models and plans for them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from safetensors.numpy import load_file

from helix_kit.model import Model
from helix_kit.runtime.text import TextCodec
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    sizes = {"num_hidden_layers": 2, "vocab_size": 32}
    one, two, three = (
        load_file(tiny_checkpoint(tmp_path / str(i), seed=seed, **sizes) / "model.safetensors")
        for i, seed in enumerate((0, 0, 1))
    )
    assert one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)
    assert any((one[name] != three[name]).any() for name in one)


def test_writing_a_model_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An emulation writes one when it starts. Bars that the user's own downloads draw are left on."""
    from transformers.utils import logging

    logging.enable_progress_bar()
    tiny_checkpoint(tmp_path, num_hidden_layers=2, vocab_size=32)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "") and logging.is_progress_bar_enabled()


def test_every_token_is_a_word_and_answers_end_with_token_2(tiny_llama: Path) -> None:
    codec = TextCodec(tiny_llama)
    assert codec.encode("w5 w249 w77") == [5, 249, 77] and codec.decode([5, 249, 77]) == "w5 w249 w77"
    assert Checkpoint(tiny_llama).eos_ids == {2}


def test_the_plan_is_for_the_folders_model(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 4), "b": (4, 6)}, kv_tokens_per_layer=100, step_ms=3.0)
    Checkpoint(tiny_llama).check_matches(plan.model)
    assert plan.model.num_layers == Model.from_hf(tiny_llama).num_layers == 6
    profile = plan.profiles["CPU-fast"]
    assert profile.kv_capacity(4) == 400
    assert profile.decode_ms_per_layer(1) == pytest.approx(1.5, rel=1e-3)
