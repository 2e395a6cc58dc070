"""The flow graph as a notebook widget. What it shows and what is clicked are traits.

`helix_kit.plots` lays the picture out as a Scene; flow_graph.js draws it and handles pointer and keys.

>>> from helix_kit.widgets import FlowGraph
>>> graph = FlowGraph(plan)                                             # doctest: +SKIP
>>> graph.observe(lambda change: print(change.new), "selected")         # doctest: +SKIP
>>> graph.plan = another_plan                                           # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from helix_kit.errors import InputError
from helix_kit.flow import Pipeline, Stage
from helix_kit.placement.plan import Plan
from helix_kit.plots import Picture, png_bundle
from helix_kit.plots.formatting import format_number
from helix_kit.plots.swimlanes import layout
from helix_kit.plots.theme import THEMES
from helix_kit.widgets.still import with_still

HERE = Path(__file__).parent
MAX_PIPELINES = 50
"""The menu lists at most this many pipelines, those with most flow first."""


class FlowGraph(anywidget.AnyWidget):
    """An interactive flow graph of a plan.

    Parameters
    ----------
    plan
        The plan to draw. Assign another one to the trait `plan` to redraw.
    width
        Width of the layout in pixels. On screen the picture scales with the cell.
    theme
        ``auto`` follows the notebook, or ``light``, ``dark``.
    merge
        Whether equal machines share a bar, as in `helix_kit.plots.flow_graph`. None: only in large plans.
    highlight
        Index of one of the plan's pipelines, or node names.
    editable
        Whether bars may be dragged along the layers. The trait `edit` then receives the range that was asked for.
    **traits
        Other traits of the widget.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, Plan, Problem
    >>> from helix_kit.widgets import FlowGraph
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "L4", "count": 2}]})
    >>> problem = Problem.of(cluster, Model.preset("SmolLM2-135M"))
    >>> plan = Plan.from_placement(problem, {"L4-0": (0, 15), "L4-1": (15, 30)}, method="hand")
    >>> graph = FlowGraph(plan, highlight=0)
    >>> graph.highlighted
    ['L4-0', 'L4-1']
    """

    _esm = HERE / "flow_graph.js"
    _css = HERE / "flow_graph.css"

    plan = traitlets.Instance(Plan)
    width = traitlets.Float(1100.0)
    merge = traitlets.Bool(None, allow_none=True)
    scene = traitlets.Dict().tag(sync=True)
    themes = traitlets.Dict(THEMES).tag(sync=True)
    theme = traitlets.Enum(["auto", *THEMES], "auto").tag(sync=True)
    pipelines: Any = traitlets.List().tag(sync=True)
    highlighted = traitlets.List(traitlets.Unicode()).tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    """Name of the machine whose bar was clicked last, or ""."""
    search = traitlets.Unicode("").tag(sync=True)
    offsets = traitlets.Dict().tag(sync=True)
    """Node -> pixels by which the reader has moved its bar down."""
    editable = traitlets.Bool(False).tag(sync=True)
    edit = traitlets.Dict().tag(sync=True)
    """The last drag: {"node", "start", "end", "count"}; `count` counts drags, so that equal ones differ."""

    def __init__(
        self,
        plan: Plan,
        *,
        width: float = 1100.0,
        theme: str = "auto",
        merge: bool | None = None,
        highlight: int | Collection[str] | Pipeline | None = None,
        editable: bool = False,
        **traits: Any,
    ) -> None:
        if theme not in ("auto", *THEMES):
            raise InputError(f"expected one of auto, {', '.join(THEMES)}", field="theme", value=theme)
        super().__init__(plan=plan, width=width, theme=theme, merge=merge, editable=editable, **traits)
        self.highlight(highlight)

    @traitlets.observe("plan", "width", "merge")
    def _redraw(self, change: Any) -> None:
        if not self.trait_has_value("plan"):
            return
        with self.hold_sync():
            self.scene = layout(self.plan, width=self.width, merge=self.merge).to_dict()
            if change["name"] == "plan":
                self.pipelines = [
                    {
                        "label": f"{i + 1}: {format_number(rate)} tokens/s, {len(stages)} stages",
                        "nodes": [s.node for s in stages],
                    }
                    for i, (stages, rate) in enumerate(self.plan.pipelines[:MAX_PIPELINES])
                ]
                self.highlighted = []
                if self.selected not in self.plan.placement:
                    self.selected = ""

    def highlight(self, pipeline: int | Collection[str] | Pipeline | None) -> None:
        """Fade everything but one pipeline. None shows everything again.

        `pipeline` is an index into `Plan.pipelines`, the pipeline of a request (``run.records[7].pipeline``), or names
        of nodes.
        """
        names: list[str] = []
        if isinstance(pipeline, int):
            count = len(self.plan.pipelines)
            if not -count <= pipeline < count:
                raise InputError(f"the plan has {count} pipelines", field="highlight", value=pipeline)
            names = [stage.node for stage in self.plan.pipelines[pipeline][0]]
        elif pipeline is not None:
            names = [item.node if isinstance(item, Stage) else item for item in pipeline]
        self.highlighted = [self.plan.cluster.node(name).name for name in names]

    def on_select(self, handler: Callable[[str], None]) -> None:
        """Call `handler` with the name of each bar that is clicked ("" when the selection ends)."""
        self.observe(lambda change: handler(change.new), "selected")

    def picture(self) -> Picture:
        """The same picture as a still, for files."""
        still = layout(self.plan, width=self.width, merge=self.merge, highlight=self.highlighted or None)
        return Picture(still, "light" if self.theme == "auto" else self.theme)

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget, and a PNG for viewers without a kernel."""

        def still() -> tuple[dict[str, str], dict[str, Any]]:
            picture = self.picture()
            return png_bundle(picture.to_png(), picture.scene.title, picture.scene.width)

        return with_still(super()._repr_mimebundle_(**options), still)
