"""The command line as scripts meet it: exit codes, messages, JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

BASE = """
name: mine
coordinator: {region: here}
nodes:
  - {gpu: A100-40G, count: 8, region: here}
network: {within_region: {bandwidth_gbps: 10, latency_ms: 1}}
"""


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    command = [
        sys.executable,
        "-m",
        "helix_kit.cli",
        "plan",
        "single24",
        "--model",
        "llama2-70b",
        "-o",
        str(path),
        "--json",
    ]
    done = subprocess.run([*command, "--objective", "flow"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(path.read_text())
    return path


def test_plan_contract(plan_file):
    plan = json.loads(plan_file.read_text())
    assert plan["flow_tokens_per_s"] >= 2045
    assert plan["gap"] <= 0.001
    assert plan["bound_tokens_per_s"] >= plan["flow_tokens_per_s"]
    assert plan["seconds"] < 30
    assert set(plan["node_throughput_tokens_per_s"]) == set(plan["placement"])
    assert all(0 <= start < end <= 80 for start, end in plan["placement"].values())


def test_simulate_contract(helix_kit, plan_file):
    code, out, err = helix_kit("simulate", plan_file, "--duration", 30, "--warmup", 5, "--rate", 0.5, "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["decode_tokens_per_s"] > 0
    for key in ("prompt_latency_s", "decode_latency_s"):
        values = summary[key]
        assert values["p5"] <= values["p25"] <= values["p50"] <= values["p75"] <= values["p95"]
        assert values["avg"] > 0


@pytest.mark.parametrize(
    ("find", "replace", "expected"),
    [
        ("A100-40G", "A1000", "unknown GPU 'A1000'"),
        ("bandwidth_gbps: 10", "bandwidth_gbps: -10", "bandwidth_gbps = -10"),
        ("count: 8, region: here}", "count: 8, region: here}\n  - {gpu: T4}", "nodes[1]"),
    ],
)
def test_a_broken_cluster_is_one_message_and_exit_code_2(helix_kit, tmp_path, find, replace, expected):
    path = tmp_path / "mine.yaml"
    path.write_text(BASE.replace(find, replace))
    code, out, err = helix_kit("plan", path, "--model", "llama2-70b", "--json")
    assert (code, out) == (2, "")
    assert err.count("helix-kit:") == 1 and expected in err and "Traceback" not in err


def test_a_model_that_cannot_fit_is_no_plan_with_its_smallest_fix_and_exit_code_3(helix_kit, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(BASE.replace("count: 8", "count: 1"))
    code, out, err = helix_kit("plan", path, "--model", "llama2-70b", "--json")
    assert (code, out) == (3, "")
    assert err.count("helix-kit:") == 1 and "llama2-70b cannot fit" in err and "Traceback" not in err
    count, gpu = re.search(r"Smallest fix: (\d+) more ([\w-]+)", err).groups()
    more = BASE.replace(
        "count: 8, region: here}", f"count: 1, region: here}}\n  - {{gpu: {gpu}, count: {count}, region: here}}"
    )
    path.write_text(more)
    code, _, err = helix_kit("plan", path, "--model", "llama2-70b", "--objective", "flow", "--json")
    assert code == 0, err


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["plan", "single42", "--model", "llama2-70b"], "did you mean single24"),
        (["plan", "single24", "--model", "llama2-7b"], "llama2-70b"),
        (["plan", "single24", "--model", "llama2-70b", "--time-limit", "0"], "--time-limit"),
        (["plan", "single24"], "--model"),
        (["plan", "single24", "--model", "llama2-70b", "--method", "guess"], "method = 'guess'"),
        (["plan", "single24", "--model", "llama2-70b", "--solver", "guess"], "guess"),
        (["plan", "single24", "--model", "llama2-70b", "--pin", "L4-0"], "--pin = 'L4-0'"),
        (["plan", "single24", "--model", "llama2-70b", "--pin", "L4-99=0:4"], "L4-99"),
        (["plan", "single24", "--model", "llama2-70b", "-o", "absent/plan.json"], "--output: cannot be written"),
        (["plan", "single24", "--model", "llama2-70b", "-o", "docs"], "it is a folder"),
        (["simulate", "absent.json"], "absent.json"),
        (["simulate", "absent.json", "--records", "absent/records.csv"], "--records: cannot be written"),
        (["simulate", "pyproject.toml"], "not valid JSON"),
    ],
)
def test_wrong_arguments(helix_kit, monkeypatch, root, args, expected):
    monkeypatch.chdir(root)
    code, _, err = helix_kit(*args)
    assert code == 2
    assert expected in err and "Traceback" not in err


def test_catalog_and_help(helix_kit):
    code, out, _ = helix_kit("catalog")
    assert code == 0 and "gpu_link" in out
    code, out, _ = helix_kit("catalog", "--json")
    assert json.loads(out)["gpu_links"]["H100-80G"]["nvlink"]["bandwidth_gbps"] == 2966
    assert code == 0 and {"single24", "geo24", "hetero42", "laptop"} <= set(json.loads(out)["clusters"])
    code, out, _ = helix_kit("--help")
    assert code == 0 and all(word in out for word in ("plan", "simulate", "serve", "catalog"))


def test_a_plan_file_that_does_not_match_itself(helix_kit, plan_file, tmp_path):
    plan = json.loads(plan_file.read_text())
    plan["placement"]["H100-7"] = [0, 4]
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(plan))
    code, _, err = helix_kit("simulate", path)
    assert code == 2 and "unknown node 'H100-7'" in err


def test_contradictory_pins_are_no_plan(helix_kit):
    pins = ["--pin", "L4-0=0:4", "--pin", "L4-0=4:8"]
    code, out, err = helix_kit("plan", "single24", "--model", "llama2-70b", *pins)
    assert (code, out) == (3, "")
    assert "L4-0 cannot hold 0:4 and 4:8" in err and "Smallest fix" in err


def test_pins_are_kept(helix_kit):
    code, out, err = helix_kit(
        "plan", "single24", "--model", "llama2-70b", "--pin", "L4-0=0:4", "--objective", "flow", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["placement"]["L4-0"] == [0, 4]


def test_explain(helix_kit, plan_file):
    code, out, err = helix_kit("explain", plan_file, "--losses", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert any("2,046 tokens/s" in line for line in told["explanation"])
    assert {row["node"] for row in told["losses"]} == set(json.loads(plan_file.read_text())["placement"])


def test_depth_cap(helix_kit, tmp_path):
    from helix_kit.placement.plan import Plan

    path = tmp_path / "plan.json"
    args = ["plan", "single24", "--model", "llama2-70b", "--objective", "flow", "--max-stages", 12, "-o", path]
    code, _, err = helix_kit(*args)
    assert code == 0, err
    assert max(len(pipeline) for pipeline, _ in Plan.load(path).pipelines) <= 12


def test_served_is_the_default_and_names_the_proven_flow(helix_kit, tmp_path):
    path = tmp_path / "served.json"
    code, out, err = helix_kit("plan", "laptop", "--model", "SmolLM2-135M", "--time-limit", 5, "-o", path)
    assert code == 0, err
    plan = json.loads(path.read_text())
    assert plan["objective"] == "served" and plan["served"]["decode_tokens_per_s"] > 0
    assert plan["served"]["max_flow_bound_tokens_per_s"] == min(plan["bounds"].values())
    assert "Most flow:" in out and "--objective flow" in out
    code, out, err = helix_kit("plan", "laptop", "--model", "SmolLM2-135M", "--method", "petals", "--json")
    assert code == 0 and json.loads(out)["objective"] == "flow", err


def test_first_interrupt_keeps_the_best_plan(tmp_path):
    import signal
    import time

    args = ["plan", "hetero42", "--model", "llama2-70b", "--method", "paper-milp", "--time-limit", "60", "--json"]
    command = [sys.executable, "-m", "helix_kit.cli", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(15)  # a busy machine takes a while until the solver runs; its limit is 60 s
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "stopped" in err and json.loads(out)["flow_tokens_per_s"] > 0


@pytest.mark.parametrize(
    "option, words",
    [
        (("--attention", "flash"), "attention = 'flash': expected one of sdpa, flashinfer, auto"),
        (("--devices", "gpu"), "devices = 'gpu': expected plan, any, cpu"),
    ],
)
def test_unknown_words_of_serve_are_wrong_input(helix_kit, plan_file, option, words):
    code, _, err = helix_kit("serve", plan_file, "--weights", "nowhere", "--prompt", "x", *option)
    assert code == 2 and words in " ".join(err.split())
