"""The committed tables: the paper's orderings and headline ratios hold, and what stands in them is complete.

Published throughputs have one decimal and latencies two; tolerances are stated with each check.
"""

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helix_kit.experiments.machinery.catalogue import experiments
from helix_kit.experiments.machinery.files import load

FIGURES = Path(__file__).resolve().parents[2] / "figures"
EVALUATIONS = ("single-cluster", "geo-distributed", "high-heterogeneity")
DEEP_DIVES = ("placement-deep-dive", "scheduling-deep-dive")
SPEED = "decode_tokens_per_s"


def speeds(name, source="ours"):
    """(setup, model, mode) -> method -> decode tokens/s."""
    table = load(name, FIGURES)
    table = table[(table["metric"] == SPEED) & (table["source"] == source)]
    cases = table.groupby(["setup", "model", "mode"], sort=False)
    return {key: part.set_index("method")["value"].to_dict() for key, part in cases}


def test_every_experiment_is_committed_with_pictures_and_provenance():
    for name, entry in experiments().items():
        for end in ("csv", "png", "pdf", "json"):
            assert (FIGURES / f"{name}.{end}").is_file(), f"{name}.{end}: run `make figures`"
        trail = json.loads((FIGURES / f"{name}.json").read_text())
        assert trail["title"] == entry.title and trail["inputs"]["fast"] is False and trail["inputs"]["seed"] == 0
        assert (FIGURES / f"{name}.pdf").stat().st_size < 500_000


HEADLINES = (
    # Sections 6.3 to 6.5 of the paper: Helix's decode throughput over a baseline's, to the digits it is printed with.
    ("single-cluster", "llama2-70b", "offline", "swarm", 2.0),
    ("single-cluster", "llama2-70b", "offline", "separate", 2.0),
    ("single-cluster", "llama2-70b", "online", "swarm", 2.0),
    ("single-cluster", "llama2-70b", "online", "separate", 1.7),
    ("single-cluster", "llama-30b", "offline", "swarm", 2.2),
    ("geo-distributed", "llama2-70b", "offline", "swarm", 1.9),
    ("geo-distributed", "llama2-70b", "offline", "separate", 1.6),
    ("high-heterogeneity", "llama2-70b", "offline", "swarm", 1.4),
    ("high-heterogeneity", "llama2-70b", "offline", "separate", 2.9),
    ("high-heterogeneity", "llama2-70b", "offline", "separate_plus", 2.2),
)


@pytest.mark.parametrize(("name", "model", "mode", "baseline", "ratio"), HEADLINES)
def test_headlines_of_the_published_simulation_hold_within_five_per_cent(name, model, mode, baseline, ratio):
    for source in ("ours", "published simulation"):
        (values,) = (v for (_, of, how), v in speeds(name, source).items() if (of, how) == (model, mode))
        assert values["helix"] / values[baseline] == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_helix_serves_more_than_every_baseline_in_every_setting(name):
    for case, values in speeds(name).items():
        for baseline in {"swarm", "separate", "separate_plus"} & set(values):
            assert values["helix"] > values[baseline], (case, baseline)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_headline_ratios_are_the_published_ones_within_two_per_cent(name):
    ours, published = speeds(name), speeds(name, "published simulation")
    assert set(ours) == set(published)
    for case, values in published.items():
        for baseline in set(values) - {"helix"}:
            ratio = ours[case]["helix"] / ours[case][baseline]
            assert ratio == pytest.approx(values["helix"] / values[baseline], rel=0.02), (case, baseline)


@pytest.mark.parametrize("name", EVALUATIONS[:1])
def test_ratios_of_the_prototype_within_a_quarter(name):
    ours, published = speeds(name), speeds(name, "published prototype")
    for case, values in published.items():
        for baseline in set(values) - {"helix"}:
            ratio = ours[case]["helix"] / ours[case][baseline]
            assert ratio == pytest.approx(values["helix"] / values[baseline], rel=0.25), (case, baseline)


MEASURED = ("convergence", "runtime-and-simulation", "scaling")
"""The only pictures that differ from run to run: they show what was measured on the machine that drew them."""


def test_three_pictures_show_measurements_and_each_has_them_as_a_table():
    assert {name for name, entry in experiments().items() if entry.timed} == set(MEASURED)
    assert {p.name for p in FIGURES.glob("*-measured.csv")} == {f"{name}-measured.csv" for name in MEASURED}
    for name in MEASURED:
        table = pd.read_csv(FIGURES / f"{name}-measured.csv")
        assert tuple(table.columns) == experiments()[name].measures
        assert set(table.iloc[:, 0].astype(str)) == set(load(name, FIGURES).attrs)
        # Seconds stay out of what is the same everywhere, but for those that were published.
        assert not {"seconds", "measured"} & set(load(name, FIGURES).columns) or name == "convergence"
    own = load("convergence", FIGURES).query("solver != 'Gurobi (published)'")
    assert len(own) and own["seconds"].isna().all()


