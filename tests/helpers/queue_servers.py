"""Nodes with service times of our choosing, for queueing theory."""

from __future__ import annotations

from helix_kit.cluster import Cluster
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.profiles import Curve, Profile


def servers(ms_per_token: list[float]) -> Plan:
    """A tandem of nodes, each with one layer that takes so many ms for each prompt token, one prompt at a time."""
    gpus = ["T4", "L4", "V100-16G"][: len(ms_per_token)]
    cluster = Cluster.model_validate(
        {
            "name": "tandem",
            "nodes": [{"gpu": g} for g in gpus],
            "network": {"within_region": {"bandwidth_gbps": 1e6, "latency_ms": 0}, "nic_gbps": 1e8},
        }
    )
    model = Model(
        name="servers", num_layers=len(gpus), hidden_size=1, num_heads=1, num_kv_heads=1, head_dim=1,
        intermediate_size=1, vocab_size=2, layer_gb=0.001, activation_bytes_per_token=1,
    )  # fmt: skip
    profiles = {
        g: Profile(
            kind=g, model="servers", source="test", prefill_ms_per_layer=Curve(x=(0, 1e6), y=(0, 1e6 * ms)),
            decode_ms_per_layer=Curve(x=(0, 1e6), y=(0, 1e-6)), kv_capacity_layer_tokens=(10**9,) * len(gpus),
            prefill_max_requests=(1,) * len(gpus), decode_max_requests=(10**6,) * len(gpus),
        )
        for g, ms in zip(gpus, ms_per_token, strict=True)
    }  # fmt: skip
    placement = {f"{g}-0": (i, i + 1) for i, g in enumerate(gpus)}
    return Plan.from_placement(Problem.of(cluster, model, profiles), placement, method="test")
