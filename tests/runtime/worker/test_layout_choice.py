"""Layouts follow the times, stay the same from start to start, and can be fixed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime.worker import layout_choice  # noqa: E402
from helix_kit.runtime.worker.layout_choice import MAX_FEW_ROWS, STORED, Layouts, fastest, layouts_of  # noqa: E402

SHAPE = (512, 512, torch.float32, False)
BY_SHAPE = Layouts(True, None)
PACKED_WINS = {"rows": (2.0, 8.0, 32.0), "columns": (1.0, 8.0, 32.0), "packed": (3.0, 4.0, 16.0)}
ROWS_WIN = {"rows": (1.0, 4.0, 16.0), "columns": (2.0, 8.0, 32.0), "packed": (2.0, 8.0, 32.0)}

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a build without oneDNN")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on disk, and nothing kept in memory."""
    monkeypatch.setenv("HELIX_KIT_CACHE", str(tmp_path))
    monkeypatch.delenv(layout_choice.VARIABLE, raising=False)
    layout_choice._measured.cache_clear()
    return tmp_path / "cpu-layouts"


def measure(monkeypatch: pytest.MonkeyPatch, times: dict[str, tuple[float, ...]]) -> list[tuple[int, int, bool]]:
    """Let `times` be what is measured; the shapes that are measured are listed, once for each series of times."""
    measured: list[tuple[int, int, bool]] = []
    let_times_be(monkeypatch, lambda *shape: measured.append(shape) or times)
    return measured


def let_times_be(monkeypatch: pytest.MonkeyPatch, take: Callable[..., dict[str, tuple[float, ...]]]) -> None:
    """Let `take` give the times of a shape."""

    class Matrices:
        def __init__(self, *shape: object) -> None:
            self._shape = shape

        def times(self) -> dict[str, tuple[float, ...]]:
            return take(*self._shape)

    monkeypatch.setattr(layout_choice, "ColdMatrices", Matrices)
    layout_choice._measured.cache_clear()


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (PACKED_WINS, Layouts(True, 2)),  # one row by columns, all others in blocks
        (ROWS_WIN, STORED),
        ({**ROWS_WIN, "packed": (0.5, 2.0, 8.0)}, Layouts(False, 1)),
        ({**ROWS_WIN, "packed": (4.0, 8.0, 4.0)}, Layouts(False, 9)),
        ({**ROWS_WIN, "tiled": (0.5, 3.0, 12.0)}, Layouts(False, None, MAX_FEW_ROWS)),
        ({**ROWS_WIN, "tiled": (0.5, 3.0, 20.0)}, Layouts(False, None, 8)),
        ({**PACKED_WINS, "tiled": (0.5, 6.0, 20.0)}, Layouts(False, 2, 1)),
        ({**PACKED_WINS, "tiled": (1.0, 4.0, 16.0)}, Layouts(False, None, MAX_FEW_ROWS)),  # a copy gains nothing
        ({"rows": (1.0, 4.0, 16.0), "columns": (1.02, 4.0, 16.0), "packed": (1.0, 3.9, 16.0)}, BY_SHAPE),  # noise
        ({"rows": (1.0, 4.0, 16.0), "columns": (2.0, 8.0, 32.0)}, STORED),  # a torch that packs nothing
    ],
)
def test_the_fastest_layout_of_each_number_of_rows_is_used(times, expected: Layouts) -> None:
    assert fastest(times, BY_SHAPE) == expected


def test_a_packed_copy_that_gains_nothing_is_dropped() -> None:
    assert fastest(ROWS_WIN, Layouts(True, 2)) == STORED


@needs_onednn
def test_a_shape_is_measured_once_and_the_next_start_reads_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = measure(monkeypatch, PACKED_WINS)
    assert [layouts_of(*SHAPE) for _ in range(2)] == [Layouts(True, 2)] * 2
    layout_choice._measured.cache_clear()  # a new process
    assert layouts_of(*SHAPE) == Layouts(True, 2)
    assert measured == [(512, 512, False)] * 2  # two series of times, which agree
    assert layouts_of(512, 1024, torch.float32, True) == Layouts(True, 2)
    assert measured[2:] == [(512, 1024, True)] * 2


