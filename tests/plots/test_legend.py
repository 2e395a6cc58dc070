"""The legend has the signs that the picture needs and no others."""

from __future__ import annotations

from helix_kit.plots import flow_graph
from helix_kit.plots.legend import region_ribbon
from helix_kit.plots.scene import Curve, Text


def entries(plan, width: float = 1100.0) -> list[Text]:
    (group,) = (g for g in flow_graph(plan, width=width).scene.groups if g.role == "legend")
    return [item for item in group.items if isinstance(item, Text)]


def test_partial_entries_and_regions_are_explained_only_where_there_are_any(overlapping_plan, regions_plan):
    overlapping, regions = ([e.text for e in entries(plan)] for plan in (overlapping_plan, regions_plan))
    assert any("mid-way" in text for text in overlapping) and "between regions" not in overlapping
    assert "between regions" in regions and not any("mid-way" in text for text in regions)
    assert "holds no layers: T4-0" in regions


def test_entries_wrap_in_a_narrow_picture(regions_plan):
    assert len({e.y for e in entries(regions_plan, 500.0)}) > len({e.y for e in entries(regions_plan)})


def test_a_ribbon_between_regions_is_dashed_whatever_its_width():
    line = ((0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (3.0, 0.0))
    for width in (1.0, 20.0):
        assert any(curve.dashed for curve in region_ribbon(Curve(line, "far", width)))
