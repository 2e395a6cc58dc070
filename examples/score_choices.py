"""Score multiple-choice questions over HTTP with the requests that EleutherAI's lm-eval sends.

    python examples/score_choices.py [BASE_URL TOKENIZER]

Without arguments the laptop cluster with SmolLM2-135M is planned, started and closed again. BASE_URL is that of a
running server (say, http://127.0.0.1:8000/v1), and TOKENIZER the folder of its model.

lm-eval's model `local-completions` scores a choice so: the request has the tokens of question and choice as its prompt,
asks for one token more, and has `echo` and `logprobs`. The answer then holds the log-probability of each token of the
prompt; those of the choice are added up. Where lm-eval is installed, the task in `examples/lm_eval_task` gives the same
accuracy; the task's file says how it is run.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
from tokenizers import Tokenizer

QUESTIONS = Path(__file__).parent / "lm_eval_task" / "tiny_choices.jsonl"
BATCH = 4
"""Prompts of one request."""


class Scored(NamedTuple):
    """The log-probability of a choice after its question, and whether each of its tokens was the likeliest one."""

    logprob: float
    is_greedy: bool


def load_questions(path: Path = QUESTIONS) -> list[dict]:
    """The questions of the task: mappings with ``question``, ``choices`` and ``answer``."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def encode_pair(tokenizer: Tokenizer, question: str, choice: str) -> tuple[list[int], list[int]]:
    """Tokens of the question, and those that the choice adds to it."""
    context = tokenizer.encode(question, add_special_tokens=False).ids
    whole = tokenizer.encode(f"{question} {choice}", add_special_tokens=False).ids
    return context, whole[len(context) :]


def score(base_url: str, model: str, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Scored]:
    """What the server finds of pairs of a context and a continuation, in several prompts a request."""
    scores: list[Scored] = []
    with httpx.Client(base_url=base_url, timeout=300) as client:
        for begin in range(0, len(pairs), BATCH):
            batch = pairs[begin : begin + BATCH]
            body = {
                "model": model,
                "prompt": [context + continuation for context, continuation in batch],
                "temperature": 0,
                "max_tokens": 1,
                "logprobs": 1,
                "seed": 1234,
                "echo": True,
            }
            answer = client.post("completions", json=body).raise_for_status().json()
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            scores += [_of_choice(choice["logprobs"], len(context)) for choice, (context, _) in zip(choices, batch)]
    return scores


def _of_choice(logprobs: dict, context_tokens: int) -> Scored:
    # The last token is the one that the request had to ask for.
    own = logprobs["token_logprobs"][context_tokens:-1]
    best = logprobs["top_logprobs"][context_tokens:-1]
    return Scored(sum(own), all(one == max(top.values()) for one, top in zip(own, best)))


def accuracy(base_url: str, tokenizer: Tokenizer, questions: Iterable[dict]) -> float:
    """The share of questions whose right answer is the likeliest choice; prints each of them."""
    questions = list(questions)
    model = httpx.get(f"{base_url}/models").json()["data"][0]["id"]
    pairs = [encode_pair(tokenizer, q["question"], choice) for q in questions for choice in q["choices"]]
    scores = iter(score(base_url, model, pairs))
    right = 0
    for question in questions:
        found = [next(scores) for _ in question["choices"]]
        likeliest = max(range(len(found)), key=lambda index: found[index].logprob)
        right += likeliest == question["answer"]
        print(f"{question['question']} {question['choices'][likeliest]} ({found[likeliest].logprob:.2f})")
    print(f"accuracy: {right / len(questions):.3f}")
    return right / len(questions)


@contextlib.contextmanager
def own_server() -> Iterator[tuple[str, Path]]:
    """A server of our own on a free port, and the folder of its model."""
    import helix_kit as hk
    from helix_kit.runtime.api import start_server

    plan = hk.plan(hk.Cluster.preset("laptop"), hk.Model.preset("SmolLM2-135M"))
    with hk.serve(plan) as engine, start_server(engine) as server:
        yield server.url, engine.checkpoint.folder


if __name__ == "__main__":
    running = contextlib.nullcontext((sys.argv[1], Path(sys.argv[2]))) if len(sys.argv) > 1 else own_server()
    with running as (url, folder):
        accuracy(url, Tokenizer.from_file(str(folder / "tokenizer.json")), load_questions())
