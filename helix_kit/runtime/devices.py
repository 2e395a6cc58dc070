"""Which GPU of this machine each worker gets, from the kinds that the plan names, and what of it a worker may take.

A node of kind ``L4x2`` needs two GPUs that call themselves L4; each node takes those of its kind that are used
least; several may share one, each with its share of the memory. The GPUs are listed by a process of their own
(``python -m helix_kit.runtime.devices``): a process that has asked CUDA anything can no longer be forked.

>>> found = [Gpu(0, "NVIDIA A100-SXM4-40GB", 42.3), Gpu(1, "NVIDIA L4", 23.7)]
>>> [is_kind(gpu, "A100-40G", 40) for gpu in found], [is_kind(gpu, "L4", 24) for gpu in found]
([True, False], [False, True])
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from helix_kit import _files
from helix_kit.catalogue import EMULATED_PREFIX
from helix_kit.cluster import Node
from helix_kit.errors import HelixKitError, InputError
from helix_kit.placement.plan import Plan

if TYPE_CHECKING:
    from helix_kit.runtime.spec import WorkerSpec
    from helix_kit.runtime.worker.stage import Stage

log = logging.getLogger(__name__)

GPU_SHARE = 0.95
"""Of a GPU's memory, for all workers that share it together."""
STEP_MEMORY = 0.05
"""Of a GPU's memory, for what a step computes with, beside weights and KV pages; per worker, of its share."""
CONTEXT_BYTES = 0.5e9
"""What CUDA itself takes of a GPU's memory for one process."""
LIKE_MEMORY = 0.2
"""Relative difference up to which a GPU's memory is that of its kind: makers round, drivers keep some."""
LIST_TIMEOUT_S = 120.0
CHOICES = ("plan", "any", "cpu")

