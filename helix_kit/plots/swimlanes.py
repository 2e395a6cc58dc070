"""The flow graph of a plan as swimlanes: one layout for the SVG, the PNG and the widget.

x is the layer, to scale. A bar reaches from the first to the last layer that its machine holds, and is filled to the
used share of its capacity. A ribbon between bars is as wide as the flow that it carries; one that meets a bar from
above or below enters it mid-way (partial inference). The min cut, which limits the flow, is vermilion. The strip below
shows the total capacity of the machines that hold each layer, and the flow as a line: where they touch, those layers
limit the flow. The layout is pure arithmetic on the plan, so the same plan gives the same picture.
"""

from __future__ import annotations

from collections.abc import Collection

from helix_kit.cluster import COORDINATOR
from helix_kit.placement.plan import Plan
from helix_kit.plots.formatting import format_number, limit_text, plan_summary
from helix_kit.plots.lanes import Bar, Sizes, Swimlanes, arrange, kind_order, label_size
from helix_kit.plots.legend import legend, region_ribbon
from helix_kit.plots.machines import Machine, Stream, capacity_by_layer, machines_and_streams
from helix_kit.plots.ribbons import route
from helix_kit.plots.scene import Curve, Group, Item, Point, Polygon, Rect, Scene, Text, text_width
from helix_kit.plots.theme import kind_role

TOP, HUB_WIDTH, HUB_GAP, STRIP_HEIGHT = 64.0, 15.0, 26.0, 40.0


def layout(
    plan: Plan, *, width: float = 1100.0, merge: bool | None = None, highlight: Collection[str] | None = None
) -> Scene:
    """The picture of a plan.

    Parameters
    ----------
    plan
        The plan.
    width
        Pixels; the height follows from the number of swimlanes.
    merge
        Whether machines of one kind and region with the same layers share a bar. None: in plans of over 60 machines.
    highlight
        Node names, for instance of one pipeline; everything else fades.

    Returns
    -------
    Scene
        The picture as data.
    """
    machines, streams = machines_and_streams(plan, merge)
    kinds = kind_order(plan.problem)
    heading = max([text_width(f"{k} ×{n}", 11, bold=True) for k, n in plan.cluster.kind_counts.items()] + [70.0])
    left = 14 + heading + 10
    layer_x0 = left + HUB_WIDTH + HUB_GAP
    right = width - 14 - HUB_WIDTH - HUB_GAP
    bar_height = 22.0 if len(machines) <= 30 else 18.0
    sizes = Sizes(
        layer_x0=layer_x0,
        layer_width=(right - layer_x0) / plan.model.num_layers,
        right=right,
        bar_height=bar_height,
        label_size=label_size(bar_height),
    )
    lanes = arrange(machines, kinds, plan.cluster.regions, sizes, TOP)
    bars = {bar.machine.id: bar for bar in lanes.bars}
    total = plan.flow_tokens_per_s
    drawn = route(streams, bars, sizes, (left + HUB_WIDTH, width - 14 - HUB_WIDTH), total)
    shown = None if highlight is None else set(highlight) | {COORDINATOR}
    strip_top = lanes.bottom + 10
    axis_y = strip_top + STRIP_HEIGHT
    signs, bottom = legend(plan, axis_y + 44, 14.0, width, streams)
    groups = [
        Group((Rect(0, 0, width, bottom, fill="paper"),), role="paper"),
        _header(plan, width),
        *_bands(lanes, width, left),
        _grid(plan, sizes, TOP, axis_y),
        _strip(plan, sizes, strip_top, left),
        *(_ribbon_group(stream, curve, shown) for stream, curve, _ in drawn),
        *_hubs(lanes, left, width, total),
        *(_bar_group(bar, plan, shown) for bar in lanes.bars),
        *(_entry_mark(stream, point, bars, shown) for stream, _, point in drawn if point is not None),
        *_headings(lanes, left),
        signs,
    ]
    return Scene(
        width=width,
        height=bottom,
        groups=tuple(groups),
        title=_title(plan),
        layer_x0=sizes.layer_x0,
        layer_width=sizes.layer_width,
        num_layers=plan.model.num_layers,
    )


def _title(plan: Plan) -> str:
    return f"{plan.model.name} on {plan.cluster.name}"


def _header(plan: Plan, width: float) -> Group:
    return Group(
        (
            Text(14, 24, _title(plan), 16, bold=True),
            Text(width - 14, 24, f"{format_number(plan.flow_tokens_per_s)} tokens/s", 16, anchor="end", bold=True),
            Text(14, 44, plan_summary(plan), 11.5, fill="muted"),
            Text(width - 14, 44, limit_text(plan), 11.5, fill="cut", anchor="end"),
        )
    )


