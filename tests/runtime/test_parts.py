"""Ledger, text and model families, each by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.flow import Stage  # noqa: E402
from helix_kit.runtime.coordinator.admission import PageLedger, can_ever_fit  # noqa: E402
from helix_kit.runtime.text import TextStream  # noqa: E402
from helix_kit.runtime.weights.checkpoint import check_family  # noqa: E402


def test_ledger_promises_all_or_nothing() -> None:
    ledger = PageLedger()
    ledger.add_worker("a", 10)
    ledger.add_worker("b", 4)
    pipeline = (Stage("a", 0, 3), Stage("b", 3, 5))
    assert ledger.promise(1, 0, 17, pipeline)  # two pages: 6 on a, 4 on b
    assert (ledger.free("a"), ledger.free("b")) == (4, 0)
    assert not ledger.promise(2, 0, 1, pipeline)
    assert ledger.free("a") == 4
    ledger.release("b", 1, 0)
    ledger.release("b", 1, 0)
    assert (ledger.free("b"), ledger.pages_promised) == (4, 6)
    ledger.drop_worker("a")
    assert ledger.free("a") == 0 and ledger.pages_promised == 0


def test_what_can_never_fit() -> None:
    placement = {"a": (0, 4), "b": (2, 6), "c": (4, 6)}
    links = [("coordinator", "a"), ("a", "b"), ("a", "c"), ("b", "coordinator"), ("c", "coordinator")]

    def fits(tokens: int, pages: dict[str, int]) -> bool:
        ledger = PageLedger()
        for node, count in pages.items():
            ledger.add_worker(node, count)
        return can_ever_fit(tokens, links, placement, ledger.can_hold)

    assert fits(16, {"a": 4, "b": 2, "c": 1})
    assert fits(17, {"a": 8, "b": 0, "c": 4})
    assert not fits(17, {"a": 7, "b": 9, "c": 9})
    assert not fits(17, {"a": 8, "b": 3, "c": 3})


class Letters:
    """A codec whose token n is the n-th byte: characters of several bytes come in several tokens."""

    def decode(self, ids) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_streamed_text_is_the_whole_text_up_to_the_stop(text: str, stops: list[str]) -> None:
    stream = TextStream(Letters(), stops)  # type: ignore[arg-type]
    parts, stopped = [], False
    for byte in text.encode():
        part, stopped = stream.feed(byte)
        parts.append(part)
        if stopped:
            break
    parts.append(stream.flush())
    found = [text.index(s) for s in stops if s in text]
    assert stopped == bool(found)
    given_out = "".join(parts)
    assert given_out == stream.text
    if not found:
        assert given_out == text
    else:
        # The stop that is complete first ends the answer; text before it is given out whole.
        ends = min(text.index(s) + len(s) for s in stops if s in text)
        assert text.startswith(given_out)
        assert any(text[: len(given_out) + len(s)].endswith(s) and len(given_out) + len(s) <= ends + 3 for s in stops)


@pytest.mark.parametrize("family", ["granite", "gemma2", "qwen3_moe", "gpt2", None, 7])
def test_other_families_are_refused_by_name(family: object) -> None:
    with pytest.raises(InputError, match="expected one of llama") as caught:
        check_family({"model_type": family}, "config.json")
    assert family is None or str(family) in str(caught.value)


def test_rope_that_looks_at_the_whole_batch_is_refused() -> None:
    check_family({"model_type": "llama", "rope_scaling": {"rope_type": "llama3"}}, "config.json")
    with pytest.raises(InputError, match="rope_type = 'longrope'"):
        check_family({"model_type": "phi3", "rope_scaling": {"type": "longrope"}}, "config.json")
