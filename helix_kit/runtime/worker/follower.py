"""The ranks of a worker beside rank 0: each loads its part of the layers, and runs what rank 0 tells it."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import zmq

from helix_kit.runtime import device_memory
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.transport.messages import FailedMessage
from helix_kit.runtime.transport.sockets import CurveKeys, Outbox, PeerLostError
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.worker.model_layers import ModelLayers
from helix_kit.runtime.worker.rank_group import RankGroup, RankLostError
from helix_kit.runtime.worker.rank_steps import follow
from helix_kit.runtime.worker.static_step import StepOptions


def load_layers(spec: WorkerSpec, group: RankGroup | None, kind: type[ModelLayers], *, graphs: bool) -> ModelLayers:
    """The layers of a worker, or a rank's part of them, on its device. Ranks run without CUDA graphs."""
    return kind(
        Checkpoint(spec.weights, spec.quantize),
        spec.start,
        spec.end,
        dtype=spec.dtype,
        device=spec.device,
        attention_backend=spec.attention,
        options=StepOptions(spec.step_tokens, graphs and group is None, deterministic=spec.deterministic),
        group=group,
    )


def meet(spec: WorkerSpec, group: RankGroup, model: ModelLayers) -> tuple[int, list[int]]:
    """When all ranks have loaded: the KV pages that each has memory for, and the ranks' process ids."""
    pages = group.gather(device_memory.num_pages(spec, model))
    return min(pages), group.gather(os.getpid())


class Follower:
    """One of the ranks beside rank 0.

    Parameters
    ----------
    spec
        The worker, and which of its ranks this one is.
    own_process
        Whether it has a process of its own.
    """

    def __init__(self, spec: WorkerSpec, *, own_process: bool = False) -> None:
        self.spec, self._own_process = spec, own_process
        self._halted = False

    def halt(self) -> None:
        """Say nothing of a failure: the rank ends when rank 0 has ended."""
        self._halted = True

    def run(self) -> None:
        """Load the layers, and run what rank 0 tells until it says stop, or ends."""
        spec = self.spec
        try:
            device_memory.prepare(spec, own_process=self._own_process)
            group = RankGroup(spec)
            model = load_layers(spec, group, ModelLayers, graphs=False)
            meet(spec, group, model)
            follow(model, group)
        except RankLostError:
            return  # another rank has ended, and the worker with it: the launcher notices that
        except Exception as error:
            if not self._halted:
                self._tell_failure(error)
            raise

    def _tell_failure(self, error: Exception) -> None:
        """Tell the coordinator why this rank ends, in the name of the worker."""
        spec = self.spec
        if not spec.coordinator:
            return
        curve = None
        if spec.curve_public and spec.curve_secret:
            curve = CurveKeys(spec.curve_public.encode(), spec.curve_secret.encode())
        context: zmq.Context[Any] = zmq.Context()
        outbox = Outbox(context, bytes.fromhex(spec.key_hex), keys=curve)
        reason = f"rank {spec.rank}: {type(error).__name__}: {error}"[:4000]
        with contextlib.suppress(PeerLostError):
            outbox.send(spec.coordinator, FailedMessage(spec.name, spec.generation, reason))
        outbox.flush_and_close()
        context.term()
