"""Which layouts of a weight matrix are fastest on this processor, measured once and kept on disk.

Processors of different makers favour different layouts. On an Intel Xeon only matrices with many more outputs than
inputs gain from oneDNN's blocks; on an AMD EPYC all do, 20 to 45 % with 8 rows. `layouts_of` times the layouts of a
shape when a matrix of that shape is loaded first, which takes about 30 ms on an idle machine. The choice is kept in the
folder `cpu-layouts` of the package's cache, one file for each processor, version of torch, number of threads and shape,
so that the next start reads it.

The layouts differ in the rounding of float32. All workers of a machine therefore take the choice of the first that
stored one, and a choice changes only when its file is removed. Where the folder cannot be written, nothing is measured
and the rule `layouts_by_shape` decides. ``HELIX_KIT_CPU_LAYOUTS`` fixes the choice:

* ``measured``: as described; the default.
* ``shape``: the rule `layouts_by_shape`, which needs no measurement and is the same on all machines.
* ``stored``: every matrix stays as the checkpoint has it, without a copy. This takes the least memory.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from helix_kit._files import cache_dir
from helix_kit.errors import InputError

VARIABLE = "HELIX_KIT_CPU_LAYOUTS"
MODES = ("measured", "shape", "stored")
MIN_PACKED_RATIO = 4
"""Outputs per input from which `layouts_by_shape` packs a matrix."""
MIN_MEASURED_SIZE = 1 << 17
"""Elements of the smallest matrix that is measured. The layout of a smaller one hardly matters, and its times are
mostly those of the calls."""
MAX_TIMED_SIZE = 1 << 19
"""Elements that are timed: the first outputs of a larger matrix. With 2 MB each, the layouts take the second-level
cache from one another, as the layers of a model do."""
MIN_TIMED_OUTPUTS = 64
ROW_COUNTS = (1, 8, 32)
"""Numbers of rows that are timed. A step of one row differs from all others; few and many rows count alike."""
MIN_GAIN = 1.05
"""Ratio of times, as a mean over the row counts, from which layouts replace those of `layouts_by_shape`, or others that
take less memory."""
TIME_LIMIT_S = 0.008
"""Time of the processor for one row count of one shape, after `MIN_ROUNDS`."""
MIN_ROUNDS, MAX_ROUNDS = 5, 20
PACKED_FOR_ROWS = 32
"""Number of rows that oneDNN is told when it packs; the blocks that it chooses suit 2 to 256 rows alike."""
CACHE_VERSION = 1
"""Is raised when the candidates or the meaning of a choice change."""


class Layouts(NamedTuple):
    """The layouts in which a matrix is kept."""

    by_columns: bool
    """Whether the plain matrix is stored by columns rather than by rows, as the file has it."""
    packed_from: int | None
    """Fewest rows for which a copy in oneDNN's blocks is used; None if there is no such copy."""


STORED = Layouts(by_columns=False, packed_from=None)
Times = dict[str, tuple[float, ...]]
"""Seconds of a product by layout ("rows", "columns", "packed"), for each of `ROW_COUNTS`."""


def layouts_of(outside: int, inside: int, dtype: torch.dtype, has_bias: bool) -> Layouts:
    """The layouts of a matrix (outside, inside) on this machine.

    Half precision stays as stored: by columns a product of one row takes many times as long.
    """
    how = mode()
    if how == "stored" or dtype != torch.float32:
        return STORED
    if how == "shape" or outside * inside < MIN_MEASURED_SIZE or not torch.backends.mkldnn.is_available():
        return layouts_by_shape(outside, inside)
    return _measured(cache_dir(), torch.get_num_threads(), outside, inside, has_bias)


def mode() -> str:
    """How layouts are chosen; InputError where the variable says something else."""
    given = os.environ.get(VARIABLE) or MODES[0]
    if given not in MODES:
        raise InputError(f"expected one of {', '.join(MODES)}, not {given!r}", where=VARIABLE)
    return given


def layouts_by_shape(outside: int, inside: int) -> Layouts:
    """The rule for float32 that was found on Intel processors.

    One row is fastest by columns, or by rows if there are more inputs than outputs. Matrices with many more outputs
    than inputs (gate and up projection, output projection) gain 10 to 45 % from blocks with 2 rows and more.
    """
    return Layouts(outside >= inside, 2 if outside >= MIN_PACKED_RATIO * inside else None)


def fastest(times: Times, usual: Layouts) -> Layouts:
    """The layouts with the least mean logarithm of the times; others than the `usual` ones only from `MIN_GAIN` on."""
    starts = [1, *(rows + 1 for rows in ROW_COUNTS[:-1])] if "packed" in times else []
    best, best_log = usual, math.inf if usual.packed_from and not starts else _mean_log(times, usual)
    plain = (usual.by_columns, not usual.by_columns)
    groups = [[Layouts(by_columns, None)] for by_columns in plain]
    groups += [[Layouts(by_columns, start) for start in starts] for by_columns in plain if starts]
    for group in groups:
        log, layouts = min((_mean_log(times, layouts), layouts) for layouts in group)
        if log < best_log - math.log(MIN_GAIN):
            best, best_log = layouts, log
    return best


