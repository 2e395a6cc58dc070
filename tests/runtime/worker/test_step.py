"""A step takes each request's rows through its layers, and says what goes where afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM  # noqa: E402

from helix_kit.runtime.transport.messages import RouteStage, SampledToken, SamplingFields, WorkItem  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.worker.model_layers import ModelLayers  # noqa: E402
from helix_kit.runtime.worker.pacing import SegmentLoad  # noqa: E402
from helix_kit.runtime.worker.requests import HeldRequests, WaitingRows  # noqa: E402
from helix_kit.runtime.worker.step import start_step  # noqa: E402
from helix_kit.runtime.worker.wire_tensors import from_wire  # noqa: E402

GREEDY = SamplingFields(0.0, 0, 1.0, 0)
PROMPTS = {1: [5, 6, 7], 2: [9], 3: [11, 12]}
ENDS = {1: 4, 2: 4, 3: 2}
"""Layer after which the first worker passes each request on."""


def chosen_of(table: HeldRequests, arrived: list[tuple[WorkItem, torch.Tensor]]) -> list:
    chosen = []
    for item, rows in arrived:
        request = table.accept(item, is_token_ids=rows.dtype == torch.int32)
        chosen.append((request, WaitingRows(item, rows, 0.0)))
    return chosen


def test_two_workers_compute_what_the_whole_model_does(tiny_llama: Path) -> None:
    checkpoint = Checkpoint(tiny_llama)
    first, last = ModelLayers(checkpoint, 0, 4), ModelLayers(checkpoint, 2, 6)
    pools = first.new_pool(40), last.new_pool(40)
    arrived = []
    for request, prompt in PROMPTS.items():
        # Requests 1 and 3 go to one worker, request 2 to another worker with the same layers.
        route = [RouteStage("a", 0, ENDS[request], "tcp://a")]
        route.append(RouteStage("b", ENDS[request], 6, "tcp://c" if request == 2 else "tcp://b"))
        item = WorkItem(request, 0, 0, len(prompt), True, route, GREEDY)
        arrived.append((item, torch.tensor(prompt, dtype=torch.int32)))
    step = start_step(first, pools[0], chosen_of(HeldRequests("a", 0, 4, 6, pools[0]), arrived))
    # Layers 0 and 1 are passed by all (5 prefill tokens, 1 decode), layers 2 and 3 by requests 1 and 2.
    assert step.loads == [SegmentLoad(2, 5, 1), SegmentLoad(2, 3, 1)]
    assert step.tokens() == []
    outgoing = step.messages()
    assert [(o.worker, o.endpoint) for o in outgoing] == [("b", "tcp://b"), ("b", "tcp://c")]
    assert [[item.request for item in o.message.items] for o in outgoing] == [[1, 3], [2]]
    assert [o.message.shape for o in outgoing] == [(5, 64), (1, 64)]

    arrived = []
    for o in outgoing:
        sizes = [item.tokens for item in o.message.items]
        arrived += zip(o.message.items, from_wire(o.message).split(sizes))
    step = start_step(last, pools[1], chosen_of(HeldRequests("b", 2, 6, 6, pools[1]), arrived))
    assert step.messages() == []
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with torch.inference_mode():
        expected = [
            SampledToken(r, 0, len(PROMPTS[r]), int(model(torch.tensor([PROMPTS[r]])).logits[0, -1].argmax()))
            for r in (1, 3, 2)
        ]
    assert step.tokens() == expected


def test_a_token_is_sampled_only_where_one_is_wanted(tiny_llama: Path) -> None:
    model = ModelLayers(Checkpoint(tiny_llama), 0, 6)
    pool = model.new_pool(40)
    route = [RouteStage("a", 0, 6, "tcp://a")]
    arrived = [(WorkItem(r, 0, 0, 1, r == 2, route, GREEDY), torch.tensor([5], dtype=torch.int32)) for r in (1, 2)]
    step = start_step(model, pool, chosen_of(HeldRequests("a", 0, 6, 6, pool), arrived))
    assert [token.request for token in step.tokens()] == [2]


def test_the_only_stage_goes_on_with_its_tokens_until_the_last_one(tiny_llama: Path) -> None:
    """Three tokens are to come after a prompt of three: the first two are computed on, the third one is not."""
    model = ModelLayers(Checkpoint(tiny_llama), 0, 6)
    pool = model.new_pool(40)
    table = HeldRequests("a", 0, 6, 6, pool)
    item = WorkItem(1, 4, 0, 3, True, [RouteStage("a", 0, 6, "tcp://a")], GREEDY, decode_until=5)
    [(request, rows)] = chosen_of(table, [(item, torch.tensor([5, 6, 7], dtype=torch.int32))])
    request.received += 3
    tokens = []
    while True:
        step = start_step(model, pool, [(request, rows)])
        step.go_on(0.0)
        tokens += step.tokens()
        assert step.messages() == []
        if not request.waiting:
            break
        rows = request.waiting.popleft()
        assert (rows.item.position, rows.item.epoch, request.received) == (
            tokens[-1].position,
            4,
            tokens[-1].position + 1,
        )
    whole = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    expected = whole.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert [token.token for token in tokens] == expected[0, 3:].tolist()


def test_the_last_stage_sends_tokens_to_the_first_until_the_last_one(tiny_llama: Path) -> None:
    model = ModelLayers(Checkpoint(tiny_llama), 3, 6)
    pool = model.new_pool(40)
    table = HeldRequests("b", 3, 6, 6, pool)
    arrived = []
    for request, (first, until) in enumerate({"tcp://a": 9, "tcp://c": 9, "tcp://d": 1}.items()):
        route = [RouteStage("a", 0, 3, first), RouteStage("b", 3, 6, "tcp://b")]
        arrived.append((WorkItem(request, 0, 0, 1, True, route, GREEDY, None, until), torch.randn(1, 64)))
    step = start_step(model, pool, chosen_of(table, arrived))
    step.go_on(0.0)
    assert not table.has_waiting_rows()
    sampled = {token.request: token.token for token in step.tokens()}
    sent = step.messages()
    assert [(to.worker, to.endpoint) for to in sent] == [("a", "tcp://a"), ("a", "tcp://c")]
    for request, to in enumerate(sent):
        assert to.message.items == [WorkItem(request, 0, 1, 1, True)]
        assert from_wire(to.message).tolist() == [sampled[request]]
