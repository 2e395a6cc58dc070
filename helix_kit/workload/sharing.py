"""Synthetic requests whose prompts begin alike: rows for `Workload.shared_prompts` and `Workload.conversations`."""

from __future__ import annotations

from typing import Any

from helix_kit.workload import samplers


def shared_prompt_rows(
    rate_per_s: float,
    duration_s: float,
    *,
    groups: int,
    prompts_per_group: int,
    system_tokens: int,
    question_tokens: int,
    output_tokens: int,
    seed: int,
) -> list[tuple[Any, ...]]:
    """Rows for `Workload.of`: prompts that take turns, each a system prompt of its group and a question.

    >>> rows = shared_prompt_rows(2.0, 10.0, groups=2, prompts_per_group=3, system_tokens=100, question_tokens=40,
    ...                           output_tokens=5, seed=0)
    >>> len(rows), {row[1] for row in rows}, len({row[5] for row in rows})
    (20, {140}, 6)
    """
    samplers.check_rate(rate_per_s, duration_s)
    rng = samplers.generator(seed)
    gaps = rng.exponential(size=round(rate_per_s * duration_s) + 1)
    arrivals = gaps.cumsum()[:-1] / gaps.sum() * duration_s
    order = rng.permutation(groups * prompts_per_group)
    rows = []
    for i, arrival_s in enumerate(arrivals.tolist()):
        prompt = int(order[i % len(order)])
        prefix = ((prompt % groups, system_tokens), (groups + prompt, question_tokens))
        rows.append((arrival_s, system_tokens + question_tokens, output_tokens, None, None, prefix))
    return rows


def conversation_rows(
    rate_per_s: float,
    duration_s: float,
    *,
    turns: int,
    system_tokens: int,
    question_tokens: int,
    output_tokens: int,
    think_s: float,
    seed: int,
) -> list[tuple[Any, ...]]:
    """Rows for `Workload.of`: turns of conversations, each with the whole conversation before it as its prefix.

    >>> rows = conversation_rows(1.0, 10.0, turns=3, system_tokens=100, question_tokens=20, output_tokens=30,
    ...                          think_s=5.0, seed=0)
    >>> all(row[1] == sum(tokens for _, tokens in row[5]) for row in rows)
    True
    """
    rng = samplers.generator(seed)
    rows: list[tuple[Any, ...]] = []
    content = 0
    for conversation, start_s in enumerate(samplers.poisson_arrivals(rate_per_s, duration_s, rng).tolist()):
        arrival_s, prefix = start_s, ((0, system_tokens),) if system_tokens else ()
        for _ in range(rng.geometric(1 / turns)):
            question, answer = int(rng.geometric(1 / question_tokens)), int(rng.geometric(1 / output_tokens))
            prefix = (*prefix, (content + 1, question))
            rows.append((arrival_s, sum(n for _, n in prefix), answer, f"{conversation}", None, prefix, content + 2))
            prefix = (*prefix, (content + 2, answer))
            content += 2
            arrival_s += float(rng.exponential(think_s))
    return rows
