"""How many candidates a search for a served plan simulates, and what its plan serves, for so much CPU time.

    python benchmarks/bench_candidates.py [--cpu 120] [--clusters single24 ...] [--model NAME] [-o FILE]
    python benchmarks/bench_candidates.py --against FOLDER [--against-execution layerwise]

`--against` is a checkout of another commit, which runs the same searches with its own code. A search runs in one
process, and its clock counts the CPU seconds of that process in place of seconds, so that other programs on the machine
change nothing. Compiling and loading the simulator come before. Candidates of the last comparison are not counted. The
plans of both commits are simulated again by this code, over ten minutes from empty caches, on streams of requests that
no search has used.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
CLUSTERS = ("single24", "geo24", "hetero42")
JUDGE_SEEDS = (2001, 2002)
HEAD = """| cluster | model | code | rules | CPU s | candidates | CPU s each | tokens/s again |
|---|---|---|---|---:|---:|---:|---:|
"""


def cpu_s() -> float:
    """CPU seconds of this process."""
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime


def search(cluster: str, model: str, execution: str | None, limit_s: float, seed: int, file: Path) -> dict[str, Any]:
    """Run one search on a clock of CPU seconds with the code that this process has imported."""
    import helix_kit as hk
    from helix_kit.placement import watch

    rules = {} if execution is None else {"execution": execution}
    small = hk.Cluster.model_validate({"name": "two", "nodes": [{"gpu": "A100-40G", "count": 2}]})
    tiny = hk.Model.preset("SmolLM2-135M")
    hk.plan(small, tiny, objective="served", time_limit_s=10.0, max_simulations=1, jobs=1, **rules)
    watch.time = types.SimpleNamespace(perf_counter=cpu_s, monotonic=time.monotonic)  # type: ignore[attr-defined]
    begun_s = cpu_s()
    plan = hk.plan(cluster, model, objective="served", time_limit_s=limit_s, jobs=1, seed=seed, **rules)
    assert plan.served is not None, "a plan of objective served"
    file.write_text(json.dumps({"placement": plan.placement, "flow": [list(edge) for edge in plan.flow]}))
    return {"cpu_s": cpu_s() - begun_s, "candidates": plan.served.simulations, "execution": plan.served.execution}


def searched(args: argparse.Namespace, cluster: str, code: Path, execution: str | None, file: Path) -> dict[str, Any]:
    """The result of `search` in a process that imports the code in a folder."""
    command = [
        sys.executable, __file__, "--search", cluster, "--model", args.model, "--cpu", str(args.cpu), "--seed",
        str(args.seed), "--file", str(file), *(["--execution", execution] if execution else []),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=code, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def again(cluster: str, model: str, file: Path, execution: Literal["range", "layerwise"]) -> float:
    """Decode tokens/s of a plan by this code, over ten minutes from empty caches."""
    import helix_kit as hk
    from helix_kit.cluster import load_cluster
    from helix_kit.flow import Flow
    from helix_kit.model import load_model
    from helix_kit.simulator import score

    kept = json.loads(file.read_text())
    edges = {(source, target): rate for source, target, rate in kept["flow"]}
    flow = Flow(sum(rate for (source, _), rate in edges.items() if source == hk.cluster.COORDINATOR), edges, {}, ())
    placement = {name: (start, end) for name, (start, end) in kept["placement"].items()}
    problem = hk.Problem.of(load_cluster(cluster), load_model(model))
    plan = hk.Plan.from_placement(problem, placement, method="search", flow=flow)
    runs = [score(plan, execution=execution, duration_s=600.0, seed=seed) for seed in JUDGE_SEEDS]
    return sum(run.decode_tokens_per_s for run in runs) / len(runs)


def rows(args: argparse.Namespace) -> list[str]:
    """A line for each search."""
    codes = [("this", ROOT, args.execution)]
    if args.against is not None:
        commit = subprocess.run(
            ["git", "-C", str(args.against), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        codes.insert(0, (commit.stdout.strip(), args.against.resolve(), args.against_execution))
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for cluster in args.clusters:
            for name, code, execution in codes:
                file = Path(folder) / f"{Path(cluster).stem}-{name}.json"
                found = searched(args, cluster, code, execution, file)
                each_s = found["cpu_s"] / max(1, found["candidates"])
                served = again(cluster, args.model, file, args.execution or "range")
                lines.append(
                    f"| {Path(cluster).stem} | {args.model} | {name} | {found['execution']} | {found['cpu_s']:.0f} | "
                    f"{found['candidates']} | {each_s:.2f} | {served:.1f} |"
                )
                print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run the searches and print the table, or run the one search that another process asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", nargs="*", default=list(CLUSTERS), help="presets or cluster files")
    parser.add_argument("--model", default="llama2-70b")
    parser.add_argument("--cpu", type=float, default=120.0, help="CPU seconds of each search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--execution", choices=["range", "layerwise"], help="rules; default: those of each code")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="a checkout of another commit")
    parser.add_argument("--against-execution", choices=["range", "layerwise"], help="its rules")
    parser.add_argument("-o", "--output", type=Path, help="append the table's lines to this file")
    parser.add_argument("--search", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.search is not None:
        print(json.dumps(search(args.search, args.model, args.execution, args.cpu, args.seed, args.file)))
        return
    print(HEAD, end="")
    lines = rows(args)
    if args.output is not None:
        before = args.output.read_text() if args.output.exists() else HEAD
        args.output.write_text(before + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
