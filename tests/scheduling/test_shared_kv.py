"""Prefixes over several workers: the shortest hit, promises that grow, and pages that all come back."""

from __future__ import annotations

import numpy as np

from helix_kit.flow import Stage
from helix_kit.scheduling.shared_kv import SharedKV


def test_a_promise_is_extended_for_what_is_not_shared():
    kv, way = SharedKV(), (Stage("a", 0, 2), Stage("b", 2, 3))
    kv.add_worker("a", 12)
    kv.add_worker("b", 5)
    assert kv.admit((1, 0), 32, way).hit_blocks == 0
    kv.add_computed((1, 0), np.array([3, 4]))
    kv.look_up(np.array([3, 4]))
    assert kv.admit((2, 0), 40, way).hit_blocks == 2
    assert (kv.free("a"), kv.free("b")) == (6, 2)
    assert kv.extend((2, 0), 80, way) == {} and (kv.free("a"), kv.free("b")) == (2, 0)
    assert kv.extend((2, 0), 81, way) is None and (kv.free("a"), kv.free("b")) == (2, 0)
    kv.leave((1, 0))
    kv.release_all((1, 0))
    assert (kv.free("a"), kv.free("b")) == (2, 0)  # the second request still uses the blocks


def test_the_shortest_hit_of_the_stages_counts():
    kv, way = SharedKV(), (Stage("a", 0, 2), Stage("b", 2, 3))
    for name in "ab":
        kv.add_worker(name, 40)
    prompt = np.arange(3)
    kv.admit((1, 0), 48, way)
    kv.add_computed((1, 0), prompt)
    kv.leave((1, 0))
    kv.release_all((1, 0))
    assert kv.hit_blocks(prompt, way) == 3
    kv.add_worker("b", 40)  # started again: its cache is empty
    assert kv.hit_blocks(prompt, way) == 0 and kv.hit_blocks(prompt, way[:1]) == 3
    kv.look_up(prompt)
    assert kv.admit((2, 0), 48, way).hit_blocks == 0


def test_a_request_fits_without_the_blocks_where_they_have_more_layers_than_it_needs():
    """The idle blocks take 8 of 9 pages; the request needs 8 pages of its own, or 4 beside those 8."""
    kv = SharedKV()
    kv.add_worker("a", 9)
    kv.admit((1, 0), 32, (Stage("a", 0, 4),))
    kv.add_computed((1, 0), np.array([3, 4]))
    kv.leave((1, 0))
    kv.release_all((1, 0))
    kv.look_up(np.array([3, 4]))
    assert kv.wanted_hits((Stage("a", 2, 4),)) == 2
    admitted = kv.admit((2, 0), 64, (Stage("a", 2, 4),))
    assert admitted.hit_blocks == 0 and admitted.evicted["a"].tolist() == [[1, 0, 1], [1, 0, 0]]


def test_the_view_of_a_request_lasts_until_it_is_admitted():
    kv, way = SharedKV(), (Stage("a", 0, 1),)
    kv.add_worker("a", 4)
    kv.admit((1, 0), 48, way)
    kv.add_computed((1, 0), np.arange(3))
    kv.look_up(np.arange(3))
    assert kv.has_room("a", 64, 0, 1) and kv.admit((2, 0), 64, way).hit_blocks == 3
    assert not kv.has_room("a", 64, 0, 1) and kv.admit((3, 0), 64, way) is None
