"""Mean lengths of requests: what is counted, and what is refused."""

import pytest

from helix_kit.typical_request import PUBLISHED_LENGTHS, TRACE_LENGTHS, MeanLengths


def test_every_token_but_the_last_passes_through_the_model():
    """Ten tokens in and three out: ten at once, then the first and the second of the answer."""
    lengths = MeanLengths(10, 3)
    assert lengths.tokens == 13
    assert lengths.passes_per_token == pytest.approx(12 / 13)


@pytest.mark.parametrize("field", ["input_tokens", "output_tokens"])
@pytest.mark.parametrize("value", [0, 0.9, -3, 1.1e9, float("inf"), float("nan")])
def test_lengths_that_no_request_has_are_refused(field, value):
    given = {"input_tokens": 5, "output_tokens": 5, field: value}
    with pytest.raises(ValueError, match=field):
        MeanLengths(**given)


def test_a_reader_is_told_where_they_come_from():
    assert str(MeanLengths(1234.5, 20)) == "1,234 tokens in and 20 out (given)"
    assert PUBLISHED_LENGTHS.tokens == 990 and "published" in str(PUBLISHED_LENGTHS)
    assert TRACE_LENGTHS.tokens == 995 and "azure" in str(TRACE_LENGTHS)
