"""The tensors that a checkpoint of a served family must hold, by name, with their shapes.

The tests compare them with the parameters of transformers' own models. They are written out here because the check
runs in the user's process, which needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helix_kit.errors import InputError
from helix_kit.model import Model

Shapes = dict[str, tuple[int, ...]]
HEAD = "lm_head.weight"
"""The output projection."""
ROTARY_TABLE = "rotary_emb.inv_freq"
"""End of the names of tables that old checkpoints store and that transformers computes today."""


def expected_tensors(config: Mapping[str, Any], model: Model, *, with_head: bool) -> Shapes:
    """Shape of each tensor, with the output projection or without it.

    `model` has the sizes, `config` the family and its switches.
    """
    hidden = model.hidden_size
    shapes: Shapes = {"model.embed_tokens.weight": (model.vocab_size, hidden), "model.norm.weight": (hidden,)}
    if with_head:
        shapes[HEAD] = (model.vocab_size, hidden)
    layer = _layer(config, model)
    for index in range(model.num_layers):
        shapes.update({f"model.layers.{index}.{name}": shape for name, shape in layer.items()})
    return shapes


def _layer(config: Mapping[str, Any], model: Model) -> Shapes:
    family, hidden, width = config["model_type"], model.hidden_size, model.intermediate_size
    q, kv = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    shapes: Shapes = {"self_attn.o_proj.weight": (hidden, q), "mlp.down_proj.weight": (hidden, width)}
    if family == "phi3":
        shapes["self_attn.qkv_proj.weight"] = (q + 2 * kv, hidden)
        shapes["mlp.gate_up_proj.weight"] = (2 * width, hidden)
    else:
        shapes |= {f"self_attn.{name}_proj.weight": (rows, hidden) for name, rows in (("q", q), ("k", kv), ("v", kv))}
        shapes |= {f"mlp.{name}_proj.weight": (width, hidden) for name in ("gate", "up")}
    norms = ["post_attention_layernorm", "post_feedforward_layernorm" if family == "olmo2" else "input_layernorm"]
    shapes |= {f"{name}.weight": (hidden,) for name in norms}
    if family == "olmo2":
        shapes |= {"self_attn.q_norm.weight": (q,), "self_attn.k_norm.weight": (kv,)}
    if family == "qwen3":
        shapes |= {f"self_attn.{name}_norm.weight": (model.head_dim,) for name in ("q", "k")}
    biased = {"llama": "attention_bias", "olmo2": "attention_bias", "qwen3": "attention_bias"}.get(family)
    if family == "qwen2" or (biased and config.get(biased)):
        names = ("q", "k", "v") if family == "qwen2" else ("q", "k", "v", "o")
        shapes |= {f"self_attn.{n}_proj.bias": shapes[f"self_attn.{n}_proj.weight"][:1] for n in names}
    if family == "llama" and config.get("mlp_bias"):
        shapes |= {f"mlp.{n}_proj.bias": shapes[f"mlp.{n}_proj.weight"][:1] for n in ("gate", "up", "down")}
    return shapes


def check_names(expected: Shapes, found: set[str], where: object) -> None:
    """Raise InputError for the first tensor that is missing, or that a layer does not have.

    Tensors outside the layers of the model may be there: checkpoints carry heads for drafts and unused layers.
    """
    missing = [name for name in expected if name not in found]
    if missing and not any(name.startswith("model.") for name in found) and "embed_tokens.weight" in found:
        expected_text = "tensors without the prefix 'model.': expected a causal language model, not its body alone"
        raise InputError(expected_text, where=where)
    head = sorted(name for name in found if name.split(".")[0] in {"score", "classifier", "qa_outputs"})
    if head:
        expected_text = "is the head of a classifier: expected a causal language model with lm_head.weight"
        raise InputError(f"tensor {head[0]!r} {expected_text}", where=where)
    if missing:
        rest = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        hint = ""
        if missing == [HEAD]:
            hint = ": expected it, or tie_word_embeddings in config.json"
        raise InputError(f"tensor {missing[0]!r} is missing{rest}{hint}", where=where)
    layers = {".".join(name.split(".")[:3]) + "." for name in expected if name.startswith("model.layers.")}
    for name in sorted(found - set(expected)):
        if ".".join(name.split(".")[:3]) + "." in layers and not name.endswith(ROTARY_TABLE):
            raise InputError(f"tensor {name!r} is not part of the layer that config.json describes", where=where)
