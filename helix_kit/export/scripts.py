"""What each engine is started with: one script for each machine of a replica, and a router over the replicas.

Machines are named as in the cluster. A variable ``HOST_<NAME>`` gives the address of one whose name is no host name.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence

from helix_kit.export.replicas import Rank, Replicas

HTTP_PORT, GROUP_PORT, RPC_PORT, ROUTER_PORT = 8000, 29500, 50052, 8080
"""First ports: of the engines' HTTP servers, of groups of ranks, of llama.cpp's RPC servers; and the router's."""


def host_variable(node: str) -> str:
    """The shell variable with the address of a node.

    >>> host_variable("A100-40G-0")
    '${HOST_A100_40G_0:-A100-40G-0}'
    """
    return f"${{HOST_{re.sub(r'[^A-Za-z0-9]', '_', node).upper()}:-{node}}}"


def _script(lines: Sequence[str]) -> str:
    return "\n".join(["#!/bin/sh", "set -e", *lines]) + "\n"


def _machines(ranks: Sequence[Rank]) -> list[tuple[str, list[Rank]]]:
    """Launches of a replica, in the order of their ranks: equal numbers of ranks each, as the engines demand.

    A launch has all ranks of a node where every node has as many; otherwise each rank is a launch of its own.
    """
    grouped: list[tuple[str, list[Rank]]] = []
    for rank in ranks:
        if grouped and grouped[-1][0] == rank.node:
            grouped[-1][1].append(rank)
        else:
            grouped.append((rank.node, [rank]))
    if len({len(own) for _, own in grouped}) > 1:
        return [(rank.node, [rank]) for rank in ranks]
    return grouped


def vllm_scripts(index: int, ranks: Sequence[Rank], model: str) -> dict[str, str]:
    """Scripts of a replica for vLLM: ``VLLM_PP_LAYER_PARTITION`` has one entry a rank, in the order of the nodes."""
    launches = _machines(ranks)
    head = host_variable(launches[0][0])

    def command(number: int) -> list[str]:
        words = [f"exec vllm serve {shlex.quote(model)}", f"--tensor-parallel-size {len(ranks[0].gpus)}",
                 f"--pipeline-parallel-size {len(ranks)}"]  # fmt: skip
        if len(launches) > 1:
            words += ["--distributed-executor-backend mp", f"--nnodes {len(launches)}", f"--node-rank {number}",
                      f'--master-addr "{head}"', f"--master-port {GROUP_PORT + index}"]  # fmt: skip
        return [*words, "--headless" if number else f"--host 0.0.0.0 --port {HTTP_PORT + index}"]

    return _rank_scripts(index, launches, "VLLM_PP_LAYER_PARTITION", command)


def sglang_scripts(index: int, ranks: Sequence[Rank], model: str) -> dict[str, str]:
    """Scripts of a replica for SGLang: ``SGLANG_PP_LAYER_PARTITION`` has one entry a rank."""
    launches = _machines(ranks)
    head = host_variable(launches[0][0])

    def command(number: int) -> list[str]:
        return [f"exec python3 -m sglang.launch_server --model-path {shlex.quote(model)}",
                f"--tp-size {len(ranks[0].gpus)}", f"--pp-size {len(ranks)}", f"--nnodes {len(launches)}",
                f"--node-rank {number}", f'--dist-init-addr "{head}:{GROUP_PORT + index}"',
                f"--host 0.0.0.0 --port {HTTP_PORT + index}"]  # fmt: skip

    return _rank_scripts(index, launches, "SGLANG_PP_LAYER_PARTITION", command)


def _rank_scripts(
    index: int, launches: Sequence[tuple[str, list[Rank]]], variable: str, command: Callable[[int], list[str]]
) -> dict[str, str]:
    """A script for each launch of a replica; `variable` gets the layers of all ranks, `command` takes the launch."""
    partition = ",".join(str(rank.layers) for _, own in launches for rank in own)
    scripts = {}
    for number, (node, own) in enumerate(launches):
        gpus = ",".join(str(gpu) for rank in own for gpu in rank.gpus)
        scripts[f"replica-{index}/{number}-{node}.sh"] = _script(
            [f"# on {node}: layers {', '.join(str(rank.layers) for rank in own)}",
             f"export CUDA_VISIBLE_DEVICES={gpus}", f"export {variable}={partition}",
             " \\\n  ".join(command(number)) + ' "$@"']
        )  # fmt: skip
    return scripts


