"""Real runs of an engine: their models, GPUs, workloads and settings, without what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helix_kit import _files
from helix_kit.catalogue import Gpu, gpus
from helix_kit.errors import InputError
from helix_kit.profiles.step import Machine, ModelWork

SPLITS = ("train", "eval")
"""Runs that constants are fitted on, and runs that are only predicted."""
HARDWARE = {"H100": "H100-80G", "A100-80GB": "A100-80G", "L40S": "L40S"}
"""Names of GPUs in the runs -> in the catalogue."""
RETOKENISED = 1.045
"""Tokens of a prompt as the server counts them, divided by the tokens that the client asked for, where a run does not
tell: the client writes random tokens as text, and the server reads the text again (1.043 to 1.051 in ten runs)."""
SORTS_SAMPLES = (
    "meta-llama/Llama-2-7b-hf",
    "meta-llama/Llama-2-70b-hf",
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen3-14B",
    "RedHatAI/Llama-4-Scout-17B-16E-Instruct-FP8-dynamic",
)
"""Models whose generation_config.json sets top_p or top_k. vLLM takes these for requests that do not set their own.

Llama-2: temperature 0.6 and top_p 0.9, as in copies of the file (ltaler01/Llama-2-7b-hf on Hugging Face). Llama-3.1 and
Llama-4: the same. Qwen2.5 and Qwen3: top_p 0.8 and 0.95, top_k 20. Mistral-Nemo, Mixtral, CodeLlama and Yi set none.
Only the file of Llama-2 was looked up; the others are from memory."""
PENALISES = ("Qwen/Qwen2.5-7B-Instruct",)
"""Models whose generation_config.json sets a repetition_penalty other than 1, which vLLM takes in the same way.

Qwen2.5-Instruct: 1.05 (PrimeIntellect-ai/prime-rl, pull request 886). None of the other models sets one."""


@dataclass(frozen=True, eq=False)
class ExamRun:
    """A run to predict.

    Examples
    --------
    >>> ExamRun("a", work=None, machine=None, stages=((2.0, 10.0),), lengths=(100, 400), output_tokens=50).requests
    20
    """

    name: str
    """Of the run."""
    work: ModelWork | None
    """The model."""
    machine: Machine | None
    """The GPUs."""
    stages: tuple[tuple[float, float], ...]
    """(requests/s, s) of each stage."""
    lengths: tuple[int, int]
    """Tokens of the system prompt and of the question, as the server counts them."""
    output_tokens: int
    """Tokens of each answer."""
    rules: Mapping[str, Any] = field(default_factory=dict)
    """The engine's settings."""
    blocks: int = 0
    """Blocks of KV cache."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Model, GPU, kind, and workload, for tables."""
    client_tokens: Mapping[int, float] = field(default_factory=dict)
    """Mean length of answers as the client counts it after reading the text again, by stage (-1: the whole run), where
    the workload tells."""

    @property
    def requests(self) -> int:
        """Requests of all stages."""
        return sum(round(rate * seconds) for rate, seconds in self.stages)


def read_runs(folder: Path, split: str) -> list[ExamRun]:
    """The runs of ``<split>_workloads.yaml``.

    Parameters
    ----------
    folder
        Where the files lie.
    split
        ``train`` or ``eval``.

    Returns
    -------
    list of ExamRun
        In file order.

    Raises
    ------
    InputError
        There is no such file, or a field of it is missing.

    Examples
    --------
    >>> read_runs(Path("runs"), "train")    # doctest: +SKIP
    """
    path = folder / f"{split}_workloads.yaml"
    data = _files.read_yaml(path)
    try:
        return [_run_of(run, data["models"]) for run in data["runs"]]
    except KeyError as error:
        raise InputError("missing field", where=path, field=str(error.args[0])) from None


def _run_of(run: Mapping[str, Any], models: Mapping[str, Any]) -> ExamRun:
    load, sizes = run["workload"], models[run["model"]]
    nominal = load["system_prompt_len"] + load["question_len"]
    real = load.get("input_len_client_mean") or RETOKENISED * nominal
    lengths = tuple(round(load[key] * real / nominal) for key in ("system_prompt_len", "question_len"))
    rules = {name: run[name] for name in ("max_num_seqs", "max_num_batched_tokens", "max_model_len")}
    facts = {
        "model": run["model"],
        "gpu": f"{run['tp']} x {run['hardware']}",
        "kind": "experts" if sizes["moe"] else "dense",
        "workload": run["workload_name"],
    }
    return ExamRun(
        name=run["id"],
        work=work_of(run["model"], sizes),
        machine=Machine(_gpu(run["hardware"]), run["tp"]),
        stages=tuple((stage["rate"], stage["duration"]) for stage in load["stages"]),
        lengths=(lengths[0], lengths[1]),
        output_tokens=load["output_len"],
        rules=rules,
        blocks=run["total_kv_blocks"] - 1,  # vLLM keeps one block for itself.
        facts=facts,
        client_tokens=load.get("output_len_client_mean") or {},
    )


def _gpu(name: str) -> Gpu:
    if name not in HARDWARE:
        raise InputError(_files.unknown("GPU of the runs", name, list(HARDWARE)), field="hardware")
    return gpus()[HARDWARE[name]]


def work_of(name: str, sizes: Mapping[str, Any]) -> ModelWork:
    """What a step does for a model of the runs' table.

    Parameters
    ----------
    name
        As on Hugging Face.
    sizes
        layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, quantisation and moe.

    Returns
    -------
    ModelWork
        With gated MLPs; quantised models have experts in 8 bits and the rest in 16.

    Examples
    --------
    >>> sizes = dict(layers=2, hidden=64, heads=4, kv_heads=4, head_dim=16, intermediate=128, vocab=100, moe=None,
    ...              quantisation=None)
    >>> work_of("tiny", sizes).dense_params
    81920
    """
    layers, hidden = sizes["layers"], sizes["hidden"]
    attention = 2 * hidden * sizes["head_dim"] * (sizes["heads"] + sizes["kv_heads"])
    moe, is_fp8 = sizes["moe"], bool(sizes["quantisation"])
    expert_bytes_each = 1 if is_fp8 else 2
    routed = 3 * hidden * moe["expert_intermediate"] if moe else 0
    shared = 3 * hidden * moe.get("shared_intermediate", 0) * moe["shared_experts"] if moe else 0
    router = hidden * moe["experts"] if moe else 0
    mlp = 0 if moe else 3 * hidden * sizes["intermediate"]
    return ModelWork(
        layers=layers,
        hidden=hidden,
        heads=sizes["heads"],
        kv_heads=sizes["kv_heads"],
        head_dim=sizes["head_dim"],
        vocab=sizes["vocab"],
        dense_bytes=layers * (2 * (attention + mlp + router) + expert_bytes_each * shared),
        dense_params=layers * (attention + mlp + shared),
        head_bytes=2 * sizes["vocab"] * hidden,
        experts=moe["experts"] if moe else 0,
        active_experts=moe["active"] if moe else 0,
        expert_bytes=layers * routed * expert_bytes_each,
        expert_params=layers * routed,
        is_fp8=is_fp8,
        sorts_samples=name in SORTS_SAMPLES,
        penalises=name in PENALISES,
    )


__all__ = ["ExamRun", "read_runs", "work_of"]
