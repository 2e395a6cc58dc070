"""Pipelines that can be built of machines on offer, with the layers of each stage and an estimate of what they serve.

A pattern says how many machines of each kind form one pipeline with all L layers. Its flow is

    f = max { f : sum_g n_g K_g(f) >= L },    K_g(f) = max { k : T_g(k) >= f },

with n_g machines of kind g and T_g(k) the tokens/s of one with k layers (`helix_kit.profiles.machine_speed`). That is
the planner's rule for a lane of its stages. The layers are split for this flow.

The estimate of requests/s is meant to be high: it takes full KV caches, perfect overlap of the stages, batches of the
best size, and as a limit on the batch only that a decode step of all stages keeps the limit for TPOT. Simulations then
say what a pattern really serves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from helix_kit.fleets.offers import Offer
from helix_kit.model import Model
from helix_kit.profiles import Profile, machine_tables
from helix_kit.profiles.machine_speed import RUNTIME_LIMITS, ms_per_request
from helix_kit.typical_request import MeanLengths

MAX_PATTERNS = 2000
"""Patterns of several kinds that are considered; longer pipelines are left out first."""
EXTRA_STAGES = 3
"""Machines of one kind in a pipeline beyond those that the layers need: each adds KV cache."""
MANY = 5
"""So many machines in a row with as many layers each are counted, not listed."""
MIN_MIXED_STAGES = 4
"""Pipelines of several kinds may always have this many machines."""


@dataclass(frozen=True)
class Pattern:
    """One pipeline: machines, layers and estimate.

    Examples
    --------
    >>> two = Pattern((("L4", 20), ("A100-40G", 40)), usd_per_hour=2.7, estimate_per_s=1.5)
    >>> two.text, two.is_of_one_kind
    ('L4[20] + A100-40G[40]', False)
    """

    stages: tuple[tuple[str, int], ...]
    """(kind, number of layers) of each stage in order."""
    usd_per_hour: float
    """Rent of all its machines."""
    estimate_per_s: float
    """Requests/s that it serves at best."""

    @property
    def uses(self) -> dict[str, int]:
        """Kind -> machines."""
        found: dict[str, int] = {}
        for kind, _ in self.stages:
            found[kind] = found.get(kind, 0) + 1
        return found

    @property
    def is_of_one_kind(self) -> bool:
        """Whether all its machines are of one kind."""
        return len(self.uses) == 1

    @property
    def text(self) -> str:
        """Kinds with their layers, such as ``L4[20] + A100-40G[40]``, or ``63 x L4[2]`` where many are alike."""
        names = []
        for name, group in groupby(f"{kind}[{layers}]" for kind, layers in self.stages):
            alike = list(group)
            names += alike if len(alike) < MANY else [f"{len(alike)} x {name}"]
        return " + ".join(names)


def machines_of(count: Mapping[Pattern, int]) -> dict[str, int]:
    """Kind -> machines of a fleet, from pattern -> pipelines.

    >>> machines_of({Pattern((("L4", 16), ("L4", 16)), 1.42, 1.0): 3})
    {'L4': 6}
    """
    machines: dict[str, int] = {}
    for pattern, pipelines in count.items():
        for kind, used in pattern.uses.items():
            machines[kind] = machines.get(kind, 0) + used * pipelines
    return machines


@dataclass(frozen=True)
class Setting:
    """What all patterns of a question share.

    Examples
    --------
    >>> Setting([], Model.preset("llama3.1-8b"), {}, MeanLengths(500, 100)).step_tokens
    512
    """

    offers: Sequence[Offer]
    """Machines on offer."""
    model: Model
    """What is served."""
    profiles: Mapping[str, Profile]
    """By kind."""
    lengths: MeanLengths
    """Mean lengths of requests."""
    tpot_s: float | None = None
    """Limit for the time per output token; None: there is none."""
    hop_s: float = 0.0
    """Latency of a link between stages."""
    step_tokens: int = RUNTIME_LIMITS.step_tokens
    """Tokens that a step of the engine may take."""


def patterns_of(setting: Setting, max_stages: int | None = None) -> list[Pattern]:
    """All pipelines up to a length.

    Parameters
    ----------
    setting
        Machines on offer, model, profiles and lengths.
    max_stages
        Machines of a pipeline at most. None: three more of one kind than its memory needs; of several kinds as many as
        the kind needs that needs most, at least four, while there are at most `MAX_PATTERNS`.

    Returns
    -------
    list of Pattern
        Those of one kind first. Empty if no number of machines holds the model.

    Examples
    --------
    >>> from helix_kit.fleets.offers import offers_of
    >>> from helix_kit.profiles import estimate
    >>> from helix_kit.cluster import Node
    >>> model = Model.preset("llama3.1-8b")
    >>> setting = Setting(offers_of(["L4"]), model, {"L4": estimate(Node(name="a", gpu="L4"), model)},
    ...                   MeanLengths(500, 100))
    >>> [pattern.text for pattern in patterns_of(setting, max_stages=2)]
    ['L4[32]', 'L4[16] + L4[16]']
    """
    tables = machine_tables(setting.model, setting.profiles, setting.lengths)
    usable = [offer for offer in setting.offers if tables[offer.kind]]
    if not usable:
        return []
    layers = setting.model.num_layers
    needed = [math.ceil(layers / len(tables[offer.kind])) for offer in usable]
    rows: list[list[int]] = []
    for g, offer in enumerate(usable):
        longest = min(
            needed[g] + EXTRA_STAGES, max_stages or math.inf, offer.stock if offer.stock is not None else math.inf
        )
        rows += [[n if h == g else 0 for h in range(len(usable))] for n in range(needed[g], int(longest) + 1)]
    if len(usable) > 1:
        stock = [math.inf if offer.stock is None else offer.stock for offer in usable]
        mixed = max_stages or max(MIN_MIXED_STAGES, *needed)
        while mixed > 2 and math.comb(mixed + len(usable), mixed) > MAX_PATTERNS:
            mixed -= 1
        rows += [row for row in _multisets(len(usable), mixed) if all(n <= s for n, s in zip(row, stock))]
    if not any(sum(row) <= layers for row in rows):
        return []
    speeds = [tables[offer.kind] for offer in usable]
    flows = np.unique([t for table in speeds for t in table])
    held = np.array([[sum(t >= f for t in table) for f in flows] for table in speeds])
    counts = np.array([row for row in rows if sum(row) <= layers])
    # A machine that holds no layer at a flow does not belong to the pipeline.
    fits = (counts @ held >= layers) & ((counts > 0).astype(int) @ (held == 0).astype(int) == 0)
    found = []
    for row, fit in zip(counts, fits):
        if fit.any():
            found.append(_pattern(setting, usable, speeds, row, held[:, int(np.flatnonzero(fit)[-1])]))
    return found


def _multisets(kinds: int, max_machines: int) -> Iterator[list[int]]:
    """Numbers of each kind with at most `max_machines` machines, of at least two kinds."""

    def rest(g: int, left: int) -> Iterator[list[int]]:
        if g == kinds:
            yield []
            return
        for n in range(left + 1):
            yield from ([n, *tail] for tail in rest(g + 1, left - n))

    return (row for row in rest(0, max_machines) if sum(n > 0 for n in row) > 1)


def _pattern(
    setting: Setting,
    offers: Sequence[Offer],
    speeds: Sequence[Sequence[float]],
    counts: NDArray[np.int64],
    held: NDArray[np.int64],
) -> Pattern:
    """The pattern with these numbers of machines; `held` are the layers of each kind at its flow."""
    kinds = [g for g, n in enumerate(counts) for _ in range(n)]
    sizes = [int(held[g]) for g in kinds]
    # Layers beyond those of the model are taken from the slowest machine.
    for _ in range(sum(sizes) - setting.model.num_layers):
        slowest = min((i for i in range(len(kinds)) if sizes[i] > 1), key=lambda i: speeds[kinds[i]][sizes[i] - 1])
        sizes[slowest] -= 1
    stages = tuple((offers[g].kind, size) for g, size in zip(kinds, sizes))
    return Pattern(stages, round(sum(offers[g].usd_per_hour for g in kinds), 9), _requests_per_s(setting, stages))


def _requests_per_s(setting: Setting, stages: Sequence[tuple[str, int]]) -> float:
    """The estimate: 1 / (k (P + (O - 1) D(b) / b)) of the slowest stage, with the largest batch b that is allowed."""
    lengths = setting.lengths
    held = [(setting.profiles[kind], k) for kind, k in stages]
    batch = min(profile.kv_capacity(k) / (k * lengths.tokens) for profile, k in held)
    batch = min(batch, *(float(profile.decode_limit(k)) for profile, k in held), setting.step_tokens)
    if setting.tpot_s is not None:
        hops_ms = 1e3 * setting.hop_s * (len(stages) if len(stages) > 1 else 0)
        low, high = 1.0, max(1.0, batch)
        for _ in range(30):
            middle = (low + high) / 2
            step_ms = sum(k * profile.decode_ms_per_layer(middle) for profile, k in held) + hops_ms
            low, high = (middle, high) if step_ms <= 1e3 * setting.tpot_s else (low, middle)
        batch = min(batch, high)
    slowest_ms = 0.0
    for profile, k in held:
        chunks = [x for x in profile.prefill_ms_per_layer.x if 0 < x < setting.step_tokens] + [setting.step_tokens]
        prompt_ms = lengths.input_tokens * min(profile.prefill_ms_per_layer(x) / x for x in chunks)
        answer_ms = (lengths.output_tokens - 1) * ms_per_request(profile.decode_ms_per_layer, max(batch, 1e-9))
        slowest_ms = max(slowest_ms, k * (prompt_ms + answer_ms))
    return 1e3 / slowest_ms


__all__ = ["Pattern", "Setting", "patterns_of"]
