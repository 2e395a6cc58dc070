"""T(k) of a machine in a serving engine that keeps a whole model on a chain of machines, such as vLLM.

A request of I tokens in and O out has I + O/2 tokens of KV cache on average while it decodes, and the engine gives it
blocks as it grows. A machine with k of L layers has room for N such requests, at most `max_num_seqs` of them. A chain
of machines has p = L / k stages if all are like this one, and works on p steps at a time, so a step has b = N k / L
requests. With D(b) the time of a decode step and P(b) what a prompt adds to the step that it is a part of, a request
costs the machine

    M P(b) + (O - 1) (D(b) + H) / b seconds, and T(k) = (I + O) / (M P(b) + (O - 1) (D(b) + H) / b).

H is the time on the link to the next stage. It counts like that of a stage, since no more than p steps are under way.
M >= 1 says that a long step holds up the others: a step with a prompt needs p times as long for p stages, and the p - 1
steps beside it have left the chain long before. With q prompts a step, the share w = 1 - (1 - q)^p of the rounds of p
steps has one at least. Such a round takes p (D + H + P), and each further prompt adds P, so that

    M = (p w + p q - w) / (p q) = 1 + w (p - 1) / (p q),

which is 1 for one stage, near 1 where each step has prompts, and p where they are rare.

D and P are those of `helix_kit.profiles.step`: weights are read once a step, whether prompts are in it or not, so that
a prompt adds its arithmetic, its attention and the launches outside of CUDA graphs. The output projection and the
sampler count on every machine, since any may be the last of its chain. Hits in the prefix cache are left out: they
depend on the workload. ``benchmarks/bench_engine_rule.py`` compares T(k) with what the simulated engine serves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from helix_kit.cluster import Cluster, Node
from helix_kit.errors import InputError
from helix_kit.model import Model
from helix_kit.profiles.engines import EngineRecord
from helix_kit.profiles.profile import Curve, Profile
from helix_kit.profiles.roofline import DECODE_REQUESTS, PREFILL_TOKENS
from helix_kit.profiles.step import Machine, ModelWork, StepCosts, kv_blocks, step_costs
from helix_kit.typical_request import ROUND_CONTEXT_TOKENS, MeanLengths

MAX_NEIGHBOURS = 64
"""Other nodes that are looked at for the fastest link of a node."""
SOURCE = "engine"
"""First word of the `source` of a profile that was made from an engine's record."""


class Hop(NamedTuple):
    """The way from one stage of a chain to the next.

    Examples
    --------
    >>> Hop(1e-3, 1e-6).token_s
    1e-06
    """

    latency_s: float = 0.0
    """Whatever is sent."""
    token_s: float = 0.0
    """For each token of a step."""


NO_HOP = Hop()


def machine_of(cluster: Cluster, node: Node) -> Machine:
    """The GPUs of a node, which share its layers.

    Parameters
    ----------
    cluster
        Knows the GPU and the link between several.
    node
        One of its nodes.

    Returns
    -------
    Machine
        As the step model takes it.

    Examples
    --------
    >>> cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "L4", "gpus_per_node": 2}]})
    >>> machine_of(cluster, cluster.nodes[0]).count
    2
    """
    link = cluster.gpu_link(node) if node.gpus_per_node > 1 else None
    return Machine(cluster.gpu(node.gpu), node.gpus_per_node, link)


def engine_profiles(cluster: Cluster, model: Model, engine: EngineRecord) -> dict[str, Profile]:
    """The profile of each kind of machine as an engine's record has it.

    Times of a layer are those of a step with all layers, divided by their number, so that what a step takes whatever is
    in it counts by layers. The KV cache is what the engine gives a machine with so many layers.

    Parameters
    ----------
    cluster
        Its kinds of machine.
    model
        The model whose layers run; layers that differ count as their mean.
    engine
        An engine with constants.

    Returns
    -------
    dict of str to Profile
        By kind of machine.

    Raises
    ------
    InputError
        The engine has no constants.

    Examples
    --------
    >>> from helix_kit.profiles.engines import load_engine
    >>> cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "H100-80G"}]})
    >>> engine_profiles(cluster, Model.preset("llama2-70b"), load_engine("vllm-0.15"))["H100-80G"].max_layers
    48
    """
    work = ModelWork.of(model)
    by_kind = {node.kind: node for node in cluster.nodes}
    return {kind: _profile(kind, model, work, engine.on(n.gpu), machine_of(cluster, n)) for kind, n in by_kind.items()}


