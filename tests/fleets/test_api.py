"""Fleets of machines whose speeds are given, against the simulation of all small fleets; and refusals."""

from __future__ import annotations

import json
import threading
from itertools import product

import pytest

import helix_kit as hk
from helix_kit import SLO, InfeasibleError, InputError, Model
from helix_kit.fleets import check
from helix_kit.fleets.check import Checker, Load, fleet_plan
from helix_kit.fleets.offers import offers_of
from helix_kit.fleets.patterns import Pattern
from helix_kit.profiles import Curve, Profile
from helix_kit.typical_request import MeanLengths

MODEL = Model(name="two", num_layers=2, hidden_size=64, num_heads=4, num_kv_heads=4, intermediate_size=128,
              vocab_size=100)  # fmt: skip
PRICES = {"L4": 1.0, "A10G": 1.6}
RATE = 9.0
SLO_1S = SLO(ttft_s=1.0, at=0.95)


def machine(kind: str, ms_per_token: float) -> Profile:
    """A prompt token takes so many ms in each of two layers; there is one answer token."""
    prompt = Curve(x=(0, 1000), y=(0, 1000 * ms_per_token))
    return Profile(kind=kind, model="two", source="test", prefill_ms_per_layer=prompt,
                   decode_ms_per_layer=Curve(x=(0, 1000), y=(0, 1e-3)), kv_capacity_layer_tokens=(10**6, 10**6),
                   prefill_max_requests=(1, 1), decode_max_requests=(1000, 1000))  # fmt: skip


# A request of 100 tokens takes 250 ms on an L4 and 140 ms on an A10G.
PROFILES = {"L4": machine("L4", 1.25), "A10G": machine("A10G", 0.7)}
ASKED = {"slo": SLO_1S, "gpus": ["L4", "A10G"], "prices": PRICES, "profiles": PROFILES, "workload": (100, 1),
         "max_stages": 1, "seeds": 1}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _short_runs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "PROBE_REQUESTS", 150)
        patch.setattr(check, "FLEET_REQUESTS", 300)
        yield


@pytest.fixture(scope="module")
def found():
    return hk.fleet(MODEL, RATE, **ASKED)


def test_no_small_fleet_is_cheaper(found):
    load = Load(model=MODEL, workload=hk.Workload.poisson(1.0, 2000, input_tokens=100, output_tokens=1, seed=0),
                slo=SLO_1S, lengths=MeanLengths(100, 1), profiles=PROFILES)  # fmt: skip
    offers = offers_of(["L4", "A10G"], prices=PRICES)
    one = {o.kind: Pattern(((o.kind, 2),), o.usd_per_hour, 1.0) for o in offers}
    checker = Checker(load, offers)
    capacity = {kind: checker.measure(pattern, 1.0).rate_per_s for kind, pattern in one.items()}
    assert 2 < capacity["L4"] < 4 and 4.5 < capacity["A10G"] < 1 / 0.14
    holding = {}
    for few, many in product(range(4), repeat=2):
        price = few * PRICES["L4"] + many * PRICES["A10G"]
        # Fewer machines than the work takes cannot hold, dearer ones than the fleet do not matter.
        if few * 4 + many / 0.14 < RATE or price > found.usd_per_hour:
            continue
        count = {p: n for p, n in ((one["L4"], few), (one["A10G"], many)) if n}
        _, outcome = checker.check(count, RATE, 1)
        if outcome.holds(SLO_1S.at):
            holding[few, many] = price
    assert min(holding.values()) == pytest.approx(found.usd_per_hour)


def test_value_bound_and_baselines(found):
    assert found.best.holds and found.best.attainment >= 0.95
    assert 0 < found.bound_usd_per_hour <= found.usd_per_hour
    assert set(found.of_one_kind) == {"L4", "A10G"}
    assert all(found.usd_per_hour <= one.usd_per_hour for one in found.of_one_kind.values())
    assert all(set(one.machines) == {kind} and one.holds for kind, one in found.of_one_kind.items())
    dearest = max(one.usd_per_hour for one in found.of_one_kind.values())
    assert 0 <= found.saving() <= max(found.saving(kind) for kind in PRICES) == 1 - found.usd_per_hour / dearest
    told = json.loads(json.dumps(found.to_dict()))
    assert told["usd_per_hour"] == found.usd_per_hour and told["best"]["machines"] == dict(found.best.machines)


def test_the_plan_is_the_fleet(found, tmp_path):
    found.save(tmp_path / "plan.json")
    plan = hk.Plan.load(tmp_path / "plan.json")
    assert plan.cluster.kind_counts == dict(found.best.machines)
    assert sum(plan.cluster.usd_per_hour(node) for node in plan.cluster.nodes) == pytest.approx(found.usd_per_hour)
    assert len(plan.pipelines) == sum(row["count"] for row in found.best.pipelines)


