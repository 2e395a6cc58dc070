"""A request as the coordinator sees it: its context, and the tokens that pages are promised for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("torch")

from helix_kit.runtime.coordinator.active_request import ActiveRequest
from helix_kit.runtime.handle import Handle
from helix_kit.runtime.weights.rotary_lengths import RotaryLengths
from helix_kit.runtime.worker.sampling_params import SamplingParams
from helix_kit.workload.request import Request, RequestRecord


def active(
    promise_tokens: int | None = None,
    sampling: SamplingParams | None = None,
    prompt: Sequence[int] = (5, 6, 7, 8),
    **more: Any,
) -> ActiveRequest:
    """A request that asks for ten tokens."""
    request = Request(3, 0.0, len(prompt), 10)
    handle = Handle(lambda _: None, None)
    return ActiveRequest(
        request,
        list(prompt),
        sampling or SamplingParams(),
        frozenset(),
        RequestRecord(request),
        handle,
        promise_tokens=promise_tokens,
        **more,
    )


def test_without_a_promise_pages_for_the_whole_answer_are_needed():
    one = active()
    assert one.promised_tokens == one.next_promise == one.max_context_tokens == 14
    one.generated += [1, 2]
    assert one.next_promise == 14 and one.context == [5, 6, 7, 8, 1, 2]


def test_pages_are_promised_for_some_tokens_at_a_time_and_never_for_more_than_the_answer():
    one = active(promise_tokens=4)
    promised = []
    for generated in (0, 4, 8, 9):
        one.generated = list(range(generated))
        promised.append(one.next_promise)
    assert promised == [8, 12, 14, 14]
    assert one.promised_tokens == 8, "what was promised at the start"


def test_keys_of_another_length_have_other_hashes():
    lengths = RotaryLengths("longrope", 20)
    one = active(shares_prefix=True, prompt=list(range(16)), rotary=lengths)
    short = one.hashes(16)
    assert (one.rotary_tokens, one.end_of_attempt) == (16, 20)
    one.generated += list(range(5))
    assert one.hashes(16) == short, "those of the attempt that has computed them"
    one.prepare_attempt()
    assert (one.rotary_tokens, one.end_of_attempt) == (21, None)
    assert one.hashes(16) != short and one.hashes(21) == one.hashes(16)
    assert active(shares_prefix=True, prompt=list(range(16))).hashes(16) == short


def test_dynamic_frequencies_are_those_of_the_prompt():
    one = active(shares_prefix=True, prompt=list(range(16)), rotary=RotaryLengths("dynamic", 8))
    same, other = (active(shares_prefix=True, prompt=list(range(n)), rotary=one.rotary) for n in (16, 17))
    one.generated += [1, 2]
    one.prepare_attempt()
    assert (one.rotary_tokens, one.end_of_attempt) == (16, None)
    assert one.hashes(16) == same.hashes(16) != other.hashes(16)


def test_log_probabilities_of_the_prompt_have_their_places_where_they_are_asked_for():
    assert active().prompt_logprobs == []
    assert active(sampling=SamplingParams(prompt_logprobs=2)).prompt_logprobs == [None] * 4
