"""Options: what is measured when no seconds are given, and which policies are the published ones."""

from __future__ import annotations

import pytest

from helix_kit.errors import InputError
from helix_kit.scheduling import Swarm
from helix_kit.simulator import SimulationOptions
from helix_kit.workload import Workload

LATE = Workload.of([(0.0, 10, 5), (200.0, 10, 5)])
SOON = Workload.of([(0.0, 10, 5)])


@pytest.mark.parametrize(
    ("options", "workload", "window_s"),
    [
        ({"mode": "offline"}, LATE, (60.0, 660.0)),
        ({"mode": "online"}, LATE, (0.0, 260.0)),
        ({"mode": "online"}, SOON, (0.0, 60.0)),
        ({"mode": "online", "warmup_s": 50.0}, LATE, (50.0, 260.0)),
        ({"mode": "online", "warmup_s": 50.0, "duration_s": 7.0}, LATE, (50.0, 57.0)),
        ({"mode": "offline", "duration_s": 7.0}, LATE, (60.0, 67.0)),
    ],
)
def test_the_measured_window(options, workload, window_s):
    assert SimulationOptions(**options).with_window(workload).window_s == window_s


@pytest.mark.parametrize(
    ("field", "value"),
    [("duration_s", 0.0), ("duration_s", float("inf")), ("warmup_s", -1.0), ("warmup_s", float("nan"))],
)
def test_seconds_that_are_none_are_named(field, value):
    with pytest.raises(InputError, match=field):
        SimulationOptions(**{field: value}).with_window(SOON)


def test_only_a_name_of_the_packages_own_means_the_published_policy():
    assert SimulationOptions(policy="swarm").is_published("swarm")
    assert not SimulationOptions(policy="swarm").is_published("helix")
    assert not SimulationOptions(policy=Swarm).is_published("swarm")
    assert not SimulationOptions(policy="swarm.py:Swarm").is_published("Swarm")
