"""`helix-kit catalog`: what ships with the package."""

from __future__ import annotations

import json


def test_catalog_names_the_clusters(helix_kit):
    code, out, _ = helix_kit("catalog", "--json")
    assert code == 0 and {"single24", "geo24", "hetero42", "laptop"} <= set(json.loads(out)["clusters"])


def test_the_tables_have_a_row_for_each_entry(helix_kit):
    catalog = json.loads(helix_kit("catalog", "--json")[1])
    code, out, _ = helix_kit("catalog")
    firsts = {words[0] for line in out.replace("│", " ").splitlines() if (words := line.split())}
    assert code == 0
    for kind in ("clusters", "models", "gpus"):
        assert {name for name in catalog[kind] if name[:8] not in {first[:8] for first in firsts}} == set()
