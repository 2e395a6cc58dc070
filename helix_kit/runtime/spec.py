"""What a worker is told when it starts: plain data, which can be sent as JSON to another process or machine."""

from __future__ import annotations

import math
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from helix_kit.errors import InputError
from helix_kit.profiles.profile import Profile
from helix_kit.quantized import check_method

DTYPES = ("float32", "bfloat16", "float16")
ATTENTION = ("auto", "triton", "flashinfer", "varlen", "sdpa")
HEARTBEAT_S = 1.0
"""Seconds between two heartbeats of a worker."""


def check_dtype(dtype: str) -> str:
    """`dtype` if weights can be loaded as it; raises InputError otherwise."""
    if dtype not in DTYPES:
        raise InputError(f"expected one of {', '.join(DTYPES)}", field="dtype", value=dtype)
    return dtype


def check_attention(attention: str) -> str:
    """`attention` if it names a backend or is ``auto``; raises InputError otherwise."""
    if attention not in ATTENTION:
        raise InputError(f"expected one of {', '.join(ATTENTION)}", field="attention", value=attention)
    return attention


def check_quantize(quantize: str | None) -> str | None:
    """`quantize` if weights can be rounded to it, or None; raises InputError otherwise."""
    return None if quantize is None else check_method(quantize)


class LinkQuality(NamedTuple):
    """Bandwidth and latency of an emulated link, before `time_scale` stretches them."""

    bytes_per_s: float
    latency_s: float


class WorkerSpec(BaseModel):
    """One worker: its layers, its device, its KV pages, and where it reports."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    name: str
    """Name of the worker: its node's name, or ``node/i`` where the node has several workers."""
    workers_in_node: int = 1
    """How many workers the node has."""
    generation: int = 0
    """Number of this start among all starts of workers. Late messages of an earlier process are recognised by it."""
    weights: str
    """Folder of the checkpoint, or its id on the hub."""
    start: int
    end: int
    """Its layers are [start, end)."""
    num_pages: int
    """KV pages of its pool at most, 16 tokens of one layer each; fewer if its device has no memory for them."""
    coordinator: str
    """Endpoint of the coordinator."""
    heartbeats: str | None = None
    """Endpoint of the coordinator for heartbeats; None: the same one."""
    key_hex: str
    """The engine's key, part of every message."""
    curve_public: str | None = None
    curve_secret: str | None = None
    """The key pair that encrypts the sockets; None: they are not encrypted."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    dtype: str = "float32"
    quantize: str | None = None
    """What weights are rounded to when they are loaded: ``int4``, ``int8``, or nothing."""
    attention: str = "sdpa"
    """``auto``, ``triton``, ``flashinfer``, ``varlen`` or ``sdpa``."""
    graphs: bool = True
    """Whether steps on a CUDA device are captured as graphs."""
    deterministic: bool = False
    """Whether a request must get the same bits whatever else is in its steps."""
    device: str = "cpu"
    """Torch device."""
    ranks: tuple[str, ...] = ()
    """Torch devices of the processes that compute each layer together (tensor parallelism). Empty: one process."""
    rank: int = 0
    """Which of them this process is. Rank 0 receives and sends, and tells the others what to compute."""
    rendezvous: str | None = None
    """File through which the ranks find each other."""
    gpu_share: float = 0.95
    """Share of its GPU's memory for all workers on it together, the intermediate values of steps included."""
    memory_share: float | None = None
    """Share of its device's memory that this worker may take; None: it is alone on the device."""
    shares_device_with: tuple[str, ...] = ()
    """Names of the other workers on its GPU, or on the machine's only processor."""
    threads: int = 1
    """Torch threads on a CPU."""
    step_tokens: int = 512
    """Tokens of a step at most."""
    step_decode_requests: int = 256
    """Decoding requests of a step at most."""
    stand_in: bool = False
    """Whether stand-in layers take the place of the checkpoint's (`helix_kit.runtime.worker.stand_in`)."""
    profile: Profile | None = None
    """Steps are padded to the times of this profile; None: they are as fast as the device."""
    time_scale: float = 1.0
    """Factor on padded and emulated times."""
    links: dict[str, LinkQuality] | None = None
    """Emulated links, by the node at the other end or ``coordinator``. None: messages are sent at once."""
    card_bytes_per_s: float = math.inf
    """Bandwidth of the emulated network card in each direction, which all links of the node share."""
    bytes_per_token: float = 0.0
    """Size of one token's activations on emulated links: that of the emulated model."""
    heartbeat_s: float = HEARTBEAT_S
    """Seconds between two heartbeats."""

    def of_rank(self, rank: int, rendezvous: str) -> WorkerSpec:
        """What the rank with this number is told."""
        return self.model_copy(update={"rank": rank, "device": self.ranks[rank], "rendezvous": rendezvous})

    @property
    def goes_on(self) -> bool:
        """Whether tokens go from a last stage straight to another worker's first, if the whole pipeline says so.

        Steps then do not wait for the coordinator. Workers that emulate a speed or links wait for it, because the way
        to the coordinator and back is a part of what they emulate. (An only stage goes on in any case.)
        """
        return self.profile is None and self.links is None
