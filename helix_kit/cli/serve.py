"""``helix-kit serve``."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from helix_kit._wording import count_text
from helix_kit.cli.command import stop_on_interrupt
from helix_kit.cli.output import print_json
from helix_kit.cli.shared import (
    GoodputOption,
    JsonFlag,
    PolicyOption,
    SeedOption,
    Status,
    app,
    check_writable,
    print_run,
    slo_of,
    stderr,
)
from helix_kit.errors import HelixKitError, InputError

if TYPE_CHECKING:
    from helix_kit.metrics import SLO
    from helix_kit.report import Run
    from helix_kit.runtime import Completion, Engine, Handle
    from helix_kit.workload import Workload


@app.command("serve")
def serve_command(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan.json from `helix-kit plan`.")],
    weights: Annotated[
        str | None,
        typer.Option(
            help="Hugging Face folder with safetensors, or a model's id on the hub (workers fetch their layers). "
            "Default: the model on a hub that the plan is for, or SmolLM2-135M, fetched once."
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Prompt to answer; may be repeated. Default: standard input, one a line.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate per prompt.")] = 64,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token each time.")] = 0.0,
    policy: PolicyOption = "helix",
    launcher: Annotated[
        str, typer.Option(help="Where workers run: process (this machine) or ray (several machines).")
    ] = "process",
    dtype: Annotated[
        str,
        typer.Option(
            help="Of weights, activations and KV cache, as vLLM's --dtype: float32, bfloat16 or float16. On GPUs "
            "bfloat16 (Ampere and newer) and float16 (all) are several times as fast, and take half the memory."
        ),
    ] = "float32",
    quantize: Annotated[
        str | None,
        typer.Option(
            help="Round weights when they are loaded, and keep them so: int4 or int8. Default: as the plan says."
        ),
    ] = None,
    attention: Annotated[
        str,
        typer.Option(
            help="Attention kernels on GPUs, as vLLM's --attention-backend. triton: ours, over the paged KV cache, all "
            "steps in CUDA graphs. flashinfer: an extra, over pages, decodes in CUDA graphs. varlen: torch's "
            "FlashAttention, over pages, where it takes those of 16 tokens (FlashAttention 3). sdpa: torch's own, over "
            "copies of the pages, anywhere. auto: the first of these that GPU, dtype and model allow. What was taken "
            "is printed, and why."
        ),
    ] = "auto",
    graphs: Annotated[
        bool,
        typer.Option(
            help="Capture the steps of a GPU as CUDA graphs when its worker starts (about 10 s), one for each batch "
            "size, as vLLM's --cudagraph-capture-sizes. --no-graphs runs them eagerly, as vLLM's --enforce-eager does: "
            "a quicker start and slower steps, for debugging."
        ),
    ] = True,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="A request gets the same bits on a GPU whatever else is served beside it, as with vLLM's "
            "VLLM_BATCH_INVARIANT. Needs triton or varlen. Each run then has 256 rows: small batches are slower.",
        ),
    ] = False,
    devices: Annotated[
        str,
        typer.Option(help="GPUs: those that the plan names (plan), any of this machine (any), or none (cpu)."),
    ] = "plan",
    http: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="Serve OpenAI's HTTP API until Ctrl-C or SIGTERM."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address of the HTTP API; the default is this machine alone.")
    ] = "127.0.0.1",
    api_key: Annotated[
        str | None, typer.Option(envvar="HELIX_KIT_API_KEY", help="Key that HTTP clients must send.")
    ] = None,
    max_context_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens of prompt and answer together, as vLLM's --max-model-len. Default, and the most: what the "
            "model's config.json says, with its rope_scaling.",
        ),
    ] = None,
    start_limit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Time that a worker has to load its layers. Default: 180; with flashinfer 900."
        ),
    ] = None,
    silence_limit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="A worker that sends no sign of life for this long is given up. Default: 10. If its process is seen "
            "to run (a busy machine), three times as long; if it is stopped, 2.5 s.",
        ),
    ] = None,
    max_queue: Annotated[
        int | None,
        typer.Option(min=1, help="Requests that may wait; more are refused (429 over HTTP). Default: any number."),
    ] = None,
    memory_share: Annotated[
        float | None,
        typer.Option(
            help="Share of each GPU's memory for weights and KV cache together, as vLLM's --gpu-memory-utilization: "
            "what the weights leave of it are KV pages. Workers on one GPU divide it. Default: the plan's cluster's, "
            "usually 0.9."
        ),
    ] = None,
    kv_pages: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most KV pages of each worker (16 tokens of one layer each). Default: as many as the plan has, if "
            "they fit.",
        ),
    ] = None,
    prefix_cache: Annotated[
        bool,
        typer.Option(
            help="Keep the KV cache of prompts and answers for requests that begin alike, as vLLM's "
            "--enable-prefix-caching. --no-prefix-cache computes every prompt whole."
        ),
    ] = True,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="WORKLOAD",
            help="Serve a workload at its arrival times, with random prompts, and report as `simulate` does: a trace "
            "file, azure-conversation, azure-code, poisson or constant.",
        ),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests/s of --replay. Default: as simulate.")] = None,
    duration: Annotated[float, typer.Option(help="Seconds of arrivals of --replay; a trace has its own.")] = 60.0,
    max_input_tokens: Annotated[
        int | None, typer.Option(min=1, help="Prompts of --replay that are longer are cut to this many tokens.")
    ] = None,
    max_output_tokens: Annotated[
        int | None, typer.Option(min=1, help="Answers of --replay that are longer are cut to this many tokens.")
    ] = None,
    records: Annotated[Path | None, typer.Option(help="Write one row per request of --replay to this CSV.")] = None,
    goodput: GoodputOption = None,
    seed: SeedOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Serve a model for real, one worker per node of the plan: answer prompts, replay a workload, or stay up as an
    HTTP API.

    Example: [bold]helix-kit serve[/] laptop.json --replay poisson --rate 0.5 --goodput ttft:2 tpot:0.2
    """
    from helix_kit.placement.plan import Plan
    from helix_kit.report import Run
    from helix_kit.runtime import Timeouts, demo_weights, serve
    from helix_kit.runtime.interrupts import sigterm_interrupts
    from helix_kit.runtime.weights.demo import DEMO_MODEL
    from helix_kit.workload import make_workload

    plan, slo = Plan.load(plan_file), slo_of(goodput)
    if sum(given is not None for given in (http, prompt or None, replay)) > 1:
        raise InputError("expected one of --http, --prompt and --replay")
    check_writable(records=records)
    alone = http is not None or replay is not None
    prompts = [] if alone else prompt or [line.strip() for line in sys.stdin if line.strip()]
    workload = None
    if replay is not None:
        whole = make_workload(replay, plan, rate_per_s=rate, duration_s=duration, seed=seed)
        workload = whole.shortened(max_input_tokens, max_output_tokens)
    timeouts = Timeouts.given(start_s=start_limit, silence_s=silence_limit, attention=attention)
    if not alone and not prompts:
        raise InputError("expected at least one --prompt, prompts on standard input (one a line), or --http PORT")
    with sigterm_interrupts(), Status("Serving", as_json) as say:
        if weights is None and plan.model.name == DEMO_MODEL:
            weights = str(demo_weights(say))
        say(f"starting {count_text(len(plan.placement), 'worker')}")
        started = serve(
            plan, weights=weights, policy=policy, launcher=launcher, dtype=dtype, quantize=quantize, devices=devices,
            attention=attention, graphs=graphs, deterministic=deterministic, max_queue=max_queue,
            memory_share=memory_share, kv_pages=kv_pages, seed=seed, max_context_tokens=max_context_tokens,
            timeouts=timeouts, prefix_cache=prefix_cache, progress=say,
        )  # fmt: skip
        with started as engine:
            _print_workers(engine)
            if http is not None:
                from helix_kit.runtime.api import run_server

                typer.echo(f"Serving {plan.model.name} at http://{host}:{http}/v1 (Ctrl-C ends it)", err=True)
                run_server(engine, host=host, port=http, api_key=api_key)
                return
            if workload is not None:
                most_tokens = engine.max_request_tokens()
                with stop_on_interrupt() as stop:
                    served = engine.replay(
                        workload, progress=lambda done, of: say(f"{done} of {of} requests"), stop=stop
                    )
                _print_replay(served, slo, records, as_json, [*workload.notes, *_too_large(workload, most_tokens)])
                if stop.is_set():
                    typer.echo("helix-kit: stopped; this is what was served until then", err=True)
                    raise typer.Exit(130)
                if any(record.outcome == "failed" for record in served.records):
                    raise typer.Exit(1)
                return
            say(f"answering {len(prompts)} prompts")
            options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
            handles = [engine.submit(text, **options) for text in prompts]
            outcomes = [_outcome(handle) for handle in handles]
            records_of = [handle.record for handle in handles]
    answers = [outcome for outcome in outcomes if not isinstance(outcome, HelixKitError)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, HelixKitError)]
    if not answers:
        raise failures[0]
    run = Run(records_of)
    summary = {**run.summary(slo), "decode_tokens_per_s": _decode_tokens_per_s(run)}
    if as_json:
        completions = [_as_json(text, outcome) for text, outcome in zip(prompts, outcomes, strict=True)]
        print_json({"completions": completions, "summary": summary})
    else:
        for text, outcome in zip(prompts, outcomes, strict=True):
            _print_answer(text, outcome)
        print_run(summary, f"{plan.cluster.name}, {plan.model.name}: served")
        tokens = sum(len(answer.token_ids) for answer in answers)
        generated = f"{count_text(tokens, 'token')} for {count_text(len(answers), 'prompt')}"
        typer.echo(
            f"Generated: {generated} in {run.window_s:.2f} s, "
            f"{summary['output_tokens_per_s']:,.1f} tokens/s with the time until the first token"
        )
    if failures:
        typer.echo(f"helix-kit: {len(failures)} of {len(outcomes)} prompts failed", err=True)
        raise typer.Exit(failures[0].exit_code)


