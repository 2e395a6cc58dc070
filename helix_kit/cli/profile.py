"""``helix-kit profile``."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from helix_kit.cli.output import print_json, write
from helix_kit.cli.shared import JsonFlag, Status, app, check_folder, plain_console
from helix_kit.cluster import MEMORY_SHARE
from helix_kit.cluster.fields import NAME_PATTERN
from helix_kit.errors import InputError

if TYPE_CHECKING:
    from helix_kit.runtime.profile import Measurement

CLUSTER_HEAD = """\
# A cluster of two machines like the measured one. Edit the number, regions and links, and add other kinds.
# The figures under gpus are estimated from the measured times; with --profiles DIR the times themselves are used.
"""


@app.command("profile")
def profile_command(
    weights: Annotated[
        Path | None, typer.Argument(help="Hugging Face folder with safetensors. Default: SmolLM2-135M, fetched once.")
    ] = None,
    kind: Annotated[
        str, typer.Option(help="Name of this machine's kind, as nodes of a cluster name it.")
    ] = "this-machine",
    device: Annotated[str, typer.Option(help="Torch device: cpu, cuda:0, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    attention: Annotated[
        str, typer.Option(help="On GPUs: auto, triton, flashinfer, varlen or sdpa, as in serve.")
    ] = "auto",
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Time what `serve --deterministic` runs.")
    ] = False,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Layers to time together. Default: 4 on a CPU, 16 on a GPU.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads on a CPU.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each point; the median counts.")] = 9,
    steps: Annotated[
        bool,
        typer.Option(
            help="Also measure prompts with decodes in one step, long contexts, and on a GPU CUDA graphs on and off, "
            "and say how well a roofline would have predicted them."
        ),
    ] = True,
    memory_gb: Annotated[float | None, typer.Option(help="Memory for weights and KV. Default: the device's.")] = None,
    memory_share: Annotated[
        float, typer.Option(help="Share of it for weights, embeddings and KV cache; the rest is left free.")
    ] = MEMORY_SHARE,
    tensor_parallel: Annotated[
        int, typer.Option(min=1, help="GPUs that compute each layer together, from --device on; on a CPU, processes.")
    ] = 1,
    links: Annotated[
        bool, typer.Option("--links", help="Also time messages between two processes, for a cluster's `network`.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for layer_times.csv, limits.csv, steps.csv and a cluster.yaml."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure how fast this machine runs a model's layers; `plan --profiles FOLDER` reads the result.

    Example: [bold]helix-kit profile[/] MODEL_FOLDER --links -o mine
    """
    from helix_kit.runtime import demo_weights
    from helix_kit.runtime.profile import measure, write_tables
    from helix_kit.runtime.transport.link_measurement import measure_link
    from helix_kit.runtime.weights.demo import DEMO_MODEL

    check_folder(output=output)
    if not re.fullmatch(NAME_PATTERN, kind):
        expected = "expected letters a to z, digits, '.', '_' and '-', with a letter or digit first"
        raise InputError(expected, field="--kind", value=kind)
    with Status("Measuring", as_json) as say:
        result = measure(
            weights or demo_weights(say),
            kind=kind,
            device=device,
            dtype=dtype,
            attention=attention,
            deterministic=deterministic,
            layers=layers,
            threads=threads,
            repeats=repeats,
            memory_gb=memory_gb,
            memory_share=memory_share,
            steps=steps,
            tensor_parallel=tensor_parallel,
            progress=lambda what, share: say(f"{share:.0%} {what}"),
        )
        link = measure_link(progress=lambda what, share: say(f"{share:.0%} {what}")) if links else None
    section = link.network().model_dump(mode="json", include={"within_region"}) if link else None
    if output:
        write_tables([result], output)
        starter = output / "cluster.yaml"
        if starter.exists():  # by now it may be the user's own work
            typer.echo(f"{starter} was there and is left as it is; delete it to get a fresh one.", err=True)
        else:
            write(starter, CLUSTER_HEAD + result.starter_cluster(link).to_yaml())
    if as_json:
        content: dict[str, Any] = {
            "kind": result.kind,
            "model": result.model.name,
            "points": [asdict(p) for p in result.points],
        }
        content["table_points"] = [asdict(p) for p in result.table_points]
        content["steps"] = [asdict(step) for step in result.steps]
        content |= {"head_ms": result.head_ms, "max_layers": len(result.limits()), "facts": result.facts}
        if link:
            content |= {"link": asdict(link), "network": section}
        print_json(content)
        return
    table = Table(
        "Phase",
        "Tokens",
        "ms per layer",
        "10 % to 90 %",
        "with projection",
        title=f"{result.model.name} on {result.kind} ({device})",
    )
    for p, in_table in zip(result.points, result.table_points, strict=True):
        spread = f"{p.low_ms:.3f} to {p.high_ms:.3f}"
        table.add_row(p.phase, str(p.tokens), f"{p.ms_per_layer:.3f}", spread, f"{in_table.ms_per_layer:.3f}")
    plain_console().print(table)
    share_ms = result.head_ms / result.model.num_layers
    typer.echo(
        f"Output projection: {result.head_ms:.3f} ms a token, {share_ms:.3f} ms of it on each of the "
        f"{result.model.num_layers} layers in the last column, which layer_times.csv holds and plans read."
    )
    if result.steps:
        _print_steps(result)
    typer.echo(f"Loading: {result.load_s_per_layer:.3f} s a layer. Fits: {len(result.limits())} layers.")
    if link:
        (slow, mid, fast), (low, gbps, high) = link.latency_ms, link.bandwidth_gbps
        typer.echo(f"Link: {mid:.3f} ms ({slow:.3f} to {fast:.3f}), {gbps:.1f} gbps ({low:.1f} to {high:.1f})")
    if output:
        model = weights or DEMO_MODEL
        typer.echo(f"Written to {output}; use it with:")
        typer.echo(f"  helix-kit plan {output / 'cluster.yaml'} --model {model} --profiles {output} -o plan.json")


def _print_steps(result: Measurement) -> None:
    """Measured steps beside the roofline."""
    from helix_kit.runtime.profile_steps import ratio_facts

    table = Table("Prefill", "Decodes", "Context", "Graphs", "ms per layer", "Roofline", "Ratio", title="Steps")
    for s in result.steps:
        counts = (str(n) for n in (s.prefill_tokens, s.decode_requests, s.context_tokens))
        table.add_row(*counts, s.graphs, f"{s.ms_per_layer:.3f}", f"{s.roofline_ms:.3f}", f"{s.ratio:.2f}")
    plain_console().print(table)
    found = ratio_facts(result.steps)
    typer.echo(
        f"The roofline ({result.facts['roofline']}: {result.facts['roofline_gb_per_s']:g} GB/s, "
        f"{result.facts['roofline_tflops']:g} TFLOPS) predicts {found['median']:.2f} of what was measured in the "
        f"median, from {found['lowest']:.2f} to {found['highest']:.2f}."
    )
