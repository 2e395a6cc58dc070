"""The options of `serve` as one record, which is passed whole to everything that starts an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from helix_kit.errors import InputError
from helix_kit.runtime.devices import Devices, check_devices
from helix_kit.runtime.spec import check_attention, check_dtype
from helix_kit.scheduling import PolicyChoice, policy_name

if TYPE_CHECKING:
    from helix_kit.runtime.launch.launcher import Launcher

COMPILE_S = 900.0
"""Time for a worker's start where attention kernels may have to be compiled."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds after which a worker is given up.

    Attributes
    ----------
    start_s
        From its start until it reports that it is ready.
    silence_s
        From its last message until it counts as lost: it is frozen, or cut off. A process that ends is noticed at once.

    Examples
    --------
    >>> Timeouts(start_s=600).silence_s
    2.5
    """

    start_s: float = 180.0
    silence_s: float = 2.5


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How a plan is served: the keywords of `serve`, whose description says more of each.

    Raises
    ------
    InputError
        For an unknown `dtype`, `attention` or `devices`, a `time_scale` that is not positive, or a limit below 1.

    Examples
    --------
    >>> options = ServeOptions(policy="random", attention="flashinfer")
    >>> options.policy_name, options.worker_timeouts.start_s
    ('random', 900.0)
    >>> ServeOptions(dtype="int3")
    Traceback (most recent call last):
    ...
    helix_kit.errors.InputError: dtype = 'int3': expected one of float32, bfloat16, float16
    """

    launcher: str | Launcher = "process"
    """What runs the workers: ``process``, ``inproc``, ``ray``, or a launcher."""
    policy: PolicyChoice = "helix"
    """How requests are routed."""
    dtype: str = "float32"
    """Of weights, activations and KV cache: ``float32``, ``bfloat16`` or ``float16``."""
    attention: str = "auto"
    """Attention kernels on a GPU: ``auto``, ``triton``, ``flashinfer`` or ``sdpa``."""
    graphs: bool = True
    """Whether the steps of a GPU are captured as CUDA graphs when the worker starts."""
    seed: int = 0
    """Of the policy, and of the sampling of requests that name none."""
    devices: str | Devices | None = None
    """Where workers compute: ``plan``, ``any``, ``cpu``, or node -> torch devices; None is ``plan``."""
    pace: bool | None = None
    """Whether steps are padded to the profile's times; None: on nodes of the CPU-* kinds."""
    time_scale: float = 1.0
    """Factor on all padded times."""
    chunk_tokens: int = 256
    """Tokens of a prefill chunk."""
    threads: int | None = None
    """Torch threads of each worker on a CPU; None: the cores divided among the workers."""
    memory_share: float | None = None
    """Share of each GPU's memory for weights and KV cache; None: the `memory_share` of the plan's cluster."""
    kv_pages: int | None = None
    """Limit to a worker's KV pages; None: as many as the node's profile says and the device has memory for."""
    max_queue: int | None = None
    """How many requests may wait; None: any number."""
    restart_workers: bool = False
    """Whether a lost worker is started again."""
    timeouts: Timeouts | None = None
    """When a worker is given up; None: `worker_timeouts` chooses."""
    encrypt: bool = False
    """Whether sockets are encrypted even on loopback."""
    host: str | None = None
    """Address to listen on; None: the launcher's."""
    emulated: bool = False
    """Whether the weights are a stand-in, nodes are paced on CPUs, and links are as slow as the cluster's."""

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        check_attention(self.attention)
        check_devices(self.devices)
        if self.memory_share is not None and not 0 < self.memory_share <= 1:
            raise InputError("expected a number above 0, at most 1", field="memory_share", value=self.memory_share)
        if not self.time_scale > 0:
            raise InputError("expected more than 0", field="time_scale", value=self.time_scale)
        limits = {
            "chunk_tokens": self.chunk_tokens,
            "threads": self.threads,
            "kv_pages": self.kv_pages,
            "max_queue": self.max_queue,
        }
        for name, value in limits.items():
            if value is not None and value < 1:
                raise InputError("expected at least 1", field=name, value=value)

    @property
    def policy_name(self) -> str:
        """The policy's name, also when a class or an object is given."""
        return policy_name(self.policy)

    @property
    def worker_timeouts(self) -> Timeouts:
        """The given timeouts, or the default ones: starts take longer where kernels may have to be compiled."""
        if self.timeouts is not None:
            return self.timeouts
        return Timeouts(start_s=COMPILE_S) if self.attention == "flashinfer" else Timeouts()

    @property
    def uses_one_machine(self) -> bool:
        """Whether all workers run on this machine."""
        return self.launcher != "ray"
