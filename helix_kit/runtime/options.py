"""The options of `serve` as one record, which is passed whole to everything that starts an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from helix_kit.errors import InputError
from helix_kit.runtime.devices import Devices, check_devices
from helix_kit.runtime.spec import check_attention, check_dtype

if TYPE_CHECKING:
    from helix_kit.runtime.launch.launcher import Launcher
    from helix_kit.scheduling import Policy

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
    """How a plan is served: the keywords of `serve`, which describes each.

    Raises
    ------
    InputError
        For an unknown `dtype`, `attention` or `devices`, or a `time_scale` that is not positive.

    Examples
    --------
    >>> options = ServeOptions(policy="random", attention="auto")
    >>> options.policy_name, options.worker_timeouts.start_s
    ('random', 900.0)
    >>> ServeOptions(dtype="int3")
    Traceback (most recent call last):
    ...
    helix_kit.errors.InputError: dtype = 'int3': expected one of float32, bfloat16, float16
    """

    launcher: str | Launcher = "process"
    policy: str | Policy = "helix"
    dtype: str = "float32"
    attention: str = "sdpa"
    seed: int = 0
    devices: str | Devices | None = None
    pace: bool | None = None
    time_scale: float = 1.0
    chunk_tokens: int = 256
    threads: int | None = None
    kv_pages: int | None = None
    max_queue: int | None = None
    restart_workers: bool = False
    timeouts: Timeouts | None = None
    encrypt: bool = False
    host: str | None = None
    emulated: bool = False

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        check_attention(self.attention)
        check_devices(self.devices)
        if self.time_scale <= 0:
            raise InputError("expected more than 0", field="time_scale", value=self.time_scale)

    @property
    def policy_name(self) -> str:
        """The policy's name, also when a Policy object is given."""
        return self.policy if isinstance(self.policy, str) else self.policy.name

    @property
    def worker_timeouts(self) -> Timeouts:
        """The given timeouts, or the default ones: starts take longer where kernels may have to be compiled."""
        if self.timeouts is not None:
            return self.timeouts
        return Timeouts() if self.attention == "sdpa" else Timeouts(start_s=COMPILE_S)

    @property
    def uses_one_machine(self) -> bool:
        """Whether all workers run on this machine."""
        return self.launcher != "ray"
