"""Folders that are no checkpoints, and model families that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from helix_kit.errors import InputError
from helix_kit.runtime.weights.checkpoint import Checkpoint, check_family


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder"):
        Checkpoint(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match=r"no \*\.safetensors"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("family", ["granite", "gemma2", "qwen3_moe", "gpt2", None, 7])
def test_other_families_are_refused_by_name(family: object) -> None:
    with pytest.raises(InputError, match="expected one of llama") as caught:
        check_family({"model_type": family}, "config.json")
    assert family is None or str(family) in str(caught.value)


def test_rope_that_looks_at_the_whole_batch_is_refused() -> None:
    check_family({"model_type": "llama", "rope_scaling": {"rope_type": "llama3"}}, "config.json")
    with pytest.raises(InputError, match="rope_type = 'longrope'"):
        check_family({"model_type": "phi3", "rope_scaling": {"type": "longrope"}}, "config.json")
