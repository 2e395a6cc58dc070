"""`helix-kit explain`: what limits a plan, what it costs, what would help, and what each node loses."""

from __future__ import annotations

import json
import time

import pandas as pd
import pytest

from helix_kit import Plan
from helix_kit.cli.explain import _print, _unchanged_words


def test_explain(helix_kit, single24_file):
    code, out, err = helix_kit("explain", single24_file, "--losses", "--json", "--gco2-per-kwh", "400")
    assert code == 0, err
    told = json.loads(out)
    assert any("2,046 tokens/s" in line for line in told["explanation"])
    assert {row["node"] for row in told["losses"]} == set(json.loads(single24_file.read_text())["placement"])
    assert told["cost"]["usd_per_hour"] > 0 and told["cost"]["gco2_per_million_tokens"] > 0


@pytest.fixture(scope="module")
def home_file(tmp_path_factory):
    """A plan of two regions, made in no time."""
    from helix_kit import Cluster, Model, plan

    nodes = [{"gpu": "A100-40G", "count": 2, "region": "lab"}, {"gpu": "L4", "count": 4, "region": "home"}]
    network = {"between_regions": {"bandwidth_gbps": 0.05, "latency_ms": 40}}
    cluster = Cluster.model_validate({"name": "home", "nodes": nodes, "network": network})
    path = tmp_path_factory.mktemp("explain") / "plan.json"
    plan(cluster, Model.preset("llama-30b"), method="proportional").save(path)
    return path


def test_what_to_buy_and_which_link_to_widen(helix_kit, home_file, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # no name takes two lines, also where the time was over for some rows
    asked = ("--what-if", "--buy", "H100-80G,L40S", "--widen", "lab:home=8", "--time-limit", "1")
    code, out, err = helix_kit("explain", home_file, *asked, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert {row["change"] for row in told["what_if"]} == {
        *(f"one more {gpu} in {region}" for gpu in ("H100-80G", "L40S") for region in ("lab", "home")),
        "links between lab and home 8x as wide",
    }
    assert told["base_tokens_per_s"] >= told["plan_tokens_per_s"] > 0
    code, out, err = helix_kit("explain", home_file, *asked)
    assert code == 0 and "one more H100-80G in lab" in out and "Measured as below" in out and "Cost:" in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--buy", "H100-80G"], "--buy"),
        (["--what-if", "--buy", "H1000"], "unknown GPU 'H1000'"),
        (["--what-if", "--widen", "lab"], "expected REGION:REGION"),
        (["--what-if", "--widen", "lab:home=0.5"], "FACTOR above 1"),
        (["--what-if", "--widen", "lab:hom"], "unknown region 'hom'"),
    ],
)
def test_each_mistake_is_told(helix_kit, home_file, options, expected):
    code, _, err = helix_kit("explain", home_file, *options)
    assert code == 2 and expected in err


def test_a_table_with_intervals_fits_eighty_columns_without_cut_numbers(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    row = {
        "change": "one more H100-80G in lab",
        "tokens_per_s": 13992.0,
        "gain_tokens_per_s": 1272.0,
        "gain_low": 1130.0,
    }
    row |= {"gain_high": 1413.0, "usd_per_hour": 3.2, "gain_per_usd": 397.5, "tokens_per_s_per_usd": 174.0}
    _print(pd.DataFrame([row]))
    out = capsys.readouterr().out
    assert "1,130 to 1,413" in out and "13,992" in out and "\N{HORIZONTAL ELLIPSIS}" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_row_that_is_predicted_says_so(helix_kit, home_file, capsys, monkeypatch):
    row = {"node": "L4-0", "loss_tokens_per_s": 7.0, "loss_low": float("nan"), "loss_high": float("nan")}
    _print(pd.DataFrame([row, {**row, "node": "L4-1", "loss_low": 6.0, "loss_high": 8.0}]))
    lines = capsys.readouterr().out.splitlines()
    assert "predicted" in next(line for line in lines if "L4-0" in line)
    assert "6.0 to 8.0" in next(line for line in lines if "L4-1" in line)
    clock = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: 1000 * clock())  # a fast machine measures all rows in 0.1 s
    code, out, err = helix_kit("explain", home_file, "--what-if", "--losses", "--time-limit", "0.1")
    assert code == 0 and "rows are predicted" in out, err
    code, out, err = helix_kit("explain", home_file, "--what-if", "--time-limit", "0.1", "--json")
    rows = json.loads(out)["what_if"]
    assert code == 0 and any(row["is_predicted"] and row["gain_low"] is None for row in rows), err


def test_a_gain_of_nothing_is_called_one_only_where_it_is_proven(home_file):
    """Of a flow that is proven optimal more cannot be found; elsewhere the search had no more time."""
    rows = [
        {"kind": "add", "gain_tokens_per_s": gain, "gap": gap, "is_predicted": False}
        for gain, gap in ((0.0, 0.3), (0.0, 0.0), (5.0, 0.3), (0.0, None))
    ]
    plan = Plan.load(home_file)
    assert _unchanged_words(plan, pd.DataFrame(rows)).startswith("For 2 of 4 changes no better plan was found")
    assert _unchanged_words(plan, pd.DataFrame(rows[1:3])) == ""
