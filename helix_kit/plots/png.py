"""A Scene as PNG, drawn by matplotlib's Agg without display or global state. The same scene gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from helix_kit.plots.scene import Curve, Item, Polygon, Rect, Scene, Text
from helix_kit.plots.theme import THEMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PIXELS_PER_INCH = 100.0
POINTS_PER_PIXEL = 72 / PIXELS_PER_INCH
TEXT_SCALE = 0.94
"""DejaVu Sans is wider than the fonts for which the layout has room, so texts are drawn this much smaller."""


def to_png(scene: Scene, theme: str = "light", scale: float = 2.0) -> bytes:
    """The scene with `scale` image pixels for each pixel of the layout (2 is sharp on high-density screens)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = to_figure([scene], theme, scale=scale)
    buffer = io.BytesIO()
    # No metadata, since matplotlib's version would change the bytes.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def to_figure(scenes: Sequence[Scene], theme: str = "light", *, scale: float = 1.0) -> Figure:
    """Scenes, one below the other, as a matplotlib figure in which a pixel is a hundredth of an inch."""
    from matplotlib.figure import Figure

    colours = THEMES[theme]
    width, height = max(s.width for s in scenes), sum(s.height for s in scenes)
    size = (width / PIXELS_PER_INCH, height / PIXELS_PER_INCH)
    figure = Figure(figsize=size, dpi=PIXELS_PER_INCH * scale, facecolor=colours["paper"])
    above = 0.0
    for scene in scenes:
        box = (0, 1 - (above + scene.height) / height, scene.width / width, scene.height / height)
        axes = figure.add_axes(box, xlim=(0, scene.width), ylim=(scene.height, 0))
        axes.axis("off")
        for z, group in enumerate(scene.groups):
            for item in group.items:
                _draw(axes, item, colours, z, 0.15 if group.faded else 1.0)
        above += scene.height
    return figure


def _draw(axes: Axes, item: Item, colours: dict[str, str], z: int, alpha: float) -> None:
    style = _Style({**colours, "": "none"}, z, alpha)
    if isinstance(item, Rect):
        _draw_rect(axes, item, style)
    elif isinstance(item, Curve):
        _draw_curve(axes, item, style)
    elif isinstance(item, Polygon):
        _draw_polygon(axes, item, style)
    else:
        _draw_text(axes, item, style)


class _Style(NamedTuple):
    colours: dict[str, str]
    """Role -> colour; "" is no colour."""
    z: int
    alpha: float


def _draw_rect(axes: Axes, item: Rect, style: _Style) -> None:
    from matplotlib.patches import FancyBboxPatch, Rectangle

    look: dict[str, Any] = {
        "facecolor": style.colours[item.fill or ""],
        "edgecolor": style.colours[item.stroke or ""],
        "linewidth": item.stroke_width * POINTS_PER_PIXEL if item.stroke else 0,
        "zorder": style.z,
        "alpha": style.alpha,
    }
    radius = min(item.radius, item.width / 2, item.height / 2)
    if radius > 0:
        corner = f"round,pad=0,rounding_size={radius}"
        axes.add_patch(FancyBboxPatch((item.x, item.y), item.width, item.height, boxstyle=corner, **look))
    else:
        axes.add_patch(Rectangle((item.x, item.y), item.width, item.height, **look))


def _draw_curve(axes: Axes, item: Curve, style: _Style) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    path = Path(list(item.points), [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    axes.add_patch(
        PathPatch(
            path,
            facecolor="none",
            edgecolor=style.colours[item.stroke],
            linewidth=item.width * POINTS_PER_PIXEL,
            # matplotlib takes lengths of dashes in units of the line width.
            linestyle=(0, (5 / item.width, 3 / item.width)) if item.dashed else "-",
            capstyle="butt",
            zorder=style.z,
            alpha=style.alpha,
        )
    )


def _draw_polygon(axes: Axes, item: Polygon, style: _Style) -> None:
    from matplotlib.patches import Polygon as Patch

    common: dict[str, Any] = {"zorder": style.z, "alpha": style.alpha}
    if item.fill:
        axes.add_patch(Patch(item.points, closed=True, facecolor=style.colours[item.fill], edgecolor="none", **common))
    if item.stroke:
        xs, ys = zip(*item.points, strict=True)
        axes.plot(xs, ys, color=style.colours[item.stroke], linewidth=item.stroke_width * POINTS_PER_PIXEL, **common)


def _draw_text(axes: Axes, item: Text, style: _Style) -> None:
    text = axes.text(
        item.x,
        item.y,
        item.text,
        fontsize=item.size * POINTS_PER_PIXEL * TEXT_SCALE,
        color=style.colours[item.fill],
        ha={"start": "left", "middle": "center", "end": "right"}[item.anchor],
        va="baseline",
        weight="bold" if item.bold else "normal",
        family="DejaVu Sans",
        rotation=90 if item.upright else 0,
        rotation_mode="anchor",
        zorder=style.z + 0.5,
        alpha=style.alpha,
    )
    if item.halo:
        from matplotlib.patheffects import withStroke

        text.set_path_effects([withStroke(linewidth=3 * POINTS_PER_PIXEL, foreground=style.colours["paper"])])
