"""What all sections share: the device, the checkpoints, the engine that serves, and how results are put down."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gpu_sections.checkpoints import random_checkpoint
from gpu_sections.sizes import Sizes

if TYPE_CHECKING:
    from helix_kit.report import Run
    from helix_kit.runtime.engine import Engine

REQUEST_TIMEOUT_S = 100.0


@dataclass
class Table:
    """One table of the document."""

    title: str
    head: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)

    def markdown(self) -> list[str]:
        lines = [f"{self.title}", "", "| " + " | ".join(self.head) + " |"]
        lines.append("|---" + "|---:" * (len(self.head) - 1) + "|")
        return [*lines, *("| " + " | ".join(row) + " |" for row in self.rows), ""]


@dataclass
class Found:
    """What a section found: numbers for the JSON file, tables for the document, and what was wrong."""

    data: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class EngineStartError(RuntimeError):
    """An engine of this kind could not be started before; it is not tried again."""


class Check:
    """The state of one run of all sections."""

    def __init__(self, sizes: Sizes, device: str, folder: Path, attention: str, weights: Path | None = None) -> None:
        self.sizes, self.device, self.folder, self.attention = sizes, device, folder, attention
        self.began = time.time()
        self.found: dict[str, Found] = {}
        """Results of the sections so far, by name."""
        self.runs: dict[float, Run] = {}
        """Served open loads, by requests/s."""
        self._given = weights
        self._checkpoints: dict[str, Path] = {}
        self._engine: tuple[str, Engine] | None = None
        self._broken: dict[str, str] = {}
        self._copy_bytes_per_s: float | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    def say(self, *words: object) -> None:
        """Print a line with the seconds since the start."""
        print(f"[{time.time() - self.began:6.1f} s]", *words, flush=True)

    def sync(self) -> None:
        """Wait until the device has finished its work."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], Any], *, repeats: int, warm: int = 3) -> float:
        """Median seconds of `call`, the device's work included."""
        for _ in range(warm):
            call()
        self.sync()
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            call()
            self.sync()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    def checkpoint(self, name: str) -> Path:
        """The folder of the ``large`` or ``small`` checkpoint, made when it is first asked for."""
        if name == "large" and self._given is not None:
            return self._given
        if name not in self._checkpoints:
            began = time.monotonic()
            shape = self.sizes.large if name == "large" else self.sizes.small
            done = self.folder / f"{name}.done"
            if not done.exists():
                random_checkpoint(self.folder / name, shape, dtype=self.sizes.dtype, device=self.device)
                done.touch()
            self._checkpoints[name] = self.folder / name
            self.free()
            self.say(f"checkpoint {name} made in {time.monotonic() - began:.1f} s")
        return self._checkpoints[name]

    @property
    def vocabulary(self) -> int:
        from helix_kit.runtime.weights.checkpoint import Checkpoint

        return int(Checkpoint(self.checkpoint("large")).config["vocab_size"])

    def copy_bytes_per_s(self) -> float:
        """Bytes read and written per second by a copy on the device; measured once."""
        if self._copy_bytes_per_s is None:
            source = torch.empty(self.sizes.copy_bytes, dtype=torch.uint8, device=self.device)
            source.random_(0, 255)
            target = torch.empty_like(source)
            taken_s = self.seconds(lambda: target.copy_(source), repeats=7)
            self._copy_bytes_per_s = 2 * source.nbytes / taken_s
            del source, target
            self.free()
        return self._copy_bytes_per_s

    def works(self) -> bool:
        """Whether the device still computes in this process: after a faulty kernel it never does again."""
        try:
            return float(torch.ones(2, device=self.device).sum()) == 2.0
        except Exception:
            return False

    def free(self) -> None:
        """Give back the device memory of this process that nothing uses any more."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def engine(self, kind: str) -> Engine:
        """The engine with ``one`` worker for all layers, or with ``two`` on the same device; one engine at a time."""
        if self._engine is not None and self._engine[0] == kind:
            return self._engine[1]
        if kind in self._broken:
            raise EngineStartError(f"the engine with {kind} worker(s) failed before: {self._broken[kind]}")
        self.close_engine()
        self.free()
        began = time.monotonic()
        try:
            engine = self._start(kind)
        except Exception as error:
            self._broken[kind] = str(error)
            raise
        self._engine = (kind, engine)
        warm = [[3 + i, 4, 5] for i in range(4)]
        for handle in [engine.submit(ids, max_new_tokens=4, ignore_eos=True) for ids in warm]:
            handle.result(REQUEST_TIMEOUT_S)
        self.say(f"engine with {kind} worker(s) up in {time.monotonic() - began:.1f} s")
        return engine

    def _start(self, kind: str) -> Engine:
        from helix_kit.runtime import Timeouts, serve
        from helix_kit.runtime.weights.checkpoint import Checkpoint
        from helix_kit.runtime.weights.tiny import tiny_plan

        weights = self.checkpoint("large")
        layers = int(Checkpoint(weights).config["num_hidden_layers"])
        half = layers // 2
        placement = {"one": {"gpu": (0, layers)}, "two": {"first": (0, half), "second": (half, layers)}}[kind]
        plan = tiny_plan(weights, placement, kv_tokens_per_layer=self.sizes.kv_tokens)
        return serve(
            plan,
            weights,
            pace=False,
            devices=dict.fromkeys(placement, self.device),
            dtype=self.sizes.dtype,
            attention=self.attention,
            chunk_tokens=self.sizes.chunk_tokens,
            timeouts=Timeouts(start_s=120.0, silence_s=30.0),
        )

    def close_engine(self) -> None:
        """End the engine's processes, which gives back their memory."""
        if self._engine is not None:
            engine, self._engine = self._engine[1], None
            with contextlib.suppress(Exception):
                engine.close()


def rate(value: float) -> str:
    """A rate as text."""
    return f"{value:,.0f}"


def ms(seconds: float) -> str:
    """Seconds as milliseconds, in text."""
    return f"{1e3 * seconds:.2f}"
