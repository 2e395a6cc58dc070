"""Where the texts of a matplotlib figure lie once it is drawn, and whether they lie over each other."""

import numpy as np
import pytest


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
