"""`helix-kit explain`: what limits a plan, and what each node loses."""

from __future__ import annotations

import json


def test_explain(helix_kit, single24_file):
    code, out, err = helix_kit("explain", single24_file, "--losses", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert any("2,046 tokens/s" in line for line in told["explanation"])
    assert {row["node"] for row in told["losses"]} == set(json.loads(single24_file.read_text())["placement"])
