"""Counts agree with their nouns and verbs, and lists of names read as a sentence."""

import pytest

from helix_kit._wording import agreeing, count_text, join_names


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 nodes"), (1, "1 node"), (2, "2 nodes"), (1234567, "1,234,567 nodes")]
)
def test_only_one_is_singular(count, text):
    assert count_text(count, "node") == text
    assert agreeing(count, "holds", "hold") == ("holds" if text == "1 node" else "hold")


def test_a_plural_of_its_own():
    assert [count_text(n, "copy", "copies") for n in (1, 2)] == ["1 copy", "2 copies"]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (list("abcd"), "a, b and 2 more"),
    ],
)
def test_names_are_joined_and_the_last_ones_counted(names, text):
    assert join_names(names, at_most=3) == text
