"""A run, simulated."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from helix_kit.experiments.exam.runs import ExamRun
from helix_kit.profiles.engines import EngineRecord
from helix_kit.profiles.step import step_costs
from helix_kit.simulator.replicas.replica import Queue, Replica, StageOfReplica
from helix_kit.workload.request import Request

PROMPTS, GROUPS = 100, 10
"""Different prompts, and groups of them with a system prompt of their own: the client's defaults."""
PAUSE_S = 2.5
"""Between the end of a stage's last request and the next stage."""
METRICS = ("e2e_mean", "ttft_mean", "tpot_server_mean", "itl_mean", "e2e_p90", "e2e_p99", "ttft_p90", "ttft_p99")
Figures = dict[tuple[int, str], float]
"""(stage, metric) -> ms."""


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


def predict(run: ExamRun, engine: EngineRecord, *, seed: int = 0) -> Prediction:
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
    queue = _queue_of(run, engine.rules.block_tokens, seed)
    records = queue.records.copy()
    queue = Queue(records, queue.keys)
    receive_s = engine.receive_s
    records["arrival"] += receive_s
    replica = Replica(
        engine,
        [StageOfReplica(step_costs(engine, run.work, run.machine))],
        run.blocks,
        queue,
        tokens=run.requests * run.output_tokens,
    )
    replica.measure((0.0, np.inf), record_batches=False)
    spans, busy, start_s, at = [], [], 0.0, 0
    for rate, seconds in run.stages:
        last = at + round(rate * seconds)
        records["arrival"][at:last] += start_s
        before_s = float(replica.state.stages[0]["busy"])
        replica.send(at, last)
        replica.advance(np.inf)
        end_s = float(records["finished"][at:last].max())
        busy.append((float(replica.state.stages[0]["busy"]) - before_s) / (end_s - start_s))
        spans.append(slice(at, last))
        start_s, at = end_s + PAUSE_S, last
    requested_s = records["arrival"] - receive_s
    owners, times = replica.tokens
    first_s = np.full(run.requests, np.nan)
    first_s[owners[::-1]] = times[::-1]  # Times rise, so the first token is what is written last.
    e2e_ms, ttft_ms = 1e3 * (records["finished"] - requested_s), 1e3 * (first_s - requested_s)
    figures: Figures = {}
    for stage, span in zip(range(-1, len(spans)), [slice(None), *spans], strict=True):
        found = _figures_of(e2e_ms[span], ttft_ms[span], run.output_tokens)
        client_tokens = run.client_tokens.get(stage, float(run.output_tokens))
        found["itl_mean"] = (found["e2e_mean"] - found["ttft_mean"]) / (client_tokens - 1)
        figures |= {(stage, metric): found[metric] for metric in METRICS}
    hit_rate = float(replica.record["hit_tokens"]) / float(replica.record["asked_tokens"])
    return Prediction(figures, hit_rate, tuple(busy))


@lru_cache(maxsize=64)
def _queue_of(run: ExamRun, block_tokens: int, seed: int) -> Queue:
    """The requests of all stages, each stage from 0 s on. Kept, because a fit simulates each run many times."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(PROMPTS)
    requests: list[Request] = []
    for rate, seconds in run.stages:
        gaps = rng.exponential(size=round(rate * seconds) + 1)
        arrivals = gaps.cumsum()[:-1] / gaps.sum() * seconds
        for i, arrival_s in enumerate(arrivals.tolist()):
            prompt = int(order[i % PROMPTS])
            prefix = ((prompt % GROUPS, run.lengths[0]), (GROUPS + prompt, run.lengths[1]))
            requests.append(Request(len(requests), arrival_s, sum(run.lengths), run.output_tokens, prefix=prefix))
    return Queue.of(requests, block_tokens)


def _figures_of(e2e_ms: np.ndarray, ttft_ms: np.ndarray, output_tokens: int) -> dict[str, float]:
    figures = {"e2e_mean": e2e_ms.mean(), "ttft_mean": ttft_ms.mean()}
    figures["tpot_server_mean"] = (e2e_ms.mean() - ttft_ms.mean()) / (output_tokens - 1)
    for name, values in (("e2e", e2e_ms), ("ttft", ttft_ms)):
        figures |= {f"{name}_p{q}": np.percentile(values, q) for q in (90, 99)}
    return {metric: float(value) for metric, value in figures.items()}


__all__ = ["Figures", "Prediction", "predict"]
