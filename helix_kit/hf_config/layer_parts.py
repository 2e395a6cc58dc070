"""Counts the parameters of one layer, part by part, as a family builds it.

Parts are kept apart because quantisation stores them differently: matrices may be quantised, vectors (norms, biases)
and routers are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from helix_kit.errors import InputError
from helix_kit.hf_config.families import Family, Switch
from helix_kit.hf_config.fields import ALIASES, need, optional, size, whole_heads

FOUR_TIMES = {"bloom", "falcon", "gpt2", "gpt_bigcode", "gptj"}
"""Families whose MLP is four times as wide as the hidden size where the config gives no width."""
_COUNTS = ("num_local_experts", "num_experts")
"""Names that files written by transformers give the number of experts, whatever the family's own name."""


@dataclass(frozen=True)
class Attention:
    """Parameters and cache of a layer's attention."""

    matrices: int
    vectors: int
    kv_elements: int
    """Elements that a token adds to the cache."""
    state_elements: int = 0
    """Elements of a request's state, whatever its length. They are kept in 32 bits."""


@dataclass(frozen=True)
class Mlp:
    """Parameters of a layer's MLP or experts."""

    matrices: int
    """Of a dense MLP, or of the shared experts."""
    vectors: int
    """What stays as it is: biases, router, gates."""
    experts: int = 0
    active: int = 0
    shared: int = 0
    width: int = 0
    expert_matrices: int = 0
    expert_vectors: int = 0


