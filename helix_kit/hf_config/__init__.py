"""Sizes of a model from its Hugging Face ``config.json``.

Each family of `FAMILIES` and `EXPERT_FAMILIES` is a decoder whose layers this folder counts exactly: the tests compare
every family with the parameters of transformers' own layers. Whatever the tables do not describe is refused by name:
other families, other hybrids, other ways to quantise, encoders.
"""

from __future__ import annotations

from helix_kit.hf_config.context import read_context_tokens
from helix_kit.hf_config.expert_families import EXPERT_ALIASES, EXPERT_FAMILIES
from helix_kit.hf_config.families import FAMILIES, TEXT_MODELS
from helix_kit.hf_config.fields import DTYPE_BYTES, token_id_bytes
from helix_kit.hf_config.quantization import check_no_other_file, low_bit_cache, with_old_names
from helix_kit.hf_config.read import read_sizes

__all__ = [
    "DTYPE_BYTES",
    "EXPERT_ALIASES",
    "EXPERT_FAMILIES",
    "FAMILIES",
    "TEXT_MODELS",
    "check_no_other_file",
    "low_bit_cache",
    "read_context_tokens",
    "read_sizes",
    "token_id_bytes",
    "with_old_names",
]
