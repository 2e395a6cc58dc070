"""A tiny random Llama and plans for it: small enough that a test takes a second, real enough that it can fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a random Llama of 6 layers and a word-level tokenizer."""
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture
def two_lanes(tiny_llama: Path):
    """A plan of four nodes with several pipelines, two of which enter a node's range in the middle."""
    return tiny_plan(tiny_llama, {"a": (0, 4), "b": (2, 6), "c": (0, 3), "d": (3, 6)})


@pytest.fixture(scope="module")
def engine(tiny_llama: Path) -> Iterator:
    """Four nodes with several pipelines, served by workers in threads, as fast as they can."""
    from helix_kit.runtime import serve

    plan = tiny_plan(tiny_llama, {"a": (0, 4), "b": (2, 6), "c": (0, 3), "d": (3, 6)})
    with serve(plan, tiny_llama, launcher="inproc", policy="random", pace=False, chunk_tokens=8) as running:
        yield running
