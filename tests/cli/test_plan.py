"""`helix-kit plan`: its JSON, exit codes and options."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from functools import partial

import pytest

import helix_kit as hk
from helix_kit.placement.least_change import moved_gb

SMALL = """
name: small
nodes: [{gpu: L4, count: 3}]
network: {within_region: {bandwidth_gbps: 10, latency_ms: 1}}
"""
BASE = """
name: mine
coordinator: {region: here}
nodes:
  - {gpu: A100-40G, count: 8, region: here}
network: {within_region: {bandwidth_gbps: 10, latency_ms: 1}}
"""
CASE = ["single24", "--model", "llama2-70b"]


@pytest.fixture
def plan_command(helix_kit):
    """Call `helix-kit plan` in this process: returns (exit code, stdout, stderr)."""
    return partial(helix_kit, "plan")


def test_plan_contract(plan_command, tmp_path):
    code, out, err = plan_command(*CASE, "--objective", "flow", "-o", tmp_path / "plan.json", "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert plan == json.loads((tmp_path / "plan.json").read_text())
    assert plan["flow_tokens_per_s"] >= 2045
    assert plan["gap"] <= 0.001
    assert plan["bound_tokens_per_s"] >= plan["flow_tokens_per_s"]
    assert plan["seconds"] < 30
    assert set(plan["node_throughput_tokens_per_s"]) == set(plan["placement"])
    assert all(0 <= start < end <= 80 for start, end in plan["placement"].values())


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


def test_depth_cap(helix_kit, tmp_path):
    path = tmp_path / "plan.json"
    args = ["plan", "single24", "--model", "llama2-70b", "--objective", "flow", "--max-stages", 12, "-o", path]
    code, _, err = helix_kit(*args)
    assert code == 0, err
    assert max(len(pipeline) for pipeline, _ in hk.Plan.load(path).pipelines) <= 12


def test_pins_are_kept(helix_kit):
    code, out, err = helix_kit(
        "plan", "single24", "--model", "llama2-70b", "--pin", "L4-0=0:4", "--objective", "flow", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["placement"]["L4-0"] == [0, 4]


def test_contradictory_pins_are_no_plan(helix_kit):
    pins = ["--pin", "L4-0=0:4", "--pin", "L4-0=4:8"]
    code, out, err = helix_kit("plan", "single24", "--model", "llama2-70b", *pins)
    assert (code, out) == (3, "")
    assert "L4-0 cannot hold 0:4 and 4:8" in err and "Smallest fix" in err


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


def test_first_interrupt_keeps_the_best_plan(helix_kit, monkeypatch):
    """Ctrl-C in the middle of a search, which has asked a hundred times whether to stop."""
    asked = []

    class Interrupted(threading.Event):
        def is_set(self):
            asked.append(1)
            if len(asked) == 100:
                signal.raise_signal(signal.SIGINT)
            return super().is_set()

    monkeypatch.setattr(threading, "Event", Interrupted)
    before = signal.getsignal(signal.SIGINT)
    code, out, err = helix_kit("plan", "hetero42", "--model", "llama2-70b", "--objective", "flow", "--json")
    assert code == 0, err
    assert "stopped" in err and json.loads(out)["flow_tokens_per_s"] > 0
    assert signal.getsignal(signal.SIGINT) is before


def test_write_lp_gives_the_program_that_was_solved(plan_command, tmp_path):
    cluster, model, lp = tmp_path / "small.yaml", tmp_path / "model.yaml", tmp_path / "small.lp"
    cluster.write_text(SMALL)
    tiny = hk.Model.preset("llama-30b").model_copy(update={"name": "tiny", "num_layers": 6})
    model.write_text(json.dumps(tiny.model_dump(mode="json")))
    code, out, err = plan_command(
        cluster, "--model", model, "--method", "paper-milp", "--write-lp", lp, "--json", "--time-limit", 20
    )
    assert code == 0, err
    plan = hk.Plan.model_validate_json(out)
    highspy = pytest.importorskip("highspy")
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    assert highs.readModel(str(lp)) == highspy.HighsStatus.kOk
    assert any(name.startswith("holds(") for name in highs.getLp().col_names_)
    highs.run()
    assert highs.getInfo().objective_function_value == pytest.approx(plan.flow_tokens_per_s, rel=1e-3)


PODS = """
name: pods
nodes: [{gpu: H100-80G, gpus_per_node: 2, gpu_link: LINK}]
"""


def test_the_link_between_gpus_and_the_share_of_memory_reach_the_plan(plan_command, tmp_path):
    """Two H100 hold Llama-3.1-70B in 0.9 of their memory; the plan's T is that of the link, and reads back."""
    plans = {}
    for link in ("nvlink", "pcie", "{bandwidth_gbps: 10, latency_ms: 0.1}"):
        path = tmp_path / "pods.yaml"
        path.write_text(PODS.replace("LINK", link))
        out = tmp_path / "plan.json"
        code, _, err = plan_command(path, "--model", "llama3.1-70b", "--objective", "flow", "-o", out)
        assert code == 0, err
        plans[link] = hk.Plan.load(out)
        assert plans[link].cluster == hk.Cluster.load(path)
    flows = [p.flow_tokens_per_s for p in plans.values()]
    assert flows == sorted(flows, reverse=True) and len(set(flows)) == 3

    code, _, err = plan_command(path, "--model", "llama3.1-70b", "--memory-share", 0.8)
    assert code == 3 and "on one of its GPUs, and has 80 GB x 0.8 = 64.00 GB" in err and "Smallest fix" in err
    code, out, err = plan_command(
        path, "--model", "llama3.1-70b", "--memory-share", 0.95, "--objective", "flow", "--json"
    )
    wider = hk.Plan.model_validate_json(out)
    assert wider.cluster.memory_share == 0.95 and wider.flow_tokens_per_s > flows[-1]
    for share, expected in ((0, "at most 1"), (1.5, "at most 1"), ("nan", "a finite number")):
        code, _, err = plan_command(path, "--model", "llama3.1-70b", "--memory-share", share)
        assert code == 2 and "--memory-share" in err and expected in err