def llama_cpp_scripts(index: int, ranks: Sequence[Rank], model: str) -> dict[str, str]:
    """Scripts of a replica for llama.cpp: an RPC server for each GPU, and the server on the last node.

    llama.cpp lists RPC devices first, in the order of ``--rpc``, then its own GPUs, and gives them layers in proportion
    to ``--tensor-split``. The output counts as one layer more and goes to the last device, so that its entry is one
    larger than its layers.
    """
    last = ranks[-1].node
    local = [rank for rank in ranks if rank.node == last]
    remote = [rank for rank in ranks if rank.node != last]
    scripts, endpoints = {}, []
    for number, rank in enumerate(remote):
        port = RPC_PORT + index * 100 + rank.gpus[0]
        endpoints.append(f"{host_variable(rank.node)}:{port}")
        scripts[f"replica-{index}/{number}-{rank.node}-gpu{rank.gpus[0]}.sh"] = _script(
            [f"# on {rank.node}: {rank.layers} layers. RPC has no password: open the port to the last node alone.",
             f"export CUDA_VISIBLE_DEVICES={rank.gpus[0]}", f'exec rpc-server --host 0.0.0.0 --port {port} "$@"']
        )  # fmt: skip
    split = [rank.layers for rank in (*remote, *local)]
    split[-1] += 1
    command = [f"exec llama-server --model {shlex.quote(model)}", "--n-gpu-layers 999 --split-mode layer",
               f"--tensor-split {','.join(map(str, split))}"]  # fmt: skip
    if endpoints:
        command.append(f'--rpc "{",".join(endpoints)}"')
    command.append(f"--host 0.0.0.0 --port {HTTP_PORT + index}")
    scripts[f"replica-{index}/{len(remote)}-{last}.sh"] = _script(
        [f"# on {last}, after the RPC servers of this folder: its own layers are {sum(r.layers for r in local)}",
         f"export CUDA_VISIBLE_DEVICES={','.join(str(r.gpus[0]) for r in local)}", " \\\n  ".join(command) + ' "$@"']
    )  # fmt: skip
    return scripts


def ray_serve_files(all_ranks: Sequence[Sequence[Rank]], model: str, gpus: dict[str, str]) -> dict[str, str]:
    """A configuration of Ray Serve LLM, as JSON, which is YAML: one application for each replica.

    Ray places each rank on a node that has the resource ``helix_node_<name>``, which the start scripts declare.
    """
    applications = []
    for index, ranks in enumerate(all_ranks):
        bundles = [{"GPU": len(rank.gpus), _resource(rank.node): 0.001} for rank in ranks]
        bundles[0] = {"CPU": 1, **bundles[0]}
        config = {
            "model_loading_config": {"model_id": model, "model_source": model},
            "deployment_config": {"num_replicas": 1},
            "engine_kwargs": {"tensor_parallel_size": len(ranks[0].gpus), "pipeline_parallel_size": len(ranks),
                              "distributed_executor_backend": "ray"},
            "placement_group_config": {"bundles": bundles, "strategy": "PACK"},
            "runtime_env": {"env_vars": {"VLLM_PP_LAYER_PARTITION": ",".join(str(r.layers) for r in ranks)}},
        }  # fmt: skip
        applications.append({"name": f"replica-{index}", "route_prefix": f"/replica-{index}",
                             "import_path": "ray.serve.llm:build_openai_app",
                             "args": {"llm_configs": [config]}})  # fmt: skip
    files = {"serve.yaml": json.dumps({"applications": applications}, indent=1) + "\n"}
    nodes = list(dict.fromkeys(rank.node for ranks in all_ranks for rank in ranks))
    for number, node in enumerate(nodes):
        address = f'--address "{host_variable(nodes[0])}:6379"' if number else "--head --port 6379"
        resources = shlex.quote(json.dumps({_resource(node): 1}))
        files[f"nodes/{number}-{node}.sh"] = _script(
            [f"# on {node} ({gpus[node]})", f'exec ray start {address} --resources {resources} --block "$@"']
        )
    return files


def _resource(node: str) -> str:
    return f"helix_node_{node}"


def nginx_conf(replicas: Replicas, heads: Sequence[str], *, paths: bool = False) -> str:
    """A router: nginx sends each replica its share of the requests, by its flow.

    With `paths` the replicas are applications of one Ray Serve, told apart by the beginning of the path.
    """
    weights = replicas.weights
    if paths:
        total, parts = sum(weights), []
        for index, weight in enumerate(weights[:-1]):
            parts.append(f"    {100 * weight / total:.2f}% /replica-{index};")
        parts.append(f"    * /replica-{len(weights) - 1};")
        server = f"  upstream ray {{ server {heads[0]}:{HTTP_PORT}; }}"
        choice = "\n".join([server, "  split_clients $request_id $replica {", *parts, "  }"])
        return _nginx(choice, "http://ray$replica$request_uri")
    servers = [
        f"    server {head}:{HTTP_PORT + index} weight={weight};"
        for index, (head, weight) in enumerate(zip(heads, weights, strict=True))
    ]
    return _nginx("\n".join(["  upstream replicas {", *servers, "    keepalive 64;", "  }"]), "http://replicas")


def _nginx(choice: str, target: str) -> str:
    return f"""events {{}}
http {{
{choice}
  server {{
    listen {ROUTER_PORT};
    location / {{
      proxy_pass {target};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 1h;
    }}
  }}
}}
"""
