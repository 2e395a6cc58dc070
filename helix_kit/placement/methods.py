"""The table of placement methods, by the name that a user types, and methods of users beside it.

A method is a function from `Task` to `Placed` (see `helix_kit.placement.method`). The package's own are listed in
`METHODS`. `register_method` adds one to a running program; an installed package adds one by an entry point of the group
``helix_kit.methods``; and ``module:function`` or ``file.py:function`` names one without either.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, overload

from helix_kit import _plugins
from helix_kit.errors import InputError
from helix_kit.placement import replicas
from helix_kit.placement.baselines import parallax, petals, proportional, separate, swarm
from helix_kit.placement.method import Method, Placed, Task

Place = Callable[[Task], Placed | Mapping[str, tuple[int, int]]]
"""A method of a user's own; it may also return only the placement."""
GROUP = "helix_kit.methods"
"""Group of entry points: the entry's name is the method's, its object a function or a `Method`."""


def _pattern(task: Task) -> Placed:
    # Pyomo takes half a second to load: only a method that solves a program loads it.
    from helix_kit.placement.pattern.method import place

    return place(task)


def _load_pattern() -> None:
    from helix_kit.placement.pattern.method import place  # noqa: F401


def _paper(task: Task) -> Placed:
    from helix_kit.placement.paper.method import place

    return place(task)


def _load_paper() -> None:
    from helix_kit.placement.paper.method import place  # noqa: F401


METHODS: dict[str, Method] = {
    "pattern": Method(_pattern, ("max_stages", "pins"), _load_pattern),
    "paper-milp": Method(_paper, ("degree", "initial", "mip_gap", "tighten", "write_lp"), _load_paper),
    "swarm": Method(swarm.place),
    "petals": Method(petals.place),
    "separate": Method(separate.place),
    "separate-plus": Method(separate.place_plus),
    "proportional": Method(proportional.place),
    "parallax": Method(parallax.place),
    "replicas": Method(replicas.place, ("max_stages",)),
}
BUILT_IN = frozenset(METHODS)
"""Names of the package's own methods, which cannot be taken."""
SPECIAL_OPTIONS = tuple(dict.fromkeys(name for method in METHODS.values() for name in method.options))
"""Options that only some methods take."""


@overload
def register_method(name: str, place: Place, *, options: Sequence[str] = ()) -> Place: ...
@overload
def register_method(name: str, place: None = None, *, options: Sequence[str] = ()) -> Callable[[Place], Place]: ...
def register_method(
    name: str, place: Place | None = None, *, options: Sequence[str] = ()
) -> Place | Callable[[Place], Place]:
    """Add a placement method: `helix_kit.plan` and all that calls it then know its name.

    Parameters
    ----------
    name
        What users type. A name that was registered before is replaced, so that a notebook's cell can run again.
    place
        The method: a function that takes a `Task` and returns a `Placed`, or only the placement, node name ->
        [start, end). None: the result is a decorator.
    options
        Options that the method takes among those that only some methods take, such as ``max_stages`` and ``pins``.

    Returns
    -------
    callable
        `place` itself, or a decorator.

    Raises
    ------
    InputError
        The name belongs to the package or is no name, `place` cannot be called with a task, or an option is unknown.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> @register_method("first-fit")
    ... def first_fit(task):
    ...     start, placement = 0, {}
    ...     for node in task.problem.cluster.nodes:
    ...         if start < task.problem.num_layers:
    ...             end = min(start + task.problem.max_layers(node.name), task.problem.num_layers)
    ...             placement[node.name], start = (start, end), end
    ...     return placement
    >>> six = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> plan(six, Model.preset("llama-30b"), method="first-fit").placement["L4-5"]
    (55, 60)
    """
    if place is None:
        return lambda function: register_method(name, function, options=options)
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError("expected a name of letters, digits, '-', '_' and '.'", field="register_method", value=name)
    if name in BUILT_IN:
        raise InputError("expected another name: this method is the package's own", field="register_method", value=name)
    if isinstance(options, str) or not set(options) <= set(SPECIAL_OPTIONS):
        raise InputError(
            f"expected a list of names among {', '.join(SPECIAL_OPTIONS)}; all methods take the other options",
            field="options", value=options,
        )  # fmt: skip
    METHODS[name] = Method(_checked(place, name), tuple(options))
    return place


