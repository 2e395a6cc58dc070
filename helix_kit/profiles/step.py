"""How long one step of an engine takes on a machine: one model for prefill, decode and mixtures of both.

With T tokens in the step, of which S are sampled, C tokens of context that attention reads and Q query-key pairs of
prompts, the stage of a pipeline takes

    max(bytes of weights read / bandwidth, 2 x parameters used x T / arithmetic)      matrices
    + bytes of C / bandwidth of attention + 4 x heads x head size x layers x Q / arithmetic      attention
    + all-reduces of T activations      several GPUs
    + launches of the layers, more of them in a step with a prompt, and more without CUDA graphs
    + output projection and sampler for S requests, and one row of logits where they are sorted      last stage.

Weights are read once a step: all dense ones, and the experts that T tokens hit. The constants are an engine's
(`helix_kit.profiles.engines`), bandwidths and arithmetic are shares of the GPU's datasheet figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from helix_kit.catalogue import Gpu, GpuLink, gpu_links
from helix_kit.errors import InputError
from helix_kit.layers import expert_shares
from helix_kit.model import Model
from helix_kit.profiles.engines import EngineRecord

ALL_REDUCES_PER_LAYER = 2
"""One after the attention, one after the MLP."""


@dataclass(frozen=True)
class ModelWork:
    """What a step reads and computes of a model, whatever its family; sizes of all layers together.

    Examples
    --------
    >>> work = ModelWork.of(Model.preset("llama2-70b"))
    >>> work.layers, round(work.dense_bytes / 1e9), work.experts
    (80, 122, 0)
    """

    layers: int
    """Decoder layers."""
    hidden: int
    """Elements of a hidden state."""
    heads: int
    """Query heads."""
    kv_heads: int
    """Key-value heads."""
    head_dim: int
    """Elements of a head."""
    vocab: int
    """Rows of the output projection."""
    dense_bytes: float
    """Weights that every step reads, without the output projection."""
    dense_params: float
    """Parameters that every token uses, without experts and the output projection."""
    activation_element_bytes: int = 2
    """Bytes of an element of an activation, and of the KV cache."""
    head_bytes: float = 0.0
    """The output projection."""
    experts: int = 0
    """Experts of a layer that are routed to; 0 for dense models."""
    active_experts: int = 0
    """Experts that a token uses."""
    expert_bytes: float = 0.0
    """One expert in all layers."""
    expert_params: float = 0.0
    """Parameters of one expert in all layers."""
    is_fp8: bool = False
    """Whether the MLP's arithmetic is in 8 bits, twice as fast on GPUs that have it."""
    kv_layer_bytes: float = 0.0
    """KV cache of one token in one layer, on average; 0: that of all key-value heads."""
    kv_is_compressed: bool = False
    """Whether the cache holds one compressed vector for all heads, so that each GPU has all of it."""
    sorts_samples: bool = False
    """Whether requests are sampled with top-p or top-k, which sorts the logits; many models' own default."""
    penalises: bool = False
    """Whether tokens that came before are penalised, which counts them over the vocabulary; some models' default."""

    @classmethod
    def of(cls, model: Model, *, sorts_samples: bool = False, penalises: bool = False) -> ModelWork:
        """The work of a model of `helix_kit.model`.

        Parameters
        ----------
        model
            Its layers may have experts, all the same number of them.
        sorts_samples
            Whether requests are sampled with top-p or top-k.
        penalises
            Whether tokens that came before are penalised.

        Raises
        ------
        InputError
            Layers with different numbers of experts.
        """
        counts = model.count_kinds(0, model.num_layers)
        kinds = [(n, kind) for n, kind in zip(counts, model.layer_kinds, strict=True) if n]
        routed = [(n, kind.experts) for n, kind in kinds if kind.experts is not None]
        sizes = {(experts.count, experts.active) for _, experts in routed} or {(0, 0)}
        if len(sizes) > 1:
            expected = "expected the same number of experts in all layers that have any"
            raise InputError(expected, where=f"model {model.name}", field="layer_kinds", value=sorted(sizes))
        experts, active = sizes.pop()
        dense_bytes = sum(n * kind.weight_bytes for n, kind in kinds) or model.num_layers * model.layer_gb * 1e9
        return cls(
            layers=model.num_layers,
            hidden=model.hidden_size,
            heads=model.num_heads,
            kv_heads=model.num_kv_heads,
            head_dim=model.head_dim,
            vocab=model.vocab_size,
            dense_bytes=dense_bytes,
            dense_params=sum(n * kind.params for n, kind in kinds) or model.num_layers * model.layer_params,
            activation_element_bytes=model.dtype_bytes,
            head_bytes=model.embedding_gb * 1e9,
            experts=experts,
            active_experts=active,
            expert_bytes=sum(n * e.weight_bytes for n, e in routed),
            expert_params=sum(n * e.params for n, e in routed),
            is_fp8=any(kind.arithmetic == "fp8" for _, kind in kinds),
            kv_layer_bytes=float(model.kv_bytes_per_token_layer),
            kv_is_compressed=any(kind.attention == "latent" for _, kind in kinds),
            sorts_samples=sorts_samples,
            penalises=penalises,
        )

    @property
    def weight_bytes(self) -> float:
        """All weights: layers, every expert, embedding and output projection."""
        return self.dense_bytes + self.experts * self.expert_bytes + 2 * self.head_bytes

    def kv_bytes_per_token(self, gpus: int, layers: int) -> float:
        """Bytes of KV cache of a token on each of `gpus`; heads that are fewer than GPUs are held several times."""
        whole = self.kv_layer_bytes or 2 * self.kv_heads * self.head_dim * self.activation_element_bytes
        return layers * whole / (1 if self.kv_is_compressed else min(gpus, self.kv_heads))


