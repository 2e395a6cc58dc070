"""`helix-kit fleet`: JSON, tables, the plan, and refusals."""

from __future__ import annotations

import json

import pytest

from helix_kit.fleets import check

ASKED = ("fleet", "--model", "llama3.1-8b", "--rate", 1, "--slo", "tpot:0.2", "at:0.9", "--gpus", "L4,A10G",
         "--input-tokens", 200, "--output-tokens", 20, "--max-stages", 1, "--seeds", 1)  # fmt: skip


@pytest.fixture(autouse=True)
def _short_runs(monkeypatch):
    monkeypatch.setattr(check, "PROBE_REQUESTS", 60)
    monkeypatch.setattr(check, "FLEET_REQUESTS", 100)


def test_json_tables_and_plan(helix_kit, tmp_path):
    plan = tmp_path / "plan.json"
    code, out, err = helix_kit(*ASKED, "--json", "-o", plan)
    assert code == 0, err
    told = json.loads(out)
    assert told["rate_per_s"] == 1 and told["best"]["holds"] and told["bound_usd_per_hour"] <= told["usd_per_hour"]
    assert json.loads(plan.read_text())["method"] == "fleet"
    code, out, err = helix_kit(*ASKED, "--gpus", "L4")
    assert code == 0 and "1 L4" in out and "Bound" in out and "alone" in out


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--gpus", "L5"), 2, "gpus = 'L5'"),
        (("--stock", "A10G"), 2, "--stock = 'A10G'"),
        (("--stock", "A10G=1.5"), 2, "A10G=1.5"),
        (("--stock", "A10G=inf"), 2, "expected a whole number"),
        (("--stock", "A10G=nan"), 2, "expected a whole number"),
        (("--prices", "A10G=x"), 2, "--prices"),
        (("--trace", "none.csv"), 2, "--trace"),
        (("--budget", "0.5"), 3, "0.5 USD/h suffice for about"),
    ],
)
def test_refusals(helix_kit, more, code, words):
    found, _, err = helix_kit(*ASKED, *more)
    assert found == code and words in err, err


def test_an_slo_is_needed(helix_kit):
    code, _, err = helix_kit("fleet", "--model", "llama3.1-8b", "--rate", 1, "--gpus", "L4")
    assert code == 2 and "--slo" in err
