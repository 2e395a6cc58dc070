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
from helix_kit.runtime.worker.requests import RequestTable, WaitingRows  # noqa: E402
from helix_kit.runtime.worker.step import (  # noqa: E402
    load_entries,
    messages_to_next_stages,
    run_entries,
    sample_tokens,
)
from helix_kit.runtime.worker.wire_tensors import from_wire  # noqa: E402

GREEDY = SamplingFields(0.0, 0, 1.0, 0)
PROMPTS = {1: [5, 6, 7], 2: [9], 3: [11, 12]}
ENDS = {1: 4, 2: 4, 3: 2}
"""Layer after which the first worker passes each request on."""


def chosen_of(table: RequestTable, arrived: list[tuple[WorkItem, torch.Tensor]]) -> list:
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
    entries = load_entries(first, chosen_of(RequestTable("a", 0, 4, 6, pools[0]), arrived))
    # Layers 0 and 1 are passed by all (5 prefill tokens, 1 decode), layers 2 and 3 by requests 1 and 2.
    assert run_entries(first, pools[0], entries) == [SegmentLoad(2, 5, 1), SegmentLoad(2, 3, 1)]
    assert sample_tokens(first, entries) == []
    outgoing = messages_to_next_stages(entries)
    assert [(o.worker, o.endpoint) for o in outgoing] == [("b", "tcp://b"), ("b", "tcp://c")]
    assert [[item.request for item in o.message.items] for o in outgoing] == [[1, 3], [2]]
    assert [o.message.shape for o in outgoing] == [(5, 64), (1, 64)]

    arrived = []
    for o in outgoing:
        sizes = [item.tokens for item in o.message.items]
        arrived += zip(o.message.items, from_wire(o.message).split(sizes))
    entries = load_entries(last, chosen_of(RequestTable("b", 2, 6, 6, pools[1]), arrived))
    run_entries(last, pools[1], entries)
    assert messages_to_next_stages(entries) == []
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with torch.inference_mode():
        expected = [
            SampledToken(r, 0, len(PROMPTS[r]), int(model(torch.tensor([PROMPTS[r]])).logits[0, -1].argmax()))
            for r in (1, 3, 2)
        ]
    assert sample_tokens(last, entries) == expected


def test_a_token_is_sampled_only_where_one_is_wanted(tiny_llama: Path) -> None:
    model = ModelLayers(Checkpoint(tiny_llama), 0, 6)
    pool = model.new_pool(40)
    route = [RouteStage("a", 0, 6, "tcp://a")]
    arrived = [(WorkItem(r, 0, 0, 1, r == 2, route, GREEDY), torch.tensor([5], dtype=torch.int32)) for r in (1, 2)]
    entries = load_entries(model, chosen_of(RequestTable("a", 0, 6, 6, pool), arrived))
    run_entries(model, pool, entries)
    assert [token.request for token in sample_tokens(model, entries)] == [2]