def test_a_memory_share_holds_for_the_engine_that_runs_the_plan(plan_command, tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text("name: one\nnodes: [{gpu: H100-80G}]\n")
    chosen = ("--model", "llama3.1-8b", "--engine", "vllm-0.15", "--objective", "flow", "--json")
    found = {}
    for share in (0.4, 0.9):
        code, out, err = plan_command(path, *chosen, "--memory-share", share)
        assert code == 0, err
        found[share] = hk.Plan.model_validate_json(out)
    assert found[0.4].engine.rules.memory_share == 0.4
    [small], [large] = (plan.profiles.values() for plan in found.values())
    assert small.kv_capacity(32) < 0.6 * large.kv_capacity(32)


def test_the_share_of_memory_is_a_keyword_of_plan():
    cluster = hk.Cluster.model_validate({"name": "one", "nodes": [{"gpu": "H100-80G"}]})
    with pytest.raises(hk.InfeasibleError, match=r"80 GB x 0.8 = 64.00 GB"):
        hk.plan(cluster, "qwen3-32b", memory_share=0.8)
    with pytest.raises(hk.InputError, match=r"memory_share = 80: expected a number above 0, at most 1"):
        hk.plan(cluster, "qwen3-32b", memory_share=80)
    assert hk.plan(cluster, "qwen3-32b", memory_share=0.95).cluster.memory_share == 0.95


def test_least_change_from_a_plan_in_use(plan_command, tmp_path):
    old = tmp_path / "old.json"
    assert plan_command(*CASE, "--method", "petals", "-o", old, "--json")[0] == 0
    before = hk.Plan.load(old)

    def moved(price):
        code, out, err = plan_command(*CASE, "--from-plan", old, "--price-per-gb", price, "--json")
        assert code == 0, err
        plan = hk.Plan.model_validate_json(out)
        return moved_gb(before.problem, before.placement, plan.placement), plan.flow_tokens_per_s

    free, dear = moved(0), moved(1000)
    assert dear == (0, before.flow_tokens_per_s)
    assert free[0] > 0
    assert free[1] > before.flow_tokens_per_s


def test_reach_chooses_few_nodes(plan_command, tmp_path):
    code, out, err = plan_command(*CASE, "--reach", 400, "--json")
    assert code == 0, err
    plan = hk.Plan.model_validate_json(out)
    assert plan.flow_tokens_per_s >= 400
    assert len(plan.cluster.nodes) < len(hk.Cluster.preset("single24").nodes)
    assert "USD/h" in plan.notes[-1]


def test_more_than_the_cluster_reaches_is_exit_code_3(plan_command):
    code, _, err = plan_command(*CASE, "--reach", "1e9")
    assert code == 3 and "not 1e+09" in err and "ask for at most" in err
    code, _, err = plan_command(*CASE, "--reach", 9999)
    assert code == 3
    assert "Smallest fix: ask for at most 2045 tokens/s" in err


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--write-lp", "x.lp"], "--write-lp"),
        (["--write-lp", "no/such/folder/x.lp", "--method", "paper-milp"], "cannot be written"),
        (["--price-per-gb", "1"], "--price-per-gb"),
        (["--from-plan", "missing.json"], "missing.json"),
        (["--deterministic", "--reach", "400"], "without --deterministic"),
        (["--reach", "-5"], "--reach = -5.0: expected a positive number"),
        (["--reach", "inf"], "--reach = inf: expected a finite number"),
        (["--reach", "400", "--max-stages", "9", "--pin", "T4-0=0:4"], "without --max-stages, --pin"),
        (["--solver", "gurobi", "--objective", "flow"], "pip install gurobipy"),
    ],
)
def test_wrong_combinations_are_one_message_and_exit_code_2(plan_command, monkeypatch, args, text):
    monkeypatch.setitem(sys.modules, "gurobipy", None)
    code, out, err = plan_command(*CASE, *args)
    assert (code, out) == (2, "")
    assert text in " ".join(err.split())
    assert "Traceback" not in err


