"""Run a placement method of a user's own: its result is checked, and its exceptions become one message.

The package's own methods are tested; the planner trusts their placements and their bounds.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from helix_kit import _files, _plugins
from helix_kit.errors import HelixKitError, InputError
from helix_kit.placement.method import Method, Placed, Task
from helix_kit.placement.problem import Problem


class MethodFailedError(HelixKitError):
    """A placement method of a user's own raised an error, which is the cause of this one."""


def run_own_method(name: str, method: Method, task: Task) -> Placed:
    """The result of a user's method, checked.

    Parameters
    ----------
    name
        For messages.
    method, task
        What to run, and on what.

    Returns
    -------
    Placed
        With layer ranges as tuples of whole numbers.

    Raises
    ------
    InputError
        The result is no `Placed` and no placement, or names an unknown node or a range outside of the model.
    MethodFailedError
        The method raised an error that is not the package's own.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.problem import Problem
    >>> from helix_kit.placement.watch import Watch
    >>> problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    >>> task = Task(problem, Watch(1.0), [])
    >>> run_own_method("mine", Method(lambda task: {"CPU-fast-0": [0, 18]}), task).placement
    {'CPU-fast-0': (0, 18)}
    """
    try:
        result: Any = method.place(task)
    except HelixKitError:
        raise
    except Exception as error:
        raise MethodFailedError(f"method {name!r} failed: {_plugins.told(error)}") from error
    where = f"method {name!r}"
    if not isinstance(result, Placed | Mapping):
        kind = "None" if result is None else f"an object of {type(result).__name__}"
        raise InputError(f"returned {kind}: expected a Placed, or node name -> (start, end)", where=where)
    placed = result if isinstance(result, Placed) else Placed(dict(result))
    if not isinstance(placed.placement, Mapping):
        raise InputError(
            "expected node name -> (start, end)", where=where, field="placement", value=type(placed.placement).__name__
        )
    placed.placement = {_node(n, task.problem, where): _span(n, span, where) for n, span in placed.placement.items()}
    task.problem.check_placement(placed.placement, where=where)
    for label, bound in placed.bounds.items():
        if not isinstance(bound, int | float) or not bound > 0:
            raise InputError("expected tokens/s above 0", where=where, field=f"bounds[{label!r}]", value=bound)
    return placed


def check_bounds(name: str, placed: Placed, flow_tokens_per_s: float) -> None:
    """Raise InputError for a bound of a user's method that its own placement passes: it proves nothing.

    Parameters
    ----------
    name
        The method, for the message.
    placed
        Its result.
    flow_tokens_per_s
        The flow of its placement.

    Examples
    --------
    >>> check_bounds("mine", Placed({}, bounds={"mine": 100.0}), 99.0)
    """
    for label, bound in placed.bounds.items():
        if bound < flow_tokens_per_s * (1 - 1e-6):
            raise InputError(
                f"expected a bound on every placement's flow: this one carries {flow_tokens_per_s:,.3f} tokens/s",
                where=f"method {name!r}", field=f"bounds[{label!r}]", value=bound,
            )  # fmt: skip


def _node(name: Any, problem: Problem, where: str) -> str:
    if not isinstance(name, str):
        raise InputError("expected the name of a node", where=where, field="placement", value=name)
    if name not in problem.kind_of:
        raise InputError(_files.unknown("node", name, problem.kind_of), where=where, field="placement")
    return name


def _span(node: str, span: Any, where: str) -> tuple[int, int]:
    """(start, end) as whole numbers, which may come as numpy's."""
    try:
        start, end = (operator.index(x) for x in span)
    except (TypeError, ValueError):
        raise InputError("expected (start, end) in whole layers", where=where, field=node, value=span) from None
    return start, end


__all__ = ["MethodFailedError", "check_bounds", "run_own_method"]
