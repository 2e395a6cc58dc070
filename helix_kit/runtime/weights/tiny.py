"""A tiny random model in the format of a real one, and plans for it: for tests, and to try the runtime on any machine.

>>> from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan
>>> folder = tiny_checkpoint("out/tiny")                                              # doctest: +SKIP
>>> plan = tiny_plan(folder, {"first": (0, 4), "second": (2, 6)})                     # doctest: +SKIP

Its answers mean nothing, but they are computed as exactly as those of a large model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helix_kit.cluster import Cluster
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.profiles.profile import Curve, Profile
from helix_kit.typical_request import MeanLengths

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 512,
}
_EXPERTS: dict[str, Any] = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
UNUSUAL: dict[str, dict[str, Any]] = {
    # Windows are shorter than the prompts of tests, so that they mask tokens.
    "cohere2": {"sliding_window": 12, "logit_scale": 0.25},
    "gemma": {"head_dim": 32},
    "gemma2": {
        "head_dim": 32,
        "sliding_window": 12,
        "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 8.0,
    },
    "gemma3_text": {"head_dim": 32, "sliding_window": 12, "sliding_window_pattern": 3, "query_pre_attn_scalar": 24},
    "gpt_oss": {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": 12, "head_dim": 16},
    "granite": {
        "embedding_multiplier": 3.0,
        "logits_scaling": 2.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.2,
    },
    "mistral": {"sliding_window": 12},
    "mixtral": {"num_local_experts": 5, "sliding_window": 12},
    "olmo3": {"sliding_window": 12},
    "olmoe": {"num_experts": 6, "num_experts_per_tok": 2},
    "phi3": {"tie_word_embeddings": False, "partial_rotary_factor": 0.5},
    "qwen2_moe": {
        **_EXPERTS,
        "shared_expert_intermediate_size": 80,
        "mlp_only_layers": [1],
        "use_sliding_window": True,
        "sliding_window": 12,
        "max_window_layers": 3,
    },
    # head_dim is not hidden_size / heads here, as in the real Qwen3.
    "qwen3": {"head_dim": 32},
    "qwen3_moe": {**_EXPERTS, "head_dim": 32, "norm_topk_prob": True, "decoder_sparse_step": 2},
    "seed_oss": {"head_dim": 32},
}
"""Family -> settings by which its layers differ from a Llama's, for comparisons of layers."""
REQUESTS = MeanLengths(12, 8, "tiny requests")
"""What tiny plans are for: their nodes may hold a few pages only."""


def tiny_checkpoint(
    folder: str | Path, family: str = "llama", *, seed: int = 0, random_vectors: bool = False, **overrides: Any
) -> Path:
    """Write a random model of `family` (a transformers `model_type`) with a toy tokenizer; returns the folder.

    `random_vectors` changes norms, biases and sinks, too, which are ones and zeros otherwise. `overrides` are fields of
    config.json.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = Path(folder)
    settings = {**SIZES, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **overrides}
    config = AutoConfig.for_model(family, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        # Larger than the usual initialisation, so that logits differ more, and greedy answers do not repeat one token
        # from the beginning.
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.3 if "embed" in name or "lm_head" in name else 0.12)
        for weight in model.parameters() if random_vectors else ():
            if weight.dim() == 1:
                weight.data += 0.3 * torch.randn(weight.shape)
    with _no_progress_bars():
        model.save_pretrained(folder)
    # Each token is a word, w3, w4, ..., so that text is readable.
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keeps transformers from drawing a bar on stderr for a file that is written in a moment."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def tiny_plan(
    folder: str | Path,
    placement: Mapping[str, tuple[int, int]],
    *,
    kv_tokens_per_layer: int = 4096,
    step_ms: float = 0.0,
    gpu: str = "CPU-fast",
    quantize: str | None = None,
) -> Plan:
    """A plan with this placement for the model in `folder`, on one node of kind `gpu` per name.

    `kv_tokens_per_layer` is the KV capacity of a node for each layer that it holds. `step_ms` is the time of a step per
    layer in the profile, half of it for prefill and half for decode, whatever the step's size; it matters only when the
    engine paces. `quantize` is what the weights are rounded to when they are loaded.
    """
    model = Model.from_hf(folder, dtype_bytes=4)
    if quantize is not None:
        model = model.quantized(quantize)
    cluster = Cluster.model_validate(
        {"name": "tiny", "nodes": [{"name": name, "gpu": gpu} for name in placement]},
    )
    layers = range(1, model.num_layers + 1)
    # The throughputs only weigh the pipelines against each other: each layer costs the same.
    curve = Curve(x=(0.0, 1.0, 1e6), y=(0.0, max(step_ms / 2, 1e-3), max(step_ms / 2, 2e-3)))
    profile = Profile(
        kind=gpu,
        model=model.name,
        source="made up for a tiny model",
        prefill_ms_per_layer=curve,
        decode_ms_per_layer=curve,
        kv_capacity_layer_tokens=tuple(kv_tokens_per_layer * k for k in layers),
        prefill_max_requests=(4,) * model.num_layers,
        decode_max_requests=(64,) * model.num_layers,
    )
    problem = Problem(cluster, model, {gpu: profile}, {gpu: tuple(1000.0 / k for k in layers)}, REQUESTS)
    return Plan.from_placement(problem, dict(placement), method="hand-made")
