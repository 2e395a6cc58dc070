"""Old keyword names: accepted with a warning that points at the caller, refused beside the new name."""

from __future__ import annotations

import importlib
import inspect
import sys

import pytest

from helix_kit import Cluster, InputError, Workload, plan, simulate
from helix_kit._deprecation import renamed_keywords
from helix_kit.analysis import what_if
from helix_kit.analysis.compare import compare
from helix_kit.analysis.repair import fix_the_rest
from helix_kit.analysis.robustness import robustness
from helix_kit.placement.cheapest import cheapest
from helix_kit.runtime.weights import tiny
from helix_kit.simulator import score
from helix_kit.workload import make_workload


class Timer:
    @classmethod
    @renamed_keywords(duration="duration_s")
    def started(cls, name, duration_s=1.0):
        """A timer."""
        return cls, name, duration_s


def test_a_class_method_takes_both_names_and_keeps_its_own():
    assert Timer.started("a", duration_s=2.0) == (Timer, "a", 2.0)
    with pytest.warns(DeprecationWarning, match=r"started\(\).*`duration`.*`duration_s`") as caught:
        assert Timer.started("a", duration=3.0) == (Timer, "a", 3.0)
    assert caught[0].filename == __file__
    assert Timer.started.__name__ == "started" and Timer.started.__doc__ == "A timer."
    assert list(inspect.signature(Timer.started).parameters) == ["name", "duration_s"]


def test_both_names_at_once_are_refused():
    with pytest.raises(TypeError, match="`duration_s` and its old name `duration`"):
        Timer.started("a", duration=1.0, duration_s=2.0)


def test_workloads_accept_the_old_names():
    with pytest.warns(DeprecationWarning):
        old = Workload.constant(rate=2.0, duration=3.0)
    assert old == Workload.constant(rate_per_s=2.0, duration_s=3.0) and len(old) == 6


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        (plan, "time_limit", "time_limit_s"),
        (cheapest, "time_limit", "time_limit_s"),
        (what_if, "time_limit", "time_limit_s"),
        (fix_the_rest, "time_limit", "time_limit_s"),
        (simulate, "duration", "duration_s"),
        (simulate, "warmup", "warmup_s"),
        (score, "duration", "duration_s"),
        (score, "warmup", "warmup_s"),
        (compare, "duration", "duration_s"),
        (compare, "warmup", "warmup_s"),
        (robustness, "duration", "duration_s"),
        (make_workload, "rate", "rate_per_s"),
        (make_workload, "duration", "duration_s"),
        (Workload.azure_conversation, "rate", "rate_per_s"),
        (Workload.azure_code, "duration", "duration_s"),
        (Workload.poisson, "rate", "rate_per_s"),
        (Workload.offline, "duration", "duration_s"),
        (Workload.scaled, "rate", "rate_per_s"),
    ],
)
def test_renamed_keywords_of_the_public_functions(function, old, new):
    """The old name is not in the signature, and is translated: given together with the new name it is refused."""
    assert new in inspect.signature(function).parameters and old not in inspect.signature(function).parameters
    with pytest.raises(TypeError, match=f"`{new}` and its old name `{old}`"):
        function(**{old: 1.0, new: 1.0})


def test_the_error_names_the_new_keyword():
    with pytest.warns(DeprecationWarning), pytest.raises(InputError, match="duration_s = -1"):
        Workload.poisson(1.0, duration=-1)


def test_plan_accepts_the_old_name_of_its_time_limit():
    cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    new = plan(cluster, "llama-30b", method="petals", time_limit_s=9.0)
    with pytest.warns(DeprecationWarning, match=r"plan\(\).*`time_limit`.*`time_limit_s`"):
        assert plan(cluster, "llama-30b", method="petals", time_limit=9.0).placement == new.placement


def test_the_old_place_of_tiny_checkpoints_is_importable(monkeypatch):
    monkeypatch.delitem(sys.modules, "helix_kit.runtime.tiny", raising=False)
    with pytest.warns(DeprecationWarning, match="helix_kit.runtime.weights.tiny"):
        old = importlib.import_module("helix_kit.runtime.tiny")
    assert old.tiny_checkpoint is tiny.tiny_checkpoint and old.tiny_plan is tiny.tiny_plan