def test_every_experiment_has_a_test_of_its_table():
    text = Path(__file__).read_text(encoding="utf-8").partition("def test_every_experiment_is_committed")[2]
    names = {*EVALUATIONS, *DEEP_DIVES}
    assert [n for n in experiments() if n not in names and f'load("{n}"' not in text] == []


def test_agreement_with_the_published_simulation():
    table = load("agreement", FIGURES)
    simulated = table[table["source"] == "published simulation"]
    speed = simulated[simulated["metric"] == SPEED]["difference_percent"].abs()
    # 39 runs. Two depend on the hash seed of the published process (1.3 and 2.5 %).
    assert len(speed) == 39 and speed.max() < 3 and (speed < 0.5).sum() >= 36
    latency = simulated[simulated["metric"] != SPEED]["difference_percent"].abs()
    assert len(latency) == 160 and (latency <= 5).mean() > 0.97


def test_every_miss_has_a_reason_and_nothing_else_has():
    table = load("agreement", FIGURES)
    missed = table["difference_percent"].abs() > 5
    assert table.loc[missed, "reason"].notna().all()
    assert table.loc[~missed, "reason"].isna().all()
    assert not table["reason"].eq("not known").any()
    # In the words of the reasons: rounding for simulated numbers, section 6.7's load for its schedulers.
    simulated = table[missed & (table["source"] == "published simulation")]
    half = simulated["metric"].str.endswith("tokens_per_s").map({True: 0.05, False: 0.005})
    assert ((simulated["published"] - simulated["ours"]).abs() < 2 * half).all()
    others = table[missed & (table["section"] == 6.7) & (table["method"] != "helix")]
    assert len(others) and others["reason"].str.contains("in flight").all()
    said = table[missed & table["reason"].fillna("").str.startswith("the published simulation is off")]
    keys = ["section", "setup", "model", "mode", "method", "metric"]
    both = said.merge(table[table["source"] == "published simulation"], on=keys, suffixes=("", "_simulated"))
    assert len(both) == len(said) > 0
    theirs = both["published_simulated"] / both["published"] - 1
    assert (theirs * both["difference_percent"] > 0).all() and (
        200 * theirs.abs() > both["difference_percent"].abs()
    ).all()


@pytest.mark.parametrize("model", ["llama2-70b"])
@pytest.mark.parametrize("name", EVALUATIONS)
def test_the_plan_that_is_made_to_serve_serves_more_than_the_published_one(name, model):
    for (_, of, mode), values in speeds(name).items():
        if of == model and mode == "offline":
            assert values["own served"] > 1.1 * values["helix"]
            assert values["own served"] > values["own flow"]


def test_the_plan_for_flow_carries_most_and_stays_within_its_bound():
    table = load("own-plans", FIGURES).drop_duplicates(["setup", "model", "objective"])
    for _, part in table.groupby(["setup", "model"]):
        flow = part.set_index("objective")["flow_tokens_per_s"]
        assert flow["flow"] >= max(flow["published"], flow["served"]) - 0.01
        assert flow["flow"] <= part["bound_tokens_per_s"].min() * (1 + 1e-6)


def test_what_own_plans_serve_is_what_the_evaluation_says():
    table = load("own-plans", FIGURES).drop_duplicates(["setup", "model", "objective"])
    found = {key: v for name in EVALUATIONS for key, v in speeds(name).items()}
    names = {"published": "helix", "flow": "own flow", "served": "own served"}
    for row in table.to_dict("records"):
        values = found[row["setup"], row["model"], "offline"]
        assert row["offline_decode_tokens_per_s"] == pytest.approx(values[names[row["objective"]]], rel=1e-5)


def test_placements_under_one_scheduler_rank_as_published():
    for setup in ("three regions (geo24)", "one cluster (single24)"):
        values = speeds("placement-deep-dive")[setup, "llama2-70b", "offline"]
        assert values["helix"] > values["petals"] > values["swarm"]
        assert values["own served"] > values["helix"]


