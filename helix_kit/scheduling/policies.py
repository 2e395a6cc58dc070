"""The table of policies, and how a policy is made from what a user names: a name, a class, an object, or a file.

>>> sorted(POLICIES)
['fixed', 'helix', 'prefix', 'random', 'shortest_queue', 'swarm']
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from helix_kit import _files, _plugins
from helix_kit.errors import HelixKitError, InputError
from helix_kit.flow import Edge, Pipeline, Stage
from helix_kit.placement.plan import Plan
from helix_kit.scheduling.fixed import FixedRoutes
from helix_kit.scheduling.helix import Helix
from helix_kit.scheduling.hop_by_hop import HopByHop
from helix_kit.scheduling.policy import Policy, Topology
from helix_kit.scheduling.prefix import Prefix
from helix_kit.scheduling.random import Random
from helix_kit.scheduling.shortest_queue import ShortestQueue
from helix_kit.scheduling.swarm import Swarm

PolicyChoice = str | Policy | type[Policy]
"""What the verbs take as `policy`: a name, ``module:Class``, ``file.py:Class``, a class, or an object."""

POLICIES: dict[str, type[Policy]] = {p.name: p for p in (Helix, Swarm, Random, ShortestQueue, FixedRoutes, Prefix)}
POLICY_NAMES = tuple(POLICIES)
HOOKS = {
    "route": ("request", "view"),
    "on_admitted": ("request", "pipeline"),
    "on_refused": ("request", "pipeline"),
    "on_finished": ("request",),
    "on_token": ("request",),
    "on_hop_time": ("source", "target", "seconds"),
    "token_loads": (),
    "hop_averages": (),
}
"""The methods of a policy, with their parameters: simulator and runtime call all of them."""
FORMS = _plugins.FORMS.format("Class")


def make_policy(
    name: PolicyChoice,
    plan: Plan,
    *,
    seed: int = 0,
    kv_capacity: Mapping[str, int] | None = None,
    links: Iterable[Edge] | None = None,
    **options: Any,
) -> Policy:
    """The policy of a name, for a plan.

    Parameters
    ----------
    name
        helix, swarm, random, shortest_queue, fixed or prefix; or a policy of your own: ``module:Class``,
        ``file.py:Class``, a subclass of `Policy`, or an object, which is returned as it is. A class is called with
        those of the arguments `plan`, `topology`, `pipelines` (those of the plan) and `seed` that its constructor
        names.
    plan
        The plan whose nodes and links the policy uses.
    seed
        Seed of the random choices.
    kv_capacity
        Node -> layer-tokens, in place of the profile's KV capacity.
    links
        Links that may be used, in the order that decides ties. None: those that `Policy.topology_links` says.
    options
        Passed to the policy's constructor.

    Returns
    -------
    Policy
        Ready for its first request.

    Raises
    ------
    InputError
        There is no policy of this name, a class lacks a method, or its constructor needs something else.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, Plan, Problem
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "L4", "count": 2}]})
    >>> problem = Problem.of(cluster, Model.preset("SmolLM2-135M"))
    >>> plan = Plan.from_placement(problem, {"L4-0": (0, 30), "L4-1": (0, 30)}, method="hand")
    >>> make_policy("shortest-queue", plan).name, make_policy(Swarm, plan).name
    ('shortest_queue', 'swarm')
    """
    chosen = resolve_policy(name)
    if isinstance(chosen, Policy):
        return chosen
    known: dict[str, Callable[[], Any]] = {
        "plan": lambda: plan,
        "topology": lambda: Topology.of(
            plan, links=chosen.topology_links if links is None else links, kv_capacity=kv_capacity
        ),
        "pipelines": lambda: plan.pipelines,
        "seed": lambda: seed,
    }
    taken = _parameters(chosen)
    missing = [
        parameter.name
        for parameter in taken.values()
        if parameter.default is parameter.empty and parameter.name not in {*known, *options}
    ]
    if missing:
        raise InputError(
            f"the constructor of {chosen.__name__} needs {', '.join(missing)}: a class gets only what it names of "
            f"{', '.join(known)}; give the rest a default, or pass an object, as in policy={chosen.__name__}(...)",
            field="policy",
            value=name,
        )
    given = {key: value() for key, value in known.items() if key in taken and key not in options} | options
    in_order = [given.pop(key) for key, parameter in taken.items() if parameter.kind is parameter.POSITIONAL_ONLY]
    if chosen in POLICIES.values():
        return chosen(*in_order, **given)
    try:
        return chosen(*in_order, **given)
    except HelixKitError:
        raise
    except Exception as error:
        raise InputError(
            f"{chosen.__name__} cannot be made: {_plugins.told(error)}", field="policy", value=name
        ) from error


def _parameters(cls: type[Policy]) -> dict[str, inspect.Parameter]:
    """The constructor's parameters; of one that passes ``*args`` or ``**kwargs`` on, also those of the base class."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        if init is None or base is object:
            continue
        passes_on = False
        for parameter in list(inspect.signature(init).parameters.values())[1:]:
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
                passes_on = True
            else:
                found.setdefault(parameter.name, parameter)
        if not passes_on:
            break
    return found


