"""Machines on offer: a kind, its price, and how many there are.

>>> [offer.kind for offer in offers_of(["L4", "A10Gx2"], stock={"L4": 3})]
['L4', 'A10Gx2']
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from helix_kit import _files
from helix_kit.catalogue import PAYMENTS, gpu_and_count, gpus, real_gpus
from helix_kit.errors import InputError


@dataclass(frozen=True)
class Offer:
    """A kind of machine that may be rented.

    Examples
    --------
    >>> Offer("L4x2", "L4", 2, usd_per_hour=1.42).stock is None
    True
    """

    kind: str
    """As `helix_kit.Node.kind`: ``L4``, or ``L4x2`` with two GPUs."""
    gpu: str
    """Its GPU."""
    gpus_per_node: int
    """How many of them, which hold the machine's layers together."""
    usd_per_hour: float
    """Rent of the whole machine."""
    stock: int | None = None
    """How many there are at most; None: any number."""


def offers_of(
    kinds: Sequence[str],
    *,
    stock: Mapping[str, int] | None = None,
    prices: Mapping[str, float] | None = None,
    payment: str = "on_demand",
) -> list[Offer]:
    """The offers that names of machines mean.

    Parameters
    ----------
    kinds
        GPUs of the catalogue, or ``L4x2`` for a machine with two.
    stock
        Kind -> how many there are. Kinds that are left out are not limited.
    prices
        GPU -> USD per hour of one, in place of the catalogue's.
    payment
        Which price of the catalogue counts: on_demand, reserved or spot.

    Returns
    -------
    list of Offer
        In the order of `kinds`.

    Raises
    ------
    InputError
        An unknown or repeated kind, one without a price, or a wrong stock or price.

    Examples
    --------
    >>> offers_of(["L4"], prices={"L4": 0.5})[0].usd_per_hour
    0.5
    """
    if payment not in PAYMENTS:
        raise InputError(f"expected one of {', '.join(PAYMENTS)}", field="payment", value=payment)
    if not kinds:
        raise InputError("expected at least one GPU, such as L4", field="gpus")
    stock, prices = stock or {}, prices or {}
    known = real_gpus()
    found: list[Offer] = []
    for kind in kinds:
        machine = gpu_and_count(kind, known)
        if machine is None:
            raise InputError(_files.unknown("GPU", kind, known), field="gpus", value=kind)
        gpu, count = machine
        if any(offer.kind == kind for offer in found):
            raise InputError("expected each kind once", field="gpus", value=kind)
        usd = prices.get(gpu, gpus()[gpu].price.of(payment))
        if usd is None:
            raise InputError(f"no {payment} price is known for it: expected one in `prices`", field="gpus", value=kind)
        if not (0 < usd < math.inf):
            raise InputError("expected a positive number of USD/h", field=f"prices[{gpu!r}]", value=usd)
        found.append(Offer(kind, gpu, count, usd * count, stock.get(kind)))
    for field, given, names in (
        ("stock", stock, {offer.kind for offer in found}),
        ("prices", prices, {offer.gpu for offer in found}),
    ):
        for name in given:
            if name not in names:
                raise InputError(f"expected a machine on offer: {', '.join(sorted(names))}", field=field, value=name)
    for kind, count in stock.items():
        if count < 0 or count != int(count):
            raise InputError("expected a whole number of at least 0", field=f"stock[{kind!r}]", value=count)
    return found


__all__ = ["Offer", "offers_of"]
