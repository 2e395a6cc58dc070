"""Synthetic prompts begin alike as their options say."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from helix_kit.errors import InputError
from helix_kit.workload import Workload


def test_prompts_of_a_group_share_the_system_prompt_alone():
    load = Workload.shared_prompts(4.0, 50.0, groups=3, prompts_per_group=5, system_tokens=64, question_tokens=16)
    assert len(load) == 200 and {r.input_tokens for r in load} == {80} and load.duration_s < 50
    questions_of: dict[int, set[int]] = {}
    for request in load:
        (system, system_tokens), (question, question_tokens) = request.prefix
        assert (system_tokens, question_tokens) == (64, 16)
        questions_of.setdefault(system, set()).add(question)
    assert [len(questions) for questions in questions_of.values()] == [5, 5, 5]
    uses = Counter(r.prefix for r in load)
    assert set(uses.values()) <= {13, 14}, "200 requests take 15 prompts in turn"


def test_a_turn_repeats_the_conversation_before_it():
    load = Workload.conversations(1.0, 20.0, turns=3)
    assert all(sum(tokens for _, tokens in r.prefix) == r.input_tokens for r in load)
    by_session: dict[str, list] = {}
    for request in load:
        by_session.setdefault(request.session, []).append(request)
    following = [pair for talk in by_session.values() for pair in pairwise(talk)]
    assert following, "some conversation goes on"
    for before, after in following:
        known = len(before.prefix)
        assert after.prefix[:known] == before.prefix
        assert after.prefix[known] == (before.answer, before.output_tokens)
        assert len(after.prefix) == known + 2 and after.arrival_s > before.arrival_s


def test_an_impossible_rate_is_refused():
    for make in (Workload.shared_prompts, Workload.conversations):
        with pytest.raises(InputError):
            make(0.0, 10.0)
