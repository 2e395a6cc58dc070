"""Comparisons: each row is what a simulation of its own gives; methods without a plan say why."""

from __future__ import annotations

import itertools
import math

import pytest

from helix_kit import SLO, Cluster, InputError, Model, Workload, plan, simulate
from helix_kit.analysis import compare
from helix_kit.analysis.compare import plot_comparison


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster.model_validate(
        {"name": "mixed", "nodes": [{"gpu": "A100-40G", "count": 2}, {"gpu": "L4", "count": 4}]}
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.preset("llama-30b")


@pytest.fixture(scope="module")
def workload() -> Workload:
    return Workload.constant(rate_per_s=0.5, duration_s=40, input_tokens=200, output_tokens=20)


def test_rows_are_plans_times_policies_times_workloads(cluster, model, workload):
    heard = []
    table = compare(
        ["pattern", "proportional"],
        {"short": workload, "shorter": workload[:5]},
        cluster=cluster,
        model=model,
        policies=["helix", "random"],
        duration_s=60,
        progress=lambda *now: heard.append(now),
    )
    assert len(table) == 8 and table["problem"].isna().all()
    assert heard[0][:2] == (0, 8) and heard[-1] == (8, 8, "done") and len(heard) == 9
    row = table[(table["plan"] == "pattern") & (table["policy"] == "random") & (table["workload"] == "short")].iloc[0]
    alone = simulate(plan(cluster, model), workload, policy="random", duration_s=60).summary()
    assert row["decode_tokens_per_s"] == alone["decode_tokens_per_s"]
    assert row["prompt_s"] == alone["prompt_latency_s"]["avg"] and row["of"] == alone["requests"]


def test_a_method_without_a_plan_is_a_row_that_says_why(model, workload):
    one_of_each = Cluster.model_validate({"name": "odd", "nodes": [{"gpu": g} for g in ("A100-80G", "L4", "T4")]})
    table = compare(["pattern", "separate", "swarm"], workload, cluster=one_of_each, model=model, duration_s=60)
    failed = table[table["problem"].notna()]
    assert len(failed) >= 1 and failed["decode_tokens_per_s"].isna().all() and "pattern" not in set(failed["plan"])
    figure = plot_comparison(table)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert sorted(heights) == sorted(v for v in table["decode_tokens_per_s"] if not math.isnan(v))


def test_plans_of_the_same_method_are_told_apart(cluster, model, workload):
    made = plan(cluster, model)
    table = compare([made, made], workload, duration_s=60)
    assert table["plan"].tolist() == ["pattern 1", "pattern 2"]
    assert table["decode_tokens_per_s"].nunique() == 1


def test_proportional_is_one_chain_over_all_layers_by_memory(cluster, model):
    made = plan(cluster, model, method="proportional")
    spans = list(made.placement.values())
    assert spans[0][0] == 0 and spans[-1][1] == model.num_layers
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    held = {name: end - start for name, (start, end) in made.placement.items()}
    room = {name: made.problem.max_layers(name) for name in held}
    assert max(held[n] / room[n] for n in held) - min(held[n] / room[n] for n in held) < 0.15


def test_what_cannot_be_compared_is_refused(cluster, model, workload):
    with pytest.raises(InputError, match="cluster"):
        compare(["pattern"], workload)
    with pytest.raises(InputError, match="at least one"):
        compare([], workload, cluster=cluster, model=model)
    with pytest.raises(InputError, match="expected one of"):
        compare(["magic"], workload, cluster=cluster, model=model)


def test_goodput_of_each_row(cluster, model, workload):
    slo = SLO(ttft_s=0.5, at=0.9)
    table = compare(["pattern"], workload, cluster=cluster, model=model, duration_s=60, slo=slo)
    good = simulate(plan(cluster, model), workload, duration_s=60).goodput(slo)
    row = table.iloc[0]
    assert (row["goodput_per_s"], row["attainment"]) == (good.requests_per_s, good.attainment)
    assert "attainment" in repr(table) and "goodput/s" in repr(table)
    assert "attainment" not in compare(["pattern"], workload, cluster=cluster, model=model, duration_s=60).columns
