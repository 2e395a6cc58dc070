"""The options of `serve` as one record, which is passed whole to everything that starts an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helix_kit.errors import InputError
from helix_kit.runtime.devices import Devices, check_devices
from helix_kit.runtime.spec import check_attention, check_dtype, check_quantize
from helix_kit.scheduling import PolicyChoice, policy_name

if TYPE_CHECKING:
    from helix_kit.runtime.launch.launcher import Launcher

START_S, SILENCE_S = 180.0, 10.0
STOPPED_S = 2.5
"""Silence after which a stopped process counts as lost: two heartbeats in a row are missing."""
RUNNING_FACTOR = 3
"""How many times as long a silent worker is waited for whose process is seen to run."""
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
        From its last message until it counts as lost. A process that ends is noticed at once. Where the worker is a
        process of this machine, its state is looked at: one that the system has stopped counts as lost after
        2.5 s (or `silence_s`, if that is less). One that runs is waited for three times as long as `silence_s`: a
        silent process that runs is most often short of a core, and a worker given up loses its KV cache.

    Raises
    ------
    InputError
        For a time that is not positive.

    Examples
    --------
    >>> Timeouts(start_s=600).silence_s
    10.0
    >>> timeouts = Timeouts(silence_s=20)
    >>> [timeouts.silence_of(stopped) for stopped in (True, None, False)]
    [2.5, 20, 60]
    """

    start_s: float = START_S
    silence_s: float = SILENCE_S

    def __post_init__(self) -> None:
        for name in ("start_s", "silence_s"):
            value = getattr(self, name)
            if not value > 0:
                raise InputError("expected more than 0", field=name, value=value)

    @classmethod
    def given(
        cls, *, start_s: float | None = None, silence_s: float | None = None, attention: str = "auto"
    ) -> Timeouts:
        """Timeouts with defaults for what is None: starts take longer where kernels may have to be compiled."""
        usual = COMPILE_S if attention == "flashinfer" else START_S
        return cls(usual if start_s is None else start_s, SILENCE_S if silence_s is None else silence_s)

    def silence_of(self, stopped: bool | None) -> float:
        """Seconds of silence after which a worker is lost: `stopped` says whether its process is (None: not known)."""
        if stopped:
            return min(STOPPED_S, self.silence_s)
        return self.silence_s if stopped is None else RUNNING_FACTOR * self.silence_s


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
    quantize: str | None = None
    """What weights are rounded to when they are loaded: ``int4``, ``int8``, or nothing."""
    attention: str = "auto"
    """Attention kernels on a GPU: ``auto``, ``triton``, ``flashinfer``, ``varlen`` or ``sdpa``."""
    graphs: bool = True
    """Whether the steps of a GPU are captured as CUDA graphs when the worker starts."""
    deterministic: bool = False
    """Whether a request must get the same bits on a GPU whatever else is served beside it."""
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
    max_context_tokens: int | None = None
    """Tokens of prompt and answer together; None: as many as the model's positions reach."""
    prefix_cache: bool = True
    """Whether requests share the KV pages of equal beginnings."""
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
    progress: Callable[[str], None] | None = None
    """Called while the workers start, with a line that says how far they are."""
    emulated: bool = False
    """Whether the weights are a stand-in, nodes are paced on CPUs, and links are as slow as the cluster's."""

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        check_quantize(self.quantize)
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
            "max_context_tokens": self.max_context_tokens,
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
        return Timeouts.given(attention=self.attention)

    def context_tokens(self, reach: int) -> int:
        """Tokens of prompt and answer together, for a model whose positions reach `reach` tokens.

        Raises InputError when more are asked for: the model has not learned such positions, and its answers would be
        noise.
        """
        asked = self.max_context_tokens
        if asked is None or asked <= reach:
            return reach if asked is None else asked
        raise InputError(
            f"the model's positions reach {reach:,} tokens, as its config.json says: expected at most that. To go "
            "beyond, stretch them there by rope_scaling, whose factor multiplies the context: rope_type yarn, factor "
            f"{asked / reach:.3g} or more, original_max_position_embeddings {reach}",
            field="max_context_tokens",
            value=asked,
        )

    @property
    def uses_one_machine(self) -> bool:
        """Whether all workers run on this machine."""
        return self.launcher != "ray"
