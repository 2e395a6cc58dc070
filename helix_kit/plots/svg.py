"""A Scene as SVG text. The same scene always gives the same bytes."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from helix_kit.plots.scene import Curve, Group, Item, Point, Polygon, Rect, Scene
from helix_kit.plots.theme import THEMES

FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"


def to_svg(scene: Scene, theme: str = "light") -> str:
    """The scene as an SVG document: hover texts become ``<title>``, nodes and links carry data attributes."""
    colours = THEMES[theme]
    size = f'width="{_n(scene.width)}" height="{_n(scene.height)}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {_n(scene.width)} {_n(scene.height)}" '
        f'font-family={quoteattr(FONT)} role="img" aria-label={quoteattr(scene.title)}>'
    ]
    for group in scene.groups:
        lines += _group(group, colours)
    return "\n".join([*lines, "</svg>", ""])


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _group(group: Group, colours: dict[str, str]) -> list[str]:
    attributes = "".join(
        f" data-{key}={quoteattr(str(value))}" for key, value in group.data if not isinstance(value, list)
    )
    if group.faded:
        attributes += ' opacity="0.15"'
    title = [f"<title>{escape(group.hint)}</title>"] if group.hint else []
    return [f'<g class="{group.role}"{attributes}>', *title, *(_item(i, colours) for i in group.items), "</g>"]


def _item(item: Item, colours: dict[str, str]) -> str:
    if isinstance(item, Rect):
        radius = f' rx="{_n(item.radius)}"' if item.radius else ""
        box = f'x="{_n(item.x)}" y="{_n(item.y)}" width="{_n(item.width)}" height="{_n(item.height)}"'
        return f"<rect {box}{radius}{_paint(item.fill, item.stroke, item.stroke_width, colours)}/>"
    if isinstance(item, Curve):
        a, b, c, d = (_point(p) for p in item.points)
        paint = _paint(None, item.stroke, item.width, colours, dashed=item.dashed)
        return f'<path d="M{a} C{b} {c} {d}"{paint}/>'
    if isinstance(item, Polygon):
        tag = "polygon" if item.fill else "polyline"
        points = " ".join(_point(p) for p in item.points)
        paint = _paint(item.fill, item.stroke, item.stroke_width, colours, dashed=item.dashed)
        return f'<{tag} points="{points}"{paint}/>'
    turn = f' transform="rotate(-90 {_n(item.x)} {_n(item.y)})"' if item.upright else ""
    weight = ' font-weight="600"' if item.bold else ""
    if item.halo:
        weight += f' stroke="{colours["paper"]}" stroke-width="3" stroke-linejoin="round" paint-order="stroke"'
    anchor = "" if item.anchor == "start" else f' text-anchor="{item.anchor}"'
    place = f'x="{_n(item.x)}" y="{_n(item.y)}" font-size="{_n(item.size)}"'
    return f'<text {place}{anchor}{weight}{turn} fill="{colours[item.fill]}">{escape(item.text)}</text>'


def _point(point: Point) -> str:
    return f"{_n(point[0])},{_n(point[1])}"


def _paint(fill: str | None, stroke: str | None, width: float, colours: dict[str, str], *, dashed: bool = False) -> str:
    text = f' fill="{colours[fill] if fill else "none"}"'
    if stroke:
        text += f' stroke="{colours[stroke]}" stroke-width="{_n(width)}"'
    return text + (' stroke-dasharray="5 3"' if dashed else "")