@dataclass(frozen=True)
class LayerReader:
    """Reads the parts of a config's layers."""

    config: Mapping[str, Any]
    where: str
    kind: str
    """``model_type``."""
    family: Family
    switches: Mapping[str, bool] = field(default_factory=dict)
    """Value of each switch."""

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str, kind: str, family: Family) -> LayerReader:
        """The reader of a config of this family."""
        for switch in family.refused:
            if config.get(switch):
                raise InputError(f"not supported for {kind}", where=where, field=switch, value=config[switch])
        for switch in [name for name, _ in family.defaults if config.get(name) is not None]:
            if not isinstance(config[switch], bool):  # a 1 or a text would be taken for off
                raise InputError("expected true or false", where=where, field=switch, value=config[switch])
        given = {name: value for name, value in config.items() if isinstance(value, bool)}
        return cls(config, where, kind, family, {**dict(family.defaults), **given})

    def is_on(self, switch: Switch) -> bool:
        """Whether a part is there."""
        return self.switches[switch] if isinstance(switch, str) else switch

    @property
    def hidden(self) -> int:
        """Hidden size."""
        return need(self.config, self.where, *ALIASES["hidden_size"])

    @property
    def heads(self) -> int:
        """Query heads."""
        return need(self.config, self.where, *ALIASES["num_heads"])

    @property
    def kv_heads(self) -> int:
        """Key-value heads."""
        family, config, where = self.family, self.config, self.where
        if family.kv_heads == "all" or (family.kv_heads == "multi_query" and not config.get("multi_query", True)):
            return self.heads
        if family.kv_heads == "multi_query":
            return 1
        if family.kv_heads == "required":
            need(config, where, "num_key_value_heads")
        name = "num_kv_heads" if family.kv_heads == "num_kv_heads" else "num_key_value_heads"
        given = optional(config, where, name) or self.heads
        if self.heads % given:
            raise InputError(f"expected a divisor of the {self.heads} heads", where=where, field=name, value=given)
        return given

    @property
    def head_dim(self) -> int:
        """Size of a head; of a query's head under latent attention."""
        if self.family.latent:
            return need(self.config, self.where, "qk_nope_head_dim") + need(self.config, self.where, "qk_rope_head_dim")
        given = optional(self.config, self.where, "head_dim")
        return given or self.family.head_dim or whole_heads(self.hidden, self.heads, self.where)

    @property
    def width(self) -> int:
        """Width of a dense MLP. Where no layer has one, that of an expert."""
        fields = ALIASES["intermediate_size"]
        if self.kind == "bloom":
            return 4 * self.hidden
        if self.kind in FOUR_TIMES and all(self.config.get(name) is None for name in fields):
            return 4 * self.hidden
        if self.kind == "llama4_text":
            fields = ("intermediate_size_mlp",)
        if self.family.experts and all(self.config.get(name) is None for name in fields):
            fields = (self.family.experts.width,)
        return need(self.config, self.where, *fields)

    def norm_vectors(self) -> int:
        """Parameters of the norms of the hidden state."""
        per_norm = 0 if self.switches.get("layer_norm_elementwise_affine") is False else self.family.norm_params
        return per_norm * self.family.norms * self.hidden

    def attention(self, attention_type: str) -> Attention:
        """The attention of a layer of this type."""
        if attention_type == "linear_attention":
            return self._linear_attention()
        return self._latent_attention() if self.family.latent else self._heads_attention()

    def _heads_attention(self) -> Attention:
        family, hidden = self.family, self.hidden
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        queries = 2 * q if family.gated_query else q
        vectors = self.is_on(family.qkv_bias) * (queries + 2 * kv) + self.is_on(family.out_bias) * hidden
        vectors += family.heads_vector * self.heads
        if family.qk_norm and (not family.qk_norm_if or self.is_on(family.qk_norm_if)):
            vectors += 2 * self.head_dim if family.qk_norm == "head" else q + kv
        return Attention(hidden * (queries + q) + 2 * hidden * kv, vectors, 2 * kv)

    def _latent_attention(self) -> Attention:
        """Queries, keys and values through a low rank (DeepSeek-V2, section 2.1); the cache holds the latent vector."""
        config, where, hidden, heads = self.config, self.where, self.hidden, self.heads
        rank, rope = need(config, where, "kv_lora_rank"), need(config, where, "qk_rope_head_dim")
        nope, value = need(config, where, "qk_nope_head_dim"), need(config, where, "v_head_dim")
        queries, query_rank = heads * (nope + rope), optional(config, where, "q_lora_rank")
        has_bias = self.is_on(self.family.qkv_bias)
        matrices = hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden
        vectors = rank + has_bias * (rank + rope + hidden)
        if query_rank:
            matrices += hidden * query_rank + query_rank * queries
            vectors += query_rank + has_bias * query_rank
        else:
            matrices += hidden * queries
        return Attention(matrices, vectors, rank + rope)

    def _linear_attention(self) -> Attention:
        """A gated delta rule: keys and values of their own heads, a short convolution, and a state for each head."""
        config, where = self.config, self.where
        key_heads, value_heads = (
            need(config, where, "linear_num_key_heads"),
            need(config, where, "linear_num_value_heads"),
        )
        key_dim, value_dim = need(config, where, "linear_key_head_dim"), need(config, where, "linear_value_head_dim")
        kernel = optional(config, where, "linear_conv_kernel_dim") or 4
        keys, values = key_heads * key_dim, value_heads * value_dim
        matrices = self.hidden * (2 * keys + 2 * values + 2 * value_heads) + values * self.hidden
        vectors = (2 * keys + values) * kernel + 2 * value_heads + value_dim
        return Attention(matrices, vectors, 0, value_heads * key_dim * value_dim + (2 * keys + values) * kernel)

    def mlp(self, has_experts: bool) -> Mlp:
        """The MLP or the experts of a layer."""
        family, hidden = self.family, self.hidden
        if not has_experts:
            width = self.width
            vectors = self.is_on(family.mlp_bias) * ((family.mlp_matrices - 1) * width + hidden)
            return Mlp(family.mlp_matrices * hidden * width, vectors, width=width)
        fields = family.experts
        assert fields is not None
        count = need(self.config, self.where, *dict.fromkeys((fields.count, *_COUNTS)))
        active = need(self.config, self.where, fields.active)
        if active > count:
            expected = f"expected at most {fields.count} = {count}"
            raise InputError(expected, where=self.where, field=fields.active, value=active)
        width = need(self.config, self.where, fields.width)
        shared, shared_width = self._shared(width)
        has_bias = fields.bias or self.is_on(family.mlp_bias)
        shared_biases = self.is_on(family.mlp_bias) * bool(shared_width) * (2 * shared_width + hidden)
        router = hidden * count + fields.bias * count + fields.router_vectors * count
        gate = fields.shared_gate * bool(shared_width) * hidden
        return Mlp(
            matrices=3 * hidden * shared_width,
            vectors=router + gate + shared_biases,
            experts=count, active=active, shared=shared, width=width,
            expert_matrices=3 * hidden * width,
            expert_vectors=fields.bias * has_bias * (2 * width + hidden),
        )  # fmt: skip

    def _shared(self, width: int) -> tuple[int, int]:
        """Shared experts, and the width of all of them together."""
        fields = self.family.experts
        assert fields is not None
        if fields.shared == "one":
            return 1, width
        if not fields.shared:
            return 0, 0
        given = size(self.config, self.where, fields.shared_field)
        return (given, given * width) if fields.shared == "count" else (int(given > 0), given)