def _profile(kind: str, model: Model, work: ModelWork, engine: EngineRecord, machine: Machine) -> Profile:
    layers, size = model.num_layers, engine.rules.block_tokens
    costs = step_costs(engine, work, machine)
    budget = engine.rules.token_budget
    prefill = [(t, costs.seconds(prefill=t, context=t)) for t in PREFILL_TOKENS if t < budget]
    prefill.append((budget, costs.seconds(prefill=budget, context=budget)))
    if prefill[-1][0] < PREFILL_TOKENS[-1]:  # Longer prompts take several steps.
        steps = PREFILL_TOKENS[-1] / budget
        prefill.append((PREFILL_TOKENS[-1], steps * prefill[-1][1]))
    most = min(engine.rules.max_num_seqs, budget)
    decode = [
        (b, costs.seconds(decodes=b, context=b * ROUND_CONTEXT_TOKENS))
        for b in sorted({*DECODE_REQUESTS, most})
        if b <= most
    ]
    tokens = []
    for k in range(1, layers + 1):
        held = kv_blocks(engine, work, machine, layers=k) * size * k
        if not held:
            break
        tokens.append(held)
    return Profile(
        kind=kind,
        model=model.name,
        source=f"{SOURCE} {engine.name} ({machine.gpu.name}: {machine.gpu.source})",
        prefill_ms_per_layer=_curve(prefill, layers),
        decode_ms_per_layer=_curve(decode, layers),
        kv_capacity_layer_tokens=tuple(tokens),
        prefill_max_requests=(most,) * len(tokens),
        decode_max_requests=(most,) * len(tokens),
    )


def _curve(points: list[tuple[int, float]], layers: int) -> Curve:
    return Curve(x=(0.0, *(float(x) for x, _ in points)), y=(0.0, *(1e3 * s / layers for _, s in points)))


def engine_tables(
    cluster: Cluster, model: Model, engine: EngineRecord, lengths: MeanLengths
) -> dict[str, tuple[float, ...]]:
    """T(k) of each kind of machine of a cluster in an engine.

    Parameters
    ----------
    cluster
        Its kinds of machine.
    model
        The model whose layers run.
    engine
        An engine with constants.
    lengths
        Mean lengths of requests.

    Returns
    -------
    dict of str to tuple of float
        By kind: T(1), T(2), ... in tokens/s, as long as the KV cache has room for one request. It need not
        fall: with few layers a chain has many links and stages, and a machine with all layers waits for no link.

    Raises
    ------
    InputError
        The engine has no constants.

    Examples
    --------
    >>> from helix_kit.profiles.engines import load_engine
    >>> from helix_kit.typical_request import TRACE_LENGTHS
    >>> cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "H100-80G"}]})
    >>> engine, model = load_engine("vllm-0.15"), Model.preset("llama3.1-70b")
    >>> table = engine_tables(cluster, model, engine, TRACE_LENGTHS)["H100-80G"]
    >>> len(table) < 80, table[40] < max(table)
    (True, True)
    """
    work = ModelWork.of(model)
    tables: dict[str, tuple[float, ...]] = {}
    for node in cluster.nodes:
        if node.kind not in tables:
            hop = _best_hop(cluster, node, model)
            tables[node.kind] = _table(engine.on(node.gpu), work, machine_of(cluster, node), lengths, hop)
    return tables


def _best_hop(cluster: Cluster, node: Node, model: Model) -> Hop:
    """The fastest link of a node to another one: a chain would take it."""
    others = [other.name for other in cluster.nodes if other.name != node.name]
    links = [cluster.link(node.name, other) for other in others[:MAX_NEIGHBOURS]]
    hops = [Hop(link.latency_s, model.link_bytes_per_token / link.bytes_per_s) for link in links]
    return min(hops, key=lambda hop: hop.latency_s + 100 * hop.token_s, default=Hop())


def _table(
    engine: EngineRecord, work: ModelWork, machine: Machine, lengths: MeanLengths, hop: Hop = NO_HOP
) -> tuple[float, ...]:
    speeds: list[float] = []
    for k in range(1, work.layers + 1):
        room = kv_blocks(engine, work, machine, layers=k) * engine.rules.block_tokens
        if room < lengths.tokens:
            break
        costs = step_costs(engine, work, machine, layers=k)
        speed = max(
            request_tokens_per_s(costs, engine, lengths, batch, work.layers / k, hop)
            for batch in _batches(room / (lengths.input_tokens + lengths.output_tokens / 2), engine, k / work.layers)
        )
        speeds.append(speed)
    return tuple(speeds)


