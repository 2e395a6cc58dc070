"""A Scene as PNG, drawn by matplotlib's Agg (no display, no global state); the same scene gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from helix_kit.plots.scene import Curve, Item, Polygon, Rect, Scene
from helix_kit.plots.theme import THEMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PIXELS_PER_INCH = 100.0


def to_png(scene: Scene, theme: str = "light", scale: float = 2.0) -> bytes:
    """`scene` with `scale` image pixels per pixel of the layout (2: sharp on high-density screens)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = to_figure([scene], theme, scale=scale)
    buffer = io.BytesIO()
    # Without metadata: matplotlib's version would otherwise change the bytes.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def to_figure(scenes: Sequence[Scene], theme: str = "light", *, scale: float = 1.0) -> Figure:
    """Scenes of one width, one below the other, as a matplotlib figure of a hundredth of an inch per pixel."""
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
    from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
    from matplotlib.patches import Polygon as Patch
    from matplotlib.path import Path

    points_per_pixel = 72 / PIXELS_PER_INCH

    def colour(role: str | None) -> str:
        return colours[role] if role else "none"

    if isinstance(item, Rect):
        style: dict[str, Any] = {
            "facecolor": colour(item.fill),
            "edgecolor": colour(item.stroke),
            "linewidth": item.stroke_width * points_per_pixel if item.stroke else 0,
            "zorder": z,
            "alpha": alpha,
        }
        radius = min(item.radius, item.width / 2, item.height / 2)
        if radius > 0:
            corner = f"round,pad=0,rounding_size={radius}"
            box = FancyBboxPatch((item.x, item.y), item.width, item.height, boxstyle=corner, **style)
            axes.add_patch(box)
        else:
            axes.add_patch(Rectangle((item.x, item.y), item.width, item.height, **style))
    elif isinstance(item, Curve):
        path = Path(list(item.points), [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
        # Dash lengths are in units of the line width.
        dash = (0, (5 / item.width, 3 / item.width)) if item.dashed else "-"
        axes.add_patch(
            PathPatch(
                path,
                facecolor="none",
                edgecolor=colour(item.stroke),
                linewidth=item.width * points_per_pixel,
                linestyle=dash,
                capstyle="butt",
                zorder=z,
                alpha=alpha,
            )
        )
    elif isinstance(item, Polygon):
        if item.fill:
            axes.add_patch(
                Patch(item.points, closed=True, facecolor=colour(item.fill), edgecolor="none", zorder=z, alpha=alpha)
            )
        if item.stroke:
            xs, ys = zip(*item.points, strict=True)
            line = item.stroke_width * points_per_pixel
            axes.plot(xs, ys, color=colour(item.stroke), linewidth=line, zorder=z, alpha=alpha)
    else:
        text = axes.text(
            item.x,
            item.y,
            item.text,
            fontsize=item.size * points_per_pixel * 0.94,
            color=colour(item.fill),
            ha={"start": "left", "middle": "center", "end": "right"}[item.anchor],
            va="baseline",
            weight="bold" if item.bold else "normal",
            family="DejaVu Sans",
            rotation=90 if item.upright else 0,
            rotation_mode="anchor",
            zorder=z + 0.5,
            alpha=alpha,
        )
        if item.halo:
            from matplotlib.patheffects import withStroke

            text.set_path_effects([withStroke(linewidth=3 * points_per_pixel, foreground=colours["paper"])])
