"""`helix-kit simulate`: its JSON, and traces: the defaults fit them, and what is left out is said."""

from __future__ import annotations

import errno
import json
import signal

import helix_kit as hk
from helix_kit import _files
from helix_kit.cli.shared import Status


def test_simulate_contract(helix_kit, single24_file):
    code, out, err = helix_kit("simulate", single24_file, "--duration", 30, "--warmup", 5, "--rate", 0.5, "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["decode_tokens_per_s"] > 0
    for key in ("prompt_latency_s", "decode_latency_s"):
        values = summary[key]
        assert values["p5"] <= values["p25"] <= values["p50"] <= values["p75"] <= values["p95"]
        assert values["avg"] > 0


def test_a_plan_file_that_does_not_match_itself(helix_kit, plan_file, tmp_path):
    plan = json.loads(plan_file.read_text())
    plan["placement"]["H100-7"] = [0, 4]
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(plan))
    code, _, err = helix_kit("simulate", path)
    assert code == 2 and "unknown node 'H100-7'" in err


def test_a_short_trace_is_measured_whole(helix_kit, tmp_path, plan_file):
    trace = tmp_path / "short.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,50,20\n2,50,20\n5,50,20\n")
    code, out, _ = helix_kit("simulate", plan_file, "--trace", trace, "--json")
    summary = json.loads(out)
    assert code == 0 and summary["finished"] == 3 and summary["decode_tokens_per_s"] > 0
    assert summary["window_s"][0] == 0 and summary["prompt_latency_s"]["avg"] is not None


def test_requests_beyond_the_duration_are_counted(helix_kit, tmp_path, plan_file):
    trace = tmp_path / "long.csv"
    rows = "".join(f"{10 * i},50,20\n" for i in range(40))
    trace.write_text(f"arrival_s,input_tokens,output_tokens\n{rows}")
    code, out, _ = helix_kit("simulate", plan_file, "--trace", trace, "--duration", 95)
    assert code == 0 and "Note: 30 of 40 requests arrive after the simulated time and are left out" in out


def test_columns_and_unit_of_another_trace(helix_kit, tmp_path, plan_file):
    trace = tmp_path / "mine.csv"
    trace.write_text("ts;prompt;gen\n1000;50;20\n3000;50;20\n4000;50;0\n")
    command = ("simulate", plan_file, "--trace", trace, "--columns", "arrival=ts,input=prompt,output=gen")
    code, out, _ = helix_kit(*command, "--time-unit", "ms")
    assert code == 0 and "Note: times are in ms" in out and "Note: 1 row without" in out
    code, _, err = helix_kit(*command[:-1], "arrival:ts")
    assert code == 2 and "--columns = 'arrival:ts': expected arrival=NAME" in err


def test_goodput_under_limits(helix_kit, plan_file, tmp_path):
    trace = tmp_path / "short.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{i},50,20\n" for i in range(8)))
    command = ("simulate", plan_file, "--trace", trace)
    code, out, err = helix_kit(*command, "--json")
    assert code == 0, err
    plain = json.loads(out)
    assert "goodput" not in plain and plain["ttft_s"]["mean"] == plain["prompt_latency_s"]["avg"]
    limit = f"ttft:{plain['ttft_s']['max']}"
    code, out, err = helix_kit(*command, "--goodput", limit, "e2el:60", "at:0.9", "--json")
    assert code == 0, err
    good = json.loads(out)["goodput"]
    assert good["kept"] == good["decided"] == 8 and good["holds"] and good["slo"]["at"] == 0.9
    code, out, _ = helix_kit(*command, "--slo", "ttft:1ms")
    assert code == 0 and "Goodput: 0 requests/s" in out and "TTFT (prompt latency)" in out
    code, _, err = helix_kit(*command, "--goodput", "itl:3")
    assert code == 2 and "slo = 'itl:3': expected limits such as ttft:0.5" in " ".join(err.split())


