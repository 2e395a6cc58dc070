"""The GPU catalogue: figures and source of each GPU that a cluster may name.

``data/gpus.csv`` holds datasheet figures, ``data/gpu_low_bits.csv`` the rates of arithmetic on 8 bits,
``data/gpu_prices.csv`` rents, ``data/gpu_links.csv`` the links between the GPUs of one node, and
``data/gpu_cuda_memory.csv`` the memory that a program sees.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from helix_kit import _files

EMULATED_PREFIX = "CPU-"
"""Prefix of the catalogue's emulated kinds: paced processes on this machine."""

MAX_GPUS_PER_NODE = 64

IDLE_SHARE = 0.15
"""Idle power as a share of the TDP, where no reading is known: an A100 idles at 62 of 400 W."""


@dataclass(frozen=True, slots=True)
class GpuPrice:
    """Dollars per hour of one GPU, by the way it is paid for; None where unknown.

    Examples
    --------
    >>> GpuPrice(on_demand=2.0, spot=0.8).of("spot"), GpuPrice(on_demand=2.0).of("reserved")
    (0.8, None)
    """

    on_demand: float | None = None
    reserved: float | None = None
    """For a committed term, the longest that the seller lists."""
    spot: float | None = None
    """May be taken away at short notice."""
    source: str = ""
    """Seller, day, and where it is listed."""

    def of(self, payment: str) -> float | None:
        """The price by one of `PAYMENTS`."""
        return {"on_demand": self.on_demand, "reserved": self.reserved, "spot": self.spot}[payment]


PAYMENTS = ("on_demand", "reserved", "spot")
"""How a GPU is paid for."""


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
    """10^9 bytes; of a machine with unified memory, the share that its GPU may take."""
    memory_bandwidth_gb_per_s: float
    """10^9 bytes/s."""
    fp16_tflops: float
    """10^12 operations/s, without sparsity."""
    price: GpuPrice
    """What it costs to rent."""
    source: str
    """Where the figures come from."""
    unified_memory_gb: float | None = None
    """Memory that GPU and CPU share; None where the GPU has its own."""
    tdp_w: float | None = None
    """Power at full load, of the whole machine where memory is unified; None where unknown."""
    idle_w: float | None = None
    """Power of a GPU that waits; None where unknown."""
    fp8_tflops: float | None = None
    """10^12 operations/s on 8-bit floats. None: the card has no such arithmetic, or its rate is unknown."""
    int8_tops: float | None = None
    """10^12 operations/s on 8-bit integers, with the same meaning of None."""
    cuda_memory_gb: float | None = None
    """10^9 bytes that a program sees: a card of "80 GB" has 80 GiB less a reserve of the driver. None where unknown."""

    @property
    def seen_memory_gb(self) -> float:
        """Memory that an engine shares out: what a program sees where that is known, else the datasheet's."""
        return self.cuda_memory_gb or self.memory_gb

    @property
    def price_usd_per_hour(self) -> float | None:
        """The on-demand price; None where unknown."""
        return self.price.on_demand

    def power_w(self, utilisation: float) -> float | None:
        """Power at a share of its full speed: an estimate, linear between idle and the TDP. None where unknown."""
        if self.tdp_w is None:
            return None
        idle_w = IDLE_SHARE * self.tdp_w if self.idle_w is None else self.idle_w
        return idle_w + (self.tdp_w - idle_w) * min(1.0, max(0.0, utilisation))

    def tflops(self, arithmetic: str) -> float:
        """10^12 operations/s of this type (fp16, fp8 or int8). Without the type's own units, operands are expanded."""
        own = {"fp8": self.fp8_tflops, "int8": self.int8_tops}.get(arithmetic)
        return own or self.fp16_tflops


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
    prices = _prices()
    with (_files.data_dir() / "gpu_low_bits.csv").open(newline="", encoding="utf-8") as file:
        low_bits = {row["gpu"]: row for row in csv.DictReader(file)}
    with (_files.data_dir() / "gpu_cuda_memory.csv").open(newline="", encoding="utf-8") as file:
        seen_gb = {row["gpu"]: float(row["cuda_memory_gib"]) * 2**30 / 1e9 for row in csv.DictReader(file)}
    with (_files.data_dir() / "gpus.csv").open(newline="", encoding="utf-8") as file:
        return {
            row["gpu"]: Gpu(
                name=row["gpu"],
                memory_gb=float(row["memory_gb"]),
                memory_bandwidth_gb_per_s=float(row["memory_bandwidth_gb_per_s"]),
                fp16_tflops=float(row["fp16_tflops"]),
                price=prices.get(row["gpu"], GpuPrice()),
                source=row["source"],
                unified_memory_gb=_number(row["unified_memory_gb"]),
                tdp_w=_number(row["tdp_w"]),
                idle_w=_number(row["idle_w"]),
                fp8_tflops=_number(low_bits.get(row["gpu"], {}).get("fp8_tflops", "")),
                int8_tops=_number(low_bits.get(row["gpu"], {}).get("int8_tops", "")),
                cuda_memory_gb=seen_gb.get(row["gpu"]),
            )
            for row in csv.DictReader(file)
        }