def test_helix_schedules_best_on_its_placement():
    for values in speeds("scheduling-deep-dive").values():
        assert values["helix"] == max(values.values())
    far = load("scheduling-deep-dive", FIGURES).query("source == 'ours' and setup == 'three regions (geo24)'")
    p75 = far[far["metric"] == "prompt_latency_p75_s"].set_index("method")["value"]
    # Congestion shows in the tail: a quarter of the others' prompts take several times as long.
    assert p75.drop("helix").min() > 3 * p75["helix"]


def test_on_our_plan_too_helix_schedules_best_and_every_scheduler_serves_more_in_three_regions():
    table = load("scheduling-deep-dive", FIGURES)
    wide = table[table["metric"] == SPEED].pivot_table(index=["setup", "method"], columns="source", values="value")
    assert (wide["ours, own plan"].groupby("setup").idxmax().map(lambda key: key[1]) == "helix").all()
    far = wide.loc["three regions (geo24)"]
    assert (far["ours, own plan"] > far["ours"]).all()


def test_congestion_shares_are_whole_and_helix_computes_least_for_a_token():
    table = load("congestion", FIGURES)
    assert (table[["busy", "blocked", "starved"]].sum(axis=1) - 1).abs().max() < 1e-4
    assert table["kv_peak"].max() <= 1 and (table["kv_mean"] <= table["kv_peak"] + 1e-9).all()
    busy = table.pivot_table(index="setup", columns="method", values="busy")
    for (setup, _, _), speed in speeds("scheduling-deep-dive").items():
        cost = {method: busy.loc[setup, method] / value for method, value in speed.items()}
        assert min(cost, key=cost.get) == "helix" and sorted(cost.values())[1] > 1.2 * cost["helix"]
    far = table[table["setup"] == "three regions (geo24)"]
    assert far["blocked"].max() > 0.2 > table[table["setup"] == "one cluster (single24)"]["blocked"].max()


def test_under_equal_load_all_are_offered_the_same_and_the_plan_made_to_serve_leads():
    table = load("equal-load", FIGURES)
    wide = table.pivot_table(index=["setup", "source", "method"], columns="metric", values="value")
    for setup in ("single", "geo", "hetero42"):
        same = wide.loc[setup, "same rate"]
        assert same["offered_tokens_per_s"].nunique() == 1
        assert same[SPEED].idxmax() == "own served"
        assert same[SPEED]["helix"] > same[SPEED]["swarm"]
        assert same["decode_latency_p50_s"]["own served"] < same["decode_latency_p50_s"]["helix"]
        own_rate = wide.loc[setup, "rate by own max flow"]
        # Loads are in proportion to max flow: most for the plan of most flow, and Helix's own is the unit.
        assert own_rate["offered_tokens_per_s"].idxmax() == "own flow"
        assert own_rate.loc["helix"].equals(same.loc["helix"])


def test_real_workers_are_close_to_the_simulation():
    table = load("runtime-and-simulation", FIGURES)
    assert set(table.attrs) == set(table["mode"]) and len(table.attrs) == 3
    for load_, part in table.groupby("mode"):
        simulated, real = part.set_index("metric")["value"], table.attrs[load_]
        late = real["late_steps_share"]
        assert late < 0.3, "drawn on a busy machine: run it again on an idle one"
        assert real["output_tokens_per_s"] == pytest.approx(simulated["output_tokens_per_s"], rel=0.05), load_
        for metric in ("prompt_latency_p50_s", "decode_latency_p50_s"):
            # Late steps are this machine's, not the simulator's: medians may be off by their share more.
            assert real[metric] == pytest.approx(simulated[metric], rel=0.1 + late), (load_, metric)


def test_all_results_hold_every_metric_once():
    table = load("all-results", FIGURES)
    keys = ["section", "setup", "model", "mode", "method", "source", "metric"]
    assert not table.duplicated(keys).any()
    assert len(table) == sum(len(load(name, FIGURES)) for name in (*EVALUATIONS, *DEEP_DIVES))


def test_modern_plans_stay_within_their_bound_and_ours_is_the_best():
    table = load("modern-models", FIGURES)
    for _, part in table.groupby(["mix", "model"]):
        flow = part.set_index("method")["flow_tokens_per_s"]
        assert flow.idxmax() == "pattern" and flow.max() <= part["bound_tokens_per_s"].min() * (1 + 1e-6)


def test_plans_under_wrong_profiles():
    table = load("robustness", FIGURES).set_index(["cluster", "method"])
    assert (table["worst"] <= table["p5"]).all() and (table["p5"] <= table["mean"]).all()
    best = table["worst"].groupby("cluster").idxmax()
    assert all(method == "own flow" for _, method in best)


