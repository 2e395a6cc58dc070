"""Two small experiments, in place of the catalogue's."""

import pandas as pd
import pytest

pytest.importorskip("matplotlib")

from helix_kit.experiments.machinery import catalogue
from helix_kit.experiments.machinery.files import load
from helix_kit.experiments.machinery.registry import Experiment


def _draw(table):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 2))
    figure.subplots().plot(table["x"], table["y"])
    return figure


@pytest.fixture
def toy(monkeypatch):
    """Two experiments, the second reading the first's table; counts how often each is computed."""
    calls = {"first": 0, "second": 0}

    def first(context):
        calls["first"] += 1
        context.measured["seconds"] = calls["first"]
        return pd.DataFrame({"x": [0, 1], "y": [context.seed, 2 + context.fast]})

    def second(context):
        calls["second"] += 1
        return load("first", context.folder).assign(y=lambda t: 2 * t["y"])

    for function in (first, second):
        function.__module__ = "helix_kit.experiments.figures.trace"
    known = {
        "first": Experiment("first", "First", "Table 0", first, _draw, data=("workload",)),
        "second": Experiment("second", "Second", "Table 0", second, _draw, needs=("first",), data=("workload",)),
    }
    for name in ("experiments", "_known"):
        monkeypatch.setattr(catalogue, name, lambda: known)
    return calls
