"""The place of each bar: swimlanes by region and kind, filled first-fit, with room for every label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from helix_kit.placement.problem import Problem
from helix_kit.plots.machines import Machine
from helix_kit.plots.scene import text_width


@dataclass(frozen=True, slots=True)
class Bar:
    """A machine with its rectangle (pixels) and its label."""

    machine: Machine
    kind_index: int
    x: float
    y: float
    width: float
    height: float
    label: str
    label_x: float
    label_inside: bool

    @property
    def middle(self) -> float:
        """y of the bar's centre line."""
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Swimlanes:
    """All bars, and the headings beside them."""

    bars: tuple[Bar, ...]
    kinds: tuple[tuple[str, int, float], ...]
    """(heading, kind index, y of the first lane's centre)."""
    regions: tuple[tuple[str, float, float], ...]
    """(name, top, bottom) of each band."""
    bottom: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes in pixels."""

    layer_x0: float
    layer_width: float
    right: float
    """Right end of layer L."""
    bar_height: float
    label_size: float

    @property
    def inset(self) -> float:
        """A bar ends this many pixels before its last layer does, so that the flow between bars is visible."""
        return min(6.0, max(2.0, 0.3 * self.layer_width))

    @property
    def lane_pitch(self) -> float:
        """Distance from one swimlane to the next."""
        return self.bar_height + 9

    def x(self, layer: float) -> float:
        """x of the boundary before `layer`."""
        return self.layer_x0 + layer * self.layer_width


def label_size(bar_height: float) -> float:
    """Font size of the labels of bars, in pixels."""
    return 10.5 if bar_height > 20 else 9.5


def kind_order(problem: Problem) -> list[str]:
    """Kinds of machine, by the largest product of layers and tokens/s, the largest first."""

    def layer_tokens_per_s(kind: str) -> float:
        return max((k * t for k, t in enumerate(problem.throughput_by_kind[kind], 1)), default=0.0)

    return sorted(problem.cluster.kind_counts, key=lambda kind: (-layer_tokens_per_s(kind), kind))


def arrange(
    machines: Sequence[Machine], kinds: Sequence[str], regions: Sequence[str], sizes: Sizes, top: float
) -> Swimlanes:
    """Bars from `top` down: regions in order, in each the kinds in order, in each swimlanes filled first-fit."""
    bars: list[Bar] = []
    headings: list[tuple[str, int, float]] = []
    bands: list[tuple[str, float, float]] = []
    y = top
    banded = len({m.region for m in machines}) > 1
    for region in regions:
        here = [m for m in machines if m.region == region]
        if not here:
            continue
        band_top = y
        y += 24 if banded else 6
        for kind_index, kind in enumerate(kinds):
            mine = sorted((m for m in here if m.kind == kind), key=lambda m: (m.start, m.end, m.id))
            if not mine:
                continue
            count = sum(len(m.nodes) for m in mine)
            headings.append((f"{kind} ×{count}" if count > 1 else kind, kind_index, y + sizes.bar_height / 2))
            lanes = _first_fit(mine, kind_index, sizes)
            for lane, row in enumerate(lanes):
                bars += [replace(bar, y=y + lane * sizes.lane_pitch) for bar in row]
            y += len(lanes) * sizes.lane_pitch + 5
        bands.append((region, band_top, y))
        y += 8 if banded else 0
    return Swimlanes(tuple(bars), tuple(headings), tuple(bands), y)


def _first_fit(machines: Sequence[Machine], kind_index: int, sizes: Sizes) -> list[list[Bar]]:
    """Bars at y = 0 in as few swimlanes as first-fit needs; a label that does not fit inside stands beside its bar."""

    def fits(label: str, width: float) -> bool:
        return text_width(label, sizes.label_size) + 2 <= width

    widths = [sizes.layer_width * (m.end - m.start) - 2 * sizes.inset for m in machines]
    # One form of label for the whole kind, the longest that fits in every bar: "T4-3" beside "#3" would read as two
    # different kinds of label.
    forms = [[m.label for m in machines], [m.short_label for m in machines], [m.number for m in machines]]
    labels = next((form for form in forms if all(map(fits, form, widths))), forms[1])
    lanes: list[list[Bar]] = []
    ends: list[float] = []
    for machine, width, label in zip(machines, widths, labels, strict=True):
        x, taken = sizes.x(machine.start) + sizes.inset, text_width(label, sizes.label_size)
        inside = fits(label, width)
        left, right = x - sizes.inset, x + width + sizes.inset
        if inside:
            label_x = x + width / 2
        elif right + taken + 2 <= sizes.right:
            label_x = x + width + 3
            right = label_x + taken
        else:
            label_x = x - 3 - taken
            left = label_x
        bar = Bar(machine, kind_index, x, 0.0, width, sizes.bar_height, label, label_x, inside)
        lane = next((i for i, end in enumerate(ends) if end <= left + 0.01), None)
        if lane is None:
            lanes.append([])
            ends.append(0.0)
            lane = len(lanes) - 1
        lanes[lane].append(bar)
        ends[lane] = right
    return lanes
