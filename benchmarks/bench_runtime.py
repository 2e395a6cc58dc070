"""The runtime's speed beside transformers' own, on one machine, with one thread each, in one run.

    python benchmarks/bench_runtime.py [--batches 1,8,32] [--new-tokens 40] [--rounds 3] [-o DOCUMENT] [--json FILE]
    python benchmarks/bench_runtime.py --beside CHECKOUT [--batches ...] [-o DOCUMENT] ...

Real weights (SmolLM2-135M, fp32), greedy, prompts of 32 random tokens. Tokens are counted per CPU-second of the
processes that compute, which a busy machine changes little; compare the ratios. All programs take turns in several
rounds, and medians are shown, because a virtual machine may be a quarter slower in one minute than in the next. A
pipeline of four workers is measured in the same way: its extra cost is the cost of passing data on.

With `--beside` the same requests are served by this code and by the code in another checkout, in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import beside
import numpy as np
from document import facts, write_json, write_section

if TYPE_CHECKING:
    from helix_kit.runtime.engine import Engine

PROMPT_TOKENS = 32
HOP_BYTES = (16 << 10, 1 << 20)


def prompts(count: int, vocabulary: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(3, vocabulary, PROMPT_TOKENS).tolist() for _ in range(count)]


def run_engine(engine: Engine, batch: int, new_tokens: int) -> dict[str, float]:
    """Tokens per CPU-second of all its workers and per second, and the coordinator's CPU time per token."""

    def workers_cpu_s() -> float:
        return sum(worker.cpu_s for worker in engine.status(fresh=True).workers.values())

    workers_s = workers_cpu_s()
    coordinator_s = engine.status().coordinator_cpu_s
    began = time.monotonic()
    engine.generate(prompts(batch, 40000), max_new_tokens=new_tokens, ignore_eos=True)
    wall_s = time.monotonic() - began
    # Read at once: the seconds of waiting for the workers' counters are not the tokens'.
    coordinator_s = engine.status().coordinator_cpu_s - coordinator_s
    tokens = batch * new_tokens
    return {
        "per_cpu_s": tokens / (workers_cpu_s() - workers_s),
        "per_wall_s": tokens / wall_s,
        "coordinator_ms_per_token": 1e3 * coordinator_s / tokens,
    }


def start_engine(stack: contextlib.ExitStack, weights: Path, cuts: list[int]) -> Engine:
    """An engine with one worker for the layers between each two of `cuts`, started and warmed up."""
    from helix_kit.runtime import serve
    from helix_kit.runtime.weights.tiny import tiny_plan

    spans = itertools.pairwise([0, *cuts, 30])
    plan = tiny_plan(weights, {f"w{i}": span for i, span in enumerate(spans)})
    engine = stack.enter_context(serve(plan, weights, pace=False, threads=1))
    engine.generate(prompts(2, 40000), max_new_tokens=4, ignore_eos=True)
    return engine


def run_transformers(method: str, model: Any, batch: int, new_tokens: int) -> dict[str, float]:
    """The same for `generate` (one padded batch) or `generate_batch` (transformers' continuous batching)."""
    import torch
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False, eos_token_id=None, pad_token_id=2
    )
    inputs = prompts(batch, 40000)
    cpu, wall = time.process_time(), time.monotonic()
    if method == "generate":
        ids = torch.tensor(inputs)
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        made = batch * (out.shape[1] - PROMPT_TOKENS)
    else:
        results = model.generate_batch(inputs=inputs, generation_config=config, progress_bar=False)
        made = sum(len(result.generated_tokens) for result in results.values())
    cpu_s, wall_s = time.process_time() - cpu, time.monotonic() - wall
    assert made == batch * new_tokens, f"{made} tokens"
    return {"per_cpu_s": made / cpu_s, "per_wall_s": made / wall_s}


