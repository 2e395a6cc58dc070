"""Load the code that workers need, before workers that share a process start.

While `transformers` is imported, it puts another module in its own place. A second thread that imports it meanwhile may
keep the first module, which lacks the classes: "cannot import name 'AutoConfig'". So one thread loads all of it before
others begin.
"""

from __future__ import annotations

import importlib
import threading

_LOCK = threading.Lock()


def preload(model_type: str) -> None:
    """Import torch, the worker, and the code of the model family that a config.json calls `model_type`, if any."""
    with _LOCK:
        import torch  # noqa: F401

        if model_type:
            importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
            from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM  # noqa: F401

        # Workers on CPUs choose the kernels of the latter by its times; numba takes a third of a second to load.
        from helix_kit.runtime.worker import tile_kernel, worker  # noqa: F401
