"""Steps beyond the tables: prompts with decodes in one step, long contexts, CUDA graphs on and off; and the roofline.

The planner's tables have prefill and decode apart and one context. Whether that is enough is seen by measuring other
steps, and by comparing each with a roofline that knows only the device's memory bandwidth and arithmetic:

    a layer takes max((weights + KV cache read) / bandwidth, operations / arithmetic) + launch.

For a GPU of the catalogue both are shares of the datasheet (`helix_kit.profiles.roofline`). For any other device they
are measured: a copy within the memory, and a large product of matrices. The launch is that of the catalogue's estimate
on a GPU and 0 on a CPU.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from helix_kit.catalogue import gpus
from helix_kit.model import Model
from helix_kit.profiles.roofline import COMPUTE_EFFICIENCY, LAUNCH_MS_PER_LAYER, MEMORY_EFFICIENCY

if TYPE_CHECKING:
    from helix_kit.runtime.worker.model_layers import ModelLayers

STEPS_FILE = "steps.csv"
CALLS_ON_GPU = 5
"""Calls of a GPU that are timed together."""
COPY_BYTES, MATRIX = 64 << 20, 1024
GPU_COPY_BYTES, GPU_MATRIX = 1 << 30, 8192


class Step(NamedTuple):
    """What a step holds.

    Examples
    --------
    >>> Step(prefill_tokens=128, decode_requests=8, context_tokens=512).tokens
    136
    """

    prefill_tokens: int
    """Tokens of one prompt; 0: none."""
    decode_requests: int
    """Requests that decode a token each."""
    context_tokens: int
    """Context of each decoding request."""

    @property
    def tokens(self) -> int:
        """Rows of the step."""
        return self.prefill_tokens + self.decode_requests


STEPS = (
    Step(0, 16, 128), Step(0, 16, 512), Step(0, 16, 1024),
    Step(64, 4, 128), Step(64, 16, 128), Step(256, 4, 128), Step(256, 16, 128), Step(256, 16, 1024),
)  # fmt: skip
GPU_STEPS = (
    *STEPS, Step(0, 16, 4096), Step(0, 64, 1024), Step(0, 64, 4096), Step(512, 64, 1024), Step(2048, 64, 1024),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeviceSpeed:
    """What a roofline knows of a device.

    Examples
    --------
    >>> DeviceSpeed(bytes_per_s=1e11, flops_per_s=1e12, launch_ms=0.0, source="given").source
    'given'
    """

    bytes_per_s: float
    """Memory bandwidth that reading reaches."""
    flops_per_s: float
    """Arithmetic that matrices reach."""
    launch_ms: float
    """Added to each layer."""
    source: str
    """A datasheet, or what was measured."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """A step that was measured, beside what the roofline says; a row of ``steps.csv``.

    Examples
    --------
    >>> StepTime("none", 64, 4, 128, 2.0, 1.9, 2.2, 1.0, 0.5).ratio
    0.5
    """

    graphs: str
    """``on``, ``off``, or ``none`` where the device has none."""
    prefill_tokens: int
    """As in `Step`."""
    decode_requests: int
    """As in `Step`."""
    context_tokens: int
    """As in `Step`."""
    ms_per_layer: float
    """Median of the runs."""
    low_ms: float
    """10th percentile."""
    high_ms: float
    """90th percentile."""
    roofline_ms: float
    """What the roofline predicts."""
    ratio: float
    """Predicted over measured."""


def roofline_ms(model: Model, step: Step, speed: DeviceSpeed) -> float:
    """Milliseconds of a layer by the roofline.

    Parameters
    ----------
    model
        Layer sizes; layers that differ count as their mean.
    step
        What is in the step.
    speed
        The device.

    Returns
    -------
    float
        Weights are read once, whatever is in the step.

    Examples
    --------
    >>> tiny = Model(name="t", num_layers=2, hidden_size=64, num_heads=4, num_kv_heads=4, intermediate_size=128,
    ...              vocab_size=100)
    >>> speed = DeviceSpeed(bytes_per_s=tiny.layer_gb * 1e9, flops_per_s=1e30, launch_ms=0.0, source="given")
    >>> round(roofline_ms(tiny, Step(1, 0, 0), speed))
    1003
    """
    context = step.prefill_tokens + step.decode_requests * (step.context_tokens + 1)
    pairs = step.prefill_tokens * (step.prefill_tokens + 1) / 2 + step.decode_requests * (step.context_tokens + 1)
    read_bytes = model.layer_gb * 1e9 + context * model.kv_bytes_per_token_layer
    operations = 2 * model.layer_params * step.tokens + 4 * model.num_heads * model.head_dim * pairs
    return 1e3 * max(read_bytes / speed.bytes_per_s, operations / speed.flops_per_s) + speed.launch_ms


def speed_of(device: str, dtype: str, kind: str) -> DeviceSpeed:
    """What a roofline knows of a device of this machine.

    Parameters
    ----------
    device
        Torch device.
    dtype
        Of weights and activations.
    kind
        Name of the machine's kind. A GPU of the catalogue has figures of its datasheet.

    Returns
    -------
    DeviceSpeed
        From the datasheet, or measured in about a second.

    Examples
    --------
    >>> speed_of("cpu", "float32", "this-machine").bytes_per_s > 1e8       # doctest: +SKIP
    True
    """
    if device != "cpu" and kind in gpus():
        gpu = gpus()[kind]
        return DeviceSpeed(
            gpu.memory_bandwidth_gb_per_s * 1e9 * MEMORY_EFFICIENCY, gpu.fp16_tflops * 1e12 * COMPUTE_EFFICIENCY,
            LAUNCH_MS_PER_LAYER, f"{gpu.source}, {MEMORY_EFFICIENCY:.0%} of the bandwidth and "
            f"{COMPUTE_EFFICIENCY:.0%} of the arithmetic",
        )  # fmt: skip
    import torch

    on_gpu = device != "cpu"
    source = torch.ones((GPU_COPY_BYTES if on_gpu else COPY_BYTES) // 4, device=device)
    target = torch.empty_like(source)
    size = GPU_MATRIX if on_gpu else MATRIX
    left = torch.ones(size, size, device=device, dtype=getattr(torch, dtype))

    def best_s(call: Callable[[], Any]) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            call()
            if on_gpu:
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
        return min(times[1:])

    copied = 2 * source.numel() * 4 / best_s(lambda: target.copy_(source))
    flops = 2 * size**3 / best_s(lambda: left @ left)
    launch_ms = LAUNCH_MS_PER_LAYER if on_gpu else 0.0
    return DeviceSpeed(copied, flops, launch_ms, "measured: a copy within the memory, and a product of large matrices")


def time_steps(
    stage: ModelLayers, model: Model, speed: DeviceSpeed, *, repeats: int, graphs: str, steps: Sequence[Step] = STEPS
) -> list[StepTime]:
    """Measure steps over all layers of a stage.

    Parameters
    ----------
    stage
        Layers, loaded.
    model
        Its description.
    speed
        The device, for the roofline.
    repeats
        Runs of each step.
    graphs
        Whether the stage has CUDA graphs: ``on``, ``off`` or ``none``.
    steps
        What to measure.

    Returns
    -------
    list of StepTime
        In the order of `steps`.

    Examples
    --------
    >>> time_steps(stage, model, speed, repeats=9, graphs="none")        # doctest: +SKIP
    """
    layers = stage.end - stage.start
    found = []
    for step in steps:
        low, middle, high = np.percentile(time_step(stage, step, repeats), [10, 50, 90]) * 1e3 / layers
        expected = roofline_ms(model, step, speed)
        found.append(
            StepTime(graphs, *step, float(middle), float(low), float(high), expected, expected / float(middle))
        )
    return found


def time_step(stage: ModelLayers, step: Step, repeats: int) -> list[float]:
    """Seconds of each of `repeats` steps over all layers of `stage`."""
    import torch

    from helix_kit.runtime.worker.kv_cache import BlockTable, pages_for
    from helix_kit.runtime.worker.model_layers import RequestRows

    layers = stage.end - stage.start
    sizes = [(1, step.context_tokens)] * step.decode_requests
    sizes += [(step.prefill_tokens, 0)] if step.prefill_tokens else []
    pool = stage.new_pool(sum(pages_for(rows + position, layers) for rows, position in sizes))
    batch = []
    for rows, position in sizes:
        table = BlockTable(layers)
        table.grow(pool, position + rows)
        hidden = torch.randn(rows, stage.hidden_size).to(stage.device, stage.dtype)
        batch.append(RequestRows(table, hidden, position, stage.start, stage.end))
    return time_calls(lambda: stage.run(pool, batch), stage, repeats)


def time_calls(call: Callable[[], Any], stage: ModelLayers, repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls, after one that is not timed."""
    import torch

    on_gpu = stage.device.type == "cuda"
    # A worker gives a GPU the next step while it computes one, so calls are timed one behind the other.
    calls = CALLS_ON_GPU if on_gpu else 1

    def once() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            call()
        if on_gpu:
            torch.cuda.synchronize(stage.device)
        return (time.perf_counter() - began) / calls

    once()
    return [once() for _ in range(repeats)]


