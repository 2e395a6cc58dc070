"""Functions register themselves as experiments."""

from dataclasses import MISSING, fields

import pytest

from helix_kit.experiments.machinery import registry
from helix_kit.experiments.machinery.registry import Context, Details, Experiment, experiment, registered


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


def test_every_field_with_a_default_may_be_given():
    optional = {f.name for f in fields(Experiment) if f.default is not MISSING or f.default_factory is not MISSING}
    assert set(Details.__annotations__) == optional


def test_contexts_do_not_share_measurements():
    first, second = Context(), Context()
    first.measured["seconds"] = 1.0
    assert second.measured == {}
