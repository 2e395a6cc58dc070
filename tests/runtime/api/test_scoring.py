"""Evaluation harnesses score prompts over HTTP; transformers is the oracle."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("httpx")

from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from helix_kit.runtime.api import Server  # noqa: E402

QUESTIONS = [
    {"question": "w5 w6 w7", "choices": ["w40 w41", "w42", "w43 w44 w45"], "answer": 0},
    {"question": "w100", "choices": ["w9", "w8"], "answer": 1},
]


@pytest.fixture(scope="module")
def example(root: Path):
    spec = importlib.util.spec_from_file_location("score_choices", root / "examples" / "score_choices.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def loglikelihood(tiny_llama: Path):
    """Log-probability of a continuation, and whether it is the greedy one, by transformers."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)

    def find(context: list[int], continuation: list[int]) -> tuple[float, bool]:
        with torch.inference_mode():
            logprobs = torch.log_softmax(model(torch.tensor([context + continuation])).logits[0], -1)
        rows = logprobs[len(context) - 1 : -1]
        own = rows.gather(1, torch.tensor(continuation).unsqueeze(1)).squeeze(1)
        return float(own.sum()), bool((rows.argmax(-1) == torch.tensor(continuation)).all())

    return find


def test_choices_are_scored_as_by_transformers(example, server: Server, tiny_llama: Path, loglikelihood) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_llama / "tokenizer.json"))
    pairs = [example.encode_pair(tokenizer, q["question"], choice) for q in QUESTIONS for choice in q["choices"]]
    assert pairs[0] == ([5, 6, 7], [40, 41])
    # A continuation that is greedy, so that both answers occur.
    context, best = [5, 6, 7], []
    for _ in range(3):
        best.append(next(t for t in range(256) if loglikelihood(context, [*best, t])[1]))
    pairs.append((context, best))
    found = example.score(server.url, "tiny", pairs)
    expected = [loglikelihood(*pair) for pair in pairs]
    assert [one.logprob for one in found] == pytest.approx([logprob for logprob, _ in expected], abs=1e-3)
    assert [one.is_greedy for one in found] == [greedy for _, greedy in expected]
    assert found[-1].is_greedy and not all(one.is_greedy for one in found)
    right = 0
    at = 0
    for question in QUESTIONS:
        values = [expected[at + i][0] for i in range(len(question["choices"]))]
        right += values.index(max(values)) == question["answer"]
        at += len(values)
    assert example.accuracy(server.url, tokenizer, QUESTIONS) == right / 2


def test_the_requests_are_those_of_lm_eval(example, server: Server, tiny_llama: Path) -> None:
    """Where lm-eval is installed, its own client sends them and reads the answers."""
    completions = pytest.importorskip("lm_eval.models.openai_completions")
    client = completions.LocalCompletionsAPI(
        base_url=f"{server.url}/completions", model="tiny", tokenizer=str(tiny_llama), batch_size=2
    )
    pairs = [([5, 6, 7], [40, 41]), ([5, 6, 7], [42]), ([100], [9, 8, 7])]
    got = client._loglikelihood_tokens([(("", ""), *pair) for pair in pairs])
    for (logprob, is_greedy), ours in zip(got, example.score(server.url, "tiny", pairs), strict=True):
        assert (logprob, is_greedy) == (pytest.approx(ours.logprob, abs=1e-3), ours.is_greedy)


def test_the_task_has_questions_with_answers(example, root: Path) -> None:
    questions = example.load_questions()
    assert len(questions) == 8
    assert all(0 <= q["answer"] < len(q["choices"]) for q in questions)
    task = (root / "examples" / "lm_eval_task" / "tiny_choices.yaml").read_text()
    assert "examples/lm_eval_task/tiny_choices.jsonl" in task