def method_names() -> list[str]:
    """Names that ``method`` accepts: the package's own, registered ones, and those of installed packages.

    Returns
    -------
    list of str
        In this order.

    Examples
    --------
    >>> method_names()[:3]
    ['pattern', 'paper-milp', 'swarm']
    """
    return list(dict.fromkeys([*METHODS, *_installed()]))


def method_named(name: str) -> Method:
    """The method of a name; one of an installed package or of a file is loaded now.

    Parameters
    ----------
    name
        A name of `method_names`, ``module:function`` or ``file.py:function``.

    Returns
    -------
    Method
        The function and the options that it alone takes.

    Raises
    ------
    InputError
        There is no such method, it cannot be loaded, or it is no function of a task.

    Examples
    --------
    >>> method_named("pattern").options
    ('max_stages', 'pins')
    """
    if isinstance(name, str) and name in METHODS:
        return METHODS[name]
    if isinstance(name, str) and _plugins.is_own_code(name):
        return _method(_plugins.load(name, field="method", kind="function"), name)
    if isinstance(name, str) and name in _installed():
        entry = _installed()[name]
        try:
            loaded = entry.load()
        except Exception as error:
            package = f" of package {entry.dist.name}" if entry.dist else ""
            raise InputError(
                f"the entry point {entry.value!r}{package} cannot be loaded: {_plugins.told(error)}",
                field="method", value=name,
            ) from error  # fmt: skip
        return _method(loaded, name)
    if callable(name):
        raise InputError(
            "expected a name: hk.register_method(name, function) gives a function one", field="method", value=name
        )
    own_form = _plugins.FORMS.format("function")
    raise InputError(
        f"expected one of {', '.join(method_names())}; or a function of your own: {own_form}",
        field="method", value=name,
    )  # fmt: skip


def is_built_in(name: str) -> bool:
    """Whether a method is the package's own, whose results need no check.

    Parameters
    ----------
    name
        Its name.

    Returns
    -------
    bool
        False for registered methods, those of installed packages and those of files.

    Examples
    --------
    >>> is_built_in("swarm"), is_built_in("./mine.py:place")
    (True, False)
    """
    return name in BUILT_IN


def _method(loaded: Any, name: str) -> Method:
    if isinstance(loaded, Method):
        return Method(_checked(loaded.place, name), loaded.options)
    return Method(_checked(loaded, name))


def _checked(place: Any, name: str) -> Any:
    """`place`, if it can be called with a task."""
    expected = "expected a function that takes a Task and returns a Placed"
    if not callable(place) or inspect.isclass(place):
        kind = "a class" if inspect.isclass(place) else f"an object of {type(place).__name__}"
        raise InputError(f"{expected}, not {kind}", field="method", value=name)
    try:
        signature = inspect.signature(place)
        signature.bind("task")
    except ValueError:  # compiled code may not tell its parameters
        return place
    except TypeError:
        called = getattr(place, "__name__", type(place).__name__)
        raise InputError(f"{expected}, but {called} takes {signature}", field="method", value=name) from None
    if inspect.iscoroutinefunction(place) or inspect.isgeneratorfunction(place):
        raise InputError(f"{expected}, not a coroutine or generator", field="method", value=name)
    return place


def _installed() -> dict[str, EntryPoint]:
    """Entry points of installed packages by name, without those whose name is taken."""
    return _entries(tuple(sys.path))


@functools.lru_cache(maxsize=4)
def _entries(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in BUILT_IN or entry.name in found:
            holder = found[entry.name].value if entry.name in found else "helix_kit"
            warnings.warn(
                f"placement method {entry.name!r} of {entry.value} is left out: {holder} has the name", stacklevel=2
            )
        else:
            found[entry.name] = entry
    return found


__all__ = ["METHODS", "is_built_in", "method_named", "method_names", "register_method"]
