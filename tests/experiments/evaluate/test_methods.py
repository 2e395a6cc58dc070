"""Names of methods: what each places and how it schedules."""

from __future__ import annotations

from pathlib import Path

import pytest

from helix_kit.errors import InputError
from helix_kit.experiments.evaluate.methods import chosen_methods, method_of


def test_one_text_names_several_and_plans_are_shared():
    helix, random, swarm = chosen_methods("helix, random,swarm")
    assert helix.plan_name == random.plan_name != swarm.plan_name
    assert (helix.policy, random.policy, swarm.policy) == ("helix", "random", "swarm")


def test_any_placement_goes_with_any_policy():
    pair = method_of("helix+shortest-queue")
    assert (pair.placement, pair.policy, pair.name) == ("pattern", "shortest-queue", "helix+shortest-queue")
    assert method_of("parallax").policy == "helix"


def test_files_are_plans_and_mappings_rename(tmp_path: Path):
    file = tmp_path / "mine.json"
    file.write_text("{}")
    (mine,) = chosen_methods([file])
    assert mine.name == mine.plan_name == "mine" and mine.placement == file
    (renamed,) = chosen_methods({"rival": "swarm"})
    assert (renamed.name, renamed.placement, renamed.policy) == ("rival", "swarm", "swarm")


@pytest.mark.parametrize("wrong", ["", "helix,helix", "swam", "helix+fastest", "missing.json"])
def test_what_names_nothing_is_refused(wrong: str):
    with pytest.raises(InputError):
        chosen_methods(wrong)
