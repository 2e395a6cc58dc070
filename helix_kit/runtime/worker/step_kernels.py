"""What a step over static buffers calls: a module's kernels, and an attention that may come from elsewhere.

`triton_kernels` and `torch_kernels` are modules with the same functions. Attention of another library takes the place
of a module's `attend`; norms, rotary embedding, gate and the writing of keys and values stay the module's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from helix_kit.runtime.worker.kv_cache import PagedRows
    from helix_kit.runtime.worker.static_batch import DeviceTables, LayerCache, StaticBatch


class PagedAttention(ABC):
    """Attention of a step's rows over the pages of their requests."""

    name: str
    takes_whole_requests = False
    """Whether a block of a step with prefill chunks must hold all rows of its request, however many they are."""
    captures_chunks = True
    """Whether steps with prefill chunks can be captured as CUDA graphs; if not, they run eagerly, without padding."""

    @abstractmethod
    def attend(
        self, query: torch.Tensor, cache: LayerCache, batch: StaticBatch, scaling: float | None, window: int | None
    ) -> torch.Tensor:
        """As `torch_kernels.attend`. What it calls on the device may be captured, so it must not wait for it."""

    def prepare(  # noqa: B027  most attention has nothing to prepare
        self, tables: DeviceTables, rows: int, table_rows: Sequence[int], requests: Sequence[PagedRows], *, decode: bool
    ) -> None:
        """Called before each run of a step and before each replay of its graph, never while one is captured.

        `rows` is the size of the padded step, and `table_rows` are the rows of `tables` of the requests.
        """


class ModuleAttention(PagedAttention):
    """The attention of a module of kernels."""

    def __init__(self, module: ModuleType) -> None:
        self.name = module.__name__.rpartition(".")[2].removesuffix("_kernels")
        self._attend = module.attend

    def attend(
        self, query: torch.Tensor, cache: LayerCache, batch: StaticBatch, scaling: float | None, window: int | None
    ) -> torch.Tensor:
        """The module's kernel."""
        result: torch.Tensor = self._attend(query, cache, batch, scaling, window)
        return result


class StepKernels:
    """A module's kernels, with its own attention or another one."""

    def __init__(self, module: ModuleType, attention: PagedAttention | None = None) -> None:
        self.rms_norm, self.add_rms_norm = module.rms_norm, module.add_rms_norm
        self.silu_and_mul = module.silu_and_mul
        self.rotary_and_write, self.write = module.rotary_and_write, module.write
        self.attention = attention or ModuleAttention(module)
        self.attend = self.attention.attend
