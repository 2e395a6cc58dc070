"""Which layouts of a weight matrix are fastest on this processor, measured once and kept on disk.

Processors of different makers favour different layouts, and libraries different numbers of rows. `layouts_of` times the
ways of a product when a matrix of a shape is loaded first: our kernel (`tile_kernel`) and torch's product by rows, both
without a copy, torch's product by columns, and oneDNN's blocks. This takes about 0.1 s a shape on an idle machine. The
matrices that are timed are not in the processor's caches, as those of a model are not (`ColdMatrices`): from its
third-level cache, an AMD EPYC reads a matrix by columns faster than oneDNN's blocks, and from memory more slowly. The
choice is kept in the folder `cpu-layouts` of the package's cache, one file for each processor, version of torch, number
of threads and shape, so that the next start reads it.

The layouts differ in the rounding of float32. All workers of a machine therefore take the choice of the first that
stored one, and a choice changes only when its file is removed. Where the folder cannot be written, nothing is measured
and the rule `layouts_by_shape` decides. It also decides, until the next start, where a busy machine gives times that
contradict each other (`timed_choice`). ``HELIX_KIT_CPU_LAYOUTS`` fixes the choice:

* ``measured``: as described; the default.
* ``shape``: the rule `layouts_by_shape`, which needs no measurement and is the same on all machines.
* ``stored``: every matrix stays as the checkpoint has it, without a copy. This takes the least memory.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import math
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from helix_kit._files import cache_dir
from helix_kit.errors import InputError
from helix_kit.runtime.worker import timed_choice
from helix_kit.runtime.worker.timed_choice import Times, least_times

VARIABLE = "HELIX_KIT_CPU_LAYOUTS"
MODES = ("measured", "shape", "stored")
MIN_PACKED_RATIO = 4
"""Outputs per input from which `layouts_by_shape` packs a matrix."""
MIN_MEASURED_SIZE = 1 << 17
"""Elements of the smallest matrix that is measured. The layout of a smaller one hardly matters, and its times are
mostly those of the calls."""
MAX_TIMED_SIZE = 1 << 20
"""Elements that are timed: the first outputs of a larger matrix."""
MIN_TIMED_OUTPUTS = 64
ROW_COUNTS = (1, 8, 32)
"""Numbers of rows that are timed. A step of one row differs from all others; few and many rows count alike."""
MIN_GAIN = 1.05
"""Ratio of times, as a mean over the row counts, from which layouts replace those of `layouts_by_shape`, or others that
take less memory."""
MAX_FEW_ROWS = 128
"""With more rows (long prompts) torch multiplies with the plain matrix: it is about as fast as with oneDNN's blocks,
which need a kernel for each number of rows, and faster than ours."""
ALIGNED_BYTES = 64
"""What the address of a matrix is a multiple of where our kernel multiplies with it: a line of the cache."""
COLD_BYTES = 64 << 20
"""Bytes of all matrices that are timed in turn. When a matrix has its turn again, the processor's caches have lost it,
as in a model that is larger than they are."""
PACKED_FOR_ROWS = 32
"""Number of rows that oneDNN is told when it packs; the blocks that it chooses suit 2 to 256 rows alike."""
CACHE_VERSION = 2
"""Is raised when the candidates or the meaning of a choice change."""


class Layouts(NamedTuple):
    """The layouts in which a matrix is kept, and what multiplies with it."""

    by_columns: bool
    """Whether the plain matrix is stored by columns rather than by rows, as the file has it."""
    packed_from: int | None
    """Fewest rows for which a copy in oneDNN's blocks is used; None if there is no such copy."""
    tiled_to: int = 0
    """Up to so many rows our own kernel multiplies, with the plain matrix by rows."""


STORED = Layouts(by_columns=False, packed_from=None)


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
    """The layouts with the least mean logarithm of the times; others than the `usual` ones only from `MIN_GAIN` on.

    Those without a packed copy come first: a copy must gain as much, too.
    """
    last_rows = (*ROW_COUNTS[:-1], MAX_FEW_ROWS)
    starts = [1, *(rows + 1 for rows in ROW_COUNTS[:-1])] if "packed" in times else []
    tiled = [0, *last_rows] if "tiled" in times else [0]
    groups: list[list[Layouts]] = [
        [Layouts(False, None, tiled_to) for tiled_to in tiled],
        [Layouts(True, None)],
        [Layouts(False, start, tiled_to) for start in starts for tiled_to in tiled if tiled_to < start],
        [Layouts(True, start) for start in starts],
    ]
    best, best_log = usual, math.inf if usual.packed_from and not starts else _mean_log(usual, times)
    for group in filter(None, groups):
        log, layouts = min((_mean_log(layouts, times), layouts) for layouts in group)
        if log < best_log - math.log(MIN_GAIN):
            best, best_log = layouts, log
    return best


