"""Which GPU a worker gets, decided for made-up machines."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from helix_kit.catalogue import gpus
from helix_kit.cluster import Cluster
from helix_kit.errors import HelixKitError, InputError
from helix_kit.placement.plan import Plan
from helix_kit.runtime import devices
from helix_kit.runtime.devices import DeviceAssignment, Gpu, assign_devices, is_kind
from helix_kit.runtime.weights.tiny import tiny_plan

# Names and sizes as drivers report them (GiB to GB by hand).
NAMES = {
    "T4": ("Tesla T4", 15.6),
    "V100-16G": ("Tesla V100-SXM2-16GB", 16.9),
    "L4": ("NVIDIA L4", 23.6),
    "A10G": ("NVIDIA A10G", 23.7),
    "A100-40G": ("NVIDIA A100-SXM4-40GB", 42.3),
    "A100-80G": ("NVIDIA A100 80GB PCIe", 85.0),
    "H100-80G": ("NVIDIA H100 80GB HBM3", 85.0),
    "H200-141G": ("NVIDIA H200", 150.1),
    "L40S": ("NVIDIA L40S", 47.7),
    "RTX3090": ("NVIDIA GeForce RTX 3090", 25.3),
    "RTX4090": ("NVIDIA GeForce RTX 4090", 25.3),
    "RTX5090": ("NVIDIA GeForce RTX 5090", 34.2),
    "RTXPro6000": ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 102.0),
    "A6000": ("NVIDIA RTX A6000", 51.0),
    "L40": ("NVIDIA L40", 47.7),
    "GH200-96G": ("NVIDIA GH200 480GB", 101.9),
    "B200": ("NVIDIA B200", 192.0),
    "MI300X": ("AMD Instinct MI300X", 205.8),
}
FOUND = {kind: Gpu(index, *facts) for index, (kind, facts) in enumerate(NAMES.items())}


def test_every_kind_of_the_catalogue_is_told_from_the_others() -> None:
    kinds = [gpu for gpu in gpus().values() if not gpu.name.startswith("CPU-") and gpu.unified_memory_gb is None]
    assert {gpu.name for gpu in kinds} == set(NAMES)
    for name, found in FOUND.items():
        assert [kind.name for kind in kinds if is_kind(found, kind.name, kind.memory_gb)] == [name]
    assert not is_kind(Gpu(0, "Tesla V100-SXM2-32GB", 34.1), "V100-16G", 16)


def mixed(weights: Path, kinds: dict[str, tuple[str, int]]) -> Plan:
    """A plan of nodes of these kinds (GPU and how many per node), two layers each."""
    made = tiny_plan(weights, {name: (2 * i % 6, 2 * i % 6 + 2) for i, name in enumerate(kinds)})
    nodes = [{"name": name, "gpu": gpu, "gpus_per_node": count} for name, (gpu, count) in kinds.items()]
    cluster = Cluster.model_validate({"name": "mixed", "nodes": nodes})
    profile = made.profiles["CPU-fast"]
    profiles = {node.kind: profile.model_copy(update={"kind": node.kind}) for node in cluster.nodes}
    fields = {name: getattr(made, name) for name in Plan.model_fields}
    return Plan(**{**fields, "cluster": cluster, "profiles": profiles})


L4S = [Gpu(i, "NVIDIA L4", 23.6) for i in range(3)]
A100 = Gpu(3, "NVIDIA A100-SXM4-40GB", 42.3)


def test_nodes_get_the_gpus_of_their_kind(tiny_llama: Path) -> None:
    kinds = {"a": ("A100-40G", 1), "b": ("L4", 2), "c": ("L4", 1), "d": ("A100-40G", 1), "e": ("CPU-fast", 1)}
    plan = mixed(tiny_llama, kinds)
    assigned = assign_devices(plan, find_gpus=lambda: [*L4S, A100])
    assert assigned == {
        "a": ("cuda:3",), "b": ("cuda:0", "cuda:1"), "c": ("cuda:2",), "d": ("cuda:3",), "e": ("cpu",),
    }  # fmt: skip
    assigned = assign_devices(plan, "any", find_gpus=lambda: [*L4S, A100])
    assert [assigned[node] for node in "abcd"] == [("cuda:0",), ("cuda:1", "cuda:2"), ("cuda:3",), ("cuda:0",)]
    chosen = {"a": "cuda", "b": ["cuda:1", "cuda:1"], "c": "cpu", "d": "cpu"}
    assigned = assign_devices(plan, chosen, find_gpus=lambda: pytest.fail("all is said"))
    assert assigned["a"] == ("cuda:0",) and assigned["b"] == ("cuda:1", "cuda:1")
    assert set(assign_devices(plan, "cpu", find_gpus=lambda: pytest.fail("not asked")).values()) == {("cpu",)}
    assert assign_devices(plan, one_machine=False)["b"] == ("cuda:0", "cuda:0")


def test_what_is_lacking_is_said(tiny_llama: Path) -> None:
    plan = mixed(tiny_llama, {"a": ("L4", 1), "b": ("L4", 4), "c": ("T4", 1)})
    with pytest.raises(InputError) as caught:
        assign_devices(plan, find_gpus=lambda: L4S)
    text = str(caught.value)
    assert "node b needs 4 GPUs of kind L4, and this machine has 3 of that kind" in text
    assert "NVIDIA L4 (24 GB, cuda:0)" in text and "launcher ray" in text
    plan = mixed(tiny_llama, {"a": ("L4", 1), "b": ("L4", 1), "c": ("T4", 1)})
    with pytest.raises(InputError, match="node c needs T4, and this machine has none; found: NVIDIA L4"):
        assign_devices(plan, find_gpus=lambda: L4S)


def test_a_new_node_gets_the_gpu_that_is_idle(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three L4: a and b, then b and c, then all of them; the machine is looked at once."""
    looks: list[int] = []
    monkeypatch.setattr(devices, "find_gpus", lambda: looks.append(1) or L4S)
    assigned = DeviceAssignment(None, one_machine=True)
    plans = [mixed(tiny_llama, dict.fromkeys(nodes, ("L4", 1))) for nodes in ("ab", "bc", "abc", "abcd")]
    assert assigned.of(plans[0]) == {"a": ("cuda:0",), "b": ("cuda:1",)}
    assert assigned.of(plans[1]) == {"b": ("cuda:1",), "c": ("cuda:2",)}
    assert assigned.of(plans[2]) == {"a": ("cuda:0",), "b": ("cuda:1",), "c": ("cuda:2",)}
    assert assigned.of(plans[3])["d"] == ("cuda:0",)  # the fourth shares
    assert len(looks) == 1
    # What a leaving node still holds comes last of what the plan leaves free, and before what the plan uses.
    taken = {"x": ["cuda:0"], "b": ["cuda:1"]}
    assert assign_devices(plans[2], taken=taken, find_gpus=lambda: L4S) == {
        "a": ("cuda:2",),
        "b": ("cuda:1",),
        "c": ("cuda:0",),
    }


