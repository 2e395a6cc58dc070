"""The GPU catalogue: datasheet figures of each GPU that a cluster may name, from ``data/gpus.csv``."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

from helix_kit import _files

EMULATED_PREFIX = "CPU-"
"""Kinds of the catalogue that stand for a paced process on this machine."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """Datasheet figures of one GPU; `fp16_tflops` is dense, `price_usd_per_hour` None where unknown."""

    name: str
    memory_gb: float
    memory_bandwidth_gb_per_s: float
    fp16_tflops: float
    price_usd_per_hour: float | None
    source: str


@cache
def gpus() -> dict[str, Gpu]:
    """The catalogue by name, in file order."""
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
