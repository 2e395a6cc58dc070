"""`helix-kit diff`: what changes between two plans, for people and as JSON."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def plans(overlapping_plan, tmp_path):
    """A plan, another one in which T4-1 gives four layers away and A10G-0 has all, and their files."""
    old = overlapping_plan
    new = old.rearranged({**old.placement, "T4-1": (0, 8), "A10G-0": (8, 30)})
    files = tmp_path / "old.json", tmp_path / "new.json"
    for plan, path in zip((old, new), files, strict=True):
        plan.save(path)
    return old, new, *files


def test_json_is_the_diff_of_the_plans(helix_kit, plans):
    old, new, before, after = plans
    code, out, err = helix_kit("diff", before, after, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told == old.diff(new).to_dict()
    # A10G-0 held layers from 12 on: it loads 8 to 12. T4-1 only drops layers.
    assert told["layers_gb"] == pytest.approx(4 * old.model.layer_gb)


def test_the_text_names_the_files_and_who_changes(helix_kit, plans):
    _, _, before, after = plans
    code, out, err = helix_kit("diff", before, after)
    assert code == 0, err
    rows = {line.split()[1]: line for line in out.splitlines() if "[" in line}
    assert "moves" in rows["A10G-0"] and "moves" not in rows["V100-16G-0"]
    assert "To load:" in out and "on 1 node\n" in out


def test_a_file_that_is_no_plan_is_wrong_input(helix_kit, plans, tmp_path):
    _, _, before, after = plans
    code, _, err = helix_kit("diff", before, tmp_path / "absent.json")
    assert code == 2 and "absent.json: no such file" in err
    (tmp_path / "half.json").write_text(before.read_text()[:100])
    assert helix_kit("diff", tmp_path / "half.json", after)[0] == 2
