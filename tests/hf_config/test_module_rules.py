"""Lists of modules as programs write them, on the names of a layer's matrices."""

from __future__ import annotations

import pytest

from helix_kit.errors import InputError
from helix_kit.hf_config.module_rules import ModuleRules, rules_of
from helix_kit.layers import WeightFormat

LOW = WeightFormat(name="low", bits=4)
DENSE = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
EXPERTS = ("self_attn.q_proj", "mlp.shared_experts.up_proj", "mlp.experts.0.gate_proj", "mlp.experts.0.down_proj")
ATTENTION, MLP = set(DENSE[:2]), set(DENSE[2:])
# Pattern -> the matrices of a dense layer 3 that it names.
DENSE_CASES = {
    "self_attn": ATTENTION,
    "attn": ATTENTION,  # another name of the block
    "model.layers.3.mlp": MLP,
    "model.layers.31.mlp": set(),
    "model.layers.3": ATTENTION | MLP,
    "layers.3.self_attn.q_proj": {"self_attn.q_proj"},
    "q_proj": {"self_attn.q_proj"},
    "self_attn.qkv_proj": {"self_attn.q_proj"},
    "gate": set(),  # the router, not mlp.gate_proj
    "mlp.gate": set(),
    "mlp.gate_up_proj": {"mlp.gate_proj", "mlp.up_proj"},
    "model.layers.*.self_attn": ATTENTION,
    "model.layers.3.self_attn*": ATTENTION,
    ".*self_attn.*": ATTENTION,
    "re:.*self_attn.*": ATTENTION,
    r"re:.*mlp\.(gate|up|gate_up|down)_proj.*": MLP,
    r"re:self_attn": set(),  # such an expression begins at the beginning of a name
    r"re:model\.layers\.(2|4)\..*": set(),
    r"^model\.layers\.[0-3]\.": ATTENTION | MLP,
    "transformer.h.3.attn.c_attn": {"self_attn.q_proj"},
    "transformer.h.4.attn.c_attn": set(),
    "gpt_neox.layers.3.mlp.dense_h_to_4h": {"mlp.up_proj"},
    "model.decoder.layers.3.self_attn.out_proj": {"self_attn.o_proj"},
    "lm_head": set(),
    "model.embed_tokens": set(),
    "vision_tower.encoder.layers.3.mlp": set(),
    "visual.blocks.3.attn": set(),
    "re:.*vision_tower.*": set(),
    "model.layers.3.input_layernorm": set(),
}
EXPERT_CASES = {
    "re:.*shared_experts.*": {EXPERTS[1]},
    "mlp.shared_expert": {EXPERTS[1]},
    r"re:.*mlp\.(gate|up|gate_up|down)_proj.*": set(),  # of dense layers alone
    "mlp": set(EXPERTS[1:]),
    "block_sparse_moe.experts": set(EXPERTS[2:]),
    "model.layers.3.mlp.experts.gate_up_proj": {EXPERTS[2]},
    "w2": {EXPERTS[3]},
    "mlp.gate": set(),
}


def named(pattern, modules, experts=0, **options):
    rules = ModuleRules(tuple(rules_of([pattern], None, "config.json", "ignore", experts)), LOW, **options)
    return {module for module, form in zip(modules, rules.formats(3, modules), strict=True) if form is None}


@pytest.mark.parametrize("pattern", DENSE_CASES)
def test_a_pattern_names_matrices_of_a_dense_layer(pattern):
    assert named(pattern, DENSE) == DENSE_CASES[pattern]


@pytest.mark.parametrize("pattern", EXPERT_CASES)
def test_a_pattern_names_matrices_of_a_layer_with_experts(pattern):
    assert named(pattern, EXPERTS, experts=8) == EXPERT_CASES[pattern]


def test_modules_of_a_multimodal_model_have_a_further_prefix():
    for pattern in ("model.language_model.layers.3.mlp", "language_model.model.layers.3.mlp", "model.layers.3.mlp"):
        assert named(pattern, DENSE, is_nested=True) == MLP, pattern
    everything_but_the_decoder = "re:^(?!.*language_model).*"
    assert named(everything_but_the_decoder, DENSE, is_nested=True) == set()


def test_the_first_rule_decides():
    eight = WeightFormat(name="low", bits=8)
    rules = [
        *rules_of(["mlp.down_proj"], None, "config.json", "ignore", 0),
        *rules_of(["model.layers.3.mlp"], eight, "config.json", "dynamic", 0),
    ]
    found = ModuleRules(tuple(rules), LOW)
    assert found.formats(3, DENSE) == (LOW, LOW, eight, eight, None)
    assert found.formats(4, DENSE) == (LOW, LOW, LOW, LOW, None)


def test_lists_that_name_experts_one_by_one_name_all_of_them_or_are_refused():
    one_by_one = [f"model.layers.3.mlp.experts.{i}.down_proj" for i in range(8)]
    rules = rules_of(one_by_one, None, "config.json", "ignore", 8)
    assert len(rules) == 1 and ModuleRules(tuple(rules), LOW).formats(3, EXPERTS) == (LOW, LOW, LOW, None)
    with pytest.raises(InputError, match=r"config.json: ignore = .*names 7 of 8 experts: expected all of a layer or"):
        rules_of(one_by_one[1:], None, "config.json", "ignore", 8)


def test_what_is_no_regular_expression_is_refused():
    with pytest.raises(InputError, match=r"ignore = 're:\(': expected a regular expression \("):
        rules_of(["re:("], None, "config.json", "ignore", 0)