@dataclass(frozen=True)
class Machine:
    """The GPUs that share the layers of one stage by tensor parallelism.

    Examples
    --------
    >>> from helix_kit.catalogue import gpus
    >>> Machine(gpus()["H100-80G"], count=2).count
    2
    """

    gpu: Gpu
    """Datasheet figures."""
    count: int = 1
    """How many there are."""
    link: GpuLink | None = None
    """Between them; None: the usual one of the catalogue."""

    @property
    def gpu_link(self) -> GpuLink:
        """The link between the GPUs."""
        return self.link or next(iter(gpu_links(self.gpu.name).values()))


@dataclass(frozen=True, eq=False)
class StepCosts:
    """Seconds of a step, by what is in it.

    Examples
    --------
    >>> from helix_kit.catalogue import gpus
    >>> from helix_kit.profiles.engines import load_engine
    >>> costs = step_costs(load_engine("vllm-0.15"), ModelWork.of(Model.preset("SmolLM2-135M")),
    ...                    Machine(gpus()["H100-80G"]))
    >>> costs.seconds(decodes=8, context=8000) < costs.seconds(prefill=500, context=500) < 0.1
    True
    """

    linear_s: np.ndarray
    """Matrices and all-reduces, by the tokens of the step; shape (token budget + 1,)."""
    fixed_s: float
    """Launches of a step of decodes."""
    mixed_s: float
    """More for a step with prompt tokens, whose attention is outside of the graphs."""
    eager_s: float
    """More for a step that is too large for a CUDA graph."""
    graph_tokens: int
    """Tokens of the largest step with a graph."""
    context_s: float
    """For each token of context that attention reads."""
    pair_s: float
    """For each query-key pair of prompts."""
    sampled_s: float
    """For each request that gets a token."""

    def seconds(self, *, prefill: int = 0, decodes: int = 0, context: int = 0, sampled: int | None = None) -> float:
        """Time of a step.

        Parameters
        ----------
        prefill
            Prompt tokens, taken for one whole prompt.
        decodes
            Requests that decode a token.
        context
            Tokens in the KV cache of all requests together, those of this step included.
        sampled
            Requests that get a token. None: those that decode, and the prompt.
        """
        tokens = prefill + decodes
        if tokens >= len(self.linear_s):
            raise InputError(
                f"expected at most {len(self.linear_s) - 1} tokens in a step", field="tokens", value=tokens
            )
        sampled = decodes + (prefill > 0) if sampled is None else sampled
        pairs = prefill * (prefill + 1) / 2
        seconds = float(self.linear_s[tokens]) + self.fixed_s + self.context_s * context + self.pair_s * pairs
        seconds += self.mixed_s if prefill else 0.0
        seconds += self.eager_s if tokens > self.graph_tokens else 0.0
        return seconds + self.sampled_s * sampled


