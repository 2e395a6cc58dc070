"""``helix-kit exam``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from helix_kit import _files
from helix_kit.cli.output import print_json
from helix_kit.cli.shared import JsonFlag, SeedOption, Status, app, check_folder
from helix_kit.errors import InputError

if TYPE_CHECKING:
    from helix_kit.experiments.exam import Examined
    from helix_kit.experiments.exam.page import Fitted
    from helix_kit.profiles.engines import EngineRecord


@app.command("exam")
def exam_command(
    runs: Annotated[
        Path | None,
        typer.Option(help="Folder of runs; by default reference/vllm_runs in the folder HELIX_KIT_SHARED."),
    ] = None,
    folder: Annotated[Path, typer.Option("-o", "--output", help="Where the predictions go.")] = Path("exam"),
    engine: Annotated[str, typer.Option(help="Engine of the catalogue, or a YAML file of one.")] = "vllm-0.15",
    fit: Annotated[
        bool,
        typer.Option(
            "--fit",
            help="Fit the engine's constants to the training runs first, and again without each model (15 minutes of a "
            "core; broken off, it goes on with the same -o); write the record and a page with errors, constants and "
            "their sensitivities.",
        ),
    ] = False,
    store: Annotated[
        bool,
        typer.Option(
            "--store", help="With --fit, in a checkout: keep the record in data/engines, and the page in docs."
        ),
    ] = False,
    seed: SeedOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Predict real runs of a serving engine from their workloads, and score those that were measured.

    Example: [bold]helix-kit exam[/] --runs runs -o exam
    """
    from helix_kit.experiments.exam import examine, medians, write_predictions
    from helix_kit.experiments.exam.page import page_of
    from helix_kit.experiments.exam.runs import SPLITS
    from helix_kit.profiles.engines import load_engine

    if runs is None:
        shared = os.environ.get("HELIX_KIT_SHARED")
        if shared is None:
            raise InputError("expected a folder with train_workloads.yaml and eval_workloads.yaml", field="--runs")
        runs = Path(shared) / "reference" / "vllm_runs"
    if store and not fit:
        raise InputError("expected only with --fit", field="--store")
    check_folder(output=folder)
    record = load_engine(engine)
    folder.mkdir(parents=True, exist_ok=True)
    fitted = None
    if fit:
        with Status("Fitting", as_json) as say:
            record, fitted = _fit(runs, engine, record, folder, seed=seed, say=say)
    with Status("Predicting", as_json) as say:
        examined = list(examine(runs, record, seed=seed, say=say))
    if fitted is not None:
        page = folder / "engine-fidelity.md"
        page.write_text(page_of(record, examined, fitted), encoding="utf-8")
        if store:
            _store(folder, record.name)
    for split in SPLITS:
        write_predictions(folder / f"predictions-{split}.csv", [e for e in examined if e.split == split])
    scored = [e for e in examined if e.errors]
    groups = {"all": scored, **{k: [e for e in scored if e.run.facts["kind"] == k] for k in ("dense", "experts")}}
    scores = {kind: {"runs": len(es), **medians([e.errors for e in es])} for kind, es in groups.items() if es}
    if as_json:
        runs_json = {e.run.name: _facts(e) for e in examined}
        print_json({"engine": engine, "median_absolute_error_percent": scores, "runs": runs_json})
        return
    for entry in examined:
        typer.echo(_line(entry))
    for kind, score in scores.items():
        said = ", ".join(f"{name} {value:.1f}" for name, value in score.items() if name != "runs")
        typer.echo(f"{kind} ({score['runs']:.0f} runs), median absolute error in %: {said}")
    typer.echo(f"-> {folder}/predictions-train.csv, {folder}/predictions-eval.csv")
    if fitted is not None:
        typer.echo(f"-> {folder}/{record.name}.yaml, {folder}/engine-fidelity.md")


def _fit(
    runs: Path, name: str, engine: EngineRecord, folder: Path, *, seed: int, say: Callable[[str], None]
) -> tuple[EngineRecord, Fitted]:
    """The engine with the constants of a fit, whose record is written to the folder, and what the page says of it."""
    from helix_kit.experiments.exam import read_measured, read_runs
    from helix_kit.experiments.exam.fit import Training, with_values
    from helix_kit.experiments.exam.left_out import KeptFits, leave_one_model_out
    from helix_kit.experiments.exam.page import Fitted, record_with
    from helix_kit.experiments.exam.sensitivity import gpu_sensitivities, sensitivities, spread_of_arrivals

    training = Training(read_runs(runs, "train"), read_measured(runs / "train.csv"), seed=seed)
    kept = KeptFits(folder / "fits.json", training, engine)
    values = kept.fit(training, engine, say=say).values
    path = _files.data_dir() / "engines" / f"{name}.yaml"
    text = _files.read_text(path if path.is_file() else name)
    (folder / f"{engine.name}.yaml").write_text(record_with(text, engine, values), encoding="utf-8")
    fitted = with_values(engine, values)
    left_out = leave_one_model_out(training, engine, kept=kept, say=say)
    return fitted, Fitted(
        left_out,
        sensitivities(training, fitted, say=say),
        gpu_sensitivities(read_runs(runs, "eval"), fitted, say=say),
        spread_of_arrivals(training, fitted, say=say),
    )


def _store(folder: Path, name: str) -> None:
    """Copy record and page to where a checkout keeps them."""
    data = _files.data_dir()
    docs = data.parent / "docs"
    if not docs.is_dir():
        raise InputError("expected a checkout, with data and docs beside the package", field="--store")
    shutil.copy(folder / f"{name}.yaml", data / "engines" / f"{name}.yaml")
    shutil.copy(folder / "engine-fidelity.md", docs / "engine-fidelity.md")


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