def test_a_sampled_backlog_lasts_whatever_the_cluster_serves(helix_kit, plan_file, monkeypatch):
    """Four machines and few requests: the command takes more until some are left, and says nothing of the first try."""
    from helix_kit.workload import named, workload

    asked = []
    make = workload.Workload.offline
    monkeypatch.setattr(named, "backlog_size", lambda plan, seconds, tokens: int(seconds))
    monkeypatch.setattr(workload.Workload, "offline", lambda n, **more: asked.append(n) or make(n, **more))
    options = ("--mode", "offline", "--warmup", 5, "--duration", 20, "--json")
    code, out, err = helix_kit("simulate", plan_file, *options)
    summary = json.loads(out)
    assert code == 0, err
    assert "ran_dry_s" not in summary and not any("dry" in note for note in summary["notes"])
    assert asked == [25 << i for i in range(len(asked))] and len(asked) > 1


def test_a_backlog_says_when_its_start_still_counts(helix_kit, plan_file):
    """Its first requests begin together on empty machines: until they have left, plans seem to serve less or more."""
    notes = {}
    for warmup_s in (1, 200):
        options = ("--mode", "offline", "--warmup", warmup_s, "--duration", 60, "--json")
        code, out, err = helix_kit("simulate", plan_file, *options)
        assert code == 0, err
        summary = json.loads(out)
        notes[warmup_s] = [note for note in summary["notes"] if "still counts" in note]
        assert 1 < summary["e2el_s"]["mean"] < 200
    [early] = notes[1]
    assert "--warmup " in early and notes[200] == []


def test_a_trace_that_runs_dry_offline_is_said(helix_kit, tmp_path, plan_file):
    trace = tmp_path / "few.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n" + "0,50,20\n" * 30)
    code, out, _ = helix_kit("simulate", plan_file, "--trace", trace, "--mode", "offline")
    assert code == 0 and "Note: the backlog of 30 requests ran dry at" in out


def test_no_request_in_so_short_a_time_is_said_so(helix_kit, plan_file):
    code, _, err = helix_kit("simulate", plan_file, "--rate", 1e-6, "--duration", 10)
    assert code == 2 and "--rate = 1e-06: expected a higher rate or a longer --duration" in err


def test_requests_of_other_lengths_than_the_plans_are_said_to_be(helix_kit, tmp_path, plan_file):
    trace = tmp_path / "long.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,3000,500\n")
    code, out, err = helix_kit("simulate", plan_file, "--trace", trace)
    assert code == 0, err
    assert "Note: the plan is for requests of " in out and "these have 3,000 tokens in and 500 out (long.csv)" in out
    code, out, _ = helix_kit("simulate", plan_file, "--rate", 0.5, "--duration", 60)
    assert code == 0 and "the plan is for requests" not in out


def test_a_plan_for_an_engine_keeps_it_without_its_prefix_cache(helix_kit, tmp_path):
    cluster = hk.Cluster.model_validate({"name": "one", "nodes": [{"gpu": "A100-80G"}]})
    plan = hk.plan(cluster, "llama3.1-8b", engine="vllm-0.15")
    plan.save(tmp_path / "plan.json")
    given = ["--workload", "conversations", "--rate", 2, "--duration", 30, "--warmup", 10, "--json"]
    hits = {}
    for option in ("--prefix-cache", "--no-prefix-cache"):
        code, out, err = helix_kit("simulate", tmp_path / "plan.json", *given, option)
        assert code == 0, err
        told = json.loads(out)
        assert told["engine"] == "vllm-0.15"
        hits[option] = told["prefix_hit_rate"]
    assert hits["--prefix-cache"] > 0 == hits["--no-prefix-cache"]


def test_ctrl_c_prints_what_there_is_and_is_told_by_the_exit_code(helix_kit, plan_file, monkeypatch):
    monkeypatch.setattr(Status, "_say", lambda *_: signal.raise_signal(signal.SIGINT))
    code, out, err = helix_kit("simulate", plan_file, "--rate", 0.5, "--duration", 50, "--warmup", 5, "--json")
    assert code == 130 and "helix-kit: stopped; these are the figures until then" in err
    summary = json.loads(out)
    assert summary["partial"] and "was stopped at 0 s of 55 s" in summary["notes"][-1]


def test_figures_are_printed_before_rows_are_written(helix_kit, plan_file, tmp_path, monkeypatch):
    """A disk that is full after a long simulation costs the rows, not the figures."""

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(_files, "write_result", full)
    rows = tmp_path / "rows.csv"
    code, out, err = helix_kit("simulate", plan_file, "--rate", 0.5, "--duration", 20, "--records", rows, "--json")
    assert (code, err) == (1, f"helix-kit: {rows}: No space left on device\n")
    assert json.loads(out)["requests"] > 0
