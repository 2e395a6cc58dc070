"""Machines on offer: prices, several GPUs in a machine, and refusals."""

from __future__ import annotations

import pytest

from helix_kit.catalogue import gpus
from helix_kit.errors import InputError
from helix_kit.fleets.offers import offers_of


def test_prices_and_machines_of_several_gpus():
    one, four = offers_of(["H100-80G", "H100-80Gx4"], stock={"H100-80Gx4": 2})
    assert (one.gpu, one.gpus_per_node, one.stock) == ("H100-80G", 1, None)
    assert (four.gpu, four.gpus_per_node, four.stock) == ("H100-80G", 4, 2)
    assert four.usd_per_hour == pytest.approx(4 * gpus()["H100-80G"].price.on_demand)
    assert offers_of(["L4"], prices={"L4": 0.25})[0].usd_per_hour == 0.25
    assert offers_of(["A6000"], payment="spot")[0].usd_per_hour == gpus()["A6000"].price.spot


@pytest.mark.parametrize(
    ("kinds", "options", "words"),
    [
        (["L5"], {}, "gpus = 'L5'"),
        (["L4x0"], {}, "gpus = 'L4x0'"),
        ([], {}, "at least one GPU"),
        (["L4", "L4"], {}, "each kind once"),
        (["L4"], {"stock": {"T4": 1}}, "stock = 'T4'"),
        (["L4"], {"stock": {"L4": -1}}, "stock['L4'] = -1"),
        (["L4"], {"prices": {"L4": 0.0}}, "prices['L4'] = 0.0"),
        (["L4"], {"payment": "barter"}, "payment = 'barter'"),
        (["L4"], {"payment": "spot"}, "no spot price"),
        (["CPU-fast"], {}, "gpus = 'CPU-fast'"),
    ],
)
def test_refusals(kinds, options, words):
    with pytest.raises(InputError) as error:
        offers_of(kinds, **options)
    assert words in str(error.value)
