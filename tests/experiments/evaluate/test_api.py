"""The whole of an evaluation on a tiny model: planned, simulated, served by real workers, stopped, and gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import helix_kit as hk
from helix_kit.errors import InputError
from helix_kit.experiments.evaluate import serving
from helix_kit.runtime.replay import OverrunError
from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan

METHODS = "helix,separate+random"


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three nodes that hold the whole model, with steps of 24 ms, and requests that they keep up with."""
    weights = tiny_checkpoint(tmp_path_factory.mktemp("evaluate") / "tiny")
    plan = tiny_plan(weights, {"a": (0, 6), "b": (0, 6), "c": (0, 6)}, step_ms=4.0)
    return {
        "cluster": plan.cluster, "model": plan.model, "profiles": plan.profiles, "weights": weights, "workers": "real",
        "workload": hk.Workload.poisson(6, 10, input_tokens=12, output_tokens=8, seed=1), "warmup_s": 0.5,
        "duration_s": 1.5, "time_limit_s": 5.0, "launcher": "inproc",
    }  # fmt: skip


@pytest.fixture(autouse=True)
def a_busy_machine_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that end late because other programs have the cores do not make a test fail."""
    monkeypatch.setattr(serving, "MAX_LATE_SHARES", {"real": 1.0, "emulated": 1.0})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


def test_a_worker_that_is_lost_and_a_stop_in_the_middle(setting, folder, monkeypatch: pytest.MonkeyPatch):
    """The first served run loses a worker and is measured again; Ctrl-C comes in the second run."""
    started = []
    check = serving._check_workers

    def start(*arguments):
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(0)
        return serve(*arguments)

    def lose(engine):
        if len(started) == 1:
            raise serving.WorkerLostError("a (its process ended)")
        check(engine)

    serve = serving.start_workers
    monkeypatch.setattr(serving, "start_workers", start)
    monkeypatch.setattr(serving, "_check_workers", lose)
    found = hk.evaluate(**setting, methods=METHODS, folder=folder)
    assert found.stopped and found.runs == [(m, mode) for m in METHODS.split(",") for mode in ("offline", "online")]
    assert found.value("helix", "offline", "real workers", "lost_workers") == 1
    assert found.value("helix", "offline", "real workers", "attempts") == 2
    assert any("measured again, a worker was lost: a (its process ended)" in note for note in found.notes)
    assert found.value("helix", "online", "real workers", "decode_tokens_per_s") is None
    assert found.value("helix", "online", "simulated", "decode_tokens_per_s") > 0


def test_the_same_call_goes_on_and_shows_both_sources(setting, folder):
    done: list[str] = []
    seen: list[tuple[str, int]] = []
    found = hk.evaluate(
        **setting, methods=METHODS, folder=folder, progress=lambda _, of, what: done.append(f"{of}: {what}"),
        watch=lambda name, status: seen.append((name, len(status.workers))),
    )  # fmt: skip
    assert not found.stopped and not found.problems and len(found.runs) == 4
    # The run that was finished before the stop is not run again.
    assert not any("Helix, offline, real workers" in text for text in done)
    assert any("8: Helix, online, real workers: starting" in text for text in done)
    assert {name.split(",")[0] for name, _ in seen} == {"Helix", "separate+random"} and {n for _, n in seen} == {3}
    # How much the workers serve depends on the machine: on a busy one nothing may finish within the window.
    for method, mode in found.runs:
        assert found.value(method, mode, "simulated", "finished") > 0
        assert found.value(method, mode, "real workers", "requests") > 0
    compared = found.differences()
    assert found.workers == "real workers" and (compared["metric"] == "decode_tokens_per_s").sum() == 4
    panels = found.plot().axes
    assert len(panels) == 6 and [t.get_text() for t in panels[0].get_xticklabels()] == ["Helix", "separate+random"]
    # Two methods, two sources.
    assert len(panels[0].patches) == 4
    text = found.to_json()
    assert '"real workers"' in text and '"stopped": false' in text


def test_the_differences_have_intervals(setting, folder):
    found = hk.evaluate(**setting, methods=METHODS, folder=folder)
    compared = found.differences()
    # On a busy machine so few tokens may come that there is no interval.
    known = compared.dropna()
    assert len(compared) >= 4 and (known["low"] <= known["high"]).all() and (known["low"] >= -1).all()


def test_late_steps_are_refused_and_the_next_scale_is_tried(setting, monkeypatch: pytest.MonkeyPatch):
    """The first attempt has late steps; later runs begin at the scale at which the machine kept up."""
    scales: list[float] = []

    def start(job, options, weights, scale):
        scales.append(scale)
        return serve(job, options, weights, scale)

    def check(late, steps, scale, most):
        if scale < 1.0:
            raise OverrunError(f"late at {scale:g}")

    serve = serving.start_workers
    monkeypatch.setattr(serving, "start_workers", start)
    monkeypatch.setattr(serving, "_check_late", check)
    found = hk.evaluate(**setting, methods="helix,separate", modes="online", time_scale=0.5)
    assert scales == [0.5, 1.0, 1.0]
    assert any("refused at time scale 0.5: late at 0.5" in note for note in found.notes)
    assert [found.value(m, "online", "real workers", "time_scale") for m in ("helix", "separate")] == [1.0, 1.0]


def test_another_evaluation_needs_another_folder(setting, folder):
    with pytest.raises(InputError, match="seed = 3"):
        hk.evaluate(**setting, methods=METHODS, folder=folder, seed=3)


def test_a_method_without_a_plan_is_a_problem_and_wrong_options_are_errors(setting):
    with pytest.raises(InputError, match="workers = 'rented'"):
        hk.evaluate(**{**setting, "workers": "rented"})
    with pytest.raises(InputError, match="weights"):
        hk.evaluate(**{**setting, "weights": None}, methods="separate", modes="online")


def test_plans_are_for_the_requests_that_are_compared(tmp_path):
    cluster = hk.Cluster.model_validate({"name": "two", "nodes": [{"gpu": "L4", "count": 2}]})
    chosen = {"methods": "swarm", "modes": "online", "duration_s": 20.0, "warmup_s": 5.0, "time_limit_s": 3.0}
    lengths = {}
    for name in ("azure-code", "azure-conversation"):
        hk.evaluate(cluster, "llama3.1-8b", **chosen, workload=name, folder=tmp_path / name)
        [file] = (tmp_path / name / "plans").iterdir()
        lengths[name] = hk.Plan.load(file).lengths
    assert lengths["azure-code"].source == "azure-code"
    assert lengths["azure-code"].input_tokens > 2 * lengths["azure-conversation"].input_tokens


def test_a_plan_of_another_cluster_of_the_same_name_is_told_by_what_differs():
    one, other = (
        hk.Cluster.model_validate({"name": "two", "nodes": [{"gpu": gpu, "count": 2}]}) for gpu in ("L4", "A10G")
    )
    plan = hk.plan(other, "llama3.1-8b", method="swarm")
    with pytest.raises(InputError, match=r"expected a plan for llama3.1-8b on two; .* same name and differs in nodes"):
        hk.evaluate(one, "llama3.1-8b", methods={"mine": plan}, modes="online")
