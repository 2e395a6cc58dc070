"""The document shows every picture and every number that did not agree."""

from committed import FIGURES, ROOT

from helix_kit.experiments.machinery.catalogue import experiments
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
