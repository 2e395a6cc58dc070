"""Figure 5: the trace has the paper's numbers."""

import numpy as np
import pytest
from committed import FIGURES

from helix_kit.experiments.machinery.files import load


def test_trace_has_the_paper_s_numbers():
    table = load("azure-trace", FIGURES)
    for series, mean in (("input", 763), ("output", 232)):  # Figure 5 of the paper
        part = table[table["series"] == series]
        assert part["requests"].sum() == pytest.approx(16657, rel=5e-4)  # the sampler's; ours has 16,663
        assert (part["x"] * part["requests"]).sum() / part["requests"].sum() == pytest.approx(mean, rel=0.01)
        assert (np.diff(part["x"]) == 32).all()  # bins of one width: a share in one can be held against the next
    assert 58 <= (table["series"] == "arrivals").sum() <= 60
