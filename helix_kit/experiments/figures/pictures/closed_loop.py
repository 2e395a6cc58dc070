"""Simulated and real workers side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from helix_kit.experiments.figures.common.metrics import QUANTILES
from helix_kit.experiments.figures.pictures.evaluation import BOX_KEYS, PHASES, box, places
from helix_kit.experiments.figures.pictures.looks import (
    EDGE,
    at_most_text,
    finish_axes,
    hatched_patch,
    headline,
    label_above,
    legend_below,
    new_figure,
)
from helix_kit.plots.bars import HATCHES
from helix_kit.plots.theme import KIND_COLOURS

if TYPE_CHECKING:
    import pandas as pd

PITCH = 0.4
MEDIANS = ("output_tokens_per_s", "prompt_latency_p50_s", "decode_latency_p50_s")
LOOKS = {"simulated": (KIND_COLOURS[4], HATCHES[0]), "real workers": (KIND_COLOURS[1], HATCHES[1])}


def draw_closed_loop(table: pd.DataFrame) -> Figure:
    """Throughput, prompt and decode latency by load; the measurements are in the table's attrs."""
    loads = list(dict.fromkeys(table["mode"]))
    figure = new_figure(2.9)
    speed, *latencies = figure.subplots(1, 3)
    for place, load in enumerate(loads):
        simulated = table[table["mode"] == load].set_index("metric")["value"].to_dict()
        found = {"simulated": simulated, "real workers": table.attrs.get(load, {})}
        shown = {source: values for source, values in found.items() if values}
        for x, (source, values) in zip(places(place, len(shown), PITCH), shown.items(), strict=True):
            colour, hatch = LOOKS[source]
            height = values["output_tokens_per_s"]
            speed.bar(x, height, PITCH - 0.02, color=colour, hatch=hatch, **EDGE)
            label_above(speed, x, height, f"{height:.1f}")
            for axes, phase in zip(latencies, PHASES, strict=True):
                keys = zip(BOX_KEYS, QUANTILES, strict=True)
                box(axes, x, {k: values[f"{phase}_latency_{q}_s"] for k, q in keys}, colour, hatch)
    speed.set(ylabel="output tokens/s")
    for axes, label in zip(latencies, PHASES.values(), strict=True):
        axes.set(ylabel=label, ylim=(0, None))
    for axes in (speed, *latencies):
        axes.set_xticks(range(len(loads)), [_name(load, table) for load in loads])
        finish_axes(axes)
    speed.margins(y=0.12)
    headline(figure, _headline(table, loads))
    patches = [hatched_patch(c, h, name) for name, (c, h) in LOOKS.items()]
    legend_below(figure, 2, handles=patches, size_pt=7.5)
    return figure


def _headline(table: pd.DataFrame, loads: list[str]) -> str:
    differences = []
    for load in loads:
        simulated = table[table["mode"] == load].set_index("metric")["value"]
        real = table.attrs.get(load, {})
        differences += [abs(real[m] / simulated[m] - 1) for m in MEDIANS if m in real]
    if not differences:
        return "SmolLM2-135M on four workers, simulated (nothing was measured here)"
    share = f"{at_most_text(100 * max(differences))} %"
    return (
        f"Four workers, paced to the step times that the simulation reads too, stay within {share} of it "
        "(throughput and median latencies)"
    )


def _name(load: str, table: pd.DataFrame) -> str:
    """The load, and the share of late steps: an emulated machine cannot be faster than the real one."""
    late = table.attrs.get(load, {}).get("late_steps_share")
    name = load.replace(" ", "\n")
    return name if late is None else f"{name}\n{100 * late:.0f} % of\nsteps late"
