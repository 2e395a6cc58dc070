"""The examination of the engine model: real runs of vLLM, predicted from their workloads and settings alone.

A folder of runs holds ``train_workloads.yaml`` and ``eval_workloads.yaml``: models, GPUs, rates, lengths and the
engine's settings. ``train.csv`` holds what was measured (run, stage, metric, value in ms; stage -1 is the whole run).
The runs are not part of this package. `predict` simulates one, `examine` all of them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from helix_kit import _files
from helix_kit.catalogue import Gpu, gpus
from helix_kit.errors import InputError
from helix_kit.profiles.engines import Engine, load_engine
from helix_kit.profiles.step import Machine, ModelWork, step_costs
from helix_kit.simulator.replicas.replica import Queue, Replica, StageOfReplica
from helix_kit.workload.request import Request

ENGINE = "vllm-0.15"
SPLITS = ("train", "eval")
HARDWARE = {"H100": "H100-80G", "A100-80GB": "A100-80G", "L40S": "L40S"}
"""Names of GPUs in the runs -> in the catalogue."""
RETOKENISED = 1.045
"""Tokens of a prompt as the server counts them, divided by the tokens that the client asked for, where a run does not
tell: the client writes random tokens as text, and the server reads the text again (1.043 to 1.051 in ten runs)."""
PAUSE_S = 2.5
"""Between the end of a stage's last request and the next stage."""
SORTS_SAMPLES = (
    "meta-llama/Llama-2-7b-hf",
    "meta-llama/Llama-2-70b-hf",
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen3-14B",
    "RedHatAI/Llama-4-Scout-17B-16E-Instruct-FP8-dynamic",
)
"""Models whose generation_config.json sets top_p or top_k. vLLM takes these for requests that do not set their own."""
METRICS = ("e2e_mean", "ttft_mean", "tpot_server_mean", "e2e_p90", "e2e_p99", "ttft_p90", "ttft_p99")
Figures = dict[tuple[int, str], float]
"""(stage, metric) -> ms."""


@dataclass(frozen=True)
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
    )


class Prediction(NamedTuple):
    """What a run should measure.

    Examples
    --------
    >>> Prediction({(-1, "e2e_mean"): 100.0}, hit_rate=0.9, busy=(0.5,)).figures[-1, "e2e_mean"]
    100.0
    """

    figures: Figures
    """ms by stage (-1: the whole run) and metric."""
    hit_rate: float
    """Share of prompt tokens found in the prefix cache."""
    busy: tuple[float, ...]
    """Share of each stage's time in which the GPUs compute."""


def predict(run: ExamRun, engine: Engine, *, seed: int = 0) -> Prediction:
    """Simulate a run.

    Ten groups of ten fixed prompts share a system prompt each and come round robin, in each stage from the first on;
    arrivals are Poisson, with as many requests as rate x duration.

    Parameters
    ----------
    run
        Workload and settings.
    engine
        Its constants, and the rules that the run does not set.
    seed
        Of arrivals and of the order of prompts.

    Returns
    -------
    Prediction
        Each stage and the whole run.

    Examples
    --------
    >>> predict(read_runs(Path("runs"), "train")[0], load_engine("vllm-0.15")).hit_rate    # doctest: +SKIP
    0.964
    """
    assert run.work is not None and run.machine is not None
    engine = engine.with_rules(**run.rules)
    rng = np.random.default_rng(seed)
    order = rng.permutation(100)
    requests: list[Request] = []
    for rate, seconds in run.stages:
        gaps = rng.exponential(size=round(rate * seconds) + 1)
        arrivals = gaps.cumsum()[:-1] / gaps.sum() * seconds
        for i, arrival_s in enumerate(arrivals.tolist()):
            prompt = int(order[i % 100])
            prefix = ((prompt % 10, run.lengths[0]), (10 + prompt, run.lengths[1]))
            requests.append(Request(len(requests), arrival_s, sum(run.lengths), run.output_tokens, prefix=prefix))
    queue = Queue.of(requests, engine)
    receive_s = queue.records["arrival"] - [r.arrival_s for r in requests]
    replica = Replica(engine, [StageOfReplica(step_costs(engine, run.work, run.machine))], run.blocks, queue)
    replica.measure((0.0, np.inf), record_batches=False)
    spans, busy, start_s, at = [], [], 0.0, 0
    for rate, seconds in run.stages:
        last = at + round(rate * seconds)
        queue.records["arrival"][at:last] += start_s
        before_s = float(replica.state.stages[0]["busy"])
        replica.send(at, last)
        replica.advance(np.inf)
        end_s = float(queue.records["finished"][at:last].max())
        busy.append((float(replica.state.stages[0]["busy"]) - before_s) / (end_s - start_s))
        spans.append(slice(at, last))
        start_s, at = end_s + PAUSE_S, last
    requested_s = queue.records["arrival"] - receive_s
    owners, times = replica.tokens
    first_s = np.full(len(requests), np.nan)
    first_s[owners[::-1]] = times[::-1]  # Times rise, so the first token is what is written last.
    e2e_ms, ttft_ms = 1e3 * (queue.records["finished"] - requested_s), 1e3 * (first_s - requested_s)
    figures: Figures = {}
    for stage, span in zip(range(-1, len(spans)), [slice(None), *spans], strict=True):
        for metric, value in _figures_of(e2e_ms[span], ttft_ms[span], run.output_tokens).items():
            figures[stage, metric] = value
    hit_rate = float(replica.record["hit_tokens"]) / float(replica.record["asked_tokens"])
    return Prediction(figures, hit_rate, tuple(busy))


