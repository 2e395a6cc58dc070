"""What a worker is told survives the way to its process, and words that it would not know are refused."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from helix_kit.errors import InputError
from helix_kit.runtime.spec import LinkQuality, WorkerSpec, check_attention, check_dtype

SPEC = {
    "name": "a", "weights": "/w", "start": 0, "end": 4, "num_pages": 10, "coordinator": "tcp://127.0.0.1:5000",
    "key_hex": "00",
}  # fmt: skip


@pytest.mark.parametrize("mode", ["json", "text"])
def test_a_spec_is_the_same_on_the_other_side(overlapping_plan, mode):
    """As JSON data in a larger message (fork server, Ray), or as a line of text (a process of its own)."""
    profile = next(iter(overlapping_plan.profiles.values()))
    links = {"coordinator": LinkQuality(1e9, 0.01), "b": LinkQuality(math.inf, 0.0)}
    spec = WorkerSpec(**SPEC, profile=profile, links=links, card_bytes_per_s=math.inf)
    if mode == "text":
        line = spec.model_dump_json()
        assert "\n" not in line
        again = WorkerSpec.model_validate_json(line)
    else:
        again = WorkerSpec.model_validate(spec.model_dump(mode="json"))
    assert again == spec
    assert again.links["b"].bytes_per_s == math.inf


def test_a_field_that_no_worker_knows_is_refused():
    with pytest.raises(ValidationError, match="pages"):
        WorkerSpec(**SPEC, pages=4)


@pytest.mark.parametrize(
    ("check", "known", "unknown", "field"),
    [(check_dtype, "float16", "int8", "dtype"), (check_attention, "auto", "flash", "attention")],
)
def test_words_that_are_unknown_are_named_with_their_field(check, known, unknown, field):
    assert check(known) == known
    with pytest.raises(InputError, match=f"{field} = '{unknown}': expected one of .*{known}"):
        check(unknown)
