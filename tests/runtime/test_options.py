"""The options of `serve`, declared once."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

pytest.importorskip("zmq")

from helix_kit.errors import InputError
from helix_kit.runtime import ServeOptions, Timeouts, serve
from helix_kit.scheduling import Policy


def test_serve_has_the_keywords_and_defaults_of_the_record() -> None:
    parameters = inspect.signature(serve).parameters
    keywords = {name: p.default for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert keywords == {field.name: field.default for field in dataclasses.fields(ServeOptions)}
    assert list(parameters) == ["plan", "weights", *keywords]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int3"}, "dtype = 'int3'"),
        ({"attention": "flash"}, "attention = 'flash'"),
        ({"devices": "gpu"}, "devices = 'gpu'"),
        ({"time_scale": 0.0}, "time_scale = 0.0: expected more than 0"),
        ({"max_context_tokens": 0}, "max_context_tokens = 0: expected at least 1"),
    ],
)
def test_unknown_values_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ServeOptions(**options)


def test_workers_get_more_time_where_kernels_are_compiled() -> None:
    assert ServeOptions().worker_timeouts == Timeouts()
    assert ServeOptions(attention="flashinfer").worker_timeouts.start_s > Timeouts().start_s
    given = Timeouts(start_s=1.0, silence_s=9.0)
    assert ServeOptions(attention="auto", timeouts=given).worker_timeouts is given


def test_a_policy_object_gives_its_name() -> None:
    class Mine(Policy):
        name = "mine"

    assert ServeOptions(policy=Mine.__new__(Mine)).policy_name == "mine"
    assert ServeOptions(policy="swarm").policy_name == "swarm"