def _mean_log(layouts: Layouts, times: Times) -> float:
    """Mean logarithm of the time over the row counts, each in the layout that `layouts` use for it."""
    used = [times[_way(layouts, rows)][index] for index, rows in enumerate(ROW_COUNTS)]
    return sum(map(math.log, used)) / len(used)


def _way(layouts: Layouts, rows: int) -> str:
    """By what a product of so many rows is computed, as `Times` call it."""
    if rows <= layouts.tiled_to:
        return "tiled"
    if layouts.packed_from is not None and rows >= layouts.packed_from:
        return "packed"
    return "columns" if layouts.by_columns else "rows"


@functools.cache
def _measured(folder: Path, threads: int, outside: int, inside: int, has_bias: bool) -> Layouts:
    """The stored choice; else one is measured and stored."""
    key = [CACHE_VERSION, processor(), torch.__version__, threads, outside, inside, "float32", has_bias]
    usual = layouts_by_shape(outside, inside)

    def measure() -> dict[str, Any] | None:
        matrices = ColdMatrices(outside, inside, has_bias)
        choice = timed_choice.agreed_choice(matrices.times, lambda times: fastest(times, usual), _mean_log)
        return None if choice is None else choice._asdict()

    return _layouts(kept_choice(folder, key, measure, is_valid=lambda data: _layouts(data) is not None)) or usual


def _layouts(data: dict[str, Any] | None) -> Layouts | None:
    """The layouts that a file names; None where it is damaged."""
    if data is None:
        return None
    by_columns, packed_from, tiled_to = (data.get(name, "") for name in Layouts._fields)
    is_valid = type(by_columns) is bool and (packed_from is None or type(packed_from) is int) and type(tiled_to) is int
    return Layouts(by_columns, packed_from, tiled_to) if is_valid else None


def kept_choice(
    folder: Path,
    key: list[object],
    measure: Callable[[], dict[str, Any] | None],
    is_valid: Callable[[dict[str, Any]], bool] = lambda data: True,
) -> dict[str, Any] | None:
    """The choice that is stored for `key`; else one is measured and stored.

    None where nothing can be stored, and where `measure` returns None because it is not sure.
    """
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
        if chosen is None:
            os.close(descriptor)
            return _read(path, key, is_valid)
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


def tiled_product(weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Rows to ``rows @ weight.T`` by our own kernel; None where it does not multiply with this matrix."""
    from helix_kit.runtime.worker.tile_kernel import TileProduct

    return TileProduct(weight).multiply if TileProduct.suits(weight) else None


class ColdMatrices:
    """Matrices of one shape in all layouts, of at most `MAX_TIMED_SIZE` elements each, which take turns.

    Their numbers do not matter, so those by rows and those by columns lie in the same memory.
    """

    @torch.inference_mode()
    def __init__(self, outside: int, inside: int, has_bias: bool) -> None:
        self._inside = inside
        outside = min(outside, max(MIN_TIMED_OUTPUTS, MAX_TIMED_SIZE // inside))
        self._bias = torch.zeros(outside) if has_bias else None
        count = max(4, COLD_BYTES // (4 * outside * inside))
        matrices = torch.full((count, outside, inside), 0.01).unbind()
        by_rows, copied = matrices[: -(count // 4)], matrices[-(count // 4) :]
        self._plain = itertools.cycle([(own, own.view(inside, outside).t(), tiled_product(own)) for own in by_rows])
        packed = [pack(own) for own in copied]
        self._packed = itertools.cycle(packed)
        self._ways = {"rows": self._by_rows, "columns": self._by_columns}
        if tiled_product(matrices[0]) is not None:
            self._ways["tiled"] = self._by_tiles
        if packed[0] is not None:
            self._ways["packed"] = self._by_blocks

    def _by_rows(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, next(self._plain)[0], self._bias)

    def _by_columns(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, next(self._plain)[1], self._bias)

    def _by_tiles(self, x: torch.Tensor) -> torch.Tensor:
        product = next(self._plain)[2]
        assert product is not None
        return product(x) if self._bias is None else product(x).add_(self._bias)

    def _by_blocks(self, x: torch.Tensor) -> torch.Tensor:
        packed = next(self._packed)
        assert packed is not None
        return packed_product(x, packed, self._bias)

    @torch.inference_mode()
    def times(self) -> Times:
        """Least seconds of a product in each layout, for each of `ROW_COUNTS`."""
        clock = timed_choice.clock_of_products()
        by_rows = []
        for rows in ROW_COUNTS:
            x = torch.ones(rows, self._inside)
            by_rows.append(least_times({name: functools.partial(way, x) for name, way in self._ways.items()}, clock))
        return {name: tuple(least[name] for least in by_rows) for name in self._ways}
