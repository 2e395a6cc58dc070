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


def test_the_list_is_short_and_sources_are_asked_for(helix_kit):
    short, long = (helix_kit("catalog", *more)[1] for more in ((), ("--sources",)))
    assert len(short.splitlines()) < 100 < len(long.splitlines())
    assert "--sources" in short and "datasheet" not in short and "datasheet" in long and "nvlink" in long
    h100 = next(line for line in short.splitlines() if "H100-80G" in line and "3350" in line)
    price = json.loads(helix_kit("catalog", "--json")[1])["gpus"]["H100-80G"]["price"]["on_demand"]
    assert f"{price:.2f}" in h100
