"""Every picture of an experiment, drawn from the committed table: text that can be read, nothing over anything else.

Sizes are those in print: pictures are drawn a page's text width (7 in) wide.
"""

from pathlib import Path

import numpy as np
import pytest

from helix_kit.experiments.machinery.catalogue import experiment_named, experiments
from helix_kit.experiments.machinery.files import load

pytest.importorskip("matplotlib")
FIGURES = Path(__file__).resolve().parents[4] / "figures"


def texts_of(figure):
    """(text, its box in pixels) of every text that is really drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    figure.set_dpi(150)  # of the PNG
    canvas, drawn, draw = FigureCanvasAgg(figure), [], Text.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", lambda text, *a, **k: drawn.append(text) or draw(text, *a, **k))
        canvas.draw()
    renderer = canvas.get_renderer()
    drawn = [t for t in dict.fromkeys(drawn) if t.get_visible() and t.get_text().strip()]
    return [(text, text.get_window_extent(renderer)) for text in drawn]


def corners(text, box):
    """The four corners of a text's own (maybe turned) box, in pixels."""
    from matplotlib.transforms import Affine2D

    turn = text.get_rotation()
    if turn in (0, 90, 270):
        return np.array([(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)])
    # The extent of the same text unturned, turned about the middle of the extent.
    size = text.get_fontsize() * text.figure.dpi / 72
    middle = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
    radians = np.deg2rad(turn)
    height = 0.9 * size
    width = max(1.0, (box.width - height * abs(np.sin(radians))) / max(1e-9, abs(np.cos(radians))))
    flat = np.array([(-width, -height), (width, -height), (width, height), (-width, height)]) / 2
    return Affine2D().rotate(radians).transform(flat) + middle


def overlap(a, b):
    """Whether two convex quadrilaterals overlap by more than a pixel (separating axes)."""
    for quad in (a, b):
        for first, second in zip(quad, np.roll(quad, -1, axis=0), strict=True):
            normal = np.array([second[1] - first[1], first[0] - second[0]])
            length = np.linalg.norm(normal)
            if length < 1e-9:
                continue
            mine, other = a @ normal / length, b @ normal / length
            if mine.max() - 1 <= other.min() or other.max() - 1 <= mine.min():
                return False
    return True


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
