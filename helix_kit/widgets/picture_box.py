"""A box of widgets that also shows its flow graph where no kernel runs."""

from __future__ import annotations

from typing import Any

import ipywidgets as W

from helix_kit.placement.plan import Plan
from helix_kit.plots import flow_graph, png_bundle
from helix_kit.widgets.still import with_still


class PictureBox(W.VBox):
    """A box of widgets around a flow graph. Viewers without a kernel show the graph as a PNG."""

    def shown_plan(self) -> Plan | None:
        """The plan on show, or None."""
        raise NotImplementedError

    def wait(self, timeout_s: float = 60.0) -> bool:
        """Wait for background work to end. Return False when it takes longer than `timeout_s`."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        live = super()._repr_mimebundle_(**options)

        def still() -> tuple[dict[str, str], dict[str, Any]] | None:
            plan = self.shown_plan()
            if plan is None:
                return None
            picture = flow_graph(plan)
            return png_bundle(picture.to_png(), picture.scene.title, picture.scene.width)

        return with_still(live, still, self.wait)
