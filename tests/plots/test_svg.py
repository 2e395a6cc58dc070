"""SVG: valid, complete, and the same bytes each time."""

from __future__ import annotations

import xml.etree.ElementTree as ET

SVG = "{http://www.w3.org/2000/svg}"


def test_svg_is_valid_complete_and_repeatable(regions_plan, tmp_path):
    path = tmp_path / "plan.svg"
    text = regions_plan.to_svg(path)
    assert path.read_text(encoding="utf-8") == text == regions_plan.to_svg()
    root = ET.fromstring(text)
    assert {g.get("data-node") for g in root.iter(f"{SVG}g") if g.get("class") == "node"} == set(regions_plan.placement)
    titles = [t.text or "" for t in root.iter(f"{SVG}title")]
    assert any("A100-40G-3 → L4-0" in t and "limits the flow" in t for t in titles)
    assert "None" not in text and "nan" not in text
