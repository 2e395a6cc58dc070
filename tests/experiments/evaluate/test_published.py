"""Published runs as jobs, and their measurement: parts served together, kept, gone on with, and told when they fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from helix_kit.errors import HelixKitError, InputError
from helix_kit.experiments.evaluate import published, serving
from helix_kit.experiments.evaluate.load import Load
from helix_kit.experiments.evaluate.methods import Method
from helix_kit.experiments.evaluate.published import PublishedCase, case_of, cases, measure, time_scale_for
from helix_kit.experiments.evaluate.serving import Job
from helix_kit.experiments.figures.common.published import published_run
from helix_kit.runtime import replay
from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan
from helix_kit.workload.workload import Workload


def test_every_method_model_and_mode_of_section_6_3():
    found = cases(("llama2-70b", "llama-30b"), ("helix", "swarm", "separate"), ("offline", "online"))
    assert len(found) == 12 and found[0].name == "llama2-70b-helix-offline"
    # Whatever the method, all 24 machines serve; a method that splits the cluster has a job for each part.
    assert {sum(len(job.plan.placement) for job in case.jobs) for case in found} == {24}
    assert [len(case.jobs) for case in found if case.run.model == "llama2-70b"] == [1, 1, 3, 1, 1, 3]
    with pytest.raises(InputError, match="gpt5 offline helix"):
        cases(["gpt5"], ["helix"], ["offline"])


def test_loads_are_the_published_ones_within_the_window():
    online = case_of(published_run("single", "llama2-70b", "swarm", "online"), warmup_s=10, window_s=20).jobs[0]
    assert online.load.window == (10, 30) and max(r.arrival_s for r in online.load.requests) < 30
    offline = case_of(published_run("single", "llama2-70b", "swarm", "offline")).jobs[0]
    assert offline.load.max_in_flight == 180 and offline.method.policy == "swarm"
    assert case_of(published_run("single", "llama2-70b", "helix", "offline")).jobs[0].load.max_in_flight is None


def test_more_steps_or_fewer_cores_need_a_larger_scale():
    assert time_scale_for(100, 50, 2) <= time_scale_for(1000, 50, 2) < time_scale_for(1000, 50, 1)
    assert time_scale_for(1000, 50, 2) < time_scale_for(1000, 1000, 2)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> PublishedCase:
    """Two parts of two tiny workers each, with steps of tens of ms."""
    weights = tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny")
    plan = tiny_plan(weights, {"a": (0, 3), "b": (3, 6)}, step_ms=10.0)
    load = Load(Workload.poisson(6, 2, input_tokens=9, output_tokens=5, seed=1), (0.2, 1.2))
    run = published_run("single", "llama2-70b", "separate", "online")
    return PublishedCase(run, tuple(Job(Method("separate", n, plan), plan, "online", load, "simulated") for n in "xy"))


@pytest.fixture(autouse=True)
def patched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A busy machine is no fault, and the stand-in's folder is a new one."""
    monkeypatch.setattr(serving, "MAX_LATE_SHARES", {"real": 1.0, "emulated": 1.0})
    monkeypatch.setattr(replay, "MAX_OVERRUN_SHARE", 1.0)
    monkeypatch.setenv("HELIX_KIT_CACHE", str(tmp_path / "cache"))


def test_a_case_is_measured_once(case: PublishedCase, tmp_path: Path):
    said: list[str] = []
    assert measure(case, tmp_path, said.append, time_scale=2.0, launcher="inproc")
    kept = json.loads((tmp_path / "llama2-70b-separate-online.json").read_text())
    assert kept["workers"] == 4 and kept["time_scale"] == 2.0 and kept["steps"] > 0 and kept["cpu_ms_per_step"] > 0
    # Both parts serve the same twelve requests or so.
    assert kept["requests"] == 2 * len(case.jobs[0].load.requests)
    assert kept["simulated"]["decode_tokens_per_s"] > 0 and kept["differences"]
    assert any(text.startswith("x: ") for text in said) and any(text.startswith("y: ") for text in said)
    assert not measure(case, tmp_path, said.append, launcher="inproc")
    assert measure(case, tmp_path, said.append, seed=1, time_scale=2.0, launcher="inproc")


def test_a_part_that_fails_ends_the_others(case: PublishedCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def start(job, options, weights, scale):
        if job.method.label == "y":
            raise HelixKitError("y does not come up")
        return serve(job, options, weights, scale)

    serve = serving.start_workers
    monkeypatch.setattr(serving, "start_workers", start)
    monkeypatch.setattr(published, "time_scale_for", lambda *_: 8.0)
    with pytest.raises(HelixKitError, match="y does not come up"):  # not what stopped the first part
        measure(case, tmp_path, lambda _: None, launcher="inproc")
    assert not list(tmp_path.glob("*.json"))
