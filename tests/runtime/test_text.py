"""Text from tokens, one token at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from helix_kit.runtime.text import TextStream  # noqa: E402


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
