"""Serving a plan: a coordinator in the user's process, and one worker per GPU, which holds only its layers.

Torch is loaded by the workers. Importing this package, or starting an engine with the `process` launcher, does not load
torch in the user's process.
"""

from __future__ import annotations

from helix_kit.runtime.coordinator.worker_manager import SwapError
from helix_kit.runtime.engine import Engine
from helix_kit.runtime.errors import EngineError
from helix_kit.runtime.generation_options import GenerationOptions
from helix_kit.runtime.handle import Completion, Handle, Piece, RequestFailedError
from helix_kit.runtime.logprobs import TokenLogprobs
from helix_kit.runtime.options import ServeOptions, Timeouts
from helix_kit.runtime.serving import serve
from helix_kit.runtime.status import EngineStatus, WorkerStatus
from helix_kit.runtime.weights.demo import demo_weights
from helix_kit.runtime.worker.sampling_params import SamplingParams

__all__ = [
    "Completion",
    "Engine",
    "EngineError",
    "EngineStatus",
    "GenerationOptions",
    "Handle",
    "Piece",
    "RequestFailedError",
    "SamplingParams",
    "ServeOptions",
    "SwapError",
    "Timeouts",
    "TokenLogprobs",
    "WorkerStatus",
    "demo_weights",
    "serve",
]
