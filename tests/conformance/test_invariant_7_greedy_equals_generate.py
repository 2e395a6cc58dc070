"""Invariant 7: greedy tokens from the runtime equal Hugging Face's `generate`, whichever pipeline serves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from helix_kit.cluster import Cluster
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.runtime import serve
from helix_kit.runtime.weights.demo import WeightsUnavailableError, demo_weights

torch = pytest.importorskip("torch")

PROMPTS = [
    "The capital of France is",
    "Water boils at a temperature of",
    "def fibonacci(n):",
    "Once upon a time there was a small robot who",
    "The three primary colours are",
    "In 1969, astronauts",
    "To make a cup of tea, first",
    "The opposite of hot is",
    "A triangle has",
    "My favourite book is about a",
    "List the planets of the solar system:",
    "SELECT name FROM users WHERE",
    "Dear Sir or Madam,",
    "The theory of relativity says that",
    "Two plus two equals",
    "Photosynthesis is the process by which plants " * 12,
]
# Several ranges that overlap: a request may enter every node but the first ones in the middle of its range.
PLACEMENT = {"CPU-fast-0": (0, 15), "CPU-medium-0": (14, 30), "CPU-slow-0": (0, 10), "CPU-slow-1": (8, 20)}


@pytest.fixture(scope="module")
def weights() -> Path:
    try:
        return demo_weights(progress=None)
    except WeightsUnavailableError as error:
        pytest.skip(f"the demo's weights cannot be fetched: {error}")


def expected_tokens(weights: Path, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).eval()
    answers = []
    for ids in prompts:
        # One at a time: padding a batch would change what is compared with.
        out = model.generate(torch.tensor([ids]), max_new_tokens=new_tokens, do_sample=False)
        answers.append(out[0, len(ids) :].tolist())
    return answers


@pytest.mark.parametrize(
    ("count", "chunk_tokens", "new_tokens"), [(8, 256, 24), pytest.param(16, 7, 40, marks=pytest.mark.slow)]
)
def test_real_model_over_overlapping_pipelines(weights: Path, count: int, chunk_tokens: int, new_tokens: int) -> None:
    problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    plan = Plan.from_placement(problem, PLACEMENT, method="hand-made")
    # Random walks over all links that fit take more pipelines than the flow does.
    with serve(plan, weights, policy="random", seed=1, pace=False, chunk_tokens=chunk_tokens) as engine:
        prompts = [engine.codec.encode(p) for p in PROMPTS[-count:]]
        answers = engine.generate(prompts, max_new_tokens=new_tokens)
    used = {answer.pipeline for answer in answers}
    partial = [s for p in used for s in p if s.start > plan.placement[s.node][0]]
    assert len(used) >= 3, used
    assert partial, used
    assert [a.token_ids for a in answers] == expected_tokens(weights, prompts, new_tokens)