def step_costs(
    engine: EngineRecord, work: ModelWork, machine: Machine, *, layers: int | None = None, is_last: bool = True
) -> StepCosts:
    """The step time of one stage.

    Parameters
    ----------
    engine
        Its constants and rules.
    work
        What the model reads and computes.
    machine
        The GPUs of the stage.
    layers
        Layers of the stage; None: all.
    is_last
        Whether the stage has the output projection and the sampler.

    Returns
    -------
    StepCosts
        For steps of up to the engine's token budget.

    Raises
    ------
    InputError
        The engine's record has no constants.

    Examples
    --------
    >>> from helix_kit.catalogue import gpus
    >>> from helix_kit.profiles.engines import load_engine
    >>> engine, work = load_engine("vllm-0.15"), ModelWork.of(Model.preset("llama3.1-70b"))
    >>> four, eight = (step_costs(engine, work, Machine(gpus()["H100-80G"], n)) for n in (4, 8))
    >>> eight.seconds(decodes=1, context=100) < four.seconds(decodes=1, context=100)
    True
    """
    if engine.constants is None:
        raise InputError("expected an engine with constants", where=f"engine {engine.name}", field="constants")
    gpu, n = machine.gpu, machine.count
    value = {name: constant.of(gpu.name) for name, constant in engine.constants.by_name().items()}
    count = work.layers if layers is None else layers
    part = count / work.layers
    datasheet_bytes_per_s = gpu.memory_bandwidth_gb_per_s * 1e9 * n
    flops_per_s = gpu.fp16_tflops * 1e12 * n * value["arithmetic_share"]
    tokens = np.arange(engine.rules.token_budget + 1)
    skew = value["single_expert_skew" if work.active_experts == 1 else "expert_skew"]
    hit = distinct_experts(work, engine.rules.token_budget, skew)
    read_bytes = part * (work.dense_bytes + hit * work.expert_bytes) + is_last * work.head_bytes
    used = part * (work.dense_params + work.active_experts * work.expert_params)
    arithmetic_s = 2 * used * tokens / (flops_per_s * (2 if work.is_fp8 and _has_fp8(gpu) else 1))
    linear_s = np.maximum(read_bytes / (datasheet_bytes_per_s * value["bandwidth_share"]), arithmetic_s)
    fixed_ms = value["step_ms"] + count * value["layer_ms"]
    if n > 1:
        # A ring takes 2 (n - 1) steps, and each GPU sends 2 (n - 1) / n of the result (Patarasuk and Yuan, 2009).
        steps, link = 2 * (n - 1), machine.gpu_link
        each_ms = value["all_reduce_ms"] + value["all_reduce_hop_share"] * steps * link.latency_ms
        fixed_ms += ALL_REDUCES_PER_LAYER * count * each_ms
        sent_bytes = ALL_REDUCES_PER_LAYER * count * work.hidden * work.activation_element_bytes * steps / n
        linear_s = linear_s + tokens * sent_bytes / (link.bytes_per_s_among(n) * value["all_reduce_bandwidth_share"])
    eager_ms = count * value["eager_layer_ms"]
    if work.experts:
        quantised = ("", "quantised_") if work.is_fp8 else ("",)
        fixed_ms += count * sum(value[f"{kind}expert_layer_ms"] for kind in quantised)
        eager_ms += count * sum(value[f"{kind}expert_eager_layer_ms"] for kind in quantised)
    logit_ns = value["sorted_sampling_ns_per_logit" if work.sorts_samples else "sampling_ns_per_logit"]
    logit_ns += value["penalty_ns_per_logit"] if work.penalises else 0.0
    if work.sorts_samples and is_last:
        # One thread block for each request's row, all at the same time: the length of a row decides, not their number.
        fixed_ms += work.vocab * value["sorted_row_ns_per_logit"] * 1e-6
    kv_bytes_per_s = datasheet_bytes_per_s / n * value["context_bandwidth_share"]
    return StepCosts(
        linear_s=linear_s,
        fixed_s=fixed_ms * 1e-3,
        mixed_s=count * value["mixed_layer_ms"] * 1e-3,
        eager_s=eager_ms * 1e-3,
        graph_tokens=engine.rules.graph_tokens,
        context_s=work.kv_bytes_per_token(n, count) / kv_bytes_per_s,
        pair_s=4 * work.heads * work.head_dim * count / flops_per_s,
        sampled_s=is_last * (work.vocab * logit_ns * 1e-9 + value["request_ms"] * 1e-3),
    )


