"""One worker on a GPU beside transformers' `generate`, with each attention backend, and the cost of a hop off the GPU.

    python benchmarks/bench_gpu.py [--weights FOLDER] [--device cuda:0] [--dtypes float16,bfloat16] [-o FILE]

Greedy, prompts of 512 random tokens, batches of 1, 8 and 32. Prefill is the time until every request has its first
token, decode the tokens after that over the time from then on. A hop is what a stage adds to a step: rows copied to
pinned memory, waited for, and from there to the device again, without the wire. Default weights: SmolLM2-135M. Writes
docs/gpu-bench.md. Exit code 2 where there is no CUDA device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

PROMPT_TOKENS = 512
HOP_ROWS = (1, 32, 512)
WARM_TOKENS = 8


def prompts(count: int, vocabulary: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, vocabulary, PROMPT_TOKENS).tolist() for _ in range(count)]


def wait_for(device: str) -> None:
    """Wait until the device has finished its work."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def rates(count: int, new_tokens: int, first_s: float, end_s: float) -> dict[str, float]:
    return {
        "prefill_tokens_per_s": count * PROMPT_TOKENS / first_s,
        "decode_tokens_per_s": count * (new_tokens - 1) / (end_s - first_s),
    }


def bench_worker(weights: Path, device: str, dtype: str, attention: str, batches: list[int], new_tokens: int) -> dict:
    """Our engine with all layers in one worker, by batch."""
    from helix_kit.runtime import serve
    from helix_kit.runtime.weights.checkpoint import Checkpoint
    from helix_kit.runtime.weights.tiny import tiny_plan

    layers = int(Checkpoint(weights).config["num_hidden_layers"])
    plan = tiny_plan(weights, {"gpu": (0, layers)}, kv_tokens_per_layer=2 * max(batches) * (PROMPT_TOKENS + new_tokens))
    options = {"devices": {"gpu": device}, "dtype": dtype, "attention": attention, "chunk_tokens": PROMPT_TOKENS}
    found = {}
    with serve(plan, weights, pace=False, **options) as engine:
        for batch in batches:
            warm, timed = (prompts(batch, engine.vocab_size, seed) for seed in (0, 1))
            engine.generate(warm, max_new_tokens=WARM_TOKENS, ignore_eos=True)
            began = time.monotonic()
            handles = [engine.submit(ids, max_new_tokens=new_tokens, ignore_eos=True) for ids in timed]
            records = [handle.result().record for handle in handles]
            took_s = time.monotonic() - began
            # The records' clock is the engine's: only differences count.
            start = min(record.request.arrival_s for record in records)
            first_s = max(record.first_token_s for record in records) - start
            assert all(len(record.token_times_s) == new_tokens for record in records)
            found[batch] = rates(batch, new_tokens, first_s, took_s)
    return found