def _bands(lanes: Swimlanes, width: float, left: float) -> list[Group]:
    if len(lanes.regions) < 2:
        return []
    return [
        Group(
            (
                Rect(8, top, width - 16, bottom - top, fill="band", radius=6),
                Text(left + HUB_WIDTH + HUB_GAP, top + 15, region, 10.5, fill="muted", bold=True),
            ),
            role="region",
            data=(("region", region),),
        )
        for region, top, bottom in lanes.regions
    ]


def _grid(plan: Plan, sizes: Sizes, top: float, axis_y: float) -> Group:
    layers = plan.model.num_layers
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100) if s * sizes.layer_width >= 42 or s == 100)
    ticks = [t for t in range(0, layers, step) if (layers - t) * sizes.layer_width >= 24] + [layers]
    items: list[Item] = []
    for tick in ticks:
        x = sizes.x(tick)
        items.append(Polygon(((x, top), (x, axis_y)), stroke="grid"))
        items.append(Text(x, axis_y + 14, str(tick), 10, fill="muted", anchor="middle"))
    items.append(Text(sizes.layer_x0 - 12, axis_y + 14, "layer", 10, fill="muted", anchor="end"))
    return Group(tuple(items))


def _strip(plan: Plan, sizes: Sizes, top: float, left: float) -> Group:
    """The capacity of each layer as steps, cut off at twice the flow; the flow is a line at half the height."""
    capacity, flow = capacity_by_layer(plan), plan.flow_tokens_per_s
    ceiling = 2 * flow if flow > 0 else max([*capacity, 1.0])
    base = top + STRIP_HEIGHT

    def y(tokens_per_s: float) -> float:
        return base - STRIP_HEIGHT * min(1.0, tokens_per_s / ceiling)

    steps: list[Point] = [(sizes.x(0), base)]
    for layer, tokens_per_s in enumerate(capacity):
        steps += [(sizes.x(layer), y(tokens_per_s)), (sizes.x(layer + 1), y(tokens_per_s))]
    steps.append((sizes.x(len(capacity)), base))
    items: list[Item] = [Polygon(tuple(steps), fill="strip")]
    for first, last in _runs([c <= flow * 1.001 for c in capacity]):
        x = sizes.x(first)
        # A layer that no machine holds would have no height, so it is marked over the full strip.
        height = STRIP_HEIGHT if capacity[first] == 0 else base - y(capacity[first])
        items.append(Rect(x, base - height, sizes.x(last) - x, height, fill="cut-soft"))
    items.append(Polygon(((sizes.x(0), base), (sizes.right, base)), stroke="muted"))
    if flow > 0:
        items.append(Polygon(((sizes.x(0), y(flow)), (sizes.right, y(flow))), stroke="cut", stroke_width=1.2))
        items.append(Text(sizes.right + 5, y(flow) + 3.5, "flow", 10, fill="cut"))
    items.append(Text(left - 10, top + 17, "capacity of", 10, fill="muted", anchor="end"))
    items.append(Text(left - 10, top + 29, "each layer", 10, fill="muted", anchor="end"))
    return Group(tuple(items), role="strip", hint="tokens/s of all machines that hold a layer, up to twice the flow")


def _runs(marks: list[bool]) -> list[tuple[int, int]]:
    """Half-open ranges [first, last) of consecutive True values."""
    ranges: list[tuple[int, int]] = []
    for index, mark in enumerate(marks):
        if mark and ranges and ranges[-1][1] == index:
            ranges[-1] = (ranges[-1][0], index + 1)
        elif mark:
            ranges.append((index, index + 1))
    return ranges


def _hubs(lanes: Swimlanes, left: float, width: float, total: float) -> list[Group]:
    top = min((bar.y for bar in lanes.bars), default=TOP) - 3
    bottom = max((bar.y + bar.height for bar in lanes.bars), default=TOP + 60) + 3
    middle = (top + bottom) / 2
    hint = f"coordinator: requests start and end here\n{format_number(total)} tokens/s"
    return [
        Group(
            (
                Rect(x, top, HUB_WIDTH, bottom - top, fill="hub", radius=5),
                *([_hub_label(x, middle)] if bottom - top > text_width(COORDINATOR, 10) else []),
            ),
            role="hub",
            data=(("node", COORDINATOR),),
            hint=hint,
        )
        for x in (left, width - 14 - HUB_WIDTH)
    ]


