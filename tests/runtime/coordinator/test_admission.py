"""KV pages promised to requests, and requests that can never fit."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from helix_kit.flow import Stage  # noqa: E402
from helix_kit.runtime.coordinator.admission import PageLedger, can_ever_fit  # noqa: E402


def test_ledger_promises_all_or_nothing() -> None:
    ledger = PageLedger()
    ledger.add_worker("a", 10)
    ledger.add_worker("b", 4)
    pipeline = (Stage("a", 0, 3), Stage("b", 3, 5))
    assert ledger.promise(1, 0, 17, pipeline)  # two pages: 6 on a, 4 on b
    assert (ledger.free("a"), ledger.free("b")) == (4, 0)
    assert not ledger.promise(2, 0, 1, pipeline)
    assert ledger.free("a") == 4
    ledger.drop_worker("a")
    assert (ledger.free("a"), ledger.free("b"), ledger.pages_promised) == (0, 0, 4)
    assert ledger.leave(1, 0) == {"b": []}  # nobody has computed a block that is kept
    assert ledger.leave(1, 0) == {} and (ledger.free("b"), ledger.pages_promised) == (4, 0)


def test_what_can_never_fit() -> None:
    placement = {"a": (0, 4), "b": (2, 6), "c": (4, 6)}
    links = [("coordinator", "a"), ("a", "b"), ("a", "c"), ("b", "coordinator"), ("c", "coordinator")]

    def fits(tokens: int, pages: dict[str, int]) -> bool:
        ledger = PageLedger()
        for node, count in pages.items():
            ledger.add_worker(node, count)
        return can_ever_fit(tokens, links, placement, lambda node, n, layers: ledger.can_hold(node, n, 0, layers))

    assert fits(16, {"a": 4, "b": 2, "c": 1})
    assert fits(17, {"a": 8, "b": 0, "c": 4})
    assert not fits(17, {"a": 7, "b": 9, "c": 9})
    assert not fits(17, {"a": 8, "b": 3, "c": 3})


def test_ledger_extends_a_promise_or_leaves_it() -> None:
    ledger = PageLedger()
    ledger.add_worker("a", 10)
    ledger.add_worker("b", 6)
    pipeline = (Stage("a", 0, 2), Stage("b", 2, 4))
    assert ledger.promise(1, 0, 16, pipeline) and ledger.pages_promised == 4
    assert ledger.extend(1, 0, 33, pipeline) and ledger.pages_promised == 12
    assert not ledger.extend(1, 0, 49, pipeline) and ledger.pages_promised == 12
    assert not ledger.extend(1, 1, 16, pipeline)
    ledger.leave(1, 0)
    assert not ledger.extend(1, 0, 16, pipeline) and ledger.pages_promised == 0
