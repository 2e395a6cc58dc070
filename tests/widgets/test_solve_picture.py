"""The picture of a solve: it grows without news, ends with the solve, and shows the last numbers."""

from __future__ import annotations

import math
import re
import time
import xml.etree.ElementTree as ET

from helix_kit.widgets.solve_picture import SolvePicture, drawing


def ends_s(picture: str) -> float:
    return float(re.search(r">([\d.]+) s<", picture)[1])


def test_it_grows_while_the_solve_goes_on_and_stops_with_it():
    picture = SolvePicture()
    picture.begin()
    picture.add(0.01, 0.0, 300.0)
    deadline = time.monotonic() + 20
    while not picture.value and time.monotonic() < deadline:
        time.sleep(0.05)
    first = ends_s(picture.value)
    while ends_s(picture.value) == first and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ends_s(picture.value) > first, "no report came, but time went on"
    picture.add(1.5, 250.0, 300.0)
    picture.end(1.6)
    last = picture.value
    assert ends_s(last) == 1.6 and "value 250 tokens/s" in last and "bound 300 tokens/s" in last
    time.sleep(1.2)
    assert picture.value == last
    picture.begin()
    assert picture.value == "" and picture.points == []
    picture.end()


def test_value_rises_and_bound_falls_in_the_drawing():
    root = ET.fromstring(drawing([(0.1, 0.0, math.inf), (1.0, 100.0, 900.0), (3.0, 180.0, 200.0)], 4.0))
    bound, value = (path.get("d") for path in root.iter("path"))
    heights = [float(y) for y in re.findall(r"(?:V|,)([\d.]+)", value)]
    assert heights == sorted(heights, reverse=True) and len(heights) == 3
    drops = [float(y) for y in re.findall(r"(?:V|,)([\d.]+)", bound)]
    assert drops == sorted(drops) and len(drops) == 2


def test_without_value_and_bound_there_is_no_drawing():
    assert drawing([(0.1, 0.0, math.inf)], 1.0) == ""
