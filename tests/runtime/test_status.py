"""The status of an engine: attributes, plain data, and the item access of earlier versions."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from helix_kit.runtime import EngineStatus, WorkerStatus
from helix_kit.runtime.status import DroppedCounts, Loss
from helix_kit.runtime.transport.messages import WorkerCounters

UP = WorkerStatus("up", pid=17, layers=(0, 4), pages=64, reason="", report_age_s=0.5, pages_used=12, cpu_s=1.5)
LOST = WorkerStatus("lost", pid=None, layers=(4, 6), pages=0, reason="its process ended", report_age_s=None)
STATUS = EngineStatus(
    workers={"a": UP, "b/0": LOST},
    waiting=2,
    running=1,
    pages_promised=24,
    tokens_out=8,
    coordinator_cpu_s=0.25,
    losses=(Loss(3.0, "b/0", "its process ended"),),
    flow_tokens_per_s=0.0,
    dropped_messages=DroppedCounts(malformed=1, foreign=0, stale=2),
)


def test_a_worker_has_every_counter_of_its_heartbeats() -> None:
    fields = {field.name for field in dataclasses.fields(WorkerStatus)}
    assert set(WorkerCounters.__struct_fields__) <= fields


def test_plain_data_can_be_written_as_json() -> None:
    read = json.loads(json.dumps(STATUS.to_dict()))
    assert read == STATUS.to_dict()
    assert read["workers"]["a"]["layers"] == [0, 4] and read["workers"]["a"]["pages_used"] == 12
    assert read["workers"]["b/0"]["state"] == "lost" and read["workers"]["b/0"]["report_age_s"] is None
    assert read["losses"] == [[3.0, "b/0", "its process ended"]]
    assert read["dropped_messages"] == {"malformed": 1, "foreign": 0, "stale": 2}


def test_items_are_read_as_before_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match=r"use status\(\).workers"):
        workers = STATUS["workers"]
    assert workers["a"]["pid"] == 17 and workers["b/0"]["reason"] == "its process ended"
    with pytest.warns(DeprecationWarning):
        assert [worker for _, worker, _ in STATUS["losses"]] == ["b/0"]
    with pytest.warns(DeprecationWarning), pytest.raises(KeyError):
        STATUS["nothing"]


def test_steps_are_those_of_all_workers() -> None:
    up: dict[str, Any] = {"pid": 1, "layers": (0, 4), "pages": 8, "reason": "", "report_age_s": 0.1}
    workers = {
        "a": WorkerStatus("up", **up, steps=7, overruns=2),
        "b": WorkerStatus("up", **up, steps=5, overruns=1),
    }
    status = dataclasses.replace(STATUS, workers=workers)
    assert (status.steps, status.overruns) == (12, 3)