def test_requests_are_divided_by_what_pipelines_serve():
    offers = offers_of(["L4", "A10G"], prices=PRICES)
    small, large = Pattern((("L4", 2),), 1.0, 1.0), Pattern((("A10G", 1), ("A10G", 1)), 3.2, 1.0)
    load = Load(model=MODEL, workload="poisson", slo=SLO_1S, lengths=MeanLengths(100, 1), profiles=PROFILES)
    plan = fleet_plan(load, offers, {small: 2, large: 1}, {small: 1.0, large: 3.0})
    flows = {tuple(stage.node for stage in stages): flow for stages, flow in plan.pipelines}
    total = sum(flows.values())
    assert {nodes: round(flow / total, 3) for nodes, flow in flows.items()} == {
        ("A10G-0", "A10G-1"): 0.6, ("L4-0",): 0.2, ("L4-1",): 0.2,
    }  # fmt: skip


def test_stock_limits_a_kind(found):
    kind = max(found.best.machines, key=lambda name: found.best.machines[name])
    limit = found.best.machines[kind] - 1
    fewer = hk.fleet(MODEL, RATE, **ASKED, stock={kind: limit})
    assert fewer.best.machines.get(kind, 0) <= limit and fewer.usd_per_hour >= found.usd_per_hour


def test_no_fleet_within_budget_stock_or_slo(found):
    with pytest.raises(InfeasibleError) as error:
        hk.fleet(MODEL, RATE, **ASKED, budget_usd_per_hour=1.7)
    assert "1.7 USD/h suffice for about" in str(error.value) and "without a budget it takes about" in str(error.value)
    with pytest.raises(InfeasibleError) as error:
        hk.fleet(MODEL, RATE, **ASKED, stock={"L4": 1, "A10G": 0})
    assert "1 L4 and 0 A10G suffice for about" in str(error.value)
    with pytest.raises(InfeasibleError) as error:
        hk.fleet(MODEL, RATE, **{**ASKED, "slo": SLO(ttft_s=0.1)})
    assert "A10G[2], keeps it for 0 %" in str(error.value) and "against 0.1 s" in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gpus": ["L5"]}, "gpus = 'L5'"),
        ({"budget_usd_per_hour": -1.0}, "budget_usd_per_hour = -1.0"),
        ({"seeds": 0}, "seeds = 0"),
        ({"workload": "azure"}, "workload"),
        ({"solver": "abacus"}, "solver = 'abacus'"),
    ],
)
def test_wrong_options(change, words):
    with pytest.raises(InputError) as error:
        hk.fleet(MODEL, RATE, **{**ASKED, **change})
    assert words in str(error.value)


def test_no_simulation_is_begun_that_would_not_end_in_time(monkeypatch):
    """What one takes is said, with a limit that would do."""
    runs = []
    monkeypatch.setattr(check, "whole_run", lambda *args, **more: runs.append(more))
    with pytest.raises(InfeasibleError, match=r"no fleet could be simulated within 0\.001 s: one") as e:
        hk.fleet(MODEL, RATE, **ASKED, time_limit_s=1e-3)
    assert runs == [] and "Smallest fix: a time limit of about" in str(e.value)


def test_the_users_stop_returns_the_cheapest_so_far(found):
    stop = threading.Event()

    def press(text: str) -> None:
        if text.startswith("fleet at") and float(text.split()[4].rstrip("%")) > 99.9:
            stop.set()

    stopped = hk.fleet(MODEL, RATE, **ASKED, stop=stop, progress=press)
    assert stopped.facts["was_stopped"] and not stopped.facts["is_complete"] and not found.facts["was_stopped"]
    assert stopped.best.holds and stopped.usd_per_hour >= found.usd_per_hour
    with pytest.raises(InfeasibleError, match="stopped before a fleet was simulated"):
        hk.fleet(MODEL, RATE, **ASKED, stop=lambda: True)


def test_idle_requests_are_apart_from_the_first_try_on():
    """A pipeline of so many slow machines that a request stays for long: no try with requests that overlap."""
    slow = machine("L4", 1.25).model_copy(update={"decode_ms_per_layer": Curve(x=(0, 1000), y=(1000.0, 1000.0))})
    load = Load(model=MODEL, workload=hk.Workload.poisson(1.0, 2000, input_tokens=100, output_tokens=20, seed=0),
                slo=SLO(tpot_s=10.0), lengths=MeanLengths(100, 20), profiles={"L4": slow})  # fmt: skip
    checker = Checker(load, offers_of(["L4"], prices={"L4": 1.0}))
    capacity = checker.measure(Pattern((("L4", 2),), 1.0, 1.0), 0.05)
    assert capacity.idle.attainment == 1.0  # 19 decodes of 2 s, 38 s a request
    rate_probes = checker.simulations - 1
    assert rate_probes >= 1 and checker.simulations <= 20
