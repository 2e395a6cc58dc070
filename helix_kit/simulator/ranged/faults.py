"""Faults and plan changes of a run under our runtime's rules, as entries of the engine's agenda."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from helix_kit.errors import InputError
from helix_kit.simulator.faults import Fault, LinkDegrades, NodeDies, NodeSlows, PlanSwap
from helix_kit.simulator.setup import Setup


class Faulty(Protocol):
    """What faults do to an engine."""

    setup: Setup

    def node_dies(self, node: str) -> None:
        """The node stops."""
        ...

    def node_is_missed(self, node: str) -> None:
        """The coordinator notices that the node has stopped."""
        ...

    def swap(self, fault: PlanSwap) -> None:
        """Another plan takes over."""
        ...


class Entry(NamedTuple):
    """Something that happens at a moment of the run."""

    time_s: float
    happen: Callable[[], None]


def agenda_of(faults: Sequence[Fault], engine: Faulty) -> list[Entry]:
    """What happens to the engine because of the faults, in order of time."""
    entries: list[Entry] = []
    for fault in faults:
        if isinstance(fault, NodeDies):
            entries.append(Entry(fault.at_s, partial(engine.node_dies, fault.node)))
            entries.append(Entry(fault.at_s + fault.detection_s, partial(engine.node_is_missed, fault.node)))
        elif isinstance(fault, NodeSlows):
            entries.append(Entry(fault.at_s, partial(_slow, engine, fault)))
        elif isinstance(fault, LinkDegrades):
            entries.append(Entry(fault.at_s, partial(_degrade, engine, fault)))
        else:
            entries.append(Entry(fault.at_s, partial(engine.swap, fault)))
    return sorted(entries, key=lambda entry: entry.time_s)


def _slow(engine: Faulty, fault: NodeSlows) -> None:
    engine.setup.nodes["slowdown"][engine.setup.number_of[fault.node]] = fault.factor


def _degrade(engine: Faulty, fault: LinkDegrades) -> None:
    link = engine.setup.links[engine.setup.link_index[fault.source, fault.target]]
    link["bandwidth"] *= fault.bandwidth_factor
    link["latency"] += fault.extra_latency_s


def check_faults(faults: Sequence[Fault], setup: Setup) -> None:
    """Raise InputError for a fault of a node or link that the plan does not have, or at a negative time."""
    for fault in faults:
        if isinstance(fault, NodeDies | NodeSlows) and fault.node not in setup.names:
            raise InputError("expected a node of the plan", where="faults", field="node", value=fault.node)
        if isinstance(fault, LinkDegrades) and (fault.source, fault.target) not in setup.link_index:
            raise InputError(
                "expected a link that the plan can use", where="faults", field="link",
                value=[fault.source, fault.target],
            )  # fmt: skip
        if not fault.at_s >= 0:
            raise InputError("expected a time of at least 0 s", where="faults", field="at_s", value=fault.at_s)