def test_counted_work_gives_the_same_bytes(plan_command, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    args = (
        str(path),
        "--model",
        "SmolLM2-135M",
        "--objective",
        "flow",
        "--time-limit",
        "2",
        "--deterministic",
        "--json",
    )
    first, second = plan_command(*args), plan_command(*args)
    assert first[0] == 0 and first[1] == second[1]


def test_contradictory_pins_are_exit_code_3(plan_command):
    code, _, err = plan_command(*CASE, "--objective", "flow", "--pin", "T4-0=0:6")
    assert code == 3
    assert "holds at most 4" in err
    assert "Smallest fix: pin T4-0 to at most 4 layers" in err


def test_an_slo_asks_for_goodput(plan_command, tmp_path):
    path = tmp_path / "good.json"
    small = ["laptop", "--model", "SmolLM2-135M", "--input-tokens", 60, "--output-tokens", 20, "--deterministic",
             "--time-limit", 3]  # fmt: skip
    code, out, err = plan_command(*small, "--slo", "ttft:2,tpot:0.5,at:0.9", "-o", path)
    assert code == 0, err
    plan = hk.Plan.load(path)
    assert plan.objective == "goodput" and plan.served.slo_rate_per_s > 0 and plan.served.attainment >= 0.9
    assert "the SLO holds until" in out and f"{plan.served.attainment:.1%}" in out
    code, out, err = plan_command(*small, "--slo", "ttft:2,tpot:0.5", "--rate", 0.5, "--json")
    assert code == 0 and 0 < json.loads(out)["served"]["goodput_per_s"] <= 0.6, err


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--objective", "goodput"], "--slo"), (["--objective", "flow", "--slo", "ttft:1"], "--slo"),
     (["--slo", "soon"], "expected limits such as ttft:0.5"),
     (["--slo", "ttft:1", "--latency-limit", 1], "--latency-limit"),
     (["--slo", "ttft:1", "--rate", -2], "--rate = -2")],
)  # fmt: skip
def test_an_slo_that_makes_no_sense_is_refused(plan_command, options, words):
    code, out, err = plan_command(*CASE, *options)
    assert code == 2 and words in err and not out


def test_a_plan_for_rounded_weights(helix_kit, plan_command, tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    case = [tmp_path / "small.yaml", "--model", "qwen3-32b", "--objective", "flow", "--time-limit", 5]
    path = tmp_path / "plan.json"
    code, out, err = plan_command(*case, "--quantize", "int4", "-o", path)
    assert code == 0, err
    assert "rounded to int4 when" in out and "rounded to int4 when" in helix_kit("explain", path)[1]
    assert "qwen3-32b-int4" in out and json.loads(path.read_text())["model"]["quantize"] == "int4"
    code, out, err = helix_kit("simulate", path, "--duration", 5, "--warmup", 0, "--json")
    assert code == 0, err
    assert json.loads(out)["decode_tokens_per_s"] > 0
    code, _, err = helix_kit("export", path, "--to", "vllm", "-o", tmp_path / "vllm")
    assert code == 0, err
    assert "weights rounded to int4" in (tmp_path / "vllm" / "README.md").read_text()
    assert "qwen3-32b-int4" not in "".join(p.read_text() for p in (tmp_path / "vllm").rglob("*.sh"))
    code, _, err = plan_command(*case)
    assert code == 3 and "; or weights rounded when they are loaded (--quantize int8), with which it fits" in err
    code, _, err = plan_command(*case, "--quantize", "int3")
    assert code == 2 and "quantize = 'int3': expected one of int4, int8" in err
    code, _, err = plan_command(*case[:2], "qwen3-30b-a3b-int4", *case[3:], "--quantize", "int4")
    assert code == 2 and "expected weights that are not quantised yet" in err
