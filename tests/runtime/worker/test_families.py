"""Every served family equals transformers: logits of mixed batches over two workers, and `generate` step by step.

The cases make the table of docs/guide/served-families.md, which a test here compares with them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch")

from layer_chain import TOLERANCE, Chain, run_mixed, unused_reference  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers.integrations.mxfp4 import convert_moe_packed_tensors  # noqa: E402

from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.families import FAMILIES  # noqa: E402
from helix_kit.runtime.weights.tiny import UNUSUAL, tiny_checkpoint  # noqa: E402

PAGE = Path(__file__).parents[3] / "docs/guide/served-families.md"
NEW_TOKENS = 4
# The unscaled tables end at 16 positions, which is shorter than the prompts: the scaled part is used.
ORIGINAL = {"rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 16}
LLAMA3 = {**ORIGINAL, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {**ORIGINAL, "rope_type": "yarn"}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
# Frequencies of a sequence's length: of dynamic from 16 tokens on, of longrope by its two sets.
DYNAMIC = {"max_position_embeddings": 16}
DYNAMIC_ROPE = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 8.0}


def longrope(pairs: int) -> dict[str, Any]:
    """Two sets of factors for so many pairs of a head, the long one from 17 tokens on."""
    factors = {
        "short_factor": [1.0 + 0.03 * i for i in range(pairs)],
        "long_factor": [1.5 + 0.4 * i for i in range(pairs)],
    }
    return {**ORIGINAL, **factors, "rope_type": "longrope"}


BIASES = {"attention_bias": True}


class Case(NamedTuple):
    """A tiny checkpoint of a family, and what of the family it shows."""

    family: str
    shown: str
    settings: Mapping[str, Any] = MappingProxyType({})


CASES = [
    Case("cohere2", "norm without a mean, attention beside the MLP, windows and full layers without rotary, scaled "
         "logits, tied"),
    Case("gemma", "scaled embeddings, norms of 1 + weight, tied", {"tie_word_embeddings": True}),
    Case("gemma2", "capped scores and logits, alternating windows, four norms, scale apart from head size, tied"),
    Case("gemma3_text", "two rotary tables (linear in full layers), windows, q/k norms, capped logits, tied",
         {"final_logit_softcapping": 8.0, "tie_word_embeddings": True,
          "rope_parameters": {"full_attention": LINEAR, "sliding_attention": {"rope_type": "default",
                                                                              "rope_theta": 500.0}}}),
    Case("gemma3_text", "two rotary tables (dynamic in full layers), tied",
         {**DYNAMIC, "rope_parameters": {"full_attention": DYNAMIC_ROPE,
                                         "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}}),
    Case("gpt_oss", "sinks, alternating windows, experts and router with biases, yarn, head size apart",
         {"rope_parameters": {**YARN, "truncate": False}}),
    Case("granite", "factors of embeddings, residuals, scores and logits, biases, tied",
         {**BIASES, "mlp_bias": True, "tie_word_embeddings": True}),
    Case("llama", "rope llama3, biases, head size apart",
         {**BIASES, "mlp_bias": True, "head_dim": 24, "rope_parameters": LLAMA3}),
    Case("llama", "rope linear, tied", {"rope_parameters": LINEAR, "tie_word_embeddings": True}),
    Case("llama", "rope dynamic", {**DYNAMIC, "rope_parameters": DYNAMIC_ROPE}),
    Case("llama", "rope longrope", {"rope_parameters": longrope(8)}),
    Case("mistral", "window in every layer"),
    Case("mixtral", "2 of 5 experts, window in every layer"),
    Case("olmo2", "norms after attention and MLP, q/k norms of all heads"),
    Case("olmo3", "windows and full layers, yarn",
         {"rope_parameters": {"full_attention": YARN, "sliding_attention": {"rope_type": "default",
                                                                            "rope_theta": 10000.0}}}),
    Case("olmoe", "2 of 6 experts, q/k norms of all heads, clipped queries", {"clip_qkv": 0.8}),
    Case("phi3", "joined matrices, part of a head turned"),
    Case("phi3", "longrope, part of a head turned",
         {"original_max_position_embeddings": 16, "rope_parameters": {**longrope(4), "partial_rotary_factor": 0.5}}),
    Case("qwen2", "biases, late windows, tied",
         {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 3, "tie_word_embeddings": True}),
    Case("qwen2_moe", "2 of 6 experts beside a shared one, a dense layer, early windows, biases"),
    Case("qwen3", "q/k norms, head size apart, yarn", {"rope_parameters": YARN}),
    Case("qwen3_moe", "2 of 6 experts in every other layer, q/k norms, head size apart, biases", BIASES),
    Case("qwen3_moe", "weights of experts not normalised, window in every layer, tied",
         {"norm_topk_prob": False, "decoder_sparse_step": 1, "use_sliding_window": True, "sliding_window": 12,
          "tie_word_embeddings": True}),
    Case("seed_oss", "biases, head size apart", {"attention_out_bias": True, "mlp_bias": True}),
    Case("smollm3", "layers without rotary and with windows, tied",
         {"use_sliding_window": True, "sliding_window": 12}),
]  # fmt: skip


def largest_difference(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Of logits. The logits themselves must differ, so that the comparison can fail."""
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape
        assert theirs.std() > 0.1
    return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)