def _batches(fitting: float, engine: EngineRecord, share: float) -> list[float]:
    """The largest batch, and half and a quarter of it: where steps outgrow the CUDA graphs, less may serve more."""
    largest = min(fitting, engine.rules.max_num_seqs) * share
    largest = min(largest, engine.rules.token_budget - 1)
    return [largest / n for n in (1, 2, 4)]


def request_tokens_per_s(
    costs: StepCosts,
    engine: EngineRecord,
    lengths: MeanLengths,
    batch: float,
    stages: float = 1.0,
    hop: Hop = NO_HOP,
) -> float:
    """Tokens/s, in and out together, of a stage whose decode steps have `batch` requests.

    Parameters
    ----------
    costs
        Of the stage.
    engine
        Its token budget.
    lengths
        Mean lengths of requests.
    batch
        Requests of a decode step, above 0. Below 1 it is the share of time in which a single request is there.
    stages
        p, the stages of a chain of such machines; it may be a fraction.
    hop
        The way to the next stage; it counts where there are several.

    Returns
    -------
    float
        Tokens/s.

    Examples
    --------
    >>> from helix_kit.catalogue import gpus
    >>> from helix_kit.profiles.engines import load_engine
    >>> engine = load_engine("vllm-0.15").on("H100-80G")
    >>> costs = step_costs(engine, ModelWork.of(Model.preset("llama-30b")), Machine(gpus()["H100-80G"], 2))
    >>> one, many = (request_tokens_per_s(costs, engine, MeanLengths(500, 200), b) for b in (1, 64))
    >>> one < many < 64 * one
    True
    """
    tokens_in, tokens_out = lengths.input_tokens, lengths.output_tokens
    in_step = max(1.0, batch)
    context = in_step * (tokens_in + tokens_out / 2)
    decode_s = _linear(costs, in_step) + costs.fixed_s + costs.context_s * context + costs.sampled_s * in_step
    decode_s += costs.eager_s if in_step > costs.graph_tokens else 0.0
    budget = max(1.0, engine.rules.token_budget - in_step)
    chunks = math.ceil(tokens_in / budget)
    chunk = tokens_in / chunks
    prompt_s = chunks * (_linear(costs, in_step + chunk) - _linear(costs, in_step) + costs.mixed_s)
    if in_step <= costs.graph_tokens < in_step + chunk:
        prompt_s += chunks * costs.eager_s
    prompt_s += costs.pair_s * tokens_in * (tokens_in + 1) / 2 + costs.context_s * tokens_in * (chunks + 1) / 2
    if stages > 1:
        decode_s += hop.latency_s + hop.token_s * in_step
        prompt_s += hop.token_s * tokens_in
        in_a_step = min(1.0, chunks * batch / (tokens_out - 1)) if tokens_out > 1 else 1.0
        rounds = 1 - (1 - in_a_step) ** stages
        prompt_s *= 1 + rounds * (stages - 1) / (stages * in_a_step)
    return lengths.tokens / (prompt_s + costs.sampled_s + (tokens_out - 1) * decode_s / batch)


def _linear(costs: StepCosts, tokens: float) -> float:
    """`linear_s` between whole numbers of tokens."""
    low = min(int(tokens), len(costs.linear_s) - 1)
    high = min(low + 1, len(costs.linear_s) - 1)
    return float(costs.linear_s[low] + (costs.linear_s[high] - costs.linear_s[low]) * (tokens - int(tokens)))


def check_engine(engine: EngineRecord | None, profiles: Mapping[str, Profile] | None) -> bool:
    """Whether an engine's record says how long steps take; False for our runtime, whose profiles say it.

    Parameters
    ----------
    engine
        The engine; None: our runtime.
    profiles
        Measured profiles of the user's.

    Returns
    -------
    bool
        Whether the engine has constants.

    Raises
    ------
    InputError
        Profiles are given beside an engine that has constants.

    Examples
    --------
    >>> check_engine(None, None)
    False
    """
    if engine is None or engine.constants is None:
        return False
    if profiles is not None and not all(p.source.startswith(f"{SOURCE} {engine.name}") for p in profiles.values()):
        raise InputError("expected none beside an engine, whose record says how long steps take", field="profiles")
    return True


__all__ = ["check_engine", "engine_profiles", "engine_tables", "machine_of", "request_tokens_per_s"]