def bench_generate(weights: Path, device: str, dtype: str, batches: list[int], new_tokens: int) -> dict:
    """Transformers' `generate` on one padded batch (all prompts are equally long), by batch."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(weights, dtype=getattr(torch, dtype)).to(device).eval()
    found = {}

    def run(ids: list[list[int]], count: int) -> float:
        tokens = torch.tensor(ids, device=device)
        config = GenerationConfig(
            max_new_tokens=count, min_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        wait_for(device)
        began = time.monotonic()
        out = model.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=config)
        wait_for(device)
        assert out.shape[1] == PROMPT_TOKENS + count
        return time.monotonic() - began

    for batch in batches:
        warm, timed = (prompts(batch, model.config.vocab_size, seed) for seed in (0, 1))
        run(warm, WARM_TOKENS)
        first_s = run(timed, 1)
        found[batch] = rates(batch, new_tokens, first_s, run(timed, new_tokens))
    return found


def bench_hop(hidden_size: int, device: str, dtype: str, repeats: int = 100) -> dict[int, float]:
    """Median microseconds of rows to the host and back, by rows."""
    from helix_kit.runtime.worker.transfer import to_device, to_host

    where = torch.device(device)

    def once(rows: torch.Tensor) -> float:
        wait_for(device)
        began = time.perf_counter()
        to_device(to_host(rows), where)
        wait_for(device)
        return 1e6 * (time.perf_counter() - began)

    found = {}
    for count in HOP_ROWS:
        rows = torch.randn(count, hidden_size, device=where).to(getattr(torch, dtype))
        once(rows)
        found[count] = statistics.median(once(rows) for _ in range(repeats))
    return found


def document(facts: dict[str, Any], results: dict[str, dict], hops: dict[str, dict[int, float]]) -> str:
    batches = facts["batches"]
    lines = [
        "# The runtime on a GPU",
        f"Written by `python benchmarks/bench_gpu.py` on {facts['device']} (compute capability {facts['capability']}), "
        f"{facts['date']}: torch {facts['torch']}, transformers {facts['transformers']}, "
        f"FlashInfer {facts['flashinfer']}.",
        f"Weights: {facts['weights']}; prompts of {PROMPT_TOKENS} tokens, {facts['new_tokens']} new tokens, greedy.",
        "",
        "| | " + " | ".join(f"{phase}, batch {batch}" for phase in ("prefill", "decode") for batch in batches) + " |",
        "|---" * (1 + 2 * len(batches)) + "|",
    ]
    for name, found in results.items():
        cells = [f"{found[b][f'{phase}_tokens_per_s']:.0f}" for phase in ("prefill", "decode") for b in batches]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "Tokens/s. A hop off the GPU and back, without the wire, median microseconds:", ""]
    lines += ["| | " + " | ".join(f"{rows} rows" for rows in HOP_ROWS) + " |", "|---" * (1 + len(HOP_ROWS)) + "|"]
    lines += [f"| {dtype} | " + " | ".join(f"{found[r]:.0f}" for r in HOP_ROWS) + " |" for dtype, found in hops.items()]
    return "\n".join(lines) + "\n"


def attempt(label: str, call: Callable[[], dict]) -> dict | None:
    """The result of a measurement; None, with the reason on standard error, if it is not possible here."""
    from helix_kit.errors import HelixKitError

    try:
        return call()
    except HelixKitError as error:
        print(f"{label}: {error}", file=sys.stderr)
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, help="Hugging Face folder; default: SmolLM2-135M, fetched once")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtypes", default="float16,bfloat16")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/gpu-bench.md"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"bench-gpu needs a CUDA device, and torch {torch.__version__} finds none here", file=sys.stderr)
        return 2

    import importlib.metadata
    import importlib.util

    from helix_kit.runtime.weights.checkpoint import Checkpoint
    from helix_kit.runtime.weights.demo import demo_weights

    weights = options.weights or demo_weights()
    batches = [int(b) for b in options.batches.split(",")]
    has_flashinfer = importlib.util.find_spec("flashinfer") is not None
    facts = {
        "device": torch.cuda.get_device_name(options.device),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(options.device))),
        "torch": torch.__version__,
        "transformers": importlib.metadata.version("transformers"),
        "flashinfer": importlib.metadata.version("flashinfer-python") if has_flashinfer else "not installed",
        "date": time.strftime("%Y-%m-%d"),
        "weights": weights.name,
        "batches": batches,
        "new_tokens": options.new_tokens,
    }
    print(f"{facts['device']}, torch {facts['torch']}, FlashInfer {facts['flashinfer']}", flush=True)
    hidden_size = int(Checkpoint(weights).config["hidden_size"])
    results: dict[str, dict] = {}
    hops: dict[str, dict[int, float]] = {}
    for dtype in options.dtypes.split(","):
        hops[dtype] = bench_hop(hidden_size, options.device, dtype)
        common = (weights, options.device, dtype)
        calls: dict[str, Callable[[], dict]] = {
            f"{dtype}, one worker, {attention}": partial(bench_worker, *common, attention, batches, options.new_tokens)
            for attention in ("sdpa", "flashinfer")
        }
        calls[f"{dtype}, generate"] = partial(bench_generate, *common, batches, options.new_tokens)
        for label, call in calls.items():
            if found := attempt(label, call):
                results[label] = found
                print(label, json.dumps(found), flush=True)
    text = document(facts, results, hops)
    print(text)
    options.output.write_text(text, encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps({"facts": facts, "tokens_per_s": results, "hop_us": hops}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
