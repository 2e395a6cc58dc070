"""The tensors that a checkpoint of a served family must hold, by name, with their shapes.

The tests compare them with the parameters of transformers' own models. They are written out here because the check
runs in the user's process, which needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helix_kit.errors import InputError
from helix_kit.hf_config import EXPERT_FAMILIES
from helix_kit.hf_config import FAMILIES as DENSE_FAMILIES
from helix_kit.hf_config.layer_parts import LayerReader
from helix_kit.hf_config.layout import layers_with_experts
from helix_kit.hf_config.left_out import with_left_out
from helix_kit.model import Model
from helix_kit.runtime.weights import mxfp4
from helix_kit.runtime.weights.families import LAYER_NAMES, ExpertNames

Shapes = dict[str, tuple[int, ...]]
HEAD = "lm_head.weight"
"""The output projection."""
ROTARY_TABLE = "rotary_emb.inv_freq"
"""End of the names of tables that old checkpoints store and that transformers computes today."""
CACHE_SCALES = tuple(f"self_attn.{part}_{end}" for part in "qkv" for end in ("scale", "zero_point"))
"""Ends of the names of tensors that belong to a KV cache of few bits."""


def expected_tensors(config: Mapping[str, Any], model: Model, *, with_head: bool) -> Shapes:
    """Shape of each tensor, with the output projection or without it.

    `model` has the sizes, `config` the family and its switches.
    """
    hidden = model.hidden_size
    shapes: Shapes = {"model.embed_tokens.weight": (model.vocab_size, hidden), "model.norm.weight": (hidden,)}
    if with_head:
        shapes[HEAD] = (model.vocab_size, hidden)
    kind = config["model_type"]
    family = {**DENSE_FAMILIES, **EXPERT_FAMILIES}[kind]
    config = with_left_out(config, kind)
    reader = LayerReader.of(config, "config.json", kind, family)
    attention = _attention(reader)
    for index, has_experts in enumerate(layers_with_experts(config, "config.json", family, model.num_layers)):
        layer = attention | (_experts(reader) if has_experts else _mlp(reader))
        shapes.update({f"model.layers.{index}.{name}": shape for name, shape in layer.items()})
    return shapes


def _attention(reader: LayerReader) -> Shapes:
    """Attention and the norms of the hidden state."""
    family, names, hidden = reader.family, LAYER_NAMES[reader.kind], reader.hidden
    q, kv = reader.heads * reader.head_dim, reader.kv_heads * reader.head_dim
    inputs = {"qkv": q + 2 * kv} if names.joined else {"q": q, "k": kv, "v": kv}
    shapes: Shapes = {f"self_attn.{name}_proj.weight": (rows, hidden) for name, rows in inputs.items()}
    shapes["self_attn.o_proj.weight"] = (hidden, q)
    if reader.is_on(family.qkv_bias):
        shapes |= {f"self_attn.{name}_proj.bias": (rows,) for name, rows in inputs.items()}
    if reader.is_on(family.out_bias):
        shapes["self_attn.o_proj.bias"] = (hidden,)
    if family.qk_norm:
        widths = (reader.head_dim,) * 2 if family.qk_norm == "head" else (q, kv)
        shapes |= {f"self_attn.{name}_norm.weight": (width,) for name, width in zip("qk", widths, strict=True)}
    if family.heads_vector:
        shapes["self_attn.sinks"] = (reader.heads,)
    return shapes | {f"{name}.weight": (hidden,) for name in names.norms}


def _mlp(reader: LayerReader) -> Shapes:
    width, hidden = reader.width, reader.hidden
    inputs = {"gate_up": 2 * width} if LAYER_NAMES[reader.kind].joined else {"gate": width, "up": width}
    shapes: Shapes = {f"mlp.{name}_proj.weight": (rows, hidden) for name, rows in inputs.items()}
    shapes["mlp.down_proj.weight"] = (hidden, width)
    if reader.is_on(reader.family.mlp_bias):
        shapes |= {f"mlp.{name}_proj.bias": (rows,) for name, rows in (inputs | {"down": hidden}).items()}
    return shapes


def _experts(reader: LayerReader) -> Shapes:
    names, experts, hidden = LAYER_NAMES[reader.kind].experts, reader.mlp(has_experts=True), reader.hidden
    assert names is not None and reader.family.experts is not None
    count, width, block = experts.experts, experts.width, names.block
    shapes: Shapes = {f"{block}.{names.router}.weight": (count, hidden)}
    if names.stacked:
        for name, inputs, outputs in (("gate_up_proj", hidden, 2 * width), ("down_proj", width, hidden)):
            if reader.config.get("quantization_config"):  # mxfp4, or the config would have been refused
                groups = inputs // mxfp4.GROUP
                shapes[f"{block}.experts.{name}{mxfp4.BLOCKS}"] = (count, outputs, groups, mxfp4.GROUP // 2)
                shapes[f"{block}.experts.{name}{mxfp4.SCALES}"] = (count, outputs, groups)
            else:
                shapes[f"{block}.experts.{name}"] = (count, inputs, outputs)
    for index in range(0 if names.stacked else count):
        shapes |= _gated(f"{block}.experts.{index}", names, width, hidden)
    if reader.family.experts.bias:
        shapes[f"{block}.{names.router}.bias"] = (count,)
        shapes[f"{block}.experts.gate_up_proj_bias"] = (count, 2 * width)
        shapes[f"{block}.experts.down_proj_bias"] = (count, hidden)
    if names.shared:
        shapes |= _gated(f"{block}.{names.shared}", names, experts.matrices // (3 * hidden), hidden)
    if names.shared_gate:
        shapes[f"{block}.{names.shared_gate}.weight"] = (1, hidden)
    return shapes


def _gated(prefix: str, names: ExpertNames, width: int, hidden: int) -> Shapes:
    """The three matrices of one gated MLP."""
    shapes: Shapes = {f"{prefix}.{name}.weight": (width, hidden) for name in (names.gate, names.up)}
    return shapes | {f"{prefix}.{names.down}.weight": (hidden, width)}


def is_unused(name: str) -> bool:
    """Whether no layer reads the tensor: the rotary table of old checkpoints, or scales of a KV cache of few bits."""
    return name.endswith((ROTARY_TABLE, *CACHE_SCALES))


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
