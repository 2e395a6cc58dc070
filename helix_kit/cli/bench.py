"""``helix-kit bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from helix_kit.cli.output import print_json
from helix_kit.cli.shared import GoodputOption, JsonFlag, SeedOption, Status, app, check_writable, print_run, slo_of
from helix_kit.errors import InputError


@app.command("bench")
def bench_command(
    url: Annotated[str, typer.Argument(help="Of a server with OpenAI's API, such as http://127.0.0.1:8000/v1.")],
    trace: Annotated[Path | None, typer.Option(help="Trace file with the requests; --workload without it.")] = None,
    workload: Annotated[
        str, typer.Option(help="azure-conversation, azure-code, poisson or constant, at --rate for --duration.")
    ] = "azure-conversation",
    rate: Annotated[float, typer.Option(help="Requests/s of --workload.")] = 1.0,
    duration: Annotated[float, typer.Option(help="Seconds of arrivals of --workload.")] = 60.0,
    input_tokens: Annotated[int | None, typer.Option(min=1, help="Of every request of poisson and constant.")] = None,
    output_tokens: Annotated[int | None, typer.Option(min=1, help="Of every request of poisson and constant.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Closed loop: always this many requests open, whatever their arrivals.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to ask for. Default: the first of /v1/models.")] = None,
    chat: Annotated[bool, typer.Option(help="Ask /v1/chat/completions in place of /v1/completions.")] = False,
    prompts: Annotated[str, typer.Option(help="text, or tokens (random token ids below --vocab).")] = "text",
    vocab: Annotated[int, typer.Option(min=4, help="Token ids of --prompts tokens are below it.")] = 1000,
    warmup: Annotated[int, typer.Option(min=0, help="Requests sent first and not counted.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds after which a request has failed.")] = 600.0,
    ignore_eos: Annotated[bool, typer.Option(help="Ask for answers of exactly the workload's length.")] = True,
    extra_body: Annotated[str | None, typer.Option(help="Further fields of each request, as JSON.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="Key of the server.")] = None,
    goodput: GoodputOption = None,
    records: Annotated[Path | None, typer.Option(help="Write one row per request to this CSV file.")] = None,
    vllm_json: Annotated[Path | None, typer.Option(help="Write the result as `vllm bench serve` does.")] = None,
    aiperf_jsonl: Annotated[Path | None, typer.Option(help="Write a line per request as AIPerf does.")] = None,
    seed: SeedOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Replay a workload against any server with OpenAI's API: ours, vLLM, SGLang, llama.cpp, exo.

    Example: [bold]helix-kit bench[/] http://127.0.0.1:8000 --rate 2 --duration 60 --goodput ttft:0.5 tpot:0.05
    """
    from helix_kit.bench import BenchOptions, bench
    from helix_kit.workload.named import SAMPLED
    from helix_kit.workload.workload import Workload

    slo = slo_of(goodput)
    check_writable(records=records, vllm_json=vllm_json, aiperf_jsonl=aiperf_jsonl)
    options = BenchOptions(
        model=model, api_key=api_key, chat=chat, concurrency=concurrency, warmup=warmup, timeout_s=timeout,
        prompts=cast(Literal["text", "tokens"], prompts), vocab_size=vocab, ignore_eos=ignore_eos,
        extra_body=_fields(extra_body), seed=seed,
    )  # fmt: skip
    if trace is not None:
        load = Workload.from_trace(trace)
    elif workload in SAMPLED:
        load = SAMPLED[workload](rate, duration, seed=seed)
    elif workload == "poisson":
        load = Workload.poisson(rate, duration, input_tokens=input_tokens, output_tokens=output_tokens, seed=seed)
    elif workload == "constant":
        lengths = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        load = Workload.constant(rate, duration, **{name: n for name, n in lengths.items() if n is not None})
    else:
        expected = "expected azure-conversation, azure-code, poisson or constant, or a file after --trace"
        raise InputError(expected, field="--workload", value=workload)
    with Status("Measuring", as_json) as say:
        run = bench(url, load, options, progress=lambda done, of: say(f"{done} of {of} requests"))
    summary = run.summary(slo)
    if as_json:
        print_json(summary)
    else:
        print_run(summary, f"{url}, {summary['model']}: {summary['loop']} loop")
        typer.echo(
            f"{summary['finished']:,} of {summary['requests']:,} requests finished, {summary['failed']:,} failed, "
            f"{summary['rejected']:,} were rejected"
        )
    if records:
        run.to_csv(records)
    if vllm_json:
        run.to_vllm_json(vllm_json, slo)
    if aiperf_jsonl:
        run.to_aiperf_jsonl(aiperf_jsonl)


def _fields(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise InputError('expected a JSON object such as {"top_k": 1}', field="--extra-body", value=text)
    return fields
