"""``helix-kit export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from helix_kit._summary import number, percent
from helix_kit._wording import count_text
from helix_kit.cli.output import print_json
from helix_kit.cli.shared import JsonFlag, app, check_folder

LOSS_SHOWN = 5e-5
"""A share of the flow below which nothing is said to be lost: it would be rounded to 0 %."""


@app.command("export")
def export_command(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan.json from `helix-kit plan`.")],
    to: Annotated[str, typer.Option(help="vllm, sglang, llama.cpp or ray-serve-llm.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for scripts, router and a note.")],
    model: Annotated[
        str | None, typer.Option(help="Weights for the engine: a name, a folder, or a GGUF file. Default: the plan's.")
    ] = None,
    max_loss: Annotated[
        float,
        typer.Option(help="Share of the plan's flow that may be lost; 0 refuses plans that the engine cannot express."),
    ] = 1.0,
    as_json: JsonFlag = False,
) -> None:
    """Write what another engine needs to serve a plan: launch scripts for each machine, and a router.

    Example: [bold]helix-kit export[/] plan.json --to vllm --model meta-llama/Llama-2-70b-hf -o launch
    """
    from helix_kit.export import export_plan
    from helix_kit.placement.plan import Plan

    check_folder(output=output)
    found = export_plan(Plan.load(plan_file), to, model=model, max_loss=max_loss)
    found.write(output)
    if as_json:
        print_json(found.to_dict())
        return
    replicas = found.replicas
    for index, replica in enumerate(replicas.replicas):
        stages = " -> ".join(f"{s.node}[{s.start}, {s.end})" for s in replica.stages)
        typer.echo(f"Replica {index}: {number(replica.flow_tokens_per_s)} tokens/s, {stages}")
    lost = "nothing of the plan's is lost"
    if replicas.loss > LOSS_SHOWN:
        lost = f"{percent(replicas.loss)} of the plan's is lost, since pipelines share nodes"
    flow, of_plan = number(replicas.flow_tokens_per_s), number(replicas.plan_flow_tokens_per_s)
    typer.echo(f"Flow: {flow} tokens/s (the plan: {of_plan}); {lost}")
    if replicas.unused:
        typer.echo(f"Not used: {', '.join(replicas.unused)}")
    typer.echo(f"Written to {output}: {count_text(len(found.files), 'file')}; begin with README.md")
