"""Measure how fast a device of this machine runs a model's layers, and write the tables that the planner reads.

>>> from helix_kit.runtime.profile import measure, write_tables               # doctest: +SKIP
>>> result = measure("folder with weights", device="cuda:0", kind="L40S")     # doctest: +SKIP
>>> write_tables([result], "my-profiles/my-model")                            # doctest: +SKIP

A few layers are loaded and run as a worker runs them: prefill as one chunk of n tokens, decode as n requests with a
context of given length. Each point is the median of several runs; their 10th and 90th percentiles are kept, too.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from helix_kit.cluster import MEMORY_SHARE, Cluster, Coordinator, GpuSpec, Link, Network, Node
from helix_kit.errors import InputError
from helix_kit.model import Model
from helix_kit.profiles.profile import Curve, Profile
from helix_kit.runtime.device_facts import device_memory_gb, device_name
from helix_kit.runtime.profile_steps import (
    GPU_STEPS,
    STEPS,
    StepTime,
    speed_of,
    time_calls,
    time_step,
    time_steps,
    write_steps,
)
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.weights.shares import check_tensor_parallel

if TYPE_CHECKING:
    from helix_kit.runtime.transport.link_measurement import LinkMeasurement

PREFILL_TOKENS = (1, 4, 16, 32, 64, 128, 256, 512)
GPU_PREFILL_TOKENS = (*PREFILL_TOKENS, 1024, 2048)
DECODE_REQUESTS = (1, 2, 4, 8, 16, 32, 64)
PREFILL_MAX_REQUESTS = 4
MIN_TOKENS_PER_LAYER = 2048
"""KV capacity below which a node is of no use: it could not hold one full-length request in each of its layers."""

Progress = Callable[[str, float], None]
"""Called with what is being measured, and the share that is done."""


@dataclass(frozen=True, slots=True)
class Point:
    """Milliseconds per layer at one size: median, and 10th and 90th percentile of the runs."""

    phase: str
    tokens: int
    ms_per_layer: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """How `measure` measures; its keywords.

    >>> MeasureOptions(device="cuda:0", dtype="float16").num_layers
    16
    """

    device: str = "cpu"
    """Torch device."""
    dtype: str = "float32"
    """As in `helix_kit.serve`."""
    attention: str = "auto"
    """As in `helix_kit.serve`."""
    layers: int | None = None
    """How many layers to time together; more give less noise and take more memory. None: 4 on a CPU, 16 on a GPU.

    A GPU computes few layers faster than the host can launch them.
    """
    threads: int | None = 1
    """Torch threads on a CPU, as a worker has; None: torch's default."""
    context_tokens: int = 128
    """Context of each decoding request."""
    repeats: int = 9
    """Runs of each point, after one that is not timed."""
    memory_gb: float | None = None
    """Memory of which `memory_share` is used, of each GPU; None: the device's (for a CPU, half of the machine's)."""
    memory_share: float = MEMORY_SHARE
    """Share of the memory for weights, embeddings and KV cache."""
    steps: bool = True
    """Whether to measure mixed steps, long contexts and steps without CUDA graphs, too, and compare them with a
    roofline."""
    tensor_parallel: int = 1
    """GPUs that compute each layer together, from `device` on; with a CPU, processes."""

    def __post_init__(self) -> None:
        if not 0 < self.memory_share <= 1:
            raise InputError("expected a number above 0, at most 1", field="memory_share", value=self.memory_share)
        counts = {"repeats": self.repeats, "layers": self.layers, "tensor_parallel": self.tensor_parallel}
        for field_name, value in counts.items():
            if value is not None and value < 1:
                raise InputError("expected at least 1", field=field_name, value=value)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that compute each layer together: the given one, and those that follow it."""
        if self.device == "cpu":
            return ("cpu",) * self.tensor_parallel
        first = int(self.device.partition(":")[2] or 0)
        return tuple(f"cuda:{first + rank}" for rank in range(self.tensor_parallel))

    @property
    def num_layers(self) -> int:
        """Layers to time together."""
        if self.layers is not None:
            return self.layers
        return 4 if self.device == "cpu" else 16


class LayerLimits(NamedTuple):
    """What a machine that holds `num_layers` layers has room for: a row of limits.csv."""

    num_layers: int
    kv_capacity_layer_tokens: int
    prefill_max_requests: int
    decode_max_requests: int


@dataclass(frozen=True)
class Measurement:
    """What `measure` found for one kind of machine."""

    kind: str
    model: Model
    points: tuple[Point, ...]
    head_ms: float
    """Time of the final norm and the output projection of one row, which the last stage does for each new token."""
    load_s_per_layer: float
    memory_bytes: float
    facts: dict[str, Any] = field(default_factory=dict)
    memory_share: float = MEMORY_SHARE
    steps: tuple[StepTime, ...] = ()
    """Mixed steps, contexts, and CUDA graphs on and off, beside the roofline."""

    def limits(self) -> list[LayerLimits]:
        """The limits for every number of layers that fits."""
        rows = []
        usable = self.memory_bytes * self.memory_share - embedding_bytes(self.model)
        for k in range(1, self.model.num_layers + 1):
            tokens = int((usable - k * self.model.layer_gb * 1e9) / self.model.kv_bytes_per_token_layer)
            if tokens < MIN_TOKENS_PER_LAYER * k:
                break
            rows.append(LayerLimits(k, tokens, PREFILL_MAX_REQUESTS, max(DECODE_REQUESTS)))
        return rows

    @property
    def table_points(self) -> tuple[Point, ...]:
        """The points of the tables: each layer takes over an equal share of the output projection's time.

        The tables know layers only. So the time of a token through all layers is right, wherever it passes them.
        """
        share_ms = self.head_ms / self.model.num_layers
        return tuple(
            replace(p, ms_per_layer=p.ms_per_layer + share_ms, low_ms=p.low_ms + share_ms, high_ms=p.high_ms + share_ms)
            for p in self.points
        )

    def profile(self) -> Profile:
        """The measurement as the planner and the simulator read it."""
        in_table = self.table_points

        def curve(phase: str) -> Curve:
            points = [(0.0, 0.0), *((float(p.tokens), p.ms_per_layer) for p in in_table if p.phase == phase)]
            return Curve(x=tuple(x for x, _ in points), y=tuple(y for _, y in points))

        limits = self.limits()
        return Profile(
            kind=self.kind,
            model=self.model.name,
            source=f"measured on {self.facts.get('device', 'this machine')}",
            prefill_ms_per_layer=curve("prefill"),
            decode_ms_per_layer=curve("decode"),
            kv_capacity_layer_tokens=tuple(row.kv_capacity_layer_tokens for row in limits),
            prefill_max_requests=tuple(row.prefill_max_requests for row in limits),
            decode_max_requests=tuple(row.decode_max_requests for row in limits),
        )

    def gpu(self) -> GpuSpec:
        """The device as a cluster file describes one; its figures follow from the measured times, not a datasheet."""
        ms = {(p.phase, p.tokens): p.ms_per_layer * self.gpus for p in self.points}
        tokens = max(PREFILL_TOKENS)
        return GpuSpec(
            memory_gb=_rounded(self.memory_bytes / self.gpus / 1e9),
            memory_bandwidth_gb_per_s=_rounded(self.model.layer_gb / ms["decode", 1] * 1e3),
            fp16_tflops=_rounded(2 * self.model.layer_params * tokens / ms["prefill", tokens] * 1e3 / 1e12),
        )

    @property
    def gpus(self) -> int:
        """Devices that computed each layer together."""
        return int(self.facts.get("tensor_parallel", 1))

    def starter_cluster(self, link: LinkMeasurement | None = None) -> Cluster:
        """A cluster to start from: two such machines in one region, with the measured `link`, else 10 gbps and 1 ms."""
        within = Link(bandwidth_gbps=10, latency_ms=1)
        if link is not None:
            within = Link(bandwidth_gbps=_rounded(link.bandwidth_gbps[1]), latency_ms=_rounded(link.latency_ms[1]))
        gpu = self.kind.removesuffix(f"x{self.gpus}-tp{self.gpus}")
        shared: dict[str, Any] = {}
        if self.gpus > 1:
            shared = {"gpus_per_node": self.gpus, "tensor_parallel": self.gpus}
        return Cluster(
            name=f"two-{self.kind}",
            coordinator=Coordinator(region="here"),
            nodes=tuple(Node(name=f"{self.kind}-{i}", gpu=gpu, region="here", **shared) for i in range(2)),
            network=Network(within_region=within),
            gpus={gpu: self.gpu()},
        )


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def embedding_bytes(model: Model) -> float:
    """Bytes of the embedding table and of the output projection, which the first and the last stage hold."""
    return 2.0 * model.vocab_size * model.hidden_size * model.dtype_bytes


def measure(
    weights: str | Path,
    *,
    kind: str = "this-machine",
    model: Model | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Measurement:
    """Measure prefill and decode time per layer of the model in the folder `weights`.

    Parameters
    ----------
    weights
        Local Hugging Face folder (config.json, *.safetensors).
    kind
        Name to give the machine in the tables, as the nodes of a cluster name it.
    model
        Its description; None: read from the folder.
    progress
        Called before each point.
    options
        The fields of `MeasureOptions`: device, dtype, attention, layers, threads, context_tokens, repeats, memory_gb,
        memory_share, tensor_parallel.

    Returns
    -------
    Measurement
        Times per layer in ms, and what fits into the memory.

    Raises
    ------
    InputError
        When the weights are not there or of an unsupported family, or an option is out of its range.

    Examples
    --------
    >>> result = measure("folder with weights", device="cuda:0", kind="L40S")     # doctest: +SKIP
    """
    checkpoint = Checkpoint(weights)
    checkpoint.check_tensors()
    return _measure(checkpoint, kind, model, progress or _no_progress, MeasureOptions(**options))


def _no_progress(_what: str, _share: float) -> None:
    pass


def _measure(
    checkpoint: Checkpoint, kind: str, model: Model | None, progress: Progress, options: MeasureOptions
) -> Measurement:
    import torch

    from helix_kit.runtime.launch.local_ranks import layers_with_ranks
    from helix_kit.runtime.worker.model_layers import ModelLayers
    from helix_kit.runtime.worker.static_step import StepOptions

    device, ranks = options.device, options.devices
    if len(ranks) > 1:
        check_tensor_parallel(checkpoint.config, Model.from_hf(checkpoint.folder), len(ranks), "profile")
    size = {"float32": 4, "bfloat16": 2, "float16": 2}.get(options.dtype, 4)
    model = model or Model.from_hf(checkpoint.folder, dtype_bytes=size)
    layers = min(options.num_layers, model.num_layers)
    if device == "cpu" and options.threads is not None:
        torch.set_num_threads(options.threads)
    began = time.perf_counter()
    # The last layers, because the output projection is timed, too; the inputs are random anyway.
    span = (model.num_layers - layers, model.num_layers)
    prefill_tokens = PREFILL_TOKENS if device == "cpu" else GPU_PREFILL_TOKENS
    spec = WorkerSpec(
        name="profile",
        weights=str(checkpoint.folder),
        start=span[0],
        end=span[1],
        num_pages=1,
        coordinator="",
        key_hex="",
        dtype=options.dtype,
        attention=options.attention,
        device=ranks[0],
        ranks=ranks if len(ranks) > 1 else (),
        threads=options.threads or 1,
        step_tokens=max(prefill_tokens),
    )
    sizes = [*(("prefill", n) for n in prefill_tokens), *(("decode", n) for n in DECODE_REQUESTS)]
    points = []
    speed = speed_of(device, options.dtype, kind)
    times: list[StepTime] = []
    with layers_with_ranks(spec, checkpoint.config["model_type"]) as stage:
        load_s = (time.perf_counter() - began) / layers
        for done, (phase, tokens) in enumerate(sizes):
            progress(f"{phase}, {tokens} tokens", done / len(sizes))
            runs_s = time_step(stage, phase, tokens, options.context_tokens, options.repeats)
            low, middle, high = np.percentile(runs_s, [10, 50, 90]) * 1e3 / layers
            points.append(Point(phase, tokens, float(middle), float(low), float(high)))
        row = torch.zeros(1, stage.hidden_size, dtype=stage.dtype, device=stage.device)
        with torch.inference_mode():
            head_ms = float(np.median(time_calls(lambda: stage.logits(row), stage, options.repeats))) * 1e3
        # The roofline is that of one device.
        if options.steps and len(ranks) == 1:
            progress("mixed steps and long contexts", 1.0)
            chosen = STEPS if device == "cpu" else GPU_STEPS
            has_graphs = stage.device.type == "cuda" and stage.uses_graphs
            times += time_steps(
                stage, model, speed, repeats=options.repeats, graphs="on" if has_graphs else "none", steps=chosen
            )
            if has_graphs:
                plain = ModelLayers(
                    checkpoint, *span, dtype=options.dtype, device=device, attention_backend=options.attention,
                    options=StepOptions(max_rows=max(prefill_tokens), graphs=False),
                )  # fmt: skip
                times += time_steps(plain, model, speed, repeats=options.repeats, graphs="off", steps=chosen)
    progress("done", 1.0)
    gpus = 1 if device == "cpu" else len(ranks)
    return Measurement(
        kind=Node(name="n", gpu=kind, gpus_per_node=len(ranks), tensor_parallel=len(ranks)).kind,
        model=model,
        points=tuple(points),
        head_ms=head_ms,
        load_s_per_layer=load_s,
        memory_bytes=(options.memory_gb or device_memory_gb(device)) * gpus * 1e9,
        facts={
            "device": device_name(device),
            "dtype": options.dtype,
            "attention": stage.attention,
            "threads": options.threads if device == "cpu" else None,
            "torch": torch.__version__,
            "context_tokens": options.context_tokens,
            "repeats": options.repeats,
            "roofline": speed.source,
            "roofline_gb_per_s": _rounded(speed.bytes_per_s / 1e9),
            "roofline_tflops": _rounded(speed.flops_per_s / 1e12),
            **({"tensor_parallel": len(ranks)} if len(ranks) > 1 else {}),
        },
        memory_share=options.memory_share,
        steps=tuple(times),
    )


def emulated(base: Measurement, speeds: dict[str, float], max_layers: dict[str, int]) -> list[Measurement]:
    """Slower kinds derived from one measurement: all times multiplied by the kind's factor, in ``speeds``."""
    kinds = []
    for kind, factor in speeds.items():
        points = tuple(
            Point(p.phase, p.tokens, p.ms_per_layer * factor, p.low_ms * factor, p.high_ms * factor)
            for p in base.points
        )
        facts = {**base.facts, "factor": factor, "max_layers": max_layers[kind]}
        # Steps were measured on this machine, and a roofline for it says nothing of a slower one.
        kinds.append(replace(base, kind=kind, points=points, facts=facts, steps=()))
    return kinds


def write_tables(measurements: Iterable[Measurement], folder: str | Path) -> None:
    """Write layer_times.csv and limits.csv, which `helix_kit.profiles.load_profiles` reads, and steps.csv beside."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    measurements = list(measurements)
    with (folder / "layer_times.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["kind", "phase", "tokens", "ms_per_layer", "low_ms", "high_ms"])
        for m in measurements:
            for p in m.table_points:
                times = (f"{v:.4g}" for v in (p.ms_per_layer, p.low_ms, p.high_ms))
                writer.writerow([m.kind, p.phase, p.tokens, *times])
    with (folder / "limits.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["kind", *LayerLimits._fields])
        for m in measurements:
            rows = m.limits()[: m.facts.get("max_layers")]
            writer.writerows([m.kind, *row] for row in rows)
    if any(m.steps for m in measurements):
        write_steps({m.kind: m.steps for m in measurements}, folder)