def test_a_machine_that_cannot_be_listed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(stdout: str) -> None:
        done = SimpleNamespace(returncode=0, stdout=stdout, stderr="")
        monkeypatch.setattr(devices.subprocess, "run", lambda *_, **__: done)

    ends('a library says hello\n[{"index": 0, "name": "NVIDIA L4", "memory_gb": 23.6}]\n')
    assert devices.find_gpus() == (L4S[0],)
    for words in ("", "nothing of the kind", '[{"index": 0}]'):
        ends(words)
        with pytest.raises(HelixKitError, match="could not be listed: unexpected output"):
            devices.find_gpus()

    def hangs(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("python", 120.0)

    monkeypatch.setattr(devices.subprocess, "run", hangs)
    with pytest.raises(HelixKitError, match=r"could not be listed: .* timed out"):
        devices.find_gpus()


@pytest.mark.parametrize("given", [0, [0, 1], None, [], ["cuda:0", None], b"cpu"])
def test_what_is_no_device_is_named(tiny_llama: Path, given: object) -> None:
    plan = mixed(tiny_llama, {"a": ("L4", 2)})
    with pytest.raises(InputError, match=r"devices\[a\].*: expected cpu, cuda:0, cuda:1"):
        assign_devices(plan, {"a": given}, find_gpus=lambda: L4S)
    with pytest.raises(InputError, match="expected plan, any, cpu, or a device for each node"):
        assign_devices(plan, ["cuda:0"], find_gpus=lambda: L4S)


def test_no_gpu_means_the_cpu_and_says_so(tiny_llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = mixed(tiny_llama, {"a": ("L4", 2), "b": ("T4", 1), "c": ("CPU-slow", 1)})
    with caplog.at_level(logging.WARNING, "helix_kit"):
        assert set(assign_devices(plan, find_gpus=list).values()) == {("cpu",)}
    assert "no GPU that torch can use: workers for L4, T4 compute on its CPU" in caplog.text


def test_the_machine_is_looked_at_in_another_process() -> None:
    found = devices.find_gpus()
    assert found == tuple(devices.list_gpus())  # none where there is no GPU
    assert all(gpu.memory_gb > 1 and gpu.device == f"cuda:{gpu.index}" for gpu in found)
