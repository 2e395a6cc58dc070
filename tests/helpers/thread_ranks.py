"""Ranks as threads of this process, and plans whose nodes divide each layer: CPUs and gloo in the place of GPUs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from helix_kit.placement.plan import Plan
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.worker.model_layers import ModelLayers
from helix_kit.runtime.worker.rank_group import RankGroup
from helix_kit.runtime.worker.rank_steps import LeadingLayers, follow, stop_ranks
from helix_kit.runtime.worker.static_step import StepOptions


def with_ranks(plan: Plan, ranks: dict[str, int]) -> Plan:
    """The plan on a cluster whose nodes have so many GPUs, all of which compute each layer together."""
    nodes = tuple(
        node.model_copy(update={"gpus_per_node": ranks[node.name], "tensor_parallel": ranks[node.name]})
        if node.name in ranks
        else node
        for node in plan.cluster.nodes
    )
    [profile] = plan.profiles.values()
    return plan.model_copy(
        update={
            "cluster": plan.cluster.model_copy(update={"nodes": nodes}),
            "profiles": {node.kind: profile.model_copy(update={"kind": node.kind}) for node in nodes},
        }
    )


class ThreadRanks:
    """Loads layers that `ranks` threads compute together; use it as a `LoadLayers` of `layer_chain`."""

    def __init__(self, folder: Path, ranks: int, options: StepOptions) -> None:
        self._folder, self._ranks, self._options = folder, ranks, options
        self._threads: list[threading.Thread] = []
        self._groups: list[RankGroup] = []
        self.failures: list[BaseException] = []

    def __call__(self, checkpoint: Checkpoint, start: int, end: int) -> ModelLayers:
        spec = WorkerSpec(
            name="w", weights=str(checkpoint.folder), start=start, end=end, num_pages=1, coordinator="", key_hex="",
            ranks=("cpu",) * self._ranks,
        )  # fmt: skip
        rendezvous = str(self._folder / f"store-{start}-{end}-{len(self._threads)}")
        for rank in range(1, self._ranks):
            thread = threading.Thread(target=self._follow, args=(spec.of_rank(rank, rendezvous),), daemon=True)
            self._threads.append(thread)
            thread.start()
        group = RankGroup(spec.of_rank(0, rendezvous))
        self._groups.append(group)
        return LeadingLayers(checkpoint, start, end, options=self._options, group=group)

    def _follow(self, spec: WorkerSpec) -> None:
        try:
            group = RankGroup(spec)
            layers = ModelLayers(Checkpoint(spec.weights), spec.start, spec.end, options=self._options, group=group)
            follow(layers, group)
        except BaseException as error:
            self.failures.append(error)
            raise

    def stop(self) -> None:
        for group in self._groups:
            stop_ranks(group)
        for thread in self._threads:
            thread.join(10)


@contextlib.contextmanager
def thread_ranks(folder: Path, ranks: int, options: StepOptions | None = None) -> Iterator[ThreadRanks]:
    """`ThreadRanks` that meet in `folder`, and end with the block without a failure."""
    found = ThreadRanks(folder, ranks, options or StepOptions())
    yield found
    found.stop()
    assert not found.failures and not any(thread.is_alive() for thread in found._threads)
