"""Serve at 80 % load for a long time: memory must not grow, and no KV page and no request may be lost.

    python benchmarks/soak.py [--minutes 60] [--load 0.8] [--step-ms 3] [-o docs/runtime-bench.md]

A tiny model runs on four paced workers, so that the machine is not the limit. Arrivals are Poisson, at a share of the
rate that the runtime reaches with a full queue, which is measured first. Longer steps (`--step-ms`) leave the
processors to other programs and reach fewer requests. Exit code 1 if memory grows, or pages or requests are lost.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

import numpy as np
from document import facts, write_section

INPUT_TOKENS, OUTPUT_TOKENS = 24, 24
SAMPLE_S = 5.0
MAX_AT_ONCE = 120
"""Requests at a time: about as many as the KV pages of the two workers of the last stages hold together."""
WARM_UP_SHARE = 0.25
MAX_GROWTH_MB_PER_HOUR = 20.0
"""Of all processes together, after the warm-up. In five minutes a smaller growth cannot be told from noise."""


def resident_mb(pids: list[int]) -> float:
    """Anonymous memory of the processes.

    Memory that workers share with the fork server counts for each of them. A reference count that is
    written turns a shared page into a private one, so private memory alone would grow for hours.
    """
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                total += int(line.split()[1])
    return total / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--step-ms", type=float, default=3.0, help="ms of a layer step of the paced workers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="document whose section on the soak is written anew")
    options = parser.parse_args()

    import os

    from helix_kit.runtime import serve
    from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan

    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        weights = tiny_checkpoint(Path(scratch) / "tiny")
        plan = tiny_plan(weights, {"a": (0, 4), "b": (2, 6), "c": (0, 3), "d": (3, 6)}, step_ms=options.step_ms)
        with serve(plan, weights, policy="random", pace=True, kv_pages=400) as engine:

            def submit():
                prompt = [rng.randrange(3, 250) for _ in range(rng.randrange(1, 2 * INPUT_TOKENS))]
                return engine.submit(prompt, max_new_tokens=rng.randrange(1, 2 * OUTPUT_TOKENS), ignore_eos=True)

            # oneDNN makes a kernel for each number of rows that it first meets, and a worker keeps it (up to 0.5 MB).
            for at_once in range(1, MAX_AT_ONCE + 1):
                engine.generate([[5, 6, 7]] * at_once, max_new_tokens=2, ignore_eos=True)
            began = time.monotonic()
            for handle in [submit() for _ in range(200)]:
                handle.result(600)
            full = 200 / (time.monotonic() - began)
            rate = options.load * full
            print(f"{full:.1f} requests/s with a full queue; {rate:.1f} requests/s for {options.minutes:g} minutes")

            def cpu_s() -> float:
                return time.process_time() + sum(w.cpu_s for w in engine.status().workers.values())

            spent_s = cpu_s()
            pids = [os.getpid(), *(worker.pid for worker in engine.status().workers.values())]
            samples: list[tuple[float, float]] = []
            outcomes: dict[str, int] = {}
            live: list = []
            issued, longest = 0, 0
            start = due = sampled = time.monotonic()
            end = start + 60 * options.minutes
            while time.monotonic() < end:
                due += rng.expovariate(rate)
                time.sleep(max(0.0, due - time.monotonic()))
                live.append(submit())
                issued += 1
                if time.monotonic() - sampled > SAMPLE_S:
                    sampled = time.monotonic()
                    # Asked once: one that ends between two questions would be in neither list.
                    ended = {handle for handle in live if handle.done}
                    for handle in ended:
                        outcomes[handle.record.outcome] = outcomes.get(handle.record.outcome, 0) + 1
                    live = [handle for handle in live if handle not in ended]
                    longest = max(longest, len(live))
                    samples.append((sampled - start, resident_mb(pids)))
            for handle in live:
                outcomes[handle.record.outcome] = outcomes.get(handle.record.outcome, 0) + 1
            spent_s = (cpu_s() - spent_s) / (time.monotonic() - start)
            time.sleep(1)  # pages come back with the step after the last token
            status = engine.status(fresh=True)

    at, memory = np.array(samples).T
    late = at >= WARM_UP_SHARE * at[-1]
    # Theil-Sen: the median slope over all pairs, which single spikes do not move.
    pairs = [
        (m2 - m1) / (t2 - t1)
        for i, (t1, m1) in enumerate(zip(at[late], memory[late]))
        for t2, m2 in zip(at[late][i + 1 :], memory[late][i + 1 :])
    ]
    growth = 3600 * float(np.median(pairs))
    used = sum(int(worker.pages_used) for worker in status.workers.values())
    steps = sum(worker.steps for worker in status.workers.values())
    overruns = sum(worker.overruns for worker in status.workers.values())
    ok = outcomes == {"finished": issued} and used == 0 and status.pages_promised == 0
    ok = ok and growth < MAX_GROWTH_MB_PER_HOUR and not status.losses
    lost = len(status.losses)
    lines = [
        f"{full:.1f} requests/s with a full queue; {rate:.1f} requests/s for {options.minutes:g} minutes "
        f"(layer steps of {options.step_ms:g} ms)",
        f"{issued} requests: {outcomes}; at most {longest} at a time; {status.tokens_out} tokens",
        f"memory {memory[late][0]:.0f} -> {memory[-1]:.0f} MB, {growth:+.1f} MB an hour",
        f"KV pages used at the end: {used}, promised: {status.pages_promised}; workers lost: {lost}",
        f"steps late: {overruns / steps:.1%} of {steps}; processors used: {spent_s:.2f}",
    ]
    print("\n".join(lines[1:]))
    if options.output:
        command = f"python benchmarks/soak.py --minutes {options.minutes:g} --step-ms {options.step_ms:g}"
        items = "\n".join(f"- {line}" for line in [*lines, "passed" if ok else "NOT passed"])
        about = (
            "Four paced workers with a tiny model and overlapping ranges, Poisson arrivals, 1 to 47 tokens each way."
        )
        text = f"`{command}`; {facts('torch', 'pyzmq')}\n\n{about}\n\n{items}"
        write_section(options.output, "An hour under load", text)
    print("ok" if ok else "NOT ok")
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
