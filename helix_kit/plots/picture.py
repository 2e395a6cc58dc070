"""The flow graph of a plan as a picture that shows itself in notebooks and writes SVG and PNG."""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit import _files
from helix_kit.errors import InputError
from helix_kit.plots import png, svg
from helix_kit.plots.scene import Scene
from helix_kit.plots.theme import THEMES

if TYPE_CHECKING:
    from helix_kit.placement.plan import Plan


@dataclass(frozen=True)
class Picture:
    """A picture with its layout, ready to be drawn.

    Examples
    --------
    >>> from helix_kit.plots.scene import Rect, Scene, Group
    >>> scene = Scene(20.0, 10.0, (Group((Rect(1.0, 1.0, 8.0, 4.0, fill="ink"),)),), "A bar", 0.0, 1.0, 20)
    >>> Picture(scene).to_svg().splitlines()[2]
    '<rect x="1" y="1" width="8" height="4" fill="#1b1f24"/>'
    """

    scene: Scene
    """Everything that is drawn."""
    theme: str = "light"
    """``light`` or ``dark``."""

    def to_svg(self, path: str | Path | None = None) -> str:
        """SVG text, also written to `path` if it is given."""
        text = svg.to_svg(self.scene, self.theme)
        if path is not None:
            _files.write_result(path, text)
        return text

    def to_png(self, path: str | Path | None = None, *, scale: float = 2.0) -> bytes:
        """PNG bytes with `scale` image pixels for each pixel of the layout, also written to `path` if it is given."""
        data = png.to_png(self.scene, self.theme, scale)
        if path is not None:
            _files.write_result(path, data)
        return data

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, Any]]:
        return png_bundle(self.to_png(), self.scene.title, self.scene.width)


def png_bundle(png: bytes, text: str, width: float) -> tuple[dict[str, str], dict[str, Any]]:
    """A MIME bundle that shows a PNG in notebooks, on GitHub and in nbconvert.

    Parameters
    ----------
    png
        The image.
    text
        The plain text in its place.
    width
        Pixels at which it is shown.

    Returns
    -------
    tuple
        Data and metadata, as ``_repr_mimebundle_`` returns them.

    Examples
    --------
    >>> png_bundle(b"...", "a plan", 800.4)
    ({'image/png': 'Li4u', 'text/plain': 'a plan'}, {'image/png': {'width': 800}})
    """
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
    """The flow graph of a plan as swimlanes: x is the layer, bars are machines, ribbons are flow.

    A bar is filled to the used share of its machine's capacity. The width of a ribbon is its flow.

    Parameters
    ----------
    plan
        The plan.
    width
        Pixels.
    theme
        ``light`` or ``dark``.
    merge
        Whether machines of one kind and region with the same layers share a bar. None: in plans of over 60 machines.
    highlight
        Index of one of `plan.pipelines`, or node names; everything else fades.

    Returns
    -------
    Picture
        The picture, which shows itself in a notebook.

    Raises
    ------
    InputError
        For an unknown theme, or an index of a pipeline that the plan does not have.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, Plan, Problem
    >>> problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    >>> plan = Plan.from_placement(problem, {"CPU-fast-0": (0, 18), "CPU-medium-0": (18, 30)}, method="by hand")
    >>> picture = flow_graph(plan, width=800)
    >>> picture.scene.title, picture.to_svg()[:4]
    ('SmolLM2-135M on laptop', '<svg')
    """
    from helix_kit.plots.swimlanes import layout

    if theme not in THEMES:
        raise InputError(f"expected one of {', '.join(THEMES)}", field="theme", value=theme)
    if isinstance(highlight, int):
        if not -len(plan.pipelines) <= highlight < len(plan.pipelines):
            raise InputError(f"the plan has {len(plan.pipelines)} pipelines", field="highlight", value=highlight)
        highlight = [stage.node for stage in plan.pipelines[highlight][0]]
    return Picture(layout(plan, width=width, merge=merge, highlight=highlight), theme)