def resolve_policy(choice: PolicyChoice) -> Policy | type[Policy]:
    """The class that a name means, or the class or object as given, with all methods that a policy needs.

    Parameters
    ----------
    choice
        As `name` of `make_policy`.

    Returns
    -------
    Policy or type
        An object, or a subclass of `Policy`.

    Raises
    ------
    InputError
        There is no policy of this name, or what is named is no policy: the message names the method that is missing.

    Examples
    --------
    >>> resolve_policy("shortest-queue").__name__
    'ShortestQueue'
    """
    if isinstance(choice, str) and not _plugins.is_own_code(choice):
        key = choice.replace("-", "_").lower()
        if key not in POLICIES:
            known = _files.unknown("policy", choice, POLICY_NAMES)
            raise InputError(f"{known}; or a class of your own: {FORMS}", field="policy")
        return POLICIES[key]
    found = _plugins.load(choice, field="policy", kind="Class") if isinstance(choice, str) else choice
    if fault := _fault(found):
        raise InputError(fault, field="policy", value=choice)
    return found  # type: ignore[no-any-return]


def _fault(choice: Any) -> str | None:
    """What keeps an object or a class from being a policy."""
    is_class = inspect.isclass(choice)
    cls = choice if is_class else type(choice)
    name = cls.__name__
    if not issubclass(cls, Policy):
        if not is_class and (inspect.isroutine(choice) or inspect.ismodule(choice) or not hasattr(choice, "route")):
            kind = "a function" if inspect.isroutine(choice) else f"an object of {cls.__name__}"
            return f"expected a name, a subclass of helix_kit.scheduling.Policy or an object of one, not {kind}"
        lacks = [hook for hook in HOOKS if not callable(getattr(choice, hook, None))]
        missing = f" lacks {', '.join(lacks)} and" if lacks else ""
        return f"{name}{missing} is no subclass of helix_kit.scheduling.Policy: derive it from Policy and define route"
    if cls.route is Policy.route and (is_class or "route" not in vars(choice)):
        return f"{name} lacks the method route(self, request, view), which returns a pipeline or None"
    if issubclass(cls, HopByHop) and cls.route is HopByHop.route and cls.choose is HopByHop.choose:
        return f"{name} lacks the method choose(self, source, candidates, request, view), which HopByHop calls"
    if is_class and inspect.isabstract(cls):
        return f"{name} is abstract: it lacks {', '.join(sorted(cls.__abstractmethods__))}"
    for hook, parameters in HOOKS.items():
        method = inspect.getattr_static(cls, hook)
        if method is inspect.getattr_static(Policy, hook):
            continue
        expected = f"{hook}({', '.join(('self', *parameters))})"
        function = method.__func__ if isinstance(method, staticmethod | classmethod) else method
        if not inspect.isfunction(function):
            if not callable(method):
                return f"{name}.{hook} is no method: expected {expected}"
            continue
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            return f"{name}.{hook} is a coroutine or generator: expected a plain method {expected}"
        arguments = parameters if isinstance(method, staticmethod) else ("self", *parameters)
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError:
            return f"{name}.{hook} takes {inspect.signature(function)}: expected {expected}"
    return None


