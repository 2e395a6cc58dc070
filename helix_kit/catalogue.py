"""The GPU catalogue: figures and source of each GPU that a cluster may name.

``data/gpus.csv`` holds datasheet figures, ``data/gpu_links.csv`` the links between the GPUs of one node.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

from helix_kit import _files

EMULATED_PREFIX = "CPU-"
"""Prefix of the catalogue's emulated kinds: paced processes on this machine."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """Datasheet figures of one GPU.

    Examples
    --------
    >>> gpus()["T4"].memory_gb
    16.0
    """

    name: str
    """As a cluster names it."""
    memory_gb: float
    """10^9 bytes."""
    memory_bandwidth_gb_per_s: float
    """10^9 bytes/s."""
    fp16_tflops: float
    """10^12 operations/s, without sparsity."""
    price_usd_per_hour: float | None
    """None where unknown."""
    source: str
    """Where the figures come from."""


@cache
def gpus() -> dict[str, Gpu]:
    """The GPU catalogue.

    Returns
    -------
    dict of str to Gpu
        By name, in the order of the file.

    Examples
    --------
    >>> "A100-40G" in gpus()
    True
    """
    with (_files.data_dir() / "gpus.csv").open(newline="", encoding="utf-8") as file:
        return {
            row["gpu"]: Gpu(
                name=row["gpu"],
                memory_gb=float(row["memory_gb"]),
                memory_bandwidth_gb_per_s=float(row["memory_bandwidth_gb_per_s"]),
                fp16_tflops=float(row["fp16_tflops"]),
                price_usd_per_hour=float(row["price_usd_per_hour"]) if row["price_usd_per_hour"] else None,
                source=row["source"],
            )
            for row in csv.DictReader(file)
        }


@dataclass(frozen=True, slots=True)
class GpuLink:
    """The link over which the GPUs of one node exchange activations.

    Examples
    --------
    >>> gpu_links("H100-80G")["nvlink"].bytes_per_s
    370750000000.0
    """

    name: str
    """``nvlink``, ``pcie``, or ``given`` for figures of a cluster file."""
    bandwidth_gbps: float
    """10^9 bit/s that one GPU sends, as an all-reduce reaches it."""
    latency_ms: float
    """Time of one step of a ring all-reduce, whatever its size."""
    source: str
    """Where the figures come from."""

    @property
    def bytes_per_s(self) -> float:
        """Bandwidth in bytes/s."""
        return self.bandwidth_gbps * 1e9 / 8


@cache
def gpu_links(gpu: str) -> dict[str, GpuLink]:
    """The links that connect several GPUs of one kind in a node.

    Parameters
    ----------
    gpu
        A name of the catalogue. The others get the links of the row ``*``: PCIe through the host's memory.

    Returns
    -------
    dict of str to GpuLink
        ``nvlink`` or ``pcie`` or both. The first is the usual one.

    Examples
    --------
    >>> list(gpu_links("A100-40G")), list(gpu_links("L4"))
    (['nvlink', 'pcie'], ['pcie'])
    """
    with (_files.data_dir() / "gpu_links.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = [row for row in rows if row["gpu"] == gpu] or [row for row in rows if row["gpu"] == "*"]
    return {
        row["link"]: GpuLink(row["link"], float(row["bandwidth_gbps"]), float(row["latency_ms"]), row["source"])
        for row in chosen
    }
