"""Plans read from files: what follows from the placement is worked out again, and compared."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import helix_kit as hk
from helix_kit.errors import InputError
from helix_kit.placement.plan import Plan
from helix_kit.placement.plan_check import DERIVED


@pytest.fixture(scope="module")
def saved(overlapping_plan: Plan) -> dict[str, Any]:
    return json.loads(overlapping_plan.to_json())


@pytest.fixture
def load(tmp_path: Path) -> Callable[[dict[str, Any]], Plan]:
    def write_and_load(data: dict[str, Any]) -> Plan:
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(data))
        return Plan.load(path)

    return write_and_load


def edited(saved: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a path such as ``placement.T4-0``."""
    data = copy.deepcopy(saved)
    *outer, last = field.split(".")
    at: Any = data
    for name in outer:
        at = at[int(name)] if isinstance(at, list) else at[name]
    at[int(last) if isinstance(at, list) else last] = value
    return data


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("placement.T4-0", [18, 31], r"placement\.T4-0 = \[18, 31\]: expected 0 <= start < end <= 30"),
        ("placement.T4-0", [20, 20], r"placement\.T4-0 = \[20, 20\]: expected 0 <= start < end <= 30"),
        ("placement.T4-0", [18, 29.5], r"placement\.T4-0\[1\] = 29\.5: expected a whole number"),
        ("placement.T4-7", [0, 3], r"unknown node 'T4-7': did you mean T4-"),
        ("placement", {}, r"placement: expected the layer range of at least one node"),
        ("placement", {"T4-0": [0, 12], "A10G-0": [13, 29]}, r"placement: no node holds layers \[12, 13\), \[29, 30\)"),
        ("model.num_layers", 31, r"placement: no node holds layers \[30, 31\) of tiny's 31"),
        ("model.num_layers", 24, r"placement\.A10G-0 = \[12, 30\]: expected 0 <= start < end <= 24"),
        ("model.name", "other", r"profiles\.[\w-]+\.model = 'tiny': expected 'other', the plan's model"),
        # A range of another length has another speed, and one of the same length has other neighbours.
        ("placement.T4-0", [19, 30], r"tokens_per_s\.T4-0 = [\d.]+: expected [\d.]+ with layers \[19, 30\]"),
        ("placement.T4-1", [1, 13], r"'T4-1', .*requests cannot take this link \(T4-1 holds \[1, 13\]\)"),
        ("partial_inference", False, r"flow = \['V100-16G-0', 'A10G-0'.*requests cannot take this link"),
        ("node_throughput_tokens_per_s", {}, r"node_throughput_tokens_per_s\.A10G-0: missing field"),
        ("node_throughput_tokens_per_s.T4-9", 1.0, r"T4-9 = 1\.0: the node is not in `placement`"),
        ("flow.0.2", 1e12, r"flow = \['coordinator', .*expected at most [\d.e+]+, which the link carries"),
        ("flow.0.2", 1.0, r"flow = '[\w-]+': 1[\d.]* tokens/s enter this node and [\d.]+ leave it"),
        ("flow.0.2", float("nan"), r"flow"),
        ("flow.0", ["coordinator", "T4-1", -1.0], r"flow: \[coordinator, T4-1, -1\.0\] is not a link"),
        ("flow", [], r"flow_tokens_per_s = [\d.]+: expected 0, the sum of `flow`"),
        ("flow_tokens_per_s", 1e6, r"flow_tokens_per_s = 1000000\.0: expected [\d.]+, the sum of `flow`"),
        ("flow_tokens_per_s", float("nan"), r"flow_tokens_per_s = nan: expected [\d.]+"),
        ("gap", 0.0, r"gap = 0\.0: expected [\d.]+, which is \(bound - flow\) / flow"),
        ("bound_tokens_per_s", -5.0, r"bound_tokens_per_s = -5\.0: expected a finite number"),
        ("bounds", {"B1": 1.0}, r"bound_tokens_per_s = [\d.]+: expected 1, the least of `bounds`"),
        ("cluster.network.within_region.bandwidth_gbps", 1e-4, r"expected at most [\d.]+, which the link carries"),
        ("schema_version", 99, r"schema_version 99: this version reads 1"),
    ],
)  # fmt: skip
def test_an_edit_that_contradicts_the_rest_is_named(
    saved: dict[str, Any], load: Callable[[dict[str, Any]], Plan], field: str, value: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        load(edited(saved, field, value))
    assert "plan.json: " in str(error.value)


def test_a_flow_that_its_links_could_exceed_is_stale(
    saved: dict[str, Any], load: Callable[[dict[str, Any]], Plan]
) -> None:
    """All of a plan's flow halved is a flow that every machine can carry, and not the maximum flow of the plan."""
    data = copy.deepcopy(saved)
    data["flow"] = [[a, b, rate / 2] for a, b, rate in data["flow"]]
    data["flow_tokens_per_s"] /= 2
    whole = saved["flow_tokens_per_s"]
    with pytest.raises(InputError, match=rf"flow_tokens_per_s = .*: expected {whole:.6g}, the maximum flow"):
        load(data)


@pytest.mark.parametrize("left_out", [DERIVED, ("flow",), ("gap", "bound_tokens_per_s")])
def test_fields_that_are_left_out_are_computed(
    saved: dict[str, Any], load: Callable[[dict[str, Any]], Plan], overlapping_plan: Plan, left_out: tuple[str, ...]
) -> None:
    plan = load({name: value for name, value in saved.items() if name not in left_out})
    assert plan.flow == overlapping_plan.flow and plan.gap == overlapping_plan.gap
    assert plan.node_throughput_tokens_per_s == overlapping_plan.node_throughput_tokens_per_s
    assert "flow computed when the file was read" in plan.notes[-1]


def test_a_placement_edited_by_hand_gets_its_own_flow(
    saved: dict[str, Any], load: Callable[[dict[str, Any]], Plan]
) -> None:
    data = {name: value for name, value in saved.items() if name not in DERIVED}
    data["placement"] = {"V100-16G-0": [0, 18], "A10G-0": [18, 30]}
    data["served"] = {"decode_tokens_per_s": 1234.0}
    plan = load(data)
    expected = plan.problem.max_flow({"V100-16G-0": (0, 18), "A10G-0": (18, 30)})
    assert plan.flow_tokens_per_s == expected.tokens_per_s > 0
    assert plan.served is None  # what another placement served
    with pytest.raises(InputError, match=r"no node holds layers \[18, 19\)"):
        load({**data, "placement": {"V100-16G-0": [0, 18], "A10G-0": [19, 30]}})


@pytest.mark.parametrize(
    ("method", "options"), [("pattern", {}), ("swarm", {}), ("separate", {"flow_split": "any"}), ("separate-plus", {})]
)
def test_plans_of_every_method_are_read_back(tmp_path: Path, method: str, options: dict[str, str]) -> None:
    """Also those that keep requests to some of the links."""
    plan = hk.plan("single24", "llama-30b", method=method, time_limit_s=10.0, **options)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_a_plan_that_spares_slow_machines_is_read_back(tmp_path: Path) -> None:
    """Its flow is below the maximum on purpose; see `helix_kit.search.capacity_shares`."""
    from helix_kit.placement.problem import Problem
    from helix_kit.placement.served import Served
    from helix_kit.search.capacity_shares import flow_with_shares

    problem = Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama-30b"))
    placement = dict(hk.plan("single24", "llama-30b", method="separate").placement)
    shares = {"L4": 0.3, "T4": 0.2}
    flow = flow_with_shares(problem, placement, shares)
    plan = Plan.from_placement(problem, placement, method="search", flow=flow, served=Served(ease=shares))
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_throughputs_of_an_authors_own_are_read_back(
    tmp_path: Path, overlapping_plan: Plan, load: Callable[[dict[str, Any]], Plan]
) -> None:
    """`plan_problem` takes a problem with throughputs of one's own, which the profiles do not give."""
    problem = dataclasses.replace(
        overlapping_plan.problem,
        throughput_by_kind={
            k: tuple(t / 3 for t in ts) for k, ts in overlapping_plan.problem.throughput_by_kind.items()
        },
    )
    plan = Plan.from_placement(problem, dict(overlapping_plan.placement), method="hand")
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    data = json.loads(plan.to_json())
    del data["checksum"]  # as files of the first version
    assert load(data) == plan
    with pytest.raises(InputError, match=r"flow_tokens_per_s = .*the sum of `flow`"):
        load({**data, "flow_tokens_per_s": 1e6})
    with pytest.raises(InputError, match=r"flow = '[\w-]+': expected at most"):
        load({**data, "node_throughput_tokens_per_s": dict.fromkeys(plan.placement, 1.0), "flow": data["flow"]})


def test_a_file_may_be_laid_out_anew_and_named_otherwise(
    saved: dict[str, Any], tmp_path: Path, overlapping_plan: Plan
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(dict(sorted(saved.items(), reverse=True))))
    assert Plan.load(path) == overlapping_plan
    path.write_text(json.dumps({**saved, "notes": ["mine"], "checksum": "of another"}))
    assert Plan.load(path).notes == ("mine",)
    assert Plan.model_validate_json(overlapping_plan.to_json()) == overlapping_plan
