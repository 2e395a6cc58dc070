"""A measured kind of machine: its times per layer, what its memory holds, and the tables that planners read."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from helix_kit.cluster import MEMORY_SHARE, Cluster, Coordinator, GpuSpec, Link, Network, Node
from helix_kit.model import Model
from helix_kit.profiles.profile import Curve, Profile
from helix_kit.runtime.profile_steps import StepTime, write_steps

if TYPE_CHECKING:
    from helix_kit.runtime.transport.link_measurement import LinkMeasurement

PREFILL_TOKENS = (1, 4, 16, 32, 64, 128, 256, 512)
DECODE_REQUESTS = (1, 2, 4, 8, 16, 32, 64)
PREFILL_MAX_REQUESTS = 4
MIN_TOKENS_PER_LAYER = 2048
"""KV capacity below which a node is of no use: it could not hold one full-length request in each of its layers."""


@dataclass(frozen=True, slots=True)
class Point:
    """Milliseconds per layer at one size.

    Examples
    --------
    >>> Point("prefill", 128, ms_per_layer=1.5, low_ms=1.4, high_ms=1.7).tokens
    128
    """

    phase: str
    """``prefill`` or ``decode``."""
    tokens: int
    """Tokens of the prompt, or requests that decode a token each."""
    ms_per_layer: float
    """Median of the runs."""
    low_ms: float
    """10th percentile."""
    high_ms: float
    """90th percentile."""


class LayerLimits(NamedTuple):
    """What a machine that holds `num_layers` layers has room for: a row of limits.csv."""

    num_layers: int
    kv_capacity_layer_tokens: int
    prefill_max_requests: int
    decode_max_requests: int


@dataclass(frozen=True)
class Measurement:
    """What `measure` found for one kind of machine.

    Examples
    --------
    >>> model = Model(name="tiny", num_layers=2, hidden_size=64, num_heads=4, intermediate_size=128, vocab_size=100)
    >>> found = Measurement("mine", model, (Point("decode", 1, 2.0, 1.9, 2.2),), 0.5, 0.1, 1e9)
    >>> found.table_points[0].ms_per_layer
    2.25
    """

    kind: str
    """Name of the machine in the tables, as nodes of a cluster name it."""
    model: Model
    """The model whose layers were timed."""
    points: tuple[Point, ...]
    """Times of prefill and decode steps, by size."""
    head_ms: float
    """Time of the final norm and the output projection of one row, which the last stage does for each new token."""
    load_s_per_layer: float
    """Seconds in which a layer's weights were read and moved to the device."""
    memory_bytes: float
    """Memory of the machine's devices together."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Provenance: device, dtype, versions, and figures of the roofline."""
    memory_share: float = MEMORY_SHARE
    """Share of the memory for weights, embeddings and KV cache."""
    steps: tuple[StepTime, ...] = ()
    """Mixed steps, contexts, and CUDA graphs on and off, beside the roofline."""

    def limits(self) -> list[LayerLimits]:
        """The limits for every number of layers that fits."""
        rows = []
        # The embedding and the output projection, which the first and the last stage hold.
        tables_bytes = 2e9 * self.model.embedding_gb
        usable = self.memory_bytes * self.memory_share - tables_bytes
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
            memory_gb=rounded(self.memory_bytes / self.gpus / 1e9),
            memory_bandwidth_gb_per_s=rounded(self.model.layer_gb / ms["decode", 1] * 1e3),
            fp16_tflops=rounded(2 * self.model.layer_params * tokens / ms["prefill", tokens] * 1e3 / 1e12),
        )

    @property
    def gpus(self) -> int:
        """Devices that computed each layer together."""
        return int(self.facts.get("tensor_parallel", 1))

    def starter_cluster(self, link: LinkMeasurement | None = None) -> Cluster:
        """A cluster to start from: two such machines in one region, with the measured `link`, else 10 gbps and 1 ms."""
        within = Link(bandwidth_gbps=10, latency_ms=1)
        if link is not None:
            within = Link(bandwidth_gbps=rounded(link.bandwidth_gbps[1]), latency_ms=rounded(link.latency_ms[1]))
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


def rounded(value: float) -> float:
    """The number with three significant digits."""
    return float(f"{value:.3g}")


def emulated(base: Measurement, speeds: dict[str, float], max_layers: dict[str, int]) -> list[Measurement]:
    """Slower kinds of machines, derived from one measurement.

    Parameters
    ----------
    base
        What was measured.
    speeds
        Kind -> factor by which all of its times are multiplied.
    max_layers
        Kind -> layers that it holds at most; `write_tables` leaves out the limits of more.

    Returns
    -------
    list of Measurement
        One for each kind, without `steps`.

    Examples
    --------
    >>> model = Model(name="tiny", num_layers=2, hidden_size=64, num_heads=4, intermediate_size=128, vocab_size=100)
    >>> base = Measurement("mine", model, (Point("decode", 1, 2.0, 1.9, 2.2),), 0.5, 0.1, 1e9)
    >>> [slow.points[0].ms_per_layer for slow in emulated(base, {"slow": 3.0}, {"slow": 1})]
    [6.0]
    """
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
    """Write the tables that `helix_kit.profiles.load_profiles` reads: layer_times.csv and limits.csv.

    A third file, steps.csv, has the mixed steps of the measurements that have some.

    Parameters
    ----------
    measurements
        One for each kind of machine, all of the same model.
    folder
        It is made if it is not there.

    Examples
    --------
    >>> write_tables([result], "my-profiles/my-model")         # doctest: +SKIP
    """
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
