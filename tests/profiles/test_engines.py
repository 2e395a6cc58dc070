"""Engine records: read with every constant told, refused with the field."""

from __future__ import annotations

import pytest

from helix_kit.errors import InputError
from helix_kit.profiles.engines import engine_names, load_engine


def test_every_constant_says_what_it_is():
    for name in engine_names():
        engine = load_engine(name)
        assert engine.name == name
        for constant in (engine.constants.by_name() if engine.constants else {}).values():
            assert constant.meaning and constant.unit and constant.source


def test_unknown_engines_and_rules_are_refused():
    with pytest.raises(InputError, match=r"engine: .*vllm"):
        load_engine("vlm")
    with pytest.raises(InputError, match="max_num_seqs"):
        load_engine("vllm-0.15").with_rules(max_num_seqs=0)


def test_a_constant_can_be_scaled():
    constants = load_engine("vllm-0.15").constants
    twice = constants.scaled("bandwidth_share", 0.5)
    assert twice.bandwidth_share.of("L40S") == pytest.approx(constants.bandwidth_share.of("L40S") / 2)
    with pytest.raises(InputError, match="constant"):
        constants.scaled("speed", 2.0)


def test_an_engine_of_replicas_needs_constants(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nabout: mine\nexecution: replicas\nrules: {}\n")
    with pytest.raises(InputError, match=r"mine\.yaml: constants"):
        load_engine(tmp_path / "mine.yaml")


def test_large_gpus_have_larger_defaults_unless_a_rule_is_given():
    engine = load_engine("vllm-0.15")
    assert engine.on("H100-80G").rules.max_num_batched_tokens == 8192
    assert engine.on("A100-80G").rules.max_num_batched_tokens == 2048
    given = engine.with_rules(max_num_seqs=64).on("H100-80G").rules
    assert (given.max_num_seqs, given.max_num_batched_tokens) == (64, 8192)
