"""The plans behind the table of served plans, as stored in ``data/served_plans``: small files, one for each row.

A file holds placement and flow, so what the plan serves can be measured again without a search, whatever the search has
become since. `found` says how it was found.

>>> max(end for _, end in served_plan("offline", "geo24", "llama2-70b").placement.values())
80
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helix_kit import _files
from helix_kit.cluster import Cluster
from helix_kit.errors import InputError
from helix_kit.flow import Flow
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem


def plan_file(section: str, cluster: str, model: str) -> Path:
    """Where the plan of a row is stored."""
    return _files.data_dir() / "served_plans" / f"{section}-{cluster}-{model}.json"


def has_plan(section: str, cluster: str, model: str) -> bool:
    """Whether the plan of a row is stored."""
    return plan_file(section, cluster, model).is_file()


def served_plan(section: str, cluster: str, model: str) -> Plan:
    """The stored plan of a row; raises InputError if there is none."""
    data = _read(section, cluster, model)
    edges = {(source, target): float(rate) for source, target, rate in data["flow"]}
    flow = Flow(sum(rate for (source, _), rate in edges.items() if source == "coordinator"), edges, {}, ())
    placement = {name: (start, end) for name, (start, end) in data["placement"].items()}
    problem = Problem.of(Cluster.preset(cluster), Model.preset(model))
    return Plan.from_placement(problem, placement, method="search", flow=flow, flow_split=data["flow_split"])


def found(section: str, cluster: str, model: str) -> dict[str, Any]:
    """How the stored plan of a row was found: date, seconds, simulations, seeds, limits on latency, version."""
    return dict(_read(section, cluster, model)["found"])


def store_plan(section: str, plan: Plan, how: dict[str, Any]) -> Path:
    """Store the plan of a row; `how` says how it was found."""
    path = plan_file(section, plan.cluster.name, plan.model.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {
        "flow_split": plan.flow_split,
        "found": how,
        "placement": {name: list(span) for name, span in plan.placement.items()},
        "flow": [[source, target, round(rate, 3)] for source, target, rate in plan.flow],
    }
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in rows.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return path


def _read(section: str, cluster: str, model: str) -> dict[str, Any]:
    path = plan_file(section, cluster, model)
    if not path.is_file():
        raise InputError(
            "no such plan; `python benchmarks/bench_served.py --search` finds and stores it", where="served plans",
            field="file", value=path.name,
        )  # fmt: skip
    data: dict[str, Any] = _files.read_json(path)
    return data
