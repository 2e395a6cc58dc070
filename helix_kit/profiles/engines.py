"""Serving engines as data: the rules by which an engine forms its steps, and the constants of a step's time.

A record of ``data/engines`` describes one version of an engine. Its constants are global or per kind of GPU, never
per model or per run. Each says what it means, its unit, and where its value comes from. `helix_kit.profiles.step` turns
them into seconds, and `helix_kit.simulate(plan, workload, engine=...)` follows the rules.

>>> engine = load_engine("vllm-0.15")
>>> engine.rules.block_tokens, engine.constants.bandwidth_share.unit
(16, 'share of the datasheet')
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from helix_kit import _files
from helix_kit.errors import InputError

NOT_GIVEN = "The record does not give it"
Count = Annotated[int, Field(gt=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Constant(BaseModel):
    """One constant of an engine.

    Examples
    --------
    >>> bandwidth = Constant(value=0.9, unit="share", meaning="of the datasheet", source="given", by_gpu={"L4": 0.8})
    >>> bandwidth.of("L4"), bandwidth.of("H100-80G")
    (0.8, 0.9)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Amount
    """For GPUs that `by_gpu` does not name."""
    unit: str
    """Of the value."""
    meaning: str
    """What the constant is."""
    source: str
    """A datasheet, a measurement, or a fit, and on what."""
    by_gpu: dict[str, Amount] = {}
    """GPU of the catalogue -> its own value."""

    def of(self, gpu: str) -> float:
        """The value for a GPU of the catalogue."""
        return self.by_gpu.get(gpu, self.value)


def _none(unit: str, meaning: str) -> Constant:
    """A constant that records from before it do without."""
    return Constant(value=0.0, unit=unit, meaning=meaning, source=NOT_GIVEN)


class Constants(BaseModel):
    """The constants of a step's time; each record says what its own ones mean.

    Examples
    --------
    >>> sorted(load_engine("vllm-0.15").constants.by_name())[0]
    'activation_gb'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bandwidth_share: Constant
    """Memory bandwidth that reading weights reaches."""
    context_bandwidth_share: Constant
    """Memory bandwidth that attention reaches."""
    arithmetic_share: Constant
    """Arithmetic that prefill reaches."""
    step_ms: Constant
    """Constant of a step."""
    layer_ms: Constant
    """Constant of a layer."""
    mixed_layer_ms: Constant
    """More for each layer of a step with prompt tokens."""
    eager_layer_ms: Constant
    """More for each layer of a step without a CUDA graph."""
    expert_layer_ms: Constant
    """More for each layer with experts."""
    expert_eager_layer_ms: Constant
    """More for each layer with experts in a step without a CUDA graph."""
    quantised_expert_layer_ms: Constant
    """More for each layer with 8-bit experts."""
    quantised_expert_eager_layer_ms: Constant
    """More for each layer with 8-bit experts in a step without a CUDA graph."""
    expert_skew: Constant
    """How unevenly tokens choose several experts each."""
    single_expert_skew: Constant
    """How unevenly tokens choose one expert each."""
    all_reduce_ms: Constant
    """Constant of an all-reduce."""
    all_reduce_hop_share: Constant
    """Share of a ring's steps whose latency is paid."""
    all_reduce_bandwidth_share: Constant
    """Bandwidth of the link that an all-reduce reaches."""
    sampling_ns_per_logit: Constant
    """Sampler, for each request and entry of the vocabulary."""
    sorted_sampling_ns_per_logit: Constant
    """The same with top-p or top-k."""
    sorted_row_ns_per_logit: Constant = _none("ns a logit and step", "Scan and softmax of sorted logits")
    """With top-p or top-k once a step, for each entry of the vocabulary: requests' rows are worked on side by side."""
    penalty_ns_per_logit: Constant = _none("ns a logit", "Penalties for repetition")
    """Penalties for repetition, for each request that has one and entry of the vocabulary."""
    request_ms: Constant
    """Constant of a request that gets a token."""
    receive_ms: Constant
    """From the client to the scheduler."""
    answer_ms: Constant
    """From the end of a step to the client."""
    activation_gb: Constant
    """Memory that the KV cache does not get."""

    def by_name(self) -> dict[str, Constant]:
        """Name -> constant, in the order of the record's fields."""
        return {name: value for name, value in self if isinstance(value, Constant)}

    def scaled(self, name: str, factor: float) -> Constants:
        """The constants with one of them times `factor`, for every GPU."""
        known = self.by_name()
        if name not in known:
            raise InputError(_files.unknown("constant", name, list(known)), field="name")
        old = known[name]
        by_gpu = {gpu: value * factor for gpu, value in old.by_gpu.items()}
        return self.model_copy(update={name: old.model_copy(update={"value": old.value * factor, "by_gpu": by_gpu})})