Devices = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as torch reports it; memory in GB (10^9 bytes)."""

    index: int
    name: str
    memory_gb: float

    @property
    def device(self) -> str:
        """Its name as a torch device."""
        return f"cuda:{self.index}"


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine that torch can use, listed in another process; HelixKitError when that fails."""
    unlisted = "the GPUs of this machine could not be listed: "
    try:
        done = subprocess.run(
            [sys.executable, "-m", "helix_kit.runtime.devices"],
            capture_output=True,
            text=True,
            timeout=LIST_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HelixKitError(f"{unlisted}{error}") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise HelixKitError(f"{unlisted}{reason}")
    words = (done.stdout.strip().splitlines() or [""])[-1]  # what comes before is said by libraries
    try:
        return tuple(Gpu(**row) for row in json.loads(words))
    except (TypeError, ValueError) as error:
        raise HelixKitError(f"{unlisted}unexpected words {words[:200]!r}") from error


def list_gpus() -> list[Gpu]:
    """The same in this process, which then has CUDA in use."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found.append(Gpu(index, facts.name, facts.total_memory / 1e9))
    return found


def is_kind(found: Gpu, kind: str, memory_gb: float) -> bool:
    """Whether a GPU is of the kind that a catalogue calls `kind`, with about `memory_gb` of memory.

    The kind's family must stand in the GPU's name as a word (L4 is not in "NVIDIA L40S"); what follows a dash in the
    kind is its memory, which is compared as a number.
    """
    family = re.sub(r"-\d+G$", "", kind)
    # RTX4090 is written "RTX 4090" by its maker.
    spelled = r"[\s-]?".join(re.escape(part) for part in re.findall(r"[A-Za-z]+(?=\d{4})|.+", family))
    if not re.search(rf"(?<![A-Za-z0-9]){spelled}(?![A-Za-z0-9])", found.name, re.IGNORECASE):
        return False
    return abs(found.memory_gb / memory_gb - 1) <= LIKE_MEMORY


def check_devices(wanted: str | Devices | None) -> None:
    """Raise InputError for what `place` does not know."""
    if wanted is not None and not isinstance(wanted, Mapping) and wanted not in CHOICES:
        raise InputError(f"expected {', '.join(CHOICES)}, or a device for each node", field="devices", value=wanted)


def place(
    plan: Plan,
    wanted: str | Devices | None = None,
    *,
    one_machine: bool = True,
    taken: Mapping[str, Sequence[str]] | None = None,
    find: Callable[[], Sequence[Gpu]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """The torch devices of each node of the plan, as many as workers of it.

    Parameters
    ----------
    wanted
        ``plan`` (default): the GPUs of the kinds that the plan names; a machine without any GPU uses its CPU.
        ``any``: this machine's GPUs, whatever they are called. ``cpu``: no GPU. Or node -> device, or devices;
        nodes that are not given are placed by ``plan``.
    one_machine
        False with Ray, where each worker sees only the GPU that it was given, as its first.
    taken
        The devices of nodes that have theirs: those of the plan keep them, and others count where two GPUs are equally
        used by the plan (while a plan is exchanged, what it does without still holds its memory).

    Raises InputError when this machine lacks what a node needs, or a name is unknown.
    """
    check_devices(wanted)
    if wanted is None or isinstance(wanted, str):
        choice, given = wanted or "plan", {}
    else:
        choice, given = "plan", {name: _devices_of(name, devices) for name, devices in wanted.items()}
        for name in given:
            if name not in plan.placement:
                raise InputError(_files.unknown("node", name, plan.placement), field="devices")
    held = {name: tuple(devices) for name, devices in (taken or {}).items()}
    given |= {name: devices for name, devices in held.items() if name in plan.placement}
    nodes = [plan.cluster.node(name) for name in plan.placement]
    real = [n for n in nodes if choice != "cpu" and n.name not in given and not n.gpu.startswith(EMULATED_PREFIX)]
    placed: dict[str, tuple[str, ...]] = {node.name: ("cpu",) for node in nodes} | given
    if not real:
        return placed
    if not one_machine:
        return placed | {node.name: ("cuda:0",) * node.gpus_per_node for node in real}
    gpus = (find or find_gpus)()
    if not gpus:
        kinds = ", ".join(dict.fromkeys(node.gpu for node in real))
        log.warning("this machine has no GPU that torch can use: workers for %s compute on its CPU", kinds)
        return placed
    uses = Counter(device for devices in given.values() for device in devices)
    others = Counter(device for name, devices in held.items() if name not in given for device in devices)
    for node in real:
        fitting = list(gpus) if choice == "any" else _fitting(plan, node, gpus)
        if len(fitting) < node.gpus_per_node:
            raise _lacking(node, fitting, gpus)
        fitting.sort(key=lambda gpu: (uses[gpu.device], others[gpu.device]))
        placed[node.name] = tuple(gpu.device for gpu in fitting[: node.gpus_per_node])
        uses.update(placed[node.name])
    return placed


def _devices_of(node: str, given: str | Sequence[str]) -> tuple[str, ...]:
    devices = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    for device in devices or ("",):
        if not isinstance(device, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise InputError("expected cpu, cuda:0, cuda:1, ...", field=f"devices[{node}]", value=device)
    return tuple("cuda:0" if device == "cuda" else device for device in devices)


def _fitting(plan: Plan, node: Node, gpus: Iterable[Gpu]) -> list[Gpu]:
    memory_gb = plan.cluster.gpu(node.gpu).memory_gb
    return [gpu for gpu in gpus if is_kind(gpu, node.gpu, memory_gb)]


def _lacking(node: Node, fitting: Sequence[Gpu], gpus: Sequence[Gpu]) -> InputError:
    need = node.gpu if node.gpus_per_node == 1 else f"{node.gpus_per_node} GPUs of kind {node.gpu}"
    there = ", ".join(f"{gpu.name} ({gpu.memory_gb:.0f} GB, {gpu.device})" for gpu in gpus)
    has = f"this machine has {len(fitting)} of that kind" if fitting else "this machine has none"
    return InputError(
        f"node {node.name} needs {need}, and {has}; found: {there}. Plan for a cluster of what is there, start Ray on "
        "the machines of the plan (launcher ray), or say which devices to use (devices: any, cpu, or node -> device)",
        field="devices",
    )


def memory_share(places: Mapping[str, Sequence[str]], device: str) -> float | None:
    """Share of its GPU's memory that a worker on `device` may take when several share it; None when it is alone."""
    sharing = sum(other == device for devices in places.values() for other in devices)
    return None if device == "cpu" or sharing < 2 else GPU_SHARE / sharing


def prepare(spec: WorkerSpec, *, own_process: bool) -> None:
    """Set up torch for a worker: threads on a CPU, device and share of memory on a GPU.

    Workers that are threads of one process share its settings, which are then left alone.
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
    torch.cuda.set_device(device)
    if own_process and spec.memory_share is not None:
        torch.cuda.set_per_process_memory_fraction(spec.memory_share, device)


def num_pages(spec: WorkerSpec, stage: Stage) -> int:
    """KV pages of a worker whose weights are loaded: as many as it was told, or as its share of the GPU still holds.

    Raises HelixKitError when not one page per layer fits.
    """
    if stage.device.type != "cuda":
        return spec.num_pages
    import torch

    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(stage.device)
    return pages_within(
        spec,
        room_bytes(free, total, torch.cuda.memory_reserved(stage.device), spec.memory_share),
        stage.page_bytes,
    )


def room_bytes(free: float, total: float, taken: float, share: float | None) -> float:
    """Bytes that a worker may still take for pages on a GPU of `total`, of which `free` are free and `taken` are its.

    With a `share`, CUDA's own memory for the process comes out of it; alone on the GPU, that is no longer free anyway.
    """
    allowed = share * total - CONTEXT_BYTES if share is not None else GPU_SHARE * (free + taken)
    return min(allowed - taken, free) - STEP_MEMORY * total * (share or 1.0)


def pages_within(spec: WorkerSpec, room_bytes: float, page_bytes: int) -> int:
    """Of the pages that `spec` asks for, those for which there is room."""
    fitting = int(room_bytes // page_bytes)
    layers = spec.end - spec.start
    if fitting < min(layers, spec.num_pages):
        raise HelixKitError(
            f"{spec.device} has {max(0.0, room_bytes) / 1e9:.2f} GB left for keys and values beside the weights of "
            f"{layers} layers in {spec.dtype}, and one page of each layer takes {layers * page_bytes / 1e9:.2f} GB: "
            "expected fewer layers, a narrower dtype, or fewer workers on this GPU"
        )
    if fitting < spec.num_pages:
        log.warning("%s: %d of %d KV pages fit on %s", spec.node, fitting, spec.num_pages, spec.device)
    return min(spec.num_pages, fitting)


if __name__ == "__main__":
    print(json.dumps([asdict(gpu) for gpu in list_gpus()]))
