"""The engine under load: batches, a mixed load, open loads, two workers on one device, and the simulator beside it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from gpu_sections.shared import REQUEST_TIMEOUT_S, Check, Found, Table, ms, rate

SPREAD = (0.9, 0.7)
"""Deviation of the logarithm of an open load's lengths, in and out."""
LATENCIES = ("TTFT", "ITL", "E2EL")
WINDOW_S = 30.0
"""An open load is cut off so long after its last arrival."""


def prompts(count: int, tokens: int, vocabulary: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, vocabulary, tokens).tolist() for _ in range(count)]


def mixed_prompts(check: Check) -> list[list[int]]:
    """Prompts of log-normal lengths: 64 requests of 20,914 tokens in all."""
    sizes = check.sizes
    middle, spread, shortest, longest = sizes.mixed_prompts
    rng = np.random.default_rng(5)
    lengths = np.clip(rng.lognormal(middle, spread, sizes.mixed_requests).astype(int), shortest, longest)
    return [rng.integers(3, min(check.vocabulary, 120_000), int(n)).tolist() for n in lengths]


def run_batch(engine: Any, batch: list[list[int]], new_tokens: int) -> dict[str, float]:
    """All prompts at once: prefill until every request has its first token, decode from then on."""
    began = time.monotonic()
    handles = [engine.submit(ids, max_new_tokens=new_tokens, ignore_eos=True) for ids in batch]
    records = [handle.result(REQUEST_TIMEOUT_S).record for handle in handles]
    took_s = time.monotonic() - began
    start_s = min(record.request.arrival_s for record in records)
    firsts_s = [record.first_token_s - start_s for record in records]
    end_s = max(record.token_times_s[-1] for record in records) - start_s
    made = sum(len(record.token_times_s) for record in records)
    assert made == len(batch) * new_tokens, f"{made} tokens"
    decode_s = max(end_s - max(firsts_s), 1e-9)
    after = sum(t - start_s > max(firsts_s) for record in records for t in record.token_times_s)
    return {
        "prefill_tokens_per_s": sum(map(len, batch)) / max(firsts_s),
        "decode_tokens_per_s": after / decode_s,
        "output_tokens_per_s": made / took_s,
        "ttft_p50_s": float(np.median(firsts_s)),
        "seconds": took_s,
    }


def section_batches(check: Check) -> Found:
    """One worker with all layers, batches of equal prompts, and one long prompt."""
    sizes, found = check.sizes, Found()
    engine = check.engine("one")
    title = f"The engine, one worker, prompts of {sizes.prompt}, {sizes.new_tokens} new tokens"
    table = Table(title, ("batch", "prefill tokens/s", "decode tokens/s", "ms between tokens"))
    for batch in sizes.bench_batches:
        run_batch(engine, prompts(batch, sizes.prompt, check.vocabulary, 1), 4)
        result = run_batch(engine, prompts(batch, sizes.prompt, check.vocabulary, 2), sizes.new_tokens)
        found.data[batch] = result
        between_s = batch / result["decode_tokens_per_s"]
        table.rows.append([str(batch), *map(rate, list(result.values())[:2]), ms(between_s)])
        check.say("  engine, batch", *table.rows[-1])
    run_batch(engine, prompts(1, sizes.long_prompt, check.vocabulary, 3), 2)
    runs = [run_batch(engine, prompts(1, sizes.long_prompt, check.vocabulary, 4 + i), 2) for i in range(3)]
    best = sorted(run["prefill_tokens_per_s"] for run in runs)[1]
    found.data["long_prefill_tokens_per_s"] = best
    table.rows.append([f"1, prompt of {sizes.long_prompt}", rate(best), "-", "-"])
    check.say(f"  engine, prefill of {sizes.long_prompt}: {best:.0f} tokens/s")
    found.tables.append(table)
    return found


def section_mixed(check: Check) -> Found:
    """Many requests of different lengths at once."""
    sizes = check.sizes
    engine = check.engine("one")
    load = mixed_prompts(check)
    run_batch(engine, load[:4], 4)
    steps = worker_steps(engine)
    result: dict[str, Any] = run_batch(engine, load, sizes.mixed_new_tokens)
    result["prompt_tokens"] = sum(map(len, load))
    result["steps"] = worker_steps(engine) - steps
    tokens = f"{len(load)} requests, {result['prompt_tokens']:,} prompt tokens, {sizes.mixed_new_tokens} new each"
    table = Table(f"Mixed load: {tokens}", ("", "output tokens/s", "seconds", "TTFT p50, s", "steps"))
    cells = [f"{result['seconds']:.2f}", f"{result['ttft_p50_s']:.2f}", str(result["steps"])]
    table.rows.append(["the engine", rate(result["output_tokens_per_s"]), *cells])
    check.say("  mixed load:", *table.rows[-1])
    return Found(result, [table])


