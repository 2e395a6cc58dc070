"""The GPU catalogue: datasheet figures of each GPU that a cluster may name, from ``data/gpus.csv``."""

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
