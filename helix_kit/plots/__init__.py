"""Pictures: the flow graph of a plan (own SVG and PNG), and seaborn figures of runs.

>>> from helix_kit.plots import flow_graph
>>> picture = flow_graph(plan)                       # doctest: +SKIP
>>> picture.to_svg("plan.svg")                       # doctest: +SKIP
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit.errors import InputError
from helix_kit.plots.scene import Scene
from helix_kit.plots.theme import THEMES

if TYPE_CHECKING:
    from helix_kit.placement.plan import Plan


@dataclass(frozen=True)
class Picture:
    """A laid-out picture: shows itself in notebooks, and writes SVG and PNG."""

    scene: Scene
    theme: str = "light"

    def to_svg(self, path: str | Path | None = None) -> str:
        """SVG text, also written to `path` when given."""
        from helix_kit.plots.svg import to_svg

        text = to_svg(self.scene, self.theme)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def to_png(self, path: str | Path | None = None, *, scale: float = 2.0) -> bytes:
        """PNG bytes with `scale` image pixels per layout pixel, also written to `path` when given."""
        from helix_kit.plots.png import to_png

        data = to_png(self.scene, self.theme, scale)
        if path is not None:
            Path(path).write_bytes(data)
        return data

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, Any]]:
        return png_bundle(self.to_png(), self.scene.title, self.scene.width)


def png_bundle(png: bytes, text: str, width: float) -> tuple[dict[str, str], dict[str, Any]]:
    """A mime bundle that shows `png` at `width` pixels in notebooks, on GitHub and in nbconvert."""
    data = {"image/png": base64.b64encode(png).decode("ascii"), "text/plain": text}
    return data, {"image/png": {"width": round(width)}}


def flow_graph(
    plan: Plan,
    *,
    width: float = 1100.0,
    theme: str = "light",
    merge: bool | None = None,
    highlight: int | Collection[str] | None = None,
) -> Picture:
    """The flow graph of `plan` as swimlanes: x = layer, filling = utilisation, width of ribbons = flow.

    Parameters
    ----------
    width
        Pixels.
    theme
        ``light`` or ``dark``.
    merge
        Whether machines of one kind and region with the same layers share a bar; None: above 60 machines.
    highlight
        Index of one of `plan.pipelines`, or node names; the rest fades.
    """
    from helix_kit.plots.swimlanes import layout

    if theme not in THEMES:
        raise InputError(f"expected one of {', '.join(THEMES)}", field="theme", value=theme)
    if isinstance(highlight, int):
        if not -len(plan.pipelines) <= highlight < len(plan.pipelines):
            raise InputError(f"the plan has {len(plan.pipelines)} pipelines", field="highlight", value=highlight)
        highlight = [stage.node for stage in plan.pipelines[highlight][0]]
    return Picture(layout(plan, width=width, merge=merge, highlight=highlight), theme)


__all__ = ["Picture", "flow_graph", "png_bundle"]
