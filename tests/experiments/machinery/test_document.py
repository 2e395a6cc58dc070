"""The document shows every picture and every number that did not agree."""

import pandas as pd
from committed import FIGURES, ROOT

from helix_kit.experiments.machinery.catalogue import experiments
from helix_kit.experiments.machinery.document import _own_in_steps
from helix_kit.experiments.machinery.files import load


def test_document_shows_every_picture_and_every_miss():
    text = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    for name in experiments():
        assert f"../figures/{name}.png" in text and f"../figures/{name}.csv" in text
    table = load("agreement", FIGURES)
    missed = int((table["difference_percent"].abs() > 5).sum())
    assert "## What did not agree" in text and f"{missed} of {len(table)}" in text
    page = (ROOT / "docs" / "all-results.md").read_text(encoding="utf-8")
    runs = load("all-results", FIGURES)[["section", "setup", "model", "mode", "method", "source"]].drop_duplicates()
    assert sum(line.startswith("| 6.") for line in page.splitlines()) == len(runs)
    assert "reproduction.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_what_placement_links_and_split_gain_is_told_apart():
    speeds = {"published": 100.0, "fair base": 110.0, "flow": 90.0, "served": 150.0, "served, first split": 120.0}
    rows = [
        {"setup": "geo", "model": "llama2-70b", "objective": name, "node": node, "six_streams_tokens_per_s": speed,
         "paper_tokens_per_s": 98.0 if name == "published" else None,
         "missed": "prompt: 2.25 s beside 2.21 s" if name == "served" else ""}
        for name, speed in speeds.items() for node in "ab"
    ]  # fmt: skip
    text = list(_own_in_steps(pd.DataFrame(rows)))
    assert text[-2] == "| geo | llama2-70b | 98.0 | 100.0 | 110.0 | 150.0 | 120.0 | prompt: 2.25 s beside 2.21 s |"
    assert not list(_own_in_steps(pd.DataFrame(rows).drop(columns="six_streams_tokens_per_s")))