def generated(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the tokens of a greedy answer, the prompt in two chunks: (ours, those of `generate`)."""
    prompt = torch.randint(3, 250, (21,), generator=torch.Generator().manual_seed(7))
    answer = unused_reference(folder).generate(
        prompt[None], max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    chain = Chain(folder)
    chain.rotary_tokens[0] = len(prompt)
    chain.step([(0, 3, prompt[:17])])
    rows = [chain.step([(0, 3, prompt[17:])])[0][-1]]
    for token in answer.sequences[0, len(prompt) : -1]:
        assert int(rows[-1].argmax()) == int(token)
        rows.append(chain.step([(0, 3, token[None])])[0][-1])
    return torch.stack(rows), torch.cat(answer.logits)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.family}: {case.shown.split(',')[0]}")
def test_logits_equal_those_of_transformers(case: Case, tmp_path: Path) -> None:
    settings = {**UNUSUAL.get(case.family, {}), **case.settings}
    folder = tiny_checkpoint(tmp_path, case.family, seed=3, random_vectors=True, **settings)
    checkpoint = Checkpoint(folder)
    checkpoint.check_tensors()
    assert checkpoint.ties_embeddings == case.shown.endswith("tied")
    difference = largest_difference([*run_mixed(folder), generated(folder)])
    print(f"| `{case.family}` | {case.shown} | {difference:.0e} |")  # a row of the page: pytest -rP shows it
    assert difference <= TOLERANCE


def test_experts_in_mxfp4_are_kept_on_a_cpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Beside the same model with weights that transformers has expanded."""
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    tiny_checkpoint(plain, "gpt_oss", seed=3, **UNUSUAL["gpt_oss"])
    tiny_checkpoint(packed, "gpt_oss", seed=3, **UNUSUAL["gpt_oss"])
    tensors, codes = load_file(plain / "model.safetensors"), {}
    generator = torch.Generator().manual_seed(5)
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inputs, outputs = tensors[name].shape
        blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8, generator=generator)
        scales = torch.randint(121, 124, (experts, outputs, inputs // 32), dtype=torch.uint8, generator=generator)
        codes |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        tensors[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    others = {name: tensor for name, tensor in tensors.items() if not name.endswith(("gate_up_proj", "down_proj"))}
    save_file(others | codes, packed / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((packed / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    (packed / "config.json").write_text(json.dumps(config))
    Checkpoint(packed).check_tensors()
    assert "stored in mxfp4. CPUs keep them so; GPUs expand them" in caplog.text
    kept = Checkpoint(packed).read_layer(1, torch.float32, torch.device("cpu"))["mlp.experts.down_proj"]
    assert {matrix.kind for matrix in kept} == {"mxfp4"}
    assert largest_difference(run_mixed(packed, plain)) <= TOLERANCE
    elsewhere = Checkpoint(packed).read_layer(1, torch.float32, torch.device("meta"))["mlp.experts.down_proj"]
    assert elsewhere.shape == (len(kept), *reversed(kept[0].shape))


def test_the_page_lists_every_case() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    assert [(family, shown) for family, shown, _ in rows] == [(case.family, case.shown) for case in CASES]
    assert {case.family for case in CASES} == set(FAMILIES)
    assert all(float(difference) <= TOLERANCE for _, _, difference in rows)