@needs_onednn
def test_times_that_contradict_each_other_are_not_kept(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """The rule decides until a later start is sure."""
    turns = itertools.cycle((PACKED_WINS, ROWS_WIN))
    let_times_be(monkeypatch, lambda *_shape: next(turns))
    assert [layouts_of(*SHAPE) for _ in range(2)] == [BY_SHAPE] * 2
    assert not list(cache.iterdir())
    measure(monkeypatch, ROWS_WIN)
    assert layouts_of(*SHAPE) == STORED


@needs_onednn
@pytest.mark.parametrize("what", ["processor", "threads"])
def test_another_processor_or_number_of_threads_is_measured_anew(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    measure(monkeypatch, PACKED_WINS)
    assert layouts_of(*SHAPE) == Layouts(True, 2)
    measure(monkeypatch, ROWS_WIN)
    if what == "processor":
        monkeypatch.setattr(layout_choice, "processor", lambda: "another")
    else:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1 << 10)
    assert layouts_of(*SHAPE) == STORED


@needs_onednn
def test_workers_that_start_together_take_the_choice_of_the_first(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Both find nothing stored; each then measures something else."""
    turn, barrier, own = iter((PACKED_WINS, ROWS_WIN)), threading.Barrier(2), threading.local()

    def time_layouts(*_shape):
        barrier.wait(10)
        if not hasattr(own, "times"):
            own.times = next(turn)
        return own.times

    let_times_be(monkeypatch, time_layouts)
    found: list[Layouts] = []
    threads = [threading.Thread(target=lambda: found.append(layouts_of(*SHAPE))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 2
    assert found[0] == found[1]
    assert len(list(cache.iterdir())) == 1  # nor does a temporary file stay


@needs_onednn
@pytest.mark.parametrize("content", ["", "[]", "{", '{"by_columns": 1, "packed_from": null, "tiled_to": 0}', "\0\xff"])
def test_a_damaged_file_is_replaced(monkeypatch: pytest.MonkeyPatch, cache: Path, content: str) -> None:
    measure(monkeypatch, PACKED_WINS)
    layouts_of(*SHAPE)
    [file] = cache.iterdir()
    file.write_text(content, encoding="latin-1")
    measured = measure(monkeypatch, ROWS_WIN)
    assert layouts_of(*SHAPE) == STORED
    layout_choice._measured.cache_clear()
    assert layouts_of(*SHAPE) == STORED
    assert len(measured) == 2


@needs_onednn
def test_the_rule_decides_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HELIX_KIT_CACHE", str(tmp_path / "file"))  # no folder can be made in a file
    measured = measure(monkeypatch, ROWS_WIN)
    assert layouts_of(*SHAPE) == BY_SHAPE
    assert not measured


@needs_onednn
def test_a_file_system_without_links_keeps_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_paths):
        raise OSError("not supported")

    monkeypatch.setattr(layout_choice.os, "link", link)
    measure(monkeypatch, PACKED_WINS)
    assert layouts_of(*SHAPE) == Layouts(True, 2)
    measure(monkeypatch, ROWS_WIN)
    assert layouts_of(*SHAPE) == Layouts(True, 2)


@pytest.mark.parametrize(("mode", "expected"), [("stored", STORED), ("shape", BY_SHAPE)])
def test_users_fix_the_choice(monkeypatch: pytest.MonkeyPatch, mode: str, expected: Layouts, cache: Path) -> None:
    monkeypatch.setenv(layout_choice.VARIABLE, mode)
    measured = measure(monkeypatch, PACKED_WINS)
    assert layouts_of(*SHAPE) == expected
    assert not measured
    assert not cache.exists()


def test_an_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(layout_choice.VARIABLE, "fast")
    with pytest.raises(InputError, match=r"HELIX_KIT_CPU_LAYOUTS.*measured, shape, stored.*'fast'"):
        layouts_of(*SHAPE)


@pytest.mark.parametrize("shape", [(64, 64, torch.float32, False), (512, 512, torch.bfloat16, False)])
def test_small_matrices_and_half_precision_are_not_measured(monkeypatch: pytest.MonkeyPatch, shape) -> None:
    measured = measure(monkeypatch, PACKED_WINS)
    assert layouts_of(*shape) == (BY_SHAPE if shape[2] == torch.float32 else STORED)
    assert not measured


@needs_onednn
@pytest.mark.parametrize("shape", [(49152, 576, False), (512, 512, True), (8, 16384, False), (300, 500, True)])
def test_times_are_those_of_products_of_bounded_size(shape: tuple[int, int, bool]) -> None:
    times = layout_choice.ColdMatrices(*shape).times()
    assert set(times) == {"rows", "columns", "packed", *({"tiled"} if shape[1] % 16 == 0 else ())}
    for values in times.values():
        assert len(values) == 3
        assert all(0 < seconds < 1 for seconds in values)


def test_a_matrix_has_its_turn_again_when_all_others_had_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_choice, "COLD_BYTES", 8 * 4 * 64 * 64)
    matrices, used = layout_choice.ColdMatrices(64, 64, False), []
    product = torch.nn.functional.linear

    def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        used.append(weight.data_ptr())
        return product(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    for _ in range(3):
        matrices._by_rows(torch.ones(1, 64))
        matrices._by_columns(torch.ones(1, 64))
    assert len(set(used)) == 6  # two of the eight have a packed copy
