"""Errors that a user can act on: each says what is wrong, where, and what was expected.

The command line turns them into exit codes: 2 for input that is not a valid description, 3 for a valid
description for which no plan exists. Anything else that escapes is a defect of ours.
"""

from __future__ import annotations


class HelixKitError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(HelixKitError, ValueError):
    """A file, option or argument is wrong.

    The message reads ``where: field = value: expected ...``; parts that are unknown are left out.
    """

    exit_code = 2

    def __init__(
        self,
        expected: str,
        *,
        where: object = None,
        field: str | None = None,
        value: object = None,
    ) -> None:
        self.expected, self.where, self.field, self.value = expected, where, field, value
        place = [str(where)] if where is not None else []
        if field is not None:
            place.append(field if value is None else f"{field} = {value!r}")
        super().__init__(": ".join([*place, expected]))


class InfeasibleError(HelixKitError):
    """The description is valid, but no plan satisfies it; `fix` is the smallest change known to help."""

    exit_code = 3

    def __init__(self, reason: str, *, fix: str | None = None) -> None:
        self.reason, self.fix = reason, fix
        super().__init__(reason if fix is None else f"{reason}\nSmallest fix: {fix}")
