"""Every picture of an experiment, drawn from the committed table: text that can be read, nothing over anything else.

Sizes are those in print: pictures are drawn a page's text width (7 in) wide.
"""

from pathlib import Path

import pytest
from legible import corners, overlap, texts_of

from helix_kit.experiments.machinery.catalogue import experiment_named, experiments
from helix_kit.experiments.machinery.files import load

pytest.importorskip("matplotlib")
FIGURES = Path(__file__).resolve().parents[4] / "figures"


@pytest.mark.parametrize("name", list(experiments()))
def test_text_is_large_enough_whole_and_apart(name):
    figure = experiment_named(name).draw(load(name, FIGURES))
    assert figure.get_figwidth() == pytest.approx(7.0)
    found = texts_of(figure)
    assert found
    small = {t.get_text(): t.get_fontsize() for t, _ in found if t.get_fontsize() < 6}
    assert not small, "under 6 points in print"
    width, height = figure.bbox.width, figure.bbox.height
    cut = [t.get_text() for t, b in found if b.x0 < -1 or b.y0 < -1 or b.x1 > width + 1 or b.y1 > height + 1]
    assert not cut, "cut off at the edge"
    quads = [(t.get_text(), corners(t, b)) for t, b in found]
    over = [(a, b) for i, (a, qa) in enumerate(quads) for b, qb in quads[i + 1 :] if overlap(qa, qb)]
    assert not over, "text over text"


@pytest.mark.parametrize("name", list(experiments()))
def test_a_headline_says_what_is_to_be_seen_and_axes_name_their_units(name):
    figure = experiment_named(name).draw(load(name, FIGURES))
    heads = [t.get_text() for t, _ in texts_of(figure) if t.get_position()[1] > 0.9 and t.axes is None]
    heads += [figure.axes[0].get_title(loc="left")]
    if name != "topology":
        assert any(len(h) > 20 for h in heads), "no headline"
    for axes in figure.axes:
        if axes.axison and axes.get_ylabel():
            number = all(t.get_text().replace(",", "").replace(".", "").strip("−-").isdigit()
                         for t in axes.get_yticklabels() if t.get_text())  # fmt: skip
            unit = any(
                u in axes.get_ylabel() for u in ("/s", ", s", "%", "seconds", "TFLOPS", "number of", "share", "times")
            )
            assert not number or unit, axes.get_ylabel()
