"""The measured link between two processes, and the cluster that planner and simulator read it from."""

from __future__ import annotations

import pytest

pytest.importorskip("zmq")

from helix_kit.cluster import Cluster
from helix_kit.errors import InputError
from helix_kit.runtime.transport.link_measurement import measure_link


def test_a_measured_link_becomes_the_clusters_network() -> None:
    told: list[float] = []
    found = measure_link(repeats=8, progress=lambda _, share: told.append(share))
    assert told == [0.0, 0.5, 1.0]
    for low, middle, high in (found.latency_ms, found.bandwidth_gbps):
        assert 0 < low <= middle <= high
    cluster = Cluster.preset("laptop").model_copy(update={"network": found.network()})
    again = Cluster.model_validate(cluster.model_dump())
    a, b, *_ = (node.name for node in again.nodes)
    assert again.link(a, b).latency_ms == found.latency_ms[1]
    assert again.link(a, b).bytes_per_s == pytest.approx(found.bandwidth_gbps[1] * 1e9 / 8)
    with pytest.raises(InputError, match="repeats"):
        measure_link(repeats=0)
