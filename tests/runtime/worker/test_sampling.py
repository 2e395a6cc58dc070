"""Sampled tokens follow the distribution that transformers' processors leave, and depend on seed and position alone."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transformers import (  # noqa: E402
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from helix_kit.runtime.worker import sampling  # noqa: E402
from helix_kit.runtime.worker.sampling import adjusted_scores, sample, uniform  # noqa: E402
from helix_kit.runtime.worker.sampling_params import SamplingParams  # noqa: E402
from helix_kit.runtime.worker.token_counts import TokenCounts  # noqa: E402


def tokens_of(logits, params: list[SamplingParams], positions: list[int], counts=None) -> list[int]:
    return sample(logits, params, positions, counts).tokens


def chi_square(draws: list[int], expected: np.ndarray) -> float:
    observed = np.bincount(draws, minlength=len(expected))
    assert not observed[expected == 0].any()
    wanted = len(draws) * expected[expected > 0]
    return float((((observed[expected > 0] - wanted) ** 2) / wanted).sum())


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.5, -1.0]])
    expected = torch.softmax(logits[0] / 0.7, -1).numpy()
    draws = [tokens_of(logits, [SamplingParams(temperature=0.7, seed=3)], [p])[0] for p in range(4000)]
    assert chi_square(draws, expected) < 16.27  # 99.9th percentile for 3 degrees of freedom


CUTS = [
    {"top_k": 5},
    {"top_p": 0.6},
    {"min_p": 0.2},
    {"top_k": 20, "top_p": 0.7},
    {"top_p": 0.8, "min_p": 0.3},
    {"top_k": 3, "top_p": 0.9, "min_p": 0.05, "temperature": 0.4},
    {"temperature": 1.7, "top_p": 0.95},
]


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_what_is_drawn_from_is_what_transformers_leaves(cut: dict) -> None:
    logits = 3 * torch.randn(1, 50, generator=torch.Generator().manual_seed(1))
    options = {"temperature": 1.0, **cut}
    warpers = LogitsProcessorList([TemperatureLogitsWarper(options["temperature"])])
    if "top_k" in cut:
        warpers.append(TopKLogitsWarper(cut["top_k"]))
    if "top_p" in cut:
        warpers.append(TopPLogitsWarper(cut["top_p"]))
    if "min_p" in cut:
        warpers.append(MinPLogitsWarper(cut["min_p"]))
    expected = torch.softmax(warpers(torch.tensor([[1]]), logits.clone())[0], -1).numpy().astype(float)
    count = 6000
    draws = tokens_of(logits.expand(count, -1), [SamplingParams(seed=3, **options)] * count, list(range(count)))
    support = set(np.flatnonzero(expected))
    assert set(draws) <= support
    degrees = max(1, len(support) - 1)
    assert chi_square(draws, expected / expected.sum()) < degrees + 4 * math.sqrt(2 * degrees) + 8


def test_top_k_and_top_p_cut_the_tail() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    many = range(300)
    assert {tokens_of(logits, [SamplingParams(1.0, top_k=2)], [p])[0] for p in many} == {0, 1}
    assert {tokens_of(logits, [SamplingParams(1.0, top_p=0.8)], [p])[0] for p in many} == {0, 1}
    assert {tokens_of(logits, [SamplingParams(1.0, top_p=0.81)], [p])[0] for p in many} == {0, 1, 2}
    assert {tokens_of(logits, [SamplingParams(1.0, top_p=1e-9)], [p])[0] for p in many} == {0}
    assert {tokens_of(logits, [SamplingParams(1.0, min_p=0.31)], [p])[0] for p in many} == {0, 1}
    assert {tokens_of(logits, [SamplingParams(1.0, min_p=1.0)], [p])[0] for p in many} == {0}
    assert tokens_of(logits.flip(1), [SamplingParams()], [0]) == [3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_row_has_the_same_token_alone_and_in_company(dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(4)
    logits = (2 * torch.randn(40, 300, generator=generator)).to(dtype)
    rng = np.random.default_rng(5)
    params = []
    counts = []
    for row in range(40):
        history = TokenCounts(prompt_tokens=3)
        history.add(rng.integers(0, 300, 10).tolist())
        counts.append(history)
        params.append(
            SamplingParams(
                temperature=float(rng.choice([0.0, 0.5, 1.0, 2.0])),
                top_k=int(rng.choice([0, 1, 7, 1000])),
                top_p=float(rng.choice([1.0, 0.9, 0.1])),
                min_p=float(rng.choice([0.0, 0.1])),
                seed=row,
                presence_penalty=float(rng.choice([0.0, 1.5])),
                repetition_penalty=float(rng.choice([1.0, 1.3])),
                logit_bias=((5, 4.0), (6, -100.0)) if row % 3 == 0 else (),
                min_tokens=100,
                end_ids=(1, 2) if row % 2 else (),
                prompt_tokens=3,
                logprobs=row % 3 if row % 5 == 0 else None,
            )
        )
    positions = list(range(10, 50))
    together = sample(logits, params, positions, counts)
    alone = [
        sample(logits[row : row + 1], [params[row]], [positions[row]], [counts[row]]).tokens[0] for row in range(40)
    ]
    assert together.tokens == alone
    monkeypatch.setattr(sampling, "MAX_SORTED_SCORES", 3 * 300)  # three rows at once
    assert sample(logits, params, positions, counts) == together
    assert [found is not None for found in together.logprobs] == [row % 5 == 0 for row in range(40)]


def test_the_best_scores_give_what_the_whole_vocabulary_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    rows, vocabulary = 300, 900
    flat = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(7))
    # From nearly even to nearly certain, and rounded, so that there are many equal scores.
    logits = torch.round(flat * torch.linspace(0.1, 6, rows).unsqueeze(1) * 4) / 4
    logits[::7, 5:850] = -math.inf
    params = [
        SamplingParams(
            temperature=float(rng.choice([0.3, 1.0, 1.5])),
            top_k=int(rng.choice([0, 1, 15, 16, 17, 200, 2000])),
            top_p=float(rng.choice([1.0, 0.95, 0.5, 1e-6])),
            min_p=float(rng.choice([0.0, 0.001, 0.2])),
            seed=int(rng.integers(1 << 60)),
        )
        for _ in range(rows)
    ]
    whole = tokens_of(logits, params, range(rows))
    monkeypatch.setattr(sampling, "CANDIDATES", 16)
    sorted_whole = []
    sort = sampling._draw_from_all
    monkeypatch.setattr(sampling, "_draw_from_all", lambda *args: sorted_whole.append(len(args[0])) or sort(*args))
    assert tokens_of(logits, params, range(rows)) == whole
    assert 0 < sum(sorted_whole) < rows / 2  # most rows are sure, some are not


@pytest.mark.gpu
def test_a_gpu_draws_the_same_tokens() -> None:
    rows, vocabulary = 64, 32_000
    logits = (3 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(8))).to(torch.bfloat16)
    counts = []
    for row in range(rows):
        counts.append(TokenCounts(prompt_tokens=4))
        counts[-1].add(torch.topk(logits[row], 9).indices.tolist())
    params = [
        SamplingParams(
            temperature=(0.0, 0.7, 1.0)[row % 3],
            top_k=(0, 40)[row % 2],
            top_p=(1.0, 0.9)[row // 2 % 2],
            min_p=(0.0, 0.05)[row // 4 % 2],
            seed=row,
            frequency_penalty=(0.0, 0.5)[row // 8 % 2],
            repetition_penalty=(1.0, 1.2)[row // 16 % 2],
            logit_bias=((7, 5.0),) if row % 5 == 0 else (),
            logprobs=2 if row % 4 == 0 else None,
        )
        for row in range(rows)
    ]
    here = sample(logits, params, range(9, 9 + rows), counts)
    there = sample(logits.cuda(), params, range(9, 9 + rows), counts)
    assert there.tokens == here.tokens
    for one, other in zip(here.logprobs, there.logprobs):
        assert (one is None) == (other is None)
        assert one is None or one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_equal_scores_keep_the_order_of_the_vocabulary() -> None:
    logits = torch.zeros(1, 1000, dtype=torch.bfloat16)
    for position in range(50):
        [token] = tokens_of(logits, [SamplingParams(temperature=1.0, seed=9)], [position])
        assert token == int(uniform(9, position) * 1000)


def test_penalties_and_biases_are_those_of_the_formulas() -> None:
    logits = torch.randn(3, 30, generator=torch.Generator().manual_seed(2))
    prompt, answer = [4, 4, 9, 11], [9, 7, 7, 7]
    counts = TokenCounts(len(prompt))
    counts.add(prompt + answer)
    params = [
        SamplingParams(repetition_penalty=1.4),
        SamplingParams(presence_penalty=0.5, frequency_penalty=-0.25),
        SamplingParams(),
    ]
    got = adjusted_scores(logits, params, [8, 8, 8], [counts, counts, None])
    processor = RepetitionPenaltyLogitsProcessor(1.4)
    expected = processor(torch.tensor([prompt + answer]), logits[:1].clone())
    torch.testing.assert_close(got[:1], expected)
    # OpenAI's formula: score - count x frequency_penalty - (count > 0) x presence_penalty.
    by_hand = logits[1].clone()
    for token, count in Counter(answer).items():
        by_hand[token] += 0.25 * count - 0.5
    torch.testing.assert_close(got[1], by_hand)
    assert torch.equal(got[2], logits[2])
    biased = adjusted_scores(
        logits, [SamplingParams(logit_bias=((3, 100.0), (5, -100.0)))] + params[2:] * 2, [0] * 3, [None] * 3
    )
    assert (biased[0, 3] - logits[0, 3], biased[0, 5] - logits[0, 5]) == (pytest.approx(100), pytest.approx(-100))
    assert torch.equal(biased[1:], logits[1:])
    assert adjusted_scores(logits, params[2:] * 3, [8] * 3, [None] * 3) is logits


def test_end_tokens_are_banned_until_the_answer_has_its_tokens() -> None:
    logits = torch.tensor([[0.0, 9.0, 8.0, 1.0]])
    params = SamplingParams(min_tokens=2, end_ids=(1, 2), prompt_tokens=5)
    assert [tokens_of(logits, [params], [position]) for position in (5, 6, 7)] == [[3], [3], [1]]
    drawn = SamplingParams(temperature=50.0, min_tokens=2, end_ids=(1, 2), prompt_tokens=5)
    many = range(400)
    assert {tokens_of(logits, [SamplingParams(temperature=50.0, seed=s)], [5])[0] for s in many} == {0, 1, 2, 3}
    from dataclasses import replace

    assert {tokens_of(logits, [replace(drawn, seed=s)], [5])[0] for s in many} == {0, 3}


def test_a_tiny_temperature_is_greedy() -> None:
    logits = torch.tensor([[1.0, 3e4, -3e4]])
    for temperature in (1e-45, 1e-6, 1e-5):
        assert tokens_of(logits, [SamplingParams(temperature=temperature)], [0]) == [1]


def test_randomness_depends_on_seed_and_position_alone() -> None:
    draws = [uniform(seed, position) for seed in range(20) for position in range(20)]
    assert len(set(draws)) == 400 and all(0 <= draw < 1 for draw in draws)
    assert draws == [uniform(seed, position) for seed in range(20) for position in range(20)]
    # Written down once: answers to a seed must not change from one version to the next.
    assert uniform(5, 9) == 0.07938614280348111


def test_tokens_of_a_seed_stay_what_they_were() -> None:
    """Written down with the row-by-row sampling of version 0.2.0."""
    logits = 2 * torch.randn(6, 500, generator=torch.Generator().manual_seed(0))
    params = [SamplingParams(0.8, top_k=0, top_p=0.9, seed=s) for s in range(3)]
    params += [SamplingParams(1.3, top_k=40, top_p=0.7, seed=s) for s in range(3)]
    assert tokens_of(logits, params, [7, 8, 9, 10, 11, 12]) == [337, 442, 472, 272, 477, 263]


@pytest.mark.parametrize("params", [{}, {"logprobs": 2}, {"temperature": 1.0}, {"repetition_penalty": 1.5}])
def test_a_row_with_a_score_that_is_not_a_number_gets_no_token(params: dict) -> None:
    logits = torch.tensor([[0.5, 2.0, 1.0], [0.5, 2.0, math.nan], [math.nan] * 3, [-math.inf, 3.0, -math.inf]])
    settings = [SamplingParams(**({} if row == 3 else params)) for row in range(4)]
    counts = [TokenCounts(1) if setting.has_penalties else None for setting in settings]
    for known in counts:
        if known is not None:
            known.add([0])
    rows = sample(logits, settings, [4] * 4, counts)
    assert rows.tokens[1:3] == [sampling.NO_TOKEN] * 2
    assert rows.tokens[0] in range(3) and rows.tokens[3] == 1
    assert (rows.logprobs[0] is not None) == ("logprobs" in params)
