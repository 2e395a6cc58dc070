"""Token ids collected for the first stages, and sent as one message to each."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from helix_kit.flow import Stage
from helix_kit.runtime import SamplingParams
from helix_kit.runtime.coordinator.active_request import ActiveRequest
from helix_kit.runtime.coordinator.token_sender import TokenSender
from helix_kit.runtime.handle import Handle
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
    assert not sender
    request = active(5, [11, 12, 13, 14, 15, 16, 17], Stage("a", 0, 4), Stage("b", 4, 6))
    request.generated = [18]
    sender.add_prompt(request)
    assert sender and scene.outbox.sent == []
    sender.flush()
    assert not sender
    items, ids = sent(scene)["a"]
    assert ids == [11, 12, 13, 14, 15, 16, 17, 18]
    assert [(i.position, i.tokens, i.wants_token) for i in items] == [(0, 3, False), (3, 3, False), (6, 2, True)]
    assert [(stage.node, stage.start, stage.end) for stage in items[0].route] == [("a", 0, 4), ("b", 4, 6)]
    assert items[0].route[1].endpoint == scene.manager.records["b"].endpoint
    fields = items[0].sampling
    assert (fields.temperature, fields.top_k, fields.top_p, fields.seed) == (0.5, 3, 0.9, 7)
    assert all(item.route is None and item.sampling is None for item in items[1:])


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