def fresh_policy(choice: PolicyChoice) -> PolicyChoice:
    """The choice for one run: a copy of an object, which counts what it has routed, so that it has routed nothing.

    >>> fresh_policy("helix")
    'helix'
    """
    return copy.deepcopy(choice) if isinstance(choice, Policy) else choice


def policy_name(choice: PolicyChoice) -> str:
    """The name under which results list a policy.

    Parameters
    ----------
    choice
        As `name` of `make_policy`.

    Returns
    -------
    str
        With underscores and in lower case for the package's own; for others the attribute `name`, or else the name of
        the class.

    Examples
    --------
    >>> class Mine(Policy):
    ...     def route(self, request, view):
    ...         return None
    >>> policy_name("Shortest-Queue"), policy_name(Mine), policy_name(Mine())
    ('shortest_queue', 'Mine', 'Mine')
    """
    if isinstance(choice, str) and not _plugins.is_own_code(choice):
        return choice.replace("-", "_").lower()
    found = resolve_policy(choice) if isinstance(choice, str) else choice
    cls = found if isinstance(found, type) else type(found)
    return cls.__name__ if found.name == Policy.name else str(found.name)


def checked_pipeline(policy: Policy, pipeline: Pipeline | None, plan: Plan) -> Pipeline | None:
    """The answer of a policy; of one that is not the package's own it is checked first (invariant 4).

    Parameters
    ----------
    policy
        The policy whose `route` returned the pipeline.
    pipeline
        The answer.
    plan
        The plan in force.

    Returns
    -------
    tuple or None
        The pipeline.

    Raises
    ------
    InputError
        The answer is no pipeline of the plan.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, Plan, Problem
    >>> problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    >>> plan = Plan.from_placement(problem, {"CPU-fast-0": (0, 18), "CPU-medium-0": (18, 30)}, method="hand")
    >>> class Wrong(Policy):
    ...     def route(self, request, view):
    ...         return ["CPU-fast-0"]
    >>> checked_pipeline(Wrong(), ["CPU-fast-0"], plan)
    Traceback (most recent call last):
    ...
    helix_kit.errors.InputError: policy = 'Wrong': route returned 'CPU-fast-0' as a stage: expected Stage(node, start,
    end); helix_kit.flow.pipeline_of makes a pipeline from names of nodes
    """
    if pipeline is None or type(policy) in POLICIES.values():
        return pipeline

    def fault(text: str) -> InputError:
        return InputError(text, field="policy", value=policy_name(policy))

    if not isinstance(pipeline, tuple | list) or isinstance(pipeline, Stage):
        raise fault(f"route returned {pipeline!r}: expected a tuple of stages, or None")
    done, last = 0, plan.model.num_layers
    for stage in pipeline:
        if not isinstance(stage, Stage):
            raise fault(
                f"route returned {stage!r} as a stage: expected Stage(node, start, end); "
                "helix_kit.flow.pipeline_of makes a pipeline from names of nodes"
            )
        held = plan.placement.get(stage.node)
        if held is None:
            raise fault(f"route returned a pipeline over {stage.node!r}, which holds no layers in the plan")
        if stage.start != done or not held[0] <= stage.start < stage.end <= held[1]:
            raise fault(
                f"route returned {stage.node} with layers [{stage.start}, {stage.end}) after layer {done}: expected "
                f"a start at {done}, within its range [{held[0]}, {held[1]})"
            )
        done = stage.end
    if done != last:
        raise fault(f"route returned a pipeline that ends at layer {done}: expected {last}")
    return tuple(pipeline)


__all__ = [
    "POLICIES",
    "POLICY_NAMES",
    "checked_pipeline",
    "make_policy",
    "policy_name",
    "resolve_policy",
]
