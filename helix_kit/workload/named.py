"""Workloads by name, as commands take them, and the load that a plan gets where none is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helix_kit import _files
from helix_kit._deprecation import renamed_keywords
from helix_kit.errors import InputError
from helix_kit.typical_request import TRACE_TOKENS
from helix_kit.workload import samplers
from helix_kit.workload.request import row_of
from helix_kit.workload.workload import MEAN_SECONDS_A_REQUEST, Workload

if TYPE_CHECKING:
    from helix_kit.placement.plan import Plan

SHARING: dict[str, Callable[..., Workload]] = {
    "shared-prompts": Workload.shared_prompts,
    "conversations": Workload.conversations,
}
"""Prompts that begin alike; a request is one prompt."""
SAMPLED = {"azure-conversation": Workload.azure_conversation, "azure-code": Workload.azure_code}
SYNTHETIC = {"poisson": Workload.poisson, "constant": Workload.constant}
PAPER_LOAD = 0.75
"""Default online load as a share of the plan's flow (Helix, section 6.2)."""

_OLD_NAMES = renamed_keywords(rate="rate_per_s", duration="duration_s")


def backlog_size(plan: Plan, duration_s: float, tokens_per_request: float = TRACE_TOKENS) -> int:
    """Requests that keep a plan's cluster full for so long: what its flow serves, and what its KV caches hold.

    At least 20 a second, more than any of the published clusters serves (`MEAN_SECONDS_A_REQUEST`).
    """
    kinds = plan.problem.kind_of
    held = sum(plan.profiles[kinds[n]].kv_capacity(end - start) for n, (start, end) in plan.placement.items())
    served = plan.flow_tokens_per_s * duration_s / tokens_per_request
    wanted = max(served + held / plan.model.num_layers / tokens_per_request, duration_s / MEAN_SECONDS_A_REQUEST)
    return int(np.ceil(wanted))


@_OLD_NAMES
def make_workload(
    name_or_path: str | Path,
    plan: Plan,
    *,
    mode: str = "online",
    rate_per_s: float | None = None,
    duration_s: float = 600.0,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    time_unit: str | None = None,
) -> Workload:
    """The workload that the command line's ``--workload`` and ``--trace`` mean.

    Parameters
    ----------
    name_or_path
        azure-conversation, azure-code, poisson, constant, shared-prompts or conversations, or the path of a trace file.
    plan
        Its flow decides the default rate.
    mode
        ``online``: requests arrive over time. ``offline``: requests of the same lengths all arrive at time 0; of a
        name as many as the plan's flow serves in `duration_s` and its KV caches hold.
    rate_per_s
        Requests/s. None: 75 % of the plan's flow for a name (Helix, section 6.2), and a trace's own arrivals.
    duration_s
        Arrivals of a name lie in [0, duration_s).
    seed
        The same seed gives the same requests.
    columns, time_unit
        Of a trace file, as for `Workload.from_trace`.

    Returns
    -------
    Workload
        The requests.

    Raises
    ------
    InputError
        There is no such name or file, or the file is not a trace.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, Plan, Problem
    >>> problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    >>> plan = Plan.from_placement(problem, {problem.cluster.nodes[0].name: (0, 15)}, method="hand")
    >>> len(make_workload("constant", plan, rate_per_s=2, duration_s=5))
    10
    """
    name = str(name_or_path)
    if name in SHARING:
        workload = _sharing(name, plan, rate_per_s, duration_s, seed)
    elif name in SAMPLED or name in SYNTHETIC:
        own_tokens = sum(samplers.mean_lengths(name.replace("-", "_"))) if name in SAMPLED else TRACE_TOKENS
        # The conversations' mean is the trace's own, as in the paper.
        tokens = TRACE_TOKENS if name == "azure-conversation" else own_tokens
        rate = rate_per_s or PAPER_LOAD * plan.flow_tokens_per_s / tokens
        if mode == "offline" and name in SAMPLED:
            return Workload.offline(backlog_size(plan, duration_s, own_tokens), seed=seed, like=name)
        if mode == "offline":
            rate = backlog_size(plan, duration_s) / duration_s
        if name in SAMPLED:
            return SAMPLED[name](rate, duration_s, seed=seed)
        workload = (
            Workload.constant(rate, duration_s) if name == "constant" else Workload.poisson(rate, duration_s, seed=seed)
        )
    elif Path(name).suffix in {".csv", ".jsonl", ".json"} or _files.exists(name):
        workload = Workload.from_trace(name, columns=columns, time_unit=time_unit)
        workload = workload.scaled(rate_per_s) if rate_per_s and mode == "online" else workload
    else:
        raise InputError(
            _files.unknown("workload", name, [*SAMPLED, *SYNTHETIC, *SHARING]) + ", or a trace file (.csv, .jsonl)",
            field="workload",
        )
    if mode == "offline":
        rows = (row_of(r, 0.0) for r in workload)
        return Workload.of(rows, f"{workload.source}, offline", workload.notes)
    return workload


def _sharing(name: str, plan: Plan, rate_per_s: float | None, duration_s: float, seed: int) -> Workload:
    """A workload of prompts that begin alike; its default rate is what the flow serves without a cache."""
    make = SHARING[name]
    probe = make(1.0, 600.0, seed=0)
    per_start = len(probe) / 600.0
    mean_tokens = sum(r.input_tokens + r.output_tokens for r in probe) / len(probe)
    rate = rate_per_s or PAPER_LOAD * plan.flow_tokens_per_s / mean_tokens
    return make(rate / per_start, duration_s, seed=seed)
