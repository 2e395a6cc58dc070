"""Cost and energy of a plan, held against sums by hand."""

from __future__ import annotations

import pytest

from helix_kit import Cluster, Model, Plan, Problem, Workload, simulate
from helix_kit.analysis import compare, cost
from helix_kit.analysis.cost import Cost
from helix_kit.catalogue import gpus
from helix_kit.errors import InputError


@pytest.fixture(scope="module")
def two_regions() -> Plan:
    """Two H200 in two regions with half the model each, and an L4 without layers; egress costs 0.10 dollars a GB."""
    cluster = Cluster.model_validate(
        {
            "name": "priced",
            "nodes": [{"gpu": "H200-141G", "region": "us"}, {"gpu": "H200-141G", "region": "eu"},
                      {"gpu": "L4", "region": "eu"}],
            "network": {"between_regions": {"bandwidth_gbps": 1, "latency_ms": 50, "usd_per_gb": 0.1}},
            "prices": {"H200-141G": {"on_demand": 4.0, "spot": 1.5}, "L4": 0.5},
        }
    )  # fmt: skip
    problem = Problem.of(cluster, Model.preset("llama2-70b"))
    return Plan.from_placement(problem, {"H200-141G-0": (0, 40), "H200-141G-1": (40, 80)}, method="hand")


def test_a_price_of_zero_is_a_price(two_regions):
    def paid(**prices: float) -> Cost:
        cluster = two_regions.cluster.model_dump() | {"prices": {"H200-141G": prices}}
        problem = Problem.of(Cluster.model_validate(cluster), two_regions.model)
        return cost(Plan.from_placement(problem, dict(two_regions.placement), method="hand"))

    own = paid(on_demand=4.0, reserved=0.0, spot=0.0)
    assert (own.usd_per_hour, own.reserved_usd_per_hour, own.spot_usd_per_hour) == (8.0, 0.0, 0.0)
    free = Cost(input_tokens_per_s=10.0, output_tokens_per_s=10.0, usd_per_hour=0.0)
    assert "$0.000 a million tokens" in free.lines()["Per token"] and "for $1" not in free.lines()["Per token"]


def test_one_idle_machine_is_a_machine(two_regions):
    assert cost(two_regions).lines()["Idle"].startswith("1 machine without flow")


def test_machines_in_use_and_what_they_send_are_paid_for(two_regions):
    paid = cost(two_regions)
    flow, problem = two_regions.flow_tokens_per_s, two_regions.problem
    assert (paid.usd_per_hour, paid.reserved_usd_per_hour, paid.spot_usd_per_hour) == (8.0, 8.0, 3.0)
    assert paid.idle == ("L4-0",) and paid.idle_usd_per_hour == 0.5
    # Activations go from us to eu, token ids from eu to the coordinator in us.
    bytes_per_s = flow * (problem.link_bytes_per_token + two_regions.model.token_bytes)
    assert paid.egress_usd_per_hour == pytest.approx(bytes_per_s / 1e9 * 0.1 * 3600, rel=1e-3)
    total = 8.0 + paid.egress_usd_per_hour
    assert paid.usd_per_million_tokens == pytest.approx(total / 3600 / flow * 1e6)
    assert paid.tokens_per_s_per_usd == pytest.approx(flow / total)
    shares = 1 / paid.usd_per_million_input_tokens + 1 / paid.usd_per_million_output_tokens
    assert shares == pytest.approx(1 / paid.usd_per_million_tokens)


def test_power_is_that_of_the_machines_in_use(two_regions):
    paid = cost(two_regions, gco2_per_kwh=500)
    used = [two_regions.max_flow.utilisation((n, n)) for n in two_regions.placement]
    watts = sum(105 + (700 - 105) * share for share in used)  # 15 % of 700 W idle
    assert paid.power_w == pytest.approx(watts)
    joules = watts / two_regions.flow_tokens_per_s
    assert paid.joules_per_token == pytest.approx(joules)
    assert paid.tokens_per_s_per_mw == pytest.approx(1e6 / joules)
    assert paid.gco2_per_million_tokens == pytest.approx(joules * 1e6 / 3.6e6 * 500)
    with pytest.raises(InputError, match="gco2_per_kwh"):
        cost(two_regions, gco2_per_kwh=-1)


def test_a_run_is_paid_for_as_it_was_measured(two_regions):
    load = Workload.constant(rate_per_s=0.5, duration_s=60, input_tokens=300, output_tokens=60)
    run = simulate(two_regions, load, warmup_s=10, duration_s=50)
    summary, paid = run.summary(), cost(two_regions, run)
    assert paid.output_tokens_per_s == pytest.approx(summary["output_tokens_per_s"])
    assert paid.input_tokens_per_s == pytest.approx(summary["input_tokens_per_s"])
    busy = [use.busy for use in run.nodes.values()]
    assert paid.power_w == pytest.approx(sum(105 + 595 * share for share in busy))
    assert paid.usd_per_million_tokens > cost(two_regions).usd_per_million_tokens  # machines wait, and are paid for
    assert cost(two_regions, run).to_dict()["usd_per_hour"] == 8.0
    [row] = compare([two_regions], load, warmup_s=10, duration_s=50).to_dict("records")
    assert row["usd_per_million_tokens"] == pytest.approx(paid.usd_per_million_tokens)
    assert row["joules_per_token"] == pytest.approx(paid.joules_per_token)


def test_what_is_not_known_is_not_made_up():
    figures = {"memory_gb": 200, "memory_bandwidth_gb_per_s": 2000, "fp16_tflops": 400}
    cluster = Cluster.model_validate({"name": "own", "nodes": [{"gpu": "BIG"}], "gpus": {"BIG": figures}})
    mine = Plan.from_placement(Problem.of(cluster, Model.preset("llama-30b")), {"BIG-0": (0, 60)}, method="hand")
    paid = cost(mine)
    assert paid.unpriced == ("BIG",) and paid.usd_per_hour is None and paid.usd_per_million_tokens is None
    assert paid.power_w is None and paid.joules_per_token is None
    assert "no price for BIG" in paid.lines()["Cost"] and "Energy" not in paid.lines()


def test_what_has_no_reserved_or_spot_price_is_said(two_regions, overlapping_plan):
    assert cost(two_regions).lines()["Cost"].endswith("on demand, $8.00 reserved, $3.00 spot")
    listed = cost(overlapping_plan)
    for payment, missing in (("reserved", listed.not_reserved), ("spot", listed.not_spot)):
        assert set(missing) == {gpu for gpu in ("V100-16G", "A10G", "T4") if gpus()[gpu].price.of(payment) is None}
    load = {"input_tokens_per_s": 750.0, "output_tokens_per_s": 250.0, "usd_per_hour": 10.0}
    mixed = Cost(**load, reserved_usd_per_hour=8.0, not_reserved=("L4",), spot_usd_per_hour=10.0, not_spot=("L4", "T4"))
    assert mixed.lines()["Cost"] == "$10.00/h on demand, $8.00 reserved (on demand: L4), no spot price"
