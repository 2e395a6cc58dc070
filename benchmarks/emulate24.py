"""The published 24-machine cluster as real processes on this machine, beside the simulator.

    python benchmarks/emulate24.py [--seconds 200] [--time-scale 8] [--nodes 24] [-o docs/emulation.md]

Each machine of the published single-cluster evaluation becomes a worker process that holds its layers of a stand-in for
LLaMA-2 70B: 80 layers, 16 wide. Its steps are padded to the machine's profile and its messages take the time that
the real activations need on the published links and network cards, all stretched by `--time-scale`. Scheduling (the
published placement, flow and stream of requests), batching, KV pages, routing and messages are real; the speed of
machines and links is declared. The same requests are simulated with the rules of our runtime (`range`).

A run in which more than 2 % of the steps came late does not count: the scale is doubled and the run repeated, for the
same `--seconds` of this machine. Where memory does not suffice for all machines, only as many as fit are planned for
(with our planner, and the document says so); `--nodes` asks for fewer.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from document import latency_percentiles, ratio_table, write_json

import helix_kit as hk
from helix_kit.experiments.figures.common.published import published_run
from helix_kit.placement.plan import Plan
from helix_kit.runtime.emulation import emulate
from helix_kit.runtime.profile import device_name
from helix_kit.runtime.replay import OverrunError
from helix_kit.simulator import simulate
from helix_kit.workload.workload import Workload

SETUP, MODEL, MODE = "single", "llama2-70b", "online"
WORKER_GB, OWN_GB = 0.15, 1.0
"""Memory of a worker beyond what all share, and memory for everything else."""
MAX_TIME_SCALE = 64.0


def available_gb() -> float:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / 1e9
    return float("inf")


def plan_for(nodes: int | None) -> tuple[Plan, str]:
    """The published plan, or our plan for as many of its machines as are asked for or fit, with a description of it."""
    published = published_run(SETUP, MODEL, "helix", MODE).plans()[0]
    every = [node.name for node in published.cluster.nodes]
    fitting = int((available_gb() - OWN_GB) / WORKER_GB)
    count = min(nodes or len(every), fitting, len(every))
    if count == len(every):
        return published, f"all {count} machines, the published placement and flow"
    part = published.cluster.subset(spread(published, count))
    why = "asked for" if nodes and nodes <= fitting else "fit into this machine's memory"
    model = published.model
    return hk.plan(part, model, time_limit_s=60), f"only {count} of {len(every)} machines ({why}), planned by helix_kit"


def spread(plan: Plan, count: int) -> list[str]:
    """`count` machines, of every kind in proportion; the remainder goes to the kinds with most memory."""
    by_kind: dict[str, list[str]] = {}
    for node in sorted(plan.cluster.nodes, key=lambda n: -plan.cluster.gpu(n.gpu).memory_gb):
        by_kind.setdefault(node.kind, []).append(node.name)
    order = sorted(
        ((i + 0.5) / len(names), rank, name)
        for rank, names in enumerate(by_kind.values())
        for i, name in enumerate(names)
    )
    return [name for _, _, name in order[:count]]


def workers_gb(pids: list[int]) -> float:
    """Memory of the workers, with shared pages counted once (their proportional set sizes)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total / 1e9


def run_real(plan: Plan, requests: Workload, duration_s: float, scale: float, seed: int) -> tuple[hk.Run, dict]:
    began = time.monotonic()
    with emulate(plan, time_scale=scale, threads=1, seed=seed) as engine:
        up_s = time.monotonic() - began
        workers = engine.status().workers
        assert len({worker.pid for worker in workers.values()}) == len(plan.placement)
        memory_gb = workers_gb([worker.pid for worker in workers.values()])
        run = engine.replay(requests, seed=seed, max_seconds=duration_s)
    return run, {"workers": len(workers), "start_s": up_s, "memory_gb": memory_gb}


def measures(run: hk.Run, duration_s: float) -> dict[str, float]:
    """Tokens/s over the whole window and over its second half, which has more requests in flight, and latencies."""
    times = [t for record in run.records for t in record.token_times_s[1:] if t <= duration_s]
    late = [t for t in times if t > duration_s / 2]
    return {
        "decode tokens/s": len(times) / duration_s,
        "decode tokens/s, second half": len(late) / (duration_s / 2),
        **latency_percentiles(run.summary()),
    }


def document(facts: dict[str, Any], pairs: dict[str, tuple[float, float]]) -> str:
    table = "\n".join(ratio_table(pairs, "simulated (`range`)", "real processes"))
    f = facts
    took = f"{f['duration_s']:.0f} emulated seconds took {f['wall_s']:.0f} s on {f['machine']} ({f['cores']} cores)"
    stream_of = f"the first {f['duration_s']:.0f} s of the published stream (single cluster, online)"
    return f"""# The published cluster as real processes
Written by `{f["command"]}`; see that file for what is real and what is declared.

- **Cluster**: {f["nodes"]}.
- **Processes**: {f["workers"]} workers, over which requests took {f["used_pipelines"]} different pipelines.
- **Model**: a stand-in for {MODEL} with its 80 layers, 16 wide.
- **Requests**: {stream_of}: {f["requests"]} requests, of which {f["finished"]} finished in that time.
- **Time scale**: {f["time_scale"]:g}: {took}.
- **Late steps**: {f["overrun_share"]:.2%} of {f["steps"]} (a run with over 2 % does not count{f["refused"]}).
- **Memory of the workers**: {f["memory_gb"]:.1f} GB together; up after {f["start_s"]:.0f} s.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=200.0, help="of this machine, for the replay")
    parser.add_argument("--time-scale", type=float, default=8.0, help="the first to try")
    parser.add_argument("--nodes", type=int, help="machines at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="document to write, e.g. docs/emulation.md")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    plan, label = plan_for(options.nodes)
    everything = published_run(SETUP, MODEL, "helix", MODE).subclusters[0].requests()
    scale, refused = options.time_scale, []
    while True:
        duration_s = options.seconds / scale
        requests = Workload(tuple(r for r in everything if r.arrival_s < duration_s), everything.source)
        print(f"{label}; {len(requests)} requests in {duration_s:.0f} s, time scale {scale:g}", flush=True)
        began = time.monotonic()
        try:
            run, facts = run_real(plan, requests, duration_s, scale, options.seed)
            break
        except OverrunError as error:
            print(error, flush=True)
            refused.append(f"{scale:g}")
            scale *= 2
            if scale > MAX_TIME_SCALE:
                raise
    simulated = simulate(
        plan, requests, execution="range", warmup_s=0.0, duration_s=duration_s, seed=options.seed, record_tokens=True
    )
    sim, real = measures(simulated, duration_s), measures(run, duration_s)
    pairs = {name: (sim[name], real[name]) for name in sim}
    facts |= {
        "command": f"python {' '.join(sys.argv)}",
        "nodes": label,
        "used_pipelines": len({record.pipeline for record in run.records if record.pipeline}),
        "requests": len(requests),
        "finished": run.summary()["finished"],
        "duration_s": duration_s,
        "time_scale": scale,
        "wall_s": time.monotonic() - began,
        "machine": device_name("cpu"),
        "cores": os.cpu_count(),
        "overrun_share": run.facts["overrun_share"],
        "steps": run.facts["steps"],
        "refused": f"; refused at scale {', '.join(refused)}" if refused else "",
    }
    text = document(facts, pairs)
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    write_json(options.json, {"facts": facts, "simulated and real": pairs})


if __name__ == "__main__":
    main()
