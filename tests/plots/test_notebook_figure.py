"""Figures show themselves, with and without pyplot."""

from __future__ import annotations

import pytest
from PIL import Image

from helix_kit.plots.notebook_figure import NotebookFigure


def test_the_picture_is_the_figure_and_the_same_each_time(tmp_path):
    figure = NotebookFigure(figsize=(3, 2))
    figure.subplots().bar(["a", "b"], [1, 2])
    data = figure._repr_png_()
    (tmp_path / "figure.png").write_bytes(data)
    width, height = Image.open(tmp_path / "figure.png").size
    assert (width, height) == (pytest.approx(300, abs=60), pytest.approx(200, abs=60))
    assert figure._repr_png_() == data and b"Software" not in data
