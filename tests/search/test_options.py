"""Options of objective served: wrong values name their field."""

import pytest

from helix_kit.errors import InputError
from helix_kit.search import ServedOptions


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"mode": "online"}, "rate_per_s"),
        ({"mode": "online", "rate_per_s": 0.0}, "rate_per_s"),
        ({"rate_per_s": 2.0}, "rate_per_s"),
        ({"mode": "later"}, "mode"),
        ({"pareto_pick": "best"}, "pareto_pick"),
        ({"execution": "foo"}, "execution"),
        ({"latency_limit_s": 0.0}, "latency_limit_s"),
        ({"prompt_latency_limit_s": -1.0}, "prompt_latency_limit_s"),
        ({"window_s": 0.0}, "window_s"),
        ({"max_simulations": 0}, "max_simulations"),
        ({"jobs": 0}, "jobs"),
    ],
)
def test_wrong_values_name_their_field(options, field):
    with pytest.raises(InputError) as error:
        ServedOptions(**options)
    assert error.value.field == field
