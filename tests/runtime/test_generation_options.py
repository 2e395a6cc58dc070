"""Options of a request: their bounds, and what they do to real answers, with transformers as the oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM, LogitsProcessorList, RepetitionPenaltyLogitsProcessor  # noqa: E402

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime import Engine, GenerationOptions  # noqa: E402

PROMPT = [7, 8, 9, 30, 31, 32, 33, 8, 9, 100, 101]
"""More tokens than a chunk of the test's engine (8)."""


@pytest.fixture(scope="module")
def model(tiny_llama: Path):
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)


def logits_of(model, ids: list[int]):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0},
        {"temperature": -1},
        {"top_k": -1},
        {"top_p": 0},
        {"min_p": 1.5},
        {"presence_penalty": 2.5},
        {"frequency_penalty": float("nan")},
        {"repetition_penalty": 0},
        {"logit_bias": {5: 101}},
        {"min_tokens": -1},
        {"min_tokens": 65},
        {"stop": ""},
        {"stop_token_ids": range(2000)},
        {"seed": -1},
        {"logprobs": 21},
        {"prompt_logprobs": -1},
        {"max_new_tokens": -1, "prompt_logprobs": 1},
        {"max_new_tokens": 2.5},
        {"temperature": "hot"},
        {"seed": 1.0},
        {"stop_token_ids": ["w5"]},
        {"stop_token_ids": [True]},
        {"logit_bias": {"5": 1}},
        {"promise_tokens": 0},
    ],
    ids=str,
)
def test_values_out_of_bounds_are_refused_by_name(options: dict) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} = "):
        GenerationOptions(**options)


@pytest.mark.parametrize("options", [{"logit_bias": {256: 1}}, {"stop_token_ids": [-1]}])
def test_tokens_outside_the_vocabulary_are_refused(engine: Engine, options: dict) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} = .*from 0 to 255"):
        engine.submit([5], **options)


def test_a_record_and_keywords_mean_the_same(engine: Engine) -> None:
    record = GenerationOptions(max_new_tokens=5, temperature=0.8, seed=3, ignore_eos=True)
    answer = engine.generate([5, 6], options=record)
    keywords = {"max_new_tokens": 5, "temperature": 0.8, "seed": 3, "ignore_eos": True}
    assert engine.generate([5, 6], **keywords).token_ids == answer.token_ids
    assert engine.submit([5, 6], record, max_new_tokens=3).result().token_ids == answer.token_ids[:3]
    with pytest.raises(TypeError, match="max_tokens"):
        engine.submit([5, 6], max_tokens=3)


def test_numbers_of_numpy_and_torch_are_numbers(engine: Engine) -> None:
    plain = {"max_new_tokens": 6, "temperature": 0.5, "top_k": 50, "seed": 7, "promise_tokens": 4}
    plain |= {"logit_bias": {5: -2.5}, "stop_token_ids": [300 % 256], "presence_penalty": 0.5, "ignore_eos": True}
    arrays = {
        "max_new_tokens": np.int64(6),
        "temperature": np.float32(0.5),
        "top_k": torch.tensor(50),
        "seed": np.uint32(7),
        "promise_tokens": np.int32(4),
        "logit_bias": {np.int64(5): np.float16(-2.5)},
        "stop_token_ids": np.array([300 % 256]),
        "presence_penalty": torch.tensor(0.5),
        "ignore_eos": np.bool_(True),
    }
    assert GenerationOptions(**arrays) == GenerationOptions(**{**plain, "stop_token_ids": (44,)})
    assert engine.generate(PROMPT, **arrays).token_ids == engine.generate(PROMPT, **plain).token_ids


def test_logprobs_are_those_of_the_model(engine: Engine, model) -> None:
    # Of the model's scores, whatever changes or cuts them afterwards.
    options = {"temperature": 2.0, "top_k": 20, "seed": 3, "presence_penalty": 1.0, "ignore_eos": True}
    answer = engine.generate(PROMPT, max_new_tokens=6, logprobs=4, prompt_logprobs=2, **options)
    ids = PROMPT + answer.token_ids
    expected = torch.log_softmax(logits_of(model, ids), -1)
    assert answer.prompt_logprobs is not None and answer.logprobs is not None
    assert answer.prompt_logprobs[0] is None and len(answer.logprobs) == 6
    found = [*answer.prompt_logprobs[1:], *answer.logprobs]
    for row, (token, one) in enumerate(zip(ids[1:], found, strict=True)):
        assert one.token_id == token
        assert one.logprob == pytest.approx(float(expected[row, token]), abs=1e-4)
        assert one.rank == 1 + int((expected[row] > expected[row, token]).sum())
        values, tokens = expected[row].topk(len(one.top))
        assert [t for t, _ in one.top] == tokens.tolist()
        assert [value for _, value in one.top] == pytest.approx(values.tolist(), abs=1e-4)
    assert {len(one.top) for one in answer.prompt_logprobs[1:]} == {2}
    assert {len(one.top) for one in answer.logprobs} == {4}
    plain = engine.generate(PROMPT, max_new_tokens=6, **options)
    assert (plain.logprobs, plain.prompt_logprobs) == (None, None)
    assert plain.token_ids == answer.token_ids