def test_published_convergence_ends_at_the_published_value_and_ours_above_it():
    table = load("convergence", FIGURES)
    for _, part in table.groupby("cluster"):
        value = part.groupby("solver")["flow_tokens_per_s"].max()
        assert value["pattern program (ours)"] > value["Gurobi (published)"] * (1 - 1e-6)
    assert set(table.attrs) == set(table["cluster"])
    for cluster, curves in table.attrs.items():
        assert set(curves) == {"pattern program (ours)", "GLPK", "HiGHS"}
        optimum = curves["pattern program (ours)"][-1]
        for solver, rows in curves.items():
            seconds, values, bounds = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
            assert (np.diff(seconds) >= 0).all() and (np.diff(values) >= 0).all(), (cluster, solver)
            known = bounds[~np.isnan(bounds)]
            assert (np.diff(known) <= 0).all() and (known >= values.max() * (1 - 1e-4)).all(), (cluster, solver)
            # No solver finds more than is proven possible, and none proves less than was found.
            assert values.max() <= optimum[2] * (1 + 1e-4), (cluster, solver)
    last = table[(table["cluster"] == "cluster10") & (table["solver"] == "Gurobi (published)")].iloc[-1]
    assert last["seconds"] == pytest.approx(3802.88) and last["bound_tokens_per_s"] == pytest.approx(286.587, abs=1e-3)


def test_program_sizes_are_those_of_the_published_logs():
    table = load("problem-sizes", FIGURES)
    assert (table["constraints"] == table["constraints_published"]).all()
    assert (table["variables"] == table["variables_published"]).all()


def test_pattern_program_reaches_the_proven_optimum_of_ten_nodes():
    table = load("solver-quality", FIGURES).set_index("method")["share_of_optimum"]
    for solver in ("GLPK", "HiGHS"):
        assert table[f"pattern program, {solver}"] == pytest.approx(1, abs=1e-3)
    # The published separate pipelines put more layers on machines than their maximum: they are not held by it.
    assert table.drop("separate pipelines").max() <= 1 + 1e-3


def test_pattern_program_beats_gurobi_as_published_pruned_or_not():
    table = load("ablations", FIGURES)
    for _, part in table.groupby("cluster"):
        ours = part[part["variant"].str.startswith("pattern")]["flow_tokens_per_s"].item()
        assert ours > 1.2 * part[~part["variant"].str.startswith("pattern")]["flow_tokens_per_s"].max()
        served = part.set_index("variant")["decode_ours"]
        assert served["pruned, with initial values"] > 1.1 * served["not pruned"]
        shown = part.dropna(subset=["decode_published"])
        assert len(shown) == 2 and (shown["decode_ours"] / shown["decode_published"] - 1).abs().max() < 0.03


def test_methods_stay_within_the_bound():
    table = load("placement-methods", FIGURES)
    # The published separate pipelines put more layers on machines than their maximum: they are not held by it.
    table = table[table["method"] != "separate"]
    bound = table.groupby(["cluster", "model"])["bound_tokens_per_s"].transform("min")
    assert (table["flow_tokens_per_s"] <= bound * (1 + 1e-6)).all()
    best = table.loc[table.groupby(["cluster", "model"])["flow_tokens_per_s"].idxmax()]
    assert (best["flow_tokens_per_s"] / bound[best.index] > 0.9).all()


def test_planning_a_thousand_machines_stays_close_to_its_bound():
    table = load("scaling", FIGURES)
    assert table["nodes"].max() == 1000 and table["gap"].max() < 0.03
    assert set(table.attrs) == {str(n) for n in table["nodes"]}


def test_worked_example_gets_better_from_split_to_split():
    table = load("worked-example", FIGURES).drop_duplicates("split").set_index("split")
    flow = table["max_flow_tokens_per_s"]
    assert flow["uniform"] < flow["balanced"] < flow["network-aware"]
    # What limits the balanced chain is the link: 0.1 Gbit/s over 13,314 bytes a token.
    assert flow["balanced"] == pytest.approx(0.1e9 / 8 / 13314, rel=1e-3) and table["link_in_min_cut"]["balanced"]


