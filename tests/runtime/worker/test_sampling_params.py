"""Bounds of the sampling parameters, and what they ask of the last stage."""

from __future__ import annotations

import pytest

from helix_kit.errors import InputError
from helix_kit.runtime.worker.sampling_params import SamplingParams


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -0.1), ("temperature", float("nan")), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.1),
     ("seed", -1), ("seed", 2**63), ("min_p", -0.1), ("min_p", 1.1), ("presence_penalty", 2.1),
     ("frequency_penalty", float("nan")), ("repetition_penalty", 0.0), ("repetition_penalty", float("inf")),
     ("logit_bias", ((5, 100.5),)), ("logit_bias", ((5, 1.0), (5, 2.0))), ("min_tokens", -1), ("logprobs", 21),
     ("prompt_logprobs", -1), ("logit_bias", tuple((token, 1.0) for token in range(1025)))],
)  # fmt: skip
def test_parameters_out_of_bounds_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        SamplingParams(**{field: value})


@pytest.mark.parametrize(
    ("options", "plain", "needs_token_ids"),
    [
        ({}, True, False),
        ({"temperature": 1e-7, "top_k": 3}, True, False),
        ({"temperature": 0.5}, False, False),
        ({"logprobs": 0}, False, False),
        ({"logit_bias": ((5, 1.0),)}, False, False),
        ({"min_tokens": 3}, True, False),
        ({"min_tokens": 3, "end_ids": (2,)}, False, False),
        ({"presence_penalty": 0.1}, False, True),
        ({"repetition_penalty": 0.9}, False, True),
        # Tokens of the prompt are scored apart from the sampling.
        ({"prompt_logprobs": 0}, True, True),
    ],
)
def test_what_a_request_asks_of_the_last_stage(options: dict, plain: bool, needs_token_ids: bool) -> None:
    params = SamplingParams(**options)
    assert (params.is_plain_greedy, params.needs_token_ids) == (plain, needs_token_ids)
