"""Which GPU of this machine each worker computes on, chosen by the kinds of GPU that the plan names.

A node of kind ``L4x2`` needs two GPUs whose name says L4. Each node gets the GPUs of its kind that the fewest workers
use. Several workers may share a GPU, each with its share of the memory (`device_memory`).

The GPUs are listed by a separate process (``python -m helix_kit.runtime.devices``), because a process that has used
CUDA can no longer be forked.

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
from functools import cache

from helix_kit import _files
from helix_kit.catalogue import EMULATED_PREFIX
from helix_kit.cluster import Node
from helix_kit.errors import HelixKitError, InputError
from helix_kit.placement.plan import Plan

log = logging.getLogger(__name__)

MEMORY_TOLERANCE = 0.2
"""Relative difference up to which a GPU's memory is that of its kind: makers round it, and drivers keep some of it."""
LIST_TIMEOUT_S = 120.0
CHOICES = ("plan", "any", "cpu")

Devices = Mapping[str, str | Sequence[str]]
"""Node -> its torch device, or its devices."""


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
    """The GPUs of this machine that torch can use, listed by a separate process; HelixKitError when that fails."""
    failure = "the GPUs of this machine could not be listed: "
    try:
        done = subprocess.run(
            [sys.executable, "-m", "helix_kit.runtime.devices"],
            capture_output=True,
            text=True,
            timeout=LIST_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HelixKitError(f"{failure}{error}") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise HelixKitError(f"{failure}{reason}")
    answer = (done.stdout.strip().splitlines() or [""])[-1]  # libraries may have printed lines before it
    try:
        return tuple(Gpu(**row) for row in json.loads(answer))
    except (TypeError, ValueError) as error:
        raise HelixKitError(f"{failure}unexpected output {answer[:200]!r}") from error


def list_gpus() -> list[Gpu]:
    """As `find_gpus`, but listed by this process, which cannot be forked afterwards."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found.append(Gpu(index, facts.name, facts.total_memory / 1e9))
    return found


def is_kind(gpu: Gpu, kind: str, memory_gb: float) -> bool:
    """Whether a GPU is of the kind that the catalogue calls `kind`, with about `memory_gb` of memory.

    The kind's family must be a whole word of the GPU's name: L4 is not in "NVIDIA L40S". What follows a dash in the
    kind is its memory, which is compared as a number.
    """
    family = re.sub(r"-\d+G$", "", kind)
    # NVIDIA writes "RTX 4090" for RTX4090, and "RTX PRO 6000" for RTXPro6000.
    spelled = r"[\s-]?".join(re.escape(part) for part in re.findall(r"RTX|[A-Za-z]+(?=\d{4})|.+", family))
    if not re.search(rf"(?<![A-Za-z0-9]){spelled}(?![A-Za-z0-9])", gpu.name, re.IGNORECASE):
        return False
    return abs(gpu.memory_gb / memory_gb - 1) <= MEMORY_TOLERANCE


def check_devices(wanted: str | Devices | None) -> None:
    """Raise InputError for a word that `assign_devices` does not know."""
    if wanted is not None and not isinstance(wanted, Mapping) and wanted not in CHOICES:
        raise InputError(f"expected {', '.join(CHOICES)}, or a device for each node", field="devices", value=wanted)


class DeviceAssignment:
    """The devices of each node, chosen once: a node that a later plan keeps stays on its devices.

    Parameters
    ----------
    wanted, one_machine
        As in `assign_devices`.
    """

    def __init__(self, wanted: str | Devices | None, *, one_machine: bool) -> None:
        self._wanted, self._one_machine = wanted, one_machine
        self._chosen: dict[str, tuple[str, ...]] = {}
        # Listing GPUs takes seconds, for which the engine must not stop when a plan is exchanged.
        self._find_gpus = cache(find_gpus)

    def of(self, plan: Plan) -> dict[str, tuple[str, ...]]:
        """Node -> torch devices, for the nodes of `plan`."""
        if not set(plan.placement) <= set(self._chosen):
            wanted = self._wanted
            if self._chosen and wanted is not None and not isinstance(wanted, str):
                # The given devices may name nodes of the first plan that this one does without.
                wanted = {node: devices for node, devices in wanted.items() if node in plan.placement}
            self._chosen |= assign_devices(
                plan, wanted, one_machine=self._one_machine, taken=self._chosen, find_gpus=self._find_gpus
            )
        return {node: self._chosen[node] for node in plan.placement}


def assign_devices(
    plan: Plan,
    wanted: str | Devices | None = None,
    *,
    one_machine: bool = True,
    taken: Mapping[str, Sequence[str]] | None = None,
    find_gpus: Callable[[], Sequence[Gpu]] = find_gpus,
) -> dict[str, tuple[str, ...]]:
    """The torch devices of each node of the plan; a node has a worker on each of its devices.

    Parameters
    ----------
    plan
        Its nodes, and the kinds of their GPUs.
    wanted
        ``plan`` (default): the GPUs of the kinds that the plan names; a machine without any GPU uses its CPU.
        ``any``: this machine's GPUs of whatever kind. ``cpu``: no GPU. Or node -> device, or devices; nodes that are
        not given get theirs as with ``plan``.
    one_machine
        False with Ray, where each worker sees only the GPU that Ray gave it, as ``cuda:0``.
    taken
        The devices of nodes that have theirs already. Nodes of the plan keep them. The other nodes still hold memory
        while a plan is exchanged, so that their GPUs come last among GPUs that the plan uses equally.
    find_gpus
        Lists the GPUs of this machine; called only when it matters.

    Returns
    -------
    dict
        Node -> devices, as many as the node has GPUs (one ``cpu`` for a node that computes on the CPU).

    Raises
    ------
    InputError
        When this machine lacks the GPUs of a node, or a node or device is unknown.
    """
    check_devices(wanted)
    if wanted is None or isinstance(wanted, str):
        choice, given = wanted or "plan", {}
    else:
        choice, given = "plan", {name: _checked_devices(name, devices) for name, devices in wanted.items()}
        for name in given:
            if name not in plan.placement:
                raise InputError(_files.unknown("node", name, plan.placement), field="devices")
    held = {name: tuple(devices) for name, devices in (taken or {}).items()}
    given |= {name: devices for name, devices in held.items() if name in plan.placement}
    nodes = [plan.cluster.node(name) for name in plan.placement]
    on_gpus = [n for n in nodes if choice != "cpu" and n.name not in given and not n.gpu.startswith(EMULATED_PREFIX)]
    # A node whose layers several GPUs share is computed by as many processes on a CPU, if the cluster's file says so.
    assigned: dict[str, tuple[str, ...]] = {node.name: ("cpu",) * (node.tensor_parallel or 1) for node in nodes} | given
    if not on_gpus:
        return assigned
    if not one_machine:
        return assigned | {node.name: ("cuda:0",) * node.gpus_per_node for node in on_gpus}
    gpus = find_gpus()
    if not gpus:
        kinds = ", ".join(dict.fromkeys(node.gpu for node in on_gpus))
        log.warning("this machine has no GPU that torch can use: workers for %s compute on its CPU", kinds)
        return assigned
    uses = Counter(device for devices in given.values() for device in devices)
    leaving = Counter(device for name, devices in held.items() if name not in given for device in devices)
    for node in on_gpus:
        fitting = list(gpus) if choice == "any" else _of_kind(plan, node, gpus)
        if len(fitting) < node.gpus_per_node:
            raise _missing_gpus(node, fitting, gpus)
        fitting.sort(key=lambda gpu: (uses[gpu.device], leaving[gpu.device]))
        assigned[node.name] = tuple(gpu.device for gpu in fitting[: node.gpus_per_node])
        uses.update(assigned[node.name])
    return assigned


def ranks_per_worker(plan: Plan, node: str, devices: int) -> int:
    """Devices of a node that compute each layer together, of `devices` that it has.

    Parameters
    ----------
    plan
        Its cluster gives `tensor_parallel` for the node, or the planner has chosen it.
    node
        Name of the node.
    devices
        How many devices the node has.

    Raises
    ------
    InputError
        When the cluster gives a number that does not divide the devices.
    """
    described = plan.cluster.node(node)
    given = described.tensor_parallel
    if given is None:
        # What the planner has chosen is for the node's GPUs: it does not hold for a CPU in their place.
        chosen = plan.profiles[described.kind].tensor_parallel
        return chosen if devices == described.gpus_per_node else 1
    if devices % given:
        raise InputError(
            f"expected a multiple of its tensor_parallel = {given} devices", field=f"devices[{node}]", value=devices
        )
    return given


def _checked_devices(node: str, given: str | Sequence[str]) -> tuple[str, ...]:
    devices = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    for device in devices or ("",):
        if not isinstance(device, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise InputError("expected cpu, cuda:0, cuda:1, ...", field=f"devices[{node}]", value=device)
    return tuple("cuda:0" if device == "cuda" else device for device in devices)


def _of_kind(plan: Plan, node: Node, gpus: Iterable[Gpu]) -> list[Gpu]:
    memory_gb = plan.cluster.gpu(node.gpu).memory_gb
    return [gpu for gpu in gpus if is_kind(gpu, node.gpu, memory_gb)]


def _missing_gpus(node: Node, fitting: Sequence[Gpu], gpus: Sequence[Gpu]) -> InputError:
    need = node.gpu if node.gpus_per_node == 1 else f"{node.gpus_per_node} GPUs of kind {node.gpu}"
    there = ", ".join(f"{gpu.name} ({gpu.memory_gb:.0f} GB, {gpu.device})" for gpu in gpus)
    has = f"this machine has {len(fitting)} of that kind" if fitting else "this machine has none"
    return InputError(
        f"node {node.name} needs {need}, and {has}; found: {there}. Plan for a cluster of the GPUs that are there, "
        "start Ray on the machines of the plan (launcher ray), or say which devices to use (devices: any, cpu, or node "
        "-> device)",
        field="devices",
    )


if __name__ == "__main__":
    print(json.dumps([asdict(gpu) for gpu in list_gpus()]))