def ratio_facts(times: Iterable[StepTime]) -> dict[str, float]:
    """How well the roofline would have predicted: median and range of predicted over measured.

    Parameters
    ----------
    times
        Measured steps.

    Returns
    -------
    dict of str to float
        median, lowest and highest.

    Examples
    --------
    >>> ratio_facts([StepTime("none", 1, 0, 0, 2.0, 2.0, 2.0, 1.0, 0.5)])["median"]
    0.5
    """
    ratios = [t.ratio for t in times]
    return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def write_steps(times: Mapping[str, Iterable[StepTime]], folder: str | Path) -> None:
    """Write ``steps.csv``, beside the tables that the planner reads.

    Parameters
    ----------
    times
        Measured steps, by kind of machine.
    folder
        It is there already.

    Examples
    --------
    >>> write_steps({"mine": times}, "mine")         # doctest: +SKIP
    """
    with (Path(folder) / STEPS_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["kind", *(f.name for f in fields(StepTime))])
        for kind, entries in times.items():
            for entry in entries:
                cells = (f"{value:.4g}" if isinstance(value, float) else value for value in asdict(entry).values())
                writer.writerow([kind, *cells])


__all__ = ["DeviceSpeed", "Step", "StepTime", "ratio_facts", "roofline_ms", "speed_of", "time_steps", "write_steps"]
