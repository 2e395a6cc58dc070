"""A run on disk: tables, summaries and traces that other programs read."""

from __future__ import annotations

import csv
import json

import numpy as np

from helix_kit.flow import Stage
from helix_kit.report import Batch, NodeUse, Run
from helix_kit.workload.request import Request, RequestRecord


def test_exports_can_be_read_back(tmp_path):
    record = RequestRecord(
        Request(0, 0.0, 10, 2), outcome="finished", first_token_s=1.0, finished_s=1.5, tokens_generated=2,
        token_times_s=[1.0, 1.5],
    )  # fmt: skip
    run = Run(
        [record], window=(0, 2), batches=[Batch("n", 0.25, 0.75, 10, 2)],
        kv_samples={"n": np.array([[0.0, 1.0], [1.0, 5.0]])}, nodes={"n": NodeUse(0.25, 0.0, 0.75, 1, 10, 2)},
    )  # fmt: skip
    run.to_csv(tmp_path / "r.csv")
    row = next(csv.DictReader((tmp_path / "r.csv").open()))
    assert (row["outcome"], float(row["first_token_s"]), row["output_tokens"]) == ("finished", 1.0, "2")
    assert (
        json.loads(run.to_json(tmp_path / "r.json")) == json.loads((tmp_path / "r.json").read_text()) == run.summary()
    )
    run.to_perfetto(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    assert [(e["ts"], e["dur"], e["name"]) for e in spans] == [(0.25e6, 0.5e6, "prefill 10 + decode 2")]
    assert [e["args"]["pages"] for e in events if e["ph"] == "C"] == [1.0, 5.0]


def test_a_request_that_was_refused_has_empty_times_and_its_reason(tmp_path):
    third = 1 / 3
    refused = RequestRecord(Request(4, third, 10, 2), outcome="rejected", reason="no room, for long")
    placed = RequestRecord(Request(5, 0.5, 10, 2), pipeline=(Stage("a", 0, 3), Stage("b", 3, 6)), restarts=2)
    Run([refused, placed]).to_csv(tmp_path / "r.csv")
    first, second = csv.DictReader((tmp_path / "r.csv").open(newline=""))
    assert float(first["arrival_s"]) == third, "all digits are kept"
    assert (first["reason"], first["started_s"], first["finished_s"]) == ("no room, for long", "", "")
    assert (second["pipeline"], second["restarts"], second["outcome"]) == ("a[0:3] b[3:6]", "2", "in_flight")


def test_a_trace_has_a_process_for_each_node(tmp_path):
    """Also for one that has samples but ran nothing."""
    run = Run([], batches=[Batch("b", 0.0, 0.1, 0, 3)], kv_samples={"a": np.array([[2.0, 7.0]])})
    run.to_perfetto(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    assert sorted(names.values()) == ["a", "b"]
    found = {(names[e["pid"]], e["name"], e["ts"]) for e in events if e["ph"] != "M"}
    assert found == {("b", "decode 3", 0.0), ("a", "KV", 2e6)}
