"""Serving for real: a coordinator in the user's process, one worker per node, each with its layers only.

Torch loads in the workers; importing this package, or starting an engine with the `process` launcher, does not
load it here.
"""

from __future__ import annotations

from helix_kit.runtime.coordinator.crew import SwapError, Timeouts
from helix_kit.runtime.coordinator.jobs import Completion, Handle, Piece, RequestFailedError
from helix_kit.runtime.engine import Engine, EngineError
from helix_kit.runtime.serving import serve
from helix_kit.runtime.weights.demo import demo_weights
from helix_kit.runtime.worker.sampling import SamplingParams

__all__ = [
    "Completion",
    "Engine",
    "EngineError",
    "Handle",
    "Piece",
    "RequestFailedError",
    "SamplingParams",
    "SwapError",
    "Timeouts",
    "demo_weights",
    "serve",
]
