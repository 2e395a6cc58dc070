"""What is compared: pairs of a placement and a scheduler, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from helix_kit import _files
from helix_kit._plugins import is_own_code
from helix_kit.errors import InputError
from helix_kit.placement.methods import method_names
from helix_kit.placement.plan import Plan
from helix_kit.scheduling import PolicyChoice, policy_name, resolve_policy

MethodChoice = str | Path | Plan
"""A name of `METHODS`, PLACEMENT+POLICY, a file with a plan, or a plan."""


@dataclass(frozen=True)
class Method:
    """A placement, and the policy that schedules requests on it.

    Examples
    --------
    >>> METHODS["random"].placement, METHODS["random"].policy
    ('pattern', 'random')
    """

    name: str
    """What tables call it."""
    label: str
    """What pictures call it."""
    placement: str | Path | Plan
    """A method of `helix_kit.plan`, ``served`` (objective ``served``), a file with a plan, or a plan."""
    policy: PolicyChoice = "helix"
    """As in `helix_kit.simulate`."""

    @property
    def plan_name(self) -> str:
        """What the plan's file is called; methods of one placement share a plan."""
        if isinstance(self.placement, str) and self.placement.replace("-", "").isalnum():
            return self.placement
        return self.name


METHODS = {
    method.name: method
    for method in (
        Method("helix", "Helix", "pattern"),
        Method("swarm", "Swarm", "swarm", "swarm"),
        Method("petals", "Petals", "petals"),
        Method("separate", "separate", "separate"),
        Method("separate-plus", "separate+", "separate-plus"),
        Method("random", "random", "pattern", "random"),
        Method("shortest-queue", "shortest queue", "pattern", "shortest_queue"),
        Method("served", "served plan", "served"),
    )
}
"""Helix is the plan of the largest flow with its scheduler. ``random`` and ``shortest-queue`` schedule on that plan
(paper, section 6.7). ``swarm`` and ``separate`` are the paper's baselines, ``petals`` is a placement under Helix's
scheduler (section 6.6). ``served`` is the plan that serves most in simulations."""
DEFAULT_METHODS = ("helix", "swarm", "separate", "random", "shortest-queue", "served")


def chosen_methods(methods: str | Iterable[MethodChoice] | Mapping[str, MethodChoice]) -> list[Method]:
    """The methods that a user means, each with a name of its own; InputError for none or an unknown one."""
    if isinstance(methods, str):
        methods = [name.strip() for name in methods.split(",") if name.strip()]
    if isinstance(methods, Mapping):
        chosen = [method_of(choice, name=str(name)) for name, choice in methods.items()]
    else:
        chosen = [method_of(choice) for choice in methods]
    names = [method.name for method in chosen]
    if not chosen or len(set(names)) < len(names):
        raise InputError("expected at least one method, each once", field="methods", value=", ".join(names))
    return chosen


def method_of(choice: MethodChoice, *, name: str | None = None) -> Method:
    """The method of one choice; `name` in place of its own."""
    if isinstance(choice, Plan):
        label = name or choice.method
        return Method(label, label, choice)
    text = str(choice)
    if text in METHODS and name is None:
        return METHODS[text]
    if text in METHODS:
        return Method(str(name), str(name), METHODS[text].placement, METHODS[text].policy)
    placement, plus, policy = text.rpartition("+")
    if not plus:
        placement, policy = text, "helix"
    # `petals` here is the placement, and `helix` the placement of that method.
    placed: str | Path = METHODS[placement].placement if placement in METHODS else placement  # type: ignore[assignment]
    if str(placed).endswith(".json"):
        placed = Path(str(placed))
        if not placed.is_file():
            raise InputError("no such file", where=placed, field="methods")
    else:
        _check_placement(str(placed))
    resolve_policy(policy)
    own = Path(text).stem if not plus and isinstance(placed, Path) else text.replace("/", "_")
    label = name or own
    return Method(label, label, placed, policy)


def _check_placement(placement: str) -> None:
    known = method_names()
    if placement not in known and placement != "served" and not is_own_code(placement):
        said = _files.unknown("method", placement, [*METHODS, *known])
        raise InputError(f"{said}; or PLACEMENT+POLICY, or a plan.json", field="methods")


def policy_label(method: Method) -> str:
    """The name of the method's policy."""
    return policy_name(method.policy)
