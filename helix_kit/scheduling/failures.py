"""What a user's policy raises, told as one message: which policy, which method, for which request, and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from helix_kit._plugins import told
from helix_kit.errors import HelixKitError
from helix_kit.scheduling.policies import POLICIES, policy_name
from helix_kit.scheduling.policy import Policy
from helix_kit.workload.request import Request


class PolicyError(HelixKitError):
    """A policy of the user's own has raised an exception, which is kept as the cause.

    Examples
    --------
    >>> print(PolicyError("mine", "route", "for request 3", "KeyError: 'x' (mine.py, line 7)"))
    policy 'mine': route raised KeyError: 'x' (mine.py, line 7) for request 3
    """

    def __init__(self, policy: str, method: str, request: str, cause: str) -> None:
        super().__init__(f"policy {policy!r}: {method} raised {cause} {request}".rstrip())


@contextmanager
def named_failures(policy: Policy, method: str, request: Request) -> Iterator[None]:
    """Turn an exception of the policy's `method` into a `PolicyError`; one of the package's own keeps its traceback.

    Parameters
    ----------
    policy
        Whose method is called in the context.
    method
        Its name.
    request
        What it is called about.

    Returns
    -------
    contextlib.AbstractContextManager
        Gives nothing.

    Raises
    ------
    PolicyError
        The method has raised an exception.

    Examples
    --------
    >>> class Mine(Policy):
    ...     def route(self, request, view):
    ...         return {}["nothing"]
    >>> request = Request(3, 0.0, 700, 20)
    >>> with named_failures(Mine(), "route", request):
    ...     Mine().route(request, None)
    Traceback (most recent call last):
    ...
    helix_kit.scheduling.failures.PolicyError: policy 'Mine': route raised KeyError: 'nothing' (..., line ...) for
    request 3 (700 tokens in, 20 out)
    """
    try:
        yield
    except HelixKitError:
        raise
    except Exception as error:
        if type(policy) in POLICIES.values():
            raise
        which = f"for request {request.id} ({request.input_tokens:,} tokens in, {request.output_tokens:,} out)"
        raise PolicyError(policy_name(policy), method, which, told(error)) from error


__all__ = ["PolicyError", "named_failures"]
