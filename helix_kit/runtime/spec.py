"""What a worker is told when it starts; plain data, so that it can travel as JSON to another process or machine."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from helix_kit.errors import InputError
from helix_kit.profiles.profile import Profile

DTYPES = ("float32", "bfloat16", "float16")
ATTENTION = ("sdpa", "flashinfer", "auto")
HEARTBEAT_S = 1.0
"""How often a worker says that it lives; at batch 1 the coordinator spends a tenth of its time on two a second."""


def check_dtype(dtype: str) -> str:
    """The name of a torch dtype that weights can be loaded in; InputError for any other."""
    if dtype not in DTYPES:
        raise InputError(f"expected one of {', '.join(DTYPES)}", field="dtype", value=dtype)
    return dtype


def check_attention(attention: str) -> str:
    """The name of an attention backend, or ``auto``; InputError for any other."""
    if attention not in ATTENTION:
        raise InputError(f"expected one of {', '.join(ATTENTION)}", field="attention", value=attention)
    return attention


class WorkerSpec(BaseModel):
    """One worker: a node of the plan, its layers and where to report."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    name: str
    """Name of the worker: its node's name, or ``node/i`` where the node has several workers."""
    workers_in_node: int = 1
    """How many workers the node has."""
    generation: int = 0
    """Number of this start among all starts of workers. Late messages of an earlier process are recognised by it."""
    weights: str
    start: int
    end: int
    num_pages: int
    coordinator: str
    """Endpoint of the coordinator."""
    key_hex: str
    curve_public: str | None = None
    curve_secret: str | None = None
    host: str = "127.0.0.1"
    """Address to listen on."""
    dtype: str = "float32"
    attention: str = "sdpa"
    """``sdpa``, ``flashinfer`` or ``auto``."""
    device: str = "cpu"
    memory_share: float | None = None
    """Share of a GPU's memory this worker may take; None: no limit of ours."""
    threads: int = 1
    step_tokens: int = 512
    step_decode_requests: int = 256
    profile: Profile | None = None
    """Steps are padded to this profile's times; None: as fast as the device goes."""
    time_scale: float = 1.0
    links: dict[str, tuple[float, float]] | None = None
    """Emulated links: next node or ``coordinator`` -> (bytes/s, latency in s); None: send at once."""
    card_bytes_per_s: float = math.inf
    """Emulated network card, in each direction, that all links of the node share."""
    bytes_per_token: float = 0.0
    """Declared size of one token's activation on emulated links."""
    heartbeat_s: float = HEARTBEAT_S
