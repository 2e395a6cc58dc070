"""Every defined measure is in the summary under its key, and in the guide with its formula."""

from __future__ import annotations

from helix_kit.metrics import DEFINITIONS, SLO
from helix_kit.report import Run
from helix_kit.workload.request import Request, RequestRecord


def test_keys_are_those_of_the_summary():
    record = RequestRecord(Request(0, 0.0, 5, 1), outcome="finished", first_token_s=1.0, finished_s=1.0,
                           tokens_generated=1, token_times_s=[1.0])  # fmt: skip
    summary = Run([record]).summary(SLO(ttft_s=2.0))
    for one in DEFINITIONS:
        assert one.key in (summary["goodput"] if one.key == "attainment" else summary)


def test_the_guide_lists_each_one(root):
    page = (root / "docs" / "guide" / "measures.md").read_text(encoding="utf-8")
    for one in DEFINITIONS:
        assert f"| `{one.key}` | {one.name} | {one.unit} | {one.formula}" in page
