"""Prompts of the right length, and the same words for equal blocks."""

from __future__ import annotations

from helix_kit.bench.prompts import Prompter, calibrated
from helix_kit.workload.request import Request


def test_lengths_by_what_the_server_counts():
    """A server that counts 1.3 tokens a word and 8 around: 16 words are 28.8 tokens, 144 are 195.2."""
    prompter = calibrated(0, [29, 195])
    for wanted in (50, 200, 1000):
        words = len(prompter.text(Request(0, 0.0, wanted, 1)).split())
        assert abs(1.3 * words + 8 - wanted) < 4
    assert calibrated(0, [20, 20]) == calibrated(0, None) == Prompter(0)


def test_equal_blocks_are_equal_words():
    """Mooncake's blocks have 512 tokens: two requests that share two of them share 1024."""
    prompter = Prompter(0)
    first = prompter.token_ids(Request(0, 0.0, 1400, 1, prefix=((5, 512), (6, 512), (7, 376))), 100)
    second = prompter.token_ids(Request(1, 0.0, 1100, 1, prefix=((5, 512), (6, 512), (9, 76))), 100)
    shared = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    assert (len(first), len(second)) == (1400, 1100) and shared in range(1024, 1030)


def test_seeds_and_texts():
    request = Request(3, 0.0, 40, 1)
    assert Prompter(0).text(request) == Prompter(0).text(request) != Prompter(1).text(request)
    assert Prompter(0).text(Request(0, 0.0, 40, 1, prompt="as it is")) == "as it is"