def _print_workers(engine: Engine) -> None:
    """Say how the workers compute their layers, and name those whose layers several processes compute together."""
    workers, alike = engine.status().workers, dict[str, list[str]]()
    for name, worker in workers.items():
        alike.setdefault(worker.description, []).append(name)
    for description, names in alike.items():
        said = ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} more"
        stderr.print(f"{said}: {description}", style="dim")
    for name, worker in workers.items():
        if worker.rank_pids:
            pids = ", ".join(map(str, worker.rank_pids))
            start, end = worker.layers
            stderr.print(
                f"{name}[{start}, {end}): {len(worker.rank_pids)} ranks share each layer (processes {pids})",
                style="dim",
            )


def _outcome(handle: Handle) -> Completion | HelixKitError:
    """The answer, or why there is none: the other prompts' answers are printed all the same."""
    try:
        return handle.result()
    except HelixKitError as error:
        return error


def _as_json(text: str, outcome: Completion | HelixKitError) -> dict[str, Any]:
    if isinstance(outcome, HelixKitError):
        return {"prompt": text, "error": str(outcome)}
    return {
        "prompt": text,
        "text": outcome.text,
        "token_ids": outcome.token_ids,
        "finish_reason": outcome.finish_reason,
        "pipeline": [list(stage) for stage in outcome.pipeline],
    }


