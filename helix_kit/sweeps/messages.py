"""What a sweep and its worker processes send each other: a header with plans and options, then one line a point."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from helix_kit.metrics import SLO
from helix_kit.sweeps.load import SweepOptions
from helix_kit.workload.workload import Workload


def header_line(plan_files: dict[str, str], options: SweepOptions, workload_file: str | None) -> str:
    """The first line to a worker: files of the plans, and the options."""
    plain = {
        "policy": options.policy, "execution": options.execution, "warmup_s": options.warmup_s,
        "duration_s": options.duration_s,
    }  # fmt: skip
    slo = asdict(options.slo) if options.slo else None
    named = None if workload_file else options.workload
    return json.dumps({"plans": plan_files, "options": plain, "slo": slo, "name": named, "workload": workload_file})


def options_of(header: dict[str, Any]) -> SweepOptions:
    """The options of a header line."""
    workload = Workload.from_csv(header["workload"]) if header["workload"] else header["name"]
    slo = SLO(**header["slo"]) if header["slo"] else None
    return SweepOptions(workload=workload, slo=slo, **header["options"])
