"""Old names of keyword arguments: accepted for a release, with a DeprecationWarning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed_keywords(**new_names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of a function whose keyword arguments have new names.

    On a class method, write it below ``@classmethod``.

    Parameters
    ----------
    new_names
        Old name = new name.

    Returns
    -------
    A decorator. The decorated function accepts the old names too and warns once for each place that uses one.

    Raises
    ------
    TypeError
        From the decorated function, if a call gives both the old and the new name.

    Examples
    --------
    >>> @renamed_keywords(duration="duration_s")
    ... def run(duration_s=60.0):
    ...     return duration_s
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     run(duration=5.0)
    5.0
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def accept_old_names(*args: Any, **kwargs: Any) -> Any:
            for old in new_names.keys() & kwargs.keys():
                new = new_names[old]
                if new in kwargs:
                    raise TypeError(f"{function.__name__}() got both `{new}` and its old name `{old}`: give `{new}`")
                warnings.warn(
                    f"{function.__name__}(): the keyword `{old}` is now called `{new}`; "
                    f"`{old}` will not be accepted after the next release",
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return accept_old_names

    return decorate
