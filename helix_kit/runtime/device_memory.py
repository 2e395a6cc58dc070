"""What a worker does with its device before its first step: threads, its share of the memory, its KV pages."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from helix_kit.cluster import MEMORY_SHARE
from helix_kit.errors import HelixKitError
from helix_kit.runtime.host_memory import available_bytes
from helix_kit.runtime.spec import WorkerSpec

if TYPE_CHECKING:
    from helix_kit.runtime.worker.step import Layers

log = logging.getLogger(__name__)

STEP_SHARE = 0.05
"""Share of its part of a GPU's memory that a worker leaves free for the intermediate values of a step."""
GPU_SHARE = MEMORY_SHARE + STEP_SHARE
"""Share of a GPU's memory for all workers on it together, steps included, unless options or cluster say otherwise."""
CONTEXT_BYTES = 0.5e9
"""Memory of a GPU that CUDA itself takes for one process."""
CPU_SHARE = 0.8
"""Share of the memory available on a machine for the KV pages of all workers on its CPU together."""


def memory_share(device: str, processes: int, gpu_share: float = GPU_SHARE) -> float | None:
    """Share of the memory of `device` for each of the `processes` of workers on it; None when there is only one.

    `gpu_share` is for all workers of a GPU together.

    >>> memory_share("cuda:0", 2, gpu_share=0.9), memory_share("cpu", 4), memory_share("cuda:1", 1)
    (0.45, 0.2, None)
    """
    return None if processes < 2 else (CPU_SHARE if device == "cpu" else gpu_share) / processes


def prepare(spec: WorkerSpec, *, own_process: bool) -> None:
    """Set up torch for a worker: threads on a CPU, device and share of memory on a GPU.

    Workers that are threads of one process share torch's settings, which are then left as they are.
    """
    import torch

    if spec.device == "cpu":
        if own_process:
            torch.set_num_threads(spec.threads)
        return
    device = torch.device(spec.device)
    if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
        raise HelixKitError(
            f"{spec.device} is not here: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs "
            "(a torch for CPUs sees none; CUDA_VISIBLE_DEVICES hides some)"
        )
    if own_process and spec.deterministic:
        # With several streams, cuBLAS promises the same bits only for a workspace of a fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.cuda.set_device(device)
    if own_process and spec.memory_share is not None:
        torch.cuda.set_per_process_memory_fraction(spec.memory_share, device)


def num_pages(spec: WorkerSpec, stage: Layers) -> int:
    """KV pages of a worker whose weights are loaded: `spec.num_pages`, or fewer if its device has no memory for them.

    A plan may name machines with more memory than the one that serves it, as when a plan for GPUs is tried on a CPU.

    Raises HelixKitError when not even one page of each layer fits.
    """
    if stage.device.type != "cuda":
        available = available_bytes()
        if available is None:
            return spec.num_pages
        # The pages of an emulated machine stand for its own memory. Nearly all stay unwritten, and so take none here.
        share = CPU_SHARE if spec.links is not None or spec.memory_share is None else spec.memory_share
        return pages_within(spec, share * available, stage.page_bytes)
    import torch

    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(stage.device)
    taken = torch.cuda.memory_reserved(stage.device)
    room = room_bytes(free, total, taken, spec.memory_share, spec.gpu_share)
    return pages_within(spec, room, stage.page_bytes)


def room_bytes(free: float, total: float, taken: float, share: float | None, gpu_share: float = GPU_SHARE) -> float:
    """Bytes of a GPU that a worker may still take for KV pages.

    Parameters
    ----------
    free, total
        Bytes of the GPU that are free, and all of them.
    taken
        Bytes that this worker's tensors take.
    share
        The worker's share of the memory, which includes CUDA's own memory for its process. None: it is alone on the
        GPU, and CUDA's own memory is no longer among the free bytes.
    gpu_share
        Share of a worker that is alone.
    """
    allowed = share * total - CONTEXT_BYTES if share is not None else gpu_share * (free + taken)
    return min(allowed - taken, free) - STEP_SHARE * total * (share or 1.0)


def pages_within(spec: WorkerSpec, room_bytes: float, page_bytes: int) -> int:
    """How many of the pages that `spec` asks for fit into `room_bytes`."""
    fitting = int(room_bytes // page_bytes)
    layers = spec.end - spec.start
    if fitting < min(layers, spec.num_pages):
        raise HelixKitError(
            f"{spec.device} has {max(0.0, room_bytes) / 1e9:.2f} GB left for keys and values beside the weights of "
            f"{layers} layers in {spec.dtype}, and one page of each layer takes {layers * page_bytes / 1e9:.2f} GB: "
            "expected fewer layers, a narrower dtype, or fewer workers on this device"
        )
    if fitting < spec.num_pages:
        log.warning(
            "%s: %d of the plan's %d KV pages fit on %s, which has %.2f GB for them (--kv-pages sets a lower limit)",
            *(spec.name, fitting, spec.num_pages, spec.device, room_bytes / 1e9),
        )
    return min(spec.num_pages, fitting)
