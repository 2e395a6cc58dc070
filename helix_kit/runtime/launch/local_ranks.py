"""Layers in this process, with the other ranks that compute them in processes beside it: for measurements."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from helix_kit.runtime.launch.process import ProcessLauncher
from helix_kit.runtime.spec import WorkerSpec

if TYPE_CHECKING:
    from helix_kit.runtime.worker.model_layers import ModelLayers


@contextlib.contextmanager
def layers_with_ranks(spec: WorkerSpec, model_type: str) -> Iterator[ModelLayers]:
    """The layers of `spec`, while the block runs: alone, or as rank 0 of its `ranks`.

    `model_type` is the family of the model: the code that the other ranks load.
    """
    from helix_kit.runtime.worker.follower import load_layers, meet
    from helix_kit.runtime.worker.model_layers import ModelLayers
    from helix_kit.runtime.worker.rank_group import RankGroup
    from helix_kit.runtime.worker.rank_steps import LeadingLayers, stop_ranks

    if not spec.ranks:
        yield load_layers(spec, None, ModelLayers, graphs=spec.graphs)
        return
    launcher = ProcessLauncher(model_type, threads=spec.threads, forks=spec.device == "cpu")
    folder = Path(tempfile.mkdtemp(prefix="helix-kit-ranks-"))
    try:
        for rank in range(1, len(spec.ranks)):
            launcher.start(spec.of_rank(rank, str(folder / "store")))
        own = spec.of_rank(0, str(folder / "store"))
        group = RankGroup(own)
        layers = load_layers(own, group, LeadingLayers, graphs=False)
        meet(own, group, layers)
        yield layers
        stop_ranks(group)
    finally:
        launcher.close()
        shutil.rmtree(folder, ignore_errors=True)