def test_flow_network_is_a_flow_of_the_size_of_its_cut():
    import networkx as nx

    table = load("flow-network", FIGURES)
    graph = nx.DiGraph()
    for row in table.to_dict("records"):
        inside = row["source"] == row["target"]
        # A machine is an edge from where requests come in to where they leave; the coordinator, both ends.
        tail = f"{row['source']} in" if inside else f"{row['source']} out"
        head = f"{row['target']} out" if inside else f"{row['target']} in"
        graph.add_edge(tail, head, capacity=round(1000 * row["capacity_tokens_per_s"]))
    most = nx.maximum_flow_value(graph, "coordinator out", "coordinator in") / 1000
    into = table[(table["target"] == "coordinator") & (table["source"] != "coordinator")]["flow_tokens_per_s"].sum()
    assert into == pytest.approx(most, rel=1e-4)
    assert table[table["in_min_cut"]]["capacity_tokens_per_s"].sum() == pytest.approx(most, rel=1e-4)
    assert (table["flow_tokens_per_s"] <= table["capacity_tokens_per_s"] * (1 + 1e-9)).all()


def test_topology_shows_the_published_flow_and_two_whole_ways():
    table = load("topology", FIGURES)
    links = table[table["what"] == "link"]
    into = links[links["source"] == "coordinator"]["tokens_per_s"].sum()
    assert into == pytest.approx(1212.18, abs=0.01)  # the published solver log
    for name in table["source"][table["what"] == "node"]:
        through = links.groupby("target")["tokens_per_s"].sum().get(name, 0.0)
        assert through == pytest.approx(links.groupby("source")["tokens_per_s"].sum().get(name, 0.0), abs=0.01)
    known = set(zip(links["source"], links["target"], strict=True))
    ways = [table[table["what"] == f"request {i}"] for i in (1, 2)]
    for way in ways:
        assert way["start"].iloc[0] == 0 and way["end"].iloc[-1] == 80
        assert list(way["end"][:-1]) == list(way["start"][1:])
        nodes = ["coordinator", *way["source"], "coordinator"]
        assert set(pairwise(nodes)) <= known
    assert set(ways[0]["source"]) != set(ways[1]["source"])


def test_placement_pictures_rank_as_published_within_capacity():
    table = load("placement-pictures", FIGURES)
    flow = table.groupby("method")["max_flow_tokens_per_s"].first()
    assert flow["Helix"] == pytest.approx(1212.18, abs=0.01)
    assert flow["Helix"] > 1.2 * flow["Petals"] > 1.2 * 1.2 * flow["Swarm"]
    assert (table["flow_tokens_per_s"] <= table["capacity_tokens_per_s"] * (1 + 1e-6)).all()
    held = table.assign(layers=table["end"] - table["start"]).groupby("method")["layers"].sum()
    assert (held >= 80).all() and table["end"].max() == 80


def test_catalogue_is_the_data_sheet():
    table = load("gpu-catalogue", FIGURES).set_index("gpu")
    rows = list(csv.DictReader((FIGURES.parent / "data" / "gpus.csv").read_text(encoding="utf-8").splitlines()))
    rows = [row for row in rows if not row["gpu"].startswith("CPU")]  # the emulated workers of the laptop
    assert len(rows) == len(table)
    # Two figures that everybody can look up: NVIDIA's datasheets of A100 PCIe 40 GB and T4.
    assert table.loc["A100-40G", "memory_bandwidth_gb_per_s"] == 1555 and table.loc["T4", "fp16_tflops"] == 65
    for row in rows:
        assert float(row["memory_gb"]) == table.loc[row["gpu"], "memory_gb"]


def test_trace_has_the_paper_s_numbers():
    table = load("azure-trace", FIGURES)
    for series, mean in (("input", 763), ("output", 232)):  # Figure 5 of the paper
        part = table[table["series"] == series]
        assert part["requests"].sum() == pytest.approx(16657, rel=5e-4)  # the sampler's; ours has 16,663
        assert (part["x"] * part["requests"]).sum() / part["requests"].sum() == pytest.approx(mean, rel=0.01)
        assert (np.diff(part["x"]) == 32).all()  # bins of one width: a share in one can be held against the next
    assert 58 <= (table["series"] == "arrivals").sum() <= 60


def test_document_shows_every_picture_and_every_miss():
    text = (FIGURES.parent / "docs" / "reproduction.md").read_text(encoding="utf-8")
    for name in experiments():
        assert f"../figures/{name}.png" in text and f"../figures/{name}.csv" in text
    table = load("agreement", FIGURES)
    missed = int((table["difference_percent"].abs() > 5).sum())
    assert "## What did not agree" in text and f"{missed} of {len(table)}" in text
    page = (FIGURES.parent / "docs" / "all-results.md").read_text(encoding="utf-8")
    runs = load("all-results", FIGURES)[["section", "setup", "model", "mode", "method", "source"]].drop_duplicates()
    assert sum(line.startswith("| 6.") for line in page.splitlines()) == len(runs)
    assert "reproduction.md" in (FIGURES.parent / "README.md").read_text(encoding="utf-8")
