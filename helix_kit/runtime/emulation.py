"""A cluster emulated on this machine: routing, batching, KV pages and messages are real; the speeds are declared.

Every node of the plan becomes a worker that holds its layers of a stand-in model, which has as many layers as the real
one but is only 16 wide. Each step is padded to the time that the node's profile gives for the real model. Messages take
the time that the real activations would need on the cluster's links. All times are multiplied by one `time_scale`, so
that this machine can keep up. Steps that still take too long are counted as overruns; a replay with more than 2 % of
them is refused.

>>> import helix_kit as hk
>>> from helix_kit.runtime.emulation import emulate
>>> plan = hk.plan(hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b"))              # doctest: +SKIP
>>> with emulate(plan, time_scale=8) as engine:                                               # doctest: +SKIP
...     run = engine.replay(hk.Workload.azure_conversation(rate_per_s=1.0, duration_s=60))

Times in the run are those of the emulated cluster: computing takes what the profiles say, sending what the links say.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from helix_kit._files import cache_dir
from helix_kit.placement.plan import Plan
from helix_kit.runtime.engine import Engine
from helix_kit.runtime.serving import serve

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 64,
    "max_position_embeddings": 1 << 16,
}


def emulate(plan: Plan, *, time_scale: float = 5.0, **options: Any) -> Engine:
    """Serve a stand-in for the plan's model at the speed of the plan's cluster.

    Parameters
    ----------
    plan
        Which node of the emulated cluster holds which layers.
    time_scale
        Factor on all times; a larger one gives this machine more time for each step.
    options
        As in `serve`.

    Returns
    -------
    Engine
        Takes prompts of token ids below 64. Its answers mean nothing.
    """
    return serve(plan, stand_in_weights(plan.model.num_layers), time_scale=time_scale, emulated=True, **options)


_MAKING = threading.Lock()
"""One thread at a time makes weights: transformers cannot be imported by several at once."""


def stand_in_weights(num_layers: int) -> Path:
    """Folder with a random Llama of that many layers, 16 wide; it is made once and kept in the cache."""
    from helix_kit.runtime.weights.tiny import tiny_checkpoint

    target = cache_dir() / f"stand-in-{num_layers}-layers-v1"
    with _MAKING:
        if target.is_dir():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".stand-in-", dir=target.parent) as scratch:
            folder = tiny_checkpoint(Path(scratch) / "model", **SIZES, num_hidden_layers=num_layers)
            try:
                folder.rename(target)
            except OSError:  # another process has made it meanwhile
                shutil.rmtree(folder, ignore_errors=True)
    return target
