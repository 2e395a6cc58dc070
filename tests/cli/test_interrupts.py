"""Ctrl-C at several moments of each long command: it ends soon, says what is kept, and leaves no process behind.

The programs are real ones. Seconds are printed and not held, since other programs may have the cores; what is held is
the CPU time that a program still uses. `make bench-clock` holds the seconds.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from interrupted import Ended, interrupted

import helix_kit as hk

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads processes from /proc")

MAX_CPU_S = 2.0
"""CPU time after Ctrl-C: a second of two cores."""
LOADING_S, SIMULATING_S, EARLY_S, LATE_S = 0.5, 3.5, 5.0, 10.0
"""Moments in CPU time: while the program loads, while a simulation runs on a fast machine, soon after the work of a
longer command has begun, and well within it."""
LONG = ("--time-limit", 300)


def check(ended: Ended, code: int, said: str) -> None:
    assert ended.code == code, ended.err
    assert said in ended.err and "Traceback" not in ended.err, ended.err
    assert ended.left == []
    assert ended.cpu_s < MAX_CPU_S, f"{ended.cpu_s:.2f} s of CPU time"


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    hk.plan("hetero42", "llama2-70b", method="petals").save(path)
    return path


@pytest.mark.parametrize("command", [("plan", "single24", "--model", "llama2-70b"), ("catalog",)])
def test_while_the_program_loads(tmp_path, command):
    check(interrupted(*command, after_cpu_s=LOADING_S, folder=tmp_path), 130, "helix-kit: stopped")


@pytest.mark.parametrize("objective", ["flow", "served"])
@pytest.mark.parametrize("after_cpu_s", [EARLY_S, LATE_S])
def test_plan_keeps_the_best_plan(tmp_path, objective, after_cpu_s):
    args = ("plan", "hetero42", "--model", "llama2-70b", "--objective", objective, *LONG, "--json")
    ended = interrupted(*args, after_cpu_s=after_cpu_s, folder=tmp_path)
    check(ended, 0, "helix-kit: stopped; this is the best plan so far")
    assert json.loads(ended.out)["flow_tokens_per_s"] > 0


@pytest.mark.parametrize("after_cpu_s", [EARLY_S, LATE_S])
@pytest.mark.parametrize("whole_group", [True, False])
def test_evaluate_keeps_what_is_done(tmp_path, after_cpu_s, whole_group):
    args = ("evaluate", "single24", "--model", "llama2-70b", "--methods", "petals,served", *LONG, "-o", "out")
    ended = interrupted(*args, after_cpu_s=after_cpu_s, folder=tmp_path, whole_group=whole_group)
    check(ended, 130, "are kept in out, and the same command goes on from there")
    assert (tmp_path / "out" / "plans" / "petals.json").is_file()
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["stopped"] is True


def test_evaluate_in_the_middle_of_simulations(tmp_path):
    base = ("evaluate", "hetero42", "--model", "llama2-70b", "--methods", "petals,swarm")
    ended = interrupted(*base, "--duration", 1e6, "-o", "out", after_cpu_s=LATE_S, folder=tmp_path)
    check(ended, 130, "2 plans and 0 runs are kept in out")


@pytest.mark.parametrize(("jobs", "whole_group"), [(1, True), (2, True), (2, False)])
def test_reproduce_keeps_what_is_done(tmp_path, jobs, whole_group):
    args = ("reproduce", "geo-distributed", "--folder", "figures", "--jobs", jobs)
    ended = interrupted(*args, after_cpu_s=LATE_S, folder=tmp_path, whole_group=whole_group)
    check(ended, 130, "stopped after 0: they are kept")


def test_simulate(tmp_path, plan_file):
    args = ("simulate", plan_file, "--mode", "offline", "--duration", 8_000)
    ended = interrupted(*args, after_cpu_s=SIMULATING_S, folder=tmp_path)
    # A slower machine may still compile.
    check(ended, 130, "helix-kit: stopped")


def test_sweep(tmp_path, plan_file):
    args = ("sweep", plan_file, "--rates", "1:5:0.1", "--duration", 3000, "--warmup", 100, "--resume", "points.jsonl")
    ended = interrupted(*args, after_cpu_s=LATE_S, folder=tmp_path)
    check(ended, 130, "kept in points.jsonl, and the same command goes on from there")
    assert len((tmp_path / "points.jsonl").read_text().splitlines()) > 0


def test_explain(tmp_path, plan_file):
    args = ("explain", plan_file, "--losses", "--what-if", *LONG)
    check(interrupted(*args, after_cpu_s=LATE_S, folder=tmp_path), 130, "helix-kit: stopped")


def test_fleet(tmp_path):
    args = ("fleet", "--model", "llama3.1-8b", "--rate", 40, "--slo", "tpot:0.12", "--gpus", "L4,A10G,A100-80G", *LONG)
    ended = interrupted(*args, after_cpu_s=EARLY_S, folder=tmp_path)
    assert ended.code in (0, 130) and "helix-kit: stopped" in ended.err and "Traceback" not in ended.err, ended.err
    assert ended.left == [] and ended.cpu_s < MAX_CPU_S
