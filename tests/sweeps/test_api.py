"""Sweeps of a server with a known capacity: the knee is found, workers give the same rows, and a file resumes."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from queue_servers import servers

import helix_kit as hk
from helix_kit import SLO, Workload
from helix_kit.errors import InputError
from helix_kit.scheduling import Policy
from helix_kit.sweeps.point import measure

# One node whose prompts take 0.1 s each: it serves ten requests a second.
LOAD = Workload.poisson(5.0, 200.0, input_tokens=100, output_tokens=1, seed=3)
TIMES = {"warmup_s": 20.0, "duration_s": 200.0, "jobs": 1}


@pytest.fixture(scope="module")
def server():
    return servers([1.0])


@pytest.fixture(scope="module")
def found(server):
    return hk.sweep(server, rates="3:15:3", workload=LOAD, seeds=2, slo=SLO(ttft_s=1.0, at=0.9), **TIMES)


def test_the_knee_is_the_capacity(found):
    curve = found.curves["test"]
    assert curve.column("rate_per_s") == [3, 6, 9, 12, 15]
    assert curve.column("regime")[:2] == ["stable", "stable"] and curve.column("regime")[3:] == ["overloaded"] * 2
    assert curve.knee_per_s == pytest.approx(10.0, rel=0.02)
    assert 6 <= curve.slo_rate_per_s < 12
    for row in curve.rows:
        assert row["goodput_per_s"] <= row["requests_per_s"] and row["ttft_p50_s"] <= row["ttft_p99_s"]
        assert row["requests_per_s"] == pytest.approx(min(row["rate_per_s"], 10), rel=0.03)
    assert all(a["ttft_mean_s"] < b["ttft_mean_s"] for a, b in pairwise(curve.rows))
    assert "knee 10 requests/s" in repr(found) and json.loads(found.to_json())["curves"][0]["plan"] == "test"


def test_table_and_picture(found, tmp_path):
    table = found.table
    assert len(table) == 5 and (table["seeds"] == 2).all() and (table["requests_per_s_ci"] >= 0).all()
    found.to_csv(tmp_path / "sweep.csv")
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == 6
    figure = found.plot()
    assert [axes.get_ylabel() for axes in figure.axes][-1] == "share that keeps the SLO"


def test_workers_give_the_same_rows_and_a_file_resumes(server, tmp_path, monkeypatch):
    kept = tmp_path / "points.jsonl"
    asked = {"rates": [4, 11], "workload": LOAD, "seeds": 2, "warmup_s": 20.0, "duration_s": 60.0}
    alone = hk.sweep({"mine": server}, jobs=1, **asked)
    told = []
    together = hk.sweep({"mine": server}, jobs=2, resume=kept, progress=lambda *said: told.append(said), **asked)
    assert together.points == alone.points
    assert [done for done, of, _ in told] == [1, 2, 3, 4] and {of for _, of, _ in told} == {4}
    lines = kept.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    kept.write_text("".join(lines[:3]) + lines[3][:20])  # stopped while it wrote the last line
    calls = []
    monkeypatch.setattr("helix_kit.sweeps.pool.measure", lambda *a: calls.append(a) or measure(*a))
    again = hk.sweep({"other name": server}, jobs=1, resume=kept, **asked)
    assert len(calls) == 1 and [p["requests_per_s"] for p in again.points] == [
        p["requests_per_s"] for p in alone.points
    ]
    assert again.points[0]["plan"] == "other name" and len(kept.read_text().splitlines()) == 4


def test_auto_rates_surround_the_capacity(server, monkeypatch):
    monkeypatch.setattr("helix_kit.sweeps.api.PROBE_AT_ONCE", 16)
    found = hk.sweep(server, rates="auto:4", workload=LOAD, seeds=1, jobs=1)
    rates = found.curves["test"].column("rate_per_s")
    assert len(rates) == 4 and rates[0] == pytest.approx(1.0, rel=0.05) and rates[-1] == pytest.approx(12.0, rel=0.05)
    assert found.facts["duration_s"] >= 30


def test_a_closed_loop_fills_the_server(server):
    found = hk.sweep(server, concurrency=[1, 8], workload=LOAD, seeds=1, **TIMES)
    curve = found.curves["test"]
    assert curve.column("concurrency") == [1, 8] and curve.is_closed and curve.knee_per_s is None
    assert max(curve.column("peak_concurrency")) <= 8
    assert curve.rows[1]["requests_per_s"] == pytest.approx(10.0, rel=0.02)
    # Little's law: requests at once = throughput x stay.
    for row in curve.rows:
        assert row["requests_per_s"] * row["e2el_mean_s"] == pytest.approx(row["concurrency"], rel=0.05)


class First(Policy):
    """Always the first pipeline."""

    def __init__(self, pipelines):
        self.first = pipelines[0][0]

    def route(self, request, view):
        return self.first


def test_a_policy_class_of_ones_own(server):
    found = hk.sweep(server, rates=[2.0], workload=LOAD, seeds=1, policy=First, warmup_s=1.0, duration_s=20.0, jobs=2)
    assert found.points[0]["requests_per_s"] > 1


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"rates": "fast"}, "rates = 'fast': expected auto"),
        ({"rates": "5:1:1"}, "rates"),
        ({"rates": [0.0]}, "rates"),
        ({"rates": "auto:one"}, "rates"),
        ({"rates": "auto:\u00b2"}, "rates"),
        ({"rates": "auto:1000000000000"}, "rates"),
        ({"concurrency": [0]}, "concurrency = 0"),
        ({"concurrency": [1], "execution": "layerwise"}, "closed loop"),
        ({"workload": "azur"}, "azure-code"),
        ({"seeds": 0, "rates": [1.0]}, "seeds"),
        ({"rates": [1.0], "duration_s": 0.0, "warmup_s": 1.0}, "duration_s"),
    ],
)
def test_refusals(server, wrong, words):
    with pytest.raises(InputError, match=words):
        hk.sweep(server, **wrong)


def test_no_plan():
    with pytest.raises(InputError, match="at least one plan"):
        hk.sweep([])


def test_a_file_that_is_no_sweep(server, tmp_path):
    kept = tmp_path / "other.jsonl"
    kept.write_text("{}\n")
    with pytest.raises(InputError, match=r"other.jsonl:1.*resume"):
        hk.sweep(server, rates=[1.0], resume=kept, workload=LOAD, **TIMES)