def _print_answer(text: str, outcome: Completion | HelixKitError) -> None:
    if isinstance(outcome, HelixKitError):
        typer.echo(f"> {text}\nfailed: {outcome}\n")
        return
    typer.echo(f"> {text}\n{outcome.text.strip()}")
    stages = " -> ".join(f"{s.node}[{s.start}, {s.end})" for s in outcome.pipeline)
    stderr.print(stages + "\n", style="dim")


def _print_replay(run: Run, slo: SLO | None, records: Path | None, as_json: bool, notes: list[str]) -> None:
    """Print a replay as `simulate` prints a simulation."""
    summary = run.summary(slo)
    summary["notes"] = [*notes, *summary["notes"], *_failed(run)]
    if as_json:
        print_json(summary)
    else:
        print_run(summary, f"{summary['cluster']}, {summary['model']}: served, policy {summary['policy']}")
    if records:
        run.to_csv(records)


def _too_large(workload: Workload, most_tokens: int) -> list[str]:
    """A note on the requests that no pipeline has KV pages for, none where all can be served."""
    count = sum(request.input_tokens + request.output_tokens > most_tokens for request in workload)
    if not count:
        return []
    fit = f"a request may have {most_tokens:,} tokens at most, prompt and answer together"
    return [f"{count:,} of {len(workload):,} requests fit into the KV pages of no pipeline and were rejected: {fit}"]


def _failed(run: Run) -> list[str]:
    """A note on the requests that failed, with the commonest reason; none where all were answered."""
    reasons = Counter(record.reason for record in run.records if record.outcome == "failed")
    if not reasons:
        return []
    [(reason, _)] = reasons.most_common(1)
    return [f"{reasons.total():,} of {count_text(len(run.records), 'request')} failed: {reason}"]


def _decode_tokens_per_s(run: Run) -> float:
    """Tokens/s from the first token on: with one prompt 1 / decode latency, the rate at which the answer appears."""
    firsts = [record.first_token_s for record in run.records if record.first_token_s is not None]
    seconds = run.window[1] - min(firsts, default=run.window[1])
    return len(run.latencies("decode")) / seconds if seconds > 0 else 0.0
