"""`helix-kit evaluate`: a folder with table, picture and JSON; --json prints the result alone."""

from __future__ import annotations

import json
from pathlib import Path


def test_simulated_alone_and_again(helix_kit, tmp_path: Path):
    command = ("evaluate", "laptop", "--model", "SmolLM2-135M", "--methods", "swarm,separate", "--modes", "online",
               "--duration", "30", "--warmup", "10", "-o", tmp_path / "out")  # fmt: skip
    code, out, err = helix_kit(*command)
    assert code == 0, err
    assert "Swarm" in out and "online" in out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"table.csv", "picture.png", "evaluation.json", "settings.json", "plans", "requests", "runs"} == names
    code, out, _ = helix_kit(*command, "--json")
    result = json.loads(out)
    assert code == 0 and result["methods"] == {"swarm": "Swarm", "separate": "separate"}
    assert result["rows"] == json.loads((tmp_path / "out" / "evaluation.json").read_text())["rows"]


def test_wrong_options_are_named(helix_kit, tmp_path: Path):
    base = ("evaluate", "laptop", "--model", "SmolLM2-135M", "-o", tmp_path / "out")
    code, _, err = helix_kit(*base, "--real", "--emulate")
    assert code == 2 and "--real" in err
    code, _, err = helix_kit(*base, "--methods", "swam")
    assert code == 2 and "swarm" in err


def test_goodput_of_each_run_is_counted_on_its_requests(helix_kit, tmp_path: Path):
    """With a limit that every request keeps all are counted, and with one that none keeps, none."""
    base = ("evaluate", "laptop", "--model", "SmolLM2-135M", "--methods", "swarm", "--modes", "online", "--rate", 0.05,
            "--duration", 1200, "--warmup", 60)  # fmt: skip
    code, out, err = helix_kit(*base, "-o", tmp_path / "all", "--goodput", "e2el:1000000")
    assert code == 0, err
    assert "requests/s keep the limits, 100.0% of those decided" in out and "online, simulated" in out
    code, out, err = helix_kit(*base, "-o", tmp_path / "none", "--goodput", "ttft:0.000001", "--json")
    rows = {row["metric"]: row["value"] for row in json.loads(out)["rows"]}
    assert code == 0 and rows["goodput_per_s"] == rows["attainment"] == 0, err
