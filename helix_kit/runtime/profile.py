"""Measure how fast a device of this machine runs a model's layers, and write the tables that the planner reads.

>>> from helix_kit.runtime.profile import measure, write_tables               # doctest: +SKIP
>>> result = measure("folder with weights", device="cuda:0", kind="L40S")     # doctest: +SKIP
>>> write_tables([result], "my-profiles/my-model")                            # doctest: +SKIP

A few layers are loaded and run as a worker runs them: prefill as one chunk of n tokens, decode as n requests with a
context of given length. Each point is the median of several runs; their 10th and 90th percentiles are kept, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kit.cluster import MEMORY_SHARE, Node
from helix_kit.errors import InputError
from helix_kit.model import Model
from helix_kit.runtime.device_facts import device_memory_gb, device_name
from helix_kit.runtime.measurement import (
    DECODE_REQUESTS,
    PREFILL_TOKENS,
    Measurement,
    Point,
    emulated,
    rounded,
    write_tables,
)
from helix_kit.runtime.profile_steps import (
    GPU_STEPS,
    STEPS,
    Step,
    StepTime,
    speed_of,
    time_calls,
    time_step,
    time_steps,
)
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.weights.shares import check_tensor_parallel

if TYPE_CHECKING:
    from helix_kit.runtime.worker.model_layers import ModelLayers

GPU_PREFILL_TOKENS = (*PREFILL_TOKENS, 1024, 2048)
"""Prompts that are timed on a GPU, in tokens."""

Progress = Callable[[str, float], None]
"""Called with what is being measured, and the share that is done."""


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """How `measure` measures; its keywords.

    >>> MeasureOptions(device="cuda:0", dtype="float16").num_layers
    16
    """

    device: str = "cpu"
    """Torch device."""
    dtype: str = "float32"
    """As in `helix_kit.serve`."""
    attention: str = "auto"
    """As in `helix_kit.serve`."""
    deterministic: bool = False
    """As in `helix_kit.serve`: steps are then slower, and plans and simulations should know it."""
    layers: int | None = None
    """How many layers to time together; more give less noise and take more memory. None: 4 on a CPU, 16 on a GPU.

    A GPU computes few layers faster than the host can launch them.
    """
    threads: int | None = 1
    """Torch threads on a CPU, as a worker has; None: torch's default."""
    context_tokens: int = 128
    """Context of each decoding request."""
    repeats: int = 9
    """Runs of each point, after one that is not timed."""
    memory_gb: float | None = None
    """Memory of which `memory_share` is used, of each GPU; None: the device's (for a CPU, half of the machine's)."""
    memory_share: float = MEMORY_SHARE
    """Share of the memory for weights, embeddings and KV cache."""
    steps: bool = True
    """Whether to measure mixed steps, long contexts and steps without CUDA graphs, too, and compare them with a
    roofline."""
    tensor_parallel: int = 1
    """GPUs that compute each layer together, from `device` on; with a CPU, processes."""

    def __post_init__(self) -> None:
        if not 0 < self.memory_share <= 1:
            raise InputError("expected a number above 0, at most 1", field="memory_share", value=self.memory_share)
        counts = {"repeats": self.repeats, "layers": self.layers, "tensor_parallel": self.tensor_parallel}
        for field_name, value in counts.items():
            if value is not None and value < 1:
                raise InputError("expected at least 1", field=field_name, value=value)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that compute each layer together: the given one, and those that follow it."""
        if self.device == "cpu":
            return ("cpu",) * self.tensor_parallel
        first = int(self.device.partition(":")[2] or 0)
        return tuple(f"cuda:{first + rank}" for rank in range(self.tensor_parallel))

    @property
    def num_layers(self) -> int:
        """Layers to time together."""
        if self.layers is not None:
            return self.layers
        return 4 if self.device == "cpu" else 16


def measure(
    weights: str | Path,
    *,
    kind: str = "this-machine",
    model: Model | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Measurement:
    """Measure prefill and decode time per layer of the model in the folder `weights`.

    Parameters
    ----------
    weights
        Local Hugging Face folder, with config.json and safetensors files.
    kind
        Name to give the machine in the tables, as the nodes of a cluster name it.
    model
        Its description; None: read from the folder.
    progress
        Called before each point.
    options
        The fields of `MeasureOptions`: device, dtype, attention, deterministic, layers, threads, context_tokens,
        repeats, memory_gb, memory_share, tensor_parallel.

    Returns
    -------
    Measurement
        Times per layer in ms, and what fits into the memory.

    Raises
    ------
    InputError
        When the weights are not there or of an unsupported family, or an option is out of its range.

    Examples
    --------
    >>> result = measure("folder with weights", device="cuda:0", kind="L40S")     # doctest: +SKIP
    """
    checkpoint = Checkpoint(weights)
    checkpoint.check_tensors()
    return _measure(checkpoint, kind, model, progress or _no_progress, MeasureOptions(**options))


def _no_progress(_what: str, _share: float) -> None:
    pass


def _time_points(
    stage: ModelLayers, prefill_tokens: tuple[int, ...], options: MeasureOptions, progress: Progress
) -> list[Point]:
    """Prefill and decode steps of each size, without the output projection."""
    sizes = [*(("prefill", n) for n in prefill_tokens), *(("decode", n) for n in DECODE_REQUESTS)]
    points = []
    for done, (phase, tokens) in enumerate(sizes):
        progress(f"{phase}, {tokens} tokens", done / len(sizes))
        step = Step(tokens, 0, 0) if phase == "prefill" else Step(0, tokens, options.context_tokens)
        runs_s = time_step(stage, step, options.repeats)
        low, middle, high = np.percentile(runs_s, [10, 50, 90]) * 1e3 / (stage.end - stage.start)
        points.append(Point(phase, tokens, float(middle), float(low), float(high)))
    return points


def _measure(
    checkpoint: Checkpoint, kind: str, model: Model | None, progress: Progress, options: MeasureOptions
) -> Measurement:
    import torch

    from helix_kit.runtime.launch.local_ranks import layers_with_ranks
    from helix_kit.runtime.worker.model_layers import ModelLayers
    from helix_kit.runtime.worker.static_step import StepOptions

    device, ranks = options.device, options.devices
    if len(ranks) > 1:
        check_tensor_parallel(checkpoint.config, checkpoint.model(), len(ranks), "profile")
    size = {"float32": 4, "bfloat16": 2, "float16": 2}.get(options.dtype, 4)
    model = model or Model.from_hf(checkpoint.folder, dtype_bytes=size)
    layers = min(options.num_layers, model.num_layers)
    if device == "cpu" and options.threads is not None:
        torch.set_num_threads(options.threads)
    began = time.perf_counter()
    # The last layers, because the output projection is timed, too; the inputs are random anyway.
    span = (model.num_layers - layers, model.num_layers)
    prefill_tokens = PREFILL_TOKENS if device == "cpu" else GPU_PREFILL_TOKENS
    spec = WorkerSpec(
        name="profile",
        weights=str(checkpoint.folder),
        start=span[0],
        end=span[1],
        num_pages=1,
        coordinator="",
        key_hex="",
        dtype=options.dtype,
        attention=options.attention,
        deterministic=options.deterministic,
        device=ranks[0],
        ranks=ranks if len(ranks) > 1 else (),
        threads=options.threads or 1,
        step_tokens=max(prefill_tokens),
    )
    speed = speed_of(device, options.dtype, kind)
    times: list[StepTime] = []
    with layers_with_ranks(spec, checkpoint.config["model_type"]) as stage:
        load_s = (time.perf_counter() - began) / layers
        points = _time_points(stage, prefill_tokens, options, progress)
        row = torch.zeros(1, stage.hidden_size, dtype=stage.dtype, device=stage.device)
        with torch.inference_mode():
            head_ms = float(np.median(time_calls(lambda: stage.logits(row), stage, options.repeats))) * 1e3
        # The roofline is that of one device.
        if options.steps and len(ranks) == 1:
            progress("mixed steps and long contexts", 1.0)
            chosen = STEPS if device == "cpu" else GPU_STEPS
            has_graphs = stage.device.type == "cuda" and stage.uses_graphs
            times += time_steps(
                stage, model, speed, repeats=options.repeats, graphs="on" if has_graphs else "none", steps=chosen
            )
            if has_graphs:
                plain = ModelLayers(
                    checkpoint, *span, dtype=options.dtype, device=device, attention_backend=options.attention,
                    options=StepOptions(
                        max_rows=max(prefill_tokens), graphs=False, deterministic=options.deterministic
                    ),
                )  # fmt: skip
                times += time_steps(plain, model, speed, repeats=options.repeats, graphs="off", steps=chosen)
    progress("done", 1.0)
    gpus = 1 if device == "cpu" else len(ranks)
    return Measurement(
        kind=Node(name="n", gpu=kind, gpus_per_node=len(ranks), tensor_parallel=len(ranks)).kind,
        model=model,
        points=tuple(points),
        head_ms=head_ms,
        load_s_per_layer=load_s,
        memory_bytes=(options.memory_gb or device_memory_gb(device)) * gpus * 1e9,
        facts={
            "device": device_name(device),
            "dtype": options.dtype,
            "attention": stage.attention,
            "threads": options.threads if device == "cpu" else None,
            "torch": torch.__version__,
            "context_tokens": options.context_tokens,
            "repeats": options.repeats,
            "roofline": speed.source,
            "roofline_gb_per_s": rounded(speed.bytes_per_s / 1e9),
            "roofline_tflops": rounded(speed.flops_per_s / 1e12),
            **({"tensor_parallel": len(ranks)} if len(ranks) > 1 else {}),
            **({"deterministic": True} if options.deterministic else {}),
        },
        memory_share=options.memory_share,
        steps=tuple(times),
    )


__all__ = ["MeasureOptions", "Measurement", "Point", "emulated", "measure", "write_tables"]
