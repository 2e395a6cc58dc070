"""Flow planning at scale: seconds, value, bound and gap for 100 to 1000 nodes, one region and five.

    python benchmarks/bench_plan.py [--nodes 100 300 1000] [--regions 1 5] [--solvers highs glpk] [-o FILE]

Clusters are made here: seven kinds of machine in the mix of the published 42-node cluster, drawn with a seed. Links
carry 10 Gbit/s within a region and 0.1 Gbit/s across, as in the published geo-distributed cluster.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
from pathlib import Path

import helix_kit as hk
from helix_kit.experiments.figures.common.synthetic import synthetic_cluster

PRESETS = [
    ("single24", "llama2-70b"), ("single24", "llama-30b"), ("geo24", "llama2-70b"), ("geo24", "llama-30b"),
    ("hetero42", "llama2-70b"), ("cluster10", "llama-30b"), ("8xL4", "llama-30b"),
]  # fmt: skip
SMALL = {
    "8xL4": {
        "name": "8xL4",
        "nodes": [{"gpu": "L4", "count": 8}],
        "network": {"within_region": {"bandwidth_gbps": 10, "latency_ms": 1}},
    }
}
"""Cases of the published comparison that are no preset."""


def case(name: str) -> hk.Cluster:
    """A preset, or one of the small cases."""
    return hk.Cluster.model_validate(SMALL[name]) if name in SMALL else hk.Cluster.preset(name)


def row(cluster: hk.Cluster, model: str, solver: str, time_limit_s: float) -> str:
    """One line of the table."""
    before = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    plan = hk.plan(cluster, model, solver=solver, time_limit_s=time_limit_s)
    after = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = sum(a.ru_utime + a.ru_stime - b.ru_utime - b.ru_stime for a, b in zip(after, before))
    regions = len({n.region for n in cluster.nodes})
    best = min(plan.bounds, key=lambda name: plan.bounds[name])
    return (
        f"| {cluster.name} | {model} | {len(cluster.nodes)} | {regions} | {solver} | {plan.flow_tokens_per_s:,.1f} | "
        f"{plan.bound_tokens_per_s:,.1f} ({best}) | {plan.gap:.2%} | {plan.seconds:.1f} | {cpu:.1f} |"
    )


def main() -> None:
    """Run the benchmark and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="*", default=[100, 300, 1000])
    parser.add_argument("--regions", type=int, nargs="*", default=[1, 5])
    parser.add_argument("--solvers", nargs="*", default=["highs", "glpk"])
    parser.add_argument("--time-limit", type=float, default=None, help="default: 60 s, with several regions 110 s")
    parser.add_argument("--no-presets", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    lines = [
        "| cluster | model | nodes | regions | solver | tokens/s | bound | gap | seconds | CPU seconds |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines), flush=True)

    def add(cluster: hk.Cluster, model: str, solver: str) -> None:
        several = len({n.region for n in cluster.nodes}) > 1
        lines.append(row(cluster, model, solver, args.time_limit or (110.0 if several else 60.0)))
        print(lines[-1], flush=True)
        loads.append(os.getloadavg()[0])

    loads = [os.getloadavg()[0]]
    for solver in args.solvers:
        for name, model in [] if args.no_presets else PRESETS:
            add(case(name), model, solver)
        # Several regions make a hundred programs and more: one solver is enough to see the scaling.
        for regions in args.regions if solver == args.solvers[0] else [r for r in args.regions if r == 1]:
            for nodes in args.nodes:
                add(synthetic_cluster(nodes, regions=regions), "llama2-70b", solver)
    if args.output:
        head = (
            "# Flow planning: value, bound, gap, seconds\n\n"
            "Written by `make bench-plan` (`benchmarks/bench_plan.py`): method `pattern`, objective `flow`. The name\n"
            "of the best bound stands beside it (`helix_kit/placement/bounds/` says what each proves).\n"
            f"One run of all rows, Python {platform.python_version()}, {platform.machine()}, one thread of "
            f"{os.cpu_count()} cores. The machine's load\naverage (1 would be this program alone) was {min(loads):.1f} "
            f"to {max(loads):.1f} over the run: the rest is other work, so CPU seconds\nsay more than seconds. Up to "
            "400 nodes\nin five regions plan for as long as they are given (110 s), unless the bound is reached or no "
            "set of regions\nis left; more end when no set promises a better plan.\n\n"
        )
        args.output.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