def _mean_log(times: Times, layouts: Layouts) -> float:
    """Mean logarithm of the time over the row counts, each in the layout that `layouts` use for it."""
    plain = times["columns" if layouts.by_columns else "rows"]
    used = [
        times["packed"][i] if layouts.packed_from is not None and rows >= layouts.packed_from else plain[i]
        for i, rows in enumerate(ROW_COUNTS)
    ]
    return sum(map(math.log, used)) / len(used)


@functools.cache
def _measured(folder: Path, threads: int, outside: int, inside: int, has_bias: bool) -> Layouts:
    """The stored choice; else one is measured and stored."""
    key = [CACHE_VERSION, processor(), torch.__version__, threads, outside, inside, "float32", has_bias]
    usual = layouts_by_shape(outside, inside)

    def measure() -> dict[str, Any]:
        return fastest(time_layouts(outside, inside, has_bias), usual)._asdict()

    return _layouts(kept_choice(folder, key, measure, is_valid=lambda data: _layouts(data) is not None)) or usual


def _layouts(data: dict[str, Any] | None) -> Layouts | None:
    """The layouts that a file names; None where it is damaged."""
    if data is None:
        return None
    by_columns, packed_from = data.get("by_columns"), data.get("packed_from", "")
    is_valid = type(by_columns) is bool and (packed_from is None or type(packed_from) is int)
    return Layouts(bool(by_columns), packed_from) if is_valid else None


def kept_choice(
    folder: Path,
    key: list[object],
    measure: Callable[[], dict[str, Any]],
    is_valid: Callable[[dict[str, Any]], bool] = lambda data: True,
) -> dict[str, Any] | None:
    """The choice that is stored for `key`; else one is measured and stored. None where nothing can be stored."""
    path = folder / "cpu-layouts" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"
    stored = _read(path, key, is_valid)
    if stored is not None:
        return stored
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent)
    except OSError:  # a choice that is not kept could differ from start to start
        return None
    try:
        chosen = measure()
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump({"key": key, **chosen}, file)
        if path.exists() and _read(path, key, is_valid) is None:  # a damaged file
            os.replace(name, path)
        else:
            with contextlib.suppress(FileExistsError):  # another worker stored its choice first: all take that
                os.link(name, path)
    except OSError:  # the disk is full, or the file system has no links
        with contextlib.suppress(OSError):
            os.replace(name, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)
    return _read(path, key, is_valid)


def _read(path: Path, key: list[object], is_valid: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    """The choice that is stored for `key`; None if there is none or the file is damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return data if data["key"] == key and is_valid(data) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@functools.cache
def processor() -> str:
    """What tells this processor from others: its model, as the system names it, and the instructions torch uses."""
    fields = ("model name", "cpu family", "model", "stepping")
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            if name.strip() in fields:
                found[name.strip()] = value.strip()
    described = [found[name] for name in fields if name in found] or [platform.processor(), platform.machine()]
    return " ".join([*described, torch.backends.cpu.get_cpu_capability()])


def pack(weight: torch.Tensor) -> torch.Tensor | None:
    """The matrix in oneDNN's blocks; None if that is not possible with this torch."""
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_FOR_ROWS)
    except (AttributeError, RuntimeError):  # a build of torch without these operators
        return None


def packed_product(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``x @ weight.T + bias`` for a matrix that `pack` has packed."""
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def time_layouts(outside: int, inside: int, has_bias: bool) -> Times:
    """Least seconds of a product in each layout, of at most `MAX_TIMED_SIZE` elements."""
    return _time_layouts(min(outside, max(MIN_TIMED_OUTPUTS, MAX_TIMED_SIZE // inside)), inside, has_bias)


@functools.cache
@torch.inference_mode()
def _time_layouts(outside: int, inside: int, has_bias: bool) -> Times:
    # The layouts take turns, so that a slow moment affects all alike.
    weight = torch.full((outside, inside), 0.01)
    bias = torch.zeros(outside) if has_bias else None
    by_columns, packed = weight.t().contiguous().t(), pack(weight)
    products: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "rows": lambda x: torch.nn.functional.linear(x, weight, bias),
        "columns": lambda x: torch.nn.functional.linear(x, by_columns, bias),
    }
    if packed is not None:
        products["packed"] = lambda x: packed_product(x, packed, bias)
    # A thread's own time leaves out that of other programs; it would also leave out that of torch's other threads.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in products}
    for rows in ROW_COUNTS:
        x = torch.ones(rows, inside)
        for product in products.values():  # oneDNN makes its kernel
            product(x)
        least = dict.fromkeys(products, math.inf)
        began = clock()
        for done in range(MAX_ROUNDS):
            if done >= MIN_ROUNDS and clock() - began > TIME_LIMIT_S:
                break
            for name, product in products.items():
                start = clock()
                product(x)
                least[name] = min(least[name], clock() - start)
        for name, seconds in least.items():
            times[name].append(seconds)
    return {name: tuple(values) for name, values in times.items()}