def bench(weights: Path, batches: list[int], new_tokens: int, rounds: int) -> dict[str, dict[str, float]]:
    """Medians over `rounds`. In each round all take turns at every batch, so a slow minute affects all alike."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        one, four = (start_engine(stack, weights, cuts) for cuts in ([], [8, 16, 23]))
        # Not one model for both: `generate_batch` changes its attention.
        plain, paged = (AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).eval() for _ in range(2))
        turns: dict[str, Callable[[int], dict[str, float]]] = {
            "one worker": lambda batch: run_engine(one, batch, new_tokens),
            "generate": lambda batch: run_transformers("generate", plain, batch, new_tokens),
            "four workers": lambda batch: run_engine(four, batch, new_tokens),
            "generate_batch": lambda batch: run_transformers("generate_batch", paged, batch, new_tokens),
        }
        found: dict[str, dict[str, list[float]]] = {name: {} for name in turns}
        for _ in range(rounds):
            for batch in batches:
                for name, turn in turns.items():
                    for key, value in turn(batch).items():
                        found[name].setdefault(f"{key}_{batch}", []).append(value)
    return {name: {key: statistics.median(v) for key, v in kept.items()} for name, kept in found.items()}


def _receive(inbox, sent: list[float], times: list[float], arrived: threading.Event, count: int) -> None:
    while len(times) < count:
        for _ in inbox.receive(1.0):
            times.append(time.perf_counter() - sent[0])
            arrived.set()


def bench_hop(count: int = 200) -> dict[str, float]:
    """Median time of one message between two sockets of the data plane, in microseconds."""
    import zmq

    from helix_kit.runtime.transport.messages import RunMessage, WorkItem
    from helix_kit.runtime.transport.sockets import Inbox, Outbox

    context, key = zmq.Context(), b"k" * 16
    found = {}
    for size in HOP_BYTES:
        inbox, outbox, times = Inbox(context, key), Outbox(context, key), []
        payload, sent = np.zeros(size, np.uint8), [0.0]
        arrived = threading.Event()

        thread = threading.Thread(target=_receive, args=(inbox, sent, times, arrived, count))
        thread.start()
        rows = size // 4 // 576 or 1
        item = WorkItem(request=1, epoch=0, position=0, tokens=rows, wants_token=False)
        message = RunMessage([item], "float32", (rows, 576), memoryview(payload)[: rows * 576 * 4])
        for _ in range(count):
            arrived.clear()
            sent[0] = time.perf_counter()
            outbox.send(inbox.endpoint, message)
            arrived.wait(5)
        thread.join()
        found[f"hop_us_{size >> 10}_kib"] = 1e6 * statistics.median(times)
        outbox.flush_and_close(0)
        inbox.close()
    context.term()
    return found


def table(results: dict[str, dict[str, float]], batches: list[int]) -> list[str]:
    """The results as a table in Markdown, and a line on the transport."""

    def row(label: str, values: list[float], digits: int, unit: str = "") -> str:
        return f"| {label:34} |" + "".join(f" {v:8.{digits}f}{unit} |" for v in values)

    rows = [
        f"| {'tokens per CPU-second':34} |" + "".join(f" {f'batch {b}':>9} |" for b in batches),
        "|---|" + "---:|" * len(batches),
    ]
    for name in ("one worker", "four workers", "generate", "generate_batch"):
        rows.append(row(name, [results[name][f"per_cpu_s_{b}"] for b in batches], 1))
    for name, other in (("one worker", "generate"), ("one worker", "generate_batch"), ("four workers", "one worker")):
        ratios = [results[name][f"per_cpu_s_{b}"] / results[other][f"per_cpu_s_{b}"] for b in batches]
        rows.append(row(f"{name} / {other}", ratios, 2, "x"))
    spent = [results["four workers"][f"coordinator_ms_per_token_{b}"] for b in batches]
    rows.append(row("coordinator, CPU ms per token", spent, 3))
    hops = [f"{results['transport'][f'hop_us_{size >> 10}_kib']:.0f} us for {size >> 10} KiB" for size in HOP_BYTES]
    return [*rows, "", f"One hop over the data plane's sockets, median: {', '.join(hops)}."]


def compare(options: argparse.Namespace, batches: list[int]) -> None:
    """This code beside that of another checkout: prints a table, and writes it where the options say."""
    from helix_kit.runtime.weights.demo import demo_weights

    folders = {"now": Path(__file__).resolve().parents[1], "before": options.beside}
    found, commits = beside.measure(folders, demo_weights(), batches, options.new_tokens, options.rounds)
    lines = beside.table(found["now"], found["before"], batches)
    print(f"now {commits['now']}, before {commits['before']}\n")
    print("\n".join(lines))
    if options.output:
        about = (
            f"`python benchmarks/bench_runtime.py --beside CHECKOUT`; {facts('torch', 'pyzmq')}\n\n"
            f"Before: commit {commits['before']}; now: {commits['now']}. Weights, requests and threads as above. The "
            f"two take turns, each in a process of its own.\nMedians of {options.rounds} rounds, and the lowest "
            "and the highest ratio of a round."
        )
        write_section(options.output, "Speed beside older code", "\n".join([about, "", *lines]))
    write_json(options.json, {"commits": commits, **found})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--new-tokens", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3, help="times that each is run; medians are shown")
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="compare with the code in this folder instead")
    parser.add_argument("-o", "--output", type=Path, help="document whose section on speed is written anew")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    batches = [int(b) for b in options.batches.split(",")]
    if options.beside:
        compare(options, batches)
        return

    from helix_kit.runtime.device_facts import device_name
    from helix_kit.runtime.weights.demo import demo_weights

    weights = demo_weights()
    results = bench(weights, batches, options.new_tokens, options.rounds)
    results["transport"] = bench_hop()
    lines = table(results, batches)
    print(f"{device_name('cpu')}, one thread each, fp32, {options.new_tokens} new tokens\n")
    print("\n".join(lines))
    if options.output:
        about = (
            f"`make bench-runtime`; {facts('torch', 'transformers', 'pyzmq')}\n\n"
            f"SmolLM2-135M in fp32 with one thread each, greedy, {PROMPT_TOKENS} random prompt tokens and "
            f"{options.new_tokens} new ones\n(prefill counted); `generate` gets the whole batch at once, padded. "
            f"The coordinator is that of the four workers.\nMedians of {options.rounds} rounds in which all take "
            "turns; `generate_batch` sets up its cache in each call."
        )
        write_section(options.output, "Speed", "\n".join([about, "", *lines]))
    write_json(options.json, results)


if __name__ == "__main__":
    main()
