"""``helix-kit serve``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from helix_kit.cli.shared import JsonFlag, SeedOption, Status, app, print_run, stderr
from helix_kit.errors import InputError


@app.command("serve")
def serve_command(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan.json from `helix-kit plan`.")],
    weights: Annotated[
        Path | None, typer.Option(help="Hugging Face folder with safetensors. Default: SmolLM2-135M, fetched once.")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="Prompt to answer; may be repeated. Default: stdin.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to generate per prompt.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.0,
    policy: Annotated[str, typer.Option(help="Request scheduling policy.")] = "helix",
    launcher: Annotated[str, typer.Option(help="How workers start: process or inproc.")] = "process",
    seed: SeedOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Serve a model for real on one worker per node of the plan, and answer prompts."""
    from helix_kit.placement.plan import Plan
    from helix_kit.runtime import serve

    plan = Plan.load(plan_file)
    prompts = prompt or [line.strip() for line in sys.stdin if line.strip()]
    if not prompts:
        raise InputError("expected at least one --prompt, or prompts on standard input, one a line")
    with Status(f"Starting {len(plan.placement)} workers", as_json) as say:
        engine = serve(plan, weights=weights, policy=policy, launcher=launcher, seed=seed, progress=say)
    with engine:
        answers = engine.generate(prompts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        summary = engine.run().summary()
    if as_json:
        typer.echo(json.dumps({"completions": [a.to_dict() for a in answers], "summary": summary}))
        return
    for question, answer in zip(prompts, answers, strict=True):
        stages = " -> ".join(f"{s.node}[{s.start},{s.end})" for s in answer.pipeline)
        typer.echo(f"> {question}\n{answer.text.strip()}")
        stderr.print(f"[dim]{stages}[/]\n")
    print_run(summary, f"{plan.cluster.name}, {plan.model.name}: served")
