"""Invariant 7: greedy tokens from the runtime equal Hugging Face's `generate`, whichever pipeline serves them."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from greedy_tokens import greedy
from idling import wait_until_idle

from helix_kit.cluster import Cluster
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.runtime import serve
from helix_kit.runtime.weights.demo import WeightsUnavailableError, demo_weights
from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan

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


@pytest.mark.parametrize(("prefix_cache", "kv_pages"), [(True, 60), (True, 600), (False, 60)])
def test_shared_prefixes_leave_the_tokens_as_they_are(tmp_path: Path, prefix_cache: bool, kv_pages: int) -> None:
    """Conversations with one system prompt on overlapping ranges, in chunks, with preemption and a lost worker.

    With 60 pages a worker evicts blocks all the time; 600 keep all of them.
    """
    folder, rng = tiny_checkpoint(tmp_path / "model"), random.Random(5)
    system = [rng.randrange(3, 250) for _ in range(37)]
    plan = tiny_plan(folder, {"a": (0, 4), "b": (2, 6), "c": (0, 3), "d": (3, 6)})
    options = {"chunk_tokens": 8, "kv_pages": kv_pages, "restart_workers": True, "prefix_cache": prefix_cache}
    with serve(plan, folder, launcher="inproc", policy="random", seed=2, pace=False, **options) as engine:
        talks = [system[: rng.choice([16, 37])] for _ in range(8)]
        for turn in range(3):
            for talk in talks:
                talk.extend([rng.randrange(3, 250) for _ in range(rng.randrange(1, 12))])
            handles = [
                # A promise of a few tokens is extended again and again, or the request waits for pages.
                engine.submit(talk, max_new_tokens=9, ignore_eos=True, promise_tokens=2 if i % 2 else None)
                for i, talk in enumerate(talks)
            ]
            if turn == 1:
                engine._coordinator.workers.records["b"].process.kill()
            answers = [handle.result(60).token_ids for handle in handles]
            assert answers == [greedy(folder, talk, 9) for talk in talks]
            for talk, answer in zip(talks, answers, strict=True):
                talk.extend(answer)
        scored = engine.generate(talks[0], max_new_tokens=2, prompt_logprobs=0, presence_penalty=0.5)
        assert len(scored.prompt_logprobs) == len(talks[0])
        end = time.monotonic() + 20
        while any(worker.state != "up" for worker in engine.status().workers.values()):
            assert time.monotonic() < end
            time.sleep(0.05)
        status = wait_until_idle(engine)
    assert (status.cached_tokens > 0) == prefix_cache
    assert any(worker.pages_cached for worker in status.workers.values()) == prefix_cache


def test_penalties_count_the_tokens_of_a_shared_prefix(tmp_path: Path) -> None:
    folder, rng = tiny_checkpoint(tmp_path / "model"), random.Random(6)
    prompt = [rng.randrange(3, 250) for _ in range(70)]
    plan = tiny_plan(folder, {"a": (0, 3), "b": (3, 6)})
    answers = []
    for prefix_cache in (False, True, True):
        with serve(plan, folder, launcher="inproc", pace=False, chunk_tokens=16, prefix_cache=prefix_cache) as engine:
            for _ in range(2):
                answer = engine.generate(prompt, max_new_tokens=20, repetition_penalty=1.3, frequency_penalty=0.8)
                answers.append(answer.token_ids)
            assert answer.record.cached_tokens == (64 if prefix_cache else 0)
    assert all(answer == answers[0] for answer in answers)