def worker_steps(engine: Any) -> int:
    return sum(worker.steps for worker in engine.status(fresh=True).workers.values())


def open_load(check: Check, rate_per_s: float) -> Any:
    """Poisson arrivals of requests with log-normal lengths."""
    from helix_kit import Workload

    sizes = check.sizes
    rng = np.random.default_rng(round(7 * rate_per_s))
    count = max(2, int(rng.poisson(rate_per_s * sizes.open_seconds)))
    arrivals = np.sort(rng.uniform(0.0, sizes.open_seconds, count))
    columns = []
    for mean, spread, longest in zip(sizes.open_mean_tokens, SPREAD, sizes.open_longest, strict=True):
        lengths = rng.lognormal(np.log(mean) - spread**2 / 2, spread, count)
        columns.append(np.clip(lengths * mean / lengths.mean(), 4, longest).astype(int).tolist())
    return Workload.of(zip(arrivals.tolist(), *columns, strict=True), f"open load, {rate_per_s:g} requests/s")


def latencies(run: Any) -> dict[str, np.ndarray]:
    """Seconds to the first token, between tokens, and of the whole request."""
    finished = [r for r in run.records if r.outcome == "finished"]
    whole = [r.finished_s - r.request.arrival_s for r in finished]
    return {"TTFT": run.latencies("prompt"), "ITL": run.latencies("decode"), "E2EL": np.array(whole)}


def section_open(check: Check) -> Found:
    """Requests that come at random moments, as users send them."""
    sizes, found = check.sizes, Found()
    engine = check.engine("one")
    head = ["requests/s", "requests", "tokens in, out (mean)", "output tokens/s"]
    head += [f"{name} {which}, ms" for name in LATENCIES for which in ("mean", "p50", "p99")]
    table = Table("Open load (Poisson arrivals, log-normal lengths), one worker", head)
    for rate_per_s in sizes.open_rates:
        load = open_load(check, rate_per_s)
        run = engine.replay(load, max_seconds=sizes.open_seconds + WINDOW_S)
        check.runs[rate_per_s] = run
        means = [np.mean([getattr(r, name) for r in load]) for name in ("input_tokens", "output_tokens")]
        data: dict[str, Any] = {"requests": len(load), "mean_in": float(means[0]), "mean_out": float(means[1])}
        data["output_tokens_per_s"] = tokens_per_s(run)
        data["unfinished"] = sum(r.outcome != "finished" for r in run.records)
        for name, values in latencies(run).items():
            three = (values.mean(), np.percentile(values, 50), np.percentile(values, 99)) if len(values) else [0.0] * 3
            data[name] = dict(zip(("mean_ms", "p50_ms", "p99_ms"), (1e3 * float(v) for v in three), strict=True))
        found.data[f"{rate_per_s:g}"] = data
        cells = [f"{rate_per_s:g}", str(len(load)), f"{means[0]:.0f}, {means[1]:.0f}"]
        cells += [rate(data["output_tokens_per_s"])]
        cells += [f"{value:.1f}" for name in LATENCIES for value in data[name].values()]
        table.rows.append(cells)
        check.say("  open load:", *cells)
        if data["unfinished"]:
            found.wrong.append(f"{rate_per_s:g} requests/s: {data['unfinished']} requests were not finished")
    found.tables.append(table)
    return found


def tokens_per_s(run: Any) -> float:
    """All tokens over the time of the last token: the same window for a simulated and a real run."""
    return len(run.tokens.time_s) / float(run.tokens.time_s.max())


