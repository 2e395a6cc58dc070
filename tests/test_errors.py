"""Errors tell the place, the field, the value and what was expected, and carry the exit code of the program."""

import pytest

from helix_kit.errors import HelixKitError, InfeasibleError, InputError


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "expected a number"),
        ({"where": "mine.yaml"}, "mine.yaml: expected a number"),
        ({"field": "rate"}, "rate: expected a number"),
        ({"field": "rate", "value": 0}, "rate = 0: expected a number"),
        ({"where": "mine.yaml", "field": "rate", "value": "x"}, "mine.yaml: rate = 'x': expected a number"),
    ],
)
def test_an_input_error_leaves_out_what_is_unknown(parts, text):
    error = InputError("expected a number", **parts)
    assert str(error) == text
    assert (error.where, error.field, error.value) == tuple(parts.get(name) for name in ("where", "field", "value"))


def test_a_plan_that_cannot_be_names_its_fix():
    assert str(InfeasibleError("no room")) == "no room"
    error = InfeasibleError("no room", fix="add a node")
    assert str(error).splitlines() == ["no room", "Smallest fix: add a node"]
    assert (error.reason, error.fix) == ("no room", "add a node")


def test_exit_codes_tell_wrong_input_from_no_plan():
    codes = [error.exit_code for error in (HelixKitError("x"), InputError("x"), InfeasibleError("x"))]
    assert codes == [1, 2, 3]
    with pytest.raises(ValueError, match="x"):
        raise InputError("x")
