"""A node under the published rules: what a batch takes, which layer is next, and how long a layer takes."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kit.simulator.layerwise import node as rules
from helix_kit.simulator.state import NODE, QUEUE, REQUEST, Curves, filled

LIMITS = {"prefill_max": 2, "prefill_tokens_max": 500, "decode_max": 3, "context_max": 1000}


def chain(head, requests):
    found = []
    while head >= 0:
        found.append(int(head))
        head = requests[head]["next"]
    return found


def taken(waiting, **limits):
    """Requests of the batch, and those left in the queue; `waiting` are (decoding, tokens of context)."""
    node, queues, requests = filled(NODE, 1), filled(QUEUE, 4, ("head", "tail")), filled(REQUEST, len(waiting))
    node["layers"], node["first_queue"], node["layer"] = 3, 1, 1
    for name, value in {**LIMITS, **limits}.items():
        node[name] = value
    for number, (decoding, tokens) in enumerate(waiting):
        requests[number]["decoding"] = decoding
        requests[number]["input"], requests[number]["done"] = (tokens - 5, 5) if decoding else (tokens, 0)
        rules.append(queues, 2, requests, number)
    rules.take_batch(node[0], queues, requests)
    left = chain(queues[2]["head"], requests)
    assert queues[2]["count"] == len(left)
    assert queues[2]["tail"] == (left[-1] if left else -1) or not left
    batch = chain(node[0]["batch_head"], requests)
    return batch, left, int(node[0]["batch_prefill"]), int(node[0]["batch_decodes"])


@pytest.mark.parametrize(
    ("waiting", "batch", "prefill", "decodes"),
    [
        ([], [], 0, 0),
        ([(0, 100), (1, 200)], [0, 1], 100, 1),
        ([(0, 100), (0, 100), (0, 100)], [0, 1], 200, 0),  # two prompts at most
        ([(0, 400), (0, 200), (0, 100)], [0, 2], 500, 0),  # 500 tokens at most: the second is passed over
        ([(1, 300), (1, 300), (1, 300), (1, 10)], [0, 1, 2], 0, 3),  # three decodes at most
        ([(1, 900), (1, 200), (1, 100)], [0, 2], 0, 2),  # a context of 1000 at most
        ([(0, 600), (1, 2000)], [], 0, 0),
        ([(0, 600), (0, 50), (1, 2000), (1, 20)], [1, 3], 50, 1),
    ],
)
def test_a_batch_takes_in_order_whatever_still_fits(waiting, batch, prefill, decodes):
    left = [number for number in range(len(waiting)) if number not in batch]
    assert taken(waiting) == (batch, left, prefill, decodes)


@pytest.mark.parametrize(
    ("layer", "counts", "expected"),
    [(0, [0, 0, 2, 5], 2), (2, [1, 0, 0, 3], 3), (3, [0, 4, 0, 9], 1), (1, [0, 7, 0, 0], 1), (1, [0, 0, 0, 0], 1)],
)
def test_the_next_layer_in_a_circle_that_has_something_waiting(layer, counts, expected):
    node, queues = filled(NODE, 1), filled(QUEUE, 6, ("head", "tail"))
    node["layers"], node["first_queue"], node["layer"] = 4, 2, layer
    queues["count"] = [9, 9, *counts]  # those of another node stand before
    rules.march(node[0], queues)
    assert node["layer"] == expected


@pytest.mark.parametrize(
    ("decodes", "layer", "unread", "seconds"),
    [
        (4, 1, 1000, 2.0 + 0.5),
        (1, 1, 1000, 2.0 + 2 * 0.2),  # a single decode counts double
        (4, 0, 1000, 2.0 + 0.5 + 1000 * 1e6 * (1 / 4e9 + 1 / 5e9)),  # activations are copied before the first layer
    ],
)
def test_a_layers_seconds(decodes, layer, unread, seconds):
    curves = Curves(
        np.array([1.0, 101.0, 1.0, 4.0]), np.array([1.0, 2.0, 0.2, 0.5]), np.array([[0, 2]]), np.array([[2, 2]])
    )
    node = filled(NODE, 1)
    node["batch_prefill"], node["batch_decodes"], node["slowdown"] = 101, decodes, 3.0
    node["layer"], node["unread_tokens"] = layer, unread
    assert rules.layer_seconds(node[0], curves, 1e6) == pytest.approx(3.0 * seconds, rel=1e-12)
    assert node["unread_tokens"] == (0 if layer == 0 else unread)
