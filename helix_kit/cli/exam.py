"""``helix-kit exam``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from helix_kit.cli.shared import JsonFlag, SeedOption, Status, app
from helix_kit.errors import InputError

if TYPE_CHECKING:
    from helix_kit.experiments.exam import Examined


@app.command("exam")
def exam_command(
    runs: Annotated[
        Path | None,
        typer.Option(help="Folder of runs; by default reference/vllm_runs in the folder HELIX_KIT_SHARED."),
    ] = None,
    folder: Annotated[Path, typer.Option("-o", "--output", help="Where the predictions go.")] = Path("exam"),
    engine: Annotated[str, typer.Option(help="Engine of the catalogue, or a YAML file of one.")] = "vllm-0.15",
    seed: SeedOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Predict real runs of a serving engine from their workloads, and score those that were measured.

    Example: [bold]helix-kit exam[/] --runs runs -o exam
    """
    from helix_kit.experiments.exam import SPLITS, examine, medians, write_predictions

    if runs is None:
        shared = os.environ.get("HELIX_KIT_SHARED")
        if shared is None:
            raise InputError("expected a folder with train_workloads.yaml and eval_workloads.yaml", field="--runs")
        runs = Path(shared) / "reference" / "vllm_runs"
    with Status("Predicting", as_json) as say:
        examined = list(examine(runs, engine, seed=seed, say=say))
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        write_predictions(folder / f"predictions-{split}.csv", [e for e in examined if e.split == split])
    scored = [e for e in examined if e.errors]
    groups = {"all": scored, **{k: [e for e in scored if e.run.facts["kind"] == k] for k in ("dense", "experts")}}
    scores = {kind: {"runs": len(es), **medians([e.errors for e in es])} for kind, es in groups.items() if es}
    if as_json:
        runs_json = {e.run.name: _facts(e) for e in examined}
        typer.echo(json.dumps({"engine": engine, "median_absolute_error_percent": scores, "runs": runs_json}))
        return
    for entry in examined:
        typer.echo(_line(entry))
    for kind, score in scores.items():
        said = ", ".join(f"{name} {value:.1f}" for name, value in score.items() if name != "runs")
        typer.echo(f"{kind} ({score['runs']:.0f} runs), median absolute error in %: {said}")
    typer.echo(f"-> {folder}/predictions-train.csv, {folder}/predictions-eval.csv")


def _facts(entry: Examined) -> dict[str, object]:
    figures = {metric: round(v, 3) for (stage, metric), v in entry.prediction.figures.items() if stage == -1}
    return {
        "split": entry.split,
        **entry.run.facts,
        "predicted_ms": figures,
        "error_percent": entry.errors,
        "prefix_hit_rate": round(entry.prediction.hit_rate, 4),
        "busy": [round(share, 4) for share in entry.prediction.busy],
    }


def _line(entry: Examined) -> str:
    figures = entry.prediction.figures
    said = [
        f"{label} {figures[-1, metric]:,.1f} ms"
        + (f" ({entry.errors[metric]:+.1f} %)" if metric in entry.errors else "")
        for label, metric in (("E2E", "e2e_mean"), ("TTFT", "ttft_mean"), ("TPOT", "tpot_server_mean"))
    ]
    return f"{entry.run.name}: {', '.join(said)}"