def real_gpus() -> list[str]:
    """Names of the GPUs in the catalogue, without the emulated kinds."""
    return [name for name in gpus() if not name.startswith(EMULATED_PREFIX)]


def gpu_and_count(kind: str, known: Collection[str]) -> tuple[str, int] | None:
    """GPU and number of GPUs of a machine's kind; None unless the GPU is in `known` and there are 1 to 64 of it.

    >>> gpu_and_count("L4", {"L4"}), gpu_and_count("L4x2", {"L4"}), gpu_and_count("T4x2", {"L4"})
    (('L4', 1), ('L4', 2), None)
    """
    if kind in known:
        return kind, 1
    several = re.fullmatch(r"(.+)x(\d+)", kind)
    if several is None or several[1] not in known or not 1 <= int(several[2]) <= MAX_GPUS_PER_NODE:
        return None
    return several[1], int(several[2])


def _prices() -> dict[str, GpuPrice]:
    with (_files.data_dir() / "gpu_prices.csv").open(newline="", encoding="utf-8") as file:
        return {
            row["gpu"]: GpuPrice(
                **{payment: _number(row[f"{payment}_usd_per_hour"]) for payment in PAYMENTS},
                source=f"{row['seller']}, {row['read_on']}: {row['source']}",
            )
            for row in csv.DictReader(file)
        }


def _number(text: str) -> float | None:
    return float(text) if text else None


@dataclass(frozen=True, slots=True)
class GpuLink:
    """The link over which the GPUs of one node exchange activations.

    Examples
    --------
    >>> gpu_links("H100-80G")["nvlink"].bytes_per_s
    370750000000.0
    """

    name: str
    """``nvlink``, ``xgmi``, ``pcie``, or ``given`` for figures of a cluster file."""
    bandwidth_gbps: float
    """10^9 bit/s that one GPU sends, as an all-reduce reaches it; to one other GPU where each pair has its own link."""
    latency_ms: float
    """Time of one step of a ring all-reduce, whatever its size."""
    source: str
    """Where the figures come from."""
    peers: int | None = None
    """Other GPUs to each of which a GPU has a link of its own. None: one link, through a switch or a bus, to all."""

    @property
    def bytes_per_s(self) -> float:
        """Bandwidth in bytes/s, from one GPU to another."""
        return self.bandwidth_gbps * 1e9 / 8

    def bytes_per_s_among(self, gpus: int) -> float:
        """Bytes/s that each of so many GPUs sends to the others together.

        >>> gpu_links("MI300X")["xgmi"].bytes_per_s_among(4), gpu_links("A100-40G")["nvlink"].bytes_per_s_among(4)
        (144000000000.0, 240000000000.0)
        """
        return self.bytes_per_s * (1 if self.peers is None else max(1, min(gpus - 1, self.peers)))


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
        ``nvlink``, ``xgmi`` (AMD's Infinity Fabric) or ``pcie``, or two of them. The first is the usual one.

    Examples
    --------
    >>> list(gpu_links("A100-40G")), list(gpu_links("L4"))
    (['nvlink', 'pcie'], ['pcie'])
    """
    with (_files.data_dir() / "gpu_links.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = [row for row in rows if row["gpu"] == gpu] or [row for row in rows if row["gpu"] == "*"]
    return {row["link"]: _link_of(row) for row in chosen}


def _link_of(row: dict[str, str]) -> GpuLink:
    peers = int(row["peers"]) if row["peers"] else None
    return GpuLink(row["link"], float(row["bandwidth_gbps"]), float(row["latency_ms"]), row["source"], peers)
