"""Functions register themselves as experiments."""

import pytest

from helix_kit.experiments.machinery import registry
from helix_kit.experiments.machinery.registry import Context, experiment, registered


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


def test_the_decorator_registers_and_returns_the_function():
    def compute(context):
        return context.seed

    assert experiment("a", title="A", paper="Table 1", draw=str, minutes=2.0)(compute) is compute
    entry = registered()["a"]
    assert entry.compute(Context(seed=5)) == 5 and entry.minutes == 2.0 and not entry.timed


def test_a_name_is_taken_once():
    experiment("a", title="A", paper="", draw=str)(lambda context: None)
    with pytest.raises(AssertionError, match="two experiments are called a"):
        experiment("a", title="B", paper="", draw=str)(lambda context: None)


def test_contexts_do_not_share_measurements():
    first, second = Context(), Context()
    first.measured["seconds"] = 1.0
    assert second.measured == {}
