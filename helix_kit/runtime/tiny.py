"""Old place of the tiny random checkpoints, kept for scripts written for 0.1; see `helix_kit.runtime.weights.tiny`."""

from __future__ import annotations

import warnings

from helix_kit.runtime.weights.tiny import tiny_checkpoint as tiny_checkpoint  # noqa: PLC0414
from helix_kit.runtime.weights.tiny import tiny_plan as tiny_plan  # noqa: PLC0414

warnings.warn("helix_kit.runtime.tiny has moved to helix_kit.runtime.weights.tiny", DeprecationWarning, stacklevel=2)