def _figures_of(e2e_ms: np.ndarray, ttft_ms: np.ndarray, output_tokens: int) -> dict[str, float]:
    figures = {"e2e_mean": e2e_ms.mean(), "ttft_mean": ttft_ms.mean()}
    figures["tpot_server_mean"] = (e2e_ms.mean() - ttft_ms.mean()) / (output_tokens - 1)
    for name, values in (("e2e", e2e_ms), ("ttft", ttft_ms)):
        figures |= {f"{name}_p{q}": np.percentile(values, q) for q in (90, 99)}
    return {metric: float(figures[metric]) for metric in METRICS}


def read_measured(path: Path) -> dict[str, Figures]:
    """What was measured, by run.

    Parameters
    ----------
    path
        A CSV file with the columns run, stage, metric and value.

    Returns
    -------
    dict of str to Figures
        Empty where there is no such file.

    Examples
    --------
    >>> read_measured(Path("no such file"))
    {}
    """
    measured: dict[str, Figures] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                measured.setdefault(row["run"], {})[int(row["stage"]), row["metric"]] = float(row["value"])
    return measured


def errors_of(predicted: Figures, measured: Figures, stage: int = -1) -> dict[str, float]:
    """Errors of a run in per cent of what was measured.

    Parameters
    ----------
    predicted, measured
        Figures by stage and metric. A measured `itl_mean` is compared with our `tpot_server_mean`: it divides by the
        length of the answer as the client counts it, which a simulator cannot know.
    stage
        -1: the whole run.

    Returns
    -------
    dict of str to float
        By metric; positive where too much was predicted.

    Examples
    --------
    >>> errors_of({(-1, "e2e_mean"): 110.0}, {(-1, "e2e_mean"): 100.0})
    {'e2e_mean': 10.0}
    """
    given = {metric: value for (at, metric), value in predicted.items() if at == stage}
    if "tpot_server_mean" in given:
        given["itl_mean"] = given["tpot_server_mean"]
    real = {metric: value for (at, metric), value in measured.items() if at == stage}
    if "tpot_server_mean" in real:
        real.setdefault("itl_mean", real["tpot_server_mean"])
    both = [metric for metric in given if real.get(metric)]
    return {metric: round(100 * (given[metric] / real[metric] - 1), 6) for metric in both}


def medians(errors: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median absolute error of each metric.

    Parameters
    ----------
    errors
        Of each run, as `errors_of` returns them.

    Returns
    -------
    dict of str to float
        By metric, over the runs that have it.

    Examples
    --------
    >>> medians([{"e2e_mean": -3.0}, {"e2e_mean": 1.0}, {"e2e_mean": 2.0}])
    {'e2e_mean': 2.0}
    """
    metrics = dict.fromkeys(metric for run in errors for metric in run)
    return {m: round(float(np.median([abs(run[m]) for run in errors if m in run])), 3) for m in metrics}


class Examined(NamedTuple):
    """A run that has been predicted.

    Examples
    --------
    >>> Examined("train", run, prediction, {"e2e_mean": 1.5})    # doctest: +SKIP
    """

    split: str
    """``train`` or ``eval``."""
    run: ExamRun
    """Its workload and settings."""
    prediction: Prediction
    """What it should measure."""
    errors: dict[str, float]
    """Of the whole run, in per cent; empty where nothing was measured."""


def examine(
    folder: Path, engine: Engine | str = ENGINE, *, seed: int = 0, say: Callable[[str], None] = lambda _: None
) -> Iterator[Examined]:
    """Predict all runs of a folder.

    Parameters
    ----------
    folder
        With the files that the module's first lines name.
    engine
        The engine that ran.
    seed
        Of all runs.
    say
        Gets the name of each run as it starts.

    Yields
    ------
    Examined
        One after another.

    Examples
    --------
    >>> list(examine(Path("runs")))    # doctest: +SKIP
    """
    record = load_engine(engine) if isinstance(engine, str) else engine
    for split in SPLITS:
        measured = read_measured(folder / f"{split}.csv")
        for run in read_runs(folder, split):
            say(run.name)
            prediction = predict(run, record, seed=seed)
            yield Examined(split, run, prediction, errors_of(prediction.figures, measured.get(run.name, {})))


def write_predictions(path: Path, examined: Sequence[Examined]) -> None:
    """Write predictions as a CSV file: run, stage, metric, value in ms.

    Parameters
    ----------
    path
        The file.
    examined
        Runs that have been predicted.

    Examples
    --------
    >>> write_predictions(Path("predictions.csv"), [])    # doctest: +SKIP
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("run", "stage", "metric", "value"))
        for entry in examined:
            for (stage, metric), value in entry.prediction.figures.items():
                writer.writerow((entry.run.name, stage, metric, f"{value:.4f}"))


__all__ = [
    "ExamRun",
    "Examined",
    "Prediction",
    "errors_of",
    "examine",
    "medians",
    "predict",
    "read_measured",
    "read_runs",
    "work_of",
    "write_predictions",
]
