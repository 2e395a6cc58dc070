"""Token ids collected for the first stages, and sent as one message to each."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from helix_kit.flow import Stage
from helix_kit.runtime import SamplingParams
from helix_kit.runtime.coordinator import token_sender
from helix_kit.runtime.coordinator.active_request import ActiveRequest
from helix_kit.runtime.coordinator.token_sender import TokenSender
from helix_kit.runtime.handle import Handle
from helix_kit.runtime.weights.rotary_lengths import RotaryLengths
from helix_kit.workload.request import Request, RequestRecord


def active(number: int, prompt: list[int], *stages: Stage) -> ActiveRequest:
    request = Request(number, 0.0, len(prompt), 8)
    handle = Handle(lambda _: None)
    made = ActiveRequest(request, prompt, SamplingParams(0.5, 3, 0.9, 7), frozenset(), RequestRecord(request), handle)
    made.worker_pipeline = stages
    return made


@pytest.fixture
def scene(scene_of):
    return scene_of({"a": (0, 4), "b": (2, 6), "c": (0, 6)})


def sent(scene) -> dict[str, tuple[list, list[int]]]:
    """Worker -> items and token ids of the one message that it got."""
    names = {record.endpoint: name for name, record in scene.manager.records.items()}
    endpoints = [endpoint for endpoint, _ in scene.outbox.sent]
    assert len(set(endpoints)) == len(endpoints)
    return {names[e]: (m.items, np.frombuffer(m.tensor, np.int32).tolist()) for e, m in scene.outbox.sent}


def test_a_prompt_goes_in_chunks_and_the_first_carries_the_route(scene) -> None:
    sender = TokenSender(scene.manager, chunk_tokens=3)
    assert not sender.batches
    request = active(5, [11, 12, 13, 14, 15, 16, 17], Stage("a", 0, 4), Stage("b", 4, 6))
    request.generated = [18]
    sender.add_prompt(request)
    assert sender.batches and scene.outbox.sent == []
    sender.flush()
    assert not sender.batches
    items, ids = sent(scene)["a"]
    assert ids == [11, 12, 13, 14, 15, 16, 17, 18]
    assert [(i.position, i.tokens, i.wants_token) for i in items] == [(0, 3, False), (3, 3, False), (6, 2, True)]
    assert [(stage.node, stage.start, stage.end) for stage in items[0].route] == [("a", 0, 4), ("b", 4, 6)]
    assert items[0].route[1].endpoint == scene.manager.records["b"].endpoint
    fields = items[0].sampling
    assert (fields.temperature, fields.top_k, fields.top_p, fields.seed) == (0.5, 3, 0.9, 7)
    assert all(item.route is None and item.sampling is None for item in items[1:])


def test_workers_go_on_by_themselves_until_keys_of_another_length_are_needed(scene) -> None:
    sender = TokenSender(scene.manager, chunk_tokens=3)
    until, lengths = [], []
    for original in (4, 7, 20):
        request = active(original, [11, 12, 13, 14, 15], Stage("c", 0, 6))
        request.rotary = RotaryLengths("longrope", original)
        request.prepare_attempt()
        sender.add_prompt(request)
        until.append(request.decode_until)
        lengths.append(request.rotary_tokens)
    sender.flush()
    assert until == [12, 7, 12], "of 13 tokens the last is not computed; from position 7 on there are too many for 7"
    items, _ = sent(scene)["c"]
    assert [item.rotary_tokens for item in items] == [5, 0] * 3 and lengths == [5] * 3


def test_one_message_for_each_worker(scene) -> None:
    sender = TokenSender(scene.manager, chunk_tokens=8)
    one, two = active(1, [5, 6], Stage("a", 0, 4), Stage("b", 4, 6)), active(2, [7], Stage("a", 0, 4), Stage("b", 4, 6))
    other = active(3, [9, 9, 9], Stage("c", 0, 6))
    sender.add_prompt(one)
    sender.add_prompt(other)
    sender.add_token(two, 1, 70)
    sender.flush()
    found = sent(scene)
    assert [(item.request, item.tokens) for item in found["a"][0]] == [(1, 2), (2, 1)]
    assert found["a"][1] == [5, 6, 70] and found["c"][1] == [9, 9, 9]


def test_what_is_discarded_is_not_sent(scene) -> None:
    sender = TokenSender(scene.manager, chunk_tokens=2)
    stages = (Stage("a", 0, 4), Stage("b", 4, 6))
    kept, gone = active(1, [5, 6, 7], *stages), active(2, [8, 9, 10], *stages)
    alone = active(3, [11], Stage("c", 0, 6))
    for request in (kept, gone, alone):
        sender.add_prompt(request)
    sender.add_token(kept, 3, 71)
    sender.discard(gone)
    sender.discard(alone)
    sender.flush()
    found = sent(scene)
    assert set(found) == {"a"} and found["a"][1] == [5, 6, 7, 71]
    assert {item.request for item in found["a"][0]} == {1}


@pytest.mark.parametrize("generated", [[], [18, 19]])
def test_tokens_travel_with_the_items_where_sampling_depends_on_them(scene, generated: list[int]) -> None:
    sender = TokenSender(scene.manager, chunk_tokens=3)
    request = active(5, [11, 12, 13, 14], Stage("a", 0, 4), Stage("b", 4, 6))
    request.sampling = SamplingParams(presence_penalty=1.0, prompt_logprobs=2, logit_bias=((5, 1.0),), prompt_tokens=4)
    request.generated = generated
    sender.add_prompt(request)
    sender.add_token(request, 4 + len(generated), 70)
    sender.flush()
    items, _ = sent(scene)["a"]
    known = [np.frombuffer(item.token_ids, np.int32).tolist() for item in items]
    # A chunk of the prompt brings one token more: the one that its last row is to predict.
    assert known == [[11, 12, 13, 14], [14, *generated], [70]]
    fields = items[0].sampling
    assert (fields.presence_penalty, fields.logit_bias, fields.prompt_tokens) == (1.0, ((5, 1.0),), 4)
    assert fields.prompt_logprobs == (None if generated else 2)


def test_chunks_that_are_scored_are_short(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_sender, "MAX_SCORED_CHUNK", 2)
    sender = TokenSender(scene.manager, chunk_tokens=100)
    request = active(5, [11, 12, 13], Stage("c", 0, 6))
    request.sampling = SamplingParams(prompt_logprobs=0, prompt_tokens=3)
    sender.add_prompt(request)
    sender.flush()
    assert [item.tokens for item in sent(scene)["c"][0]] == [2, 1]


def test_workers_that_go_on_are_sent_a_token_when_their_promise_ends(scene_of) -> None:
    scene = scene_of({"c": (0, 6)}, pace=False)
    sender = TokenSender(scene.manager, chunk_tokens=100)
    request = active(5, [11, 12, 13], Stage("c", 0, 6))  # 11 tokens in all: position 10 is not computed
    request.promised_tokens = 6
    sender.add_prompt(request)
    sender.add_token(request, 3, 70)
    sender.add_token(request, 5, 71)
    request.promised_tokens = 9
    sender.add_token(request, 6, 72)
    sender.add_token(request, 8, 73)
    request.promised_tokens = 11
    sender.add_token(request, 9, 74)
    sender.flush()
    items, ids = sent(scene)["c"]
    assert [(item.position, item.decode_until) for item in items] == [(0, 6), (6, 9), (9, 10)]
    assert ids == [11, 12, 13, 72, 74]
    request.sampling = SamplingParams(presence_penalty=1.0)  # needs what came before: each token goes this way
    request.decode_until = 0
    scene.outbox.sent.clear()
    sender.add_prompt(request)
    sender.add_token(request, 3, 70)
    sender.flush()
    assert [(item.position, item.decode_until) for item in sent(scene)["c"][0]] == [(0, 0), (3, 0)]