class Rules(BaseModel):
    """How an engine forms its steps.

    Examples
    --------
    >>> Rules(max_num_seqs=64).token_budget
    2048
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_num_seqs: Count = 256
    """Requests that run at the same time."""
    max_num_batched_tokens: Count = 2048
    """Tokens that a step may take, prefill and decode together."""
    max_model_len: Count | None = None
    """Longest context in tokens; None: as long as the KV cache."""
    chunked_prefill: bool = True
    """Whether a prompt may be spread over several steps."""
    prefill_chunk_tokens: Count | None = None
    """Tokens of a prefill chunk, where chunks have a fixed size."""
    prefix_cache: bool = True
    """Whether blocks of KV cache that are equal to a prompt's first blocks are used again."""
    block_tokens: Count = 16
    """Tokens of a block of KV cache."""
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of each GPU's memory for weights, activations and KV cache."""
    asynchronous: bool = True
    """Whether the next step is put together while one runs, so that a request joins one step later."""
    max_graph_tokens: Annotated[int, Field(ge=0)] = 512
    """Tokens of the largest step that has a CUDA graph; never more than twice `max_num_seqs`."""

    @property
    def token_budget(self) -> int:
        """Tokens that a step may take."""
        return self.max_num_batched_tokens

    @property
    def graph_tokens(self) -> int:
        """Tokens up to which a step runs as CUDA graphs."""
        return min(self.max_graph_tokens, 2 * self.max_num_seqs)


class EngineRecord(BaseModel):
    """A version of a serving engine.

    Examples
    --------
    >>> small = load_engine("vllm-0.15").with_rules(max_num_seqs=64)
    >>> small.rules.max_num_seqs, small.rules.block_tokens
    (64, 16)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """As `simulate(engine=...)` and ``--engine`` name it."""
    about: str
    """What the record describes, and how it was made."""
    execution: Literal["range", "replicas"]
    """``replicas``: each pipeline of nodes serves requests from first to last layer, by `rules` and `constants`.
    ``range``: our runtime, whose step times come from the plan's profiles."""
    rules: Rules
    """How steps are formed."""
    rules_by_gpu: dict[str, dict[str, int]] = {}
    """GPU of the catalogue -> the rules that differ there by default."""
    constants: Constants | None = None
    """Time of a step; None where the profiles tell it."""

    @property
    def receive_s(self) -> float:
        """From the client to the scheduler; 0 where no constants are known."""
        return self.constants.receive_ms.value * 1e-3 if self.constants else 0.0

    @property
    def answer_s(self) -> float:
        """From the end of a step to the client; 0 where no constants are known."""
        return self.constants.answer_ms.value * 1e-3 if self.constants else 0.0

    def with_rules(self, **rules: Any) -> EngineRecord:
        """The engine with other rules on every GPU, such as ``max_num_seqs=64``.

        Raises
        ------
        InputError
            There is no such rule, or the value is not one.
        """
        fields = self.rules.model_dump() | rules
        left = {
            gpu: {name: value for name, value in own.items() if name not in rules}
            for gpu, own in self.rules_by_gpu.items()
        }
        update = {"rules": _files.validate(Rules, fields, f"engine {self.name}"), "rules_by_gpu": left}
        return self.model_copy(update=update)

    def on(self, gpu: str) -> EngineRecord:
        """The engine with the rules that hold by default on a GPU of the catalogue.

        Examples
        --------
        >>> engine = load_engine("vllm-0.15")
        >>> engine.on("H100-80G").rules.max_num_seqs, engine.on("L4").rules.max_num_seqs
        (1024, 256)
        """
        own = self.rules_by_gpu.get(gpu, {})
        return self.with_rules(**own) if own else self


def engine_names() -> list[str]:
    """Names of the engines that ship with the package.

    Returns
    -------
    list of str
        Sorted.

    Examples
    --------
    >>> engine_names()
    ['helix', 'vllm-0.15']
    """
    return sorted(path.stem for path in (_files.data_dir() / "engines").glob("*.yaml"))


def load_engine(name_or_path: str | Path) -> EngineRecord:
    """The engine that ``--engine`` means.

    Parameters
    ----------
    name_or_path
        A name of `engine_names`, or a YAML file with the fields of `EngineRecord`.

    Returns
    -------
    EngineRecord
        The record.

    Raises
    ------
    InputError
        There is no such engine or file, or the file does not describe one.

    Examples
    --------
    >>> load_engine("vllm-0.15").rules.asynchronous
    True
    """
    name = str(name_or_path)
    if name in engine_names():
        return _read(_files.data_dir() / "engines" / f"{name}.yaml")
    if Path(name).suffix in {".yaml", ".yml"}:
        return _read(Path(name))
    raise InputError(_files.unknown("engine", name, engine_names()) + ", or a .yaml file", field="engine")


def _read(path: Path) -> EngineRecord:
    engine = _parsed(path, path.stat().st_mtime_ns if path.exists() else 0)
    if engine.execution == "replicas" and engine.constants is None:
        raise InputError("expected constants for the execution replicas", where=path, field="constants")
    return engine


@cache
def _parsed(path: Path, _changed_ns: int) -> EngineRecord:
    return _files.validate(EngineRecord, _files.read_yaml(path), path)


__all__ = ["Constant", "Constants", "EngineRecord", "Rules", "engine_names", "load_engine"]