@pytest.mark.parametrize("prompt", [[5], PROMPT], ids=len)
def test_a_prompt_can_be_scored_without_an_answer(engine: Engine, model, prompt: list[int]) -> None:
    answer = engine.generate(prompt, max_new_tokens=0, prompt_logprobs=0)
    assert (answer.token_ids, answer.text, answer.finish_reason) == ([], "", "length")
    expected = torch.log_softmax(logits_of(model, prompt), -1)
    assert [p and p.logprob for p in answer.prompt_logprobs] == [
        None,
        *(pytest.approx(float(expected[i, token]), abs=1e-4) for i, token in enumerate(prompt[1:])),
    ]
    whole = [5] * engine.max_context_tokens
    assert len(engine.generate(whole, max_new_tokens=0, prompt_logprobs=0).prompt_logprobs) == len(whole)


def test_repetition_penalty_is_that_of_transformers(engine: Engine, model) -> None:
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.3)])
    expected = model.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        logits_processor=processors,
    )[0, len(PROMPT) :].tolist()
    got = engine.generate(PROMPT, max_new_tokens=20, repetition_penalty=1.3, ignore_eos=True).token_ids
    assert got == expected
    assert got != engine.generate(PROMPT, max_new_tokens=20, ignore_eos=True).token_ids


def test_presence_and_frequency_count_the_answer_alone(engine: Engine, model) -> None:
    options = {"presence_penalty": 1.2, "frequency_penalty": 0.7}
    ids = list(PROMPT)
    for _ in range(20):
        scores = logits_of(model, ids)[-1].clone()
        for token in set(answer := ids[len(PROMPT) :]):
            scores[token] -= 1.2 + 0.7 * answer.count(token)
        ids.append(int(scores.argmax()))
    got = engine.generate(PROMPT, max_new_tokens=20, ignore_eos=True, **options).token_ids
    assert got == ids[len(PROMPT) :]


def test_logit_bias_forces_and_bans(engine: Engine) -> None:
    assert engine.generate([5], max_new_tokens=4, logit_bias={77: 100}).token_ids == [77] * 4
    plain = engine.generate([5], max_new_tokens=1, ignore_eos=True).token_ids
    assert engine.generate([5], max_new_tokens=1, logit_bias={plain[0]: -100}, ignore_eos=True).token_ids != plain


def test_stop_tokens_end_the_answer_without_text(engine: Engine) -> None:
    whole = engine.generate(PROMPT, max_new_tokens=12, ignore_eos=True)
    at = next(i for i in range(2, 12) if whole.token_ids[i] not in whole.token_ids[:i])
    stop = whole.token_ids[at]
    answer = engine.generate(PROMPT, max_new_tokens=12, ignore_eos=True, stop_token_ids=[stop])
    assert (answer.finish_reason, answer.token_ids) == ("stop", whole.token_ids[: at + 1])
    assert whole.text.startswith(answer.text) and f"w{stop}" not in answer.text.split()
    later = engine.generate(PROMPT, max_new_tokens=12, ignore_eos=True, stop_token_ids=[stop], min_tokens=at + 3)
    assert len(later.token_ids) >= at + 3 and stop not in later.token_ids[: at + 3]


def test_stop_strings_are_looked_for_after_min_tokens(engine: Engine) -> None:
    whole = engine.generate(PROMPT, max_new_tokens=12, ignore_eos=True)
    words = [f"w{token}" for token in whole.token_ids]
    assert engine.generate(PROMPT, max_new_tokens=12, ignore_eos=True, stop=words).token_ids == whole.token_ids[:1]
    later = engine.generate(PROMPT, max_new_tokens=12, ignore_eos=True, stop=words, min_tokens=5)
    assert later.token_ids == whole.token_ids[:6]
    assert later.text.split() == words[:5]
