"""The log grows without losing what it holds."""

from __future__ import annotations

import pytest

from helix_kit.report import Batch
from helix_kit.simulator.log import RunLog


@pytest.mark.parametrize("record_batches", [True, False])
def test_growing_doubles_the_room_and_keeps_what_is_written(record_batches):
    log = RunLog.for_requests(3, record_batches=record_batches)
    room, batches = len(log.arrays.token_time), len(log.arrays.batches)
    log.arrays.token_time[:2] = 1.5, 2.5
    log.arrays.token_request[-1] = 2
    log.grow()
    assert len(log.arrays.token_time) == len(log.arrays.token_request) == 2 * room
    assert log.arrays.token_time[:2].tolist() == [1.5, 2.5]
    assert log.arrays.token_request[room - 1] == 2 and not log.arrays.token_request[room:].any()
    assert len(log.arrays.batches) == (2 * batches if record_batches else batches)


def test_batches_carry_names_and_seconds_since_serving_started():
    log = RunLog.for_requests(1, record_batches=True)
    log.arrays.batches[0] = (1, 12.0, 12.5, 100, 3)
    log.arrays.batches[1] = (0, 13.0, 14.0, 0, 8)
    assert log.batches(1, ["a", "b"], start_s=10.0) == [Batch("b", 2.0, 2.5, 100, 3)]
