"""Exported files, read as the engines read them: partitions, splits, ranks, weights."""

from __future__ import annotations

import bisect
import json
import re
import subprocess
from itertools import accumulate

import pytest

import helix_kit as hk
from helix_kit.errors import InputError
from helix_kit.export import ENGINES, export_plan


@pytest.fixture(scope="module")
def separate():
    """Three pipelines of 4, 8 and 12 equal machines."""
    return hk.plan("single24", "llama2-70b", method="separate")


def scripts_of(exported, index):
    """The scripts of a replica, in their order."""
    mine = {name: text for name, text in exported.files.items() if name.startswith(f"replica-{index}/")}
    return [mine[name] for name in sorted(mine, key=lambda n: int(n.split("/")[1].split("-")[0]))]


def exported_variable(script, name):
    return re.search(rf"^export {name}=(.*)$", script, re.M).group(1)


@pytest.mark.parametrize("engine, variable, size", [("vllm", "VLLM_PP_LAYER_PARTITION", "--pipeline-parallel-size"),
                                                    ("sglang", "SGLANG_PP_LAYER_PARTITION", "--pp-size")])  # fmt: skip
def test_partitions_have_an_entry_a_rank_and_sum_to_the_layers(separate, engine, variable, size):
    found = export_plan(separate, engine, model="meta-llama/Llama-2-70b-hf")
    for index, replica in enumerate(found.replicas.replicas):
        scripts = scripts_of(found, index)
        for number, (script, stage) in enumerate(zip(scripts, replica.stages, strict=True)):
            partition = [int(n) for n in exported_variable(script, variable).split(",")]
            assert sum(partition) == 80 and partition[number] == stage.end - stage.start
            assert len(partition) == int(re.search(rf"{size} (\d+)", script).group(1)) == len(scripts)
            assert f"--nnodes {len(scripts)}" in script and f"--node-rank {number}" in script
            assert f"# on {stage.node}:" in script and "Llama-2-70b-hf" in script
        assert all(f"HOST_{re.sub('[^A-Z0-9]', '_', replica.stages[0].node)}" in s for s in scripts)
    if engine == "vllm":
        assert "--headless" not in scripts[0] and all("--headless" in s for s in scripts[1:])


def test_llama_cpp_splits_the_layers_by_its_own_rule(separate):
    """llama.cpp gives layer i of n to the first device whose cumulated share exceeds i / (n + 1); n is the output."""
    found = export_plan(separate, "llama.cpp", model="llama.gguf")
    for index, replica in enumerate(found.replicas.replicas):
        *remote, server = scripts_of(found, index)
        split = [int(n) for n in re.search(r"--tensor-split ([\d,]+)", server).group(1).split(",")]
        shares = [part / sum(split) for part in accumulate(split)]
        device = [bisect.bisect_right(shares, layer / 81) for layer in range(81)]
        assert [device[:80].count(d) for d in range(len(split))] == list(replica.partition)
        assert device[80] == len(split) - 1
        endpoints = re.search(r'--rpc "(.*)"', server).group(1).split(",")
        assert len(endpoints) == len(remote) == len(split) - 1
        for endpoint, script, stage in zip(endpoints, remote, replica.stages, strict=False):
            port = re.search(r"rpc-server .*--port (\d+)", script).group(1)
            assert endpoint.endswith(f":{port}") and stage.node in endpoint and f"# on {stage.node}:" in script


def test_ray_serve(separate):
    found = export_plan(separate, "ray-serve-llm", model="m")
    config = json.loads(found.files["serve.yaml"])
    for application, replica in zip(config["applications"], found.replicas.replicas, strict=True):
        llm = application["args"]["llm_configs"][0]
        partition = llm["runtime_env"]["env_vars"]["VLLM_PP_LAYER_PARTITION"]
        assert [int(n) for n in partition.split(",")] == list(replica.partition)
        assert llm["engine_kwargs"]["pipeline_parallel_size"] == len(replica.stages)
        bundles = llm["placement_group_config"]["bundles"]
        assert [next(k for k in b if k.startswith("helix_node_")) for b in bundles] == [
            f"helix_node_{s.node}" for s in replica.stages
        ]
    declared = "".join(text for name, text in found.files.items() if name.startswith("nodes/"))
    assert all(f"helix_node_{node}" in declared for node in separate.placement)
    assert found.files["router.conf"].count("/replica-") == 3 and "split_clients" in found.files["router.conf"]


def test_the_router_weighs_by_flow(separate):
    found = export_plan(separate, "vllm")
    weights = [int(w) for w in re.findall(r"server \S+ weight=(\d+);", found.files["router.conf"])]
    flows = [r.flow_tokens_per_s for r in found.replicas.replicas]
    assert weights == [round(100 * flow / max(flows)) for flow in flows]
    ports = re.findall(r"server (\S+):(\d+) weight", found.files["router.conf"])
    assert len(set(ports)) == 3 and found.files["router.conf"].count("{") == found.files["router.conf"].count("}")


@pytest.mark.parametrize("engine", ENGINES)
def test_scripts_are_shell_and_the_loss_is_said(overlapping_plan, tmp_path, engine):
    found = export_plan(overlapping_plan, engine)
    found.write(tmp_path)
    scripts = sorted(tmp_path.rglob("*.sh"))
    assert scripts
    for script in scripts:
        subprocess.run(["sh", "-n", script], check=True)
        assert script.stat().st_mode & 0o100
    note = (tmp_path / "README.md").read_text()
    assert "is lost" in note and "in the middle of their layers" in note
    told = found.to_dict()
    assert told["loss"] == pytest.approx(1 - told["flow_tokens_per_s"] / told["plan_flow_tokens_per_s"])


def test_refusals(overlapping_plan, separate):
    with pytest.raises(InputError, match="vllm"):
        export_plan(separate, "vlm")
    with pytest.raises(InputError, match=r"a loss of .* %; expected at most 0 %"):
        export_plan(overlapping_plan, "vllm", max_loss=0.0)
    assert export_plan(separate, "vllm", max_loss=0.0).replicas.is_exact
