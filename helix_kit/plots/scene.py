"""A picture as plain data: rectangles, curves, polygons and texts in pixels, y downwards, colours by role.

`swimlanes.layout` makes a Scene; `svg`, `png` and the widget's JavaScript each draw it without knowing what it
means. So SVG, PNG and widget share one layout.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle; `radius` rounds its corners."""

    x: float
    y: float
    width: float
    height: float
    fill: str | None = None
    stroke: str | None = None
    stroke_width: float = 1.0
    radius: float = 0.0
    shape: str = "rect"


@dataclass(frozen=True, slots=True)
class Curve:
    """A cubic Bezier curve through four points; the first two move with its source, the last two with its target."""

    points: tuple[Point, Point, Point, Point]
    stroke: str
    width: float
    dashed: bool = False
    shape: str = "curve"


@dataclass(frozen=True, slots=True)
class Polygon:
    """A polygon, or a polyline if it has no `fill`."""

    points: tuple[Point, ...]
    fill: str | None = None
    stroke: str | None = None
    stroke_width: float = 1.0
    dashed: bool = False
    shape: str = "polygon"


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; `y` is its baseline."""

    x: float
    y: float
    text: str
    size: float = 11.0
    fill: str = "ink"
    anchor: Literal["start", "middle", "end"] = "start"
    bold: bool = False
    halo: bool = False
    """Outlined in the colour of the paper, so that it is legible over ribbons."""
    upright: bool = False
    """Turned by 90 degrees, reading upwards."""
    shape: str = "text"


Item = Rect | Curve | Polygon | Text


@dataclass(frozen=True, slots=True)
class Group:
    """Items that belong together; `data` says what they stand for and `hint` is the text shown on hover."""

    items: tuple[Item, ...]
    role: str = "frame"
    """"frame", "node" or "edge"."""
    data: tuple[tuple[str, Any], ...] = ()
    hint: str = ""
    faded: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is drawn, from back to front, and how layers map to pixels."""

    width: float
    height: float
    groups: tuple[Group, ...]
    title: str
    layer_x0: float
    """x of layer 0."""
    layer_width: float
    """Pixels per layer."""
    num_layers: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with hundredths of a pixel; fields that are None or False are left out."""
        return {
            "width": self.width,
            "height": self.height,
            "title": self.title,
            "layer_x0": self.layer_x0,
            "layer_width": self.layer_width,
            "num_layers": self.num_layers,
            "groups": [
                {
                    "role": group.role,
                    "data": dict(group.data),
                    "hint": group.hint,
                    "items": [_plain(item) for item in group.items],
                }
                for group in self.groups
            ],
        }


def _plain(item: Item) -> dict[str, Any]:
    fields = asdict(item).items()
    return {name: _rounded(value) for name, value in fields if value is not None and value is not False}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 2)
    return [_rounded(v) for v in value] if isinstance(value, tuple) else value


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Room for `text` in pixels: on average a letter of Helvetica, Arial and DejaVu Sans takes at most 0.64 em."""
    narrow = sum(c in "ilj.,:;|!' ()[]" for c in text)
    return (0.64 * (len(text) - narrow) + 0.38 * narrow) * size * (1.08 if bold else 1.0)