def _hub_label(x: float, middle: float) -> Text:
    return Text(x + HUB_WIDTH / 2 + 3.5, middle, COORDINATOR, 10, fill="paper", anchor="middle", upright=True)


def _headings(lanes: Swimlanes, left: float) -> list[Group]:
    return [
        Group((Text(left - 10, y + 4, text, 11, fill="ink", anchor="end", bold=True),), role="heading")
        for text, _, y in lanes.kinds
    ]


def _bar_group(bar: Bar, plan: Plan, shown: set[str] | None) -> Group:
    machine, role = bar.machine, kind_role(bar.kind_index)
    used = bar.height * machine.utilisation
    outline = ("cut", 2.4) if machine.in_cut else (role, 1.1)
    items: list[Item] = [Rect(bar.x, bar.y, bar.width, bar.height, fill="paper", radius=3)]
    items.append(Rect(bar.x, bar.y, bar.width, bar.height, fill=f"{role}-empty", radius=3))
    if used > 0.5:
        items.append(
            Rect(bar.x, bar.y + bar.height - used, bar.width, used, fill=f"{role}-full", radius=min(3, used / 2))
        )
    items.append(Rect(bar.x, bar.y, bar.width, bar.height, stroke=outline[0], stroke_width=outline[1], radius=3))
    size = label_size(bar.height)
    ink = "ink" if machine.flow > 0 else "muted"
    y = bar.middle + 0.36 * size
    if bar.label_inside:
        items.append(Text(bar.label_x, y, bar.label, size, fill=ink, anchor="middle"))
    else:
        items.append(Text(bar.label_x, y, bar.label, size, fill=ink, halo=True))
    return Group(
        tuple(items),
        role="node",
        data=(
            ("node", machine.id),
            ("nodes", list(machine.nodes)),
            ("kind", machine.kind),
            ("region", machine.region),
            ("start", machine.start),
            ("end", machine.end),
        ),
        hint=node_hint(machine, plan),
        faded=shown is not None and not shown & set(machine.nodes),
    )


def node_hint(machine: Machine, plan: Plan) -> str:
    """The text shown on hover over a bar: layers, flow and capacity, KV cache, and whether it limits the flow."""
    lines = [
        ", ".join(machine.nodes) if len(machine.nodes) <= 4 else machine.label,
        f"layers {machine.start}–{machine.end - 1} ({machine.end - machine.start} of {plan.model.num_layers})",
        f"{format_number(machine.flow)} of {format_number(machine.capacity)} tokens/s ({machine.utilisation:.0%})",
    ]
    profile = plan.profiles[machine.kind]
    held = machine.end - machine.start
    tokens = profile.of_range(machine.start, machine.end).kv_capacity(held) / held
    lines.append(
        f"KV cache: {format_number(tokens)} tokens on each machine with {held} of at most {profile.max_layers} layers"
    )
    if machine.region:
        lines.append(f"{machine.kind} in {machine.region}")
    if machine.in_cut:
        lines.append("limits the flow (min cut)")
    return "\n".join(lines)


def _ribbon_group(stream: Stream, curve: Curve, shown: set[str] | None) -> Group:
    lines = [
        f"{stream.source} → {stream.target}",
        f"{format_number(stream.flow)} of {format_number(stream.capacity)} tokens/s ({stream.utilisation:.1%})",
    ]
    if stream.partial:
        lines.append(f"enters at layer {stream.layer}, mid-way (partial inference)")
    if stream.crosses_regions:
        lines.append("crosses regions")
    if stream.in_cut:
        lines.append("limits the flow (min cut)")
    return Group(
        region_ribbon(curve) if stream.crosses_regions else (curve,),
        role="edge",
        data=(("source", stream.source), ("target", stream.target)),
        hint="\n".join(lines),
        faded=shown is not None and not {stream.source, stream.target} <= shown,
    )


def _entry_mark(stream: Stream, point: Point, bars: dict[str, Bar], shown: set[str] | None) -> Group:
    """An arrow head that points into the bar at the layer where the stream enters."""
    x, y = point
    inwards = 5.5 if y < bars[stream.target].middle else -5.5
    return Group(
        (Polygon(((x - 4, y), (x + 4, y), (x, y + inwards)), fill="ink"),),
        role="entry",
        data=(("source", stream.source), ("target", stream.target)),
        faded=shown is not None and not {stream.source, stream.target} <= shown,
    )
