"""One rule for links in the cluster editor: a wide slider, the exact bandwidth as a number, and the latency."""

from __future__ import annotations

import math
from typing import Any

import ipywidgets as W

from helix_kit.cluster import Link

LOG_MIN, LOG_MAX, LOG_STEP = -3.0, 3.0, 0.01
"""The slider goes from 1 Mbit/s to 1 Tbit/s. A step is 2.3 %."""
MAX_GBPS = 1e6


class LinkField(W.HBox):
    """Bandwidth and latency of a kind of link.

    The number `gbps` holds the bandwidth, to the digit. The slider only follows it and sets it: a browser rounds the
    position of a slider and sends the rounded value back, so a slider event within half a step of the number changes
    nothing.

    Parameters
    ----------
    label
        What the links are.
    gbps, latency_ms
        Initial values.
    """

    def __init__(self, label: str, gbps: float, latency_ms: float) -> None:
        self._setting = False
        self.slider = W.FloatLogSlider(
            gbps, min=LOG_MIN, max=LOG_MAX, step=LOG_STEP, description=label, readout=False,
            layout=W.Layout(width="640px", max_width="100%"), style={"description_width": "150px"},
        )  # fmt: skip
        self.gbps = W.BoundedFloatText(
            gbps, min=1e-6, max=MAX_GBPS, step=None, description="gbps", continuous_update=False,
            layout=W.Layout(width="150px"), style={"description_width": "40px"},
        )  # fmt: skip
        self.latency_ms = W.BoundedFloatText(
            latency_ms, min=0, max=10000, step=None, description="latency, ms", continuous_update=False,
            layout=W.Layout(width="190px"), style={"description_width": "90px"},
        )  # fmt: skip
        super().__init__([self.slider, self.gbps, self.latency_ms], layout=W.Layout(flex_flow="row wrap"))
        self.add_class("hk-link")
        self.slider.observe(self._slid, "value")
        self.gbps.observe(self._typed, "value")

    @property
    def values(self) -> tuple[float, float]:
        """Bandwidth in gbps and latency in ms."""
        return self.gbps.value, self.latency_ms.value

    def show(self, link: Link) -> None:
        """Show a link's values."""
        self.gbps.value, self.latency_ms.value = link.bandwidth_gbps, link.latency_ms

    def link(self) -> Link:
        """The link that is described."""
        return Link(bandwidth_gbps=self.gbps.value, latency_ms=self.latency_ms.value)

    def _slid(self, change: Any) -> None:
        if self._setting or _same_position(change["new"], self.gbps.value):
            return
        self.gbps.value = float(f"{change['new']:.3g}")

    def _typed(self, change: Any) -> None:
        if not _same_position(self.slider.value, change["new"]):
            self._setting = True
            self.slider.value = min(10**LOG_MAX, max(10**LOG_MIN, change["new"]))
            self._setting = False


def _same_position(slider_gbps: float, gbps: float) -> bool:
    """Whether a slider within half a step of `slider_gbps` stands for `gbps`, which may lie beyond its ends."""
    position = min(LOG_MAX, max(LOG_MIN, math.log10(max(gbps, 1e-12))))
    return abs(math.log10(slider_gbps) - position) <= LOG_STEP / 2 * (1 + 1e-9)
