"""Promises about seconds, checked on a machine without other work: limits are kept, a stop is heard, imports are light.

    python benchmarks/bench_clock.py [--only NAME ...] [-o FILE]

The tests of `make test` count work and hold no seconds, because other programs may have the cores while they run. The
program ends with status 1 when a promise is broken. Everything takes about ten minutes on two cores, of which the
notebooks take five.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import helix_kit as hk
from helix_kit.experiments.figures.common.synthetic import synthetic_cluster

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK_PATIENCE = 2.0
"""A machine slower than the one that the notebooks' seconds were measured on may take so many times as long."""
ALL_NOTEBOOKS_S = 600.0


class Promise(NamedTuple):
    """What was promised, and what was seen."""

    what: str
    limit_s: float
    seconds: float


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def small_model() -> hk.Model:
    """A model of 7 billion parameters, which fits many nodes whole."""
    return hk.Model(
        name="small", num_layers=28, hidden_size=3584, num_heads=28, num_kv_heads=4, intermediate_size=18944,
        vocab_size=152064,
    )  # fmt: skip


def fast_cluster() -> hk.Cluster:
    """Forty tokens/s a request and hundreds of requests at once: ten simulated minutes take far longer than a plan."""
    nodes = [{"gpu": "H100-80G", "count": 2}, {"gpu": "A100-40G", "count": 4}, {"gpu": "L4", "count": 4}]
    return hk.Cluster.model_validate({"name": "fast", "nodes": nodes})


def stopped_after(seconds: float, **call: object) -> float:
    """Seconds from a stop to the plan."""
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    took_s = seconds_of(lambda: hk.plan(stop=stop, **call))  # type: ignore[arg-type]
    return took_s - seconds


def flow() -> Iterator[Promise]:
    """Plans for the flow keep the clock, also where the last flow takes seconds."""
    two_regions = synthetic_cluster(40, regions=2)
    limit_s = 4.0
    took_s = seconds_of(lambda: hk.plan(two_regions, "qwen3-32b", time_limit_s=limit_s))
    yield Promise("40 nodes, flow, limit 4 s", 1.1 * limit_s + 2, took_s)
    limit_s = 12.0
    took_s = seconds_of(lambda: hk.plan(synthetic_cluster(1000, regions=5), "llama2-70b", time_limit_s=limit_s))
    yield Promise("1000 nodes, flow, limit 12 s", 1.1 * limit_s + 2, took_s)
    yield Promise(
        "40 nodes, flow, from stop to plan", 1.0,
        stopped_after(2.0, cluster=two_regions, model="qwen3-32b", time_limit_s=60.0),
    )  # fmt: skip


def served() -> Iterator[Promise]:
    """Plans for what is served keep the clock where a simulation is dear."""
    case = {"cluster": fast_cluster(), "model": small_model(), "objective": "served"}
    for limit_s in (5.0, 20.0):
        took_s = seconds_of(lambda limit_s=limit_s: hk.plan(**case, time_limit_s=limit_s))
        yield Promise(f"served, limit {limit_s:.0f} s", 1.1 * limit_s + 2, took_s)
    yield Promise("served, from stop to plan", 1.0, stopped_after(12.0, **case, time_limit_s=60.0))


def seconds_after_ctrl_c(after_s: float, *args: str) -> float:
    """Seconds from Ctrl-C in the middle of a command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        program = subprocess.Popen(
            [sys.executable, "-m", "helix_kit", *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, cwd=folder,
        )  # fmt: skip
        time.sleep(after_s)
        assert program.poll() is None, f"{args[0]} ended by itself"
        os.killpg(program.pid, signal.SIGINT)
        return seconds_of(program.wait)


def stops() -> Iterator[Promise]:
    """Ctrl-C is heard within a second, whatever a command does then."""
    on = ("hetero42", "--model", "llama2-70b", "--time-limit", "300")
    commands = {
        "plan, flow": ("plan", *on, "--objective", "flow"),
        "plan, served": ("plan", *on),
        "plan, paper-milp": ("plan", *on, "--method", "paper-milp"),
        "evaluate": ("evaluate", *on, "--methods", "petals,served"),
        "reproduce": ("reproduce", "geo-distributed"),
        "reproduce, two jobs": ("reproduce", "geo-distributed", "high-heterogeneity", "--jobs", "2"),
    }
    for name, command in commands.items():
        for after_s in (3.0, 9.0):
            yield Promise(f"{name}, Ctrl-C after {after_s:.0f} s", 1.0, seconds_after_ctrl_c(after_s, *command))


def imports() -> Iterator[Promise]:
    """`import helix_kit` in a process of its own."""
    code = "import time; t = time.perf_counter(); import helix_kit; print(time.perf_counter() - t)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    yield Promise("import helix_kit", 1.0, float(shown))


def notebooks() -> Iterator[Promise]:
    """Each notebook with FAST=1 takes about as long as its first cell says."""
    import nbformat
    from nbmake.nb_run import NotebookRun

    os.environ["FAST"] = "1"
    total_s = 0.0
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        promise = re.search(r"(\d+) s with `FAST=1`", nbformat.read(path, as_version=4).cells[0].source)
        took_s = seconds_of(lambda path=path: NotebookRun(path, default_timeout=300, kernel="python3").execute())
        total_s += took_s
        if promise is not None:
            yield Promise(f"notebook {path.stem}", NOTEBOOK_PATIENCE * float(promise[1]), took_s)
    yield Promise("all notebooks", ALL_NOTEBOOKS_S, total_s)


SECTIONS: dict[str, Callable[[], Iterator[Promise]]] = {
    "imports": imports, "flow": flow, "served": served, "stops": stops, "notebooks": notebooks,
}  # fmt: skip


def main() -> int:
    """Check the sections, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=sorted(SECTIONS), default=list(SECTIONS))
    parser.add_argument("-o", "--output", type=Path, help="write the table to a file")
    args = parser.parse_args()
    lines = ["| promise | limit, s | seconds | |", "|---|---:|---:|---|"]
    broken = 0
    for name in args.only:
        for promise in SECTIONS[name]():
            kept = promise.seconds <= promise.limit_s
            broken += not kept
            lines.append(
                f"| {promise.what} | {promise.limit_s:.1f} | {promise.seconds:.1f} | {'kept' if kept else 'BROKEN'} |"
            )
            print(lines[-1], flush=True)
    if args.output:
        args.output.write_text("\n".join(lines) + "\n")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
