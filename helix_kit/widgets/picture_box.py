"""A box of widgets that also shows its flow graph where no kernel runs."""

from __future__ import annotations

from typing import Any

import ipywidgets as W

from helix_kit.placement.plan import Plan
from helix_kit.plots import flow_graph, png_bundle


class PictureBox(W.VBox):
    """A box of widgets around a flow graph. Viewers without a kernel show the graph as a PNG."""

    def shown_plan(self) -> Plan | None:
        """The plan on show, or None."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**options)
        live, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        plan = self.shown_plan()
        if plan is None:
            return live, metadata
        picture = flow_graph(plan)
        still, size = png_bundle(picture.to_png(), picture.scene.title, picture.scene.width)
        return {**live, **still}, {**metadata, **size}
