"""Simulations that are kept: if one figure has run a simulation, the next figure reads its outcome.

Several figures ask for the same simulation (plan, requests, rules, window, seed); the offline run of Helix's published
plan stands in four of them. What figures need of a run (`Outcome`) is kept in ``FOLDER/.cache`` under a digest of
everything that it depends on, including the code of the simulator. A second process that asks for the same simulation
waits for the first. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit import _files
from helix_kit.experiments.figures.common.metrics import metrics_of
from helix_kit.experiments.figures.common.simulation import Simulation, run_together
from helix_kit.experiments.machinery import digests
from helix_kit.placement.plan import Plan
from helix_kit.workload import Workload

if TYPE_CHECKING:
    from helix_kit.experiments.machinery.registry import Context

FAST_SHARE = 0.1
"""The share of the time that a fast run simulates."""
CACHE = ".cache"
PLAN_FIELDS = {
    "cluster",
    "model",
    "profiles",
    "placement",
    "partial_inference",
    "flow",
    "node_throughput_tokens_per_s",
}
"""Fields of a plan that a simulation depends on."""


@dataclass(frozen=True)
class Outcome:
    """What figures need of a run."""

    metrics: dict[str, float]
    """Values by their published names, such as ``decode_tokens_per_s`` and ``prompt_latency_p50_s``."""
    nodes: dict[str, dict[str, float]]
    """Node -> the fields of `helix_kit.report.NodeUse`."""


def simulated(simulations: Sequence[Simulation], context: Context) -> Outcome:
    """The outcome of a simulation, or of several separate subclusters of a cluster together.

    Durations are given in full; a fast `context` shortens them.
    """
    if context.fast:
        simulations = [replace(one, duration_s=one.duration_s * FAST_SHARE) for one in simulations]
    path = context.folder / CACHE / f"{simulation_digest(simulations)}.json"
    with locked(path):
        if not path.is_file():
            _files.write_whole(path, json.dumps(asdict(_outcome_of(simulations))).encode())
        # The process that has just written the file reads it too, so that both see the same digits.
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))


def _outcome_of(simulations: Sequence[Simulation]) -> Outcome:
    run = run_together(list(simulations))
    return Outcome(metrics_of(run), {name: asdict(use) for name, use in run.nodes.items()})


def simulation_digest(simulations: Sequence[Simulation]) -> str:
    """Digest of the simulator's code and of everything that the simulations depend on."""
    digest = hashlib.sha256(digests.code_digest("helix_kit.simulator").encode())
    for simulation in simulations:
        for name, value in sorted(vars(simulation).items()):
            digest.update(f"{name}={_content(value)}\n".encode())
    return digest.hexdigest()[:24]


def _content(value: Any) -> str:
    """A value as text, without what does not change a simulation: names of workloads, methods and times of plans."""
    if isinstance(value, Plan):
        return value.model_dump_json(include=PLAN_FIELDS)
    if isinstance(value, Workload):
        return hashlib.sha256(repr(value.requests).encode()).hexdigest()
    if isinstance(value, Mapping):
        return json.dumps(sorted(value.items()))
    return repr(value)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time in. Without file locks (Windows) two may run the same simulation, with one result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
