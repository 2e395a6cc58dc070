"""The runtime against the simulator: the same plan and the same requests, served by real workers and simulated.

SmolLM2-135M runs on the `laptop` preset: four worker processes compute for real and are slowed down to the speed of
their profile. On a busy machine their steps end late; the share of late steps is kept with the measurements.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from helix_kit.experiments.figures.common.metrics import latencies_of
from helix_kit.experiments.figures.common.rows import COLUMNS, Case, metric_rows
from helix_kit.experiments.figures.pictures.closed_loop import draw_closed_loop
from helix_kit.experiments.machinery.registry import Context, NotAvailableError, experiment

if TYPE_CHECKING:
    from helix_kit.placement.plan import Plan
    from helix_kit.report import Run
    from helix_kit.workload import Workload

CLUSTER, MODEL = "laptop", "SmolLM2-135M"
RATES, FAST_RATES = (0.3, 0.6, 0.9), (0.9,)
"""Requests/s; at about 1.2 the four workers are saturated."""
DURATION_S, FAST_DURATION_S = 40.0, 10.0
INPUT_TOKENS, OUTPUT_TOKENS = 64, 32
SIMULATED = "simulated"


def output_tokens_per_s(run: Run) -> float:
    """All tokens over the time of the last token: the same window for a simulated and a real run."""
    return len(run.tokens.time_s) / float(run.tokens.time_s.max())


def simulate_to_the_end(plan: Plan, workload: Workload) -> Run:
    """The simulated run, until the last request is finished."""
    from helix_kit.simulator import whole_run

    return whole_run(plan, workload, warmup_s=0.0, duration_s=10 * (workload.duration_s + 60))


def metrics_to_the_end(run: Run) -> dict[str, float]:
    """Output tokens/s, and latencies in s under the names of the evaluation."""
    return {"output_tokens_per_s": output_tokens_per_s(run), **latencies_of(run)}


@experiment(
    "runtime-and-simulation",
    title="Real workers on this machine beside the simulation",
    paper="Beyond the paper",
    draw=draw_closed_loop,
    minutes=3.0,
    measures=("mode", "metric", "value"),
    text="SmolLM2-135M on four worker processes, slowed down to three speeds: the same requests at the same times, "
    "simulated and served for real. Output tokens/s, prompt and decode latency (boxes: 5, 25, 50, 75 and 95 %) by "
    "requests/s. Each worker's steps are padded to its profile, and the simulation reads the same table of step times: "
    "the comparison tests queues, batches, messages and code, not the speeds in the table. The machine that drew the "
    "picture measured the real values; they have a table of their own.",
)
def closed_loop(context: Context) -> pd.DataFrame:
    """Simulated metrics by rate. The real ones are measured, together with the share of steps that ended late."""
    import helix_kit as hk

    weights = _weights()
    plan = hk.plan(
        hk.Cluster.preset(CLUSTER), hk.Model.preset(MODEL), time_limit_s=20, deterministic=True, seed=context.seed
    )
    duration_s = FAST_DURATION_S if context.fast else DURATION_S
    workloads = {
        f"{rate:g} requests/s": hk.Workload.poisson(
            rate, duration_s, input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS, seed=context.seed
        )
        for rate in (FAST_RATES if context.fast else RATES)
    }
    rows: list[dict[str, Any]] = []
    with hk.serve(plan, weights) as engine:
        for load, workload in workloads.items():
            simulated = metrics_to_the_end(simulate_to_the_end(plan, workload))
            rows += metric_rows(Case("beyond", CLUSTER, MODEL, load), plan.method, {SIMULATED: simulated})
            context.say(f"serving {len(workload)} requests, {load}")
            real = engine.replay(workload)
            late = {"late_steps_share": real.facts["overrun_share"], "steps": real.facts["steps"]}
            context.measured[load] = {**metrics_to_the_end(real), **late}
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _weights() -> Path:
    from helix_kit.runtime.weights.demo import WeightsUnavailableError, demo_weights

    try:
        import torch  # noqa: F401

        return demo_weights(progress=None)
    except (ImportError, WeightsUnavailableError) as error:
        raise NotAvailableError(f"real workers need torch and the weights of {MODEL}: {error}") from error