def section_closed_loop(check: Check) -> Found:
    """Profile the card, simulate the open loads with what was measured, and compare with how they were served."""
    from helix_kit.runtime.profile import measure
    from helix_kit.runtime.transport.link_measurement import measure_link

    if not check.runs:
        section_open(check)
    sizes, found = check.sizes, Found()
    context = int(sizes.open_mean_tokens[0] + sizes.open_mean_tokens[1] / 2)
    result = measure(
        check.checkpoint("large"),
        kind="gpu",
        device=check.device,
        dtype=sizes.dtype,
        attention=check.attention,
        layers=sizes.profile_layers,
        context_tokens=context,
        repeats=sizes.profile_repeats,
    )
    check.free()
    link = measure_link(repeats=20)
    check.say(f"  profiled: output projection {result.head_ms:.2f} ms, link {link.latency_ms[1]:.3f} ms")
    points = {(p.phase, p.tokens): p.ms_per_layer for p in result.points}
    found.data = {
        "profile": {f"{phase} {tokens}": value for (phase, tokens), value in points.items()},
        "head_ms": result.head_ms,
        "link_ms": link.latency_ms[1],
        "chunk_tokens": sizes.chunk_tokens,
    }
    table = Table(
        f"Profile in {sizes.dtype}, context {context}, milliseconds per layer", ("phase", *map(str, sizes_of(points)))
    )
    for phase in ("prefill", "decode"):
        table.rows.append(
            [phase, *(f"{points[phase, n]:.4f}" if (phase, n) in points else "-" for n in sizes_of(points))]
        )
    found.tables.append(table)
    head = ("requests/s", "", "simulated", "served", "simulated / served")
    table = Table("Closed loop: profiled, simulated, served", head)
    for rate_per_s, served in check.runs.items():
        simulated = simulate(check, result, link, steady(result.profile()), open_load(check, rate_per_s))
        pairs = {"output tokens/s": (tokens_per_s(simulated), tokens_per_s(served))}
        for name, phase in (("TTFT mean, ms", "prompt"), ("ITL mean, ms", "decode")):
            pairs[name] = tuple(1e3 * float(run.latencies(phase).mean()) for run in (simulated, served))
        for name, (left, right) in pairs.items():
            found.data[f"{rate_per_s:g}: {name}"] = {"simulated": left, "served": right}
            table.rows.append([f"{rate_per_s:g}", name, f"{left:.1f}", f"{right:.1f}", f"{left / right:.3f}"])
            check.say("  closed loop:", *table.rows[-1])
    found.tables.append(table)
    return found


def sizes_of(points: dict[tuple[str, int], float]) -> list[int]:
    return sorted({tokens for _, tokens in points})


def steady(profile: Any) -> Any:
    """The profile without noise: a larger step is never faster. A falling curve would be continued below zero."""
    curves = {}
    for name in ("prefill_ms_per_layer", "decode_ms_per_layer"):
        curve = getattr(profile, name)
        rising = np.maximum.accumulate(curve.y)
        curves[name] = curve.model_copy(update={"y": tuple(float(value) for value in rising)})
    return profile.model_copy(update=curves)


def simulate(check: Check, result: Any, link: Any, profile: Any, load: Any) -> Any:
    """The load on one node of the measured kind, until the last request is finished."""
    import helix_kit as hk
    from helix_kit.simulator import BatchingOptions

    cluster = result.starter_cluster(link)
    cluster = cluster.model_copy(update={"nodes": cluster.nodes[:1]})
    node, layers = cluster.nodes[0].name, result.model.num_layers
    problem = hk.Problem.of(cluster, result.model, profiles={"gpu": profile})
    plan = hk.Plan.from_placement(problem, {node: (0, layers)}, method="all layers on one node")
    chunk = check.sizes.chunk_tokens
    batching = BatchingOptions(step_tokens=max(512, 2 * chunk), chunk_tokens=chunk)
    return hk.simulate(plan, load, warmup_s=0.0, duration_s=10 * (load.duration_s + 60), options=batching)


def section_two_workers(check: Check) -> Found:
    """Two workers with half of the layers each on the same device, beside one worker with all of them."""
    sizes = check.sizes
    batch = sizes.bench_batches[-1]
    alone = check.found.get("batches", Found()).data.get(batch)
    load = [prompts(batch, sizes.prompt, check.vocabulary, seed) for seed in (1, 2)]
    if alone is None:
        engine = check.engine("one")
        run_batch(engine, load[0], 4)
        alone = run_batch(engine, load[1], sizes.new_tokens)
    engine = check.engine("two")
    run_batch(engine, load[0], 4)
    result = run_batch(engine, load[1], sizes.new_tokens)
    check.close_engine()
    ratio = result["decode_tokens_per_s"] / alone["decode_tokens_per_s"]
    table = Table(f"Two workers on the device, batch {batch}", ("", "decode tokens/s", "output tokens/s"))
    for name, run in (("one worker, all layers", alone), ("two workers, half of the layers each", result)):
        table.rows.append([name, rate(run["decode_tokens_per_s"]), rate(run["output_tokens_per_s"])])
    table.rows.append(
        ["two / one", f"{ratio:.2f}", f"{result['output_tokens_per_s'] / alone['output_tokens_per_s']:.2f}"]
    )
    check.say("  two workers over one:", *table.rows[-1][1:])
    return Found({"one": alone, "two": result, "ratio": ratio}, [table])
