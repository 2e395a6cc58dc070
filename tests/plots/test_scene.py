"""A scene as plain data, and the width of texts."""

from __future__ import annotations

import json

import pytest

from helix_kit.plots.scene import Group, Rect, Scene, Text, text_width


def test_plain_data_is_json_and_leaves_out_what_is_not_set():
    items = (Rect(1.23456, 0.0, 2.0, 3.0, fill="ink"), Text(0.0, 0.0, "a", bold=True))
    scene = Scene(10.0, 5.0, (Group(items, role="node", data=(("nodes", ["a", "b"]),)),), "title", 0.0, 1.0, 4)
    (group,) = json.loads(json.dumps(scene.to_dict()))["groups"]
    assert group["data"] == {"nodes": ["a", "b"]}
    rect, text = group["items"]
    assert rect["x"] == 1.23 and "stroke" not in rect and rect["shape"] == "rect"
    assert text["bold"] is True and "halo" not in text


@pytest.mark.parametrize("text", ["A100-40G-0", "layer", "min cut: together they limit the flow", "×12", "illi"])
@pytest.mark.parametrize("bold", [False, True])
def test_text_width_is_an_upper_bound_in_matplotlibs_font(text, bold):
    path = pytest.importorskip("matplotlib.textpath")
    from matplotlib.font_manager import FontProperties

    from helix_kit.plots.png import TEXT_SCALE

    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal", size=11 * TEXT_SCALE)
    drawn = path.TextPath((0, 0), text, prop=font).get_extents().width
    assert drawn <= text_width(text, 11, bold)
