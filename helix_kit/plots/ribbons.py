"""The flow between bars as curves, as wide as their share of the flow and stacked where several meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from helix_kit.cluster import COORDINATOR
from helix_kit.plots.lanes import Bar, Sizes
from helix_kit.plots.machines import Stream
from helix_kit.plots.scene import Curve, Point

MIN_WIDTH = 0.9


def ribbon_width(flow: float, total: float, bar_height: float) -> float:
    """Width in pixels. The whole flow is three quarters of a bar high, so the ribbons of a machine fit its bar."""
    return max(MIN_WIDTH, 0.75 * bar_height * flow / total) if total > 0 else MIN_WIDTH


def route(
    streams: Sequence[Stream],
    bars: Mapping[str, Bar],
    sizes: Sizes,
    hubs: tuple[float, float],
    total: float,
) -> list[tuple[Stream, Curve, Point | None]]:
    """Each stream's curve, and the point where it enters a bar mid-way (None: at the bar's start).

    `hubs` are x of the right edge of the coordinator on the left, and of the left edge of that on the right.
    """
    widths = {s: ribbon_width(s.flow, total, sizes.bar_height) for s in streams}
    out_offset = _stacked(streams, bars, widths, by_source=True)
    in_offset = _stacked(streams, bars, widths, by_source=False)
    drawn = []
    for stream in streams:
        colour = "cut" if stream.in_cut else "far" if stream.crosses_regions else "ribbon"
        if stream.source == COORDINATOR:
            end = (bars[stream.target].x, bars[stream.target].middle + in_offset[stream])
            begin = (hubs[0], end[1])
        elif stream.target == COORDINATOR:
            source = bars[stream.source]
            begin = (source.x + source.width, source.middle + out_offset[stream])
            end = (hubs[1], begin[1])
        else:
            source, target = bars[stream.source], bars[stream.target]
            begin = (source.x + source.width, source.middle + out_offset[stream])
            end = (target.x, target.middle + in_offset[stream])
        entry = None
        if stream.partial:
            below = begin[1] > bars[stream.target].middle
            target = bars[stream.target]
            entry = (sizes.x(stream.layer) + in_offset[stream], target.y + (target.height if below else 0.0))
        points = _bend(begin, end if entry is None else entry, widths[stream], entry is not None)
        drawn.append((stream, Curve(points, colour, widths[stream]), entry))
    return drawn


def _bend(begin: Point, end: Point, width: float, from_side: bool) -> tuple[Point, Point, Point, Point]:
    """Control points: horizontal at a bar's ends, vertical where the curve enters a bar from above or below."""
    (x0, y0), (x1, y1) = begin, end
    # A thick ribbon needs a wide bend; a thin one would only look wavy with it.
    reach = min(5 + width, max(abs(x1 - x0) * 0.5, 4 + 0.12 * abs(y1 - y0)))
    if from_side:
        return begin, (x0 + reach, y0), (x1, y0 + (y1 - y0) * 0.25), end
    return begin, (x0 + reach, y0), (x1 - reach, y1), end


def _stacked(
    streams: Sequence[Stream], bars: Mapping[str, Bar], widths: Mapping[Stream, float], *, by_source: bool
) -> dict[Stream, float]:
    """Offset of each stream from the middle of the end that it shares with others, in the order of the other ends."""
    shared: dict[tuple[str, int], list[Stream]] = {}
    for stream in streams:
        # A stream that enters mid-way shares its end only with those that enter at the same layer.
        at = (stream.source, 0) if by_source else (stream.target, stream.layer if stream.partial else -1)
        shared.setdefault(at, []).append(stream)
    offsets: dict[Stream, float] = {}
    for streams_there in shared.values():
        streams_there.sort(key=lambda s: (_far_y(s, bars, by_source), s.layer, s.source, s.target))
        top = -sum(widths[s] for s in streams_there) / 2
        for stream in streams_there:
            offsets[stream] = top + widths[stream] / 2
            top += widths[stream]
    return offsets


def _far_y(stream: Stream, bars: Mapping[str, Bar], by_source: bool) -> float:
    """y of the other end. A ribbon of the coordinator is horizontal, so its other end has the bar's own y."""
    near, far = (stream.source, stream.target) if by_source else (stream.target, stream.source)
    return bars[near if far == COORDINATOR else far].middle