def distinct_experts(work: ModelWork, tokens: int, skew: float) -> np.ndarray:
    """Expected number of experts of a layer that 0, 1, ... `tokens` tokens use together.

    As `Experts.distinct`, for all numbers of tokens at once.

    Parameters
    ----------
    work
        Experts of a layer, and those that a token uses.
    tokens
        The largest number of tokens.
    skew
        0: all experts are equally popular.

    Returns
    -------
    numpy.ndarray
        Shape (tokens + 1,); zeros for a dense model.

    Examples
    --------
    >>> from dataclasses import replace
    >>> work = replace(ModelWork.of(Model.preset("SmolLM2-135M")), experts=4, active_experts=1)
    >>> distinct_experts(work, 2, skew=0.0).tolist()
    [0.0, 1.0, 1.75]
    """
    if not work.experts:
        return np.zeros(tokens + 1)
    share = np.array(expert_shares(work.experts, work.active_experts, skew))
    return np.asarray((1 - (1 - share)[None, :] ** np.arange(tokens + 1)[:, None]).sum(axis=1))


def kv_blocks(engine: EngineRecord, work: ModelWork, machine: Machine, *, layers: int | None = None) -> int:
    """Blocks of KV cache that fit beside the weights on a stage's GPUs.

    Memory of a GPU as a program sees it x the engine's share - its part of the weights - activations and graphs,
    divided by the bytes of a block.

    Parameters
    ----------
    engine
        Its memory share, block size, and GB of activations.
    work, machine
        The model and the GPUs.
    layers
        Layers of the stage; None: all.

    Returns
    -------
    int
        0 where the weights do not fit.

    Examples
    --------
    >>> from helix_kit.catalogue import gpus
    >>> from helix_kit.profiles.engines import load_engine
    >>> kv_blocks(load_engine("vllm-0.15"), ModelWork.of(Model.preset("llama2-70b")), Machine(gpus()["L4"]))
    0
    """
    assert engine.constants is not None, "step_costs has refused it"
    count = work.layers if layers is None else layers
    part, n = count / work.layers, machine.count
    weights = part * (work.dense_bytes + work.experts * work.expert_bytes) + 2 * work.head_bytes
    reserve = engine.constants.activation_gb.of(machine.gpu.name) * 1e9
    left = machine.gpu.seen_memory_gb * 1e9 * engine.rules.memory_share - weights / n - reserve
    return max(0, int(left // (work.kv_bytes_per_token(n, count) * engine.rules.block_tokens)))


def _has_fp8(gpu: Gpu) -> bool:
    """Whether the GPU multiplies numbers of 8 bits at twice the rate: Hopper, Ada and later do."""
    return gpu.name.startswith(("H100", "H200", "L4", "RTX40", "B"))


__all__ = ["Machine", "ModelWork", "StepCosts", "distinct_experts", "kv_blocks", "step_costs"]
