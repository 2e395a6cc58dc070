"""What each worker of a plan is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from thread_ranks import with_ranks

import helix_kit as hk
from helix_kit.runtime import ServeOptions, worker_factory
from helix_kit.runtime.device_memory import GPU_SHARE
from helix_kit.runtime.launch.inproc import InprocLauncher
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.weights.tiny import tiny_plan
from helix_kit.runtime.worker_factory import WorkerFactory, emulated_links


def specs_of(folder: Path, placement: dict[str, tuple[int, int]], **options: Any) -> dict[str, WorkerSpec]:
    plan = tiny_plan(folder, placement, kv_tokens_per_layer=160)
    factory = WorkerFactory(plan, ServeOptions(launcher=InprocLauncher(), **options), folder, "llama")
    workers = [worker for of_node in factory.divide(plan).values() for worker in of_node]
    specs = [factory.make_spec(plan, worker, 7, "tcp://here:1") for worker in workers]
    return {spec.name: spec for spec in specs}


def test_a_worker_for_each_device_with_its_layers_and_pages(tiny_llama: Path) -> None:
    specs = specs_of(tiny_llama, {"a": (0, 4), "b": (1, 6)}, devices={"b": ["cpu", "cpu"]}, threads=3)
    layers = {name: (spec.start, spec.end) for name, spec in specs.items()}
    assert layers == {"a": (0, 4), "b/0": (1, 3), "b/1": (3, 6)}
    # 160 tokens in each layer are ten pages of 16 tokens; b's fifty pages are divided like its layers.
    assert {name: spec.num_pages for name, spec in specs.items()} == {"a": 40, "b/0": 20, "b/1": 30}
    for spec in specs.values():
        assert (spec.generation, spec.coordinator, spec.threads, spec.device) == (7, "tcp://here:1", 3, "cpu")
        assert spec.curve_public is None and spec.host == "127.0.0.1"
    assert len({spec.key_hex for spec in specs.values()}) == 1


def test_options_reach_the_workers(tiny_llama: Path) -> None:
    placement = {"a": (0, 6)}
    assert specs_of(tiny_llama, placement)["a"].profile is not None  # CPU-fast is an emulated kind
    assert specs_of(tiny_llama, placement, pace=False)["a"].profile is None
    limited = specs_of(tiny_llama, placement, kv_pages=5, chunk_tokens=1000, dtype="bfloat16", encrypt=True)["a"]
    assert (limited.num_pages, limited.step_tokens, limited.dtype) == (5, 2000, "bfloat16")
    assert limited.curve_public and limited.curve_secret
    assert limited.links is None


def test_emulated_workers_have_the_links_of_the_cluster(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 3), "b": (3, 6)})
    specs = specs_of(tiny_llama, {"a": (0, 3), "b": (3, 6)}, emulated=True, pace=False, devices="any")
    assert specs["a"].links is not None and set(specs["a"].links) == {"b", "coordinator"}
    link = plan.cluster.link("a", "b")
    assert specs["a"].links["b"] == (link.bandwidth_gbps / 8 * 1e9, link.latency_ms / 1e3)
    assert specs["a"].profile is not None and specs["a"].device == "cpu"
    assert set(emulated_links(plan, "coordinator")) == {"a", "b"}


def test_devices_that_share_each_layer_are_the_ranks_of_one_worker(tiny_llama: Path) -> None:
    plan = with_ranks(tiny_plan(tiny_llama, {"a": (0, 4), "b": (1, 6)}, kv_tokens_per_layer=160), {"b": 2})
    options: dict[str, Any] = {"launcher": InprocLauncher(), "devices": {"b": ["cpu"] * 4}}
    for emulated in (False, True):
        given = {"emulated": True} if emulated else {}
        factory = WorkerFactory(plan, ServeOptions(**{**options, **given}), tiny_llama, "llama")
        divided = factory.divide(plan)
        specs = [factory.make_spec(plan, worker, 1, "tcp://here:1") for worker in divided["b"]]
        if emulated:  # its speed is the profile's, so one process is enough
            assert [(s.name, s.start, s.end, s.ranks) for s in specs] == [("b", 1, 6, ())]
        else:
            ranks = ("cpu", "cpu")
            assert [(s.name, s.start, s.end, s.ranks) for s in specs] == [("b/0", 1, 3, ranks), ("b/1", 3, 6, ranks)]
            assert [s.num_pages for s in specs] == [20, 30]
        [alone] = divided["a"]
        assert factory.make_spec(plan, alone, 1, "tcp://here:1").ranks == ()


def test_workers_on_one_gpu_know_each_other(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_factory, "_processors", lambda: 2)
    placement = {"a": (0, 4), "b": (1, 6), "c": (2, 6), "d": (2, 6)}
    devices = {"a": ["cuda:0"], "b": ["cuda:1", "cuda:0"], "c": ["cuda:1"], "d": ["cpu"]}
    specs = specs_of(tiny_llama, placement, devices=devices)
    mates = {name: spec.shares_device_with for name, spec in specs.items()}
    assert mates == {"a": ("b/1",), "b/0": ("c",), "b/1": ("a",), "c": ("b/0",), "d": ()}
    shares = {name: spec.memory_share for name, spec in specs.items()}
    assert shares == {**dict.fromkeys(("a", "b/0", "b/1", "c"), GPU_SHARE / 2), "d": None}
    # A node with fewer layers than devices has no worker on the last ones, which are another worker's alone.
    alone = specs_of(tiny_llama, {"a": (0, 1), "b": (1, 6)}, devices={"a": ["cuda:0", "cuda:1"], "b": ["cuda:1"]})
    assert [(spec.device, spec.memory_share, spec.shares_device_with) for spec in alone.values()] == [
        ("cuda:0", None, ()), ("cuda:1", None, ()),
    ]  # fmt: skip
    placement = {"a": (0, 4), "b": (4, 6)}
    for processors, expected in ((2, ()), (1, ("b",))):
        monkeypatch.setattr(worker_factory, "_processors", lambda count=processors: count)
        assert specs_of(tiny_llama, placement, devices="cpu")["a"].shares_device_with == expected


def test_ranks_share_with_the_workers_on_each_of_their_gpus(tiny_llama: Path) -> None:
    plan = with_ranks(tiny_plan(tiny_llama, {"a": (0, 6), "b": (0, 6), "c": (0, 6)}), {"a": 2})
    devices = {"a": ["cuda:0", "cuda:1"], "b": ["cuda:1"], "c": ["cuda:1"]}
    factory = WorkerFactory(plan, ServeOptions(launcher=InprocLauncher(), devices=devices), tiny_llama, "llama")
    specs = [
        factory.make_spec(plan, worker, 1, "tcp://here:1") for of in factory.divide(plan).values() for worker in of
    ]
    assert [spec.shares_device_with for spec in specs] == [("b", "c"), ("a", "c"), ("a", "b")]
    # The ranks have equally much memory, so that the fuller GPU counts.
    assert [spec.memory_share for spec in specs] == [pytest.approx(GPU_SHARE / 3)] * 3


def test_what_the_planner_chose_holds_for_gpus_and_families_that_it_is_served_for(
    tiny_llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 6)}, gpu="L4")
    [node], [profile] = plan.cluster.nodes, plan.profiles.values()
    nodes = (node.model_copy(update={"gpus_per_node": 4}),)
    chosen = profile.model_copy(update={"kind": "L4x4", "tensor_parallel": 2, "groups_in_turn": 2})
    plan = plan.model_copy(
        update={"cluster": plan.cluster.model_copy(update={"nodes": nodes}), "profiles": {"L4x4": chosen}}
    )
    gpus = {"a": [f"cuda:{i}" for i in range(4)]}
    for devices, family, expected in (
        (gpus, "llama", [("cuda:0", "cuda:1"), ("cuda:2", "cuda:3")]),
        (gpus, "gpt_oss", [()] * 4),
        ({"a": "cpu"}, "llama", [()]),
    ):
        factory = WorkerFactory(plan, ServeOptions(launcher=InprocLauncher(), devices=devices), tiny_llama, family)
        specs = [factory.make_spec(plan, worker, 1, "tcp://here:1") for worker in factory.divide(plan)["a"]]
        assert [spec.ranks for spec in specs] == expected
    assert caplog.text.count("its GPUs take the layers in turn") == 1


def test_a_plan_counts_windows_and_a_worker_pages() -> None:
    """GPT-OSS: half of the layers see 128 tokens. The plan counts tokens of a request of 1,000 tokens, on average."""
    cluster = hk.Cluster.model_validate({"name": "one", "nodes": [{"gpu": "H100-80G"}]})
    model = hk.Model.preset("gpt-oss-20b")
    problem = hk.Problem.of(cluster, model)
    plan = hk.Plan.from_placement(problem, {"H100-80G-0": (0, 24)}, method="hand-made")
    tokens = plan.profiles["H100-80G"].kv_capacity(24)
    page_bytes = 16 * 2 * 8 * 64 * 2  # keys and values of eight heads of 64 numbers of two bytes
    planned_bytes = tokens / 24 * (12 * 128 + 12 * 1000) / 1000 * page_bytes / 16
    for emulated in (False, True):
        options = ServeOptions(launcher=InprocLauncher(), devices="cpu", emulated=emulated)
        factory = WorkerFactory(plan, options, "weights", "gpt_oss")
        [worker] = factory.divide(plan)["H100-80G-0"]
        pages = factory.make_spec(plan, worker, 1, "tcp://here:1").num_pages
        expected = tokens // 16 if emulated else planned_bytes / page_bytes
        assert pages == pytest.approx(expected, rel=0.01)
