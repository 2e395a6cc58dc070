"""From a plan to replicas: the chains of nodes that each hold the whole model."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from helix_kit._wording import agreeing
from helix_kit.cluster import COORDINATOR
from helix_kit.errors import InputError
from helix_kit.flow import Pipeline, Stage
from helix_kit.placement.plan import Plan
from helix_kit.profiles.engine_speed import machine_of
from helix_kit.profiles.engines import EngineRecord
from helix_kit.profiles.step import Machine, ModelWork, kv_blocks, step_costs
from helix_kit.simulator.replicas.replica import StageOfReplica


def chains_of(plan: Plan) -> list[Pipeline]:
    """The replicas of a plan whose nodes each serve one pipeline, from their first layer to their last.

    A chain starts at a node with the first layer and goes on, over the link with the most flow, to a node that is not
    taken yet and holds the layers that come next.
    """
    free = dict(plan.placement)
    flow = plan.flow_edges
    chains: list[Pipeline] = []
    for start in sorted(
        (n for n, (first, _) in free.items() if first == 0), key=lambda n: -flow.get((COORDINATOR, n), 0)
    ):
        chain = [start]
        while (end := plan.placement[chain[-1]][1]) < plan.model.num_layers:
            last = chain[-1]
            follow = [n for n, (first, _) in free.items() if first == end]
            if not follow:
                break
            chain.append(max(follow, key=lambda n: flow.get((last, n), 0.0)))
            del free[chain[-1]]
        free.pop(start, None)
        if plan.placement[chain[-1]][1] == plan.model.num_layers:
            chains.append(tuple(Stage(node, *plan.placement[node]) for node in chain))
        else:
            free[start] = plan.placement[start]
            free |= {node: plan.placement[node] for node in chain[1:]}
    if free:
        raise InputError(
            "expected a plan of separate pipelines, as this engine serves them: each node in one pipeline, with all of "
            f"its layers; {', '.join(sorted(free))} {agreeing(len(free), 'is', 'are')} in no such pipeline. "
            "`helix-kit plan --engine` makes such a plan, `helix-kit export` splits this one",
            where="simulate", field="engine",
        )  # fmt: skip
    return chains


def stages_of(plan: Plan, chain: Pipeline, engine: EngineRecord, work: ModelWork) -> list[StageOfReplica]:
    """Costs of each stage, and the links between them; the last hop brings the tokens back to the first node."""
    stages, groups = [], _groups(plan, chain)
    for i, (node, machine, layers) in enumerate(groups):
        is_last = i == len(groups) - 1
        costs = step_costs(engine, work, machine, layers=layers, is_last=is_last)
        if len(groups) == 1:
            stages.append(StageOfReplica(costs))
            continue
        target = groups[0 if is_last else i + 1][0]
        token_bytes = plan.model.token_bytes if is_last else plan.model.link_bytes_per_token
        if target == node:
            within = plan.cluster.gpu_link(plan.cluster.node(node))
            stages.append(StageOfReplica(costs, within.latency_ms / 1e3, token_bytes / within.bytes_per_s))
            continue
        link = plan.cluster.link(node, target)
        bytes_per_s = min(link.bytes_per_s, plan.cluster.network.nic_bytes_per_s)
        stages.append(StageOfReplica(costs, link.latency_s, token_bytes / bytes_per_s))
    return stages


def blocks_of(plan: Plan, chain: Pipeline, engine: EngineRecord, work: ModelWork) -> int:
    """Blocks of KV cache of a replica: as many as the stage with the least room has."""
    return min(kv_blocks(engine, work, machine, layers=layers) for _, machine, layers in _groups(plan, chain))


def engine_of(plan: Plan, chain: Pipeline, engine: EngineRecord) -> EngineRecord:
    """The engine with the default rules of the GPU of the chain's first node, where its scheduler runs."""
    return engine.on(plan.cluster.node(chain[0].node).gpu)


def _groups(plan: Plan, chain: Pipeline) -> list[tuple[str, Machine, int]]:
    """The groups of GPUs of a chain, in order: node, GPUs that share each layer, and how many layers they hold.

    A node is one group, unless its `tensor_parallel` says that groups of its GPUs take the layers in turn.
    """
    found = []
    for stage in chain:
        node, layers = plan.cluster.node(stage.node), stage.end - stage.start
        whole = machine_of(plan.cluster, node)
        ranks = node.tensor_parallel or node.gpus_per_node
        machine = replace(whole, count=ranks, link=whole.link if ranks > 1 else None)
        count = min(node.gpus_per_node // ranks, layers)
        bounds = [layers * i // count for i in range(count + 1)]
        found += [(stage.node, machine, end - start) for start, end in pairwise(bounds)]
    return found
