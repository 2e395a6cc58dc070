"""What the published program fixes: Helix's bandwidth grants, its scheduler's constants, and offline feeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from helix_kit.simulator.options import Feed, SimulationOptions
from helix_kit.simulator.setup import Setup
from helix_kit.typical_request import ROUND_CONTEXT_TOKENS

KV_SHARE_IN_FLIGHT = 0.6
"""Baselines that cannot refuse requests have enough in flight to fill this share of the tightest layer's KV cache."""


def grant_bandwidth(setup: Setup) -> None:
    """Give each link the bandwidth that Helix's scheduler grants (published rule).

    It is the least of the link's bandwidth and its share, by bytes, of the sender's and of the receiver's card.
    """
    flow = setup.plan.flow_edges
    weight = np.array([flow.get(e, 0.0) for e in setup.edges]) * setup.links["bytes_per_token"]
    sent = np.bincount(setup.links["source"], weight, minlength=len(setup.nodes))
    received = np.bincount(setup.links["target"], weight, minlength=len(setup.nodes))
    for i, link in enumerate(setup.links):
        if weight[i] > 0:
            sender, receiver = setup.nodes[link["source"]], setup.nodes[link["target"]]
            out_share = sender["nic"] * (weight[i] / sent[link["source"]])
            in_share = receiver["nic"] * (weight[i] / received[link["target"]])
            granted = min(link["bandwidth"], out_share, in_share)
            # A share of exactly one must not lose a byte to rounding. Less than a byte/s is granted as it is: with a
            # grant of zero no message would ever end.
            link["granted"] = math.floor(granted + 1e-6) or granted


def helix_options(setup: Setup, options: SimulationOptions) -> dict[str, Any]:
    """Constants of the published Helix scheduler, as keywords of `helix_kit.scheduling.Helix`."""
    marks = {"high_water": 0.9, "output_ratio": 0.6}
    if options.is_offline:
        marks = {"high_water": 0.85, "output_ratio": 1.0}
    longest = {name: int(n) for name, n in zip(setup.names, setup.compute_nodes["prefill_tokens_max"], strict=True)}
    return {"kv": "expectation", **marks, "max_prompt_tokens": longest}


def offline_feed(setup: Setup, policy_name: str) -> Feed:
    """How the published program issues offline requests: by KV use for Helix, else a fixed number in flight."""
    if policy_name == "helix":
        return Feed()
    return Feed(_fixed_in_flight(setup), kv_mark=None)


def _fixed_in_flight(setup: Setup) -> int:
    """Requests of 1000 tokens that the tightest layer's KV caches hold at 60 %, at least one."""
    room = np.zeros(setup.plan.model.num_layers)
    for node in setup.compute_nodes:
        room[node["start"] : node["start"] + node["layers"]] += node["kv_capacity"] / node["layers"]
    return max(1, int(KV_SHARE_IN_FLIGHT * room.min() / ROUND_CONTEXT_TOKENS))
